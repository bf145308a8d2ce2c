//! The verdict of a running agent's probes, for commands beside the agent.

use super::complain;
use crate::config::Config;
use crate::health::{Health, WayId};
use crate::status::control::{AskError, Reply, Request, ask};
use crate::status::snapshot::GatewayStatus;

/// A running agent's knowledge about the ways out.
#[derive(Debug, Default)]
pub(super) struct AgentView {
    /// The gateways of the agent's status; none without an agent.
    pub gateways: Vec<GatewayStatus>,
}

impl AgentView {
    /// Asks the agent, where its settings leave something to choose.
    pub fn ask(config: &Config) -> AgentView {
        if !config.probes() && config.egress.gateways.len() < 2 {
            return AgentView::default();
        }
        match ask(&config.agent.socket, Request::Status) {
            Ok(Reply::Status(status)) => AgentView {
                gateways: status.gateways,
            },
            // Nobody probes.
            Err(AskError::NoAgent { .. }) => AgentView::default(),
            // The egress does not wait for an agent that hangs.
            Ok(_) | Err(_) => {
                if config.probe.enabled {
                    complain(
                        &"the agent gives no answer: which ways it has found down is unknown, and each counts as well",
                    );
                }
                AgentView::default()
            }
        }
    }

    /// The ways that the probes have found down: no command beside the agent may lead back to them, or
    /// expect them.
    pub fn health(&self) -> Health {
        let down = self.gateways.iter().filter(|gateway| gateway.is_down());
        Health::without(down.filter_map(way))
    }
}

/// The ways that the probes of a running agent have found down.
pub(super) fn ask_agent(config: &Config) -> Health {
    match config.probes() {
        true => AgentView::ask(config).health(),
        false => Health::default(),
    }
}

fn way(gateway: &GatewayStatus) -> Option<WayId> {
    match gateway.path.as_str() {
        "bypass" => Some(WayId::Bypass(gateway.family)),
        _ => Some(WayId::Gateway(gateway.address.parse().ok()?)),
    }
}
