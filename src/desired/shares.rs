//! Shares source hosts out among several egress addresses.
//!
//! The firewall hashes the source address to one of a fixed number of slots, and each slot belongs
//! to an address. The owners of the slots are stored, and a change of the configured addresses
//! moves as few slots as possible: an address that goes gives its slots to the poorest others, an
//! address that comes takes slots of nobody first, then of the richest. No host moves between two
//! addresses that stay. Without stored owners each slot belongs to the address with the highest
//! score (rendezvous hashing), up to a fair share. The shares differ by one slot at most.
//!
//! A stateless rule cannot do this: the set of addresses alone does not tell whose place a new
//! address takes, and rendezvous hashing moves 40 % of the hosts when one address of four is
//! replaced.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::firewall::BackendKind;
use crate::types::PerFamily;

/// The seed of the hash from source hosts to slots. The number is arbitrary but fixed: without a
/// seed the kernel draws a new one at each load, and the address of a host would change.
pub(super) const SEED: u32 = 0x5452_4149;

/// The slots with iptables: the most that the match `cluster` knows.
const FEW: u32 = 32;
/// The slots with nftables: the more slots, the closer are the shares of the addresses.
const MANY: u32 = 256;

/// The number of slots.
pub fn slots(backend: BackendKind) -> u32 {
    match backend {
        BackendKind::Nftables => MANY,
        BackendKind::Iptables => FEW,
    }
}

/// The owner of each slot, by family; empty with fewer than two addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Shares(pub PerFamily<Vec<IpAddr>>);

/// The owner of each slot for these addresses, with the fewest changes to the owners `before`.
pub fn deal(before: &[IpAddr], addresses: &[IpAddr], slots: u32) -> Vec<IpAddr> {
    let mut addresses = addresses.to_vec();
    addresses.sort_unstable();
    addresses.dedup();
    let stays = |owner: &IpAddr| addresses.contains(owner);
    let fits = before.len() == slots as usize && before.iter().any(stays);
    if !fits {
        return by_score(&addresses, slots);
    }
    let mut owners: Vec<Option<IpAddr>> = before
        .iter()
        .map(|owner| Some(*owner).filter(stays))
        .collect();
    let held = |owners: &[Option<IpAddr>], address: IpAddr| {
        owners
            .iter()
            .filter(|owner| **owner == Some(address))
            .count()
    };
    for slot in 0..owners.len() {
        if owners[slot].is_none() {
            let poorest = addresses
                .iter()
                .min_by_key(|address| held(&owners, **address));
            owners[slot] = poorest.copied();
        }
    }
    let new = addresses.iter().filter(|address| !before.contains(address));
    for new in new {
        while let Some(richest) = addresses
            .iter()
            .max_by_key(|address| held(&owners, **address))
            && held(&owners, *richest) > held(&owners, *new) + 1
            && let Some(slot) = owners
                .iter()
                .position(|owner| owner.as_ref() == Some(richest))
        {
            owners[slot] = Some(*new);
        }
    }
    owners.into_iter().flatten().collect()
}

/// The owners by score alone. The first round gives each address at most its fair share, the
/// second one deals out the rest.
fn by_score(addresses: &[IpAddr], slots: u32) -> Vec<IpAddr> {
    let Some(first) = addresses.first() else {
        return Vec::new();
    };
    let fair = slots as usize / addresses.len();
    let mut scores: Vec<(u64, u32, IpAddr)> = (0..slots)
        .flat_map(|slot| {
            addresses
                .iter()
                .map(move |address| (score(*address, slot), slot, *address))
        })
        .collect();
    scores.sort_unstable_by(|a, b| b.cmp(a));
    let mut owners: Vec<Option<IpAddr>> = vec![None; slots as usize];
    for most in [fair, fair + 1] {
        for (_, slot, address) in &scores {
            let held = owners
                .iter()
                .filter(|owner| **owner == Some(*address))
                .count();
            let owner = &mut owners[*slot as usize];
            if owner.is_none() && held < most {
                *owner = Some(*address);
            }
        }
    }
    owners
        .into_iter()
        .map(|owner| owner.unwrap_or(*first))
        .collect()
}

/// The slots of each address.
pub fn slots_of(owners: &[IpAddr]) -> Vec<(IpAddr, Vec<u32>)> {
    let mut addresses = owners.to_vec();
    addresses.sort_unstable();
    addresses.dedup();
    let slots = |address: IpAddr| -> Vec<u32> {
        let all = (0..).zip(owners);
        all.filter(|(_, owner)| **owner == address)
            .map(|(slot, _)| slot)
            .collect()
    };
    addresses.into_iter().map(|it| (it, slots(it))).collect()
}

/// The egress address of a source host, by the owners of the slots; `None` without owners.
pub fn owner_of(host: IpAddr, owners: &[IpAddr], backend: BackendKind) -> Option<IpAddr> {
    let slot = slot_of(host, backend, slots(backend));
    owners.get(slot as usize).copied()
}

/// The egress address of a source host on a machine without stored owners.
pub fn address_of(host: IpAddr, addresses: &[IpAddr], backend: BackendKind) -> Option<IpAddr> {
    owner_of(host, &deal(&[], addresses, slots(backend)), backend)
}

/// The slot of a source host, as the firewall computes it: `jhash` of nftables and the match
/// `cluster` of iptables give the same hash of an IPv4 address. With iptables the last bits of an
/// IPv6 address decide (`kernel::firewall::iptables::conditions`).
fn slot_of(host: IpAddr, backend: BackendKind, slots: u32) -> u32 {
    let scaled = |hash: u32| ((u64::from(hash) * u64::from(slots)) >> 32) as u32;
    match (host, backend) {
        (IpAddr::V4(v4), _) => scaled(jhash(&v4.octets())),
        (IpAddr::V6(v6), BackendKind::Nftables) => scaled(jhash(&v6.octets())),
        (IpAddr::V6(v6), BackendKind::Iptables) => {
            let last = u32::from(v6.segments()[7]);
            (last ^ SEED) & (slots - 1)
        }
    }
}

/// The kernel's hash of 4 or 16 bytes (include/linux/jhash.h) with our seed.
fn jhash(bytes: &[u8]) -> u32 {
    let mut words = bytes.chunks(4).map(|word| {
        let pad = |place: usize| word.get(place).copied().unwrap_or(0);
        u32::from_le_bytes([pad(0), pad(1), pad(2), pad(3)])
    });
    let mut next = || words.next().unwrap_or(0);
    let length = bytes.len() as u32;
    let start = 0xdead_beef_u32.wrapping_add(length).wrapping_add(SEED);
    let (mut a, mut b, mut c) = (start, start, start);
    if length > 12 {
        (a, b, c) = (
            a.wrapping_add(next()),
            b.wrapping_add(next()),
            c.wrapping_add(next()),
        );
        for (first, second, third) in [(4, 6, 8), (16, 19, 4)] {
            a = a.wrapping_sub(c) ^ c.rotate_left(first);
            c = c.wrapping_add(b);
            b = b.wrapping_sub(a) ^ a.rotate_left(second);
            a = a.wrapping_add(c);
            c = c.wrapping_sub(b) ^ b.rotate_left(third);
            b = b.wrapping_add(a);
        }
    }
    a = a.wrapping_add(next());
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

/// FNV-1a over the address, then the finalizer of SplitMix64 with the slot.
fn score(address: IpAddr, slot: u32) -> u64 {
    let bytes = match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    finalize(finalize(hash).wrapping_add(u64::from(slot).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

fn finalize(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(last: impl IntoIterator<Item = u8>) -> Vec<IpAddr> {
        let address = |last| IpAddr::from([198, 51, 100, last]);
        last.into_iter().map(address).collect()
    }

    fn counts(owners: &[IpAddr]) -> Vec<usize> {
        let slots = slots_of(owners).into_iter();
        slots.map(|(_, slots)| slots.len()).collect()
    }

    fn moved(before: &[IpAddr], after: &[IpAddr]) -> Vec<(IpAddr, IpAddr)> {
        let pairs = before.iter().copied().zip(after.iter().copied());
        pairs.filter(|(old, now)| old != now).collect()
    }

    #[test]
    fn replaced_address_moves_its_own_share_alone() {
        for slots in [FEW, MANY] {
            for replaced in 20..24 {
                let before = deal(&[], &addresses(20..24), slots);
                let kept = (20..24).filter(|last| *last != replaced);
                let (gone, new) = (addresses([replaced])[0], addresses([77])[0]);
                let after = deal(&before, &addresses(kept.clone().chain([77])), slots);
                let moved_now = moved(&before, &after);
                assert_eq!(moved_now.len(), slots as usize / 4);
                assert!(moved_now.iter().all(|pair| *pair == (gone, new)));
                let fewer = deal(&before, &addresses(kept), slots);
                assert!(moved(&before, &fewer).iter().all(|(old, _)| *old == gone));
            }
        }
    }

    #[test]
    fn order_of_the_addresses_has_no_meaning() {
        let mut reversed = addresses(20..26);
        reversed.reverse();
        let (one, other) = (addresses(20..26), addresses(30..36));
        assert_eq!(deal(&[], &one, MANY), deal(&[], &reversed, MANY));
        let before = deal(&[], &other, MANY);
        assert_eq!(deal(&before, &one, MANY), deal(&before, &reversed, MANY));
    }

    #[test]
    fn shares_differ_by_one_slot_at_most() {
        for slots in [FEW, MANY] {
            for count in 2..=32 {
                let owners = deal(&[], &addresses(100..100 + count), slots);
                let counts = counts(&owners);
                assert_eq!(counts.len(), usize::from(count));
                let (least, most) = (counts.iter().min(), counts.iter().max());
                assert!(most.unwrap() - least.unwrap() <= 1, "{counts:?}");
            }
        }
    }

    #[test]
    fn owners_for_another_number_of_slots_are_no_guide() {
        let before = deal(&[], &addresses(20..24), FEW);
        let fresh = deal(&[], &addresses(20..24), MANY);
        assert_eq!(deal(&before, &addresses(20..24), MANY), fresh);
        assert!(deal(&before, &[], MANY).is_empty());
    }

    use proptest::prelude::*;

    proptest! {
        /// Any sequence of address lists: nobody moves between addresses that stay, the shares
        /// stay equal, and no more hosts move than the change needs.
        #[test]
        fn changes_move_the_fewest_hosts(
            lists in prop::collection::vec(prop::collection::btree_set(1u8..20, 1..9), 1..12),
            slots in prop_oneof![Just(FEW), Just(MANY)],
        ) {
            let mut owners: Vec<IpAddr> = Vec::new();
            let mut earlier: Vec<IpAddr> = Vec::new();
            for list in lists {
                let now = addresses(list);
                let next = deal(&owners, &now, slots);
                let counts = counts(&next);
                prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
                if !owners.is_empty() && earlier.iter().any(|address| now.contains(address)) {
                    let moved = moved(&owners, &next);
                    for (old, new) in &moved {
                        prop_assert!(!now.contains(old) || !earlier.contains(new));
                    }
                    let share = (slots as usize).div_ceil(earlier.len().min(now.len()));
                    let gone = earlier.iter().filter(|old| !now.contains(old)).count();
                    let came = now.iter().filter(|new| !earlier.contains(new)).count();
                    prop_assert!(moved.len() <= share * gone.max(came));
                }
                (owners, earlier) = (next, now);
            }
        }
    }
}
