//! The control socket, served: one request line in, one reply line out.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::accept::{self, Server};
use super::client::{Connection, ask, connect};
use super::control::{Asked, MAX_REQUEST, Reply, Request, ask_loop};

/// The owner and the group may ask: a pause stops the agent's work.
const SOCKET_MODE: u32 = 0o660;
/// Everybody may see that there is a socket.
const DIR_MODE: u32 = 0o755;
/// Clients that wait to be accepted.
const BACKLOG: u32 = 64;
/// How long another process may take to put its socket in place: a handful of system calls.
const TURN_WITHIN: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);

/// Why the agent can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Somebody answers there already.
    #[error("another agent{} is running: it listens at {}; stop it first, or set [agent] socket to another path", pid_text(*.pid), .path.display())]
    AnotherAgent {
        /// The socket.
        path: PathBuf,
        /// Its process, if it answers.
        pid: Option<u32>,
    },
    /// Something that is no socket has its name.
    #[error("cannot listen at {}: a file that is no socket stands there; remove it, or set [agent] socket to another path", .0.display())]
    NoSocket(PathBuf),
    /// The system refuses.
    #[error("cannot {operation} {}: {source}; `trailblazer status`, `kick` and the pause of `flush` need the control socket: mend it, or set [agent] socket to another path", .path.display())]
    Refused {
        /// What was tried, as in `cannot …`.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Metrics and health can't be served.
    #[error(
        "cannot listen for metrics at {at}: {source}; set [agent] metrics to an address and port of this host that are free, or to \"\" for none"
    )]
    Metrics {
        /// The address.
        at: std::net::SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
}

fn pid_text(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

fn refused(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ControlError {
    let path = path.to_owned();
    move |source| ControlError::Refused {
        operation,
        path,
        source,
    }
}

/// The control socket. Dropping it ends the server and takes the socket away.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    /// Device and inode: a successor's socket under the same name isn't ours to remove.
    identity: (u64, u64),
    _server: Server,
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Listens at `path` and puts what is asked there to the loop. Call it on the runtime that is to
/// serve it. Creates the directory (0755) where it is missing; a socket that nobody listens at
/// any more is replaced.
///
/// # Errors
/// See [`ControlError`].
pub fn serve_socket(
    path: &Path,
    to_loop: mpsc::Sender<Asked>,
) -> Result<ControlSocket, ControlError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new()
        .recursive(true)
        .mode(DIR_MODE)
        .create(directory)
        .map_err(refused("create the directory", directory))?;
    let _turn = turn(directory)?;
    clear(path)?;
    let listener = listen(path).map_err(refused("listen at", path))?;
    let identity = identity(path).map_err(refused("find the socket", path))?;
    let server = accept::serve(listener, move |stream| serve(stream, to_loop.clone()));
    Ok(ControlSocket {
        path: path.to_owned(),
        identity,
        _server: server,
    })
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let meta = std::fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

/// Two agents that start at once must not both find the place empty, and one remove the other's
/// socket: whoever looks and binds holds the directory's lock. It goes with its holder.
fn turn(directory: &Path) -> Result<File, ControlError> {
    let file = File::open(directory).map_err(refused("open the directory", directory))?;
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if start.elapsed() < TURN_WITHIN => {
                std::thread::sleep(POLL);
            }
            Err(TryLockError::WouldBlock) => {
                let busy =
                    io::Error::new(io::ErrorKind::TimedOut, "another process keeps it locked");
                return Err(refused("lock the directory", directory)(busy));
            }
            Err(TryLockError::Error(error)) => {
                return Err(refused("lock the directory", directory)(error));
            }
        }
    }
}

/// Makes the place free, if what is there was left behind.
fn clear(path: &Path) -> Result<(), ControlError> {
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused("look at", path)(error)),
    };
    if !meta.file_type().is_socket() {
        return Err(ControlError::NoSocket(path.to_owned()));
    }
    let mut found = connect(path);
    let mut pid = None;
    if matches!(found, Connection::Open(_) | Connection::Busy) {
        match ask(path, Request::Status) {
            Ok(Reply::Status(snapshot)) => pid = Some(snapshot.pid),
            // One that is stuck listens all the same. Who was killed while it started a program
            // leaves a copy of itself, which listens until it has become that program.
            _ => found = connect(path),
        }
    }
    match found {
        Connection::Open(_) | Connection::Busy => Err(ControlError::AnotherAgent {
            path: path.to_owned(),
            pid,
        }),
        Connection::Nobody => {
            info!(
                "{}: nobody listens there any more; replaced",
                path.display()
            );
            std::fs::remove_file(path).map_err(refused("remove the old socket", path))
        }
        Connection::Failed(error) => Err(refused("ask whoever listens at", path)(error)),
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = UnixSocket::new_stream()?;
    // bind(2) takes the file's mode from the socket's own, less the umask: so there is no moment
    // in which others may connect.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(SOCKET_MODE))?;
    socket.bind(path)?;
    // A umask of 077 would have taken the group's share.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    socket.listen(BACKLOG)
}

/// One client. Whatever goes wrong with it is its own affair.
async fn serve(mut stream: UnixStream, to_loop: mpsc::Sender<Asked>) {
    let Some(reply) = answer(&mut stream, &to_loop).await else {
        return;
    };
    if let Ok(mut line) = serde_json::to_vec(&reply) {
        line.push(b'\n');
        let _ = stream.write_all(&line).await;
    }
}

/// The reply to what the client writes; `None` where it writes nothing, or the loop answers
/// nothing.
async fn answer(stream: &mut UnixStream, to_loop: &mpsc::Sender<Asked>) -> Option<Reply> {
    let mut line = Vec::new();
    let mut input = BufReader::new(stream.take(MAX_REQUEST));
    input.read_until(b'\n', &mut line).await.ok()?;
    if line.is_empty() {
        return None;
    }
    if line.len() as u64 == MAX_REQUEST && !line.ends_with(b"\n") {
        let why = format!("a request is one line of at most {MAX_REQUEST} bytes");
        return Some(Reply::Refused(why));
    }
    let request: Request = match serde_json::from_slice(&line) {
        Ok(request) => request,
        Err(error) => return Some(Reply::Refused(format!("not a request: {error}"))),
    };
    // A loop that says nothing is told by our saying nothing.
    ask_loop(to_loop, request).await.ok()
}
