//! Winding down without ending: what an operator asks of a lane's listeners while the proxy goes on. Owns who is told to
//! close their connections at their next response, and which listeners accept nobody any more.

use super::Lane;
use crate::{compile, control::Which};
use std::{cell::Cell, rc::Rc, time::Duration};

/// What was asked for so far.
#[derive(Default)]
pub(crate) struct Wind {
    /// Health checks are to fail, so that clients go elsewhere.
    unhealthy: Cell<bool>,
    /// Listeners whose clients are told to close.
    down: Cell<Option<Which>>,
    /// Listeners that are stopped, those that come later too.
    stopped: Cell<Option<Which>>,
}

impl Wind {
    /// Whether responses of a listener's clients end their connections.
    pub(crate) fn is_down(&self, listener: &compile::Listener) -> bool {
        self.unhealthy.get() || self.down.get().is_some_and(|which| which.covers(listener))
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

    /// Has clients of some listeners told to close their connections.
    pub(crate) fn wind_down(&self, which: Which) {
        self.wind.down.set(Which::both(self.wind.down.get(), which));
        self.wind_all();
    }

    /// Stops some listeners after a while; their connections drain.
    pub(crate) fn stop_listeners(self: &Rc<Self>, which: Which, after: Duration) {
        let lane = self.clone();
        let stop = move || {
            lane.wind.stopped.set(Which::both(lane.wind.stopped.get(), which));
            let listeners = lane.listeners.borrow().all();
            listeners.iter().filter(|slot| slot.is_stopped_by(&lane)).for_each(|slot| slot.stop());
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
