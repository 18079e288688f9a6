//! The command line, in Envoy's spelling. Owns parsing and the help text; starts nothing.

use std::{ffi::OsString, num::NonZeroUsize, path::PathBuf, time::Duration};

use corelane_io::Backend;
use lexopt::{Arg, Parser, ValueExt as _};
use log::LevelFilter;

/// What the command line asks for.
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
    /// `--concurrency`: lanes; one for each CPU where `None`.
    pub concurrency: Option<NonZeroUsize>,
    /// `--backend`: the kernel interface of the lanes.
    pub backend: Backend,
    /// `--mode`.
    pub mode: Mode,
    /// `--drain-time-s`: how long connections may go on after SIGTERM.
    pub drain_time: Duration,
    /// `-l`: what is logged.
    pub log_level: LevelFilter,
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
            concurrency: None,
            backend: Backend::Auto,
            mode: Mode::Serve,
            // Envoy's default.
            drain_time: Duration::from_secs(600),
            log_level: LevelFilter::Info,
        }
    }
}

/// The text of `--help`, after the line with the program's name.
pub const HELP: &str = "\
Options:
  -c, --config-path FILE      Envoy bootstrap, .yaml, .yml or .json
      --config-yaml YAML      Envoy bootstrap as text, merged over the file
      --concurrency N         lanes, each pinned to one CPU (default: one for each CPU)
      --backend KIND          auto, uring or epoll (default: auto, io_uring where it works)
      --mode MODE             serve, or validate: say what is wrong with the configuration (default: serve)
      --drain-time-s SECONDS  how long connections may go on after SIGTERM (default: 600)
  -l, --log-level LEVEL       trace, debug, info, warning, error, critical or off (default: info)
      --version
  -h, --help

Without -c and --config-yaml an embedded example runs. SIGHUP reads the file again. SIGTERM drains, a second one exits.
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
                Arg::Short('c') | Arg::Long("config-path") => args.config_path = Some(parser.value()?.into()),
                Arg::Long("config-yaml") => args.config_yaml = Some(parser.value()?.string()?),
                Arg::Long("concurrency") => args.concurrency = Some(parser.value()?.parse()?),
                Arg::Long("backend") => args.backend = parser.value()?.parse()?,
                Arg::Long("mode") => args.mode = parser.value()?.parse_with(mode)?,
                Arg::Long("drain-time-s") => {
                    args.drain_time = Duration::from_secs(parser.value()?.parse::<u32>()?.into())
                }
                Arg::Short('l') | Arg::Long("log-level") => {
                    args.log_level = parser.value()?.parse_with(level)?
                }
                Arg::Short('h') | Arg::Long("help") => return Ok(Self::Help),
                Arg::Long("version") => return Ok(Self::Version),
                _ => return Err(arg.unexpected()),
            }
        }
        Ok(Self::Run(args))
    }
}

fn mode(text: &str) -> Result<Mode, &'static str> {
    match text {
        "serve" => Ok(Mode::Serve),
        "validate" => Ok(Mode::Validate),
        _ => Err("must be serve or validate"),
    }
}

/// Envoy's levels. Nothing here is worse than an error, so `critical` shows errors.
fn level(text: &str) -> Result<LevelFilter, &'static str> {
    match text {
        "trace" => Ok(LevelFilter::Trace),
        "debug" => Ok(LevelFilter::Debug),
        "info" => Ok(LevelFilter::Info),
        "warning" | "warn" => Ok(LevelFilter::Warn),
        "error" | "critical" => Ok(LevelFilter::Error),
        "off" => Ok(LevelFilter::Off),
        _ => Err("must be trace, debug, info, warning, error, critical or off"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        Command::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn nothing_given_means_the_defaults() {
        assert_eq!(parse(""), Ok(Command::Run(Args::default())));
    }

    #[test]
    fn every_option_is_taken() {
        let line = "-c a.yaml --config-yaml {} --concurrency 2 --backend epoll --mode validate --drain-time-s 5 -l off";
        let expected = Args {
            config_path: Some("a.yaml".into()),
            config_yaml: Some("{}".into()),
            concurrency: NonZeroUsize::new(2),
            backend: Backend::Epoll,
            mode: Mode::Validate,
            drain_time: Duration::from_secs(5),
            log_level: LevelFilter::Off,
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
        ];
        for (line, part) in table {
            let error = parse(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn help_names_every_option() {
        let source = include_str!("args.rs");
        let options = source.split("Arg::Long(\"").skip(1).filter_map(|rest| rest.split('"').next());
        for option in options.filter(|option| option.chars().all(|c| c.is_ascii_lowercase() || c == '-')) {
            assert!(HELP.contains(&format!("--{option}")), "--{option}");
        }
    }
}
