//! systemd's side of the agent: readiness, status line, watchdog (sd_notify(3)). Without
//! `NOTIFY_SOCKET` nothing is sent.

use std::time::Duration;

use sd_notify::{NotifyState, notify, watchdog_enabled};

/// Sends notifications to systemd, an unchanged status line only once.
#[derive(Debug, Default)]
pub(super) struct Notifier {
    status: String,
    /// Follows the status line.
    remark: Option<String>,
    ready: bool,
}

impl Notifier {
    /// The interval of watchdog pings: half of the watchdog's timeout, as sd_watchdog_enabled(3)
    /// recommends; `None` without a watchdog.
    pub fn watchdog_interval() -> Option<Duration> {
        watchdog_enabled().map(|timeout| timeout / 2)
    }

    /// True after the first READY.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Reports that the service has started, or has reloaded its settings.
    pub fn ready(&mut self) {
        self.ready = true;
        send(&[NotifyState::Ready]);
    }

    /// Reports the beginning of a reload.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!("cannot notify systemd of the reload: {error}"),
        }
    }

    /// Reports the end of the service.
    pub fn stopping(&self) {
        send(&[NotifyState::Stopping]);
    }

    /// Pings the watchdog.
    pub fn watchdog(&self) {
        send(&[NotifyState::Watchdog]);
    }

    /// Sets the line that `systemctl status` shows.
    pub fn status(&mut self, status: String) {
        if self.status != status {
            self.status = status;
            self.send_status();
        }
    }

    /// Sets the text behind the status line.
    pub fn remark(&mut self, remark: Option<String>) {
        if self.remark != remark {
            self.remark = remark;
            self.send_status();
        }
    }

    fn send_status(&self) {
        let Notifier { status, remark, .. } = self;
        let text = match remark {
            Some(remark) => format!("{status}; {remark}"),
            None => status.clone(),
        };
        send(&[NotifyState::Status(&text)]);
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = notify(states) {
        tracing::warn!("cannot notify systemd: {error}; check NOTIFY_SOCKET");
    }
}
