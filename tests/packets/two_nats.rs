//! A host with two NATs in an order of preference, so that the test knows the one in use. The servers of
//! the probes are those of the lab.

use std::net::IpAddr;

use super::{Firewall, Machine};
use lab::*;

/// Probes each second, so that a scene is short.
pub const QUICK: &str = "interval = \"1s\"\nhold = \"3s\"\n";

pub struct TwoNats<'a> {
    pub lab: &'a Lab,
    pub machine: Machine<'a>,
}

impl<'a> TwoNats<'a> {
    /// The host before its first pass; `probe` are lines of `[probe]`.
    pub fn new(lab: &'a Lab, firewall: Firewall, probe: &str) -> TwoNats<'a> {
        lab.guarded_nat("nat1");
        lab.guarded_nat("nat2");
        let settings = format!(
            "[egress]\nspread = \"order\"\n\
             gateways = [\"10.0.1.10\", \"10.0.1.20\", \"2600:1f18:1000:1::10\", \"2600:1f18:1000:1::20\"]\n\
             [probe]\ntargets = [\"{PARTNER}:{PORT}\", \"[{PARTNER6}]:{PORT}\"]\n{probe}"
        );
        let machine = Machine::new(lab, "host1", firewall, &settings);
        TwoNats { lab, machine }
    }

    /// Starts an agent, and waits until both NATs are in force.
    pub fn agent(&self) -> Agent {
        let agent = self.machine.agent();
        agent.wait_in_force();
        agent
    }

    /// The sources that the partners see.
    pub fn seen(&self) -> [Option<IpAddr>; 2] {
        [PARTNER, PARTNER6].map(|partner| self.lab.who("host1", partner).ok())
    }

    pub fn nat1(&self) -> [Option<IpAddr>; 2] {
        [self.lab.nat1.egress_public, self.lab.nat1.egress6].map(Some)
    }

    pub fn nat2(&self) -> [Option<IpAddr>; 2] {
        [self.lab.nat2.egress_public, self.lab.nat2.egress6].map(Some)
    }
}
