//! systemd's end of the notification socket (sd_notify(3)).

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::host::Host;
use lab::{SOON, eventually, wait_until};

/// A received datagram and the time of its arrival.
#[derive(Debug, Clone)]
pub struct Datagram {
    pub at: Instant,
    pub text: String,
}

impl Datagram {
    /// The value of the assignment `key` in the datagram.
    pub fn value(&self, key: &str) -> Option<&str> {
        let mut lines = self.text.lines();
        lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    }
}

/// The notify socket and all datagrams received so far.
pub struct Systemd {
    path: PathBuf,
    came: Arc<Mutex<Vec<Datagram>>>,
}

impl Systemd {
    pub fn start(host: &Host) -> Systemd {
        let path = host.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let came: Arc<Mutex<Vec<Datagram>>> = Arc::default();
        let into = Arc::clone(&came);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer) {
                let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
                let at = Instant::now();
                into.lock().unwrap().push(Datagram { at, text });
            }
        });
        Systemd { path, came }
    }

    /// Names the socket in the environment of the agent.
    pub fn notified_by(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", &self.path);
    }

    pub fn came(&self) -> Vec<Datagram> {
        self.came.lock().unwrap().clone()
    }

    /// Datagrams with the assignment `key`, from number `from` on.
    pub fn with(&self, key: &str, from: usize) -> Vec<Datagram> {
        let mut came = self.came().split_off(from);
        came.retain(|datagram| datagram.value(key).is_some());
        came
    }

    /// The number of datagrams so far, as a starting point for later counts.
    pub fn mark(&self) -> usize {
        self.came.lock().unwrap().len()
    }

    /// Waits for the next datagram with this assignment.
    #[track_caller]
    pub fn wait_for(&self, key: &str, from: usize) -> Datagram {
        wait_until(
            SOON,
            // Polls faster than the agent can send the next datagram.
            Duration::from_micros(200),
            || self.with(key, from).first().cloned(),
            || format!("{key}; came: {:#?}", self.came()),
        )
    }

    /// Waits for a status line that contains `text`.
    #[track_caller]
    pub fn wait_for_status(&self, says: &str, from: usize) {
        eventually(&format!("STATUS with {says:?}"), || {
            let lines = self.with("STATUS", from);
            lines.iter().any(|line| line.text.contains(says))
        });
    }
}
