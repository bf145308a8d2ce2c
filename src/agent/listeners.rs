//! The agent's servers: the control socket, and metrics with health.

use tokio::sync::mpsc;

use super::{AgentError, logging};
use crate::config::AgentConfig;
use crate::status::control::{Asked, ControlSocket, MetricsServer, serve_metrics, serve_socket};

/// The servers. All of them send requests to the agent's loop.
pub(super) struct Listeners {
    asked_to: mpsc::Sender<Asked>,
    control: Option<ControlSocket>,
    metrics: Option<MetricsServer>,
}

impl Listeners {
    /// Serves the control socket alone.
    ///
    /// # Errors
    /// Another agent has the socket.
    pub fn open(
        config: &AgentConfig,
        asked_to: mpsc::Sender<Asked>,
    ) -> Result<Listeners, AgentError> {
        let control = logging::or_warn(serve_socket(&config.socket, asked_to.clone()))?;
        Ok(Listeners {
            asked_to,
            control,
            metrics: None,
        })
    }

    /// Serves `[agent] metrics`. A failure is a warning.
    pub fn serve_metrics(&mut self, config: &AgentConfig) {
        // The address is free again before the next server takes it.
        self.metrics = None;
        let Some(address) = config.metrics else {
            return;
        };
        match serve_metrics(address, self.asked_to.clone()) {
            Ok(server) => self.metrics = Some(server),
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// Serves at the places of new settings. A failure is a warning.
    pub fn follow(&mut self, old: &AgentConfig, new: &AgentConfig) {
        if old.metrics != new.metrics {
            self.serve_metrics(new);
        }
        if old.socket != new.socket {
            self.control = None;
            match serve_socket(&new.socket, self.asked_to.clone()) {
                Ok(socket) => self.control = Some(socket),
                Err(error) => tracing::warn!("{error}"),
            }
        }
    }
}
