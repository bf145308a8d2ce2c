//! Values that follow from several settings.

use std::net::IpAddr;

use super::{EgressConfig, KernelConfig, WhenDown};
use crate::types::{Family, PinMarks};

impl EgressConfig {
    /// True if the settings leave the egress of every family open without a gateway.
    pub fn is_open(&self) -> bool {
        let opens = self.gateways.is_empty() || self.when_down == WhenDown::Bypass;
        opens && self.close.is_empty()
    }

    /// True if open flows keep their path. A pinned flow must be known to have begun on one of the paths,
    /// which `enforce` ensures.
    pub fn pins(&self) -> bool {
        self.enforce && self.pin
    }

    /// The gateways of one family, sorted.
    pub fn gateways_of(&self, family: Family) -> Vec<IpAddr> {
        let gateways = self.gateways.iter().copied();
        let mut found: Vec<IpAddr> = gateways
            .filter(|gateway| Family::of(*gateway) == family)
            .collect();
        found.sort();
        found
    }
}

impl KernelConfig {
    /// The marks of pinned flows.
    pub fn pin_marks(&self) -> PinMarks {
        PinMarks::new(self.path_mask, self.gateway_mask)
    }
}
