//! HTTP/1 forwarding.

use crate::lab::{Lab, get, response, rules};

rules! {
    connections_are_kept_on_both_sides,
}

async fn connections_are_kept_on_both_sides(lab: Lab) {
    let upstream = lab.echo();
    lab.http(&[upstream.addr.clone()]).await;
    let mut client = lab.client().await;
    for i in 0..5 {
        let path = format!("/{i}");
        let answer = client.ask(&get(&path)).await;
        assert_eq!((answer.status(), answer.text()), (200, &*format!("GET {path} HTTP/1.1")));
        assert_eq!(answer.field("connection"), None);
    }
    assert_eq!(upstream.accepted.get(), 1);
    assert_eq!(lab.stat("cluster.up.upstream_cx_total"), 1);
    assert_eq!(lab.stat("cluster.up.upstream_rq_2xx"), 5);
    assert_eq!(lab.stat("http.test.downstream_rq_2xx"), 5);
    let _ = response;
}
