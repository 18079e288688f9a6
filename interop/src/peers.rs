//! nginx as an origin, HAProxy as another proxy, wrk as a load: their configuration and what they say.

use crate::process::{Folder, Process, free_port, output, wait_for_port};
use anyhow::{Context, Result, ensure};
use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// nginx with two servers: `origin` has files, uploads and an echo of what the proxy added; `other` only says its name.
pub struct Nginx {
    /// The port of `origin`.
    pub origin: u16,
    /// The port of `other`.
    pub other: u16,
    folder: Folder,
    process: Process,
}

impl Nginx {
    /// Starts it as one process (a worker of its own would outlive a master that is killed), behind `wrapper` (for pinning) if there is any.
    ///
    /// # Errors
    /// If nginx is missing or does not come up.
    pub fn start(wrapper: &[String]) -> Result<Nginx> {
        let folder = Folder::new("nginx")?;
        let (origin, other) = (free_port()?, free_port()?);
        fs::create_dir(folder.path().join("files"))?;
        let uploads = folder.path().join("uploads");
        fs::create_dir(&uploads)?;
        let file = folder.path().join("nginx.conf");
        fs::write(&file, configuration(folder.path(), origin, other))?;
        let mut words = wrapper.to_vec();
        words.push("nginx".to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("-p").arg(folder.path()).arg("-c").arg(&file);
        let mut process = Process::start(command, &folder.path().join("out"))?;
        let up = wait_for_port(origin).and_then(|()| wait_for_port(other));
        up.with_context(|| process.output().unwrap_or_default())?;
        process.expect_running()?;
        Ok(Nginx { origin, other, folder, process })
    }

    /// The path on disk of the file that `origin` serves as `/files/NAME`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("files").join(name)
    }

    /// The path on disk of what was PUT to `/uploads/NAME`.
    pub fn upload(&self, name: &str) -> PathBuf {
        self.folder.path().join("uploads").join(name)
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// If it does not, with its output.
    pub fn expect_running(&mut self) -> Result<()> {
        self.process.expect_running()
    }
}

/// `/` answers a kilobyte-less line that names the request and echoes what a proxy adds; `/slow/` trickles.
fn configuration(at: &Path, origin: u16, other: u16) -> String {
    let at = at.display();
    format!(
        "daemon off; master_process off; pid {at}/pid; error_log stderr warn;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
           access_log off; default_type text/plain; keepalive_requests 1000000; client_max_body_size 0;\n\
           client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fcgi;\n\
           uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;\n\
           server {{\n\
             listen 127.0.0.1:{origin} backlog=4096;\n\
             location / {{\n\
               add_header x-seen-request-id $http_x_request_id;\n\
               add_header x-seen-forwarded-for $http_x_forwarded_for;\n\
               add_header x-seen-forwarded-proto $http_x_forwarded_proto;\n\
               add_header x-seen-connection $http_connection;\n\
               add_header x-connection-number $connection;\n\
               return 200 \"origin $request_method $request_uri $http_host\\n\";\n\
             }}\n\
             location /files/ {{ root {at}; sendfile on; }}\n\
             location /slow/ {{ alias {at}/files/; limit_rate 512k; }}\n\
             location /uploads/ {{ root {at}; dav_methods PUT; }}\n\
             location = /teapot {{ return 418 \"short\\n\"; }}\n\
             location = /bench {{ return 200 \"ok\\n\"; }}\n\
             location = /empty {{ return 204; }}\n\
           }}\n\
           server {{ listen 127.0.0.1:{other} backlog=4096; location / {{\n\
             add_header x-connection-number $connection; return 200 \"other $request_uri\\n\"; }} }}\n\
         }}\n"
    )
}

/// HAProxy that forwards one loopback port to another over kept connections, with one thread.
pub struct Haproxy {
    /// Where it listens.
    pub port: u16,
    /// Its process.
    pub process: Process,
    _folder: Folder,
}

impl Haproxy {
    /// Starts it in front of `upstream`, behind `wrapper` (for pinning) if there is any.
    ///
    /// # Errors
    /// If HAProxy is missing or does not come up.
    pub fn start(wrapper: &[String], upstream: u16) -> Result<Haproxy> {
        let folder = Folder::new("haproxy")?;
        let port = free_port()?;
        let file = folder.path().join("haproxy.cfg");
        let text = format!(
            "global\n  nbthread 1\n  maxconn 4096\n\
             defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  \
             option http-keep-alive\n  http-reuse always\n\
             frontend in\n  bind 127.0.0.1:{port}\n  option forwardfor\n  default_backend out\n\
             backend out\n  server origin 127.0.0.1:{upstream}\n"
        );
        fs::write(&file, text)?;
        let mut words = wrapper.to_vec();
        words.push("haproxy".to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("-db").arg("-f").arg(&file);
        let mut process = Process::start(command, &folder.path().join("out"))?;
        wait_for_port(port).with_context(|| process.output().unwrap_or_default())?;
        process.expect_running()?;
        Ok(Haproxy { port, process, _folder: folder })
    }
}

/// What a run of wrk came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Requests answered.
    pub requests: u64,
    /// Answers that were neither 2xx nor 3xx.
    pub refused: u64,
    /// Failed connects, reads and writes.
    pub errors: u64,
    /// Requests that took longer than the time-out: wrk's own 2 s, or [`start_wrk`]'s 10 s.
    pub late: u64,
}

impl Load {
    /// Whether every request was answered as it should be, and in time.
    pub fn is_whole(&self) -> bool {
        self.errors == 0 && self.refused == 0 && self.late == 0
    }
}

/// Runs wrk with one thread against a URL.
///
/// # Errors
/// If wrk is missing or prints something unknown.
pub fn wrk(wrapper: &[String], connections: usize, seconds: u64, more: &[&str], url: &str) -> Result<Load> {
    let text = output(&mut wrk_command(wrapper, connections, seconds, more, url))?;
    load(&text)
}

/// wrk beside whatever else happens; [`Running::finish`] gives what it came to.
pub struct Running {
    process: Process,
    _folder: Folder,
}

/// Starts wrk with one thread against a URL and does not wait for it.
///
/// # Errors
/// If wrk is missing.
pub fn start_wrk(connections: usize, seconds: u64, url: &str) -> Result<Running> {
    let folder = Folder::new("wrk")?;
    // What else happens may keep a machine of two cores busy for seconds; a request that is lost stays lost.
    let command = wrk_command(&[], connections, seconds, &["--timeout", "10s"], url);
    Ok(Running { process: Process::start(command, &folder.path().join("out"))?, _folder: folder })
}

impl Running {
    /// Waits for its end, which must come within `limit`.
    ///
    /// # Errors
    /// If it does not end, fails, or prints something unknown.
    pub fn finish(mut self, limit: Duration) -> Result<Load> {
        let status = self.process.wait(limit)?;
        let text = self.process.output()?;
        ensure!(status.success(), "wrk gave {status}: {text}");
        load(&text)
    }
}

fn wrk_command(wrapper: &[String], connections: usize, seconds: u64, more: &[&str], url: &str) -> Command {
    let mut words = wrapper.to_vec();
    words.push("wrk".to_owned());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s")]);
    command.args(more).arg(url);
    command
}

fn load(text: &str) -> Result<Load> {
    let requests = text.lines().find_map(|l| l.trim().split_once(" requests in ")?.0.parse().ok());
    let refused =
        text.lines().find_map(|l| l.trim().strip_prefix("Non-2xx or 3xx responses: ")?.parse().ok());
    let trouble = text.lines().find_map(|l| l.trim().strip_prefix("Socket errors: "));
    let counted = |what: &str| -> u64 {
        let counts = trouble.into_iter().flat_map(|counts| counts.split(", "));
        counts.filter_map(|count| count.strip_prefix(what)?.trim().parse::<u64>().ok()).sum()
    };
    Ok(Load {
        requests: requests.with_context(|| format!("no number of requests in what wrk printed:\n{text}"))?,
        // wrk leaves these lines out when there is nothing to say.
        refused: refused.unwrap_or(0),
        errors: counted("connect") + counted("read") + counted("write"),
        late: counted("timeout"),
    })
}

/// Writes `size` bytes (a multiple of eight) without repetition, so that a lost, doubled or swapped part changes the sum.
///
/// # Errors
/// What writing gives.
pub fn generate(path: &Path, size: u64) -> Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut word = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..size / 8 {
        // xorshift64: full period, so no two places within the file are alike.
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        out.write_all(&word.to_le_bytes())?;
    }
    Ok(out.flush()?)
}

/// The SHA-256 of a file, by sha256sum.
///
/// # Errors
/// If the tool is missing or the file is.
pub fn sum(path: &Path) -> Result<String> {
    first_word(output(Command::new("sha256sum").arg(path))?)
}

/// The SHA-256 of what a shell pipeline's curl downloads, without storing it. `arguments` go to curl as they are.
///
/// # Errors
/// If curl fails, cut bodies included.
pub fn sum_of_download(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("bash");
    command.args(["-c", "set -o pipefail; curl -fsS -m 300 \"$@\" | sha256sum", "curl"]).args(arguments);
    first_word(output(&mut command)?)
}

fn first_word(text: String) -> Result<String> {
    let word = text.split_whitespace().next().unwrap_or_default().to_owned();
    ensure!(word.len() == 64, "no SHA-256 in {text:?}");
    Ok(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_read_with_and_without_trouble() {
        let calm = "Running 1s test @ x\n  1 threads and 2 connections\n  31062 requests in 1.00s, 4.41MB read\n\
                    Requests/sec:  30929.19\n";
        assert_eq!(
            load(calm).expect("it is wrk's"),
            Load { requests: 31062, refused: 0, errors: 0, late: 0 }
        );
        let rough = format!(
            "{calm}  Socket errors: connect 1, read 2, write 0, timeout 4\n  Non-2xx or 3xx responses: 9\n"
        );
        assert_eq!(
            load(&rough).expect("it is wrk's"),
            Load { requests: 31062, refused: 9, errors: 3, late: 4 }
        );
        assert!(load("wrk: unable to connect").is_err());
    }

    #[test]
    fn generated_files_have_their_size_and_do_not_repeat() {
        let folder = Folder::new("generate").expect("the temporary folder is writable");
        let path = folder.path().join("f");
        generate(&path, 1 << 16).expect("it is writable");
        let bytes = fs::read(&path).expect("it was written");
        assert_eq!(bytes.len(), 1 << 16);
        let mut words: Vec<&[u8]> = bytes.chunks(8).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), (1 << 16) / 8);
    }
}
