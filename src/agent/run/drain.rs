//! Gateways without new flows on an operator's word.

use std::net::IpAddr;

use jiff::Timestamp;

use super::super::drains::{Accessed, DrainRequest};
use super::super::hops::Known;
use super::super::meter::Reading;
use super::super::shared::locked;
use super::Agent;
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

impl Agent {
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

    /// Answers a request for a drain, now or after an access to the state dir.
    pub(super) fn ask_drain(&mut self, request: DrainRequest) {
        if let Some(request) = self.drains.admit(request) {
            self.drain(request);
        }
    }

    /// Takes the end of an access to the state dir.
    pub(super) fn drains_accessed(&mut self, accessed: Accessed) {
        match accessed {
            Accessed::Read(read, request) => {
                let known = self.drains.take(read);
                match (&known, request) {
                    (Ok(()), Some(request)) => self.drain(request),
                    (Err(why), Some(request)) => reply(request, Reply::Refused(why.clone())),
                    (_, None) => {}
                }
                if known.is_ok() {
                    self.cause(Cause::Drain);
                }
            }
            Accessed::Changed(written, change, request) => match self.drains.written(written) {
                Ok(()) => {
                    tracing::warn!("{change}");
                    locked(&self.shared.way_changes).push(change);
                    self.cause(Cause::Drain);
                    reply(request, Reply::Done);
                }
                Err(why) => reply(request, Reply::Refused(why)),
            },
            Accessed::Restored(written) => {
                if let Err(why) = self.drains.written(written) {
                    tracing::debug!("{why}");
                }
            }
        }
        while let Some(request) = self.drains.next() {
            self.ask_drain(request);
        }
    }

    /// Drains a gateway, or ends its drain; the drained gateways are known.
    fn drain(&mut self, request: DrainRequest) {
        let gateway = request.gateway;
        let is_drained = self.drains.of(gateway).is_some();
        if request.by.is_some() == is_drained {
            let unknown = self.no_gateway(gateway).filter(|_| !is_drained);
            self.cause(Cause::Drain);
            return reply(request, unknown.map_or(Reply::Done, Reply::Refused));
        }
        let refusal = match request.by {
            Some(_) => self.no_gateway(gateway).or_else(|| self.objection(gateway)),
            None => None,
        };
        if let Some(why) = refusal {
            return reply(request, Reply::Refused(why));
        }
        let (drain, word, why) = match &request.by {
            Some(by) => {
                let since = Timestamp::now().as_second();
                let why = format!("asked for by {by}");
                (
                    Some(Drain {
                        since,
                        by: by.clone(),
                    }),
                    "drained",
                    why,
                )
            }
            None => (None, "undrained", "the drain is undone".to_owned()),
        };
        let change = WayChange::now(format!("gateway {gateway}"), word, why);
        let egress = &self.settings.config.egress;
        let configured = |address: &IpAddr| egress.addresses().any(|it| it == *address);
        self.drains.change(request, drain, change, configured);
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

fn reply(request: DrainRequest, reply: Reply) {
    // A client may have disconnected meanwhile.
    let _ = request.answer.send(reply);
}
