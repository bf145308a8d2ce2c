//! Marked connections, so that policy rules can route our own fetch differently.
//!
//! reqwest opens its own sockets and has no setting for `SO_MARK`, but can speak over a unix
//! socket, TLS included. So the relay opens and marks the TCP connection, and a task copies the
//! bytes between the connection and an abstract unix socket for this process alone.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::Url;
use tokio::net::{TcpSocket, TcpStream, UnixListener, lookup_host};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::error::Failure;
use crate::random;
use crate::types::{Family, PerFamily};

/// A marked connection; dropping the relay closes the connection.
pub(super) struct Relay {
    /// The address for reqwest: an abstract socket (unix(7)), so that no file lies on disk.
    pub(super) socket: String,
    task: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relay {
    /// Connects to the URL's host, each of its addresses in turn, within `connect_timeout`.
    pub(super) async fn connect(
        url: &Url,
        mark: u32,
        connect_timeout: Duration,
    ) -> Result<Relay, Failure> {
        let tcp = match timeout(connect_timeout, connect(url, mark, connect_timeout)).await {
            Ok(connected) => connected?,
            Err(_elapsed) => {
                return Err(Failure::Connect(format!(
                    "no answer within {connect_timeout:?} (packets marked {mark:#x})"
                )));
            }
        };
        let (pid, random) = (std::process::id(), random::number());
        let socket = format!("\0trailblazer-fetch-{pid}-{random:016x}");
        let listener = UnixListener::bind(&socket)
            .map_err(|error| Failure::Client(format!("cannot open the relay socket: {error}")))?;
        let task = tokio::spawn(carry(listener, tcp));
        Ok(Relay { socket, task })
    }
}

async fn connect(url: &Url, mark: u32, limit: Duration) -> Result<TcpStream, Failure> {
    let host = url.host_str().unwrap_or_default();
    // The brackets of an IPv6 address are part of the URL syntax.
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_or_known_default().unwrap_or(80);
    let deadline = Instant::now() + limit;
    let addresses: Vec<SocketAddr> = lookup_host((name, port))
        .await
        .map_err(|error| Failure::Connect(error.to_string()))?
        .collect();
    let mut last = format!("{name} has no address");
    for (index, address) in addresses.iter().enumerate() {
        // A silent first address must leave time for the other addresses.
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - index).unwrap_or(1);
        last = match timeout(share, connect_to(*address, mark)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => format!("{address}: {error}"),
            Err(_elapsed) => format!("{address}: no answer within {share:.1?}"),
        };
    }
    Err(Failure::Connect(format!(
        "{last} (packets marked {mark:#x})"
    )))
}

async fn connect_to(address: SocketAddr, mark: u32) -> io::Result<TcpStream> {
    let family = Family::of(address.ip());
    let socket = match RESERVED.get() {
        Some(reserved) => {
            let mut sockets = reserved.lock().unwrap_or_else(PoisonError::into_inner);
            let socket = sockets.get_mut(family).pop();
            socket.ok_or_else(|| io::Error::other("no marked socket is left"))?
        }
        None => open(family, mark)?,
    };
    socket.connect(address).await
}

/// Enough for every address, redirect and retry of a fetch.
const RESERVE: usize = 64;

/// Marked sockets of a process that may mark no further one.
static RESERVED: OnceLock<Mutex<PerFamily<Vec<TcpSocket>>>> = OnceLock::new();

/// Opens marked sockets for the time without `CAP_NET_ADMIN`. A process that may not mark at all
/// reserves none: the fetch then names the reason.
pub(super) fn reserve(mark: u32) {
    let sockets = PerFamily::from_fn(|family| {
        let sockets = (0..RESERVE).map_while(|_| open(family, mark).ok());
        sockets.collect::<Vec<TcpSocket>>()
    });
    if !sockets.ipv4.is_empty() || !sockets.ipv6.is_empty() {
        // Only a second call fails, and this one has the same mark.
        let _ = RESERVED.set(Mutex::new(sockets));
    }
}

fn open(family: Family, mark: u32) -> io::Result<TcpSocket> {
    let socket = match family {
        Family::Ipv4 => TcpSocket::new_v4()?,
        Family::Ipv6 => TcpSocket::new_v6()?,
    };
    socket2::SockRef::from(&socket)
        .set_mark(mark)
        .map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot mark the socket, which needs CAP_NET_ADMIN: {error}"),
            )
        })?;
    Ok(socket)
}

/// Copies bytes in both directions. The end or failure of one side ends the other side: reqwest
/// then sees a broken answer.
async fn carry(listener: UnixListener, mut tcp: TcpStream) {
    let own = i32::try_from(std::process::id()).ok();
    loop {
        let Ok((mut local, _)) = listener.accept().await else {
            return;
        };
        // Abstract sockets have no permissions: any process with a guess of the name could connect.
        if local.peer_cred().is_ok_and(|peer| peer.pid() == own) {
            let _ = tokio::io::copy_bidirectional(&mut local, &mut tcp).await;
            return;
        }
    }
}
