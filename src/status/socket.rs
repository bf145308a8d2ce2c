//! The server of the control socket: one request line in, one reply line out.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::accept::{self, ControlError, Server};
use super::client::{Connection, ask, connect};
use super::protocol::{Asked, MAX_REQUEST, Reply, Request, ask_loop};

/// Owner and group only: a pause stops the agent's work.
const SOCKET_MODE: u32 = 0o660;
const DIR_MODE: u32 = 0o755;
const BACKLOG: u32 = 64;
/// Longest wait for another process to bind its socket, which takes a handful of system calls.
const TURN_WITHIN: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);

fn refused(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ControlError {
    let path = path.to_owned();
    move |source| ControlError::Refused {
        operation,
        path,
        source,
    }
}

/// The control socket. Dropping the value ends the server and removes the socket.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    /// Device and inode: a successor's socket under the same name must stay.
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

/// Listens at `path` on the caller's runtime and forwards requests to the loop. Creates a missing
/// directory with mode 0755 and replaces a stale socket.
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
    let server = accept::serve(listener, move |stream: UnixStream| {
        serve(stream, to_loop.clone())
    });
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

/// Locks the directory between the search for a stale socket and the bind. Without the lock, two
/// agents starting at once could both find the path free, and the second would remove the first
/// agent's socket. The kernel releases the lock when the holder ends.
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
                    io::Error::new(io::ErrorKind::TimedOut, "another process holds the lock");
                return Err(refused("lock the directory", directory)(busy));
            }
            Err(TryLockError::Error(error)) => {
                return Err(refused("lock the directory", directory)(error));
            }
        }
    }
}

/// Removes a stale socket. A socket with a listener is an error.
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
            // A stuck agent still listens. An agent killed between fork and exec leaves a copy
            // with the open socket for a moment: so connect again.
            _ => found = connect(path),
        }
    }
    match found {
        Connection::Open(_) | Connection::Busy => Err(ControlError::AnotherAgent {
            path: path.to_owned(),
            pid,
        }),
        Connection::Nobody => {
            info!("{}: stale socket (no listener) replaced", path.display());
            std::fs::remove_file(path).map_err(refused("remove the old socket", path))
        }
        Connection::Failed(error) => Err(refused("connect to", path)(error)),
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = UnixSocket::new_stream()?;
    // bind(2) creates the file with the socket's own mode, less the umask, so no other user can
    // connect at any moment.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(SOCKET_MODE))?;
    socket.bind(path)?;
    // A umask of 077 removed the group's permission.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    socket.listen(BACKLOG)
}

/// Serves one client. Errors concern this client alone, so nobody logs them.
pub(super) async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    to_loop: mpsc::Sender<Asked>,
) {
    let Some(reply) = answer(&mut stream, &to_loop).await else {
        return;
    };
    if let Ok(mut line) = serde_json::to_vec(&reply) {
        line.push(b'\n');
        let _ = stream.write_all(&line).await;
    }
}

/// Reads the request and gets the reply; `None` for a client without a request, or a loop without
/// a reply.
async fn answer(
    stream: &mut (impl AsyncRead + Unpin),
    to_loop: &mpsc::Sender<Asked>,
) -> Option<Reply> {
    let mut line = Vec::new();
    let mut input = BufReader::new(stream.take(MAX_REQUEST));
    input.read_until(b'\n', &mut line).await.ok()?;
    if line.is_empty() {
        return None;
    }
    if line.len() as u64 == MAX_REQUEST && !line.ends_with(b"\n") {
        let why = format!("the request is longer than {MAX_REQUEST} bytes");
        return Some(Reply::Refused(why));
    }
    let request: Request = match serde_json::from_slice(&line) {
        Ok(request) => request,
        Err(error) => return Some(Reply::Refused(format!("unknown request: {error}"))),
    };
    // A silent loop shows as a connection closed without a reply.
    ask_loop(to_loop, request).await.ok()
}
