//! Matches and targets of xtables, which iptables-nft embeds in its rules.

use std::net::IpAddr;

use crate::judge::chain::{Condition, Field, Test};
use crate::kernel::firewall::nftables::register;
use crate::kernel::firewall::nftables::uapi::{NFPROTO_IPV4, NFPROTO_IPV6};

/// The state condition of `xt_conntrack` (`struct xt_conntrack_mtinfo2` and `3`,
/// linux/netfilter/xt_conntrack.h; `state` is an alias of it).
pub(super) fn flow_state(info: &[u8], revision: u32) -> Condition {
    /// `XT_CONNTRACK_STATE`.
    const STATE: u16 = 1;
    const MATCH_FLAGS: usize = 146;
    let at = |offset: usize| {
        info.get(offset..offset + 2)
            .map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]))
    };
    let (flags, inverted) = (at(MATCH_FLAGS), at(MATCH_FLAGS + 2));
    let states = match revision {
        2 | 3 => at(MATCH_FLAGS + 4),
        _ => info.get(MATCH_FLAGS + 4).copied().map(u16::from),
    };
    match (flags, inverted, states) {
        (Some(STATE), Some(inverted), Some(states)) => Condition {
            field: Field::FlowState,
            mask: u32::from(states).to_ne_bytes().into(),
            test: Test::Equals(vec![0; 4]),
            negated: inverted & STATE == 0,
        },
        _ => Condition::unknown(),
    }
}

/// The first address of a translation's range (`struct nf_nat_range`; revision 0:
/// `struct nf_nat_ipv4_multi_range_compat`, linux/netfilter/nf_nat.h).
pub(super) fn range_start(info: &[u8], revision: u32, family: u8) -> Option<IpAddr> {
    let offset = if revision == 0 && family == NFPROTO_IPV4 {
        8
    } else {
        4
    };
    let length = if family == NFPROTO_IPV6 { 16 } else { 4 };
    register::address(info.get(offset..offset + length)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conntrack_states_of_xtables_are_read() {
        let mut info = vec![0; 160];
        info[146..148].copy_from_slice(&1u16.to_ne_bytes());
        info[150..152].copy_from_slice(&6u16.to_ne_bytes());
        let condition = flow_state(&info, 3);
        assert_eq!(condition.field, Field::FlowState);
        assert_eq!(condition.mask, 6u32.to_ne_bytes());
        assert!(condition.negated);
        info[146] = 3;
        assert_eq!(flow_state(&info, 3), Condition::unknown());
        assert_eq!(flow_state(&[], 3), Condition::unknown());
    }
}
