//! The proxy on one lane of the calling thread: `corelane-benches lane FILE BACKEND QUIT_PORT`, started by `instructions`.
//!
//! valgrind runs one thread at a time and does not let go of it inside io_uring_enter, so the sidecar with its threads
//! stands still there. This is the same core on the same file with one thread, which ends by itself when somebody connects
//! to the quit port: a signal that meets valgrind inside io_uring_enter hangs it.

use anyhow::{Context, Result, bail};
use corelane::{
    Proxy,
    io::{Backend, Bind, Config, Reactor},
};
use corelane_xds::{args::Identity, load::Source};
use std::net::Ipv4Addr;

/// Serves the bootstrap file until told to quit.
pub(crate) fn serve(mut words: impl Iterator<Item = String>) -> Result<()> {
    let mut word = || words.next().context("lane FILE BACKEND QUIT_PORT");
    let (file, backend, quit) = (word()?, word()?, word()?.parse::<u16>()?);
    let Ok(backend) = backend.parse::<Backend>() else { bail!("no backend {backend}") };
    let source = Source { path: Some(file.into()), yaml: None, node: Identity::default(), default: "" };
    let config = match source.load() {
        Ok(translated) => translated.config,
        Err(problems) => bail!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
    };
    let reactor = Reactor::new(&Config { backend, ..Config::default() })?;
    let io = reactor.io().clone();
    let handle = Proxy::builder().on(std::slice::from_ref(&io));
    let snapshot = handle.compile(&config).map_err(|e| anyhow::anyhow!("{e}"))?;
    let published = handle.publish(snapshot);
    reactor.run(async move {
        published.await.map_err(|e| anyhow::anyhow!("{e}"))?;
        let mut door = io.listen(&Bind::tcp((Ipv4Addr::LOCALHOST, quit).into()))?;
        door.accept().await?;
        Ok(())
    })
}
