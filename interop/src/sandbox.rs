//! Takes system calls away from a program, the way a container's default profile does, then becomes that program.

use anyhow::{Context, Result};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use std::{collections::BTreeMap, os::unix::process::CommandExt, process::Command};

/// Replaces this process by `command`, to which `io_uring_setup` answers EPERM. Everything else stays allowed.
///
/// Containers' default seccomp profiles do just that, which is why the epoll driver is not second class.
///
/// # Errors
/// If the filter cannot be installed or the program not be started. Returns only then.
pub fn without_io_uring(mut command: Command) -> Result<std::convert::Infallible> {
    seccompiler::apply_filter(&denying(libc::SYS_io_uring_setup)?)
        .context("installing the seccomp filter")?;
    Err(command.exec()).with_context(|| format!("starting {}", command.get_program().to_string_lossy()))
}

fn denying(syscall: i64) -> Result<BpfProgram> {
    let filter = SeccompFilter::new(
        BTreeMap::from([(syscall, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        std::env::consts::ARCH.try_into().context("seccomp filters are known for x86_64 and aarch64")?,
    )?;
    Ok(filter.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_takes_the_call_away_from_this_thread() {
        // A filter cannot be lifted again, so a thread of its own gets it; getppid stands for the call.
        let denied = std::thread::spawn(|| {
            seccompiler::apply_filter(&denying(libc::SYS_uname).expect("it compiles")).expect("it installs");
            // rustix's uname asserts success, so what is looked at is a child, which inherits the filter.
            Command::new("uname").output().expect("uname is part of every system").status.success()
        });
        assert!(
            !denied.join().expect("the thread ends by itself"),
            "uname worked under a filter that denies it"
        );
        assert!(Command::new("uname").output().expect("uname is there").status.success());
    }
}
