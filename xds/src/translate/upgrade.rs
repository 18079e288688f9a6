//! Upgrades and CONNECT, of connection managers and of routes.

use std::mem::take;

use corelane::config::Upgrade;
use corelane_proto::envoy::{
    config::route::v3::route_action::UpgradeConfig as OfRoute,
    extensions::filters::network::http_connection_manager::v3::http_connection_manager::UpgradeConfig as OfManager,
};

use crate::{problem::Path, translate::rest::Translator};

impl Translator<'_> {
    pub(super) fn upgrades(&mut self, configs: Vec<OfManager>, list: &Path<'_>) -> Vec<Upgrade> {
        let mut upgrades = Vec::new();
        for (at, mut config) in configs.into_iter().enumerate() {
            let path = list.index(at);
            let protocol = take(&mut config.upgrade_type);
            let enabled = config.enabled.take().unwrap_or(true);
            self.done(config, &path);
            self.upgrade(&mut upgrades, Upgrade { protocol, enabled, terminate: false }, &path);
        }
        upgrades
    }

    pub(super) fn route_upgrades(&mut self, configs: Vec<OfRoute>, list: &Path<'_>) -> Vec<Upgrade> {
        let mut upgrades = Vec::new();
        for (at, mut config) in configs.into_iter().enumerate() {
            let path = list.index(at);
            let protocol = take(&mut config.upgrade_type);
            let enabled = config.enabled.take().unwrap_or(true);
            let connect = config.connect_config.take();
            let terminate = connect.is_some();
            if terminate && !protocol.eq_ignore_ascii_case(Upgrade::CONNECT) {
                self.refuse(&path.field("connect_config"), "is for the upgrade_type CONNECT");
            }
            if let Some(connect) = connect {
                self.done(connect, &path.field("connect_config"));
            }
            self.done(config, &path);
            self.upgrade(&mut upgrades, Upgrade { protocol, enabled, terminate }, &path);
        }
        upgrades
    }

    fn upgrade(&mut self, upgrades: &mut Vec<Upgrade>, upgrade: Upgrade, path: &Path<'_>) {
        let protocol = &upgrade.protocol;
        let path = path.field("upgrade_type");
        if upgrades.iter().any(|other| other.protocol.eq_ignore_ascii_case(protocol)) {
            self.refuse(&path, format!("{protocol:?} occurs twice"));
        }
        if protocol.eq_ignore_ascii_case("connect-udp") {
            self.refuse(&path, "CONNECT-UDP is not implemented");
        }
        upgrades.push(upgrade);
    }
}
