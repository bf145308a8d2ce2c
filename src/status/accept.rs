//! The part that the control socket and the HTTP server share: bounded numbers of connections,
//! bounded lifetimes, and the errors of starting a server.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tracing::warn;

/// Most connections at a time. A further client displaces the oldest connection: an honest client
/// is served within milliseconds, so the oldest connection is the least likely to be honest.
const MOST: usize = 64;
/// Longest life of a connection, the wait for the loop included. Clients send at once.
const LONGEST: Duration = Duration::from_secs(10);
/// Pause after a failed accept: without file descriptors the next accept fails at once, too.
const BREATH: Duration = Duration::from_secs(1);

/// Why a server of the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("another agent{} is running: it listens at {}; stop it first, or set [agent] socket to another path", pid_text(*.pid), .path.display())]
    AnotherAgent {
        path: PathBuf,
        /// The other agent's process, if the agent answers.
        pid: Option<u32>,
    },
    #[error("cannot listen at {}: the path is not a socket; remove the file, or set [agent] socket to another path", .0.display())]
    NoSocket(PathBuf),
    #[error("cannot {operation} {}: {source}; `trailblazer status`, `kick` and the pause of `flush` need the control socket: correct the cause, or set [agent] socket to another path", .path.display())]
    Refused {
        /// Completes `cannot …`.
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "cannot listen for metrics at {at}: {source}; set [agent] metrics to a free address and port of this host, or to \"\" for none"
    )]
    Metrics {
        at: std::net::SocketAddr,
        source: io::Error,
    },
}

fn pid_text(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

/// A source of connections.
pub(super) trait Accept: Send + 'static {
    type Stream: Send + 'static;
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for UnixListener {
    type Stream = UnixStream;
    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

impl Accept for TcpListener {
    type Stream = TcpStream;
    async fn next(&self) -> io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

/// A running server. Dropping the handle ends the server and all connections.
#[derive(Debug)]
pub(super) struct Server(JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Serves each connection in a task of its own, on the caller's runtime.
pub(super) fn serve<L, F>(
    listener: L,
    one: impl Fn(L::Stream) -> F + Send + Sync + 'static,
) -> Server
where
    L: Accept + Sync,
    F: Future<Output = ()> + Send + 'static,
{
    Server(tokio::spawn(async move {
        let mut clients = JoinSet::new();
        let mut by_age: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            tokio::select! {
                Some(_) = clients.join_next() => {}
                accepted = listener.next() => match accepted {
                    Ok(stream) => {
                        by_age.retain(|client| !client.is_finished());
                        if by_age.len() >= MOST && let Some(oldest) = by_age.pop_front() {
                            oldest.abort();
                        }
                        let client = tokio::time::timeout(LONGEST, one(stream));
                        by_age.push_back(clients.spawn(client));
                    }
                    Err(error) => {
                        warn!("cannot accept a connection: {error}");
                        tokio::time::sleep(BREATH).await;
                    }
                },
            }
        }
    }))
}
