//! Encodes the policy as the table desired in the kernel.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::counters::{self, Counted};
use super::expression::{Expressions, not_opening, octets, protocol_of, source_of, syn};
use super::message::{COMMENT, RuleState, comment_userdata};
use super::sets::{destination_set, number_set};
use super::table::{ChainState, SetState, TableState};
use super::traces::{self, Dropped};
use super::uapi::*;
use crate::firewall::{BackendKind, Chain, FwRule, Hook, Match, Ports, Ruleset, Statement, Traces};
use crate::kernel::firewall::error::FirewallError;
use crate::kernel::wire::Attributes;
use crate::types::{Family, Mark, Realm};

/// The first port that needs no privilege (`ip_unprivileged_port_start`): services have those below.
const FIRST_USER_PORT: u16 = 1024;

/// Linux limits interface names to 15 bytes and a NUL (`IFNAMSIZ`, linux/if.h).
const IFNAMSIZ: usize = 16;

pub(super) fn inexpressible(what: String) -> FirewallError {
    FirewallError::Inexpressible {
        backend: BackendKind::Nftables,
        what,
    }
}

pub(super) fn table(name: &str, ruleset: &Ruleset) -> Result<TableState, FirewallError> {
    let mut table = TableState {
        name: name.to_owned(),
        userdata: comment_userdata(COMMENT),
        ..TableState::default()
    };
    for chain in &ruleset.chains {
        let encoded = encode_chain(chain, &mut table.sets)?;
        if table.chains.iter().any(|other| other.name == encoded.name) {
            return Err(inexpressible(format!("two chains {}", encoded.name)));
        }
        table.chains.push(encoded);
    }
    let mut drops = BTreeMap::new();
    let mut counted = Vec::new();
    for rule in ruleset.chains.iter().flat_map(|chain| &chain.rules) {
        let family = family_of(rule)?;
        if let (Some((reason, traces)), Some(family)) = (rule.verdict.drops(), family) {
            drops.insert(Dropped::new(reason, family), traces);
        }
        counted.push((&rule.verdict, family));
    }
    table.counters = counters::of_rules(&counted);
    traces::add(&mut table, drops);
    Ok(table)
}

fn encode_chain(chain: &Chain, sets: &mut Vec<SetState>) -> Result<ChainState, FirewallError> {
    // "mangle" is -150 and "srcnat" 100 (linux/netfilter_ipv4.h); firewall::Hook has the distances.
    let (name, kind, hook, priority) = match chain.hook {
        Hook::Prerouting => ("prerouting", "filter", NF_INET_PRE_ROUTING, -150),
        Hook::PreroutingPin => ("prerouting-pin", "filter", NF_INET_PRE_ROUTING, -149),
        Hook::PreroutingMark => ("prerouting-mark", "filter", NF_INET_PRE_ROUTING, i32::MAX),
        Hook::ForwardUnmark => ("forward-unmark", "filter", NF_INET_FORWARD, i32::MIN),
        Hook::OutputReroute => ("output", "route", NF_INET_LOCAL_OUT, -150),
        Hook::OutputPin => ("output-pin", "route", NF_INET_LOCAL_OUT, -149),
        Hook::Forward => ("forward", "filter", NF_INET_FORWARD, -150),
        Hook::ForwardEnded => ("ended", "filter", NF_INET_FORWARD, -149),
        Hook::PostroutingClosed => ("closed", "filter", NF_INET_POST_ROUTING, -152),
        Hook::PostroutingPin => ("postrouting-pin", "filter", NF_INET_POST_ROUTING, -151),
        Hook::PostroutingCount => ("count", "filter", NF_INET_POST_ROUTING, -150),
        Hook::PostroutingNat => ("postrouting-nat", "nat", NF_INET_POST_ROUTING, 95),
        Hook::PostroutingGuard => ("guard", "filter", NF_INET_POST_ROUTING, 150),
        Hook::PostroutingLast => ("last", "filter", NF_INET_POST_ROUTING, 160),
    };
    let hook = Attributes::new()
        .put_be32(NFTA_HOOK_HOOKNUM, hook)
        .put(NFTA_HOOK_PRIORITY, &i32::to_be_bytes(priority));
    let attributes = Attributes::new()
        .put_text(NFTA_CHAIN_NAME, name)
        .nest(NFTA_CHAIN_HOOK, hook)
        .put_be32(NFTA_CHAIN_POLICY, NF_ACCEPT)
        .put_text(NFTA_CHAIN_TYPE, kind);
    let rules = chain
        .rules
        .iter()
        .map(|rule| encode_rule(rule, sets))
        .collect::<Result<_, _>>()?;
    Ok(ChainState {
        name: name.to_owned(),
        attributes: attributes.into_bytes(),
        rules,
    })
}

/// The families implied by a condition; empty if the condition can hold in both.
fn families_of(condition: &Match) -> Vec<Family> {
    match condition {
        Match::Source(prefix) | Match::NotSource(prefix) => vec![Family::of_net(prefix)],
        Match::NextHop(address) | Match::NotNextHop(address) => vec![Family::of(*address)],
        Match::DestinationByMark(_) | Match::LinkLocalHop => vec![Family::Ipv6],
        Match::Realm(_) | Match::NotRealm(_) => vec![Family::Ipv4],
        Match::DestinationAnyOf(prefixes) | Match::DestinationNoneOf(prefixes) => {
            let mut families: Vec<_> = prefixes.iter().map(Family::of_net).collect();
            families.dedup();
            families
        }
        Match::NotInputInterface(_)
        | Match::InputInterface(_)
        | Match::OutputInterface(_)
        | Match::OutputIndex(_)
        | Match::Redirect
        | Match::TcpSyn
        | Match::TcpAnswer(_)
        | Match::TcpAnswerFrom(_)
        | Match::UdpAnswer(_)
        | Match::UdpWithSocket(_)
        | Match::DestinationIsLocal
        | Match::SourceNotLocal
        | Match::Forwarded
        | Match::OpensFlow
        | Match::NewFlow
        | Match::Established
        | Match::OriginalDirection
        | Match::ReplyDirection
        | Match::NotTracked
        | Match::FlowMark(_)
        | Match::PacketMark(_)
        | Match::SourceSlots { .. } => Vec::new(),
    }
}

/// The family of a rule: explicit, or implied by the conditions and the verdict.
fn family_of(rule: &FwRule) -> Result<Option<Family>, FirewallError> {
    let translated = match rule.verdict {
        Statement::Snat(to) | Statement::SnatRandomly(to) => Some(Family::of(to)),
        _ => None,
    };
    let implied = rule.matches.iter().flat_map(families_of);
    let mut family = rule.family;
    for next in implied.chain(translated) {
        match family {
            Some(known) if known != next => {
                return Err(inexpressible(format!(
                    "a rule with both {known} and {next}: {rule:?}"
                )));
            }
            _ => family = Some(next),
        }
    }
    Ok(family)
}

fn encode_rule(rule: &FwRule, sets: &mut Vec<SetState>) -> Result<RuleState, FirewallError> {
    let family = family_of(rule)?;
    let mut expressions = Expressions::default();
    if let Some(family) = family {
        // An `inet` table sees both families: without this check, the header offsets of one family
        // would be read from packets of the other.
        expressions = expressions
            .meta(NFT_META_NFPROTO)
            .compare(NFT_CMP_EQ, &[protocol_of(family)]);
    }
    for condition in &rule.matches {
        expressions = encode_match(expressions, condition, family, sets)?;
    }
    expressions = encode_verdict(expressions, rule, family)?;
    Ok(RuleState {
        expressions: expressions.into_bytes(),
        userdata: Vec::new(),
    })
}

fn name_is(loaded: Expressions, key: u32, name: &str) -> Result<Expressions, FirewallError> {
    Ok(loaded.meta(key).compare(NFT_CMP_EQ, &interface(name)?))
}

fn encode_match(
    expressions: Expressions,
    condition: &Match,
    family: Option<Family>,
    sets: &mut Vec<SetState>,
) -> Result<Expressions, FirewallError> {
    let family_needed =
        || family.ok_or_else(|| inexpressible(format!("{condition:?} in a rule without a family")));
    Ok(match condition {
        Match::NotInputInterface(name) => expressions
            .meta(NFT_META_IIFNAME)
            .compare(NFT_CMP_NEQ, &interface(name)?),
        Match::InputInterface(name) => name_is(expressions, NFT_META_IIFNAME, name)?,
        Match::Redirect => expressions.redirect(family_needed()?),
        Match::TcpSyn => syn(expressions),
        Match::TcpAnswer(ports) => {
            not_opening(ported(expressions, IPPROTO_TCP, DESTINATION_PORT, *ports))
        }
        Match::TcpAnswerFrom(ports) => {
            not_opening(ported(expressions, IPPROTO_TCP, SOURCE_PORT, *ports))
        }
        Match::UdpAnswer(ports) => ported(expressions, IPPROTO_UDP, DESTINATION_PORT, *ports)
            .transport_header(SOURCE_PORT)
            .compare(NFT_CMP_LT, &FIRST_USER_PORT.to_be_bytes()),
        Match::UdpWithSocket(ports) => ported(expressions, IPPROTO_UDP, DESTINATION_PORT, *ports)
            .socket_wildcard()
            .compare(NFT_CMP_EQ, &[0]),
        Match::OutputInterface(name) => name_is(expressions, NFT_META_OIFNAME, name)?,
        Match::OutputIndex(index) => {
            let number = index.0.to_ne_bytes();
            expressions.meta(NFT_META_OIF).compare(NFT_CMP_EQ, &number)
        }
        Match::Source(net) => expressions.prefix(source_of(Family::of_net(net)), NFT_CMP_EQ, *net),
        Match::NotSource(net) => {
            expressions.prefix(source_of(Family::of_net(net)), NFT_CMP_NEQ, *net)
        }
        Match::DestinationIsLocal => {
            expressions.route_kind(NFTA_FIB_F_DADDR, NFT_CMP_EQ, RTN_LOCAL)
        }
        Match::DestinationByMark(kind) => expressions.kind_by_mark(*kind),
        Match::SourceNotLocal => expressions.route_kind(NFTA_FIB_F_SADDR, NFT_CMP_NEQ, RTN_LOCAL),
        Match::Forwarded => forwarded(expressions),
        Match::OpensFlow => unconfirmed(expressions),
        Match::NewFlow => state(expressions, CT_STATE_NEW),
        Match::Established => state(expressions, CT_STATE_ESTABLISHED),
        Match::OriginalDirection => in_direction(expressions, CT_DIR_ORIGINAL),
        Match::ReplyDirection => in_direction(expressions, CT_DIR_REPLY),
        Match::NotTracked => state(expressions, CT_STATE_INVALID_UNTRACKED),
        Match::FlowMark(mark) => marked(expressions.ct(NFT_CT_MARK), *mark)?,
        Match::PacketMark(mark) => marked(expressions.meta(NFT_META_MARK), *mark)?,
        Match::NextHop(address) => next_hop(expressions, *address, NFT_CMP_EQ),
        Match::NotNextHop(address) => next_hop(expressions, *address, NFT_CMP_NEQ),
        Match::LinkLocalHop => expressions.link_local_hop(),
        Match::Realm(realm) => in_realm(expressions, *realm, NFT_CMP_EQ),
        Match::NotRealm(realm) => in_realm(expressions, *realm, NFT_CMP_NEQ),
        Match::DestinationAnyOf(prefixes) => {
            destination_set(expressions, prefixes, family_needed()?, sets, false)
        }
        // An empty list excludes no destination.
        Match::DestinationNoneOf(prefixes) if prefixes.is_empty() => expressions,
        Match::DestinationNoneOf(prefixes) => {
            destination_set(expressions, prefixes, family_needed()?, sets, true)
        }
        Match::SourceSlots { slots, of, seed } => {
            if *of < 2 || slots.is_empty() || slots.iter().any(|slot| slot >= of) {
                // The kernel refuses a modulus of 1.
                return Err(inexpressible(format!("slots {slots:?} of {of}")));
            }
            let place = source_of(family_needed()?);
            let hashed = expressions
                .network_header(NFT_REG_2, place)
                .jhash(place.1, *of, *seed);
            match slots.as_slice() {
                [one] => hashed.compare(NFT_CMP_EQ, &one.to_ne_bytes()),
                several => number_set(hashed, several, sets),
            }
        }
    })
}

fn encode_verdict(
    expressions: Expressions,
    rule: &FwRule,
    family: Option<Family>,
) -> Result<Expressions, FirewallError> {
    let family_counted =
        || family.ok_or_else(|| inexpressible(format!("{rule:?}: counting needs a family")));
    let counted = expressions.clone().counter();
    Ok(match rule.verdict {
        Statement::Count(path) => {
            let name = counters::name(Counted::Path(path), family_counted()?);
            expressions.counter_named(&name).verdict(NF_ACCEPT)
        }
        Statement::CountWay(slot, direction) => {
            let name = counters::name(Counted::Way(slot, direction), family_counted()?);
            expressions.counter_named(&name).verdict(NF_ACCEPT)
        }
        Statement::DropCounted(reason) => {
            Dropped::new(reason, family_counted()?).by(expressions, Traces::ALL)
        }
        Statement::DropTraced(reason, traces) => {
            Dropped::new(reason, family_counted()?).by(expressions, traces)
        }
        Statement::SetFlowMark(mark) => {
            let mark = checked(mark)?;
            written(counted, mark, Expressions::ct, NFT_CT_MARK).set_ct(NFT_CT_MARK)
        }
        Statement::SetPacketMark(mark) => {
            let mark = checked(mark)?;
            written(counted, mark, Expressions::meta, NFT_META_MARK).set_meta(NFT_META_MARK)
        }
        Statement::RestoreMark { mask } => {
            // A bitwise operation on two registers needs Linux 6.13, and enterprise kernels are at
            // 6.1. The condition of the rule has compared the flow's bits with a constant, so the
            // constant replaces the second register.
            let known = rule.matches.iter().find_map(|condition| match condition {
                Match::FlowMark(mark) if mark.mask & mask == mask => Some(Mark {
                    value: mark.value & mask,
                    mask,
                }),
                _ => None,
            });
            let mark = known.ok_or_else(|| {
                inexpressible(format!(
                    "restoring the mark bits {mask:#x} in a rule without a condition on the flow's mark"
                ))
            })?;
            written(counted, mark, Expressions::meta, NFT_META_MARK).set_meta(NFT_META_MARK)
        }
        Statement::ClampMss(size) => counted.load(&size.to_be_bytes()).set_segment_size(),
        Statement::Snat(to) => counted.snat(to, NF_NAT_RANGE_MAP_IPS),
        Statement::SnatRandomly(to) => counted.snat(to, NF_NAT_RANGE_RANDOM),
        Statement::Masquerade => counted.masquerade(),
        Statement::Accept => counted.verdict(NF_ACCEPT),
        Statement::Drop => counted.verdict(NF_DROP),
        Statement::Reset => expressions.reset(),
    })
}

/// Loads the mark at `key` into register 1 and sets the bits of `mark`.
fn written(
    expressions: Expressions,
    mark: Mark,
    load: fn(Expressions, u32) -> Expressions,
    key: u32,
) -> Expressions {
    if mark.mask == u32::MAX {
        return expressions.load(&mark.value.to_ne_bytes());
    }
    load(expressions, key).bitwise(&(!mark.mask).to_ne_bytes(), &mark.value.to_ne_bytes())
}

fn marked(loaded: Expressions, mark: Mark) -> Result<Expressions, FirewallError> {
    let mark = checked(mark)?;
    Ok(masked(loaded, mark.mask).compare(NFT_CMP_EQ, &mark.value.to_ne_bytes()))
}

/// Matches the protocol and a port.
fn ported(expressions: Expressions, protocol: u8, place: (u32, u32), ports: Ports) -> Expressions {
    expressions
        .meta(NFT_META_L4PROTO)
        .compare(NFT_CMP_EQ, &[protocol])
        .transport_header(place)
        .compare(NFT_CMP_GTE, &ports.first.to_be_bytes())
        .compare(NFT_CMP_LTE, &ports.last.to_be_bytes())
}

fn next_hop(expressions: Expressions, address: IpAddr, operator: u32) -> Expressions {
    let key = match address {
        IpAddr::V4(_) => NFT_RT_NEXTHOP4,
        IpAddr::V6(_) => NFT_RT_NEXTHOP6,
    };
    expressions.rt(key).compare(operator, &octets(address))
}

/// Compares the realm of the destination. The high half of the 32 bits is the realm of the source
/// (`tclassid` holds both).
fn in_realm(expressions: Expressions, realm: Realm, operator: u32) -> Expressions {
    masked(expressions.rt(NFT_RT_CLASSID), 0xffff)
        .compare(operator, &u32::from(realm.0).to_ne_bytes())
}

fn masked(expressions: Expressions, mask: u32) -> Expressions {
    match mask {
        u32::MAX => expressions,
        mask => expressions.bitwise(&mask.to_ne_bytes(), &[0; 4]),
    }
}

fn state(expressions: Expressions, bits: u32) -> Expressions {
    masked(expressions.ct(NFT_CT_STATE), bits).compare(NFT_CMP_NEQ, &[0; 4])
}

/// Matches packets with an incoming interface; the others have the index 0. `nft` reads its own text
/// `iif != 0`, and not `iifname != ""`: a saved ruleset with that would load no rule of any program.
fn forwarded(expressions: Expressions) -> Expressions {
    expressions.meta(NFT_META_IIF).compare(NFT_CMP_NEQ, &[0; 4])
}

fn in_direction(expressions: Expressions, direction: u8) -> Expressions {
    let found = expressions.ct(NFT_CT_DIRECTION);
    found.compare(NFT_CMP_EQ, &[direction])
}

fn unconfirmed(expressions: Expressions) -> Expressions {
    masked(expressions.ct(NFT_CT_STATUS), CT_STATUS_CONFIRMED).compare(NFT_CMP_EQ, &[0; 4])
}

fn checked(mark: Mark) -> Result<Mark, FirewallError> {
    if mark.mask == 0 || mark.value & !mark.mask != 0 {
        return Err(inexpressible(format!("mark {mark}: bits outside the mask")));
    }
    Ok(mark)
}

fn interface(name: &str) -> Result<[u8; IFNAMSIZ], FirewallError> {
    let mut padded = [0; IFNAMSIZ];
    if name.is_empty() || name.len() >= IFNAMSIZ || name.contains('\0') {
        return Err(inexpressible(format!("an interface named {name:?}")));
    }
    padded[..name.len()].copy_from_slice(name.as_bytes());
    Ok(padded)
}
