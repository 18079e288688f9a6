//! The command line, in Envoy's spelling. Owns parsing and the help text; starts nothing.

use std::{ffi::OsString, num::NonZeroUsize, path::PathBuf, time::Duration};

use corelane_io::Backend;
use lexopt::{Arg, Parser, ValueExt as _};

use crate::{
    lkg::Options,
    logging::{Pattern, Settings, level},
    message::newer::Policy,
};

/// What the command line asks for.
#[expect(clippy::large_enum_variant, reason = "made once, and taken apart at once")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve or validate.
    Run(Args),
    /// `--help`.
    Help,
    /// `--version`.
    Version,
}

/// The options of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Args {
    /// `-c`: a bootstrap file. With neither this nor `config_yaml`, the embedded default runs.
    pub config_path: Option<PathBuf>,
    /// `--config-yaml`: a bootstrap as text, merged over the file's.
    pub config_yaml: Option<String>,
    /// `--service-node`, `--service-cluster`, `--service-zone`: parts of the node, over what the bootstrap says.
    pub node: Identity,
    /// `--concurrency`: lanes; one for each CPU where `None`.
    pub concurrency: Option<NonZeroUsize>,
    /// `--backend`: the kernel interface of the lanes.
    pub backend: Backend,
    /// `--mode`.
    pub mode: Mode,
    /// `--drain-time-s`: how long connections may go on after SIGTERM.
    pub drain_time: Duration,
    /// `--drain-strategy immediate`: a drain that the admin orders ends every connection at its next response, and not a share
    /// of them that grows with the drain time.
    pub drains_at_once: bool,
    /// `--file-flush-interval-msec`: within what time an access log is written.
    pub file_flush_interval: Duration,
    /// `--admin-address-path`: a file that is told where the admin listens.
    pub admin_address_path: Option<PathBuf>,
    /// `--reject-unknown-dynamic-fields`, `--ignore-unknown-dynamic-fields`: what becomes of fields of a newer API.
    pub newer: Policy,
    /// `--last-known-good-dir` and `--last-known-good-max-age-s`: nothing is kept where the first is not given.
    pub last_known_good: Keeping,
    /// `-l` and the other options of the log.
    pub log: Settings,
}

/// What control planes gave, kept for a start without them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// Where.
    pub dir: Option<PathBuf>,
    /// How long it may be used after a control plane last confirmed it.
    pub max_age: Duration,
}

impl Default for Keeping {
    fn default() -> Self {
        Self { dir: None, max_age: Options::MAX_AGE }
    }
}

/// Who the proxy is to a control plane, as far as the command line says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `--service-node`: the node's `id`.
    pub id: Option<String>,
    /// `--service-cluster`: the node's `cluster`.
    pub cluster: Option<String>,
    /// `--service-zone`: the zone of the node's `locality`.
    pub zone: Option<String>,
}

/// What to do with the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Serve it.
    Serve,
    /// Say what is wrong with it, and exit.
    Validate,
}

impl Mode {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Validate => "validate",
        }
    }
}

impl Default for Args {
    fn default() -> Self {
        Self {
            config_path: None,
            config_yaml: None,
            node: Identity::default(),
            concurrency: None,
            backend: Backend::Auto,
            mode: Mode::Serve,
            // Envoy's default.
            drain_time: Duration::from_secs(600),
            drains_at_once: false,
            // Envoy's default is ten seconds, which is long for somebody who reads along.
            file_flush_interval: Duration::from_secs(1),
            admin_address_path: None,
            newer: Policy::Warn,
            last_known_good: Keeping::default(),
            log: Settings::default(),
        }
    }
}

/// The text of `--help`, after the line with the program's name.
pub const HELP: &str = "\
Options:
  -c, --config-path FILE      Envoy bootstrap, .yaml, .yml or .json
      --config-yaml YAML      Envoy bootstrap as text, merged over the file
      --service-node ID       the node's id, over the bootstrap's
      --service-cluster NAME  the node's cluster, over the bootstrap's
      --service-zone ZONE     the zone of the node's locality, over the bootstrap's
      --concurrency N         lanes, each pinned to one CPU (default: one for each CPU)
      --cpuset-threads        one lane for each CPU the process may use, which is the default
      --backend KIND          auto, uring or epoll (default: auto, io_uring where it works)
      --mode MODE             serve, or validate: say what is wrong with the configuration (default: serve)
      --drain-time-s SECONDS  how long connections may go on after SIGTERM, or listeners after /drain_listeners?graceful
                              (default: 600)
      --drain-strategy WHAT   which responses end their connection after /drain_listeners: a share that grows with the drain
                              time (gradual, the default) or all (immediate). SIGTERM ends them at once
      --file-flush-interval-msec N
                              within what time an access log is written (default: 1000)
      --admin-address-path FILE
                              a file to write the admin's address to
      --last-known-good-dir DIR
                              keep what control planes gave, and serve it after a start without them; no secrets
      --last-known-good-max-age-s SECONDS
                              how old that may be, since a control plane last confirmed it (default: 86400)
      --reject-unknown-dynamic-fields, --ignore-unknown-dynamic-fields
                              what a control plane sends and this version does not know: refuse all of it, or say nothing
                              about what has no effect (default: that is told and counted). Matchers, filters and whatever
                              else decides who passes are always refused with such fields
  -l, --log-level LEVEL       trace, debug, info, warning, error, critical or off (default: info)
      --component-log-level LIST
                              levels of single loggers: NAME:LEVEL,NAME:LEVEL
      --log-format PATTERN    how a line looks, in spdlog's flags (default: [%Y-%m-%d %T.%e][%l][%n] %v)
      --log-path FILE         log to a file, not to standard error
      --version
  -h, --help

Options of Envoy's that are taken so that its command lines work, and what holds whatever they say:
      --disable-hot-restart, --base-id N, --use-dynamic-base-id, --restart-epoch N, --parent-shutdown-time-s N,
      --socket-path PATH, --socket-mode MODE, --skip-hot-restart-on-no-parent, --skip-hot-restart-parent-stats
                              there is no hot restart: SIGHUP reads the configuration again; the epoch must be 0
      --local-address-ip-version V
                              both versions are served
      --allow-unknown-static-fields
                              unknown fields of the bootstrap are refused, with their path
      --skip-deprecated-logs  deprecated fields are not logged
      --file-flush-min-size-kb N
                              access logs are written by time, not by size

Without -c and --config-yaml an embedded example runs. SIGHUP reads the file again, SIGUSR1 opens access logs again.
SIGTERM drains, a second one exits.
";

impl Command {
    /// Parses what follows the program's name.
    ///
    /// # Errors
    /// One sentence for the operator: an unknown option, a value that is missing or is not one of those it may be.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut option = String::new();
        Self::read(Parser::from_args(args), &mut option).map_err(|error| match error {
            // These do not say which option had the value.
            lexopt::Error::ParsingFailed { value, error } => format!("{option} cannot be {value:?}: {error}"),
            error => error.to_string(),
        })
    }

    /// Leaves in `option` the one it is at.
    fn read(mut parser: Parser, option: &mut String) -> Result<Self, lexopt::Error> {
        let mut args = Args::default();
        while let Some(arg) = parser.next()? {
            *option = match arg {
                Arg::Short(letter) => format!("-{letter}"),
                Arg::Long(name) => format!("--{name}"),
                Arg::Value(_) => String::new(),
            };
            match arg {
                Arg::Short('c') => args.take("config-path", &mut parser)?,
                Arg::Short('l') => args.take("log-level", &mut parser)?,
                Arg::Short('h') | Arg::Long("help") => return Ok(Self::Help),
                Arg::Long("version") => return Ok(Self::Version),
                Arg::Long(name) if OPTIONS.contains(&name) => {
                    let name = name.to_owned();
                    args.take(&name, &mut parser)?;
                }
                Arg::Long(name) if SWITCHES.contains(&name) => args.switch(name),
                Arg::Long(name) if SWITCHES_WITHOUT_EFFECT.contains(&name) => {}
                Arg::Long(name) if VALUES_WITHOUT_EFFECT.contains(&name) => {
                    let name = name.to_owned();
                    without_effect(&name, &parser.value()?.string()?)?;
                }
                _ => return Err(arg.unexpected()),
            }
        }
        Ok(Self::Run(args))
    }
}

/// Options with a value that matters.
const OPTIONS: [&str; 18] = [
    "config-path",
    "config-yaml",
    "service-node",
    "service-cluster",
    "service-zone",
    "concurrency",
    "backend",
    "mode",
    "drain-time-s",
    "drain-strategy",
    "file-flush-interval-msec",
    "admin-address-path",
    "last-known-good-dir",
    "last-known-good-max-age-s",
    "log-level",
    "component-log-level",
    "log-format",
    "log-path",
];

/// Options without a value that matter.
const SWITCHES: [&str; 2] = [REJECT_UNKNOWN, IGNORE_UNKNOWN];

const REJECT_UNKNOWN: &str = "reject-unknown-dynamic-fields";
const IGNORE_UNKNOWN: &str = "ignore-unknown-dynamic-fields";

/// Envoy's options without a value that change nothing here; `--help` says what holds.
const SWITCHES_WITHOUT_EFFECT: [&str; 7] = [
    "cpuset-threads",
    "disable-hot-restart",
    "use-dynamic-base-id",
    "skip-hot-restart-on-no-parent",
    "skip-hot-restart-parent-stats",
    "allow-unknown-static-fields",
    "skip-deprecated-logs",
];

/// The same, with a value.
const VALUES_WITHOUT_EFFECT: [&str; 7] = [
    "base-id",
    "restart-epoch",
    "parent-shutdown-time-s",
    "socket-path",
    "socket-mode",
    "local-address-ip-version",
    "file-flush-min-size-kb",
];

impl Args {
    /// How long until every response ends its connection, once the admin has ordered a drain.
    pub fn winds_over(&self) -> Duration {
        if self.drains_at_once { Duration::ZERO } else { self.drain_time }
    }

    /// Takes one of [`SWITCHES`].
    fn switch(&mut self, name: &str) {
        match name {
            REJECT_UNKNOWN => self.newer = Policy::Refuse,
            // Refusing has the last word, as in Envoy.
            _ if self.newer == Policy::Refuse => {}
            _ => self.newer = Policy::Ignore,
        }
    }

    /// Takes the value of one of [`OPTIONS`].
    fn take(&mut self, name: &str, parser: &mut Parser) -> Result<(), lexopt::Error> {
        let value = parser.value()?;
        match name {
            "config-path" => self.config_path = Some(value.into()),
            "config-yaml" => self.config_yaml = Some(value.string()?),
            "service-node" => self.node.id = Some(value.string()?),
            "service-cluster" => self.node.cluster = Some(value.string()?),
            "service-zone" => self.node.zone = Some(value.string()?),
            "concurrency" => self.concurrency = Some(value.parse()?),
            "backend" => self.backend = value.parse()?,
            "mode" => self.mode = value.parse_with(mode)?,
            "drain-time-s" => self.drain_time = Duration::from_secs(value.parse::<u32>()?.into()),
            "drain-strategy" => self.drains_at_once = value.parse_with(strategy)?,
            "file-flush-interval-msec" => {
                self.file_flush_interval = Duration::from_millis(value.parse::<u32>()?.into());
            }
            "admin-address-path" => self.admin_address_path = Some(value.into()),
            "last-known-good-dir" => self.last_known_good.dir = Some(value.into()),
            "last-known-good-max-age-s" => {
                self.last_known_good.max_age = Duration::from_secs(value.parse::<u32>()?.into());
            }
            "log-level" => self.log.levels.set_default(value.parse_with(level)?),
            "component-log-level" => value.parse_with(|list| self.log.levels.set_list(list))?,
            "log-format" => self.log.pattern = value.parse_with(Pattern::parse)?,
            _ => self.log.path = Some(value.into()),
        }
        Ok(())
    }
}

/// Whether an option that changes nothing is one that Envoy would take.
fn without_effect(name: &str, value: &str) -> Result<(), lexopt::Error> {
    let fits = match name {
        "restart-epoch" if value != "0" => {
            return Err("--restart-epoch must be 0: there is no hot restart".into());
        }
        "local-address-ip-version" => matches!(value, "v4" | "v6"),
        "socket-path" => true,
        _ => value.bytes().all(|byte| byte.is_ascii_digit()) && !value.is_empty(),
    };
    if fits { Ok(()) } else { Err(format!("--{name} cannot be {value:?}").into()) }
}

/// Whether a drain is at once.
fn strategy(text: &str) -> Result<bool, &'static str> {
    match text {
        "gradual" => Ok(false),
        "immediate" => Ok(true),
        _ => Err("--drain-strategy must be gradual or immediate"),
    }
}

fn mode(text: &str) -> Result<Mode, &'static str> {
    match text {
        "serve" => Ok(Mode::Serve),
        "validate" => Ok(Mode::Validate),
        _ => Err("must be serve or validate"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::Levels;
    use log::LevelFilter;

    fn parse(line: &str) -> Result<Command, String> {
        Command::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn nothing_given_means_the_defaults() {
        assert_eq!(parse(""), Ok(Command::Run(Args::default())));
    }

    #[test]
    fn every_option_is_taken() {
        let line = "-c a.yaml --config-yaml {} --service-node n --service-cluster c --service-zone z --concurrency 2 \
                    --backend epoll --mode validate --drain-time-s 5 --drain-strategy immediate --file-flush-interval-msec 7 \
                    --admin-address-path a --ignore-unknown-dynamic-fields --reject-unknown-dynamic-fields --last-known-good-dir k --last-known-good-max-age-s 9 --log-path log --log-format %v --component-log-level run:trace -l off";
        let mut levels = Levels::new(LevelFilter::Off);
        levels.set("run", LevelFilter::Trace);
        let log = Settings { levels, pattern: Pattern::parse("%v").unwrap(), path: Some("log".into()) };
        let text = |text: &str| Some(text.to_owned());
        let expected = Args {
            node: Identity { id: text("n"), cluster: text("c"), zone: text("z") },
            file_flush_interval: Duration::from_millis(7),
            admin_address_path: Some("a".into()),
            newer: Policy::Refuse,
            config_path: Some("a.yaml".into()),
            config_yaml: Some("{}".into()),
            concurrency: NonZeroUsize::new(2),
            backend: Backend::Epoll,
            mode: Mode::Validate,
            drain_time: Duration::from_secs(5),
            drains_at_once: true,
            last_known_good: Keeping { dir: Some("k".into()), max_age: Duration::from_secs(9) },
            log,
        };
        assert_eq!(parse(line), Ok(Command::Run(expected.clone())));
        let long = line.replace("-c ", "--config-path=").replace("-l ", "--log-level=");
        assert_eq!(parse(&long), Ok(Command::Run(expected)));
        assert_eq!(parse("--help"), Ok(Command::Help));
        assert_eq!(parse("--version"), Ok(Command::Version));
    }

    #[test]
    fn what_is_not_an_option_is_refused_by_name() {
        let table = [
            ("--colour", "--colour"),
            ("extra", "extra"),
            ("-c", "-c"),
            ("--concurrency 0", "concurrency"),
            ("--backend kqueue", "auto, uring and epoll"),
            ("--mode run", "serve or validate"),
            ("-l loud", "critical or off"),
            ("--drain-time-s -1", "drain-time-s"),
            ("--drain-strategy slow", "drain-strategy"),
            ("--local-address-ip-version v5", "local-address-ip-version"),
            ("--restart-epoch 1", "no hot restart"),
            ("--base-id x", "base-id"),
            ("--log-format %q", "%q"),
            ("--component-log-level run", "NAME:LEVEL"),
        ];
        for (line, part) in table {
            let error = parse(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn help_names_every_option() {
        let known =
            [&OPTIONS[..], &SWITCHES_WITHOUT_EFFECT, &VALUES_WITHOUT_EFFECT, &SWITCHES, &["version", "help"]]
                .concat();
        for option in known {
            assert!(HELP.contains(&format!("--{option}")), "--{option}");
        }
    }

    /// As Istio's agent starts Envoy.
    #[test]
    fn the_command_line_of_istio_is_taken() {
        let line = "-c etc/istio/proxy/envoy-rev.json --drain-time-s 45 --drain-strategy immediate \
                    --local-address-ip-version v4 --file-flush-interval-msec 1000 --disable-hot-restart \
                    --allow-unknown-static-fields -l warning --component-log-level misc:error --concurrency 2";
        let Ok(Command::Run(args)) = parse(line) else { panic!("{:?}", parse(line)) };
        assert_eq!(args.drain_time, Duration::from_secs(45));
        assert_eq!(args.log.levels.component_list(), "misc:error");
    }
}
