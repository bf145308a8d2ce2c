//! The verdict of a running agent's probes, for commands beside the agent.

use super::complain;
use crate::config::Config;
use crate::health::{Health, WayId};
use crate::status::control::{AskError, Reply, Request, ask};

/// The ways that the probes of a running agent have found down: no command beside the agent may lead
/// back to them, or expect them.
pub(super) fn ask_agent(config: &Config) -> Health {
    if !config.probe.enabled || config.egress.gateways.len() < 2 {
        return Health::default();
    }
    let status = match ask(&config.agent.socket, Request::Status) {
        Ok(Reply::Status(status)) => status,
        // Nobody probes.
        Err(AskError::NoAgent { .. }) => return Health::default(),
        // The egress does not wait for an agent that hangs.
        Ok(_) | Err(_) => {
            complain(
                &"the agent gives no answer: which gateways it has found down is unknown, and each counts as well",
            );
            return Health::default();
        }
    };
    let down = status.gateways.iter().filter(|gateway| {
        let health = gateway.health.as_ref();
        health.is_some_and(|health| !health.usable)
    });
    let addresses = down.filter_map(|gateway| gateway.address.parse().ok());
    Health::without(addresses.map(WayId::Gateway))
}
