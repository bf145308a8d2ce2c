//! Accepting connections: at most so many at a time, none of them for ever, and never one that
//! keeps another out.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tracing::warn;

/// Connections served at a time; for one more, the oldest is given up: an honest one is answered
/// within milliseconds, and whoever has been there longest is the least likely to be one.
const MOST: usize = 64;
/// Longest life of a connection, asking the loop included. Clients send at once, or are broken.
const LONGEST: Duration = Duration::from_secs(10);
/// Pause after a failed accept: out of file descriptors, it would fail again at once.
const BREATH: Duration = Duration::from_secs(1);

/// What connections arrive at.
pub(super) trait Listener: Send + 'static {
    type Stream: Send + 'static;
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for UnixListener {
    type Stream = UnixStream;
    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;
    async fn next(&self) -> io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

/// A server; dropping it ends it, with the connections that it serves.
#[derive(Debug)]
pub(super) struct Server(JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Serves each connection with a task of its own on the runtime that we are called on.
pub(super) fn serve<L, F>(
    listener: L,
    one: impl Fn(L::Stream) -> F + Send + Sync + 'static,
) -> Server
where
    L: Listener + Sync,
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
