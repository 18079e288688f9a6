//! The node: who a control plane is asked by.

use corelane_proto::envoy::config::core::v3::{BuildVersion, Node, node::UserAgentVersionType};
use corelane_proto::envoy::r#type::v3::SemanticVersion;

/// The node as control planes see it: what the bootstrap says, and which program this is.
pub(super) fn identity(mut node: Node) -> Node {
    if node.user_agent_name.is_empty() {
        node.user_agent_name = "corelane".to_owned();
    }
    if node.user_agent_version_type.is_none() {
        let mut numbers = env!("CARGO_PKG_VERSION").split('.').map(|number| number.parse().unwrap_or(0));
        let mut number = || numbers.next().unwrap_or(0);
        let version = SemanticVersion { major_number: number(), minor_number: number(), patch: number() };
        let build = BuildVersion { version: Some(version), metadata: None };
        node.user_agent_version_type = Some(UserAgentVersionType::UserAgentBuildVersion(build));
    }
    node
}
