//! From the command line's files and texts to a translated bootstrap. Owns reading files; every start and every SIGHUP comes
//! through here.

use std::{fs, path::PathBuf};

use crate::{
    args::Identity,
    bootstrap::{self, Syntax},
    message::schema::Schema,
    problem::Problem,
    translate::{self, Translated},
};

/// Where the configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// A file, read again at each load.
    pub path: Option<PathBuf>,
    /// A text in YAML, merged over the file.
    pub yaml: Option<String>,
    /// Parts of the node that the command line says.
    pub node: Identity,
    /// What to use where there is neither.
    pub default: &'static str,
}

impl Source {
    /// Whether the embedded default is what is loaded.
    pub fn is_default(&self) -> bool {
        self.path.is_none() && self.yaml.is_none()
    }

    /// For messages.
    pub fn name(&self) -> String {
        match (&self.path, &self.yaml) {
            (Some(path), _) => path.display().to_string(),
            (None, Some(_)) => "--config-yaml".into(),
            (None, None) => "the embedded example".into(),
        }
    }

    /// Reads, checks and translates.
    ///
    /// # Errors
    /// Every problem of reading; where it can be read, every rule of the API that it breaks, and everything that the
    /// translation refuses.
    pub fn load(&self) -> Result<Translated, Vec<Problem>> {
        let (translated, problems) = self.look()?;
        if problems.is_empty() { Ok(translated) } else { Err(problems) }
    }

    /// Reads, checks and translates as much as there is to be translated: for finding further problems in it.
    ///
    /// # Errors
    /// Every problem of reading. What is found later comes beside the translation.
    pub fn look(&self) -> Result<(Translated, Vec<Problem>), Vec<Problem>> {
        let schema = Schema::load();
        let mut read = match &self.path {
            Some(path) => {
                let syntax = Syntax::of(path).map_err(|problem| vec![problem])?;
                let text = fs::read_to_string(path)
                    .map_err(|error| vec![Problem::new("", format!("cannot be read: {error}"))])?;
                bootstrap::read(&schema, &text, syntax)?
            }
            None => Default::default(),
        };
        let default = self.is_default().then_some(self.default);
        if let Some(text) = self.yaml.as_deref().or(default) {
            bootstrap::merge(&mut read, &bootstrap::read(&schema, text, Syntax::Yaml)?);
        }
        bootstrap::identify(&mut read, &self.node);
        let mut problems = bootstrap::validate(&schema, &read).err().unwrap_or_default();
        let (translated, more) = translate::lenient(&schema, read);
        add(&mut problems, more);
        Ok((translated, problems))
    }
}

/// Adds the problems of a later step, but not where an earlier one has found something: a value that breaks a rule often
/// makes no sense to whoever comes next.
pub fn add(problems: &mut Vec<Problem>, later: Vec<Problem>) {
    let known: Vec<String> = problems.iter().map(|problem| problem.path.clone()).collect();
    let is_known =
        |path: &str| known.iter().any(|known| !known.is_empty() && path.starts_with(known.as_str()));
    problems.extend(later.into_iter().filter(|problem| !is_known(&problem.path)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: Option<&str>, yaml: Option<&str>) -> Source {
        Source {
            path: path.map(PathBuf::from),
            yaml: yaml.map(str::to_owned),
            node: Identity::default(),
            default: include_str!("default.yaml"),
        }
    }

    #[test]
    fn the_embedded_example_is_a_bootstrap_like_any_other() {
        let example = source(None, None);
        assert!(example.is_default());
        let translated = example.load().unwrap();
        assert_eq!(translated.config.listeners.len(), 2);
        assert!(translated.admin.is_some());
    }

    #[test]
    fn text_is_laid_over_a_file() {
        let file = std::env::temp_dir().join(format!("corelane-load-{}.yaml", std::process::id()));
        fs::write(&file, "node: {id: a, cluster: b}\nstatic_resources: {clusters: [{name: one}]}\n").unwrap();
        let over = "node: {id: c}\nstatic_resources: {clusters: [{name: two}]}";
        let both = source(file.to_str(), Some(over)).load().unwrap();
        fs::remove_file(&file).unwrap();
        let node = both.node.unwrap();
        assert_eq!((&node["id"], &node["cluster"]), (&"c".into(), &"b".into()));
        let identity = Identity { id: Some("d".into()), zone: Some("z".into()), ..Identity::default() };
        let said = Source { node: identity, ..source(None, Some(over)) }.load().unwrap();
        let node = said.node.unwrap();
        assert_eq!((&node["id"], &node["locality"]), (&"d".into(), &serde_json::json!({"zone": "z"})));
        let names: Vec<_> = both.config.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
        assert_eq!(names, ["one", "two"]);
    }

    #[test]
    fn a_file_that_is_not_there_is_a_problem() {
        let problems = source(Some("/nowhere/at/all.yaml"), None).load().unwrap_err();
        assert!(problems[0].what.starts_with("cannot be read"), "{problems:?}");
        let named = source(Some("/etc/passwd"), None).load().unwrap_err();
        assert_eq!(named[0].what, "the file must be named .yaml, .yml or .json");
    }
}
