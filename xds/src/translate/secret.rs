//! Secrets: what may be called one. Owns the kinds; keys and certificates are not read here, since whoever uses a secret says
//! what it has to be.

use std::collections::BTreeSet;

use corelane_proto::envoy::extensions::transport_sockets::tls::v3::{Secret as Message, secret::Type};

use crate::{problem::Path, translate::rest::Translator};

/// What a secret is (`Secret.type`). Nothing uses one yet: `transport_socket` is refused wherever it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secret {
    /// `tls_certificate`: a certificate chain with its private key.
    Certificate,
    /// `validation_context`: whom to trust.
    ValidationContext,
    /// `session_ticket_keys`.
    SessionTicketKeys,
    /// `generic_secret`: bytes for a filter.
    Generic,
}

impl Translator<'_> {
    /// The kind of a secret.
    pub(super) fn secret(&mut self, message: &Message, path: &Path<'_>) -> Option<Secret> {
        let kind = match &message.r#type {
            Some(Type::TlsCertificate(_)) => Some(Secret::Certificate),
            Some(Type::ValidationContext(_)) => Some(Secret::ValidationContext),
            Some(Type::SessionTicketKeys(_)) => Some(Secret::SessionTicketKeys),
            Some(Type::GenericSecret(_)) => Some(Secret::Generic),
            None => None,
        };
        if kind.is_none() {
            let what =
                "one of tls_certificate, validation_context, session_ticket_keys, generic_secret must be set";
            self.refuse(path, what);
        }
        kind
    }

    /// The bootstrap's secrets: shown, and there for whoever names one.
    pub(super) fn secrets(&mut self, messages: &[Message], path: &Path<'_>) {
        let mut names = BTreeSet::new();
        for (at, message) in messages.iter().enumerate() {
            let path = path.index(at);
            self.secret(message, &path);
            let name = message.name.as_str();
            if name.is_empty() {
                self.refuse(&path.field("name"), "is required: a secret is used by its name");
            } else if !names.insert(name) {
                self.refuse(&path, format!("a second secret is named {name:?}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        bootstrap::{self, Syntax},
        message::schema::Schema,
        problem::Problem,
    };

    fn problems(secrets: &str) -> Vec<Problem> {
        let text = format!("static_resources: {{secrets: {secrets}}}");
        let schema = Schema::load();
        let bootstrap = bootstrap::read(&schema, &text, Syntax::Yaml).unwrap();
        crate::translate::bootstrap(&schema, bootstrap).err().unwrap_or_default()
    }

    #[test]
    fn the_bootstraps_secrets_have_names_and_a_kind() {
        let good =
            "[{name: a, generic_secret: {secret: {inline_string: x}}}, {name: b, validation_context: {}}]";
        assert_eq!(problems(good), []);
        let table = [
            ("[{name: a}]", "static_resources.secrets[0]", "one of tls_certificate"),
            ("[{validation_context: {}}]", "static_resources.secrets[0].name", "is required"),
            (
                "[{name: a, validation_context: {}}, {name: a, validation_context: {}}]",
                "static_resources.secrets[1]",
                "second secret",
            ),
        ];
        for (secrets, path, what) in table {
            let found = problems(secrets);
            assert!(found.len() == 1 && found[0].path == path && found[0].what.contains(what), "{found:?}");
        }
    }
}
