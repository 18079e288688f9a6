//! Pages that are written piece by piece.

use super::*;
use crate::limits::{ADMIN_PIECE, ADMIN_PIECES, ADMIN_WRITERS};
use std::sync::{
    Arc, Mutex,
    mpsc::{Receiver, Sender, channel},
};

const JSON: &str = "application/json";

fn serve(pages: Pages) -> (Admin, SocketAddr) {
    let ready = pages.read("/ready", "is it", |_| Reply::text(Status::OK, "LIVE\n"));
    let admin = Admin::start(&Peer::Tcp("127.0.0.1:0".parse().unwrap()), ready).unwrap();
    let at = admin.local().ip().unwrap();
    (admin, at)
}

/// A page of `lines` numbered lines.
fn lines(lines: usize) -> Pages {
    Pages::new().stream("/long", "lines", false, JSON, move |_, sink| {
        for line in 0..lines {
            if writeln!(sink, "{line:>15}").is_err() {
                break;
            }
        }
        Ok(())
    })
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").into_bytes()
}

/// The chunks of an answer, joined; `None` where the last one is missing.
fn unchunk(answer: &str) -> Option<String> {
    let (head, mut rest) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("transfer-encoding: chunked") && !head.contains("content-length"), "{head}");
    let mut body = String::new();
    loop {
        let (size, behind) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            assert_eq!(behind, "\r\n");
            return Some(body);
        }
        body.push_str(behind.get(..size)?);
        rest = behind.get(size + 2..)?;
    }
}

#[test]
fn a_long_page_comes_in_chunks_and_whole() {
    let (_admin, at) = serve(lines(50_000));
    let body = unchunk(&talk(at, &get("/long"))).expect("it has its end");
    assert_eq!(body.len(), 50_000 * 16);
    assert!(body.lines().enumerate().all(|(n, line)| line.trim() == n.to_string()));
}

#[test]
fn a_short_page_has_its_length_and_an_empty_one_too() {
    for (count, length) in [(3, "content-length: 48"), (0, "content-length: 0")] {
        let (_admin, at) = serve(lines(count));
        let answer = talk(at, &get("/long"));
        assert!(answer.contains(length) && !answer.contains("chunked"), "{answer}");
    }
}

#[test]
fn a_connection_goes_on_behind_a_streamed_page() {
    let (_admin, at) = serve(lines(5_000));
    let first = "GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let answer = talk(at, format!("{first}{}", String::from_utf8(get("/ready")).unwrap()).as_bytes());
    assert_eq!(answer.matches("HTTP/1.1 200 OK\r\n").count(), 2);
    assert!(answer.ends_with("LIVE\n"));
}

#[test]
fn head_and_http_10_get_no_chunks() {
    let (_admin, at) = serve(lines(5_000));
    let head = talk(at, b"HEAD /long HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(head.contains("transfer-encoding: chunked") && head.ends_with("\r\n\r\n"), "{head}");
    let old = talk(at, b"GET /long HTTP/1.0\r\nHost: localhost\r\n\r\n");
    let (head, body) = old.split_once("\r\n\r\n").unwrap();
    assert!(!head.contains("chunked") && head.contains("connection: close"), "{head}");
    assert_eq!(body.len(), 5_000 * 16);
}

#[test]
fn a_page_sees_query_and_body() {
    let pages = Pages::new().stream("/ask", "ask", true, JSON, |asked, sink| {
        let answer = write!(sink, "{:?} {}", asked.query.value("a"), String::from_utf8_lossy(&asked.body));
        answer.map_err(|_| Reply::text(Status::BAD_REQUEST, ""))
    });
    let (_admin, at) = serve(pages);
    let post =
        "POST /ask?a=b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody";
    assert!(talk(at, post.as_bytes()).ends_with("\r\n\r\nSome(\"b\") body"));
    assert!(talk(at, &get("/ask")).starts_with("HTTP/1.1 405 "));
}

/// What a page that waits for its test tells and is told.
struct Stage {
    written: Receiver<std::io::Result<()>>,
    go: Sender<()>,
}

/// A page that writes one piece each time it is let, and says how that went.
fn stage() -> (Pages, Stage) {
    let (told, written) = channel();
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let pages = Pages::new().stream("/long", "pieces", false, JSON, move |_, sink| {
        let wait = wait.lock().unwrap();
        while wait.recv().is_ok() {
            let outcome = sink.write_all(&[b'x'; ADMIN_PIECE]);
            let failed = outcome.is_err();
            if told.send(outcome).is_err() || failed {
                break;
            }
        }
        Ok(())
    });
    (pages, Stage { written, go })
}

#[expect(clippy::disallowed_methods, reason = "the test is a client beside the server's thread")]
fn connect(at: SocketAddr, request: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(request).unwrap();
    stream
}

/// Held back by its client, a page neither grows without bound nor keeps the admin from others; it ends with its client.
#[test]
fn a_client_that_reads_nothing_holds_its_page_back_and_nobody_else() {
    let (pages, stage) = stage();
    let (_admin, at) = serve(pages);
    let client = connect(at, &get("/long"));
    let mut pieces = 0;
    // Loopback buffers take some megabytes; then the writer stands in its channel and says nothing any more.
    loop {
        stage.go.send(()).unwrap();
        match stage.written.recv_timeout(Duration::from_secs(2)) {
            Ok(outcome) => outcome.unwrap(),
            Err(_) => break,
        }
        pieces += 1;
        assert!(pieces < 2_000, "64 MiB were taken for a client that reads nothing");
    }
    assert!(pieces > ADMIN_PIECES);
    assert!(talk(at, &get("/ready")).ends_with("LIVE\n"));
    drop(client);
    let end = stage.written.recv_timeout(Duration::from_secs(10)).expect("the writer goes on");
    let end = match end {
        // It stood in the channel, which took one more piece before the connection failed.
        Ok(()) => {
            stage.go.send(()).unwrap();
            stage.written.recv_timeout(Duration::from_secs(10)).unwrap()
        }
        end => end,
    };
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn no_more_pages_are_written_at_one_time_than_the_bound() {
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let (entered, entries) = channel();
    let door = gate.clone();
    let pages = Pages::new().stream("/long", "waits", false, JSON, move |_, sink| {
        let _ = entered.send(());
        drop(door.lock());
        let _ = write!(sink, "done");
        Ok(())
    });
    let (_admin, at) = serve(pages);
    let mut waiting: Vec<TcpStream> = (0..ADMIN_WRITERS).map(|_| connect(at, &get("/long"))).collect();
    for _ in 0..ADMIN_WRITERS {
        entries.recv_timeout(Duration::from_secs(10)).unwrap();
    }
    assert!(talk(at, &get("/long")).starts_with("HTTP/1.1 503 "));
    drop(closed);
    for stream in &mut waiting {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("\r\n\r\ndone"), "{answer}");
    }
}

#[test]
fn a_failure_before_the_first_piece_is_the_answer() {
    let pages = Pages::new().stream("/long", "fails", false, JSON, |_, sink| {
        let _ = write!(sink, "{{\"half\":");
        Err(Reply::text(Status::BAD_REQUEST, "no such field\n"))
    });
    let (_admin, at) = serve(pages);
    let answer = talk(at, &get("/long"));
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("\r\n\r\nno such field\n"), "{answer}");
}

#[test]
fn a_failure_in_the_middle_never_looks_complete() {
    let pages = Pages::new().stream("/long", "fails", false, JSON, |_, sink| {
        let _ = sink.write_all(&[b'x'; 2 * ADMIN_PIECE]);
        Err(Reply::text(Status::BAD_REQUEST, ""))
    });
    let (_admin, at) = serve(pages);
    let mut stream = connect(at, &get("/long"));
    let mut answer = Vec::new();
    // A reset, which may overtake what was sent before it.
    let ended = stream.read_to_end(&mut answer);
    assert!(ended.is_err(), "{} bytes and then FIN", answer.len());
}
