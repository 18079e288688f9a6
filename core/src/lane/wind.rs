//! Winding down without ending: what an operator asks of a lane's listeners while the proxy goes on. Owns who is told to
//! close their connections at their next response, and which listeners accept nobody any more.

use super::Lane;
use crate::{chance::below, compile, control::Which};
use corelane_io::Instant;
use std::{cell::Cell, rc::Rc, time::Duration};

/// Clients are told to close, each at a response of theirs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Winding {
    since: Instant,
    /// So long until every response ends its connection; before, the share of them that has passed of this time (Envoy
    /// `--drain-strategy gradual`). None from the first on.
    over: Duration,
}

impl Winding {
    /// Whether a response ends its connection.
    pub(crate) fn closes(&self, now: Instant, random: u64) -> bool {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let passed = now - self.since;
        passed >= self.over || nanos(passed) > below(random, nanos(self.over))
    }
}

/// What was asked for so far.
#[derive(Default)]
pub(crate) struct Wind {
    /// Health checks are to fail, so that clients go elsewhere.
    unhealthy: Cell<bool>,
    /// Listeners whose clients are told to close: all, and those for what comes from elsewhere.
    down: Cell<[Option<Winding>; 2]>,
    /// Listeners that are stopped, those that come later too.
    stopped: Cell<Option<Which>>,
}

impl Wind {
    /// How responses of a listener's clients end their connections; `None` where they do not.
    pub(crate) fn of(&self, listener: &compile::Listener, now: Instant) -> Option<Winding> {
        if self.unhealthy.get() && !listener.config().accepting.ignores_failing_health {
            return Some(Winding { since: now, over: Duration::ZERO });
        }
        let [all, inbound] = self.down.get();
        all.or(inbound.filter(|_| Which::Inbound.covers(listener)))
    }

    pub(crate) fn is_stopped(&self, listener: &compile::Listener) -> bool {
        self.stopped.get().is_some_and(|which| which.covers(listener))
    }
}

impl Lane {
    /// Whether health checks are to fail.
    pub(crate) fn is_unhealthy(&self) -> bool {
        self.wind.unhealthy.get()
    }

    /// Has clients told to close their connections while health checks fail.
    pub(crate) fn set_unhealthy(&self, unhealthy: bool) {
        self.wind.unhealthy.set(unhealthy);
        self.wind_all();
    }

    /// Has clients of some listeners told to close their connections, all of them when `over` has passed. Who asks again
    /// changes nothing: it has begun.
    pub(crate) fn wind_down(&self, which: Which, over: Duration) {
        let mut down = self.wind.down.get();
        down[usize::from(which == Which::Inbound)].get_or_insert(Winding { since: self.io.now(), over });
        self.wind.down.set(down);
        self.wind_all();
    }

    /// Stops some listeners after a while. Connections that there are go on until a response ends them.
    pub(crate) fn stop_listeners(self: &Rc<Self>, which: Which, after: Duration) {
        let lane = self.clone();
        let stop = move || {
            lane.wind.stopped.set(Which::both(lane.wind.stopped.get(), which));
            let listeners = lane.listeners.borrow().all();
            listeners.iter().filter(|slot| slot.is_stopped_by(&lane)).for_each(|slot| slot.close());
        };
        if after.is_zero() {
            return stop();
        }
        let io = self.io.clone();
        self.io.spawn(async move {
            io.sleep(after).await;
            stop();
        });
    }

    fn wind_all(&self) {
        let listeners = self.listeners.borrow().all();
        listeners.iter().for_each(|slot| slot.wind(self));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_io::{Config, sim::World};

    #[test]
    fn responses_close_with_the_share_of_the_time_that_has_passed() {
        let since = World::new(1).lane(&Config::default()).now();
        let over = Duration::from_secs(10);
        let winding = Winding { since, over };
        let closing = |after: Duration| {
            (0..1000u64).filter(|n| winding.closes(since + after, n * (u64::MAX / 1000))).count()
        };
        assert_eq!(closing(Duration::ZERO), 0);
        assert!((245..=255).contains(&closing(over / 4)));
        assert_eq!(closing(over), 1000);
        assert!(Winding { since, over: Duration::ZERO }.closes(since, u64::MAX));
    }
}
