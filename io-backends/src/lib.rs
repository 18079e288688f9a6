//! Completion I/O for one core. (Contract in prose: being written.)
#![warn(missing_docs)]

mod addr;
mod buf;
pub mod cpu;
mod driver;
mod epoll;
mod kernel;
mod listener;
mod mailbox;
mod pool;
mod reactor;
mod report;
mod ring;
mod send;
pub mod sim;
mod slots;
mod sock;
mod stream;
mod sys;
mod task;
mod time;
mod timer;
mod udp;
mod uring;

pub use addr::{Bind, Peer};
pub use buf::{Buf, Chunk, Shared};
pub use driver::Backend;
pub use listener::Listener;
pub use mailbox::Mailbox;
pub use pool::PoolBox;
pub use reactor::{Config, Io, Reactor};
pub use report::{Feature, Report, Usage};
pub use stream::{End, Exported, RecvHalf, SendHalf, Stream, Transport};
pub use time::Instant;
pub use udp::Udp;
pub use uring::UringFeatures;
