//! `corelane-sidecar` on the bootstrap of `bootstrap.yaml`.

use crate::process::{Folder, Process, free_port, output, wait_for};
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// The kernel interface to ask for, as `--backend` spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// `uring`: fails to start where the kernel has none.
    Uring,
    /// `epoll`.
    Epoll,
    /// `auto`: whichever works, with a line that says which and why.
    Auto,
}

impl Backend {
    /// The flag's value.
    pub fn flag(self) -> &'static str {
        match self {
            Backend::Uring => "uring",
            Backend::Epoll => "epoll",
            Backend::Auto => "auto",
        }
    }
}

/// The ports and the choices that make a bootstrap file.
#[derive(Clone, Copy)]
pub struct Bootstrap {
    /// Listener `web`, with an HTTP connection manager.
    pub http: u16,
    /// Listener `raw`, with a TCP proxy.
    pub tcp: u16,
    /// The admin address.
    pub admin: u16,
    /// The endpoint of cluster `origin`.
    pub origin: u16,
    /// The endpoint of cluster `other`.
    pub other: u16,
    /// The cluster that prefix `/` goes to.
    pub route_to: &'static str,
}

impl Bootstrap {
    /// Free ports in front of these two endpoints; routes to `origin`.
    ///
    /// # Errors
    /// If there are no free ports.
    pub fn to(origin: u16, other: u16) -> Result<Bootstrap> {
        let (http, tcp, admin) = (free_port()?, free_port()?, free_port()?);
        Ok(Bootstrap { http, tcp, admin, origin, other, route_to: "origin" })
    }

    /// The file's text.
    pub fn text(&self) -> String {
        include_str!("../bootstrap.yaml")
            .replace("@HTTP@", &self.http.to_string())
            .replace("@TCP@", &self.tcp.to_string())
            .replace("@ADMIN@", &self.admin.to_string())
            .replace("@ORIGIN@", &self.origin.to_string())
            .replace("@OTHER@", &self.other.to_string())
            .replace("@ROUTE_TO@", self.route_to)
    }
}

/// A running sidecar.
pub struct Sidecar {
    /// The process.
    pub process: Process,
    /// The file it was started with.
    pub file: PathBuf,
    /// What stands in that file.
    pub bootstrap: Bootstrap,
    // Removed when the sidecar is gone.
    _folder: Folder,
}

/// How to start one.
pub struct Options<'a> {
    /// The binary.
    pub binary: &'a Path,
    /// The driver.
    pub backend: Backend,
    /// Lanes.
    pub concurrency: usize,
    /// What comes before the binary on the command line, such as `taskset -c 0` or valgrind.
    pub wrapper: &'a [String],
    /// More flags.
    pub more: &'a [&'a str],
}

impl<'a> Options<'a> {
    /// Two lanes on the given driver.
    pub fn new(binary: &'a Path, backend: Backend) -> Options<'a> {
        Options { binary, backend, concurrency: 2, wrapper: &[], more: &[] }
    }

    /// The command line for a bootstrap file.
    pub fn command(&self, file: &Path) -> Command {
        let words: Vec<&std::ffi::OsStr> =
            self.wrapper.iter().map(AsRef::as_ref).chain([self.binary.as_os_str()]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("-c").arg(file);
        command.args([
            "--backend",
            self.backend.flag(),
            "--concurrency",
            &self.concurrency.to_string(),
            "-l",
            "info",
        ]);
        command.args(self.more);
        command
    }
}

impl Sidecar {
    /// Starts the binary and waits until its admin says LIVE.
    ///
    /// # Errors
    /// If it ends or does not become ready, with what it printed.
    pub fn start(options: &Options<'_>, bootstrap: Bootstrap) -> Result<Sidecar> {
        let folder = Folder::new("sidecar")?;
        let file = folder.path().join("bootstrap.yaml");
        fs::write(&file, bootstrap.text())?;
        let mut process = Process::start(options.command(&file), &folder.path().join("log"))?;
        let ready = wait_for("the sidecar to be ready", Duration::from_secs(20), || {
            process.expect_running()?;
            let page = admin(bootstrap.admin, "/ready")?;
            ensure!(page.contains("LIVE"), "/ready says {page:?}");
            Ok(())
        });
        ready.with_context(|| format!("it printed:\n{}", process.output().unwrap_or_default()))?;
        Ok(Sidecar { process, file, bootstrap, _folder: folder })
    }

    /// Replaces the file, as an editor or a config map mount would: a rename, never a half-written file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn rewrite(&self, text: &str) -> Result<()> {
        let next = self.file.with_extension("next");
        fs::write(&next, text)?;
        Ok(fs::rename(next, &self.file)?)
    }

    /// A page of its admin.
    ///
    /// # Errors
    /// If it does not answer with 2xx.
    pub fn admin(&self, path: &str) -> Result<String> {
        admin(self.bootstrap.admin, path)
    }

    /// The value of a counter or gauge in `/stats`.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn stat(&self, name: &str) -> Result<u64> {
        let stats = self.admin("/stats")?;
        let line = stats.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "));
        line.with_context(|| format!("no stat {name} in:\n{stats}"))?
            .trim()
            .parse()
            .context("a stat is a number")
    }
}

/// A page of the admin on a loopback port.
///
/// # Errors
/// If it does not answer with 2xx.
pub fn admin(port: u16, path: &str) -> Result<String> {
    output(Command::new("curl").args(["-fsS", "-m", "5", &format!("http://127.0.0.1:{port}{path}")]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_filled_in_whole() {
        let text = Bootstrap { http: 1, tcp: 2, admin: 3, origin: 4, other: 5, route_to: "origin" }.text();
        let body: String = text.lines().filter(|l| !l.starts_with('#')).collect();
        assert!(!body.replace("\"@type\"", "").contains('@'), "{text}");
        assert!(text.contains("port_value: 5 ") && text.contains("{ cluster: origin }"), "{text}");
    }

    #[test]
    fn wrappers_come_first() {
        let wrapper = ["taskset".to_owned(), "-c".to_owned(), "0".to_owned()];
        let binary = Path::new("/x/corelane-sidecar");
        let options = Options { wrapper: &wrapper, ..Options::new(binary, Backend::Epoll) };
        let command = options.command(Path::new("/y.yaml"));
        let words: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
        assert_eq!(command.get_program(), "taskset");
        assert_eq!(words[..5], ["-c", "0", "/x/corelane-sidecar", "-c", "/y.yaml"]);
    }
}
