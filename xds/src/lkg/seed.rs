//! From what was kept to updates of the store. Owns finding out which source of this process a group belongs to.

use std::collections::VecDeque;

use super::{Group, ORDER, origin};
use crate::{
    agent::Seed,
    source::Sources,
    store::{Received, Update},
};

/// Groups that are still to be given to the store.
pub(super) struct Recalled(VecDeque<Group>);

impl Recalled {
    pub(super) fn new(mut groups: Vec<Group>) -> Self {
        groups.retain(|group| ORDER.contains(&group.kind));
        groups.sort_by_key(|group| ORDER.iter().position(|kind| *kind == group.kind));
        Self(groups.into())
    }
}

impl Seed for Recalled {
    fn next(&mut self, sources: &Sources) -> Option<Update> {
        loop {
            let group = self.0.pop_front()?;
            // Sources that resources name get their numbers as those resources are taken, so each group is looked up in its turn.
            let found = sources.iter().map(|(source, _)| source);
            let mut found = found.filter(|source| origin(sources, *source).as_ref() == Some(&group.origin));
            let Some(source) = found.next() else {
                let (count, kind) = (group.resources.len(), group.kind);
                log::warn!(
                    "{count} resources of the last known good ({kind}) come from nowhere the bootstrap names"
                );
                continue;
            };
            let mut update = Update::empty(group.kind, source);
            for resource in group.resources {
                match resource.body {
                    Some(body) => update.resources.push(Received {
                        name: resource.name,
                        version: resource.version,
                        ttl: None,
                        body: Some(body),
                    }),
                    None => update.removed.push(resource.name),
                }
            }
            return Some(update);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lkg::Remembered,
        source::{FileSource, Origin},
        store::{Kind, Source},
    };

    fn group(kind: Kind, origin: &str, name: &str, body: Option<&'static [u8]>) -> Group {
        let body = body.map(bytes::Bytes::from_static);
        let resource = Remembered { name: name.into(), version: "v".into(), body };
        Group { kind, origin: origin.into(), resources: vec![resource] }
    }

    #[test]
    fn who_names_others_comes_first_and_unknown_places_are_left_out() {
        let mut sources = Sources::default();
        let file = FileSource { path: "f".into(), watched_directory: None };
        let file = sources.number(Origin::File(Kind::Cluster, file)).unwrap();
        assert_eq!(
            (origin(&sources, Source::ADS).as_deref(), origin(&sources, file)),
            (Some("Aggregated"), None)
        );
        let mut recalled = Recalled::new(vec![
            group(Kind::Routes, "Aggregated", "r", Some(b"r")),
            group(Kind::Endpoints, "Aggregated", "e", None),
            group(Kind::Secret, "Aggregated", "s", Some(b"s")),
            group(Kind::Listener, "nowhere", "x", Some(b"x")),
            group(Kind::Listener, "Aggregated", "l", Some(b"l")),
            group(Kind::Cluster, "Aggregated", "c", Some(b"c")),
        ]);
        let mut given = Vec::new();
        while let Some(update) = recalled.next(&sources) {
            assert_eq!((update.source, update.complete), (Source::ADS, false));
            given.extend(update.resources.iter().map(|resource| (update.kind, resource.name.clone())));
            given.extend(update.removed.iter().map(|name| (update.kind, format!("-{name}"))));
        }
        let expected =
            [(Kind::Cluster, "c"), (Kind::Endpoints, "-e"), (Kind::Listener, "l"), (Kind::Routes, "r")];
        assert_eq!(given, expected.map(|(kind, name)| (kind, name.to_owned())));
    }
}
