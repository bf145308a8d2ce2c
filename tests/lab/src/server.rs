//! Servers on threads inside a namespace, with a record of all clients.
//!
//! The protocol over TCP is one line each way: `who` is answered with the client's source address,
//! `give N` with a line of N bytes, `keep …` with `kept`, and any other line with the same line
//! (round trips of a long flow). Over UDP every datagram is answered with the client's source
//! address.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::Ns;

/// One connection (or datagram) seen by a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// The time since the server's start.
    pub at: Duration,
    /// The client; IPv4-mapped addresses as IPv4.
    pub peer: SocketAddr,
    /// The contacted address of the server.
    pub local: IpAddr,
    /// True for a client outside the accepted addresses.
    pub refused: bool,
    /// The first line of the client; the datagram for UDP. Empty at first.
    pub first_line: String,
}

#[derive(Debug)]
struct State {
    started: Instant,
    contacts: Mutex<Vec<Contact>>,
    /// The number of contacts dropped by `clear`, as an offset of the indexes.
    cleared: Mutex<usize>,
    accepted: Mutex<Option<BTreeSet<IpAddr>>>,
}

/// A server with the lifetime of the process.
#[derive(Debug, Clone)]
pub struct Server {
    state: Arc<State>,
}

impl Server {
    /// Starts a line server in `ns` on a TCP port of all addresses of both families, and a UDP echo
    /// on the same port of each of `udp` (one socket each: an answer must leave from the contacted
    /// address).
    pub fn start(ns: &Ns, port: u16, udp: &[IpAddr]) -> Server {
        let server = Server {
            state: Arc::new(State {
                started: Instant::now(),
                contacts: Mutex::new(Vec::new()),
                cleared: Mutex::new(0),
                accepted: Mutex::new(None),
            }),
        };
        // Bound before the return, so that no client connects too early.
        let (listener, sockets) = ns.in_thread(|| {
            let listener = TcpListener::bind(("::", port)).expect("the port is free here");
            let sockets: Vec<UdpSocket> = udp
                .iter()
                .map(|address| {
                    UdpSocket::bind((*address, port)).unwrap_or_else(|error| {
                        panic!("cannot bind UDP {address} port {port}: {error}")
                    })
                })
                .collect();
            (listener, sockets)
        });
        let accepting = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = accepting.clone();
                thread::spawn(move || server.serve(&stream));
            }
        });
        for socket in sockets {
            let server = server.clone();
            thread::spawn(move || server.answer(&socket));
        }
        server
    }

    /// Accepts connections from these addresses only, from now on; others are reset.
    pub fn accept_only(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        *lock(&self.state.accepted) = Some(addresses.into_iter().collect());
    }

    /// All contacts since the start or the last `clear`.
    pub fn contacts(&self) -> Vec<Contact> {
        lock(&self.state.contacts).clone()
    }

    /// All client addresses, including refused clients.
    pub fn peers(&self) -> BTreeSet<IpAddr> {
        let contacts = lock(&self.state.contacts);
        contacts.iter().map(|contact| contact.peer.ip()).collect()
    }

    /// The addresses of refused clients.
    pub fn refused(&self) -> BTreeSet<IpAddr> {
        let contacts = lock(&self.state.contacts);
        let refused = contacts.iter().filter(|contact| contact.refused);
        refused.map(|contact| contact.peer.ip()).collect()
    }

    pub fn clear(&self) {
        let mut contacts = lock(&self.state.contacts);
        *lock(&self.state.cleared) += contacts.len();
        contacts.clear();
    }

    fn record(&self, peer: SocketAddr, local: IpAddr, refused: bool, line: &str) -> usize {
        let mut contacts = lock(&self.state.contacts);
        contacts.push(Contact {
            at: self.state.started.elapsed(),
            peer,
            local,
            refused,
            first_line: line.to_owned(),
        });
        *lock(&self.state.cleared) + contacts.len() - 1
    }

    fn serve(&self, stream: &TcpStream) {
        // After an immediate reset the peer address is unknown: nothing to record.
        let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else {
            return;
        };
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let accepted = lock(&self.state.accepted).clone();
        let refused = accepted.is_some_and(|accepted| !accepted.contains(&peer.ip()));
        let index = self.record(peer, local.ip().to_canonical(), refused, "");
        if refused {
            // Closing with a zero linger time sends a reset (socket(7), SO_LINGER).
            let _closed_already =
                rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
            return;
        }
        let _one_line_a_segment = stream.set_nodelay(true);
        let mut first = true;
        let mut writer = stream;
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if first {
                first = false;
                let mut contacts = lock(&self.state.contacts);
                let dropped = *lock(&self.state.cleared);
                let contact = index.checked_sub(dropped).and_then(|i| contacts.get_mut(i));
                if let Some(contact) = contact {
                    contact.first_line.clone_from(&line);
                }
            }
            let answer = match line.as_str() {
                "who" => peer.ip().to_string(),
                keep if keep.starts_with("keep ") => "kept".to_owned(),
                give if give.starts_with("give ") => {
                    let count = give.split_at(5).1.parse().unwrap_or(0);
                    "x".repeat(count)
                }
                other => other.to_owned(),
            };
            if writer.write_all(format!("{answer}\n").as_bytes()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, socket: &UdpSocket) {
        let mut buffer = [0; 2048];
        let local = socket
            .local_addr()
            .expect("a bound socket has an address")
            .ip();
        // An ICMP error for an earlier answer arrives here as a receive error: carry on.
        loop {
            if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let accepted = lock(&self.state.accepted).clone();
                let refused = accepted.is_some_and(|accepted| !accepted.contains(&peer.ip()));
                self.record(peer, local, refused, &text);
                if !refused {
                    let _gone = socket.send_to(format!("{}\n", peer.ip()).as_bytes(), peer);
                }
            }
        }
    }
}

/// Locks even after a panic of another thread: that panic fails the test already.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
