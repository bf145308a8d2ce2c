//! Metrics and health over HTTP: `/metrics`, `/healthz`, `/readyz`.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr, TcpListener};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HOST, HeaderValue};
use hyper::http::uri::Authority;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::accept::{self, ControlError, Server};
use super::metrics::{CATALOGUE, encode};
use super::protocol::{Asked, Reply, Request, ask_loop};
use super::snapshot::{Freshness, Snapshot, State};
use crate::config::AnyRole;

/// The text format (prometheus.io/docs/instrumenting/exposition_formats).
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";
/// Longest head of a request, in bytes. A scraper behind a proxy sends some 500; hyper's default
/// of 400 kB would apply to each connection.
const MAX_HEAD: usize = 8192;

/// The HTTP server. Dropping the value ends the server.
#[derive(Debug)]
pub struct MetricsServer {
    at: SocketAddr,
    _server: Server,
}

impl MetricsServer {
    /// The listening address, with the kernel's choice for port 0.
    pub fn at(&self) -> SocketAddr {
        self.at
    }
}

/// Listens at `at` on the caller's runtime. Each response is made of the loop's reply.
///
/// # Errors
/// [`ControlError::Metrics`] for an address in use, or of another host.
pub fn serve_metrics(
    at: SocketAddr,
    to_loop: mpsc::Sender<Asked>,
) -> Result<MetricsServer, ControlError> {
    let failed = |source| ControlError::Metrics { at, source };
    let listener = TcpListener::bind(at).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let at = listener.local_addr().map_err(failed)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
    let server = accept::serve(listener, move |stream: TcpStream| {
        let is_loopback = stream.local_addr().is_ok_and(|own| own.ip().is_loopback());
        serve(stream, is_loopback, to_loop.clone())
    });
    Ok(MetricsServer {
        at,
        _server: server,
    })
}

/// Serves one request per connection: keep-alive gains nothing for a scrape every 15 s, and an
/// idle connection would wake the agent up.
pub(super) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    is_loopback: bool,
    to_loop: mpsc::Sender<Asked>,
) {
    let service = service_fn(|request| {
        let to_loop = to_loop.clone();
        async move {
            if is_loopback && !names_this_host(&request) {
                let refusal = "not a name of this host: ask by address, or as localhost\n";
                let status = StatusCode::MISDIRECTED_REQUEST;
                return Ok::<_, Infallible>(page(status, TEXT_TYPE, refusal.to_owned()));
            }
            Ok(answer(&request, &to_loop).await)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    // Errors concern this client alone.
    let _ = connection.await;
}

/// True for a `Host` header that a page in a browser can't forge: an address, `localhost`, or the
/// name of this machine. A web page of a stranger whose name resolves to the loopback address (DNS
/// rebinding) sends its own name.
fn names_this_host(request: &hyper::Request<Incoming>) -> bool {
    let header = request.headers().get(HOST);
    let Some(text) = header.map(|value| value.to_str().unwrap_or("?")) else {
        // HTTP/1.0 clients send none, browsers always do.
        return true;
    };
    let Ok(authority) = text.parse::<Authority>() else {
        return false;
    };
    let host = authority.host();
    let plain = host.trim_start_matches('[').trim_end_matches(']');
    let node = rustix::system::uname();
    let node = node.nodename().to_string_lossy();
    plain.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || host.eq_ignore_ascii_case(&node)
}

async fn answer(
    request: &hyper::Request<Incoming>,
    to_loop: &mpsc::Sender<Asked>,
) -> Response<Full<Bytes>> {
    let make = match request.uri().path() {
        "/metrics" => metrics_page,
        "/healthz" => health,
        "/readyz" => readiness,
        _ => {
            let known = "not found; known paths: /metrics /healthz /readyz\n";
            return page(StatusCode::NOT_FOUND, TEXT_TYPE, known.to_owned());
        }
    };
    // hyper omits the body for HEAD.
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = page(
            StatusCode::METHOD_NOT_ALLOWED,
            TEXT_TYPE,
            "only GET and HEAD\n".to_owned(),
        );
        let allowed = HeaderValue::from_static("GET, HEAD");
        refusal.headers_mut().insert(ALLOW, allowed);
        return refusal;
    }
    match ask_loop(to_loop, Request::Status).await {
        Ok(Reply::Status(snapshot)) => make(&snapshot),
        Ok(Reply::Refused(why)) => unavailable(&why),
        Ok(Reply::Done | Reply::Settings(_)) => unavailable("the agent's loop returned no status"),
        Err(silent) => unavailable(&silent.to_string()),
    }
}

fn metrics_page(snapshot: &Snapshot) -> Response<Full<Bytes>> {
    page(StatusCode::OK, METRICS_TYPE, encode(CATALOGUE, snapshot))
}

/// The loop's reply alone proves health.
fn health(_: &Snapshot) -> Response<Full<Bytes>> {
    page(StatusCode::OK, TEXT_TYPE, "ok\n".to_owned())
}

fn readiness(snapshot: &Snapshot) -> Response<Full<Bytes>> {
    match not_ready(snapshot) {
        None => page(StatusCode::OK, TEXT_TYPE, "in force\n".to_owned()),
        Some(why) => unavailable(&why),
    }
}

/// The reason against sending traffic to this host; `None` when the host is ready.
fn not_ready(snapshot: &Snapshot) -> Option<String> {
    if snapshot.state != State::InForce {
        let reason = snapshot.reason.as_deref().unwrap_or("no reason given");
        return Some(format!("{}: {reason}", snapshot.state.as_str()));
    }
    // The gateway of a NAT is its uplink: without it, hosts reach no partner through this NAT.
    let uplinks = snapshot.gateways.iter().filter(|it| it.path == "egress");
    let mut uplinks = uplinks.filter_map(|it| Some((it, it.health.as_ref()?)));
    if snapshot.role == AnyRole::Nat
        && let Some((uplink, health)) = uplinks.find(|(_, health)| !health.usable)
    {
        let (family, address, why) = (uplink.family, &uplink.address, &health.why);
        return Some(format!("the {family} uplink by {address} is dead: {why}"));
    }
    match &snapshot.document {
        None => Some("no document yet".to_owned()),
        Some(document) if document.freshness == Freshness::Alarm => Some(format!(
            "stale: no source has confirmed the document for {} s, longer than [agent] stale.alarm",
            document.age_s
        )),
        Some(_) => None,
    }
}

fn unavailable(why: &str) -> Response<Full<Bytes>> {
    page(
        StatusCode::SERVICE_UNAVAILABLE,
        TEXT_TYPE,
        format!("{why}\n"),
    )
}

fn page(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
