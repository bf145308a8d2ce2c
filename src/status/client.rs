//! Asking a running agent over its control socket. Blocking: the commands that ask do nothing
//! else meanwhile, and no runtime is needed.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::control::{LOOP_WITHIN, Reply, Request};

/// How long an answer may take: the loop's own time, and a second for the way.
const WITHIN: Duration = Duration::from_secs(LOOP_WITHIN.as_secs() + 1);
/// What a server does whose loop is stuck or has ended.
const CLOSED: &str =
    "closed the connection without an answer: its loop is stuck, or it is stopping";
/// Longest answer, in bytes: a snapshot has some tens of kB.
const MAX_REPLY: usize = 16 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("no agent is running: nobody listens at {}; start it (systemctl start trailblazer), or name its config with -c", .path.display())]
    NoAgent {
        /// The socket.
        path: PathBuf,
    },
    /// The socket is not for us.
    #[error("an agent may be running, but asking it at {} is not permitted: run as root (sudo trailblazer …)", .path.display())]
    NotPermitted {
        /// The socket.
        path: PathBuf,
    },
    /// Somebody listens and says nothing.
    #[error("an agent listens at {} but {reason}; if it stays so, restart it (systemctl restart trailblazer): traffic goes on meanwhile", .path.display())]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// What happened instead, as in `but …`.
        reason: String,
    },
    /// An answer that says nothing to us.
    #[error("what answers at {} makes no sense: {reason}; an agent of another version? restart it (systemctl restart trailblazer)", .path.display())]
    Nonsense {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system refuses.
    #[error("cannot ask the agent at {}: {source}", .path.display())]
    Failed {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// What a try to connect comes to.
pub(super) enum Connection {
    /// Somebody listens.
    Open(Socket),
    /// Somebody listens, with so many waiting that we are not let in.
    Busy,
    /// Nobody listens.
    Nobody,
    /// Something else.
    Failed(io::Error),
}

/// Connects, waiting for a place in the queue as long as for an answer.
pub(super) fn connect(path: &Path) -> Connection {
    let connected = Socket::new(Domain::UNIX, Type::STREAM, None).and_then(|socket| {
        // connect(2) to a full queue waits as long as a write would (unix(7)).
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

/// Puts a request to the agent that listens at `path` and waits for its reply, six seconds at
/// most.
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
        Connection::Busy => return Err(no_answer("lets nobody in")),
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
        Ok(line) => serde_json::from_slice(&line).map_err(|error| AskError::Nonsense {
            path: path.to_owned(),
            reason: error.to_string(),
        }),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                let reason = format!("gave no answer within {} s", WITHIN.as_secs());
                Err(no_answer(&reason))
            }
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Err(no_answer(CLOSED)),
            io::ErrorKind::InvalidData => Err(AskError::Nonsense {
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
            let endless = format!("more than {MAX_REPLY} bytes without an end");
            return Err(io::Error::new(io::ErrorKind::InvalidData, endless));
        }
    }
}
