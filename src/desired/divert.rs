//! Storage traffic on the egress path, while probes find the bypass path down.
//!
//! The rule that looks up the bypass table is left out: one change of one object, whatever the number of
//! prefixes. The routes stay, so that the return is one change too. The table of pinned flows stays as
//! well: open flows keep the bypass path until they end, and probes find the path.

use super::{DesiredState, EgressPath, Inputs};
use crate::degraded::{Degradation, Part};
use crate::health::WayId;
use crate::types::Family;

/// Decides for a family of a host, whose egress path is known.
pub(super) fn of_host(inputs: &Inputs, family: Family, state: &mut DesiredState) -> bool {
    // Without a gateway, storage traffic would be refused.
    let gateways = matches!(state.paths.get(family).egress, EgressPath::Gateways(_));
    gateways && divert(inputs, family, state)
}

/// Decides for a family of a NAT, whose translation is known. The uplink is another interface than those
/// of the bypass path: the translation tells the paths apart by the interface.
pub(super) fn of_nat(inputs: &Inputs, family: Family, state: &mut DesiredState) -> bool {
    let paths = state.paths.get(family);
    let apart = paths.leaves_by.zip(paths.bypass.as_ref());
    let apart = apart.is_some_and(|(out, path)| path.vias().all(|via| via.device != out));
    apart && divert(inputs, family, state)
}

fn divert(inputs: &Inputs, family: Family, state: &mut DesiredState) -> bool {
    let paths = state.paths.get_mut(family);
    let down = !inputs.health.is_in_use(WayId::Bypass(family));
    paths.diverted = down && paths.bypass.is_some();
    if paths.diverted {
        let why = if inputs.health.is_rolled_back(WayId::Bypass(family)) {
            "rolled back: the bypass path is down since the last change of its routes or rules"
        } else {
            "the bypass path is down"
        };
        let reason = format!(
            "{why}: storage answers through the egress path only; new storage traffic takes the egress path until the bypass path answers again"
        );
        let missing = Degradation::new(Part::Bypass, family, reason);
        let advice = "check the VPC's route tables, internet gateway, endpoints and network ACLs";
        state.degraded.push(missing.with_advice(advice));
    }
    paths.diverted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Role, parse};
    use crate::desired::{desired, shares::Shares};
    use crate::facts::HostFacts;
    use crate::health::Health;
    use crate::types::PerFamily;

    /// A host with the settings, healthy and with a dead bypass path.
    fn states(settings: &str) -> [DesiredState; 2] {
        let facts = HostFacts::behind_router("10.0.1.11/24");
        let config = parse(settings, "test").unwrap();
        let shares = Shares::default();
        let prefixes = PerFamily {
            ipv4: vec!["52.216.0.0/15".parse().unwrap()],
            ipv6: Vec::new(),
        };
        [
            Health::default(),
            Health::without([WayId::Bypass(Family::Ipv4)]),
        ]
        .map(|health| {
            let host = (&config, &facts, &shares);
            let mut inputs = Inputs::of_one_family(host, Role::Host, Family::Ipv4);
            inputs.prefixes = Some(&prefixes);
            inputs.health = health;
            desired(&inputs)
        })
    }

    #[test]
    fn dead_bypass_costs_one_rule_and_nothing_else() {
        let [well, diverted] = states("role = \"host\"\n[egress]\ngateways = [\"10.0.1.10\"]\n");
        assert_eq!(well.routes, diverted.routes);
        assert_eq!(well.firewall, diverted.firewall);
        let gone: Vec<String> = well
            .rules
            .iter()
            .filter(|rule| !diverted.rules.contains(rule))
            .map(|rule| format!("{} {:?}", rule.priority, rule.action))
            .collect();
        assert_eq!(gone.len(), 1, "{gone:?}");
        assert!(gone[0].starts_with("30020"), "{gone:?}");
        assert_eq!(diverted.rules.len() + 1, well.rules.len());
        assert!(diverted.paths.ipv4.diverted && !well.paths.ipv4.diverted);
        let reasons: Vec<&str> = diverted
            .degraded
            .iter()
            .map(|it| it.reason.as_str())
            .collect();
        assert!(
            reasons[0].starts_with("the bypass path is down"),
            "{reasons:?}"
        );
    }

    #[test]
    fn bypass_stays_where_nothing_else_leads_out() {
        let [well, down] = states("role = \"host\"\n[egress]\ngateways = [\"10.0.9.10\"]\n");
        assert_eq!(well, down);
    }
}
