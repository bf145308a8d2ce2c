//! NAT role: a flush of the firewall by another program must not send packets out untranslated.
//!
//! The firewall that translates also marks each packet of `[nat] sources`, as the last step before
//! the routing decision. A forward policy of the kernel's IPsec refuses packets of the sources without
//! any mark. A flush takes translation and marks together; the policy stays. Policy rules cannot do
//! the same: the reverse path filter looks answers up without a mark, and would drop them.
//!
//! Private networks and the destinations of `[nat] exempt` have policies of better priority, so that
//! they stay reachable. Packets with the mark of another program pass.

use ipnet::IpNet;

use super::{DesiredState, Inputs, chains::Chains, translate::private};
use crate::firewall::{FwRule, Match, Statement};
use crate::objects::{ForwardPolicy, PolicyAction};
use crate::types::Family;

/// Adds marks and policies for the packets of the sources.
pub(super) fn add(
    inputs: &Inputs,
    family: Family,
    sources: &[IpNet],
    state: &mut DesiredState,
    chains: &mut Chains,
) {
    if inputs.unfiltered.get(family).is_some() {
        // Nothing marks packets, and routes close the path.
        return;
    }
    if let Some(reason) = inputs.no_switch.get(family) {
        state.notes.push(format!(
            "{family}: if another program flushes the firewall, packets leave untranslated until the repair: {reason}"
        ));
        return;
    }
    let mark = inputs.config.kernel.path_mask.seen();
    let rule = |matches, to| FwRule {
        family: Some(family),
        matches,
        verdict: Statement::SetPacketMark(to),
    };
    let unmarked = Match::PacketMark(ForwardPolicy::MARK);
    let marking = |source: &IpNet| rule(vec![Match::Source(*source), unmarked.clone()], mark);
    chains.mark.extend(sources.iter().map(marking));
    // The mark has no use after the look at the policies. Rules of other programs never see it.
    let matches = vec![Match::PacketMark(mark)];
    chains.unmark.push(rule(matches, ForwardPolicy::MARK));
    let destinations = private(inputs, family, sources);
    for source in sources {
        let policy = |action, destination| ForwardPolicy {
            action,
            source: *source,
            destination,
        };
        let allow = destinations.iter();
        let policies = &mut state.policies;
        policies.extend(allow.map(|net| policy(PolicyAction::Allow, *net)));
        policies.push(policy(PolicyAction::Block, family.default_prefix()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Role, parse};
    use crate::desired::{desired, shares::Shares};
    use crate::facts::HostFacts;
    use crate::firewall::Hook;

    /// A NAT instance with one interface.
    fn state(adapt: impl FnOnce(&mut Inputs)) -> DesiredState {
        let facts = HostFacts::behind_router("10.0.1.10/24");
        let text = "role = \"nat\"\n[nat]\nsources = [\"10.0.0.0/16\"]\nexempt = [\"198.18.0.0/15\"]\negress_addresses = [\"10.0.1.10\"]\n";
        let config = parse(text, "test").unwrap();
        let shares = Shares::default();
        let mut inputs = Inputs::of_one_family((&config, &facts, &shares), Role::Nat, Family::Ipv4);
        adapt(&mut inputs);
        desired(&inputs)
    }

    fn marks(state: &DesiredState) -> bool {
        let chains = state.firewall.iter().flat_map(|policy| &policy.chains);
        chains.map(|chain| chain.hook).any(Hook::is_of_switch)
    }

    #[test]
    fn policies_leave_private_and_exempt_destinations_open() {
        let state = state(|_| {});
        assert!(marks(&state));
        let (allow, block): (Vec<&ForwardPolicy>, Vec<&ForwardPolicy>) = state
            .policies
            .iter()
            .partition(|policy| policy.action == PolicyAction::Allow);
        let to = |net: &str| net.parse::<IpNet>().unwrap();
        for net in ["10.0.0.0/8", "192.168.0.0/16", "198.18.0.0/15"] {
            let open = allow.iter().any(|policy| policy.destination == to(net));
            assert!(open, "{net}");
        }
        let block: Vec<String> = block.iter().map(ToString::to_string).collect();
        assert_eq!(block, ["src 10.0.0.0/16 dst 0.0.0.0/0"]);
    }

    #[test]
    fn kernel_without_policies_is_named_and_gets_no_marks() {
        let state = state(|inputs| inputs.no_switch.ipv4 = Some("no IPsec".to_owned()));
        assert!(state.policies.is_empty() && !marks(&state));
        assert!(state.notes.iter().any(|note| note.ends_with("no IPsec")));
        assert!(state.degraded.is_empty(), "{:?}", state.degraded);
    }

    #[test]
    fn family_without_a_firewall_gets_no_policies() {
        let state = state(|inputs| inputs.unfiltered.ipv4 = Some("refused".to_owned()));
        assert!(state.policies.is_empty() && !marks(&state));
    }
}
