//! Metrics and health, asked with a real HTTP client.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use reqwest::{Method, StatusCode};
use trailblazer::status::control::*;
use trailblazer::status::metrics::{CATALOGUE, encode};
use trailblazer::status::snapshot::*;

use crate::agent::*;

struct Answer {
    status: StatusCode,
    kind: String,
    body: String,
    headers: reqwest::header::HeaderMap,
}

fn fetch(agent: &FakeAgent, method: Method, path: &str) -> Answer {
    let url = format!("http://{}{path}", agent.at);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let response = client.request(method, url).send().await.unwrap();
        let headers = response.headers().clone();
        Answer {
            status: response.status(),
            kind: headers["content-type"].to_str().unwrap().to_owned(),
            body: response.text().await.unwrap(),
            headers,
        }
    })
}

fn get(agent: &FakeAgent, path: &str) -> Answer {
    fetch(agent, Method::GET, path)
}

#[test]
fn metrics_are_served() {
    let (_directory, path) = place();
    let agent = FakeAgent::start(&path, filled());
    let answer = get(&agent, "/metrics");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.kind, "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(answer.body, encode(CATALOGUE, &filled()));
    assert_eq!(get(&agent, "/metrics?x=y").status, 200);
}

/// A browser sends the name of the page's own server, whatever the name resolves to.
#[test]
fn names_of_other_hosts_are_refused_on_loopback() {
    let (_directory, path) = place();
    let agent = FakeAgent::start(&path, filled());
    let node = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    for (host, status) in [
        ("evil.example", "421"),
        ("evil.example:9683", "421"),
        ("localhost.evil.example", "421"),
        ("127.0.0.1.evil.example", "421"),
        ("a b", "4"),
        ("localhost", "200"),
        ("localhost:9683", "200"),
        ("127.0.0.1:1", "200"),
        ("[::1]:9683", "200"),
        (&node, "200"),
    ] {
        for path in ["/metrics", "/healthz"] {
            let mut stream = TcpStream::connect(agent.at).unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            let expected = format!("HTTP/1.1 {status}");
            assert!(answer.starts_with(&expected), "{host}: {answer}");
        }
    }
}

#[test]
fn unknown_paths_and_methods_are_refused() {
    let (_directory, path) = place();
    let agent = FakeAgent::start(&path, filled());
    for unknown in ["/", "/metrics/", "/metric", "/healthz/x"] {
        let answer = get(&agent, unknown);
        assert_eq!(answer.status, 404, "{unknown}");
        assert!(answer.body.contains("/metrics /healthz /readyz"));
    }
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let answer = fetch(&agent, method, "/metrics");
        assert_eq!(answer.status, 405);
        assert_eq!(answer.headers["allow"], "GET, HEAD");
    }
    assert!(agent.asked.lock().unwrap().is_empty());
    let head = fetch(&agent, Method::HEAD, "/metrics");
    assert_eq!((head.status.as_u16(), head.body.as_str()), (200, ""));
    assert_ne!(head.headers["content-length"], "0");
}

#[test]
fn health_needs_a_live_loop_and_readiness_a_fresh_state_in_force() {
    let snapshot = |change: fn(&mut Snapshot)| {
        let mut snapshot = filled();
        change(&mut snapshot);
        snapshot
    };
    let cases: [(Snapshot, u16, &str); 7] = [
        (filled(), 200, "in force\n"),
        (
            snapshot(|s| s.document.as_mut().unwrap().freshness = Freshness::Warn),
            200,
            "in force\n",
        ),
        (
            snapshot(|s| s.document.as_mut().unwrap().freshness = Freshness::Alarm),
            503,
            "stale: no source has confirmed the document for 130 s",
        ),
        (snapshot(|s| s.document = None), 503, "no document yet"),
        (
            snapshot(|s| {
                s.state = State::Paused;
                s.reason = Some("by flush, pid 17".to_owned());
            }),
            503,
            "paused: by flush, pid 17\n",
        ),
        (snapshot(|s| s.state = State::Degraded), 503, "degraded: "),
        (snapshot(|s| s.state = State::Starting), 503, "starting: "),
    ];
    for (snapshot, code, body) in cases {
        let (_directory, path) = place();
        let agent = FakeAgent::start(&path, snapshot);
        let ready = get(&agent, "/readyz");
        assert_eq!(ready.status, code, "{}", ready.body);
        assert!(ready.body.starts_with(body), "{}", ready.body);
        let health = get(&agent, "/healthz");
        assert_eq!(
            (health.status.as_u16(), health.body.as_str()),
            (200, "ok\n")
        );
    }
}

#[test]
fn stuck_loop_is_unhealthy() {
    let (_directory, path) = place();
    let agent = FakeAgent::behaving(&path, Box::new(|_| None));
    let health = get(&agent, "/healthz");
    assert_eq!(health.status, 503);
    assert!(
        health.body.contains("did not answer within 5 s"),
        "{}",
        health.body
    );
}

/// The answer to these bytes, sent piece by piece.
fn say(agent: &FakeAgent, pieces: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(agent.at).unwrap();
    stream.set_nodelay(true).unwrap();
    // A server may close early, and unread bytes then reset the connection: the answer is there all
    // the same.
    for piece in pieces {
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn unusual_valid_requests_are_served() {
    let (_directory, path) = place();
    let agent = FakeAgent::start(&path, filled());
    let many = "X-Header: of a proxy\r\n".repeat(30);
    for pieces in [
        &[&b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"[..]][..],
        &[b"GET /healthz HTTP/1.0\r\n\r\n"],
        &[
            b"GET /hea",
            b"lthz HT",
            b"TP/1.1\r\nHost:",
            b" localhost\r\n\r",
            b"\n",
        ],
        &[b"GET /healthz?a=b HTTP/1.1\r\n", many.as_bytes(), b"\r\n"],
        // A second request in the same breath isn't answered.
        &[b"GET /healthz HTTP/1.1\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n"],
    ] {
        let answer = say(&agent, pieces);
        assert!(answer.contains(" 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{answer}");
    }
    // The answer arrives whole, though the body wasn't asked for.
    let body = vec![b'x'; 32 << 10];
    let refused = say(
        &agent,
        &[
            b"POST /metrics HTTP/1.1\r\nContent-Length: 32768\r\n\r\n",
            &body,
        ],
    );
    assert!(refused.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"));
    assert!(refused.contains("\r\nallow: GET, HEAD\r\n"), "{refused}");
    assert!(refused.ends_with("only GET and HEAD\n"), "{refused}");
}

#[test]
fn invalid_requests_are_refused() {
    let (_directory, path) = place();
    let agent = FakeAgent::start(&path, filled());
    for garbage in [
        &b"\x16\x03\x01 hello\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"\"status\"\n",
    ] {
        let answer = say(&agent, &[garbage]);
        assert!(
            answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
            "{answer}"
        );
    }
    let endless = [&b"GET /metrics HTTP/1.1\r\nX: "[..], &[b'x'; 9000]].concat();
    let lines = "a: b\r\n".repeat(150);
    let lines = format!("GET /metrics HTTP/1.1\r\n{lines}\r\n");
    for large in [endless, lines.into_bytes()] {
        let answer = say(&agent, &[&large]);
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    assert!(agent.asked.lock().unwrap().is_empty());
    assert_eq!(get(&agent, "/healthz").status, 200);
}

#[test]
fn silent_http_clients_block_no_other_client() {
    let (_directory, path) = place();
    let agent = FakeAgent::start(&path, filled());
    let silent: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(agent.at).unwrap())
        .collect();
    assert_eq!(get(&agent, "/healthz").status, 200);
    drop(silent);
}

#[test]
fn busy_address_is_a_named_error() {
    let (_directory, path) = place();
    let agent = FakeAgent::start(&path, filled());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _here = runtime.enter();
    let (to_loop, _questions) = tokio::sync::mpsc::channel(1);
    let error = serve_metrics(agent.at, to_loop).unwrap_err().to_string();
    let expected = format!("cannot listen for metrics at {}: ", agent.at);
    assert!(error.starts_with(&expected), "{error}");
    assert!(error.contains("[agent] metrics"), "{error}");
}
