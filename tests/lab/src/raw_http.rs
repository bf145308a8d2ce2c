//! An HTTP server on loopback that does exactly what a test tells it, right or wrong.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    headers: Vec<(String, String)>,
    pub at: Instant,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// What the server does after a request, in order; then it closes the connection.
#[derive(Clone)]
pub enum Act {
    Send(Vec<u8>),
    Sleep(Duration),
    /// RST instead of FIN.
    Reset,
}

/// A complete answer with a Content-Length.
pub fn answer(status: &str, headers: &[&str], body: &[u8]) -> Vec<Act> {
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    if !status.starts_with("304") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    vec![Act::Send(bytes)]
}

pub fn ok(body: &[u8]) -> Vec<Act> {
    answer("200 OK", &[], body)
}

pub fn redirect(to: &str) -> Vec<Act> {
    answer("302 Found", &[&format!("Location: {to}")], b"")
}

type Handler = dyn Fn(usize, &Request) -> Vec<Act> + Send + Sync;

pub struct Server {
    address: SocketAddr,
    scheme: &'static str,
    seen: Arc<Mutex<Vec<Request>>>,
    listener: TcpListener,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    /// The handler gets the number of the request, from 0.
    pub fn start(handler: impl Fn(usize, &Request) -> Vec<Act> + Send + Sync + 'static) -> Server {
        Self::launch(None, "127.0.0.1:0", Arc::new(handler))
    }

    pub fn start_at(
        address: &str,
        handler: impl Fn(usize, &Request) -> Vec<Act> + Send + Sync + 'static,
    ) -> Server {
        Self::launch(None, address, Arc::new(handler))
    }

    pub fn start_tls(
        config: Arc<rustls::ServerConfig>,
        handler: impl Fn(usize, &Request) -> Vec<Act> + Send + Sync + 'static,
    ) -> Server {
        Self::start_tls_at("127.0.0.1:0", config, handler)
    }

    pub fn start_tls_at(
        address: &str,
        config: Arc<rustls::ServerConfig>,
        handler: impl Fn(usize, &Request) -> Vec<Act> + Send + Sync + 'static,
    ) -> Server {
        Self::launch(Some(config), address, Arc::new(handler))
    }

    fn launch(
        tls: Option<Arc<rustls::ServerConfig>>,
        address: &str,
        handler: Arc<Handler>,
    ) -> Server {
        let listener = TcpListener::bind(address).expect("bind on loopback");
        let address = listener.local_addr().expect("own address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let log = seen.clone();
        let accept_on = listener.try_clone().expect("a second handle");
        let accepting = std::thread::spawn(move || {
            while let Ok((stream, _)) = accept_on.accept() {
                let (handler, log, tls) = (handler.clone(), log.clone(), tls.clone());
                std::thread::spawn(move || serve(stream, tls, &*handler, &log));
            }
        });
        Server {
            address,
            scheme,
            seen,
            listener,
            accepting: Some(accepting),
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ends accept(2), which a connection of our own might not reach.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

/// Nothing here fails the test when the client goes away: that is what clients do.
fn serve(
    stream: TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
    handler: &Handler,
    log: &Mutex<Vec<Request>>,
) {
    let raw = stream.try_clone().expect("a second handle");
    raw.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    match tls {
        None => converse(stream, &raw, handler, log),
        Some(config) => {
            let session = rustls::ServerConnection::new(config).expect("a TLS session");
            converse(
                rustls::StreamOwned::new(session, stream),
                &raw,
                handler,
                log,
            );
        }
    }
    let _ = raw.shutdown(Shutdown::Write);
    // Until the client closes: with unread input close(2) sends RST, which can overtake the answer.
    let mut rest = [0; 4096];
    let mut raw = raw;
    while matches!(raw.read(&mut rest), Ok(1..)) {}
}

fn converse(
    mut stream: impl Read + Write,
    raw: &TcpStream,
    handler: &Handler,
    log: &Mutex<Vec<Request>>,
) {
    let Some(request) = read_request(&mut stream) else {
        return;
    };
    let number = {
        let mut log = log.lock().unwrap();
        log.push(request.clone());
        log.len() - 1
    };
    for act in handler(number, &request) {
        match act {
            Act::Send(bytes) => {
                if stream
                    .write_all(&bytes)
                    .and_then(|()| stream.flush())
                    .is_err()
                {
                    return;
                }
            }
            Act::Sleep(time) => std::thread::sleep(time),
            Act::Reset => {
                rustix::net::sockopt::set_socket_linger(raw, Some(Duration::ZERO))
                    .expect("SO_LINGER");
                // The other handle is ours alone and goes with us; this ends both directions.
                let _ = raw.shutdown(Shutdown::Read);
                return;
            }
        }
    }
}

fn read_request(stream: &mut impl Read) -> Option<Request> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            Ok(_) => return None,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    let head = String::from_utf8(head).expect("ASCII from our own client");
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    Some(Request {
        method: first.next()?.to_owned(),
        path: first.next()?.to_owned(),
        headers: lines
            .filter_map(|line| line.split_once(": "))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        at: Instant::now(),
    })
}
