//! Connections that are made before a request asks for them. Owns how many there are to be; each is one of its pool's
//! connections, under the same breaker, from the moment it is being made.

use super::{
    connection::Connection,
    pool::{Host, Pool},
    record::HostStat,
    slot::Slot,
    state::Limit,
};
use crate::{config::Health, limits::PRECONNECTS};
use std::rc::Rc;

impl Pool {
    /// Makes as many connections to `host` as its requests here let expect: `ratio` for each, beside those that wait for
    /// one (`pending`). None where the endpoint is not well or the breaker is open.
    #[cold]
    pub(super) fn preconnect(self: &Rc<Self>, host: &Rc<Host>, ratio: f64, pending: u32) {
        let health = host.endpoint.health(Health::Healthy);
        if health == Health::Unhealthy || host.epoch.is_retired() || !self.waiters.is_empty() {
            return;
        }
        for _ in 0..PRECONNECTS {
            let active = host.endpoint.record_for(self.peers.len()).of_lane(self.lane, HostStat::RqActive);
            let wanted = f64::from(active + pending) * ratio;
            if wanted.ceil() <= f64::from(active + host.spare()) {
                return;
            }
            let Some(permit) = self.state.permit(Limit::Connections) else { return };
            host.connecting.set(host.connecting.get() + 1);
            let (pool, host, slot) = (self.clone(), host.clone(), Slot::new(permit, self.clone()));
            self.io.spawn(async move {
                let dialed = pool.dial(&host, slot).await;
                host.connecting.set(host.connecting.get() - 1);
                if let Ok(dialed) = dialed {
                    let connection = Connection::new(dialed, host);
                    connection.keep_unused();
                }
            });
        }
    }
}
