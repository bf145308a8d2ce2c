//! Groups the conditions of a rule for iptables, which accepts one `-s` and so on, and no lists. Pure.

use std::net::Ipv6Addr;

use ipnet::IpNet;

use crate::firewall::{FwRule, Hook, Match, Statement};
use crate::types::{Family, Mark, Realm};

/// The allowed and the excluded values of an option such as `-s`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side<T> {
    /// `None`: no restriction.
    pub any_of: Option<Vec<T>>,
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
    /// Restricts the allowed values to `list`; `both` is the intersection of two values.
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
    pub source: Side<IpNet>,
    pub destination: Side<IpNet>,
    pub input: Side<String>,
    pub output: Side<String>,
    /// Further conditions as options: `-m ...`.
    pub matches: Vec<String>,
    /// Conditions of which one must hold, as options; empty for no restriction.
    pub alternatives: Vec<String>,
    /// Conditions to exclude, as options.
    pub exclusions: Vec<String>,
}

/// The reason for a rule without conditions to render.
#[derive(Debug, PartialEq, Eq)]
pub enum Nothing {
    /// The rule is for the other family, or contradicts itself: no rule is needed.
    NeverMatches,
    /// iptables has no equivalent for a condition, which the text names.
    Inexpressible(String),
}

/// The condition without which the kernel refuses the target TCPMSS (`tcpmss_tg4_check`,
/// net/netfilter/xt_TCPMSS.c).
pub const TCP_SYN: &str = "-p tcp -m tcp --tcp-flags SYN,RST SYN";
const NEW_FLOW: &str = "-m conntrack --ctstate NEW";
const NOT_TRACKED: &str = "-m conntrack --ctstate INVALID,UNTRACKED";

fn inexpressible<T>(what: impl Into<String>) -> Result<T, Nothing> {
    Err(Nothing::Inexpressible(what.into()))
}

/// Gathers the conditions of `rule` at `hook` for `family`.
///
/// A rule without an explicit family applies to the families of the addresses in the rule, and a
/// list applies to the families in the list.
pub fn gather(rule: &FwRule, hook: Hook, family: Family) -> Result<Conditions, Nothing> {
    if rule.family.is_some_and(|of_rule| of_rule != family) {
        return Err(Nothing::NeverMatches);
    }
    if let Statement::Snat(address) | Statement::SnatRandomly(address) = &rule.verdict {
        same_family(rule, Family::of(*address), family)?;
    }
    let mut gathering = Gathering {
        rule,
        hook,
        family,
        all: Conditions::default(),
        mark: None,
        realm: None,
    };
    for condition in &rule.matches {
        gathering.add(condition)?;
    }
    gathering.finish()
}

/// The conditions gathered so far. Marks and realms are merged before they become options.
struct Gathering<'a> {
    rule: &'a FwRule,
    hook: Hook,
    family: Family,
    all: Conditions,
    mark: Option<Mark>,
    realm: Option<Realm>,
}

impl Gathering<'_> {
    fn add(&mut self, condition: &Match) -> Result<(), Nothing> {
        let (rule, hook, family) = (self.rule, self.hook, self.family);
        let all = &mut self.all;
        match condition {
            Match::NotInputInterface(name) => all.input.exclude(input(name, hook)?),
            Match::InputInterface(name) => all.input.restrict(vec![input(name, hook)?], same_name),
            Match::TcpSyn => all.add(TCP_SYN),
            Match::Redirect => all.add(redirect(family)),
            Match::TcpAnswer(ports) => all.add(&format!(
                "-p tcp -m tcp --dport {ports} ! --tcp-flags SYN,ACK SYN"
            )),
            Match::TcpAnswerFrom(ports) => all.add(&format!(
                "-p tcp -m tcp --sport {ports} ! --tcp-flags SYN,ACK SYN"
            )),
            Match::UdpAnswer(ports) => {
                all.add(&format!("-p udp -m udp --sport 0:1023 --dport {ports}"));
            }
            // Without --nowildcard the match leaves out sockets that are bound to no address.
            Match::UdpWithSocket(ports) => {
                all.add(&format!("-p udp -m udp --dport {ports} -m socket"));
            }
            Match::OutputInterface(name) => {
                all.output.restrict(vec![output(name, hook)?], same_name)
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
                all.destination
                    .restrict(of_family(rule, prefixes, family)?, narrower);
            }
            Match::DestinationNoneOf(prefixes) => {
                for prefix in of_family(rule, prefixes, family)? {
                    all.destination.exclude(prefix);
                }
            }
            Match::DestinationIsLocal => all.add("-m addrtype --dst-type LOCAL"),
            Match::SourceNotLocal => all.add("-m addrtype ! --src-type LOCAL"),
            Match::NewFlow => all.add(NEW_FLOW),
            Match::Established => all.add("-m conntrack --ctstate ESTABLISHED"),
            Match::OriginalDirection => all.add("-m conntrack --ctdir ORIGINAL"),
            Match::ReplyDirection => all.add("-m conntrack --ctdir REPLY"),
            Match::NotTracked => all.add(NOT_TRACKED),
            Match::FlowMark(more) => self.mark = Some(both_marks(self.mark, checked(*more)?)?),
            Match::PacketMark(mark) => all.add(&format!("-m mark --mark {}", checked(*mark)?)),
            Match::Realm(more) => {
                if self.realm.is_some_and(|earlier| earlier != *more) {
                    return Err(Nothing::NeverMatches);
                }
                self.realm = Some(*more);
            }
            Match::NotRealm(other) => all.add(&in_realm(rule, *other, "! ", hook, family)?),
            Match::NextHop(_)
            | Match::NotNextHop(_)
            | Match::LinkLocalHop
            | Match::OutputIndex(_)
            | Match::DestinationByMark(_)
            | Match::Forwarded
            | Match::OpensFlow => return inexpressible(format!("{condition:?}")),
            Match::SourceSlots { slots, of, seed } => self.add_slots(slots, *of, *seed)?,
        }
        Ok(())
    }

    fn add_slots(&mut self, slots: &[u32], of: u32, seed: u32) -> Result<(), Nothing> {
        let fits = (2..=32).contains(&of) && slots.iter().all(|slot| *slot < of);
        if !fits || slots.is_empty() {
            return inexpressible(format!("slots {slots:?} of {of} (2 to 32 are possible)"));
        }
        match (self.family, slots) {
            (Family::Ipv4, [one]) => self.all.add(&cluster(*one, of, seed)),
            (Family::Ipv4, several) => {
                let nodes = several.iter().map(|slot| cluster(*slot, of, seed));
                self.all.alternatives.extend(nodes);
            }
            (Family::Ipv6, slots) => {
                let others = other_slots(slots, of, seed);
                self.all.exclusions.extend(others);
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Conditions, Nothing> {
        let has = |words: &str| self.all.matches.iter().any(|other| other == words);
        if has(NEW_FLOW) && has(NOT_TRACKED) {
            return Err(Nothing::NeverMatches);
        }
        if let Some(mark) = self.mark {
            self.all.add(&format!("-m connmark --mark {mark}"));
        }
        if let Some(realm) = self.realm {
            let words = in_realm(self.rule, realm, "", self.hook, self.family)?;
            self.all.add(&words);
        }
        self.all.simplified()
    }
}

fn redirect(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "-p icmp -m icmp --icmp-type 5",
        Family::Ipv6 => "-p ipv6-icmp -m icmp6 --icmpv6-type 137",
    }
}

/// The condition on a realm as an option; `not` is empty or `! `.
fn in_realm(
    rule: &FwRule,
    realm: Realm,
    not: &str,
    hook: Hook,
    family: Family,
) -> Result<String, Nothing> {
    same_family(rule, Family::Ipv4, family)?;
    if hook == Hook::Prerouting {
        // The routing decision sets the realm, so xt_realm registers for INPUT, FORWARD, OUTPUT and
        // POSTROUTING only (net/netfilter/xt_realm.c).
        return inexpressible(format!("a condition on realm {realm} before routing"));
    }
    // The lower half is the realm of the destination, the upper half the realm of the source.
    Ok(format!("-m realm {not}--realm {:#x}/0xffff", realm.0))
}

impl Conditions {
    fn add(&mut self, words: &str) {
        if !self.matches.iter().any(|other| other == words) {
            self.matches.push(words.to_owned());
        }
    }

    /// Drops redundant values and detects contradictions.
    fn simplified(mut self) -> Result<Conditions, Nothing> {
        for side in [&mut self.source, &mut self.destination] {
            // iptables-save omits `-s 0.0.0.0/0`, a condition without effect.
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
        simplify_side(&mut self.source, inside, touches)?;
        simplify_side(&mut self.destination, inside, touches)?;
        simplify_side(&mut self.input, equal, equal)?;
        simplify_side(&mut self.output, equal, equal)?;
        Ok(self)
    }
}

fn simplify_side<T: Clone + PartialEq>(
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
        return Some(*b);
    }
    b.contains(a).then_some(*a)
}

fn touches(a: &IpNet, b: &IpNet) -> bool {
    narrower(a, b).is_some()
}

fn same_family(rule: &FwRule, named: Family, family: Family) -> Result<(), Nothing> {
    match rule.family {
        _ if named == family => Ok(()),
        None => Err(Nothing::NeverMatches),
        Some(_) => inexpressible(format!("an {named} address in a rule for {family}")),
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
            "the incoming interface {name} for packets of this host"
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

/// Checks an interface name. iptables treats a trailing `+` as a wildcard, and iptables-save prints
/// names without quotes. Linux limits names to 15 bytes (`IFNAMSIZ`, linux/if.h).
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

/// Refuses a mark with bits outside the mask, which iptables would set or compare anyway.
pub fn checked(mark: Mark) -> Result<Mark, Nothing> {
    if mark.value & !mark.mask != 0 {
        return inexpressible(format!("mark {mark}: bits outside the mask"));
    }
    Ok(mark)
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

/// xt_cluster hashes the source address of the flow's original direction with a fixed seed, for at
/// most 32 nodes (`XT_CLUSTER_NODES_MAX`, linux/netfilter/xt_cluster.h). xt_cluster reads only
/// conntrack: the multicast MAC address in the man page concerns clusters with a shared address.
fn cluster(slot: u32, of: u32, seed: u32) -> String {
    format!(
        "-m cluster --cluster-total-nodes {of} --cluster-local-node {} --cluster-hash-seed {seed:#x}",
        slot + 1
    )
}

/// The IPv6 sources of all other slots, by the last bits of the address.
///
/// xt_cluster hashes only the first 32 bits of an IPv6 address
/// (`jhash2(ip, NF_CT_TUPLE_L3SIZE / sizeof(__u32), ...)` counts one word, observed with kernel
/// 6.18), so that all hosts of a provider's network share one slot. The last bits differ between
/// hosts: log2(`of`) bits for a power of two, else five bits, as for 32 slots.
fn other_slots(slots: &[u32], of: u32, seed: u32) -> Vec<String> {
    let mask = if of.is_power_of_two() { of - 1 } else { 31 };
    let last_bits = |bits: u32| Ipv6Addr::from(u128::from(bits));
    (0..=mask)
        .filter(|class| !slots.contains(&((class ^ (seed & mask)) % of)))
        .map(|class| format!("-s {}/{}", last_bits(class), last_bits(mask)))
        .collect()
}
