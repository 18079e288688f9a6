//! Running this program under callgrind, and what callgrind counted.

use anyhow::{Context, Result};
use std::{fs, path::Path, process::Command};

/// The command that runs this program with `words` under callgrind, which counts into `out`.
///
/// # Errors
/// If the program cannot be found.
pub(crate) fn command(out: &Path, words: &[String]) -> Result<Command> {
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--tool=callgrind"]).arg(format!("--callgrind-out-file={}", out.display()));
    command.arg(std::env::current_exe()?).args(words);
    Ok(command)
}

/// The total that callgrind wrote.
pub(crate) fn total(out: &Path) -> Result<u64> {
    let text = fs::read_to_string(out).context("callgrind wrote no file")?;
    let line = text.lines().find_map(|l| l.strip_prefix("totals:").or_else(|| l.strip_prefix("summary:")));
    line.context("no total in callgrind's file")?.trim().parse().context("callgrind's total is a number")
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_interop::process::Folder;

    #[test]
    fn callgrinds_total_is_found() {
        let folder = Folder::new("total").expect("the temporary folder is writable");
        let path = folder.path().join("out");
        fs::write(&path, "version: 1\nevents: Ir\nfn=(1) main\n16 400\ntotals: 123456\n")
            .expect("it is writable");
        assert_eq!(total(&path).expect("it is there"), 123_456);
        fs::write(&path, "version: 1\n").expect("it is writable");
        assert!(total(&path).is_err());
    }
}
