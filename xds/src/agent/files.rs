//! Files in the place of control planes: which there are, and when one was replaced. Owns the watching (inotify); what a file
//! says is read elsewhere.
//!
//! As in Envoy a file counts as changed when something is moved to its place, which is atomic; one that is written in place
//! could be read half. With a `watched_directory` anything that is moved to that directory says that the file changed: so
//! Kubernetes replaces the symbolic link through which the file is reached.

use std::{collections::BTreeMap, ffi::OsString, io, mem::MaybeUninit, os::fd::OwnedFd, path::Path};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

use crate::{
    session::TypeStats,
    source::FileSource,
    store::{Kind, Source},
};

/// One file.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) kind: Kind,
    pub(super) file: FileSource,
    /// How reading it went so far.
    pub(super) stats: TypeStats,
}

/// All files.
#[derive(Default)]
pub(super) struct Files {
    files: BTreeMap<Source, File>,
    /// Made with the first file.
    inotify: Option<AsyncFd<OwnedFd>>,
    watches: Vec<Watch>,
}

struct Watch {
    descriptor: i32,
    /// The name that something must be moved to; any where `None`.
    name: Option<OsString>,
    source: Source,
}

impl Files {
    /// Begins to watch a file, once. Its first reading is the caller's business.
    ///
    /// # Errors
    /// The kernel's: the directory is not there, or the user's inotify limits are used up.
    pub(super) fn watch(&mut self, source: Source, kind: Kind, file: &FileSource) -> io::Result<()> {
        self.files.insert(source, File { kind, file: file.clone(), stats: TypeStats::default() });
        let parent = file.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let (directory, name) = match &file.watched_directory {
            Some(directory) => (directory.as_path(), None),
            None => (parent.unwrap_or(Path::new(".")), file.path.file_name().map(OsString::from)),
        };
        let inotify = match &self.inotify {
            Some(inotify) => inotify,
            None => {
                let made = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
                self.inotify.insert(watched(made)?)
            }
        };
        let descriptor = inotify::add_watch(inotify, directory, WatchFlags::MOVED_TO)?;
        self.watches.push(Watch { descriptor, name, source });
        Ok(())
    }

    /// Whether a source is a file here.
    pub(super) fn contains(&self, source: Source) -> bool {
        self.files.contains_key(&source)
    }

    pub(super) fn file(&mut self, source: Source) -> Option<&mut File> {
        self.files.get_mut(&source)
    }

    /// How reading a file went so far.
    pub(super) fn stats(&self, source: Source) -> Option<&TypeStats> {
        self.files.get(&source).map(|file| &file.stats)
    }

    /// Waits until files were replaced; which. Never returns while no file is watched. Cancel-safe.
    pub(super) async fn changed(&self) -> Vec<Source> {
        let Some(inotify) = &self.inotify else { return std::future::pending().await };
        loop {
            // Fails only where the runtime has ended.
            let Ok(mut ready) = inotify.readable().await else { return std::future::pending().await };
            let mut found = Vec::new();
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut events = inotify::Reader::new(inotify.get_ref(), &mut buffer);
            while let Ok(event) = events.next() {
                let name = event.file_name().map(|name| OsString::from(name.to_string_lossy().as_ref()));
                // Events were lost: any file may have been replaced.
                let lost = event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                let hit = self.watches.iter().filter(|watch| {
                    lost || watch.descriptor == event.wd() && (watch.name.is_none() || watch.name == name)
                });
                found.extend(hit.map(|watch| watch.source));
            }
            ready.clear_ready();
            if !found.is_empty() {
                found.sort_unstable();
                found.dedup();
                return found;
            }
        }
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe: it asks for a promise that an OwnedFd keeps, to have one descriptor for life"
)]
fn watched(inotify: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(inotify)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::PathBuf};

    fn directory(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("corelane-files-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn only_what_is_moved_to_a_file_changes_it() {
        let directory = directory("moved");
        let (one, two) = (directory.join("one.yaml"), directory.join("two.yaml"));
        let source = |path: &Path| FileSource { path: path.into(), watched_directory: None };
        run(async {
            let mut files = Files::default();
            files.watch(Source(1), Kind::Cluster, &source(&one)).unwrap();
            files.watch(Source(2), Kind::Listener, &source(&two)).unwrap();
            fs::write(&one, "written in place").unwrap();
            fs::write(directory.join("new"), "moved").unwrap();
            fs::rename(directory.join("new"), directory.join("other.yaml")).unwrap();
            fs::rename(directory.join("other.yaml"), &two).unwrap();
            assert_eq!(files.changed().await, [Source(2)]);
        });
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn anything_that_is_moved_to_a_watched_directory_changes_the_file() {
        let (directory, elsewhere) = (directory("watched"), directory("elsewhere"));
        run(async {
            let mut files = Files::default();
            let file =
                FileSource { path: elsewhere.join("a.yaml"), watched_directory: Some(directory.clone()) };
            files.watch(Source(1), Kind::Cluster, &file).unwrap();
            fs::write(elsewhere.join("data"), "x").unwrap();
            fs::rename(elsewhere.join("data"), directory.join("..data")).unwrap();
            assert_eq!(files.changed().await, [Source(1)]);
        });
        fs::remove_dir_all(directory).unwrap();
        fs::remove_dir_all(elsewhere).unwrap();
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        let file = FileSource { path: "/nowhere/at/all.yaml".into(), watched_directory: None };
        run(async { assert!(Files::default().watch(Source(1), Kind::Cluster, &file).is_err()) });
    }
}
