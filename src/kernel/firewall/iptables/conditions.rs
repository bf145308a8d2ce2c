//! A rule's conditions, gathered so that they fit the words of iptables: one `-s`, `-d`, `-i`
//! and `-o` a rule, no lists. Pure.

use std::net::Ipv6Addr;

use ipnet::IpNet;

use crate::firewall::{FwRule, Hook, Match, Verdict};
use crate::types::{Family, Mark, Realm};

/// A name or prefix that must hold, and those that must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side<T> {
    /// One of these must hold; `None` asks nothing.
    pub any_of: Option<Vec<T>>,
    /// None of these may hold.
    pub none_of: Vec<T>,
}

impl<T> Default for Side<T> {
    fn default() -> Self {
        Side {
            any_of: None,
            none_of: Vec::new(),
        }
    }
}

impl<T: Clone + PartialEq> Side<T> {
    /// One more list of which one must hold; `both` gives what satisfies both of two.
    fn restrict(&mut self, list: Vec<T>, both: impl Fn(&T, &T) -> Option<T>) {
        let restricted = match &self.any_of {
            None => list,
            Some(earlier) => earlier
                .iter()
                .flat_map(|a| list.iter().filter_map(|b| both(a, b)))
                .collect(),
        };
        self.any_of = Some(restricted);
    }

    fn exclude(&mut self, value: T) {
        if !self.none_of.contains(&value) {
            self.none_of.push(value);
        }
    }
}

/// All conditions of one rule for one family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conditions {
    /// Source prefixes.
    pub source: Side<IpNet>,
    /// Destination prefixes.
    pub destination: Side<IpNet>,
    /// Incoming interface.
    pub input: Side<String>,
    /// Outgoing interface.
    pub output: Side<String>,
    /// What needs no gathering: `-m ...`, in iptables words.
    pub matches: Vec<String>,
    /// What must not hold, in iptables words.
    pub exclusions: Vec<String>,
}

/// Why a rule has no conditions to render.
#[derive(Debug, PartialEq, Eq)]
pub enum Nothing {
    /// It speaks of the other family, or of nothing that can ever be: no rule is needed.
    NeverMatches,
    /// iptables has no words for it.
    Inexpressible(String),
}

fn inexpressible<T>(what: impl Into<String>) -> Result<T, Nothing> {
    Err(Nothing::Inexpressible(what.into()))
}

/// Gathers the conditions of `rule` at `hook` for `family`.
///
/// A rule without a family speaks of the families of the addresses that it names; a list speaks
/// of the families that are in it.
pub fn gather(rule: &FwRule, hook: Hook, family: Family) -> Result<Conditions, Nothing> {
    if rule.family.is_some_and(|of_rule| of_rule != family) {
        return Err(Nothing::NeverMatches);
    }
    if let Verdict::Snat(address) = &rule.verdict {
        same_family(rule, Family::of(*address), family)?;
    }
    let mut all = Conditions::default();
    let mut new_flow = false;
    let mut not_tracked = false;
    let mut mark: Option<Mark> = None;
    let mut realm: Option<Realm> = None;
    for condition in &rule.matches {
        match condition {
            Match::NotInputInterface(name) => all.input.exclude(input(name, hook)?),
            Match::OutputInterface(name) => {
                all.output.restrict(vec![output(name, hook)?], same_name);
            }
            Match::Source(prefix) => {
                same_family(rule, Family::of_net(prefix), family)?;
                all.source.restrict(vec![prefix.trunc()], narrower);
            }
            Match::NotSource(prefix) => {
                same_family(rule, Family::of_net(prefix), family)?;
                all.source.exclude(prefix.trunc());
            }
            Match::DestinationAnyOf(prefixes) => {
                let list = of_family(rule, prefixes, family)?;
                all.destination.restrict(list, narrower);
            }
            Match::DestinationNoneOf(prefixes) => {
                for prefix in of_family(rule, prefixes, family)? {
                    all.destination.exclude(prefix);
                }
            }
            Match::DestinationIsLocal => all.add("-m addrtype --dst-type LOCAL".to_owned()),
            Match::SourceNotLocal => all.add("-m addrtype ! --src-type LOCAL".to_owned()),
            Match::NewFlow => {
                new_flow = true;
                all.add("-m conntrack --ctstate NEW".to_owned());
            }
            Match::OriginalDirection => all.add("-m conntrack --ctdir ORIGINAL".to_owned()),
            Match::ReplyDirection => all.add("-m conntrack --ctdir REPLY".to_owned()),
            Match::NotTracked => {
                not_tracked = true;
                all.add("-m conntrack --ctstate INVALID,UNTRACKED".to_owned());
            }
            Match::FlowMark(more) => mark = Some(both_marks(mark, checked(*more)?)?),
            Match::PacketMark(mark) => {
                all.add(format!("-m mark --mark {}", checked(*mark)?));
            }
            Match::Realm(more) => {
                if realm.is_some_and(|earlier| earlier != *more) {
                    return Err(Nothing::NeverMatches);
                }
                realm = Some(*more);
            }
            Match::NotRealm(other) => all.add(in_realm(rule, *other, "! ", hook, family)?),
            Match::NextHop(address) | Match::NotNextHop(address) => {
                return inexpressible(format!(
                    "the condition on the next hop {address}: it can't ask the routing decision for it"
                ));
            }
            Match::SourceBucket {
                bucket,
                buckets,
                seed,
            } => {
                if !(2..=32).contains(buckets) || bucket >= buckets {
                    return inexpressible(format!(
                        "bucket {bucket} of {buckets} (2 to 32 are possible)"
                    ));
                }
                match family {
                    Family::Ipv4 => all.add(cluster(*bucket, *buckets, *seed)),
                    Family::Ipv6 => all
                        .exclusions
                        .extend(other_buckets(*bucket, *buckets, *seed)),
                }
            }
        }
    }
    if new_flow && not_tracked {
        return Err(Nothing::NeverMatches);
    }
    if let Some(mark) = mark {
        all.add(format!("-m connmark --mark {mark}"));
    }
    if let Some(realm) = realm {
        all.add(in_realm(rule, realm, "", hook, family)?);
    }
    all.settle()
}

/// The condition on the realm in iptables words; `not` is empty or `! `.
fn in_realm(
    rule: &FwRule,
    realm: Realm,
    not: &str,
    hook: Hook,
    family: Family,
) -> Result<String, Nothing> {
    same_family(rule, Family::Ipv4, family)?;
    if hook == Hook::Prerouting {
        // xt_realm is registered for INPUT, FORWARD, OUTPUT and POSTROUTING only
        // (net/netfilter/xt_realm.c): before the routing decision there is no realm.
        return inexpressible(format!("the condition on realm {realm} before routing"));
    }
    // The lower half is the destination's realm, the upper the source's.
    Ok(format!("-m realm {not}--realm {:#x}/0xffff", realm.0))
}

impl Conditions {
    fn add(&mut self, words: String) {
        if !self.matches.contains(&words) {
            self.matches.push(words);
        }
    }

    /// Drops what is implied, and notices what can't be.
    fn settle(mut self) -> Result<Conditions, Nothing> {
        for side in [&mut self.source, &mut self.destination] {
            // iptables-save leaves `-s 0.0.0.0/0` out: it asks nothing.
            let everything = |prefix: &IpNet| prefix.prefix_len() == 0;
            if side.none_of.iter().any(everything) {
                return Err(Nothing::NeverMatches);
            }
            if side.any_of.iter().flatten().any(everything) {
                side.any_of = None;
            }
        }
        let inside = |inner: &IpNet, outer: &IpNet| outer.contains(inner);
        let equal = |a: &String, b: &String| a == b;
        settle_side(&mut self.source, inside, touches)?;
        settle_side(&mut self.destination, inside, touches)?;
        settle_side(&mut self.input, equal, equal)?;
        settle_side(&mut self.output, equal, equal)?;
        Ok(self)
    }
}

fn settle_side<T: Clone + PartialEq>(
    side: &mut Side<T>,
    inside: impl Fn(&T, &T) -> bool,
    touches: impl Fn(&T, &T) -> bool,
) -> Result<(), Nothing> {
    if let Some(any_of) = &mut side.any_of {
        any_of.retain(|value| !side.none_of.iter().any(|out| inside(value, out)));
        if any_of.is_empty() {
            return Err(Nothing::NeverMatches);
        }
        side.none_of
            .retain(|out| any_of.iter().any(|value| touches(value, out)));
    }
    Ok(())
}

fn same_name(a: &String, b: &String) -> Option<String> {
    (a == b).then(|| a.clone())
}

fn narrower(a: &IpNet, b: &IpNet) -> Option<IpNet> {
    if a.contains(b) {
        Some(*b)
    } else {
        b.contains(a).then_some(*a)
    }
}

fn touches(a: &IpNet, b: &IpNet) -> bool {
    narrower(a, b).is_some()
}

fn same_family(rule: &FwRule, named: Family, family: Family) -> Result<(), Nothing> {
    match rule.family {
        _ if named == family => Ok(()),
        None => Err(Nothing::NeverMatches),
        Some(_) => inexpressible(format!(
            "a rule for {family} that names something of {named}"
        )),
    }
}

fn of_family(rule: &FwRule, list: &[IpNet], family: Family) -> Result<Vec<IpNet>, Nothing> {
    let own: Vec<IpNet> = list
        .iter()
        .filter(|prefix| Family::of_net(prefix) == family)
        .map(IpNet::trunc)
        .collect();
    if own.is_empty() && !list.is_empty() && rule.family.is_none() {
        return Err(Nothing::NeverMatches);
    }
    Ok(own)
}

fn input(name: &str, hook: Hook) -> Result<String, Nothing> {
    if hook == Hook::OutputReroute {
        return inexpressible(format!(
            "the incoming interface {name} of a packet of this host"
        ));
    }
    interface(name)
}

fn output(name: &str, hook: Hook) -> Result<String, Nothing> {
    if hook == Hook::Prerouting {
        return inexpressible(format!("the outgoing interface {name} before routing"));
    }
    interface(name)
}

/// To iptables a `+` at the end means every name that begins so. Names are at most 15 bytes
/// (`IFNAMSIZ`, linux/if.h), and iptables-save prints them without quotes.
fn interface(name: &str) -> Result<String, Nothing> {
    let usual = |c: char| c.is_ascii_alphanumeric() || "_.:@-".contains(c);
    let fits = (1..=15).contains(&name.len())
        && name.chars().all(usual)
        && !name.starts_with(['-', ':', '@']);
    if fits {
        Ok(name.to_owned())
    } else {
        inexpressible(format!("an interface named {name:?}"))
    }
}

/// Checks that a mark has no bit outside its mask: iptables would set or ask for it all the same.
pub fn checked(mark: Mark) -> Result<Mark, Nothing> {
    if mark.value & !mark.mask == 0 {
        Ok(mark)
    } else {
        inexpressible(format!("mark {mark}: bits outside its mask"))
    }
}

fn both_marks(earlier: Option<Mark>, more: Mark) -> Result<Mark, Nothing> {
    let Some(earlier) = earlier else {
        return Ok(more);
    };
    if (earlier.value ^ more.value) & earlier.mask & more.mask != 0 {
        return Err(Nothing::NeverMatches);
    }
    Ok(Mark {
        value: earlier.value | more.value,
        mask: earlier.mask | more.mask,
    })
}

/// xt_cluster hashes the source address of the flow's first direction with a fixed seed and knows
/// at most 32 nodes (`XT_CLUSTER_NODES_MAX`, linux/netfilter/xt_cluster.h). It reads conntrack
/// only; the multicast MAC address of its man page concerns clusters that share one address.
fn cluster(bucket: u32, buckets: u32, seed: u32) -> String {
    format!(
        "-m cluster --cluster-total-nodes {buckets} --cluster-local-node {} --cluster-hash-seed {seed:#x}",
        bucket + 1
    )
}

/// The IPv6 sources of all other buckets. Not by xt_cluster: it hashes but the first 32 bits of an
/// IPv6 address (`jhash2(ip, NF_CT_TUPLE_L3SIZE / sizeof(__u32), ...)` counts one word, seen with
/// kernel 6.18), so that a whole provider's network falls into one bucket. The last bits of the
/// address tell hosts apart: as many as the buckets need, or all five that 32 buckets would,
/// where the buckets don't divide evenly.
fn other_buckets(bucket: u32, buckets: u32, seed: u32) -> Vec<String> {
    let mask = if buckets.is_power_of_two() {
        buckets - 1
    } else {
        31
    };
    let last_bits = |bits: u32| Ipv6Addr::from(u128::from(bits));
    (0..=mask)
        .filter(|class| (class ^ (seed & mask)) % buckets != bucket)
        .map(|class| format!("-s {}/{}", last_bits(class), last_bits(mask)))
        .collect()
}
