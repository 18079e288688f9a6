//! What the runtime says inside the configuration of extensions. Extensions know no runtime: where they refer to a key that has
//! a value, the value is written in the place of theirs, before they read it. Owns which messages refer to keys, and how.

use corelane::config::{ConfigValue, Fraction};
use serde_json::{Map, Value as Json, json};

use crate::{problem::Path, runtime::Runtime, translate::rest::Translator};

const FAULT: &str = "envoy.extensions.filters.http.fault.v3.HTTPFault";

/// The keys that the fault filter asks for: the message that the value is in and its field, the field by which a configuration
/// names another key, and the one that Envoy takes where it does not.
const FAULT_KEYS: [(Option<&str>, &str, &str, &str); 7] = [
    (Some("delay"), "percentage", "delay_percent_runtime", "fault.http.delay.fixed_delay_percent"),
    (Some("delay"), "fixed_delay", "delay_duration_runtime", "fault.http.delay.fixed_duration_ms"),
    (Some("abort"), "percentage", "abort_percent_runtime", "fault.http.abort.abort_percent"),
    (Some("abort"), "http_status", "abort_http_status_runtime", "fault.http.abort.http_status"),
    (Some("abort"), "grpc_status", "abort_grpc_status_runtime", "fault.http.abort.grpc_status"),
    (
        Some("response_rate_limit"),
        "percentage",
        "response_rate_limit_percent_runtime",
        "fault.http.rate_limit.response_percent",
    ),
    (None, "max_active_faults", "max_active_faults_runtime", "fault.http.max_active_faults"),
];

impl Translator<'_> {
    /// The configuration with what the runtime says in it.
    pub(super) fn with_runtime(&mut self, value: ConfigValue, path: &Path<'_>) -> Option<ConfigValue> {
        let runtime = self.runtime.clone();
        if runtime.keys().next().is_none() {
            return Some(value);
        }
        let mut json = value.value().clone();
        let told = tell(&mut json, &runtime).and_then(|()| match value.type_name() {
            FAULT => tell_faults(&mut json, &runtime),
            _ => Ok(()),
        });
        if let Err(key) = told {
            // Its default would hold in the place of what an operator has set.
            self.refuse(
                path,
                format!("refers to {key:?}, of which the runtime has a value: not implemented"),
            );
            return None;
        }
        Some(ConfigValue::new(value.type_name(), json))
    }
}

/// Looks for Envoy's messages of a key and a default, at any depth.
///
/// # Errors
/// A key with a value that cannot be written in.
fn tell(json: &mut Json, runtime: &Runtime) -> Result<(), String> {
    match json {
        Json::Object(fields) => {
            tell_message(fields, runtime)?;
            fields.values_mut().try_for_each(|value| tell(value, runtime))
        }
        Json::Array(values) => values.iter_mut().try_for_each(|value| tell(value, runtime)),
        _ => Ok(()),
    }
}

/// `RuntimeFractionalPercent` and `RuntimeFeatureFlag`. A value that does not read as one leaves the default, as in Envoy.
fn tell_message(fields: &mut Map<String, Json>, runtime: &Runtime) -> Result<(), String> {
    let Some(Json::String(key)) = fields.get("runtime_key") else { return Ok(()) };
    if runtime.find(key).is_none() {
        return Ok(());
    }
    let told = match fields.get("default_value") {
        Some(Json::Bool(_)) => runtime.switch(key).map(Json::Bool),
        Some(Json::Object(percent)) if !percent.contains_key("value") => runtime.share(key).map(share),
        // Of numbers and percentages, which no filter here is configured by.
        _ => return Err(key.clone()),
    };
    if let Some(told) = told {
        fields.insert("default_value".into(), told);
    }
    Ok(())
}

fn tell_faults(json: &mut Json, runtime: &Runtime) -> Result<(), String> {
    for (message, field, named_by, default) in FAULT_KEYS {
        let key = json.get(named_by).and_then(Json::as_str).filter(|key| !key.is_empty());
        let key = key.unwrap_or(default).to_owned();
        let found = runtime.find(&key).is_some();
        let holder = match message {
            Some(message) => json.get_mut(message),
            None => Some(&mut *json),
        };
        let Some(holder) = holder.and_then(Json::as_object_mut).filter(|_| found) else { continue };
        let told = match field {
            "percentage" => runtime.share(&key).map(share),
            // What a request asks for by header fields is not known before there is one.
            "fixed_delay" if holder.contains_key("header_delay") => return Err(key),
            "http_status" | "grpc_status" if holder.contains_key("header_abort") => return Err(key),
            "http_status" | "grpc_status" if !holder.contains_key(field) => None,
            "fixed_delay" => runtime.whole(&key).map(|millis| json!(seconds(millis))),
            _ => runtime.whole(&key).map(Json::from),
        };
        let Some(told) = told else { continue };
        if field == "fixed_delay" && told == json!("0.000s") {
            // No time at all is no delay, and no delay that could be configured.
            json.as_object_mut().map(|fields| fields.remove("delay"));
            continue;
        }
        holder.insert(field.into(), told);
    }
    Ok(())
}

/// A duration in protobuf's JSON form.
fn seconds(millis: u64) -> String {
    format!("{}.{:03}s", millis / 1000, millis % 1000)
}

fn share(Fraction { numerator, denominator }: Fraction) -> Json {
    let name = match denominator {
        10_000 => "TEN_THOUSAND",
        1_000_000 => "MILLION",
        _ => "HUNDRED",
    };
    json!({ "numerator": numerator, "denominator": name })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Layer, Value};

    fn runtime(values: &[(&str, Value)]) -> Runtime {
        let values = values.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        Runtime::new(vec![Layer { name: "a".into(), values, link: None }])
    }

    #[test]
    fn shares_and_switches_are_written_in_at_any_depth() {
        let runtime = runtime(&[
            ("on", Value::Text("false".into())),
            ("share", Value::Share(Fraction { numerator: 5, denominator: 10_000 })),
            ("percent", Value::Number(7.0)),
            ("text", Value::Text("?".into())),
        ]);
        let mut json = json!({
            "enabled": {"runtime_key": "on", "default_value": true},
            "list": [{"of": {"runtime_key": "share", "default_value": {"numerator": 1}}}],
            "percent": {"runtime_key": "percent", "default_value": {}},
            "none": {"runtime_key": "other", "default_value": true},
            "no_share": {"runtime_key": "text", "default_value": {"numerator": 3}},
        });
        tell(&mut json, &runtime).unwrap();
        assert_eq!(json["enabled"]["default_value"], json!(false));
        assert_eq!(
            json["list"][0]["of"]["default_value"],
            json!({"numerator": 5, "denominator": "TEN_THOUSAND"})
        );
        assert_eq!(json["percent"]["default_value"], json!({"numerator": 7, "denominator": "HUNDRED"}));
        assert_eq!(json["none"]["default_value"], json!(true));
        assert_eq!(json["no_share"]["default_value"], json!({"numerator": 3}));
        for default in [json!(1.5), json!({"value": 1.5})] {
            let mut number = json!({"x": {"runtime_key": "percent", "default_value": default}});
            assert_eq!(tell(&mut number, &runtime), Err("percent".to_owned()));
        }
    }

    #[test]
    fn faults_ask_for_envoys_keys_or_their_own() {
        let runtime = runtime(&[
            ("fault.http.delay.fixed_delay_percent", Value::Number(50.0)),
            ("fault.http.delay.fixed_duration_ms", Value::Number(1500.0)),
            ("own.status", Value::Number(418.0)),
            ("fault.http.max_active_faults", Value::Number(3.0)),
            ("fault.http.rate_limit.response_percent", Value::Number(9.0)),
        ]);
        let mut fault = json!({
            "delay": {"fixed_delay": "1s", "percentage": {"numerator": 1}},
            "abort": {"http_status": 503, "percentage": {"numerator": 2}},
            "abort_http_status_runtime": "own.status",
        });
        tell_faults(&mut fault, &runtime).unwrap();
        assert_eq!(fault["delay"]["fixed_delay"], json!("1.500s"));
        assert_eq!(fault["delay"]["percentage"], json!({"numerator": 50, "denominator": "HUNDRED"}));
        assert_eq!(fault["abort"], json!({"http_status": 418, "percentage": {"numerator": 2}}));
        assert_eq!(fault["max_active_faults"], json!(3));
        assert!(fault.get("response_rate_limit").is_none(), "nothing is limited that was not");
    }

    #[test]
    fn no_time_is_no_delay_and_what_requests_ask_for_is_not_known() {
        let runtime = runtime(&[("fault.http.delay.fixed_duration_ms", Value::Number(0.0))]);
        let mut fault = json!({"delay": {"fixed_delay": "1s"}});
        tell_faults(&mut fault, &runtime).unwrap();
        assert_eq!(fault, json!({}));
        let mut fault = json!({"delay": {"header_delay": {}}});
        assert_eq!(tell_faults(&mut fault, &runtime), Err("fault.http.delay.fixed_duration_ms".to_owned()));
    }
}
