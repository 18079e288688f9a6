//! When access logs are told of what: of requests, of connections, at their beginning, meanwhile and at their end. On a real
//! driver: the thread that writes is a real one too.

use crate::lab::{Lab, Setup, get, on_epoll, response};
use corelane::config::{AccessLog, LogFilter, LogFormat, LogMoments, LogShape, LogSink, LogType};
use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("corelane-rule-log-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        Scratch(std::env::temp_dir().join(name))
    }

    fn log(&self, format: &str) -> AccessLog {
        let shape = LogShape::Text(format!("{format}\n"));
        AccessLog {
            sink: LogSink::File(self.0.clone()),
            format: LogFormat { shape, omit_empty_values: false },
            filter: None,
        }
    }

    /// The lines, once the last one is this.
    async fn until(&self, lab: &Lab, last: &str) -> Vec<String> {
        loop {
            let lines = self.lines(lab, 1).await;
            if lines.last().is_some_and(|line| line == last) {
                return lines;
            }
            lab.io.sleep(Duration::from_millis(5)).await;
        }
    }

    /// The lines, once there are so many.
    #[expect(clippy::disallowed_methods, reason = "the test looks at what the writer's thread wrote")]
    async fn lines(&self, lab: &Lab, count: usize) -> Vec<String> {
        loop {
            let text = std::fs::read_to_string(&self.0).unwrap_or_default();
            let lines: Vec<_> = text.lines().map(str::to_owned).collect();
            if lines.len() >= count {
                return lines;
            }
            lab.io.sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn quick() -> Setup {
    Setup { lanes: 1, build: |builder| builder.log_delay(Duration::ZERO) }
}

const KIND: &str = "%ACCESS_LOG_TYPE% %RESPONSE_CODE% %UPSTREAM_CLUSTER% %BYTES_SENT%";

#[test]
fn a_request_is_told_of_from_its_beginning_on() {
    on_epoll(quick(), |lab: Lab| async move {
        let (file, ends) = (Scratch::new(), Scratch::new());
        let upstream = lab.slow_upstream();
        lab.http_with(&[upstream.addr], |manager, _| {
            let types = vec![LogType::DownstreamStart, LogType::DownstreamPeriodic];
            let only_ends = Some(LogFilter::Types { types, exclude: true });
            manager.access_log = vec![file.log(KIND), AccessLog { filter: only_ends, ..ends.log(KIND) }];
            let interval = Some(Duration::from_millis(25));
            manager.log_moments = LogMoments { start: true, established: true, interval };
        })
        .await;
        let mut client = lab.client().await;
        client.send(get("/")).await;
        assert_eq!(client.message().await.text(), "slow");
        assert_eq!(ends.lines(&lab, 1).await, ["DownstreamEnd 200 up 4"]);
        let lines = file.until(&lab, "DownstreamEnd 200 up 4").await;
        assert_eq!(lines[..2], ["DownstreamStart 0 up 0", "DownstreamPeriodic 0 up 0"]);
    });
}

#[test]
fn a_body_is_measured_whether_or_not_it_came_with_its_head() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
    on_epoll(quick(), |lab: Lab| async move {
        let file = Scratch::new();
        let upstream = lab.upstream(|mut wire| async move {
            while let Some(head) = wire.try_head().await {
                if head.contains("/together") {
                    wire.send(format!("{HEAD}hello")).await;
                } else {
                    wire.send(HEAD).await;
                    wire.io.sleep(Duration::from_millis(2)).await;
                    wire.send("hello").await;
                }
            }
        });
        lab.http_with(&[upstream.addr], |manager, _| {
            let format =
                "%UPSTREAM_WIRE_BYTES_RECEIVED% %BYTES_SENT% %COMMON_DURATION(US_RX_BEG:US_RX_END:us)%";
            manager.access_log = vec![file.log(format)];
        })
        .await;
        let mut client = lab.client().await;
        for path in ["/together", "/apart"] {
            assert_eq!(client.ask(&get(path)).await.text(), "hello");
        }
        let lines = file.lines(&lab, 2).await;
        for line in &lines {
            let words: Vec<_> = line.split(' ').collect();
            assert_eq!(words[..2], [(HEAD.len() + 5).to_string().as_str(), "5"], "{lines:?}");
            assert!(words[2].parse::<u64>().is_ok(), "the end was noted: {lines:?}");
        }
    });
}

#[test]
fn a_forwarded_connection_is_told_of_from_its_beginning_on() {
    on_epoll(quick(), |lab: Lab| async move {
        let file = Scratch::new();
        let upstream = lab.upstream(|mut wire| async move {
            wire.send("hello").await;
            wire.io.sleep(Duration::from_millis(60)).await;
            wire.finish().await;
        });
        lab.tcp_with(&[upstream.addr], |proxy, _| {
            proxy.access_log = vec![file.log(KIND)];
            let interval = Some(Duration::from_millis(25));
            proxy.log_moments = LogMoments { start: true, established: true, interval };
        })
        .await;
        let mut client = lab.client().await;
        assert_eq!(client.rest().await.0, b"hello");
        client.finish().await;
        let lines = file.until(&lab, "TcpConnectionEnd 0 up 5").await;
        let first = ["TcpConnectionStart 0 - 0", "TcpUpstreamConnected 0 up 0", "TcpPeriodic 0 up 5"];
        assert_eq!(lines[..3], first);
    });
}

#[test]
fn a_listener_tells_of_every_connection_once_it_is_over() {
    on_epoll(quick(), |lab: Lab| async move {
        let file = Scratch::new();
        let format = format!(
            "{KIND} %BYTES_RECEIVED% %FILTER_CHAIN_NAME% %PROTOCOL% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%"
        );
        let upstream = lab.upstream(|mut wire| async move {
            while wire.try_head().await.is_some() {
                wire.send(response(200, "four")).await;
            }
        });
        let mut config = lab.http(&[upstream.addr]).await;
        config.listeners[0].access_log = vec![file.log(&format)];
        config.listeners[0].chains[0].name = "first".into();
        lab.publish(&config).await;
        let mut client = lab.client().await;
        let mut sent = 0;
        for _ in 0..2 {
            client.send(get("/")).await;
            let answer = client.message().await;
            assert_eq!(answer.text(), "four");
            sent += answer.head.len() + "\r\n\r\nfour".len();
        }
        client.finish().await;
        let received = 2 * get("/").len();
        let lines = file.lines(&lab, 1).await;
        assert_eq!(lines, [format!("NotSet 0 - {sent} {received} first HTTP/1.1 - -")]);
        // A chain that nobody matches.
        config.listeners[0].chains[0].matches.destination_port = Some(1);
        lab.publish(&config).await;
        assert!(lab.is_reset().await);
        let lines = file.lines(&lab, 2).await;
        assert_eq!(lines[1], "NotSet 0 - 0 0 - - NR filter_chain_not_found");
    });
}
