//! Shares source hosts out among several egress addresses.
//!
//! The firewall hashes the source address to one of a fixed number of slots, and each slot belongs
//! to the address with the highest score for it (rendezvous hashing). A score depends on nothing
//! but the address and the slot: an address that goes gives its slots to the others, an address
//! that comes gets slots of each, and no host changes between two addresses that stay.

use std::net::IpAddr;

use crate::firewall::BackendKind;

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

/// The slots of each address. Few slots for many addresses would leave some addresses without any,
/// so that no address then gets more than about its share.
pub fn share_out(addresses: &[IpAddr], slots: u32) -> Vec<(IpAddr, Vec<u32>)> {
    let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let fair = slots / count;
    // The first round gives everybody at most the fair share, the second deals out the rest.
    let rounds = if fair >= 8 {
        vec![slots]
    } else {
        vec![fair, fair + 1]
    };
    let mut scores: Vec<(u64, u32, usize)> = (0..slots)
        .flat_map(|slot| {
            let score =
                move |(index, address): (usize, &IpAddr)| (score(*address, slot), slot, index);
            addresses.iter().enumerate().map(score)
        })
        .collect();
    scores.sort_unstable_by(|a, b| b.cmp(a));
    let mut owned: Vec<Vec<u32>> = vec![Vec::new(); addresses.len()];
    let mut taken = vec![false; slots as usize];
    for most in rounds {
        for (_, slot, index) in &scores {
            let taken = &mut taken[*slot as usize];
            if !*taken && owned[*index].len() < most as usize {
                owned[*index].push(*slot);
                *taken = true;
            }
        }
    }
    for slots in &mut owned {
        slots.sort_unstable();
    }
    addresses.iter().copied().zip(owned).collect()
}

/// The egress address of a source host; `None` without addresses.
pub fn address_of(host: IpAddr, addresses: &[IpAddr], backend: BackendKind) -> Option<IpAddr> {
    let slots = slots(backend);
    let slot = slot_of(host, backend, slots);
    let mut shares = share_out(addresses, slots).into_iter();
    shares.find_map(|(address, slots)| slots.contains(&slot).then_some(address))
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

    fn owners(addresses: &[IpAddr], slots: u32) -> Vec<IpAddr> {
        let shares = share_out(addresses, slots);
        let owner = |slot| {
            let mut of = shares.iter().filter(|(_, slots)| slots.contains(&slot));
            let (address, _) = of.next().unwrap();
            assert!(of.next().is_none(), "one owner");
            *address
        };
        (0..slots).map(owner).collect()
    }

    #[test]
    fn nobody_moves_between_addresses_that_stay() {
        for slots in [FEW, MANY] {
            for replaced in 20..24 {
                let before = addresses(20..24);
                let after = addresses((20..24).map(|n| if n == replaced { 77 } else { n }));
                let (gone, new) = (addresses([replaced])[0], addresses([77])[0]);
                let pairs = owners(&before, slots)
                    .into_iter()
                    .zip(owners(&after, slots));
                for (old, now) in pairs {
                    assert!(old == now || old == gone || now == new, "{old} to {now}");
                }
                // An address that only goes moves its own share and no other.
                let fewer: Vec<IpAddr> = before.iter().copied().filter(|a| *a != gone).collect();
                let pairs = owners(&before, slots)
                    .into_iter()
                    .zip(owners(&fewer, slots));
                let moved: Vec<IpAddr> =
                    pairs.filter(|(old, now)| old != now).map(|p| p.0).collect();
                assert!(moved.iter().all(|old| *old == gone));
            }
        }
    }

    #[test]
    fn the_order_of_the_addresses_has_no_meaning() {
        let mut reversed = addresses(20..26);
        reversed.reverse();
        assert_eq!(owners(&addresses(20..26), MANY), owners(&reversed, MANY));
    }

    #[test]
    fn every_address_has_a_share() {
        for slots in [FEW, MANY] {
            for count in 2..=32 {
                let fair = slots as usize / usize::from(count);
                for (address, slots) in share_out(&addresses(100..100 + count), slots) {
                    let near = (fair / 8).max(1)..=fair * 2 + 1;
                    assert!(
                        near.contains(&slots.len()),
                        "{address}: {} of {fair}",
                        slots.len()
                    );
                }
            }
        }
    }
}
