//! A small HTTP/1.1 server for the document mirror and the metadata service: one request a
//! connection, plain text, in a thread inside a namespace.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::Ns;
use super::server::lock;

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who asked.
    pub peer: IpAddr,
    /// `GET`, `PUT`.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// Header fields in order, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// The value of a header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.headers.iter();
        fields
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Header fields besides `Content-Length` and `Connection`.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// 200 with a body.
    pub fn ok(body: impl Into<Vec<u8>>) -> Reply {
        Reply {
            status: 200,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// A status without a body.
    pub fn status(status: u16) -> Reply {
        Reply {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// With one more header field.
    pub fn with(mut self, name: &str, value: &str) -> Reply {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

type Handler = dyn Fn(&Request) -> Option<Reply> + Send + Sync;

/// Every request that a server has answered, for tests to look at.
pub type Log = Arc<Mutex<Vec<Request>>>;

/// Serves on a TCP port of each address until the process ends. A handler that returns `None`
/// leaves the client waiting (the connection stays open, silent, for a minute).
pub fn serve(
    ns: &Ns,
    port: u16,
    addresses: &[IpAddr],
    handler: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static,
) -> Log {
    let log: Log = Arc::default();
    let handler: Arc<Handler> = Arc::new(handler);
    let listeners: Vec<TcpListener> = ns.in_thread(|| {
        let bind = |address: &IpAddr| {
            TcpListener::bind((*address, port))
                .unwrap_or_else(|error| panic!("cannot listen on {address} port {port}: {error}"))
        };
        addresses.iter().map(bind).collect()
    });
    for listener in listeners {
        let (log, handler) = (Arc::clone(&log), Arc::clone(&handler));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, handler) = (Arc::clone(&log), Arc::clone(&handler));
                // A client that goes away is its own business.
                thread::spawn(move || answer(&stream, &log, handler.as_ref()).ok());
            }
        });
    }
    log
}

fn answer(stream: &TcpStream, log: &Log, handler: &Handler) -> std::io::Result<()> {
    let Some(request) = read_request(stream)? else {
        return Ok(());
    };
    lock(log).push(request.clone());
    let Some(reply) = handler(&request) else {
        thread::sleep(Duration::from_secs(60));
        return Ok(());
    };
    let mut head = format!("HTTP/1.1 {} lab\r\nConnection: close\r\n", reply.status);
    // 304 carries no body (RFC 9110, 15.4.5).
    if reply.status != 304 {
        head.push_str(&format!("Content-Length: {}\r\n", reply.body.len()));
    }
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut writer = stream;
    writer.write_all(head.as_bytes())?;
    if reply.status != 304 && request.method != "HEAD" {
        writer.write_all(&reply.body)?;
    }
    Ok(())
}

fn read_request(stream: &TcpStream) -> std::io::Result<Option<Request>> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let peer = stream.peer_addr()?.ip().to_canonical();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let request = Request {
        peer,
        method,
        path,
        headers,
    };
    let length = request
        .header("content-length")
        .and_then(|v| v.parse().ok());
    // Closing with unread bytes would reset the connection under the answer.
    std::io::copy(&mut reader.take(length.unwrap_or(0)), &mut std::io::sink())?;
    Ok(Some(request))
}

/// The mirror of `ip-ranges.json`.
#[derive(Debug, Clone)]
pub struct Mirror {
    state: Arc<Mutex<MirrorState>>,
    log: Log,
}

#[derive(Debug, Default)]
struct MirrorState {
    document: Vec<u8>,
    generation: u64,
    status: Option<u16>,
}

impl Mirror {
    /// Serves `/ip-ranges.json` on port 80 of the given addresses; empty at first.
    pub fn start(ns: &Ns, addresses: &[IpAddr]) -> Mirror {
        let state: Arc<Mutex<MirrorState>> = Arc::default();
        let served = Arc::clone(&state);
        let log = serve(ns, 80, addresses, move |request| {
            let state = lock(&served);
            if let Some(status) = state.status {
                return Some(Reply::status(status));
            }
            if request.path != "/ip-ranges.json" {
                return Some(Reply::status(404));
            }
            let etag = format!("\"lab-{}\"", state.generation);
            let reply = if request.header("if-none-match") == Some(etag.as_str()) {
                Reply::status(304)
            } else {
                Reply::ok(state.document.clone()).with("Content-Type", "application/json")
            };
            Some(reply.with("ETag", &etag))
        });
        Mirror { state, log }
    }

    /// Serves this document from now on, under a new ETag.
    pub fn set_document(&self, document: impl Into<Vec<u8>>) {
        let mut state = lock(&self.state);
        state.document = document.into();
        state.generation += 1;
    }

    /// Answers everything with this status; `None`: as usual again.
    pub fn set_status(&self, status: Option<u16>) {
        lock(&self.state).status = status;
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.log).clone()
    }

    /// The IPv4 URL.
    pub fn url(&self) -> String {
        format!("http://{}/ip-ranges.json", super::MIRROR)
    }

    /// The IPv6 URL.
    pub fn url6(&self) -> String {
        format!("http://[{}]/ip-ranges.json", super::MIRROR6)
    }
}
