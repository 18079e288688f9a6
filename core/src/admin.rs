//! The admin interface: pages about the proxy, over HTTP/1, on a thread of its own, so that no dashboard ever takes time from
//! a lane. Owns the server, who may talk to it, and the pages that `corelane` can fill by itself; a program adds its own.
//! Never touches what a lane owns: pages read what is shared.
//!
//! Reading is GET, changing anything is POST. A request must name this machine as its host, and a POST must not come from
//! another site's page: a web page that a browser runs beside the proxy can then neither read pages (by rebinding a DNS name)
//! nor press buttons.

mod guard;
mod hosts;
mod pages;
mod serve;
mod stats;
mod status;
mod stream;

pub use pages::{Pages, Query, Reply};
pub use stats::{Found, Number, Readout, prometheus, stats};
pub use status::{Aside, AsideEndpoint, clusters, listeners};
pub use stream::{Asked, Sink};

use std::{
    io,
    rc::Rc,
    sync::mpsc,
    task::Poll,
    thread::{self, JoinHandle},
};

use corelane_io::{Backend, Bind, Config, Io, Mailbox, Peer, Reactor};

use crate::stop::Stop;
use guard::Guard;

/// A running admin interface. Dropping it stops the server and waits for its thread.
#[derive(Debug)]
pub struct Admin {
    local: Peer,
    mailbox: Mailbox,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// Listens at `at` and serves `pages`.
    ///
    /// # Errors
    /// What the thread, its driver or the listener could not get, such as an address in use.
    pub fn start(at: &Peer, pages: Pages) -> io::Result<Admin> {
        let (started, outcome) = mpsc::channel();
        let at = at.clone();
        let thread = thread::Builder::new().name("admin".into()).spawn(move || run(&at, pages, &started))?;
        match outcome.recv() {
            Ok(Ok((local, mailbox))) => Ok(Admin { local, mailbox, thread: Some(thread) }),
            Ok(Err(error)) => Err(error),
            Err(mpsc::RecvError) => Err(io::Error::other("the admin thread ended before it listened")),
        }
    }

    /// Where it listens: the port that the kernel chose, where it was asked to.
    pub fn local(&self) -> &Peer {
        &self.local
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.mailbox.post(|io| {
            if let Some(stop) = io.local::<Stop>() {
                stop.now();
            }
        });
        if let Some(thread) = self.thread.take() {
            // It has nothing to say; if it panicked, it did so on standard error.
            let _ = thread.join();
        }
    }
}

/// The thread. epoll, always: a driver with registered memory is nothing for a page a minute.
fn run(at: &Peer, pages: Pages, started: &mpsc::Sender<io::Result<(Peer, Mailbox)>>) {
    let start = || -> io::Result<_> {
        let reactor = Reactor::new(&Config { backend: Backend::Epoll, ..Config::default() })?;
        let bind = match at {
            Peer::Tcp(addr) => Bind::tcp(*addr),
            Peer::Unix(path) => Bind::unix(path.clone()),
        };
        let listener = reactor.io().listen(&bind)?;
        let local = listener.local()?;
        Ok((reactor, listener, local))
    };
    let (reactor, listener, local) = match start() {
        Ok(running) => running,
        Err(error) => {
            // The receiver waits for exactly one answer, and is there until it has it.
            let _ = started.send(Err(error));
            return;
        }
    };
    let io: Io = reactor.io().clone();
    let stop = Rc::new(Stop::default());
    io.set_local(stop.clone());
    let guard = Guard::new(&local);
    let _ = started.send(Ok((local, io.mailbox())));
    reactor.run(async {
        let serving = serve::listener(io.clone(), listener, pages, guard);
        let (mut serving, mut stopped) = (std::pin::pin!(serving), std::pin::pin!(stop.asked()));
        std::future::poll_fn(|cx| {
            if stopped.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            serving.as_mut().poll(cx)
        })
        .await;
    });
}

#[cfg(test)]
mod tests;
