//! The gateways of both paths, the spread over egress gateways, and their probes.

use std::net::IpAddr;
use std::time::Duration;

use super::Mistakes;
use crate::config::{AutoOr, Config, Spread};
use crate::types::Family;

impl Mistakes {
    pub(super) fn egress(&mut self, config: &Config) {
        let gateways: Vec<IpAddr> = config.egress.addresses().collect();
        self.duplicates("egress.gateways", &gateways);
        for gateway in &gateways {
            if matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
                self.add(
                    &["egress.gateways"],
                    format!(
                        "{gateway} is a link-local address, which is ambiguous without an \
                         interface: write another address of the gateway"
                    ),
                );
            }
        }
        if !config.egress.onlink {
            self.ends_of_networks("egress.gateways", "[egress]", gateways.iter());
        }
        if !config.bypass.onlink {
            let bypass = Family::ALL.into_iter();
            let bypass = bypass.filter_map(|family| config.bypass.gateway.get(family).set());
            self.ends_of_networks("bypass.gateway", "[bypass]", bypass);
        }
        for family in Family::ALL {
            let of_family = config.egress.gateways_of(family);
            if let Some(gateway) = of_family.first()
                && config.egress.close.contains(&family)
            {
                self.add(
                    &["egress.close", "egress.gateways"],
                    format!(
                        "{family} is closed and has the gateway {gateway}: remove {family} from \
                         egress.close, or the gateway"
                    ),
                );
            }
            if let AutoOr::Set(bypass) = config.bypass.gateway.get(family)
                && gateways.contains(bypass)
            {
                self.add(
                    &["bypass.gateway", "egress.gateways"],
                    format!(
                        "{bypass} is an egress gateway too: the bypass would go through the NAT; \
                         write the VPC router or \"auto\""
                    ),
                );
            }
        }
    }

    /// The first and the last address of a /24 can be hosts only in a larger network.
    fn ends_of_networks<'g>(
        &mut self,
        key: &'static str,
        table: &str,
        gateways: impl Iterator<Item = &'g IpAddr>,
    ) {
        for gateway in gateways {
            let IpAddr::V4(v4) = gateway else { continue };
            let end = match v4.octets()[3] {
                0 => "network",
                255 => "broadcast",
                _ => continue,
            };
            self.add(
                &[key],
                format!(
                    "{gateway} is the {end} address of a /24, no router: correct the last number; \
                     in a larger network, where the address is a router's, set onlink = true in {table}"
                ),
            );
        }
    }

    pub(super) fn spread(&mut self, config: &Config) {
        let egress = &config.egress;
        let several = Family::ALL
            .into_iter()
            .any(|family| egress.ordered(family).nth(1).is_some());
        if egress.spread == Spread::Flow && several && !egress.pins() {
            self.add(
                &["egress.spread", "egress.pin", "egress.enforce"],
                "\"flow\" needs pinned flows, since the kernel moves open flows to another gateway \
                 after a few lost packets: write spread = \"host\", or remove pin = false and enforce = false",
            );
        }
        if egress.zone != AutoOr::Auto && !egress.gateways.is_empty() && !egress.has_zones() {
            self.add(
                &["egress.zone"],
                "no gateway has a zone: write each gateway as a table [[egress.gateway]] with a zone, or remove the key",
            );
        }
    }

    pub(super) fn probe(&mut self, config: &Config) {
        let probe = &config.probe;
        let empty = "the list is empty: write at least one server such as \"192.0.2.1:443\", or enabled = false";
        if probe.enabled && probe.targets.is_empty() {
            self.add(&["probe.targets", "probe.enabled"], empty);
        }
        let targets: Vec<String> = probe.targets.iter().map(ToString::to_string).collect();
        self.targets("probe.targets", &targets);
        let targets = probe.bypass_targets.iter().map(|target| match target {
            AutoOr::Auto => "\"auto\"".to_owned(),
            AutoOr::Set(target) => target.to_string(),
        });
        self.targets("probe.bypass_targets", &targets.collect::<Vec<_>>());
        if probe.timeout > LONGEST_TIMEOUT {
            self.add(
                &["probe.timeout"],
                "is longer than five seconds: write a shorter time, since a round begins every probe.suspect_interval",
            );
        }
        let intervals = [
            ("probe.interval", probe.interval),
            ("probe.bypass_interval", probe.bypass_interval),
        ];
        if let Some((key, _)) = intervals.iter().find(|it| probe.suspect_interval > it.1) {
            self.add(
                &["probe.suspect_interval", key],
                format!("is longer than {key}: write a shorter time, such as \"200ms\""),
            );
        }
        if probe.hold > probe.hold_limit {
            self.add(
                &["probe.hold", "probe.hold_limit"],
                "is longer than probe.hold_limit: write a shorter time, or a longer limit",
            );
        }
    }
}

impl Mistakes {
    /// A list of servers, each once.
    fn targets(&mut self, key: &'static str, targets: &[String]) {
        let mut twice = targets.iter().enumerate();
        if let Some((_, target)) = twice.find(|(at, target)| targets[..*at].contains(target)) {
            self.add(&[key], format!("{target} is listed twice: remove one"));
        }
        if targets.len() > MAX_TARGETS {
            self.add(
                &[key],
                format!("{} servers: write at most {MAX_TARGETS}, since a way in doubt asks all of them at once", targets.len()),
            );
        }
    }
}

/// The longest time limit of a probe.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The highest number of targets of one list.
const MAX_TARGETS: usize = 16;
