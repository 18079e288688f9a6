//! The last known good as a file: one per node in a directory, replaced as a whole. Owns its form and that nobody ever reads
//! half of one; what is worth keeping is decided in the module above.
//!
//! Eight bytes of magic, the length of what follows them and a checksum, both little-endian, then a `LastKnownGood` message. A
//! file is written beside the old one, synced and renamed over it, so a crash leaves the old or the new one; whatever else is
//! found there is not read.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use bytes::{Buf as _, Bytes};
use corelane_proto::corelane::state::v1::{Group as GroupMessage, LastKnownGood, Resource};
use prost::Message as _;

use super::{Group, Node, Remembered};
use crate::store::Kind;

/// Tells our files from others, and this form from later ones.
const MAGIC: &[u8; 8] = b"CRLNLKG1";

/// Magic, length and checksum.
const HEADER: usize = 24;

/// Where the file of a node is.
pub(super) fn path(dir: &Path, node: &Node) -> PathBuf {
    // An id may hold anything, so it does not become a name; the file says whose it is.
    let key = checksum(format!("{}\0{}", node.id, node.cluster).as_bytes());
    dir.join(format!("{key:016x}.lkg"))
}

/// The bytes of a file.
pub(super) fn encode(node: &Node, groups: &[Group]) -> Vec<u8> {
    let groups = groups.iter().map(|group| GroupMessage {
        type_url: group.kind.type_url().to_owned(),
        origin: group.origin.clone(),
        resources: group.resources.iter().map(resource).collect(),
    });
    let message = LastKnownGood {
        node_id: node.id.clone(),
        node_cluster: node.cluster.clone(),
        groups: groups.collect(),
    };
    let payload = message.encode_to_vec();
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&checksum(&payload).to_le_bytes());
    bytes.extend_from_slice(&payload);
    bytes
}

/// What tells one content from another: length and checksum.
pub(super) fn summary(bytes: &[u8]) -> Option<[u8; HEADER]> {
    bytes.first_chunk().copied()
}

fn resource(remembered: &Remembered) -> Resource {
    Resource {
        name: remembered.name.clone(),
        version: remembered.version.to_string(),
        body: remembered.body.as_ref().map(|body| body.to_vec()),
    }
}

/// What the bytes of a file say.
///
/// # Errors
/// In words: they are no such file, not all of it, or of another node.
pub(super) fn decode(bytes: Bytes, node: &Node) -> Result<Vec<Group>, String> {
    let mut rest = bytes;
    if !rest.starts_with(MAGIC) {
        return Err("it is not a last known good of this version".into());
    }
    if rest.len() < HEADER {
        return Err("it is cut short".into());
    }
    rest.advance(MAGIC.len());
    let (length, sum) = (rest.get_u64_le(), rest.get_u64_le());
    if rest.len() as u64 != length {
        return Err(format!("it should have {length} bytes behind its header and has {}", rest.len()));
    }
    if checksum(&rest) != sum {
        return Err("its checksum is wrong".into());
    }
    let message = LastKnownGood::decode(rest).map_err(|error| error.to_string())?;
    if (&message.node_id, &message.node_cluster) != (&node.id, &node.cluster) {
        return Err(format!(
            "it belongs to node {:?} of cluster {:?}",
            message.node_id, message.node_cluster
        ));
    }
    let groups = message.groups.into_iter().filter_map(|group| {
        let remembered = |resource: Resource| Remembered {
            name: resource.name,
            version: resource.version.into(),
            body: resource.body.map(Bytes::from),
        };
        // A type that this build does not ask for.
        let kind = Kind::of_type_url(&group.type_url)?;
        let resources = group.resources.into_iter().map(remembered).collect();
        Some(Group { kind, origin: group.origin, resources })
    });
    Ok(groups.collect())
}

/// Makes the directory, readable for its owner alone: configuration is nobody else's business.
///
/// # Errors
/// What the system says.
pub(super) fn prepare(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Puts `bytes` in the place of the file at `path`.
///
/// # Errors
/// What the system says. The old file is as it was.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    let written = write(&fresh, bytes).and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        // Half of a file helps nobody.
        let _ = fs::remove_file(&fresh);
    }
    written?;
    // The name is on disk when its directory is.
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Says that what the file holds is still what the control plane wants.
///
/// # Errors
/// What the system says.
pub(super) fn confirm(path: &Path, now: SystemTime) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.set_modified(now)
}

/// A file's bytes, and when what it holds was last confirmed.
///
/// # Errors
/// What the system says.
pub(super) fn read(path: &Path) -> io::Result<(Bytes, SystemTime)> {
    let confirmed = fs::metadata(path)?.modified()?;
    Ok((fs::read(path)?.into(), confirmed))
}

/// CRC-64/XZ.
fn checksum(bytes: &[u8]) -> u64 {
    const TABLE: [u64; 256] = {
        let mut table = [0; 256];
        let mut at = 0;
        while at < 256 {
            let (mut value, mut bit) = (at as u64, 0);
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ 0xc96c_5795_d787_0f42 } else { value >> 1 };
                bit += 1;
            }
            table[at] = value;
            at += 1;
        }
        table
    };
    let step = |sum: u64, byte: &u8| TABLE[usize::from(sum as u8 ^ byte)] ^ sum >> 8;
    !bytes.iter().fold(!0, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        Node { id: "n".into(), cluster: "c".into() }
    }

    fn groups() -> Vec<Group> {
        let resource = |name: &str, body: Option<&'static [u8]>| Remembered {
            name: name.into(),
            version: "v".into(),
            body: body.map(Bytes::from_static),
        };
        let clusters = vec![resource("a", Some(b"body")), resource("b", Some(b""))];
        let endpoints = vec![resource("e", None)];
        vec![
            Group { kind: Kind::Cluster, origin: "Aggregated".into(), resources: clusters },
            Group { kind: Kind::Endpoints, origin: "elsewhere".into(), resources: endpoints },
        ]
    }

    #[test]
    fn the_checksum_is_crc_64_xz() {
        // The check value of the catalogue of parametrised CRC algorithms.
        assert_eq!(checksum(b"123456789"), 0x995d_c9bb_df19_39fa);
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let bytes = Bytes::from(encode(&node(), &groups()));
        assert_eq!(decode(bytes, &node()), Ok(groups()));
    }

    /// Every way in which a file can be torn, and every bit that can turn in it, is noticed.
    #[test]
    fn a_torn_or_altered_file_is_refused() {
        let whole = encode(&node(), &groups());
        for length in 0..whole.len() {
            assert!(decode(whole[..length].to_vec().into(), &node()).is_err(), "{length} bytes");
        }
        for bit in 0..whole.len() * 8 {
            let mut altered = whole.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(altered.into(), &node()).is_err(), "bit {bit}");
        }
        assert!(decode([whole, vec![0]].concat().into(), &node()).is_err());
    }

    #[test]
    fn a_foreign_file_is_refused_by_name() {
        let bytes = Bytes::from(encode(&Node { id: "other".into(), ..node() }, &groups()));
        let said = decode(bytes, &node()).unwrap_err();
        assert_eq!(said, "it belongs to node \"other\" of cluster \"c\"");
        assert!(decode(Bytes::from_static(b"\x7fELF and so on, and so on"), &node()).is_err());
    }

    #[test]
    fn a_file_is_replaced_and_confirmed() {
        let dir = std::env::temp_dir().join(format!("corelane-lkg-file-{}", std::process::id()));
        prepare(&dir).unwrap();
        let path = path(&dir, &node());
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        confirm(&path, at).unwrap();
        assert_eq!(read(&path).unwrap(), (Bytes::from_static(b"two"), at));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing else is left");
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_dir_all(&dir).unwrap();
        assert!(replace(&path, b"three").is_err());
    }
}
