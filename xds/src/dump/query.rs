//! What `/config_dump` is asked. Owns the parameters; what they select is decided where the dump is written.

use corelane::{
    admin::{Query, Reply},
    wire::Status,
};
use regex::Regex;

/// The parameters; an empty one counts as absent, as in Envoy.
#[derive(Debug, Default)]
pub(super) struct Filter {
    /// `?resource=`: the list to show.
    pub(super) resource: Option<String>,
    /// `?mask=`: the fields to show, not checked yet.
    pub(super) mask: Option<String>,
    /// `?include_eds`, with any value.
    pub(super) include_eds: bool,
    /// `?name_regex=`: resources whose whole name matches.
    name: Option<Regex>,
}

impl Filter {
    /// Reads the parameters.
    ///
    /// # Errors
    /// The reply to a regular expression that is none.
    pub(super) fn parse(query: &Query) -> Result<Filter, Reply> {
        let value = |name| query.value(name).filter(|value| !value.is_empty());
        let name = match value("name_regex") {
            Some(regex) => Some(Regex::new(&format!("^(?:{regex})$")).map_err(|error| {
                // The crate draws the expression with a caret below, on several lines; the last one says what is wrong.
                let whole = error.to_string();
                let what = whole.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                let what = format!("INVALID_ARGUMENT: Error while parsing name_regex from {regex}: {what}");
                Reply::text(Status::BAD_REQUEST, what)
            })?),
            None => None,
        };
        Ok(Filter {
            resource: value("resource").map(str::to_owned),
            mask: value("mask").map(str::to_owned),
            include_eds: query.value("include_eds").is_some(),
            name,
        })
    }

    /// Whether a resource of this name is asked for.
    pub(super) fn wants(&self, name: &str) -> bool {
        self.name.as_ref().is_none_or(|regex| regex.is_match(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Filter, Reply> {
        Filter::parse(&Query::parse(query))
    }

    #[test]
    fn an_empty_parameter_is_none() {
        let filter = parse("resource=&mask=&name_regex=&include_eds").unwrap();
        assert!(filter.resource.is_none() && filter.mask.is_none() && filter.include_eds);
        assert!(filter.wants("anything"));
        assert!(!parse("").unwrap().include_eds);
    }

    #[test]
    fn a_name_must_match_as_a_whole() {
        let filter = parse("name_regex=a|b.*").unwrap();
        let names = ["a", "b", "bcd", "ab", "xa", ""];
        assert_eq!(names.map(|name| filter.wants(name)), [true, true, true, false, false, false]);
    }

    #[test]
    fn a_regex_that_is_none_is_refused() {
        let reply = parse("name_regex=(").unwrap_err();
        assert_eq!(reply.status, Status::BAD_REQUEST);
        let text = String::from_utf8(reply.body).unwrap();
        assert!(text.starts_with("INVALID_ARGUMENT: Error while parsing name_regex from (: "), "{text}");
        assert!(!text.contains('\n'), "{text}");
    }
}
