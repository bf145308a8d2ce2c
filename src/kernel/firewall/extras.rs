//! Policies on kernels without a match for sockets, and with tools without random ports.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::FirewallError;
use crate::firewall::Ruleset;

/// Remembers for the life of the process what a backend's kernel or tool lacks. No other rule needs
/// these parts, and the policy works without them.
#[derive(Debug)]
pub(super) struct Extras {
    /// The match for sockets (`nft_socket`, `xt_socket`).
    lacks_sockets: AtomicBool,
    /// Random ports (`fully-random`, `--random-fully`).
    lacks_random_ports: AtomicBool,
}

impl Extras {
    pub(super) const fn new() -> Self {
        Extras {
            lacks_sockets: AtomicBool::new(false),
            lacks_random_ports: AtomicBool::new(false),
        }
    }

    /// The policy that the kernel can have.
    pub(super) fn usable<'r>(&self, ruleset: &'r Ruleset) -> Cow<'r, Ruleset> {
        let without = [&self.lacks_random_ports, &self.lacks_sockets];
        fewer(ruleset, without.map(|lacks| lacks.load(Ordering::Relaxed)))
    }

    /// Installs or rehearses a policy; after a refusal once more without one of the extra parts, or both.
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
        let mut refused = vec![usable.clone()];
        for without in [[true, false], [false, true], [true, true]] {
            let fewer = fewer(&usable, without);
            if refused.contains(&fewer) {
                continue;
            }
            if replace(&fewer).is_err() {
                refused.push(fewer);
                continue;
            }
            // A refusal that has passed concerns no part.
            if replace(&usable).is_ok() {
                return Ok(());
            }
            let [ports, sockets] = without;
            self.lacks_random_ports.fetch_or(ports, Ordering::Relaxed);
            self.lacks_sockets.fetch_or(sockets, Ordering::Relaxed);
            return Ok(());
        }
        // Another reason for the refusal refuses the other policies too.
        Err(error)
    }
}

/// The policy without random ports, without rules for sockets, or without both.
fn fewer(ruleset: &Ruleset, [ports, sockets]: [bool; 2]) -> Cow<'_, Ruleset> {
    let mut policy = Cow::Borrowed(ruleset);
    if ports {
        policy = Cow::Owned(policy.without_random_ports());
    }
    if sockets {
        policy = Cow::Owned(policy.without_sockets());
    }
    policy
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::{BackendKind, Chain, FwRule, Hook, Match, Ports, Statement};

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
        let extras = Extras::new();
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

    #[test]
    fn tool_without_random_ports_gets_a_translation_that_keeps_ports() {
        let policy = translation();
        let extras = Extras::new();
        let lacking = |tried: &Ruleset| {
            if *tried == policy { refusal() } else { Ok(()) }
        };
        assert!(extras.install(&policy, lacking).is_ok());
        assert_eq!(*extras.usable(&policy), policy.without_random_ports());
    }

    #[test]
    fn passing_refusal_costs_no_random_ports() {
        let policy = translation();
        let extras = Extras::new();
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
