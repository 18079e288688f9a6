//! Names of collections: `xdstp://AUTHORITY/TYPE/PATH/*` stands for every resource that has another last part in the place of
//! the star. Owns which names those are, which is the one thing that a client has to know of such a name; nothing else in it
//! is looked at.

use std::sync::Arc;

/// A collection of resources of one type (Envoy `lds_resources_locator`, `cds_resources_locator`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection {
    name: Arc<str>,
    /// Where the star is.
    star: usize,
}

impl Collection {
    /// The collection of that name; `None` where it is not that of one. Context parameters may follow the star.
    pub fn new(name: &str) -> Option<Self> {
        let star = name.split('?').next()?.strip_suffix('*')?.len();
        let whole = name.starts_with("xdstp://") && name[..star].ends_with('/');
        whole.then(|| Self { name: name.into(), star })
    }

    /// What it is subscribed to by.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether a resource of that name is of the collection: directly, and with the same context parameters.
    pub fn has(&self, name: &str) -> bool {
        let (before, after) = (&self.name[..self.star], &self.name[self.star + 1..]);
        let own = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
        own.is_some_and(|own| !own.is_empty() && !own.contains(['/', '?']))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collection_has_what_stands_in_the_place_of_its_star() {
        let edge = Collection::new("xdstp://mesh/envoy.config.listener.v3.Listener/edge/*").unwrap();
        let at = |rest: &str| format!("xdstp://mesh/envoy.config.listener.v3.Listener/{rest}");
        assert!(edge.has(&at("edge/web")) && edge.has(&at("edge/*")));
        for other in ["edge/", "edge/a/b", "edges/web", "other/web", "edge/web?a=b"] {
            assert!(!edge.has(&at(other)), "{other}");
        }
        assert!(!edge.has("web") && !edge.has(""));
        let shard = Collection::new("xdstp://mesh/T/*?shard=1").unwrap();
        assert!(shard.has("xdstp://mesh/T/a?shard=1"));
        assert!(!shard.has("xdstp://mesh/T/a") && !shard.has("xdstp://mesh/T/a?shard=11"));
        for none in
            ["*", "xdstp://mesh/T/a", "xdstp://mesh/T/a*", "http://mesh/T/*", "xdstp://mesh/T/*/a", ""]
        {
            assert_eq!(Collection::new(none), None, "{none}");
        }
    }
}
