//! Gateways without new flows on an operator's word.

use std::net::IpAddr;

use jiff::Timestamp;

use super::super::hops::Known;
use super::super::meter::Reading;
use super::super::shared::locked;
use super::{Agent, Read};
use crate::config::Role;
use crate::journal::WayChange;
use crate::reconcile::Cause;
use crate::state::drained::Drain;
use crate::status::control::Reply;
use crate::status::snapshot::GatewayStatus;
use crate::types::Family;
use crate::words::first_few;

/// The gateways of the settings in a message.
const NAMED: usize = 8;

impl<R: Fn() -> Read + Clone + Send + 'static> Agent<R> {
    /// The gateways of both paths, with what is known at present.
    pub(super) fn gateways_with(&self, reading: &Reading) -> Vec<GatewayStatus> {
        let probed = locked(&self.shared.ways).clone();
        let ended = locked(&self.shared.ended).clone();
        let known = Known {
            ended: &ended,
            reading,
            probed: probed.as_ref(),
            drains: &self.drains,
        };
        self.gateways.iter().map(|hop| hop.status(&known)).collect()
    }

    /// Drains a gateway for the program `by`, or ends the drain.
    pub(super) fn drain(&mut self, gateway: IpAddr, by: Option<String>) -> Reply {
        let way = format!("gateway {gateway}");
        let is_drained = self.drains.of(gateway).is_some();
        if !is_drained && let Some(why) = self.no_gateway(gateway) {
            return Reply::Refused(why);
        }
        let (drain, word, why) = match by {
            Some(by) => {
                if !is_drained && let Some(why) = self.objection(gateway) {
                    return Reply::Refused(why);
                }
                let since = Timestamp::now().as_second();
                let why = format!("asked for by {by}");
                (Some(Drain { since, by }), "drained", why)
            }
            None => (None, "undrained", "the drain is undone".to_owned()),
        };
        let is_new = drain.is_some() != is_drained;
        if is_new {
            let egress = &self.settings.config.egress;
            let configured = |address: &IpAddr| egress.addresses().any(|it| it == *address);
            if let Err(why) = self.drains.change(gateway, drain, configured) {
                return Reply::Refused(why);
            }
            let change = WayChange::now(way, word, why);
            tracing::warn!("{change}");
            locked(&self.shared.way_changes).push(change);
        }
        self.cause(Cause::Drain);
        Reply::Done
    }

    /// The reason if the settings have no such gateway.
    fn no_gateway(&self, gateway: IpAddr) -> Option<String> {
        let egress = &self.settings.config.egress;
        let is_configured = egress.addresses().any(|address| address == gateway);
        if self.settings.role == Role::Nat || egress.gateways.is_empty() {
            return Some("the settings have no [egress] gateways to choose among".to_owned());
        }
        if !is_configured {
            let known = first_few(egress.addresses(), NAMED, ", ");
            return Some(format!(
                "{gateway} is not in [egress] gateways, which has {known}"
            ));
        }
        None
    }

    /// The reason against the drain of a gateway of the settings.
    fn objection(&mut self, gateway: IpAddr) -> Option<String> {
        if self.shared.is_paused() {
            return Some(
                "the agent is paused and changes no route: run `trailblazer kick` first".to_owned(),
            );
        }
        if !self.first_pass_over {
            return Some(
                "the first pass has not ended, so the gateways in use are unknown: try again"
                    .to_owned(),
            );
        }
        let reading = self.meter.read();
        let family = Family::of(gateway);
        let address = gateway.to_string();
        let gateways = self.gateways_with(&reading);
        let others: Vec<&GatewayStatus> = gateways
            .iter()
            .filter(|it| it.path == "egress" && it.family == family && it.address != address)
            .collect();
        if others.iter().any(|other| other.takes_new_flows()) {
            return None;
        }
        let states = others.iter().map(|other| {
            let state = match other {
                it if it.drained.is_some() => "drained",
                it if it.is_down() => "down",
                it if it.is_silent() => "silent on its link",
                _ => "left out",
            };
            format!("{} is {state}", other.address)
        });
        let states = first_few(states, NAMED, ", ");
        let states = match states.as_str() {
            "" => "the settings have no other one".to_owned(),
            _ => states,
        };
        Some(format!(
            "{gateway} is the last {family} gateway that takes new flows: {states}"
        ))
    }
}
