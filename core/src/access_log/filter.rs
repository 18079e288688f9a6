//! Which exchanges a log wants, and which of the proxy's own answers are changed: Envoy's access log filters, compiled.

use super::{
    flags,
    record::{Record, Wants},
    render::grpc,
};
use crate::{
    chance::below,
    config::{Comparison, ConfigError, LogFilter, LogType},
    route::matcher::HeaderMatcher,
};

/// Matchers of header fields that one chain may have: each is a bit of a word.
const MATCHERS: usize = 64;

/// A compiled [`LogFilter`].
#[derive(Debug)]
pub(super) enum Filter {
    Status(Comparison),
    Duration(Comparison),
    Sampled {
        numerator: u32,
        denominator: u32,
    },
    NotHealthCheck,
    Flags(Vec<String>),
    Grpc {
        statuses: Vec<u32>,
        exclude: bool,
    },
    Types {
        types: Vec<LogType>,
        exclude: bool,
    },
    /// The matcher with this number among those that the chain wants.
    Header(usize),
    All(Vec<Filter>),
    Any(Vec<Filter>),
}

impl Filter {
    /// Checks a filter. What it needs of requests is added to `wants`.
    ///
    /// # Errors
    /// What is wrong, with the path from the filter on.
    pub(super) fn compile(config: &LogFilter, wants: &mut Wants) -> Result<Filter, ConfigError> {
        let wrong = |what: String| ConfigError::new("", what);
        Ok(match config {
            LogFilter::Status(comparison) => Filter::Status(*comparison),
            LogFilter::Duration(comparison) => Filter::Duration(*comparison),
            LogFilter::Sampled { denominator: 0, .. } => return Err(wrong("the denominator is zero".into())),
            LogFilter::Sampled { numerator, denominator } => {
                Filter::Sampled { numerator: *numerator, denominator: *denominator }
            }
            LogFilter::NotHealthCheck => Filter::NotHealthCheck,
            LogFilter::Flags(flags) => match flags.iter().find(|flag| flags::long(flag).is_none()) {
                Some(unknown) => return Err(wrong(format!("{unknown:?} is not a response flag"))),
                None => Filter::Flags(flags.clone()),
            },
            LogFilter::Header(matcher) => {
                let matcher = HeaderMatcher::new(matcher).map_err(|problem| problem.within("header"))?;
                if wants.matchers.len() == MATCHERS {
                    return Err(wrong(format!("there may be {MATCHERS} matchers of header fields at most")));
                }
                wants.matchers.push(matcher);
                Filter::Header(wants.matchers.len() - 1)
            }
            LogFilter::Grpc { statuses, exclude } => {
                wants.grpc = true;
                Filter::Grpc { statuses: statuses.clone(), exclude: *exclude }
            }
            LogFilter::Types { types, exclude } => Filter::Types { types: types.clone(), exclude: *exclude },
            LogFilter::All(filters) => Filter::All(Filter::each(filters, wants)?),
            LogFilter::Any(filters) => Filter::Any(Filter::each(filters, wants)?),
        })
    }

    fn each(filters: &[LogFilter], wants: &mut Wants) -> Result<Vec<Filter>, ConfigError> {
        filters.iter().map(|filter| Filter::compile(filter, wants)).collect()
    }

    pub(super) fn admits(&self, record: &Record, random: &impl Fn() -> u64) -> bool {
        match self {
            Filter::Status(comparison) => comparison.holds(u64::from(record.status)),
            Filter::Duration(comparison) => {
                comparison.holds(u64::try_from(record.took.all.as_millis()).unwrap_or(u64::MAX))
            }
            Filter::Sampled { numerator, denominator } => {
                below(random(), u64::from(*denominator)) < u64::from(*numerator)
            }
            Filter::NotHealthCheck => !record.health_check,
            Filter::Flags(flags) => {
                record.outcome.flags().any(|set| flags.is_empty() || flags.iter().any(|f| f == set))
            }
            Filter::Grpc { statuses, exclude } => {
                let status =
                    record.grpc.or_else(|| grpc::of_response(record.status)).unwrap_or(grpc::UNKNOWN);
                statuses.contains(&status) != *exclude
            }
            Filter::Types { types, exclude } => types.contains(&record.why) != *exclude,
            Filter::Header(at) => record.matched & (1 << at) != 0,
            Filter::All(filters) => filters.iter().all(|filter| filter.admits(record, random)),
            Filter::Any(filters) => filters.iter().any(|filter| filter.admits(record, random)),
        }
    }
}
