//! Cuts a descriptor set down to the messages that the lists of roots name and what these contain. Owns reachability; never looks
//! at options or at field values.

use std::collections::{HashMap, HashSet};

use prost_types::{DescriptorProto, FileDescriptorSet};

/// Drops every message and enum that no root contains, every service, and every file left empty. A top-level message is
/// kept or dropped whole, with its nested types.
pub(crate) fn reachable(mut set: FileDescriptorSet, roots: &str) -> Result<FileDescriptorSet, String> {
    let graph = Graph::of(&set);
    let roots = roots.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let kept = graph.walk(roots)?;
    for file in &mut set.file {
        let package = file.package.clone().unwrap_or_default();
        file.message_type.retain(|message| kept.contains(&format!("{package}.{}", message.name())));
        file.enum_type.retain(|declared| kept.contains(&format!("{package}.{}", declared.name())));
        file.service.clear();
        file.extension.clear();
    }
    set.file.retain(|file| !file.message_type.is_empty() || !file.enum_type.is_empty());
    Ok(set)
}

/// Top-level types, and which of them each one refers to.
struct Graph {
    edges: HashMap<String, Vec<String>>,
    /// The top-level type that a type of any depth lives in.
    home: HashMap<String, String>,
}

impl Graph {
    fn of(set: &FileDescriptorSet) -> Self {
        let mut graph = Self { edges: HashMap::new(), home: HashMap::new() };
        for file in &set.file {
            let package = file.package();
            for declared in &file.enum_type {
                let name = format!("{package}.{}", declared.name());
                graph.home.insert(name.clone(), name.clone());
                graph.edges.insert(name, Vec::new());
            }
            for message in &file.message_type {
                let name = format!("{package}.{}", message.name());
                let mut references = Vec::new();
                graph.add(message, &name, &name, &mut references);
                graph.edges.insert(name, references);
            }
        }
        graph
    }

    fn add(&mut self, message: &DescriptorProto, name: &str, home: &str, references: &mut Vec<String>) {
        self.home.insert(name.to_owned(), home.to_owned());
        for declared in &message.enum_type {
            self.home.insert(format!("{name}.{}", declared.name()), home.to_owned());
        }
        references.extend(
            message
                .field
                .iter()
                .filter_map(|field| Some(field.type_name.as_deref()?.trim_start_matches('.').to_owned())),
        );
        for nested in &message.nested_type {
            self.add(nested, &format!("{name}.{}", nested.name()), home, references);
        }
    }

    fn walk<'a>(&self, roots: impl Iterator<Item = &'a str>) -> Result<HashSet<String>, String> {
        let mut kept = HashSet::new();
        let mut open: Vec<String> = roots.map(str::to_owned).collect();
        while let Some(name) = open.pop() {
            let home = self.home.get(&name).ok_or_else(|| format!("no .proto file declares {name}"))?;
            if kept.insert(home.clone()) {
                open.extend(self.edges[home].iter().cloned());
            }
        }
        Ok(kept)
    }
}
