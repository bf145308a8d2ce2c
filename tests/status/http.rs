//! Metrics and health, asked with a real HTTP client.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use reqwest::{Method, StatusCode};
use trailblazer::status::control::*;
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
fn metrics() {
    let (_directory, path) = place();
    let agent = FakeAgent::start(&path, filled());
    let answer = get(&agent, "/metrics");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.kind, "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(answer.body, trailblazer::status::metrics::encode(&filled()));
    assert_eq!(get(&agent, "/metrics?x=y").status, 200);
}

#[test]
fn unknown_paths_and_methods() {
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
fn health_is_a_loop_that_answers_and_readiness_is_in_force_and_fresh() {
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
fn a_loop_that_is_stuck_is_unhealthy() {
    let (_directory, path) = place();
    let agent = FakeAgent::behaving(&path, Box::new(|_| None));
    let health = get(&agent, "/healthz");
    assert_eq!(health.status, 503);
    assert!(
        health.body.contains("no answer within 5 s"),
        "{}",
        health.body
    );
}

#[test]
fn what_is_no_http_and_what_says_nothing() {
    let (_directory, path) = place();
    let agent = FakeAgent::start(&path, filled());
    let silent: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(agent.at).unwrap())
        .collect();
    let mut garbage = TcpStream::connect(agent.at).unwrap();
    garbage.write_all(b"\x16\x03\x01 hello\r\n\r\n").unwrap();
    let mut answer = String::new();
    garbage.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(get(&agent, "/healthz").status, 200);
    drop(silent);
}

#[test]
fn an_address_that_is_taken_is_a_clear_error() {
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
