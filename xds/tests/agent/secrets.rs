//! Secrets by SDS through the whole agent. Nothing that is translated names one yet, since transport sockets are refused, so a
//! test stands in for it: it wants a secret as a static listener would.

use std::{fs, sync::Arc, time::Duration};

use corelane_xds::{
    agent::Phase,
    source::{FileSource, Origin},
    store::{Kind, Reference, Source, Status},
    translate::{Dynamic, Resource, Secret},
};
use serde_json::json;

use crate::{
    kept::{admin, fetch, list},
    lab::{Lab, bootstrap, plane_cluster, scratch, secret, until, with_unknown_field},
    plane::Plane,
};

/// Wants the secret `name` from `source`, for `timeout`.
fn want(dynamic: &mut Dynamic, source: Source, name: &str, timeout: Option<Duration>) {
    dynamic.references.push(Reference { kind: Kind::Secret, name: Arc::from(name), source, timeout });
}

/// A certificate with a private key that must be seen nowhere.
fn certificate(name: &str, round: &str) -> String {
    format!(
        "{{name: {name}, tls_certificate: {{certificate_chain: {{inline_string: public-{round}}},
  private_key: {{inline_string: hush-{round}}}}}}}"
    )
}

/// How it stands with a secret, and the version in use.
fn state(lab: &Lab, source: Source, name: &'static str) -> Option<(Status, Option<(String, Resource)>)> {
    let look = move |state: &corelane_xds::agent::State| {
        let view = state.store().find(Kind::Secret, source, name)?;
        let active = view.active.map(|form| (form.version.to_string(), form.value.clone()));
        Some((view.status, active))
    };
    lab.agent.as_ref().unwrap().door().inspect(look).unwrap()
}

#[test]
fn a_secret_is_waited_for_rotated_refused_and_removed_and_never_shown() {
    for api in ["DELTA_GRPC", "GRPC"] {
        let mut plane = Plane::start();
        let text = bootstrap(plane.addr, api, "");
        let lab = Lab::wanting(&text, |dynamic| want(dynamic, Source::ADS, "s", None));
        let at = admin(&lab, &text);
        assert_eq!(plane.asked(Kind::Secret).subscribe, ["s"]);
        for kind in [Kind::Cluster, Kind::Listener] {
            plane.asked(kind);
            plane.send(kind, "1", &[]);
            plane.answer();
        }
        assert_ne!(lab.progress.phase(), Phase::Live, "the secret is missing");
        let warming = list(&at, "dynamic_warming_secrets");
        assert_eq!((&warming[0]["name"], &warming[0]["client_status"]), (&json!("s"), &json!("REQUESTED")));
        plane.send(Kind::Secret, "1", &[("s", secret(&certificate("s", "1")))]);
        assert_eq!(plane.answer().error, None);
        lab.until_live();
        // Rotation.
        plane.send(Kind::Secret, "2", &[("s", secret(&certificate("s", "2")))]);
        assert_eq!(plane.answer().error, None);
        let (status, active) = state(&lab, Source::ADS, "s").unwrap();
        assert!(
            matches!(&active, Some((version, Resource::Secret(Secret::Certificate))) if version == "2"),
            "{active:?}"
        );
        assert_eq!(status, Status::Acked);
        // What is no secret, and what may mean more than is known here.
        let refused = [
            (secret("{name: s}"), "one of tls_certificate"),
            (secret(&certificate("other", "3")), "inside a resource named"),
            (secret("{name: s, session_ticket_keys: {}}"), "keys"),
            (with_unknown_field(&secret(&certificate("s", "3"))), "field 9999"),
        ];
        for (round, (body, what)) in refused.into_iter().enumerate() {
            // In state of the world the name is the one inside.
            if what.contains("inside") && api == "GRPC" {
                continue;
            }
            plane.send(Kind::Secret, &format!("bad{round}"), &[("s", body)]);
            let error = plane.answer().error.expect("a NACK");
            assert!(error.contains("secret s: ") && error.contains(what), "{error}");
            assert!(!error.contains("hush"), "{error}");
            let (status, active) = state(&lab, Source::ADS, "s").unwrap();
            assert!(
                status == Status::Nacked && active.is_some_and(|(version, _)| version == "2"),
                "it stays"
            );
        }
        let shown = list(&at, "dynamic_active_secrets");
        let certificate = &shown[0]["secret"]["tls_certificate"];
        assert_eq!(certificate["private_key"]["inline_string"], "[redacted]", "{shown:#?}");
        assert_eq!(certificate["certificate_chain"]["inline_string"], "public-2");
        assert_eq!((&shown[0]["name"], &shown[0]["version_info"]), (&json!("s"), &json!("2")));
        assert!(shown[0]["last_updated"].is_string() && shown[0]["error_state"]["details"].is_string());
        for page in ["GET /config_dump", "POST /v3/discovery:client_status"] {
            let page = fetch(&at, page).to_string();
            assert!(page.contains("public-2") && !page.contains("hush"), "{page}");
        }
        if api == "DELTA_GRPC" {
            plane.send_change(Kind::Secret, "gone", &[], &["s"]);
            assert_eq!(plane.answer().error, None);
            let (status, active) = state(&lab, Source::ADS, "s").unwrap();
            assert_eq!(status, Status::DoesNotExist);
            assert!(active.is_some(), "whoever uses it goes on with it, as in Envoy: only they take it away");
        }
    }
}

#[test]
fn a_secret_that_does_not_come_in_time_holds_up_nothing_and_is_taken_later() {
    let mut plane = Plane::start();
    let patience = Some(Duration::from_millis(100));
    let lab = Lab::wanting(&bootstrap(plane.addr, "DELTA_GRPC", ""), |dynamic| {
        want(dynamic, Source::ADS, "late", patience);
    });
    for kind in [Kind::Cluster, Kind::Listener] {
        plane.asked(kind);
        plane.send(kind, "1", &[]);
        plane.answer();
    }
    lab.until_live();
    assert_eq!(state(&lab, Source::ADS, "late").unwrap().0, Status::Timeout);
    plane.send(
        Kind::Secret,
        "1",
        &[("late", secret("{name: late, generic_secret: {secret: {inline_string: hush}}}"))],
    );
    assert_eq!(plane.answer().error, None);
    assert_eq!(state(&lab, Source::ADS, "late").unwrap().0, Status::Acked);
}

#[test]
fn secrets_have_streams_of_their_own_and_files() {
    let (mut plane, mut other) = (Plane::start(), Plane::start());
    let directory = scratch("sds");
    let path = directory.join("sds.yaml");
    let put = |text: &str| {
        let next = directory.join("next");
        fs::write(&next, text).unwrap();
        fs::rename(&next, &path).unwrap();
    };
    let file = |round: &str| {
        let type_url = Kind::Secret.type_url();
        let secret = certificate("f", round).replacen('{', &format!("{{'@type': {type_url}, "), 1);
        format!("version_info: '{round}'\nresources: [{secret}]")
    };
    put(&file("1"));
    let text = bootstrap(plane.addr, "DELTA_GRPC", &plane_cluster("other", other.addr));
    let (mut stream, mut files) = (Source::ADS, Source::ADS);
    let lab = Lab::wanting(&text, |dynamic| {
        let mut api = dynamic.ads.clone().unwrap();
        api.services[0].cluster = "other".into();
        stream = dynamic.sources.number(Origin::Stream(Kind::Secret, Arc::new(api))).unwrap();
        let of_it = FileSource { path: path.clone(), watched_directory: None };
        files = dynamic.sources.number(Origin::File(Kind::Secret, of_it)).unwrap();
        want(dynamic, stream, "s", None);
        want(dynamic, files, "f", None);
    });
    let asked = other.asked(Kind::Secret);
    assert_eq!((asked.subscribe, asked.node.as_deref()), (vec!["s".to_owned()], Some("one")));
    other.send(Kind::Secret, "1", &[("s", secret(&certificate("s", "1")))]);
    assert_eq!(other.answer().error, None);
    for kind in [Kind::Cluster, Kind::Listener] {
        plane.asked(kind);
        plane.send(kind, "1", &[]);
        plane.answer();
    }
    lab.until_live();
    assert_eq!(state(&lab, stream, "s").unwrap().0, Status::Acked);
    let version = |version: &str| {
        until("the file", || {
            let (_, active) = state(&lab, files, "f")?;
            active.filter(|(of, _)| of == version).map(drop)
        });
    };
    version("1");
    put(&file("2"));
    version("2");
    put(
        "resources: [{'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret, name: f}]",
    );
    until("the refusal", || (state(&lab, files, "f")?.0 == Status::Nacked).then_some(()));
    version("2");
    fs::remove_dir_all(directory).unwrap();
}
