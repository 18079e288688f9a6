//! The system calls of this crate, each one safe to call and total in its errors. Nothing here keeps state.

use crate::addr::{Bind, Dial, OptionTime, Peer, SocketOption};
use std::{
    ffi::OsStr,
    io, mem,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::PathBuf,
    time::{Duration, SystemTime},
};

/// A socket address in the kernel's form, with its length. Boxed by whoever lends it to an operation in flight.
#[derive(Clone, Copy)]
pub(crate) struct RawAddr {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl RawAddr {
    fn empty() -> RawAddr {
        // SAFETY: all-zero bytes are a valid `sockaddr_storage` of family AF_UNSPEC.
        let storage = unsafe { mem::zeroed() };
        RawAddr { storage, len: mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t }
    }

    fn store<T>(addr: T, len: usize) -> RawAddr {
        let mut raw = RawAddr::empty();
        assert!(mem::size_of::<T>() <= mem::size_of_val(&raw.storage));
        // SAFETY: `T` is one of the kernel's plain sockaddr structs, which sockaddr_storage holds by design.
        unsafe { (&raw mut raw.storage).cast::<T>().write(addr) };
        raw.len = len as libc::socklen_t;
        raw
    }

    /// Fails for a Unix path that does not fit `sun_path` (107 bytes).
    pub(crate) fn new(peer: &Peer) -> io::Result<RawAddr> {
        match peer {
            Peer::Tcp(SocketAddr::V4(a)) => {
                let sin = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: a.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from(*a.ip()).to_be() },
                    sin_zero: [0; 8],
                };
                Ok(RawAddr::store(sin, mem::size_of::<libc::sockaddr_in>()))
            }
            Peer::Tcp(SocketAddr::V6(a)) => {
                let sin6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: a.port().to_be(),
                    sin6_flowinfo: a.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: a.ip().octets() },
                    sin6_scope_id: a.scope_id(),
                };
                Ok(RawAddr::store(sin6, mem::size_of::<libc::sockaddr_in6>()))
            }
            Peer::Unix(path) => RawAddr::unix(path.as_os_str().as_bytes()),
        }
    }

    fn unix(name: &[u8]) -> io::Result<RawAddr> {
        let mut sun =
            libc::sockaddr_un { sun_family: libc::AF_UNIX as libc::sa_family_t, sun_path: [0; 108] };
        if name.len() >= sun.sun_path.len() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a Unix socket path has at most 107 bytes",
            ));
        }
        for (to, from) in sun.sun_path.iter_mut().zip(name) {
            *to = *from as libc::c_char;
        }
        let offset = mem::offset_of!(libc::sockaddr_un, sun_path);
        let len = if name.first() == Some(&b'@') {
            sun.sun_path[0] = 0;
            offset + name.len()
        } else {
            offset + name.len() + 1
        };
        Ok(RawAddr::store(sun, len))
    }

    pub(crate) fn peer(&self) -> Peer {
        let at = &raw const self.storage;
        match i32::from(self.storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the kernel wrote a sockaddr_in, as its family says.
                let sin = unsafe { at.cast::<libc::sockaddr_in>().read() };
                let ip = Ipv4Addr::from(u32::from_be(sin.sin_addr.s_addr));
                Peer::Tcp(SocketAddrV4::new(ip, u16::from_be(sin.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: the kernel wrote a sockaddr_in6, as its family says.
                let sin6 = unsafe { at.cast::<libc::sockaddr_in6>().read() };
                let (ip, port) = (Ipv6Addr::from(sin6.sin6_addr.s6_addr), u16::from_be(sin6.sin6_port));
                Peer::Tcp(SocketAddrV6::new(ip, port, sin6.sin6_flowinfo, sin6.sin6_scope_id).into())
            }
            _ => Peer::Unix(self.unix_path()),
        }
    }

    fn unix_path(&self) -> PathBuf {
        // SAFETY: sockaddr_storage is larger than sockaddr_un and fully initialised.
        let sun = unsafe { (&raw const self.storage).cast::<libc::sockaddr_un>().read() };
        let len = (self.len as usize).saturating_sub(mem::offset_of!(libc::sockaddr_un, sun_path));
        let mut name: Vec<u8> = sun.sun_path.iter().take(len).map(|c| *c as u8).collect();
        if name.first() == Some(&0) && name.len() > 1 {
            name[0] = b'@';
        } else if let Some(end) = name.iter().position(|c| *c == 0) {
            name.truncate(end);
        }
        PathBuf::from(OsStr::from_bytes(&name))
    }

    pub(crate) fn parts(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        ((&raw const self.storage).cast(), self.len)
    }
}

/// `-1` becomes the thread's errno.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The same for calls that count bytes.
fn check_len(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn set_option(fd: RawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the kernel reads one int behind the pointer during the call.
    let result = unsafe {
        libc::setsockopt(fd, level, name, (&raw const value).cast(), mem::size_of::<libc::c_int>() as u32)
    };
    check(result).map(drop)
}

/// setsockopt(2) for those options whose time has come.
fn set_options(fd: RawFd, options: &[SocketOption], now: OptionTime) -> io::Result<()> {
    for SocketOption { level, name, value, .. } in options.iter().filter(|option| option.when == now) {
        let len = libc::socklen_t::try_from(value.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the kernel reads `len` bytes behind the pointer during the call.
        check(unsafe { libc::setsockopt(fd, *level, *name, value.as_ptr().cast(), len) })
            .map_err(|e| io::Error::new(e.kind(), format!("socket option {name} of level {level}: {e}")))?;
    }
    Ok(())
}

/// Where a connection was going before netfilter redirected it here (SO_ORIGINAL_DST), or, on a transparent socket, where
/// it goes. `None` where neither holds.
pub(crate) fn original_destination(fd: RawFd, v6: bool) -> Option<Peer> {
    let mut raw = RawAddr::empty();
    let level = if v6 { libc::SOL_IPV6 } else { libc::SOL_IP };
    let name = if v6 { libc::IP6T_SO_ORIGINAL_DST } else { libc::SO_ORIGINAL_DST };
    // SAFETY: `storage` has room for the `len` bytes it announces.
    let found = unsafe { libc::getsockopt(fd, level, name, (&raw mut raw.storage).cast(), &raw mut raw.len) };
    if found == 0 {
        return Some(raw.peer());
    }
    let name = if v6 { libc::IPV6_TRANSPARENT } else { libc::IP_TRANSPARENT };
    let (mut on, mut len) = (0_i32, mem::size_of::<i32>() as libc::socklen_t);
    // SAFETY: the kernel writes one int behind the pointer during the call.
    let told = unsafe { libc::getsockopt(fd, level, name, (&raw mut on).cast(), &raw mut len) };
    if told == 0 && on != 0 { local_name(fd).ok() } else { None }
}

/// A close-on-exec socket for `peer`'s family; blocking, or not as the driver wants it.
pub(crate) fn socket(
    peer: &Peer,
    kind: libc::c_int,
    protocol: libc::c_int,
    nonblocking: bool,
) -> io::Result<OwnedFd> {
    let family = match peer {
        Peer::Tcp(SocketAddr::V4(_)) => libc::AF_INET,
        Peer::Tcp(SocketAddr::V6(_)) => libc::AF_INET6,
        Peer::Unix(_) => libc::AF_UNIX,
    };
    let flags = libc::SOCK_CLOEXEC | if nonblocking { libc::SOCK_NONBLOCK } else { 0 };
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::socket(family, kind | flags, protocol) })?;
    // SAFETY: the kernel has just given this number to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A bound socket; for `SOCK_STREAM` also listening.
pub(crate) fn bound(bind: &Bind, kind: libc::c_int, nonblocking: bool) -> io::Result<OwnedFd> {
    let multipath = bind.mptcp && bind.addr.ip().is_some() && kind == libc::SOCK_STREAM;
    let protocol = if multipath { libc::IPPROTO_MPTCP } else { 0 };
    let fd = socket(&bind.addr, kind, protocol, nonblocking)?;
    let raw = fd.as_raw_fd();
    if let Peer::Tcp(addr) = &bind.addr {
        if kind == libc::SOCK_STREAM {
            set_option(raw, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        }
        if bind.reuse_port {
            set_option(raw, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        }
        if addr.is_ipv6() {
            set_option(raw, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, bind.v6_only.into())?;
        }
    }
    set_options(raw, &bind.options, OptionTime::BeforeBind)?;
    bind_to(raw, &bind.addr)?;
    set_options(raw, &bind.options, OptionTime::Bound)?;
    if kind == libc::SOCK_STREAM {
        let backlog = libc::c_int::try_from(bind.backlog).unwrap_or(libc::c_int::MAX);
        // SAFETY: no pointers.
        check(unsafe { libc::listen(raw, backlog) })?;
        set_options(raw, &bind.options, OptionTime::Listening)?;
    }
    Ok(fd)
}

/// bind(2).
fn bind_to(fd: RawFd, addr: &Peer) -> io::Result<()> {
    let addr = RawAddr::new(addr)?;
    let (at, len) = addr.parts();
    // SAFETY: `at` points at `len` bytes of an address that outlives the call.
    check(unsafe { libc::bind(fd, at, len) }).map(drop)
}

/// Binds and sets what somebody wants who connects.
pub(crate) fn prepare(fd: RawFd, to: &Peer, how: &Dial) -> io::Result<()> {
    set_options(fd, &how.options, OptionTime::BeforeBind)?;
    if let (Some(from), Peer::Tcp(_)) = (how.from, to) {
        if from.port() == 0 {
            // A port is taken at connect(2) then, where connections to different places may have the same.
            set_option(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
        }
        bind_to(fd, &Peer::Tcp(from))?;
    }
    set_options(fd, &how.options, OptionTime::Bound)
}

/// A pipe that waits for nobody: what is read from, and what is written to. It holds `bytes`, or what the kernel gives.
pub(crate) fn pipe(bytes: usize) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: the kernel writes two descriptors behind the pointer during the call.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) })?;
    // SAFETY: the kernel has just given both numbers to us alone.
    let ends = unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) };
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: no pointers. Refused where the user's pipes hold too much: it stays as it is then.
    unsafe { libc::fcntl(fds[1], libc::F_SETPIPE_SZ, bytes) };
    Ok(ends)
}

/// splice(2) from a socket to a pipe. It waits where the socket's descriptor does.
pub(crate) fn splice_in(socket: RawFd, pipe: &OwnedFd, bytes: usize) -> io::Result<usize> {
    splice(socket, pipe.as_raw_fd(), bytes)
}

/// splice(2) from a pipe to a socket. It waits where the socket's descriptor does.
pub(crate) fn splice_out(pipe: &OwnedFd, socket: RawFd, bytes: usize) -> io::Result<usize> {
    splice(pipe.as_raw_fd(), socket, bytes)
}

fn splice(from: RawFd, to: RawFd, bytes: usize) -> io::Result<usize> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    // SAFETY: null pointers name no offsets, which sockets and pipes have none of.
    check_len(unsafe { libc::splice(from, std::ptr::null_mut(), to, std::ptr::null_mut(), bytes, flags) })
}

/// connect(2).
pub(crate) fn connect(fd: RawFd, addr: &RawAddr) -> io::Result<()> {
    let (at, len) = addr.parts();
    // SAFETY: `at` points at `len` bytes of an address that outlives the call.
    check(unsafe { libc::connect(fd, at, len) }).map(drop)
}

/// accept4(2), close-on-exec.
pub(crate) fn accept(fd: RawFd, nonblocking: bool) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_CLOEXEC | if nonblocking { libc::SOCK_NONBLOCK } else { 0 };
    // SAFETY: null pointers ask for no address.
    let new = check(unsafe { libc::accept4(fd, std::ptr::null_mut(), std::ptr::null_mut(), flags) })?;
    // SAFETY: the kernel has just given this number to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

fn name(
    fd: RawFd,
    call: unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int,
) -> io::Result<Peer> {
    let mut raw = RawAddr::empty();
    // SAFETY: `storage` has room for the `len` bytes it announces.
    check(unsafe { call(fd, (&raw mut raw.storage).cast(), &raw mut raw.len) })?;
    Ok(raw.peer())
}

/// getpeername(2): a multishot accept cannot say who came.
pub(crate) fn peer_name(fd: RawFd) -> io::Result<Peer> {
    name(fd, libc::getpeername)
}

/// getsockname(2).
pub(crate) fn local_name(fd: RawFd) -> io::Result<Peer> {
    name(fd, libc::getsockname)
}

/// TCP_NODELAY; other families do not know it and need nothing.
pub(crate) fn nodelay(fd: RawFd) {
    let _ = set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
}

/// Makes the last close send RST and drop what is queued, or takes that back.
pub(crate) fn linger_reset(fd: RawFd, on: bool) {
    let linger = libc::linger { l_onoff: on.into(), l_linger: 0 };
    let len = mem::size_of::<libc::linger>() as libc::socklen_t;
    // SAFETY: the kernel reads one `linger` behind the pointer during the call. Failure leaves an ordinary close.
    unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), len) };
}

/// The socket's pending error, which this clears; 0 when there is none.
pub(crate) fn take_error(fd: RawFd) -> i32 {
    let (mut error, mut len) = (0_i32, mem::size_of::<i32>() as libc::socklen_t);
    let at = (&raw mut error).cast();
    // SAFETY: the kernel writes one int behind the pointer during the call.
    match check(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, at, &raw mut len) }) {
        Ok(_) => error,
        Err(e) => e.raw_os_error().unwrap_or(libc::EIO),
    }
}

/// shutdown(2) of the sending side.
pub(crate) fn shutdown_send(fd: RawFd) {
    // SAFETY: no pointers. It fails only where the connection is gone, which the next operation reports.
    unsafe { libc::shutdown(fd, libc::SHUT_WR) };
}

/// Sets or clears O_NONBLOCK.
pub(crate) fn nonblocking(fd: RawFd, on: bool) -> io::Result<()> {
    // SAFETY: no pointers.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
    let flags = if on { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
    // SAFETY: no pointers.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, flags) }).map(drop)
}

/// Closes a number that no [`OwnedFd`] owns any more.
pub(crate) fn close(fd: RawFd) {
    // SAFETY: the caller took the number out of its `OwnedFd` and uses it no more.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

/// recv(2) without waiting, to `room` bytes at `at`.
///
/// # Safety
/// `at` must be valid for writes of `room` bytes that nobody reads.
pub(crate) unsafe fn recv(fd: RawFd, at: *mut u8, room: usize) -> io::Result<usize> {
    // SAFETY: the caller's promise.
    check_len(unsafe { libc::recv(fd, at.cast(), room, libc::MSG_DONTWAIT) })
}

/// Whether recv(2) would return at once: bytes, FIN or an error wait in the socket.
pub(crate) fn readable_now(fd: RawFd) -> bool {
    let mut byte = 0_u8;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: one byte behind the pointer.
    let result = check_len(unsafe { libc::recv(fd, (&raw mut byte).cast(), 1, flags) });
    !matches!(result, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
}

/// sendmsg(2) without waiting and without SIGPIPE.
///
/// # Safety
/// `msg` must name segments that are valid for reads during the call.
pub(crate) unsafe fn send(fd: RawFd, msg: &libc::msghdr) -> io::Result<usize> {
    // SAFETY: the caller's promise.
    check_len(unsafe { libc::sendmsg(fd, msg, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) })
}

/// send(2) without waiting and without SIGPIPE: for one piece, cheaper than a message.
///
/// # Safety
/// `at` must be valid for reads of `len` bytes during the call.
pub(crate) unsafe fn send_bytes(fd: RawFd, at: *const u8, len: usize) -> io::Result<usize> {
    // SAFETY: the caller's promise.
    check_len(unsafe { libc::send(fd, at.cast(), len, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) })
}

/// recvfrom(2) without waiting.
///
/// # Safety
/// `at` must be valid for writes of `room` bytes that nobody reads.
pub(crate) unsafe fn recv_from(fd: RawFd, at: *mut u8, room: usize) -> io::Result<(usize, Peer)> {
    let mut from = RawAddr::empty();
    let name = (&raw mut from.storage).cast();
    let flags = libc::MSG_DONTWAIT;
    // SAFETY: the caller's promise for `at`; the address buffer has the length it announces.
    let n = check_len(unsafe { libc::recvfrom(fd, at.cast(), room, flags, name, &raw mut from.len) })?;
    Ok((n, from.peer()))
}

/// sendto(2) without waiting.
pub(crate) fn send_to(fd: RawFd, data: &[u8], to: &Peer) -> io::Result<usize> {
    let raw = RawAddr::new(to)?;
    let (name, len) = raw.parts();
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: both pointers outlive the call with the lengths given.
    check_len(unsafe { libc::sendto(fd, data.as_ptr().cast(), data.len(), flags, name, len) })
}

/// CLOCK_MONOTONIC in nanoseconds.
pub(crate) fn monotonic() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec. It cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// The wall clock.
pub(crate) fn wall() -> SystemTime {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec. It cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut t) };
    SystemTime::UNIX_EPOCH + Duration::new(t.tv_sec.max(0) as u64, t.tv_nsec as u32)
}

/// A seed from the kernel.
pub(crate) fn seed() -> u64 {
    let mut seed = 0_u64;
    // SAFETY: eight bytes behind the pointer.
    let n = unsafe { libc::getrandom((&raw mut seed).cast(), 8, 0) };
    if n == 8 { seed } else { monotonic() }
}

/// An eventfd, close-on-exec and non-blocking.
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: the kernel has just given this number to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds one to an eventfd. It cannot fail in a way that loses a wake: EAGAIN means that it is set already.
pub(crate) fn event_set(fd: RawFd) {
    let one = 1_u64;
    // SAFETY: eight bytes behind the pointer.
    unsafe { libc::write(fd, (&raw const one).cast(), 8) };
}

/// Resets an eventfd.
pub(crate) fn event_clear(fd: RawFd) {
    let mut count = 0_u64;
    // SAFETY: eight bytes behind the pointer.
    unsafe { libc::read(fd, (&raw mut count).cast(), 8) };
}
