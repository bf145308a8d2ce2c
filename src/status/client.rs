//! The client of the control socket. Blocking, since the commands do nothing else meanwhile and
//! need no runtime.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::protocol::{LOOP_WITHIN, Reply, Request};

/// Longest wait for a reply: the loop's own limit, and a second for the transport.
const WITHIN: Duration = Duration::from_secs(LOOP_WITHIN.as_secs() + 1);
/// The reason for a connection closed early: the server replies only when the loop does.
const CLOSED: &str =
    "closed the connection without an answer: its loop is stuck, or it is stopping";
/// Longest reply, in bytes. A snapshot has some tens of kB.
const MAX_REPLY: usize = 16 << 20;

/// Why the agent gave no usable reply.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("no agent is running: no process listens at {}; start the agent (systemctl start trailblazer), or name its config with -c", .path.display())]
    NoAgent { path: PathBuf },
    #[error("an agent may be running, but access to {} is not permitted: run as root (sudo trailblazer …)", .path.display())]
    NotPermitted { path: PathBuf },
    #[error("the agent at {} {reason}; if this persists, restart the agent (systemctl restart trailblazer): traffic continues meanwhile", .path.display())]
    NoAnswer {
        path: PathBuf,
        /// Completes `the agent …`.
        reason: String,
    },
    #[error("unexpected reply from the agent at {}: {reason}; if the agent has another version, restart it (systemctl restart trailblazer)", .path.display())]
    UnexpectedReply { path: PathBuf, reason: String },
    #[error("cannot ask the agent at {}: {source}", .path.display())]
    Failed { path: PathBuf, source: io::Error },
}

/// The result of an attempt to connect.
pub(super) enum Connection {
    Open(Socket),
    /// A process listens, but its queue of connections is full.
    Busy,
    Nobody,
    Failed(io::Error),
}

/// Connects. The wait for a place in the queue has the same limit as the wait for a reply.
pub(super) fn connect(path: &Path) -> Connection {
    let connected = Socket::new(Domain::UNIX, Type::STREAM, None).and_then(|socket| {
        // The write timeout also limits connect(2) to a full queue (unix(7)).
        socket.set_write_timeout(Some(WITHIN))?;
        socket.connect(&SockAddr::unix(path)?)?;
        Ok(socket)
    });
    match connected {
        Ok(socket) => Connection::Open(socket),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::NotADirectory => Connection::Nobody,
            io::ErrorKind::WouldBlock => Connection::Busy,
            _ => Connection::Failed(error),
        },
    }
}

/// Sends a request to the agent at `path` and waits for the reply, at most six seconds.
///
/// # Errors
/// See [`AskError`].
pub fn ask(path: &Path, request: Request) -> Result<Reply, AskError> {
    let deadline = Instant::now() + WITHIN;
    let failed = |source| AskError::Failed {
        path: path.to_owned(),
        source,
    };
    let no_answer = |reason: &str| AskError::NoAnswer {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let mut socket = match connect(path) {
        Connection::Open(socket) => socket,
        Connection::Nobody => {
            return Err(AskError::NoAgent {
                path: path.to_owned(),
            });
        }
        Connection::Busy => return Err(no_answer("did not accept the connection")),
        Connection::Failed(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(AskError::NotPermitted {
                path: path.to_owned(),
            });
        }
        Connection::Failed(error) => return Err(failed(error)),
    };
    let mut line = serde_json::to_vec(&request).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    let sent = socket.write_all(&line);
    match sent.and_then(|()| read_line(&mut socket, deadline)) {
        Ok(line) if line.is_empty() => Err(no_answer(CLOSED)),
        Ok(line) => serde_json::from_slice(&line).map_err(|error| AskError::UnexpectedReply {
            path: path.to_owned(),
            reason: error.to_string(),
        }),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                let reason = format!("did not answer within {} s", WITHIN.as_secs());
                Err(no_answer(&reason))
            }
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Err(no_answer(CLOSED)),
            io::ErrorKind::InvalidData => Err(AskError::UnexpectedReply {
                path: path.to_owned(),
                reason: error.to_string(),
            }),
            _ => Err(failed(error)),
        },
    }
}

/// Reads to the first newline or to the end.
fn read_line(socket: &mut Socket, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut piece = [0; 8192];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let count = match socket.read(&mut piece) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        line.extend_from_slice(&piece[..count]);
        if count == 0 || piece[..count].contains(&b'\n') {
            return Ok(line);
        }
        if line.len() > MAX_REPLY {
            let endless = format!("the reply is longer than {MAX_REPLY} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, endless));
        }
    }
}
