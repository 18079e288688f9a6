//! Flow control (RFC 9113 section 5.2 and 6.9): what may be sent, and what the peer may send. Owns the arithmetic; which
//! stream a window belongs to is its holder's to know.

use super::frame::SIZE_MIN;

/// The largest window.
pub(super) const WINDOW_MAX: i64 = 0x7fff_ffff;

/// What may be sent. It can be below zero, after the peer has made its windows smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SendWindow(i32);

/// A window would be over 2^31-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overflow;

impl SendWindow {
    pub(super) const fn new(size: u32) -> SendWindow {
        // Settings refuse more than the largest window.
        SendWindow(size as i32)
    }

    /// How many bytes may go now.
    #[inline]
    pub(super) fn available(self) -> usize {
        self.0.max(0) as usize
    }

    /// They have gone: no more than were available.
    #[inline]
    pub(super) fn take(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.available());
        self.0 -= bytes as i32;
    }

    /// The window grows, or shrinks where the peer changed a setting. `true` if something may go that could not.
    pub(super) fn change(&mut self, by: i64) -> Result<bool, Overflow> {
        let (before, now) = (self.0, i64::from(self.0) + by);
        if now > WINDOW_MAX {
            return Err(Overflow);
        }
        // Both ends of the sum are 32 bits and the largest settings differ by 2^31-1: it cannot fall below i32.
        self.0 = now.max(i64::from(i32::MIN)) as i32;
        Ok(before <= 0 && now > 0)
    }
}

/// What the peer may send, and what of it is still held by whoever takes it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReceiveWindow {
    /// How much may be on its way or held.
    size: i64,
    /// What the peer may still send.
    available: i64,
    /// What has come and was not released.
    held: u32,
}

impl ReceiveWindow {
    /// A window of which the peer knows.
    pub(super) const fn new(size: u32) -> ReceiveWindow {
        ReceiveWindow { size: size as i64, available: size as i64, held: 0 }
    }

    /// Data has come: `false` if it is more than was allowed.
    #[inline]
    #[must_use]
    pub(super) fn receive(&mut self, bytes: u32) -> bool {
        self.available -= i64::from(bytes);
        self.held += bytes;
        self.available >= 0
    }

    /// Data has gone on. Returns how much of it there was.
    #[inline]
    pub(super) fn release(&mut self, bytes: u32) -> u32 {
        let released = bytes.min(self.held);
        self.held -= released;
        released
    }

    pub(super) fn held(&self) -> u32 {
        self.held
    }

    /// Whether the peer may send less than a frame.
    #[inline]
    pub(super) fn is_short(&self) -> bool {
        self.available < i64::from(SIZE_MIN)
    }

    /// The window from now on; what the peer may send changes only with [`due`](ReceiveWindow::due).
    pub(super) fn resize(&mut self, size: u32) {
        self.size = i64::from(size);
    }

    /// As [`resize`](ReceiveWindow::resize), where a setting has already told the peer.
    pub(super) fn resize_told(&mut self, size: u32) {
        self.available += i64::from(size) - self.size;
        self.resize(size);
    }

    /// The increment to tell the peer, if it is time: when it is as much as the peer may still send. So a stream costs one
    /// update for each half window; and when most of the window is held by who does not move, the rest still does.
    ///
    /// `lent`: as much as this of what is held does not count. Where who takes the data on keeps up with it the window doubles
    /// with each update, up to `max`.
    #[inline]
    pub(super) fn due(&mut self, lent: u32, max: u32) -> Option<u32> {
        let missing = |window: &ReceiveWindow| {
            window.size - i64::from(window.held.saturating_sub(lent)) - window.available
        };
        let mut increment = missing(self);
        if increment <= 0 || increment < self.available {
            return None;
        }
        if self.size < i64::from(max) && i64::from(self.held) * 8 <= self.size {
            self.size = (self.size * 2).min(i64::from(max));
            increment = missing(self);
        }
        // What is lent is beside the window, which together have a bound too.
        increment = increment.min(WINDOW_MAX - self.available);
        self.available += increment;
        (increment > 0).then_some(increment as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_window_falls_below_zero_and_comes_back() {
        let mut window = SendWindow::new(100);
        window.take(60);
        assert_eq!(window.change(-100), Ok(false));
        assert_eq!((window.available(), window), (0, SendWindow(-60)));
        assert_eq!(window.change(60), Ok(false), "zero is nothing");
        assert_eq!(window.change(1), Ok(true));
        assert_eq!(window.change(1), Ok(false), "it could go before");
        assert_eq!(window.change(WINDOW_MAX - 2), Ok(false));
        assert_eq!(window.change(1), Err(Overflow));
        assert_eq!(window, SendWindow(i32::MAX));
    }

    #[test]
    fn credit_comes_with_release_once_for_each_half() {
        let mut window = ReceiveWindow::new(100);
        assert!(window.receive(49) && window.due(0, 0).is_none());
        assert_eq!(window.release(49), 49);
        assert_eq!(window.due(0, 0), None, "less than half");
        assert!(window.receive(2));
        assert_eq!(window.release(2), 2);
        assert_eq!((window.due(0, 0), window.due(0, 0)), (Some(51), None));
        assert!(window.receive(100) && window.due(0, 0).is_none());
        assert_eq!(window.release(u32::MAX), 100, "only what is held");
        assert_eq!(window.due(0, 0), Some(100));
        assert!(window.receive(100) && !window.receive(1));
    }

    /// One stream holds most of a window that others need.
    #[test]
    fn what_is_not_held_keeps_moving() {
        let mut window = ReceiveWindow::new(100);
        assert!(window.receive(90));
        for _ in 0..50 {
            assert!(window.receive(5));
            window.release(5);
            assert_eq!(window.due(0, 0), Some(5));
            assert!(window.receive(5));
            assert_eq!(window.due(0, 0), None);
            window.release(5);
            assert_eq!(window.due(0, 0), Some(5));
        }
        assert_eq!(window.held(), 90);
        // What is lent counts as free.
        assert_eq!(window.due(90, 0), Some(90));
        assert_eq!(window.due(90, 0), None);
    }

    #[test]
    fn a_window_grows_only_for_who_keeps_up() {
        let mut window = ReceiveWindow::new(100);
        assert!(window.receive(60));
        assert_eq!((window.due(0, 1000), window.size), (None, 100), "all of it is held");
        window.release(50);
        assert_eq!((window.due(0, 1000), window.size), (Some(150), 200));
        assert!(window.receive(190));
        window.release(200);
        for _ in 0..9 {
            window.due(0, 1000);
            assert!(window.receive(window.available as u32));
            window.release(u32::MAX);
        }
        assert_eq!((window.due(0, 1000), window.size), (Some(1000), 1000));
        assert!(window.receive(800));
        window.release(800);
        window.resize_told(50);
        assert_eq!((window.size, window.available), (50, 200 - 950));
        assert!(!window.receive(1), "more than the peer was told");
    }
}
