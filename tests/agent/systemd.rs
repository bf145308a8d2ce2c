//! systemd's end of the notification socket (sd_notify(3)).

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::host::Host;
use lab::{SOON, eventually, wait_until};

/// What came, and when.
#[derive(Debug, Clone)]
pub struct Datagram {
    pub at: Instant,
    pub text: String,
}

impl Datagram {
    /// The value of an assignment in it.
    pub fn value(&self, key: &str) -> Option<&str> {
        let mut lines = self.text.lines();
        lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    }
}

/// The socket, and all that has come.
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

    /// Tells the agent of it.
    pub fn notified_by(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", &self.path);
    }

    pub fn came(&self) -> Vec<Datagram> {
        self.came.lock().unwrap().clone()
    }

    /// Those with this assignment, from this number on.
    pub fn with(&self, key: &str, from: usize) -> Vec<Datagram> {
        let mut came = self.came().split_off(from);
        came.retain(|datagram| datagram.value(key).is_some());
        came
    }

    /// How many have come: what comes next is counted from here.
    pub fn mark(&self) -> usize {
        self.came.lock().unwrap().len()
    }

    /// Waits for the next datagram with this assignment.
    #[track_caller]
    pub fn wait_for(&self, key: &str, from: usize) -> Datagram {
        wait_until(
            SOON,
            // Shorter than anything that comes after it.
            Duration::from_micros(200),
            || self.with(key, from).first().cloned(),
            || format!("{key}; came: {:#?}", self.came()),
        )
    }

    /// Waits until the status line says this.
    #[track_caller]
    pub fn wait_for_status(&self, says: &str, from: usize) {
        eventually(&format!("STATUS with {says:?}"), || {
            let lines = self.with("STATUS", from);
            lines.iter().any(|line| line.text.contains(says))
        });
    }
}
