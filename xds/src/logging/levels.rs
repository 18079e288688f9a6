//! What is logged: one level for everything, and others for single loggers. Owns their names. Pure.
//!
//! A logger is a part of the program by the name of its module: `run` logs as `corelane_xds::run`.

use log::LevelFilter;
use std::collections::BTreeMap;

/// The loggers there are: modules of Corelane that log.
pub(crate) const LOGGERS: [&str; 2] = ["agent", "run"];

/// Levels by logger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    all: LevelFilter,
    single: BTreeMap<String, LevelFilter>,
}

impl Default for Levels {
    fn default() -> Levels {
        Levels::new(LevelFilter::Info)
    }
}

impl Levels {
    /// The same for all.
    pub(crate) fn new(all: LevelFilter) -> Levels {
        Levels { all, single: BTreeMap::new() }
    }

    /// The level of those that have none of their own.
    pub(crate) fn all(&self) -> LevelFilter {
        self.all
    }

    /// Sets the level of all loggers.
    pub(crate) fn set_all(&mut self, level: LevelFilter) {
        *self = Levels::new(level);
    }

    /// Sets the level of all loggers that have none of their own.
    pub(crate) fn set_default(&mut self, level: LevelFilter) {
        self.all = level;
    }

    /// Sets the level of one logger, which need not be there: Envoy's loggers have other names, and files that name them
    /// are meant for both.
    pub(crate) fn set(&mut self, logger: &str, level: LevelFilter) {
        self.single.insert(logger.to_owned(), level);
    }

    /// Takes `name:level,name:level`, as `--component-log-level` and `/logging?paths=` have it.
    pub(crate) fn set_list(&mut self, list: &str) -> Result<(), String> {
        let parts = list.split(',').filter(|part| !part.is_empty());
        let parts: Vec<_> = parts.map(pair).collect::<Result<_, _>>()?;
        parts.into_iter().for_each(|(logger, level)| self.set(logger, level));
        Ok(())
    }

    /// The level of a record's target: of the innermost of its modules that has one.
    pub(crate) fn of(&self, target: &str) -> LevelFilter {
        if self.single.is_empty() {
            return self.all;
        }
        target.rsplit("::").find_map(|module| self.single.get(module)).copied().unwrap_or(self.all)
    }

    /// The level past which nothing is logged at all.
    pub(crate) fn most(&self) -> LevelFilter {
        self.single.values().copied().chain([self.all]).max().unwrap_or(self.all)
    }

    /// Every logger with its level: those there are, and those that were set.
    pub(crate) fn list(&self) -> Vec<(&str, LevelFilter)> {
        let known = LOGGERS.iter().map(|logger| (*logger, self.all));
        let set = self.single.iter().map(|(logger, level)| (logger.as_str(), *level));
        known.chain(set).collect::<BTreeMap<_, _>>().into_iter().collect()
    }

    /// The list as the command line takes it; empty where no logger has a level of its own.
    pub(crate) fn component_list(&self) -> String {
        let parts = self.single.iter().map(|(logger, level)| format!("{logger}:{}", super::name(*level)));
        parts.collect::<Vec<_>>().join(",")
    }
}

fn pair(part: &str) -> Result<(&str, LevelFilter), String> {
    let (logger, text) = part.split_once(':').ok_or_else(|| format!("{part:?} is not NAME:LEVEL"))?;
    Ok((logger.trim(), level(text.trim())?))
}

/// Envoy's levels. Nothing here is worse than an error, so `critical` shows errors.
pub(crate) fn level(text: &str) -> Result<LevelFilter, String> {
    Ok(match text {
        "trace" => LevelFilter::Trace,
        "debug" => LevelFilter::Debug,
        "info" => LevelFilter::Info,
        "warning" | "warn" => LevelFilter::Warn,
        "error" | "critical" => LevelFilter::Error,
        "off" => LevelFilter::Off,
        _ => return Err(format!("{text:?} must be trace, debug, info, warning, error, critical or off")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logger_may_have_a_level_of_its_own() {
        let mut levels = Levels::new(LevelFilter::Warn);
        assert_eq!(levels.of("corelane_xds::run"), LevelFilter::Warn);
        levels.set_list("run:debug,misc:error").unwrap();
        assert_eq!(levels.of("corelane_xds::run"), LevelFilter::Debug);
        assert_eq!(levels.of("corelane_xds::run::inner"), LevelFilter::Debug);
        assert_eq!(levels.of("corelane_xds::load"), LevelFilter::Warn);
        assert_eq!(levels.most(), LevelFilter::Debug);
        assert!(levels.list().contains(&("run", LevelFilter::Debug)));
        assert_eq!(levels.component_list(), "misc:error,run:debug");
        levels.set_all(LevelFilter::Off);
        assert_eq!((levels.most(), levels.of("corelane_xds::run")), (LevelFilter::Off, LevelFilter::Off));
    }

    #[test]
    fn a_list_is_taken_as_a_whole_or_not_at_all() {
        let mut levels = Levels::default();
        for bad in ["run", "run:loud", "agent:debug,run"] {
            assert!(levels.set_list(bad).is_err(), "{bad}");
        }
        assert_eq!(levels, Levels::default());
    }
}
