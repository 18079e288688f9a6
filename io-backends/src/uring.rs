//! io_uring as this crate uses it: one ring a lane, one enter a turn, multishot operations on a provided-buffer ring.
//!
//! What the kernel can do is tried at start, not guessed from its version: a feature that fails its trial is left out and
//! the report says why. Below multishot recv with a buffer ring the driver refuses to start, and `auto` takes epoll.

use crate::{
    report::Feature,
    ring::{Cqe, Sqe},
};
use io_uring::{IoUring, opcode, squeue, types};
use std::{
    io,
    io::Write as _,
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::UnixStream,
    },
    ptr,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

/// Submission entries; a turn with more is submitted in parts.
const SUBMISSIONS: u32 = 1024;
/// Completion entries: twelve for each submission of a full turn, since multishot operations complete many times.
const COMPLETIONS: u32 = 8192;
/// `IOU_PBUF_RING_INC`: the kernel fills a block piece by piece. Linux 6.12.
const PBUF_RING_INC: u16 = 2;
/// The group of this ring's only buffer ring.
const GROUP: u16 = 0;

/// What to use of io_uring, where the kernel has it. All on by default; switched off to test older kernels' ways.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UringFeatures {
    /// IORING_SETUP_SINGLE_ISSUER and DEFER_TASKRUN (Linux 6.1): completions run when the lane asks, not by interrupt.
    pub defer_taskrun: bool,
    /// IOU_PBUF_RING_INC (Linux 6.12): one block serves many receives.
    pub incremental: bool,
}

impl Default for UringFeatures {
    fn default() -> UringFeatures {
        UringFeatures { defer_taskrun: true, incremental: true }
    }
}

pub(crate) struct Uring {
    ring: IoUring,
    buffers: BufferRing,
}

/// The ring of blocks shared with the kernel.
struct BufferRing {
    entries: *mut types::BufRingEntry,
    mask: u16,
    tail: u16,
}

impl BufferRing {
    fn bytes(entries: u16) -> usize {
        usize::from(entries) * size_of::<types::BufRingEntry>()
    }

    fn map(entries: u16) -> io::Result<BufferRing> {
        debug_assert!(entries.is_power_of_two());
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_ANONYMOUS | libc::MAP_PRIVATE;
        // SAFETY: a fresh anonymous mapping, page-aligned as the kernel wants it.
        let at = unsafe { libc::mmap(ptr::null_mut(), BufferRing::bytes(entries), protection, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(BufferRing { entries: at.cast(), mask: entries - 1, tail: 0 })
    }

    fn post(&mut self, id: u16, at: *mut u8, len: u32) {
        // SAFETY: the index is masked to the mapping, and the kernel reads an entry only after `publish`.
        let entry = unsafe { &mut *self.entries.add(usize::from(self.tail & self.mask)) };
        entry.set_addr(at.expose_provenance() as u64);
        entry.set_len(len);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: the tail lies inside the mapping (it shares the first entry's padding) and is only ever accessed
        // atomically from here on.
        let tail = unsafe { &*types::BufRingEntry::tail(self.entries).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length; the ring that used it is closed (`Uring`'s fields drop in order).
        unsafe { libc::munmap(self.entries.cast(), BufferRing::bytes(self.mask + 1)) };
    }
}

/// The largest block ring tried; the kernel allows 32,768.
const BLOCKS_MAX: u16 = 4096;

impl Uring {
    /// A ring that the kernel was seen to serve. `blocks` is a power of two. The error says which step failed.
    pub(crate) fn new(
        blocks: u16,
        wanted: UringFeatures,
        features: &mut Vec<Feature>,
    ) -> Result<Uring, String> {
        if !blocks.is_power_of_two() || blocks > BLOCKS_MAX {
            return Err(format!("{blocks} blocks: a power of two up to {BLOCKS_MAX} is needed"));
        }
        let ring = setup(wanted.defer_taskrun, features)?;
        let buffers = BufferRing::map(blocks).map_err(|e| format!("mapping the buffer ring: {e}"))?;
        let mut uring = Uring { ring, buffers };
        uring.register(blocks, wanted.incremental, features)?;
        uring.trial(features)?;
        Ok(uring)
    }

    fn register(
        &mut self,
        blocks: u16,
        incremental: bool,
        features: &mut Vec<Feature>,
    ) -> Result<(), String> {
        let at = self.buffers.entries.expose_provenance() as u64;
        let register = |flags| {
            // SAFETY: the mapping has room for `blocks` entries and outlives the ring (field order of `Uring`).
            unsafe { self.ring.submitter().register_buf_ring_with_flags(at, blocks, GROUP, flags) }
        };
        let why = match incremental {
            false => "switched off".to_string(),
            true => match register(PBUF_RING_INC) {
                Ok(()) => {
                    features.push(Feature::on("incremental buffer ring"));
                    return Ok(());
                }
                Err(e) => format!("{e}; needs Linux 6.12"),
            },
        };
        features.push(Feature::off("incremental buffer ring", why));
        register(0).map_err(|e| format!("registering a buffer ring: {e} (needs Linux 5.19)"))
    }

    /// One multishot receive on a socket pair: the kernel must fill a block and go on.
    fn trial(&mut self, features: &mut Vec<Feature>) -> Result<(), String> {
        let explain = |what: &str, e: &dyn std::fmt::Display| format!("{what}: {e}");
        let (mut here, there) = UnixStream::pair().map_err(|e| explain("a socket pair", &e))?;
        let mut scratch = vec![0_u8; 64].into_boxed_slice();
        self.post(0, scratch.as_mut_ptr(), 64);
        self.publish();
        here.write_all(b"?").map_err(|e| explain("writing to a socket pair", &e))?;
        self.push(Sqe::RecvMulti { fd: there.as_raw_fd() }, 1);
        let mut seen = Vec::new();
        self.enter(Some(Duration::from_secs(1)), &mut seen).map_err(|e| explain("io_uring_enter", &e))?;
        let first = seen.first().copied().ok_or("no completion of a receive within a second")?;
        // The operation and the block must be out of the kernel's hands before `scratch` goes: FIN ends the one, and a
        // 64-byte block that got 1 byte is used up by 63 more.
        let verdict = match (first.result, first.more(), first.buffer()) {
            (1, true, Some(0)) => Ok(()),
            (result, ..) if result < 0 => {
                Err(explain("multishot recv", &io::Error::from_raw_os_error(-result)))
            }
            _ => Err("multishot recv ended after one receive (needs Linux 6.0)".to_string()),
        };
        if verdict.is_ok() && first.buffer_more() {
            here.write_all(&[b'?'; 63]).map_err(|e| explain("writing to a socket pair", &e))?;
        }
        drop(here);
        let mut open = first.more();
        for _ in 0..100 {
            if !open {
                break;
            }
            seen.clear();
            self.enter(Some(Duration::from_millis(100)), &mut seen)
                .map_err(|e| explain("io_uring_enter", &e))?;
            open = seen.iter().all(Cqe::more);
        }
        if open {
            std::mem::forget(scratch);
            return Err("multishot recv did not end with its connection".to_string());
        }
        features.push(Feature::on("multishot accept and recv"));
        verdict
    }

    pub(crate) fn post(&mut self, id: u16, at: *mut u8, len: u32) {
        self.buffers.post(id, at, len);
    }

    pub(crate) fn publish(&mut self) {
        self.buffers.publish();
    }

    /// Inlined, so that each caller's kind of operation is known where it is encoded: half the instructions of a send.
    #[inline(always)]
    pub(crate) fn push(&mut self, sqe: Sqe, user_data: u64) {
        let entry = encode(sqe).user_data(user_data);
        // SAFETY: the pointers inside live until the operation's terminal completion; whoever pushed it sees to that.
        if unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.push_to_full(&entry);
        }
    }

    #[cold]
    fn push_to_full(&mut self, entry: &squeue::Entry) {
        loop {
            // The kernel takes what is there. An error here comes back at the turn's own enter.
            let _ = self.ring.submit();
            // SAFETY: as in `push`.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
        }
    }

    /// Submits what is queued, waits up to `wait` (for ever: `None`) for a completion, and collects all there are.
    pub(crate) fn enter(&mut self, wait: Option<Duration>, into: &mut Vec<Cqe>) -> io::Result<()> {
        let ready = !self.ring.completion().is_empty();
        let result = match wait {
            Some(Duration::ZERO) => self.enter_now(),
            _ if ready => self.enter_now(),
            None => self.ring.submitter().submit_with_args(1, &types::SubmitArgs::new()),
            Some(wait) => {
                let at = types::Timespec::new().sec(wait.as_secs()).nsec(wait.subsec_nanos());
                self.ring.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(&at))
            }
        };
        match result {
            Ok(_) => {}
            // ETIME: the wait is over. EBUSY and EAGAIN: the kernel wants its completions taken first.
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
                ) => {}
            Err(e) => return Err(e),
        }
        into.extend(self.ring.completion().map(|cqe| Cqe {
            user_data: cqe.user_data(),
            result: cqe.result(),
            flags: cqe.flags(),
        }));
        Ok(())
    }

    /// Without waiting, but with IORING_ENTER_GETEVENTS: under DEFER_TASKRUN completions only run when asked for.
    fn enter_now(&mut self) -> io::Result<usize> {
        const GETEVENTS: u32 = 1;
        let queued = self.ring.submission().len() as u32;
        // SAFETY: no argument structure is passed; the queued entries keep their own promises.
        unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued, 0, GETEVENTS, None) }
    }
}

fn setup(defer: bool, features: &mut Vec<Feature>) -> Result<IoUring, String> {
    const DEFER: &str = "deferred task work";
    let build = |defer: bool| {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(COMPLETIONS);
        if defer {
            builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all();
        }
        builder.build(SUBMISSIONS)
    };
    let why = match defer {
        false => "switched off".to_string(),
        true => match build(true) {
            Ok(ring) => {
                features.push(Feature::on(DEFER));
                return Ok(ring);
            }
            Err(e) => format!("{e}; needs Linux 6.1"),
        },
    };
    let ring = build(false).map_err(|e| format!("io_uring_setup: {e}"))?;
    features.push(Feature::off(DEFER, why));
    Ok(ring)
}

#[inline(always)]
fn encode(sqe: Sqe) -> squeue::Entry {
    let flags = |wait: bool| libc::MSG_NOSIGNAL | if wait { 0 } else { libc::MSG_DONTWAIT };
    let fd = |fd: RawFd| types::Fd(fd);
    match sqe {
        Sqe::AcceptMulti { fd: at } => opcode::AcceptMulti::new(fd(at)).flags(libc::SOCK_CLOEXEC).build(),
        Sqe::RecvMulti { fd: at } => opcode::RecvMulti::new(fd(at), GROUP).build(),
        Sqe::Send { fd: to, at, len, wait } => opcode::Send::new(fd(to), at, len).flags(flags(wait)).build(),
        Sqe::SendMsg { fd: to, msg, wait } => {
            opcode::SendMsg::new(fd(to), msg).flags(flags(wait) as u32).build()
        }
        Sqe::Connect { fd: from, addr } => {
            // SAFETY: the submitter keeps the address alive until the completion.
            let (at, len) = unsafe { (*addr).parts() };
            opcode::Connect::new(fd(from), at, len).build()
        }
        Sqe::Poll { fd: of, events, multi } => opcode::PollAdd::new(fd(of), events).multi(multi).build(),
        Sqe::Cancel { target } => opcode::AsyncCancel::new(target).build(),
    }
}
