//! First light: an echo on each driver.
use corelane_io::{sim, *};
use std::rc::Rc;

async fn echo_once(io: Io) -> Vec<u8> {
    let mut l = io.listen(&Bind::tcp("127.0.0.1:0".parse().unwrap())).unwrap();
    let at = l.local().unwrap();
    let io2 = io.clone();
    io.spawn(async move {
        let (mut s, _) = l.accept().await.unwrap();
        while let Some(b) = s.recv.recv().await.unwrap() {
            s.send.push(b.into());
        }
        s.send.finish().await.unwrap();
        let _ = io2;
    });
    let mut c = io.connect(&at).await.unwrap();
    c.send.push(Chunk::Static(b"hello "));
    c.send.push(Chunk::Static(b"world"));
    c.send.finish().await.unwrap();
    let mut got = Vec::new();
    while let Some(b) = c.recv.recv().await.unwrap() {
        got.extend_from_slice(b.bytes());
    }
    got
}

#[test]
fn echo() {
    for backend in [Backend::Epoll, Backend::Uring] {
        let r = Reactor::new(&Config { backend, ..Config::default() }).unwrap();
        eprintln!("{}", r.io().report());
        let got = r.run(echo_once(r.io().clone()));
        assert_eq!(got, b"hello world");
        drop(r);
    }
    let w = sim::World::new(7);
    let io = w.lane(&Config::default());
    assert_eq!(w.run(&io, echo_once(io.clone())), b"hello world");
    let _ = Rc::new(());
}
