//! Policies on kernels without a match for sockets.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::FirewallError;
use crate::firewall::Ruleset;

/// Remembers for the life of the process that a backend's kernel lacks the match (`nft_socket`,
/// `xt_socket`). Such rules are then left out: no other rule needs them.
#[derive(Debug)]
pub(super) struct Extras(AtomicBool);

impl Extras {
    pub(super) const fn new() -> Self {
        Extras(AtomicBool::new(false))
    }

    /// The policy that the kernel can have.
    pub(super) fn usable<'r>(&self, ruleset: &'r Ruleset) -> Cow<'r, Ruleset> {
        if self.0.load(Ordering::Relaxed) {
            Cow::Owned(ruleset.without_extras())
        } else {
            Cow::Borrowed(ruleset)
        }
    }

    /// Installs a policy; after a refusal once more without the extra rules.
    pub(super) fn install(
        &self,
        ruleset: &Ruleset,
        mut replace: impl FnMut(&Ruleset) -> Result<(), FirewallError>,
    ) -> Result<(), FirewallError> {
        let usable = self.usable(ruleset);
        let Err(error) = replace(&usable) else {
            return Ok(());
        };
        let fewer = usable.without_extras();
        if !matches!(error, FirewallError::Refused { .. }) || fewer == *usable {
            return Err(error);
        }
        // Another reason for the refusal refuses the second policy too.
        if replace(&fewer).is_err() {
            return Err(error);
        }
        self.0.store(true, Ordering::Relaxed);
        Ok(())
    }
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
        let refusal = || {
            Err(FirewallError::Refused {
                backend: BackendKind::Nftables,
                operation: String::new(),
                reason: String::new(),
                errno: None,
            })
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
        assert_eq!(*extras.usable(&policy), policy.without_extras());
    }
}
