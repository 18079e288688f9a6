//! Envoy's runtime: named values that configuration refers to by key, with a default where there is no value. Owns what the
//! layers of a bootstrap say and how a value is read as a number, a switch or a share of all. A bootstrap that is read again may
//! not have other layers; what a layer of files says may change, and is in force once all of it is.

pub mod disk;

use std::{collections::BTreeMap, path::PathBuf};

use corelane::config::Fraction;
use serde_json::{Value as Json, json};

/// The layers of a bootstrap (Envoy `LayeredRuntime`). A later one covers those before it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Runtime {
    layers: Vec<Layer>,
}

/// One layer: values by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layer {
    /// For whoever reads `/runtime`.
    pub name: String,
    /// Keys as they are referred to, the names of nested values joined with dots.
    pub values: BTreeMap<String, Value>,
    /// The link that leads to its files, where it is a layer of files.
    pub link: Option<PathBuf>,
}

/// A value as it was written. Text says a number or a switch where it reads as one.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Number(f64),
    /// A switch.
    Switch(bool),
    /// Text.
    Text(String),
    /// A share of all (Envoy `FractionalPercent`).
    Share(Fraction),
}

impl Runtime {
    /// Of these layers, the last of which covers the others.
    pub fn new(layers: Vec<Layer>) -> Runtime {
        Runtime { layers }
    }

    /// The links that lead to layers of files.
    pub fn links(&self) -> Vec<PathBuf> {
        self.layers.iter().filter_map(|layer| layer.link.clone()).collect()
    }

    /// Whether the layers are the same, whatever files say.
    pub fn is_like(&self, other: &Runtime) -> bool {
        let same = |(ours, theirs): (&Layer, &Layer)| {
            let files = ours.link.is_some() && ours.link == theirs.link;
            ours.name == theirs.name && (files || ours == theirs)
        };
        self.layers.len() == other.layers.len() && self.layers.iter().zip(&other.layers).all(same)
    }

    /// The value of a key; of none where the key is empty, as in the API.
    pub fn find(&self, key: &str) -> Option<&Value> {
        if key.is_empty() {
            return None;
        }
        self.layers.iter().rev().find_map(|layer| layer.values.get(key))
    }

    /// The value of a key as a whole number (Envoy `RuntimeUInt32`).
    pub fn whole(&self, key: &str) -> Option<u64> {
        self.find(key)?.whole()
    }

    /// The value of a key as a number (Envoy `RuntimeDouble`).
    pub fn number(&self, key: &str) -> Option<f64> {
        self.find(key)?.number()
    }

    /// The value of a key as a switch (Envoy `RuntimeFeatureFlag`).
    pub fn switch(&self, key: &str) -> Option<bool> {
        self.find(key)?.switch()
    }

    /// The value of a key as a share of all (Envoy `RuntimeFractionalPercent`): a whole number is one of hundred.
    pub fn share(&self, key: &str) -> Option<Fraction> {
        match self.find(key)? {
            Value::Share(share) => Some(*share),
            other => {
                let percent = other.whole()?.min(100);
                let numerator = u32::try_from(percent).expect("at most 100");
                Some(Fraction { numerator, denominator: 100 })
            }
        }
    }

    /// Every key that has a value.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let mut keys: Vec<&str> =
            self.layers.iter().flat_map(|layer| layer.values.keys().map(String::as_str)).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.into_iter()
    }

    /// `/runtime`, as Envoy prints it.
    pub fn page(&self) -> Json {
        let entry = |key: &str| {
            let values: Vec<String> = self
                .layers
                .iter()
                .map(|layer| layer.values.get(key).map_or_else(String::new, Value::shown))
                .collect();
            let last = self.find(key).map_or_else(String::new, Value::shown);
            json!({ "layer_values": values, "final_value": last })
        };
        let entries: serde_json::Map<String, Json> =
            self.keys().map(|key| (key.to_owned(), entry(key))).collect();
        let layers: Vec<&str> = self.layers.iter().map(|layer| layer.name.as_str()).collect();
        json!({ "layers": layers, "entries": entries })
    }
}

impl Value {
    fn number(&self) -> Option<f64> {
        match self {
            Value::Number(number) => Some(*number),
            Value::Text(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
            Value::Switch(_) | Value::Share(_) => None,
        }
    }

    fn whole(&self) -> Option<u64> {
        // Above this, not every whole number has a double of its own.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        let number = self.number()?;
        ((0.0..=EXACT).contains(&number) && number.fract() == 0.0).then_some(number as u64)
    }

    fn switch(&self) -> Option<bool> {
        match self {
            Value::Switch(switch) => Some(*switch),
            Value::Text(text) if text.trim().eq_ignore_ascii_case("true") => Some(true),
            Value::Text(text) if text.trim().eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        }
    }

    fn shown(&self) -> String {
        match self {
            Value::Number(number) => number.to_string(),
            Value::Switch(switch) => switch.to_string(),
            Value::Text(text) => text.clone(),
            Value::Share(share) => format!("{}/{}", share.numerator, share.denominator),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(layers: &[&[(&str, Value)]]) -> Runtime {
        let layer = |(at, values): (usize, &&[(&str, Value)])| Layer {
            name: format!("layer {at}"),
            values: values.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
            link: None,
        };
        Runtime::new(layers.iter().enumerate().map(layer).collect())
    }

    #[test]
    fn a_later_layer_covers_an_earlier_one() {
        let both =
            runtime(&[&[("a", Value::Number(1.0)), ("b", Value::Number(2.0))], &[("a", Value::Number(3.0))]]);
        assert_eq!((both.whole("a"), both.whole("b"), both.whole("c")), (Some(3), Some(2), None));
        assert_eq!(
            both.page(),
            json!({
                "layers": ["layer 0", "layer 1"],
                "entries": {
                    "a": {"layer_values": ["1", "3"], "final_value": "3"},
                    "b": {"layer_values": ["2", ""], "final_value": "2"},
                },
            })
        );
    }

    #[test]
    fn a_value_is_read_as_what_is_asked_for() {
        let share = Fraction { numerator: 5, denominator: 10_000 };
        let text = |text: &str| Value::Text(text.into());
        let all = runtime(&[&[
            ("share", Value::Share(share)),
            ("half", Value::Number(0.5)),
            ("many", Value::Number(1000.0)),
            ("text", text("32768")),
            ("on", text("True")),
            ("off", Value::Switch(false)),
            ("", Value::Number(1.0)),
        ]]);
        assert_eq!(all.share("share"), Some(share));
        assert_eq!(all.share("many"), Some(Fraction { numerator: 100, denominator: 100 }));
        assert_eq!((all.share("half"), all.number("half"), all.whole("half")), (None, Some(0.5), None));
        assert_eq!((all.whole("text"), all.switch("text")), (Some(32_768), None));
        assert_eq!((all.switch("on"), all.switch("off")), (Some(true), Some(false)));
        assert_eq!((all.whole("share"), all.whole("off"), all.find("")), (None, None, None));
    }
}
