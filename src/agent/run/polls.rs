//! The polls of states whose changes the kernel doesn't announce.

use std::sync::Arc;

use super::super::watch;
use super::Agent;

impl Agent {
    /// Starts the polling of gateways, and that of foreign rules of iptables-legacy.
    pub(super) fn poll_foreign(&mut self) {
        let start = || watch::poll_gateways(Arc::clone(&self.shared));
        run_poll(&mut self.gateway_poll, true, "the gateways", start);
        let start = || watch::poll_foreign(Arc::clone(&self.shared));
        run_poll(
            &mut self.foreign_poll,
            true,
            "foreign iptables rules",
            start,
        );
    }

    /// Starts or ends the polling of a firewall whose changes the kernel doesn't announce.
    pub(super) fn poll_firewall(&mut self, backend: Option<&crate::reconcile::BackendChoice>) {
        let Some(backend) = backend else {
            return;
        };
        let wanted = !backend.variant.announces_changes();
        let start = || watch::poll_own(Arc::clone(&self.shared));
        run_poll(&mut self.firewall_poll, wanted, "the iptables rules", start);
    }
}

/// Starts a poll that is wanted and not running, and ends an unwanted one.
fn run_poll(
    running: &mut Option<watch::Poll>,
    wanted: bool,
    object: &str,
    start: impl FnOnce() -> std::io::Result<watch::Poll>,
) {
    if !wanted {
        *running = None;
    } else if running.is_none() {
        match start() {
            Ok(poll) => *running = Some(poll),
            Err(error) => tracing::warn!("cannot poll {object}: {error}"),
        }
    }
}
