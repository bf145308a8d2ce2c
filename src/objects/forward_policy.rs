//! Policies of the kernel's IPsec for forwarded packets (`ip xfrm policy`, direction `fwd`).

use std::fmt;

use ipnet::IpNet;

use crate::types::{Family, Mark};

/// The verdict of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyAction {
    Allow,
    Block,
}

words!(PolicyAction { Allow => "allow", Block => "block" });

impl PolicyAction {
    /// The priority of our policies, the mark of ownership: a policy has no field for an owner. The
    /// lowest number wins. The numbers of IPsec programs stay below 2^22 (libreswan at most 0x1fffff,
    /// strongSwan below 400,000), so that a policy of IPsec precedes ours. The high half is `TB` in
    /// ASCII.
    pub fn priority(self) -> u32 {
        match self {
            PolicyAction::Allow => 0x5442_0001,
            PolicyAction::Block => 0x5442_0002,
        }
    }
}

/// A policy of ours: forwarded packets of `source` to `destination` without any mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ForwardPolicy {
    pub action: PolicyAction,
    pub source: IpNet,
    pub destination: IpNet,
}

impl ForwardPolicy {
    /// The mark of the packets that a policy of ours applies to: none at all.
    pub const MARK: Mark = Mark {
        value: 0,
        mask: u32::MAX,
    };

    /// The address family.
    pub fn family(&self) -> Family {
        Family::of_net(&self.source)
    }
}

/// `src 10.0.0.0/16 dst 10.0.0.0/8`, as `ip xfrm policy` prints.
impl fmt::Display for ForwardPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src {} dst {}", self.source, self.destination)
    }
}
