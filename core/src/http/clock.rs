//! The deadlines of one exchange, as one number: when somebody has to look next. Owns when they begin and which one has
//! passed; reads no clock.
//!
//! There is no timer per deadline. The exchange puts the earliest one on the client's connection, which costs a store in
//! most cases, and compares one number when it is polled.

use crate::error::Timeout;
use corelane_io::Instant;
use std::{cell::Cell, time::Duration};

/// The deadlines of an exchange.
#[derive(Debug)]
pub(crate) struct Clock {
    /// When the request's head had arrived.
    started: Instant,
    /// When a byte of a body last moved, either way.
    active: Cell<Instant>,
    /// How long none may.
    idle: Cell<Option<Duration>>,
    /// Whether that is what one try may wait for its upstream.
    idle_is_of_try: Cell<bool>,
    /// By when the request has to be complete.
    request_by: Cell<Option<Instant>>,
    /// By when everything has to be over.
    over_by: Cell<Option<Instant>>,
    /// The request is complete since.
    complete: Cell<Option<Instant>>,
    /// The head of the upstream's response has come.
    responded: Cell<Option<Instant>>,
    /// How long the response may take from then on.
    response_within: Cell<Option<Duration>>,
    /// When to look next.
    armed: Cell<Option<Instant>>,
    /// Whether a deadline may have come that is earlier than what is armed.
    stale: Cell<bool>,
}

impl Clock {
    pub(crate) fn new(now: Instant, idle: Option<Duration>, request_by: Option<Instant>) -> Clock {
        Clock {
            started: now,
            active: Cell::new(now),
            idle: Cell::new(idle),
            idle_is_of_try: Cell::new(false),
            request_by: Cell::new(request_by),
            over_by: Cell::new(None),
            complete: Cell::new(None),
            responded: Cell::new(None),
            response_within: Cell::new(None),
            armed: Cell::new(None),
            stale: Cell::new(true),
        }
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// A byte of a body moved.
    #[inline]
    pub(crate) fn touch(&self, now: Instant) {
        self.active.set(now);
    }

    /// When a byte of a body last moved.
    pub(crate) fn active(&self) -> Instant {
        self.active.get()
    }

    /// The whole exchange may take so long from its beginning on.
    pub(crate) fn end_within(&self, limit: Duration) {
        self.over_by.set(Some(self.started + limit));
        self.stale.set(true);
    }

    /// From now on the exchange waits for its upstream only, and no longer than `idle` without a byte.
    pub(crate) fn set_idle_of_try(&self, idle: Duration) {
        if self.idle.get().is_none_or(|whole| idle < whole) {
            self.idle.set(Some(idle));
            self.idle_is_of_try.set(true);
            self.stale.set(true);
        }
    }

    /// What the route says: its own idle timeout instead of the connection manager's, and its response timeout.
    pub(crate) fn set_route(&self, idle: Option<Duration>, response_within: Option<Duration>) {
        if let Some(idle) = idle {
            self.idle.set(Some(idle).filter(|idle| !idle.is_zero()));
        }
        self.response_within.set(response_within);
        self.stale.set(true);
    }

    /// How long the response may take from the end of its request on.
    pub(crate) fn response_within(&self) -> Option<Duration> {
        self.response_within.get()
    }

    /// The connection has become something else: neither message has an end that could be late.
    pub(crate) fn switched(&self) {
        self.request_by.set(None);
        self.response_within.set(None);
        self.stale.set(true);
    }

    /// The request has been received completely.
    #[inline]
    pub(crate) fn request_complete(&self, now: Instant) {
        if self.complete.get().is_none() {
            self.complete.set(Some(now));
            self.stale.set(true);
        }
    }

    pub(crate) fn complete(&self) -> Option<Instant> {
        self.complete.get()
    }

    /// The upstream's response has begun.
    #[inline]
    pub(crate) fn respond(&self, now: Instant) {
        self.responded.set(Some(now));
    }

    /// When the upstream's response began.
    pub(crate) fn responded(&self) -> Option<Instant> {
        self.responded.get()
    }

    pub(crate) fn is_request_complete(&self) -> bool {
        self.complete.get().is_some()
    }

    /// Whether the deadlines changed so that the connection's is too late or missing: the new one.
    #[inline]
    pub(crate) fn rearm(&self) -> Option<Instant> {
        if !self.stale.replace(false) {
            return None;
        }
        let next = self.next();
        let late = match (self.armed.get(), next) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(armed), Some(next)) => next < armed,
        };
        if !late {
            return None;
        }
        self.armed.set(next);
        next
    }

    /// Whether the time for the response is over at `now`; changes nothing.
    pub(crate) fn is_response_late(&self, now: Instant) -> bool {
        self.response_by().is_some_and(|at| at <= now)
    }

    /// Which deadline has passed at `now`. Cheap while none can have: one comparison.
    #[inline]
    pub(crate) fn check(&self, now: Instant) -> Option<Timeout> {
        if self.armed.get().is_none_or(|armed| now < armed) {
            return None;
        }
        self.armed.set(None);
        self.stale.set(true);
        let passed = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if passed(self.response_by()) {
            Some(Timeout::Response)
        } else if passed(self.over_by.get()) {
            let complete = self.is_request_complete();
            Some(if complete { Timeout::ResponseDuration } else { Timeout::Duration })
        } else if !self.is_request_complete() && passed(self.request_by.get()) {
            Some(Timeout::Request)
        } else if passed(self.idle_by()) && self.idle_is_of_try.get() {
            Some(Timeout::PerTryIdle)
        } else if passed(self.idle_by()) {
            Some(if self.is_request_complete() { Timeout::ResponseIdle } else { Timeout::StreamIdle })
        } else {
            None
        }
    }

    fn next(&self) -> Option<Instant> {
        let request_by = if self.is_request_complete() { None } else { self.request_by.get() };
        earlier(earlier(earlier(request_by, self.response_by()), self.over_by.get()), self.idle_by())
    }

    fn response_by(&self) -> Option<Instant> {
        Some(self.complete.get()? + self.response_within.get()?)
    }

    fn idle_by(&self) -> Option<Instant> {
        Some(self.active.get() + self.idle.get()?)
    }
}

/// The earlier of two times, of which either may be absent.
#[inline]
pub(crate) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b < a { b } else { a }),
        (one, None) | (None, one) => one,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_io::{Config, sim::World};

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn start() -> Instant {
        World::new(1).lane(&Config::default()).now()
    }

    #[test]
    fn the_earliest_deadline_is_armed_and_named_when_it_passes() {
        let t = start();
        let clock = Clock::new(t, Some(ms(300)), Some(t + ms(200)));
        assert_eq!(clock.rearm(), Some(t + ms(200)));
        assert_eq!(clock.rearm(), None, "armed already");
        assert_eq!(clock.check(t + ms(199)), None);
        assert_eq!(clock.check(t + ms(200)), Some(Timeout::Request));
    }

    #[test]
    fn a_complete_request_is_timed_by_its_route() {
        let t = start();
        let clock = Clock::new(t, Some(ms(300)), Some(t + ms(200)));
        clock.set_route(None, Some(ms(50)));
        assert_eq!(clock.rearm(), Some(t + ms(200)), "the response has not begun to be late");
        clock.request_complete(t + ms(100));
        assert_eq!(clock.rearm(), Some(t + ms(150)));
        assert_eq!(clock.check(t + ms(150)), Some(Timeout::Response));
    }

    #[test]
    fn an_exchange_ends_within_its_duration() {
        let t = start();
        let clock = Clock::new(t, Some(ms(300)), None);
        clock.end_within(ms(200));
        assert_eq!(clock.rearm(), Some(t + ms(200)));
        clock.touch(t + ms(199));
        assert_eq!(clock.check(t + ms(200)), Some(Timeout::Duration));
        clock.request_complete(t + ms(200));
        assert_eq!(clock.rearm(), Some(t + ms(200)));
        assert_eq!(clock.check(t + ms(201)), Some(Timeout::ResponseDuration));
    }

    #[test]
    fn a_try_may_be_less_patient_than_the_exchange() {
        let t = start();
        let clock = Clock::new(t, Some(ms(100)), None);
        clock.set_idle_of_try(ms(200));
        assert_eq!(clock.rearm(), Some(t + ms(100)));
        assert_eq!(clock.check(t + ms(100)), Some(Timeout::StreamIdle), "the exchange's own was earlier");
        let clock = Clock::new(t, None, None);
        clock.set_idle_of_try(ms(50));
        clock.touch(t + ms(10));
        assert_eq!(clock.rearm(), Some(t + ms(60)));
        assert_eq!(clock.check(t + ms(60)), Some(Timeout::PerTryIdle));
    }

    #[test]
    fn activity_puts_off_the_idle_timeout_only() {
        let t = start();
        let clock = Clock::new(t, Some(ms(100)), None);
        assert_eq!(clock.rearm(), Some(t + ms(100)));
        clock.touch(t + ms(90));
        assert_eq!(clock.check(t + ms(100)), None, "the armed deadline was early");
        assert_eq!(clock.rearm(), Some(t + ms(190)));
        assert_eq!(clock.check(t + ms(190)), Some(Timeout::StreamIdle));
        clock.request_complete(t + ms(190));
        assert_eq!(clock.rearm(), Some(t + ms(190)));
        assert_eq!(clock.check(t + ms(191)), Some(Timeout::ResponseIdle));
        clock.set_route(Some(Duration::ZERO), None);
        assert_eq!(clock.rearm(), None, "a route's zero waits for ever");
    }
}
