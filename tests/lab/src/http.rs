//! A small HTTP/1.1 server for the document mirror and the metadata service: one request a
//! connection, plain text, in a thread inside a namespace.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::Ns;
use super::server::lock;

/// A received request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub peer: IpAddr,
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

/// An answer of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    /// Header fields besides `Content-Length` and `Connection`.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// How the body is sent.
    pub delivery: Delivery,
}

/// How a body is sent; the head always announces the whole length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// At once.
    #[default]
    Whole,
    /// One byte after each pause, until the client gives up.
    Drip(Duration),
    /// Half of the body; then the connection ends.
    Half,
}

impl Reply {
    /// 200 with a body.
    pub fn ok(body: impl Into<Vec<u8>>) -> Reply {
        Reply {
            status: 200,
            headers: Vec::new(),
            body: body.into(),
            delivery: Delivery::Whole,
        }
    }

    /// A status without a body.
    pub fn status(status: u16) -> Reply {
        Reply {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            delivery: Delivery::Whole,
        }
    }

    /// With one more header field.
    pub fn with(mut self, name: &str, value: &str) -> Reply {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

type Handler = dyn Fn(&Request) -> Option<Reply> + Send + Sync;

/// Every answered request of a server.
pub type Log = Arc<Mutex<Vec<Request>>>;

/// Serves on a TCP port of each address until the process ends. A handler returning `None` leaves
/// the client waiting (the connection stays open and silent for a minute).
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
                // An early disconnect of a client is no fault of the server.
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
        deliver(writer, &reply)?;
    }
    Ok(())
}

fn deliver(mut writer: &TcpStream, reply: &Reply) -> std::io::Result<()> {
    match reply.delivery {
        Delivery::Whole => writer.write_all(&reply.body),
        Delivery::Half => writer.write_all(&reply.body[..reply.body.len() / 2]),
        Delivery::Drip(pause) => {
            for byte in &reply.body {
                writer.write_all(std::slice::from_ref(byte))?;
                thread::sleep(pause);
            }
            Ok(())
        }
    }
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

/// The mirror's behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MirrorMode {
    /// Serves the documents.
    #[default]
    Well,
    /// Answers every request with this status.
    Status(u16),
    /// Accepts the request and never answers.
    Silent,
    /// A byte of the document a second.
    Drip,
    /// Half of the document, and then nothing more.
    Half,
    /// Redirects in a circle.
    Circle,
}

#[derive(Debug, Default)]
struct MirrorState {
    /// Served in turn, with an ETag each.
    documents: Vec<(String, Vec<u8>)>,
    served: usize,
    generation: u64,
    mode: MirrorMode,
}

impl Mirror {
    /// Serves `/ip-ranges.json` on port 80 of the given addresses; empty at first.
    pub fn start(ns: &Ns, addresses: &[IpAddr]) -> Mirror {
        let state: Arc<Mutex<MirrorState>> = Arc::default();
        let served = Arc::clone(&state);
        let log = serve(ns, 80, addresses, move |request| {
            lock(&served).answer(request)
        });
        Mirror { state, log }
    }

    /// Serves this document from now on, with a new ETag.
    pub fn set_document(&self, document: impl Into<Vec<u8>>) {
        self.set_documents([document.into()]);
    }

    /// Serves the documents in turn from now on, one for each request: like diverging mirrors
    /// behind one name.
    pub fn set_documents(&self, documents: impl IntoIterator<Item = Vec<u8>>) {
        let mut state = lock(&self.state);
        let mut generation = state.generation;
        let tagged = documents.into_iter().map(|document| {
            generation += 1;
            (format!("\"lab-{generation}\""), document)
        });
        state.documents = tagged.collect();
        state.generation = generation;
    }

    /// Changes the behaviour.
    pub fn set_mode(&self, mode: MirrorMode) {
        lock(&self.state).mode = mode;
    }

    /// Answers every request with this status; `None` restores normal answers.
    pub fn set_status(&self, status: Option<u16>) {
        self.set_mode(status.map_or(MirrorMode::Well, MirrorMode::Status));
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

impl MirrorState {
    fn answer(&mut self, request: &Request) -> Option<Reply> {
        let circling = self.mode == MirrorMode::Circle;
        if request.path != "/ip-ranges.json" && !(circling && request.path == "/round") {
            return Some(Reply::status(404));
        }
        let delivery = match self.mode {
            MirrorMode::Well => Delivery::Whole,
            MirrorMode::Status(status) => return Some(Reply::status(status)),
            MirrorMode::Silent => return None,
            MirrorMode::Drip => Delivery::Drip(Duration::from_secs(1)),
            MirrorMode::Half => Delivery::Half,
            MirrorMode::Circle => {
                let there = request.path == "/round";
                let to = if there { "/ip-ranges.json" } else { "/round" };
                return Some(Reply::status(302).with("Location", to));
            }
        };
        let turn = self.served;
        self.served += 1;
        let empty = (String::from("\"lab-0\""), Vec::new());
        let (etag, document) = match self.documents.len() {
            0 => &empty,
            count => &self.documents[turn % count],
        };
        let unchanged = request.header("if-none-match") == Some(etag.as_str());
        let reply = if unchanged && delivery == Delivery::Whole {
            Reply::status(304)
        } else {
            let reply = Reply::ok(document.clone()).with("Content-Type", "application/json");
            Reply { delivery, ..reply }
        };
        Some(reply.with("ETag", etag))
    }
}
