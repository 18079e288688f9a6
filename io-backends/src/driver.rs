//! Which kernel interface serves a lane's sockets: a closed set, chosen when the lane starts.

use crate::{
    Config, Report,
    buf::Home,
    epoll::{self, Epoll},
    reactor::Core,
    report::Feature,
    ring::{self, Kernel as RingKernel, Ring},
    sim::SimRing,
    uring::Uring,
};
use std::{cell::RefCell, fmt, io, rc::Rc, str::FromStr, time::Duration};

/// Which driver to use on a real kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Backend {
    /// io_uring where the kernel serves it, epoll elsewhere (many container runtimes deny io_uring).
    #[default]
    Auto,
    /// io_uring, or an error.
    Uring,
    /// epoll.
    Epoll,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Auto => "auto",
            Backend::Uring => "uring",
            Backend::Epoll => "epoll",
        })
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(name: &str) -> Result<Backend, String> {
        match name {
            "auto" => Ok(Backend::Auto),
            "uring" => Ok(Backend::Uring),
            "epoll" => Ok(Backend::Epoll),
            _ => Err(format!("no backend '{name}'; there are auto, uring and epoll")),
        }
    }
}

#[expect(clippy::large_enum_variant, reason = "one a lane, and the hot one is the large one")]
pub(crate) enum Driver {
    /// Completions: io_uring, or the simulated kernel.
    Ring(RefCell<Ring>),
    /// Readiness.
    Epoll(RefCell<Epoll>),
}

/// Why a ring splices nothing: its sockets are without O_NONBLOCK, or its receives would fail instead of waiting.
const SPLICE_WAITS: &str = "splice(2) to a socket of a ring could wait for its peer";

/// Starts the driver that the configuration asks for.
pub(crate) fn start(config: &Config, home: &Rc<Home>) -> io::Result<(Driver, Report)> {
    match config.backend {
        Backend::Epoll => epoll(config, home, "asked for".to_string()),
        Backend::Uring => uring(config, home, "asked for")
            .map_err(|why| io::Error::new(io::ErrorKind::Unsupported, format!("io_uring: {why}"))),
        Backend::Auto => uring(config, home, "auto: the kernel serves it")
            .or_else(|why| epoll(config, home, format!("auto: io_uring is not to be had here: {why}"))),
    }
}

fn uring(config: &Config, home: &Rc<Home>, why: &str) -> Result<(Driver, Report), String> {
    let mut features = vec![Feature::off("splice", SPLICE_WAITS.into())];
    let kernel = RingKernel::Uring(Uring::new(config.blocks, config.uring, &mut features)?);
    // Without incremental filling each receive takes a whole block: the same memory in more, smaller ones would be
    // better, but the ring's size is registered; see `Config::blocks`.
    let ring = Ring::new(kernel, home.clone(), config.blocks, config.block_size);
    Ok((Driver::Ring(RefCell::new(ring)), Report { driver: "io_uring", why: why.to_string(), features }))
}

fn epoll(config: &Config, home: &Rc<Home>, why: String) -> io::Result<(Driver, Report)> {
    let epoll = Epoll::new(home.clone(), config.block_size)?;
    let splice = match config.splice {
        true => Feature::on("splice"),
        false => Feature::off("splice", "configured so".into()),
    };
    Ok((Driver::Epoll(RefCell::new(epoll)), Report { driver: "epoll", why, features: vec![splice] }))
}

/// The simulated kernel's driver.
pub(crate) fn sim(config: &Config, home: &Rc<Home>, ring: SimRing) -> (Driver, Report) {
    let ring = Ring::new(RingKernel::Sim(ring), home.clone(), config.blocks, config.block_size);
    let report = Report { driver: "sim", why: "simulated".to_string(), features: Vec::new() };
    (Driver::Ring(RefCell::new(ring)), report)
}

/// Submits and waits, up to `wait` (`None`: for ever), and hands out what came. Says how many events there were.
pub(crate) fn turn(core: &Rc<Core>, wait: Option<Duration>) -> io::Result<usize> {
    match &core.driver {
        Driver::Ring(ring) => ring::turn(core, ring, wait),
        Driver::Epoll(epoll) => epoll::turn(core, epoll, wait),
    }
}
