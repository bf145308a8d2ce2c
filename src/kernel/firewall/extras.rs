//! Policies on kernels and with tools that lack parts without which the policy works: a match for
//! sockets, random ports, and traces of dropped packets.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU8, Ordering};

use super::error::FirewallError;
use crate::firewall::{Ruleset, Traces};

/// A part that no other rule needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extra {
    /// Random ports (`fully-random`, `--random-fully`).
    RandomPorts,
    /// The match for sockets (`nft_socket`, `xt_socket`).
    Sockets,
    /// The list of dropped packets (sets that rules change).
    Record,
    /// Dropped packets in the kernel's log (`nft_log`, `nft_limit`).
    Log,
}

impl Extra {
    /// The most important part first.
    pub(super) const ALL: [Extra; 4] = [
        Extra::RandomPorts,
        Extra::Sockets,
        Extra::Record,
        Extra::Log,
    ];
    /// iptables has no chain that records.
    pub(super) const OF_IPTABLES: [Extra; 2] = [Extra::RandomPorts, Extra::Sockets];

    fn bit(self) -> u8 {
        1 << self as u8
    }

    fn left_out(self, policy: &Ruleset) -> Ruleset {
        let traces = |log, record| policy.with_traces(Traces { log, record });
        match self {
            Extra::RandomPorts => policy.without_random_ports(),
            Extra::Sockets => policy.without_sockets(),
            Extra::Record => traces(true, false),
            Extra::Log => traces(false, true),
        }
    }
}

/// Remembers for the life of the process the parts that a backend's kernel or tool lacks.
#[derive(Debug)]
pub(super) struct Extras {
    known: &'static [Extra],
    /// The parts that are lacking, as bits.
    lacks: AtomicU8,
}

impl Extras {
    pub(super) const fn new(known: &'static [Extra]) -> Self {
        Extras {
            known,
            lacks: AtomicU8::new(0),
        }
    }

    /// The policy that the kernel can have.
    pub(super) fn usable<'r>(&self, ruleset: &'r Ruleset) -> Cow<'r, Ruleset> {
        self.without(ruleset, self.lacks.load(Ordering::Relaxed))
    }

    fn without<'r>(&self, ruleset: &'r Ruleset, lacking: u8) -> Cow<'r, Ruleset> {
        let lacking = self.known.iter().filter(|it| lacking & it.bit() != 0);
        lacking.fold(Cow::Borrowed(ruleset), |policy, extra| {
            Cow::Owned(extra.left_out(&policy))
        })
    }

    /// Installs or rehearses a policy; after a refusal the largest part of the policy that is accepted.
    /// The last accepted policy is the one in force.
    pub(super) fn install(
        &self,
        ruleset: &Ruleset,
        mut replace: impl FnMut(&Ruleset) -> Result<(), FirewallError>,
    ) -> Result<(), FirewallError> {
        let usable = self.usable(ruleset);
        let Err(error) = replace(&usable) else {
            return Ok(());
        };
        if !matches!(error, FirewallError::Refused { .. }) {
            return Err(error);
        }
        let parts = self.known.iter().copied();
        let parts: Vec<Extra> = parts
            .filter(|extra| extra.left_out(&usable) != *usable)
            .collect();
        let mut lacking = parts.iter().fold(0, |bits, extra| bits | extra.bit());
        // A refusal of the bare policy has another reason, which no part can mend.
        if lacking == 0 || replace(&self.without(&usable, lacking)).is_err() {
            return Err(error);
        }
        for extra in parts {
            let fewer = lacking & !extra.bit();
            if replace(&self.without(&usable, fewer)).is_ok() {
                lacking = fewer;
            }
        }
        self.lacks.fetch_or(lacking, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::{BackendKind, Chain, DropReason, FwRule, Hook, Match, Ports, Statement};

    #[test]
    fn a_kernel_without_the_match_gets_the_other_rules() {
        let rule = |condition| FwRule {
            family: None,
            matches: vec![condition],
            verdict: Statement::Accept,
        };
        let policy = Ruleset {
            chains: vec![Chain {
                hook: Hook::Prerouting,
                rules: vec![
                    rule(Match::UdpWithSocket(Ports::LOCAL)),
                    rule(Match::UdpAnswer(Ports::LOCAL)),
                ],
            }],
        };
        let extras = Extras::new(&Extra::ALL);
        assert!(extras.install(&policy, |_| refusal()).is_err());
        assert_eq!(
            *extras.usable(&policy),
            policy,
            "refused for another reason"
        );
        let lacking = |tried: &Ruleset| {
            if *tried == policy { refusal() } else { Ok(()) }
        };
        assert!(extras.install(&policy, lacking).is_ok());
        assert_eq!(*extras.usable(&policy), policy.without_sockets());
    }

    fn translation() -> Ruleset {
        let rule = FwRule {
            family: None,
            matches: Vec::new(),
            verdict: Statement::SnatRandomly("198.51.100.7".parse().unwrap()),
        };
        Ruleset {
            chains: vec![Chain {
                hook: Hook::PostroutingNat,
                rules: vec![rule],
            }],
        }
    }

    fn refusal() -> Result<(), FirewallError> {
        Err(FirewallError::Refused {
            backend: BackendKind::Iptables,
            operation: String::new(),
            reason: String::new(),
            errno: None,
        })
    }

    /// A policy with every part.
    fn everything() -> Ruleset {
        let rule = |matches, verdict| FwRule {
            family: None,
            matches,
            verdict,
        };
        let chain = |hook, rules| Chain { hook, rules };
        let translated = Statement::SnatRandomly("198.51.100.7".parse().unwrap());
        Ruleset {
            chains: vec![
                chain(
                    Hook::Prerouting,
                    vec![
                        rule(vec![Match::UdpWithSocket(Ports::LOCAL)], Statement::Accept),
                        rule(Vec::new(), Statement::Accept),
                    ],
                ),
                chain(Hook::PostroutingNat, vec![rule(Vec::new(), translated)]),
                chain(
                    Hook::PostroutingLast,
                    vec![rule(
                        Vec::new(),
                        Statement::DropCounted(DropReason::Sources),
                    )],
                ),
            ],
        }
    }

    #[test]
    fn exactly_the_lacking_parts_are_left_out() {
        for lacking in 0..1u8 << Extra::ALL.len() {
            let extras = Extras::new(&Extra::ALL);
            let policy = everything();
            let lacks = Extra::ALL.into_iter().filter(|it| lacking & it.bit() != 0);
            let lacks: Vec<Extra> = lacks.collect();
            let mut in_force = Ruleset::default();
            let mut tries = 0;
            let kernel = |tried: &Ruleset| {
                tries += 1;
                if lacks.iter().any(|extra| extra.left_out(tried) != *tried) {
                    return refusal();
                }
                in_force = tried.clone();
                Ok(())
            };
            assert!(extras.install(&policy, kernel).is_ok(), "{lacks:?}");
            let expected = extras.without(&policy, lacking).into_owned();
            assert_eq!(in_force, expected, "{lacks:?}");
            assert_eq!(*extras.usable(&policy), expected, "{lacks:?}");
            assert!(tries <= 2 + Extra::ALL.len(), "{tries}");
            let drops = in_force.chains[2].rules[0].verdict.drops();
            assert_eq!(drops.map(|(reason, _)| reason), Some(DropReason::Sources));
        }
    }

    #[test]
    fn tool_without_random_ports_gets_a_translation_that_keeps_ports() {
        let policy = translation();
        let extras = Extras::new(&Extra::ALL);
        let lacking = |tried: &Ruleset| {
            if *tried == policy { refusal() } else { Ok(()) }
        };
        assert!(extras.install(&policy, lacking).is_ok());
        assert_eq!(*extras.usable(&policy), policy.without_random_ports());
    }

    #[test]
    fn passing_refusal_costs_no_random_ports() {
        let policy = translation();
        let extras = Extras::new(&Extra::ALL);
        let mut tries = 0;
        let passing = |_: &Ruleset| {
            tries += 1;
            if tries == 1 { refusal() } else { Ok(()) }
        };
        assert!(extras.install(&policy, passing).is_ok());
        assert_eq!(*extras.usable(&policy), policy);
        assert_eq!(tries, 3);
    }
}
