//! Values that follow from several settings.

use std::net::IpAddr;

use super::{AutoOr, Config, EgressConfig, KernelConfig, Role, Target, TargetHost, WhenDown};
use crate::types::{PinMarks, Region};

/// The most S3 endpoints that a selection of many regions is probed with.
const MOST_REGIONS: usize = 4;

impl EgressConfig {
    /// True if the settings leave the egress of every family open without a gateway.
    pub fn is_open(&self) -> bool {
        let opens = self.gateways.is_empty() || self.when_down == WhenDown::Bypass;
        opens && self.close.is_empty()
    }

    /// True if packets on neither path are dropped, where the firewall can tell them.
    pub fn enforces(&self) -> bool {
        self.enforce != AutoOr::Set(false)
    }

    /// True if open flows keep their path. A pinned flow must be known to have begun on one of the paths,
    /// which `enforce` ensures. Without a gateway all flows have one path.
    pub fn pins(&self) -> bool {
        self.enforces() && self.pin && !self.gateways.is_empty()
    }
}

impl KernelConfig {
    /// The marks of pinned flows.
    pub fn pin_marks(&self) -> PinMarks {
        PinMarks::new(self.path_mask, self.gateway_mask)
    }
}

impl Config {
    /// True if open flows keep their path. The paths of a NAT differ in more than the translation only
    /// if a setting says so.
    pub fn pins(&self) -> bool {
        if self.role != Some(Role::Nat) {
            return self.egress.pins();
        }
        let bypass = &self.bypass;
        let gateway = |gateway: &AutoOr<IpAddr>| *gateway != AutoOr::Auto;
        let named = bypass.interface != AutoOr::Auto || self.nat.egress_interface != AutoOr::Auto;
        let differ = named || gateway(&bypass.gateway.ipv4) || gateway(&bypass.gateway.ipv6);
        self.egress.pin && differ
    }

    /// True if probes test the ways out. The pins of flows lead the probes.
    pub fn probes(&self) -> bool {
        self.probe.enabled && self.pins()
    }

    /// The servers that answer probes of the bypass path. `auto` stands for the S3 endpoints of the
    /// selected regions, names with addresses of both families; `own` is the region of this instance.
    pub fn bypass_targets(&self, own: Option<&Region>) -> Vec<Target> {
        let mut targets: Vec<Target> = Vec::new();
        for target in &self.probe.bypass_targets {
            match target {
                AutoOr::Auto => targets.extend(self.storage_endpoints(own)),
                AutoOr::Set(target) => targets.push(target.clone()),
            }
        }
        targets.sort();
        targets.dedup();
        targets
    }

    fn storage_endpoints<'a>(&'a self, own: Option<&'a Region>) -> impl Iterator<Item = Target> {
        let of_s3 = self.select.services.iter().any(|it| it.0 == "S3");
        let regions = self.select.regions.iter().filter(move |_| of_s3);
        let regions = regions.filter_map(move |region| match region {
            AutoOr::Auto => own,
            AutoOr::Set(region) => Some(region),
        });
        let regions = regions.filter(|region| region.0 != "GLOBAL");
        regions.take(MOST_REGIONS).map(|region| {
            let domain = match region.0.starts_with("cn-") {
                true => "amazonaws.com.cn",
                false => "amazonaws.com",
            };
            Target {
                host: TargetHost::Name(format!("s3.dualstack.{}.{domain}", region.0)),
                port: 443,
            }
        })
    }
}
