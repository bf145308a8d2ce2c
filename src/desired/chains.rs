//! NAT role: the rules of the firewall policy, by chain.

use super::{Inputs, counting::Counting};
use crate::firewall::{BackendKind, Chain, FwRule, Hook, Match, Ruleset, Statement};

/// The rules of all families, by chain.
#[derive(Default)]
pub(super) struct Chains {
    pub(super) prerouting: Vec<FwRule>,
    pub(super) mark: Vec<FwRule>,
    pub(super) unmark: Vec<FwRule>,
    pub(super) forward: Vec<FwRule>,
    pub(super) nat: Vec<FwRule>,
    pub(super) guard: Vec<FwRule>,
    pub(super) last: Vec<FwRule>,
    pub(super) counting: Counting,
}

/// The nat chain without rules. Without any nat chain of nf_tables the kernel translates no flow, also
/// none of those from before. iptables has a nat chain of its own.
pub(super) fn keeps_flows(backend: BackendKind) -> Option<Chain> {
    (backend == BackendKind::Nftables).then_some(Chain {
        hook: Hook::PostroutingNat,
        rules: Vec::new(),
    })
}

impl Chains {
    pub(super) fn into_ruleset(mut self, inputs: &Inputs) -> Ruleset {
        let inbound = inputs.config.kernel.path_mask.inbound();
        self.prerouting.push(FwRule {
            family: None,
            matches: vec![Match::FlowMark(inbound)],
            verdict: Statement::RestoreMark {
                mask: inputs.config.kernel.path_mask.packet().mask,
            },
        });
        // While the egress path is closed, packets of flows from before would leave with a private
        // source.
        let keeps_flows = keeps_flows(inputs.backend).is_some() && !self.guard.is_empty();
        let is_kept = |hook: Hook, rules: &[FwRule]| {
            !rules.is_empty() || hook == Hook::PostroutingNat && keeps_flows
        };
        let chains = [
            (Hook::Prerouting, self.prerouting),
            (Hook::PreroutingMark, self.mark),
            (Hook::ForwardUnmark, self.unmark),
            (Hook::Forward, self.forward),
            (Hook::PostroutingNat, self.nat),
            (Hook::PostroutingGuard, self.guard),
            (Hook::PostroutingLast, self.last),
        ];
        let mut policy = Ruleset {
            chains: chains
                .into_iter()
                .filter(|(hook, rules)| is_kept(*hook, rules))
                .map(|(hook, rules)| Chain { hook, rules })
                .collect(),
        };
        self.counting.complete(inputs.backend, &mut policy);
        if inputs.config.nat.random_ports {
            policy
        } else {
            policy.without_random_ports()
        }
    }
}
