//! Completion I/O for one core.
//!
//! One thread, one [`Reactor`], one [`Io`]: sockets, tasks, timers and memory of a lane, on io_uring, on epoll, or on a
//! kernel made of data ([`sim`]). Which one serves is chosen when the lane starts and is invisible afterwards: the contract
//! below is the same, and one suite (`tests/parity.rs`) holds every driver to it.
//!
//! ```
//! use corelane_io::{Bind, Chunk, Config, Reactor};
//!
//! let reactor = Reactor::new(&Config::default())?;
//! let io = reactor.io().clone();
//! reactor.run(async {
//!     let mut listener = io.listen(&Bind::tcp("127.0.0.1:0".parse().unwrap()))?;
//!     let mut client = io.connect(&listener.local()?).await?;
//!     let (mut server, _from) = listener.accept().await?;
//!     client.send.push(Chunk::Static(b"hello"));
//!     let heard = server.recv.recv().await?.expect("not FIN yet");
//!     assert_eq!(heard.bytes(), b"hello");
//!     Ok::<(), std::io::Error>(())
//! })?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # The contract
//!
//! **A turn.** A lane runs ready tasks, sends what they queued, enters its kernel once, hands out what came, fires timers
//! and reads its mailbox; then the next turn. Nothing else happens behind a task's back, so between two awaits a task
//! sees a world that stands still.
//!
//! **Receiving is by loan.** [`RecvHalf::recv`] hands out a [`Buf`]: a unique range of a block that the driver filled.
//! Nobody else reads or writes it, so it may be changed in place. Dropping it gives the block back. An idle connection
//! holds no buffer. Dropping the *future* loses nothing: receiving is cancel-safe. Block boundaries mean nothing; a
//! stream may be cut anywhere.
//!
//! **Sending is by queue.** [`SendHalf::push`] never waits; what one turn queues on a socket leaves in one gathered send
//! at its end. [`SendHalf::below`] is back-pressure: a pump asks it before every pull. An error is sticky: from then on
//! `push` drops what it is given and `below` says the error, so a pump that does not ask would drain its source into
//! nothing.
//!
//! **Ring memory never waits**, neither for a peer nor for a consumer. A send from a block is tried once; what the socket
//! does not take is copied to the heap first. Bytes received and not taken by the end of their turn are copied to the
//! heap; past [`Config::recv_limit`] the driver stops receiving on that socket, until its queue is empty and somebody
//! waits. So a stopped peer or consumer costs its limit and what one turn delivers in heap (two turns where bytes can arrive
//! before the cancel is submitted: io_uring without deferred task work, and the simulated kernel), and nobody else anything.
//!
//! **Ends are told apart.** FIN is `Ok(None)` and nothing else. A reset or a failure is an `Err`, again and again. A
//! deadline is `TimedOut`, once. Export carries all of this. Dropping a [`SendHalf`] that was not
//! [finished](SendHalf::finish) *is* abort, at once and with RST: an error can never look like a clean end.
//!
//! **Operations end at their completion.** Cancel is a request. A buffer belongs to the kernel until the terminal
//! completion of the operation that names it, a slot lives as long, and a descriptor is closed after every submission
//! that names it went out.
//!
//! **Moving.** [`Stream::export`] ends every operation and gives the socket up, with what was received and not consumed
//! and what was queued and not sent; [`Io::import`] takes it up on another lane, driver or process. No byte of either
//! direction is lost.
//!
//! **Lanes** share nothing. [`Mailbox::post`] is the only way into one from elsewhere: lock-free, never waiting. A waker
//! may be woken from any thread; elsewhere than on its lane that is a letter too.
//!
//! **Determinism.** Clock, chance and system calls come from here and nowhere else, so one seed of a [`sim::World`] gives
//! one run, down to [`sim::World::trace_hash`].
//!
//! # Drivers
//!
//! | | io_uring | epoll | sim |
//! | --- | --- | --- | --- |
//! | interface | completions: multishot accept and recv, one enter a turn | readiness, edge-triggered | completions |
//! | receive memory | incremental buffer ring, can run out (`ENOBUFS`, a normal event) | pooled blocks, filled on demand | buffer ring |
//! | bulk that nobody looks at | copied | spliced | copied |
//! | needs | Linux 6.0; 6.1 and 6.12 for all of it | any Linux | nothing |
//! | cost | about 10-15 % less CPU than epoll at L4 under load | | virtual time |
//!
//! [`Backend::Auto`] tries io_uring and falls back to epoll; [`Io::report`] says which, why, and what is off.

mod addr;
mod buf;
pub mod cpu;
mod driver;
mod epoll;
mod kernel;
mod listener;
mod mailbox;
mod memory;
mod pool;
mod reactor;
mod report;
mod ring;
mod send;
pub mod sim;
mod slots;
mod sock;
mod splice;
mod stream;
mod sys;
mod task;
mod time;
mod timer;
mod udp;
mod uring;
mod zone;

pub use addr::{Bind, Dial, OptionTime, Peer, SocketOption};
pub use buf::{Buf, Chunk, Shared};
pub use driver::Backend;
pub use listener::Listener;
pub use mailbox::Mailbox;
pub use memory::release_freed_memory;
pub use pool::PoolBox;
pub use reactor::{Config, Io, Reactor};
pub use report::{Feature, Report, Usage};
pub use splice::Forward;
pub use stream::{End, Exported, RecvHalf, SendHalf, Stream, Transport};
pub use time::Instant;
pub use udp::Udp;
pub use uring::UringFeatures;
pub use zone::{Zone, local_zone};
