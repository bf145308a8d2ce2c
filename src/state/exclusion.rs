//! A lock that needs no disk: an abstract unix socket named after the state directory.
//!
//! The disk may be full, read-only or silent, and two passes must exclude each other all the
//! same. An abstract name belongs to the network namespace, as the routes and rules of a pass do,
//! and the kernel frees the name when the process ends.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::patience::in_time;

/// Pause and number of the further tries for a name without a trusted holder.
const PAUSE: Duration = Duration::from_millis(2);
const RETRIES: usize = 25;

/// The lock, held until dropped.
#[derive(Debug)]
pub(super) struct Exclusion {
    listener: UnixListener,
}

/// A process that holds the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rival {
    pub pid: u32,
}

impl Exclusion {
    /// Takes the lock, or names the process that holds the lock.
    ///
    /// Every user may bind an abstract name. A holder that is neither root, nor this user, nor the
    /// owner of the state directory is ignored: another user must not be able to stop all passes.
    pub fn take(dir: &Path) -> io::Result<Result<Option<Exclusion>, Rival>> {
        let address = address(dir)?;
        match UnixListener::bind_addr(&address) {
            Ok(listener) => Ok(Ok(Some(Exclusion { listener }))),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                Ok(match rival(dir, &address) {
                    Some(rival) => Err(rival),
                    None => Ok(retry(&address)),
                })
            }
            Err(error) => Err(error),
        }
    }
}

impl Drop for Exclusion {
    fn drop(&mut self) {
        // A child that another thread has just forked keeps the socket open until it executes its
        // program. Connections are refused from now on.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
    }
}

/// The name is in use, and no trusted holder answers: the holder has just ended, or the name is
/// another user's.
fn retry(address: &SocketAddr) -> Option<Exclusion> {
    (0..RETRIES).find_map(|_| {
        std::thread::sleep(PAUSE);
        let listener = UnixListener::bind_addr(address).ok()?;
        Some(Exclusion { listener })
    })
}

/// The process that holds the lock now.
pub(super) fn holder(dir: &Path) -> Option<Rival> {
    rival(dir, &address(dir).ok()?)
}

fn address(dir: &Path) -> io::Result<SocketAddr> {
    let path = std::path::absolute(dir)?;
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    let hex: String = digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    SocketAddr::from_abstract_name(format!("trailblazer-pass-{hex}"))
}

fn rival(dir: &Path, address: &SocketAddr) -> Option<Rival> {
    let stream = UnixStream::connect_addr(address).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
    let uid = peer.uid.as_raw();
    let trusted = uid == 0 || uid == rustix::process::geteuid().as_raw() || owner(dir) == Some(uid);
    let pid = u32::try_from(peer.pid.as_raw_nonzero().get()).ok()?;
    trusted.then_some(Rival { pid })
}

/// The owner of the state directory; `None` without one, and on a silent disk.
fn owner(dir: &Path) -> Option<u32> {
    let path = dir.to_owned();
    let found = in_time(dir, move || std::fs::metadata(path)).ok()?;
    found.ok().map(|meta| meta.uid())
}
