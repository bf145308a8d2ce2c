//! systemd's side of the agent: readiness, status line, watchdog (sd_notify(3)). Without
//! `NOTIFY_SOCKET` nothing is sent.

use std::time::Duration;

use sd_notify::{NotifyState, notify, watchdog_enabled};

/// What was told already, so that nothing is told twice.
#[derive(Debug, Default)]
pub(super) struct Notifier {
    status: String,
    ready: bool,
}

impl Notifier {
    /// How often the watchdog wants to hear from us: half of its patience, as sd_watchdog_enabled(3)
    /// recommends; `None` where there is no watchdog.
    pub fn watchdog_interval() -> Option<Duration> {
        watchdog_enabled().map(|patience| patience / 2)
    }

    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// The service has started, or has read its settings again.
    pub fn ready(&mut self) {
        self.ready = true;
        send(&[NotifyState::Ready]);
    }

    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!("systemd is not told of the reload: {error}"),
        }
    }

    pub fn stopping(&self) {
        send(&[NotifyState::Stopping]);
    }

    pub fn watchdog(&self) {
        send(&[NotifyState::Watchdog]);
    }

    /// The line that `systemctl status` shows.
    pub fn status(&mut self, status: String) {
        if self.status != status {
            send(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = notify(states) {
        tracing::warn!("systemd is not told: {error}; check NOTIFY_SOCKET");
    }
}
