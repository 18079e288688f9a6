//! Layers of the runtime that are directories (Envoy `DiskLayer`): one file a key, its path the key. Owns reading them, and
//! noticing that one was replaced; what a key may say is `translate`'s.
//!
//! As in Envoy a layer is replaced as a whole, by moving another symbolic link to its place: files that change one by one could
//! be read half.

use std::{
    collections::BTreeMap, ffi::OsString, fs, io, mem::MaybeUninit, path::Path, path::PathBuf, thread,
};

use corelane::config::Fraction;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::Value;

/// How deep directories may lie in each other: Envoy's bound.
const DEPTH: usize = 16;

/// Reads all files below a directory.
///
/// # Errors
/// What cannot be read, or lies too deep.
pub fn read(root: &Path) -> io::Result<BTreeMap<String, Value>> {
    let mut values = BTreeMap::new();
    walk(root, "", 0, &mut values)?;
    Ok(values)
}

fn walk(
    directory: &Path,
    prefix: &str,
    depth: usize,
    values: &mut BTreeMap<String, Value>,
) -> io::Result<()> {
    if depth > DEPTH {
        return Err(io::Error::other(format!(
            "{} lies deeper than {DEPTH} directories",
            directory.display()
        )));
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let key = if prefix.is_empty() { name.into_owned() } else { format!("{prefix}.{name}") };
        // Links too are what they lead to.
        let kind = fs::metadata(entry.path())?;
        if kind.is_dir() {
            walk(&entry.path(), &key, depth + 1, values)?;
        } else if kind.is_file() {
            values.insert(key, value(&fs::read_to_string(entry.path())?));
        }
    }
    Ok(())
}

/// What a file says: a text without its comments, or a share of all.
fn value(text: &str) -> Value {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let text = lines.join("\n");
    let text = text.trim_end();
    share(text).map_or_else(|| Value::Text(text.to_owned()), Value::Share)
}

/// `numerator: 5` and, where it is not a hundred, `denominator: TEN_THOUSAND`.
fn share(text: &str) -> Option<Fraction> {
    let mut share = Fraction { numerator: 0, denominator: 100 };
    let mut any = false;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (name, value) = line.split_once(':')?;
        match (name.trim(), value.trim()) {
            ("numerator", number) => share.numerator = number.parse().ok()?,
            ("denominator", "HUNDRED") => share.denominator = 100,
            ("denominator", "TEN_THOUSAND") => share.denominator = 10_000,
            ("denominator", "MILLION") => share.denominator = 1_000_000,
            _ => return None,
        }
        any = true;
    }
    any.then_some(share)
}

/// Calls `replaced` whenever something was moved to the place of one of these links, from a thread of its own that lives as
/// long as the process. Where there are none, there is no thread.
///
/// # Errors
/// The directory of a link is not there, or the user's inotify limits are used up.
pub fn watch(links: &[PathBuf], replaced: impl Fn() + Send + 'static) -> io::Result<()> {
    if links.is_empty() {
        return Ok(());
    }
    let inotify = inotify::init(CreateFlags::CLOEXEC)?;
    let mut watched: Vec<(i32, OsString)> = Vec::new();
    for link in links {
        let parent = link.parent().filter(|parent| !parent.as_os_str().is_empty());
        let descriptor =
            inotify::add_watch(&inotify, parent.unwrap_or(Path::new(".")), WatchFlags::MOVED_TO)?;
        watched.push((descriptor, link.file_name().unwrap_or_default().to_owned()));
    }
    let wait = move || {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&inotify, &mut buffer);
        // Fails only where the descriptor is gone, which nobody else has.
        while let Ok(event) = events.next() {
            let name = event.file_name().map(|name| OsString::from(name.to_string_lossy().as_ref()));
            if watched
                .iter()
                .any(|(descriptor, known)| *descriptor == event.wd() && name.as_ref() == Some(known))
            {
                replaced();
            }
        }
    };
    thread::Builder::new().name("runtime".into()).spawn(wait)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::fs::symlink, sync::mpsc, time::Duration};

    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn scratch(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("corelane-disk-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    #[test]
    fn a_file_is_a_key_and_its_text_a_value() {
        let root = scratch("read");
        fs::create_dir_all(root.0.join("route/deep")).unwrap();
        for (name, text) in [
            ("plain", "5\n"),
            ("route/share", "# half of all\nnumerator: 50\ndenominator: HUNDRED\n"),
            ("route/deep/switch", "true"),
            ("text", "a: b\n# said\nc  \n"),
        ] {
            fs::write(root.0.join(name), text).unwrap();
        }
        let text = |text: &str| Value::Text(text.into());
        let expected = [
            ("plain", text("5")),
            ("route.deep.switch", text("true")),
            ("route.share", Value::Share(Fraction { numerator: 50, denominator: 100 })),
            ("text", text("a: b\nc")),
        ];
        let expected: BTreeMap<_, _> =
            expected.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        assert_eq!(read(&root.0).unwrap(), expected);
        assert!(read(&root.0.join("nobody")).is_err());
    }

    #[test]
    fn a_replaced_link_is_noticed() {
        let root = scratch("watch");
        let link = root.0.join("current");
        symlink(&root.0, &link).unwrap();
        let (told, news) = mpsc::channel();
        watch(std::slice::from_ref(&link), move || _ = told.send(())).unwrap();
        for name in ["other", "current"] {
            symlink("elsewhere", root.0.join("next")).unwrap();
            fs::rename(root.0.join("next"), root.0.join(name)).unwrap();
        }
        news.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(news.try_recv().is_err(), "another name is nobody's");
    }
}
