//! Counted drops: the chain of a reason and family that logs, records and drops a packet.
//!
//! ```text
//! chain dropped-closed-ipv4
//!   5 a second                  → log
//!   TCP, then UDP               → add to `first-closed-ipv4`
//!                               → update `blocked-closed-ipv4`, count, drop
//!   any protocol, without port  → the same
//!   the rest                    → count, drop
//! ```
//!
//! An expression that fails ends its rule alone: a set without a free place, a fragment without a port, a
//! rate that is exceeded. So each rule that records also drops, and the last rule drops the others.
//!
//! The source of reason `sources` is that of the flow's first packet: another program may have translated
//! the packet, and the list is about clients.
//!
//! `update` keeps an element for an hour after the last packet. `add` leaves an element as it is, so that
//! its remaining time tells the time of the first packet. A map with the time as its value would need
//! one set, and nft 1.0.6 aborts at such a map of IPv6 addresses: a saved ruleset would not load.

use std::collections::BTreeMap;

use super::counters::{self, Counted};
use super::expression::{Expressions, destination_of, protocol_of, source_of};
use super::message::RuleState;
use super::table::{ChainState, SetState, TableState};
use super::uapi::*;
use crate::firewall::{DropReason, Traces};
use crate::kernel::wire::Attributes;
use crate::types::Family;

/// Elements of each set of [`Dropped::blocked`].
pub(super) const MOST_BLOCKED: u32 = 1024;
/// Elements of each set of [`Dropped::first`], which stay longer.
const MOST_FIRST: u32 = 4096;
const HOUR_MS: u64 = 3_600_000;
/// An element without packets goes after this time.
const KEPT_MS: u64 = HOUR_MS;
/// The time of the first packet is known for this time.
const KEPT_FIRST_MS: u64 = 7 * 24 * HOUR_MS;

/// Lines of the kernel's log in a second, for each reason and family; also those at once.
const LINES_A_SECOND: u32 = 5;

/// The packets of a family that are dropped for a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Dropped {
    pub(super) reason: DropReason,
    pub(super) family: Family,
}

/// The port in the key of an element: the destination port of the packet, or 0 without one.
#[derive(Clone, Copy)]
enum Port {
    Loaded,
    Zero,
}

/// The source in the key of an element.
#[derive(Clone, Copy)]
enum Source {
    /// Of the packet.
    Header,
    /// Of the flow's first packet, before another program's translation.
    Client,
}

impl Dropped {
    pub(super) fn new(reason: DropReason, family: Family) -> Self {
        Dropped { reason, family }
    }

    /// Every reason with each family.
    pub(super) fn all() -> impl Iterator<Item = Dropped> {
        let reasons = DropReason::ALL.into_iter();
        reasons.flat_map(|reason| Family::ALL.map(|family| Dropped { reason, family }))
    }

    fn named(self, what: &str) -> String {
        format!("{what}-{}-{}", self.reason, self.family)
    }

    /// The name of the set with counts, and with the time of the last packet.
    pub(super) fn blocked(self) -> String {
        self.named("blocked")
    }

    /// The name of the set with the time of the first packet.
    pub(super) fn first(self) -> String {
        self.named("first")
    }

    /// The chain, and the counter.
    fn name(self) -> String {
        counters::name(Counted::Dropped(self.reason), self.family)
    }

    /// The end of a rule that drops.
    pub(super) fn by(self, rule: Expressions, traces: Traces) -> Expressions {
        if traces == Traces::NONE {
            self.dropped(rule)
        } else {
            rule.goto(&self.name())
        }
    }

    fn dropped(self, rule: Expressions) -> Expressions {
        rule.counter_named(&self.name()).verdict(NF_DROP)
    }

    fn chain(self, traces: Traces) -> ChainState {
        let mut rules = Vec::new();
        let rule = Expressions::default;
        if traces.log {
            let prefix = format!("trailblazer drops ({}): ", self.reason);
            rules.push(rule().limit(LINES_A_SECOND).log(&prefix));
        }
        if traces.record {
            // The packets have the family already; nft prints the names of the fields with the check.
            let of_family = || {
                rule()
                    .meta(NFT_META_NFPROTO)
                    .compare(NFT_CMP_EQ, &[protocol_of(self.family)])
            };
            let source = match self.reason {
                DropReason::Sources => Source::Client,
                DropReason::Outside | DropReason::Closed => Source::Header,
            };
            for protocol in [IPPROTO_TCP, IPPROTO_UDP] {
                let ported = || {
                    self.with_ports(of_family())
                        .meta(NFT_META_L4PROTO)
                        .compare(NFT_CMP_EQ, &[protocol])
                };
                rules.extend(self.recorded(ported, source, Port::Loaded));
            }
            rules.extend(self.recorded(of_family, source, Port::Zero));
            if let Source::Client = source {
                // A packet without a flow has the source of the client still.
                rules.extend(self.recorded(of_family, Source::Header, Port::Zero));
            }
        }
        rules.push(self.dropped(rule()));
        let rules = rules.into_iter().map(|expressions| RuleState {
            expressions: expressions.into_bytes(),
            userdata: Vec::new(),
        });
        let name = self.name();
        ChainState {
            attributes: Attributes::new()
                .put_text(NFTA_CHAIN_NAME, &name)
                .into_bytes(),
            name,
            rules: rules.collect(),
        }
    }

    /// Matches packets with a transport header. The kernel reads ports from the data of a later fragment
    /// too (`nft_payload_fast_eval`, Linux 6.18). conntrack puts fragments together before, except those
    /// of IPv4 sockets with `IP_NODEFRAG`.
    fn with_ports(self, rule: Expressions) -> Expressions {
        match self.family {
            Family::Ipv4 => rule
                .network_header(NFT_REG_1, FRAGMENT_OFFSET)
                .bitwise(&FRAGMENT_MASK, &[0; 2])
                .compare(NFT_CMP_EQ, &[0; 2]),
            Family::Ipv6 => rule,
        }
    }

    /// The rules that record the packets of a rule, and drop the packets that have a place.
    fn recorded(
        self,
        of: impl Fn() -> Expressions,
        source: Source,
        port: Port,
    ) -> [Expressions; 2] {
        let first = self.key(of(), source, port).add_to(&self.first());
        let blocked = self.key(of(), source, port).update(&self.blocked());
        [first, self.dropped(blocked)]
    }

    /// Loads the key of an element: addresses, protocol and port, each padded to four bytes.
    fn key(self, rule: Expressions, source: Source, port: Port) -> Expressions {
        let words = self.address_words();
        let sourced = match source {
            Source::Header => rule.network_header(register(0), source_of(self.family)),
            Source::Client => rule.original_source(register(0), self.family),
        };
        let key = sourced
            .network_header(register(words), destination_of(self.family))
            .meta_into(register(2 * words), NFT_META_L4PROTO);
        let last = register(2 * words + 1);
        match port {
            Port::Loaded => key.transport_header_into(last, DESTINATION_PORT),
            Port::Zero => key.load_into(last, &[0; 2]),
        }
    }

    fn sets(self) -> [SetState; 2] {
        let address = match self.family {
            Family::Ipv4 => TYPE_IPADDR,
            Family::Ipv6 => TYPE_IP6ADDR,
        };
        let set = |name: String, timeout: u64, size: u32| SetState {
            attributes: Attributes::new()
                .put_text(NFTA_SET_NAME, &name)
                .put_be32(NFTA_SET_FLAGS, NFT_SET_TIMEOUT | NFT_SET_EVAL)
                .put_be32(NFTA_SET_KEY_TYPE, key_type(address))
                .put_be32(NFTA_SET_KEY_LEN, self.key_length())
                .put(NFTA_SET_TIMEOUT, &timeout.to_be_bytes())
                .nest(
                    NFTA_SET_DESC,
                    Attributes::new().put_be32(NFTA_SET_DESC_SIZE, size),
                )
                .into_bytes(),
            name,
            elements: Vec::new(),
        };
        [
            set(self.blocked(), KEPT_MS, MOST_BLOCKED),
            set(self.first(), KEPT_FIRST_MS, MOST_FIRST),
        ]
    }

    /// Words of four bytes in an address.
    fn address_words(self) -> u32 {
        u32::from(self.family.bits()) / 32
    }

    /// Bytes of a key.
    pub(super) fn key_length(self) -> u32 {
        8 * self.address_words() + 8
    }
}

/// The number of a key's type for nft.
pub(super) fn key_type(address: u32) -> u32 {
    [address, address, TYPE_INET_PROTOCOL, TYPE_INET_SERVICE]
        .into_iter()
        .fold(0, |number, part| number << TYPE_BITS | part)
}

/// The register at a word of four bytes, in the number that the kernel reports.
pub(super) fn register(word: u32) -> u32 {
    if word.is_multiple_of(4) {
        NFT_REG_1 + word / 4
    } else {
        NFT_REG32_00 + word
    }
}

/// Adds the counters, chains and sets of the drops in the policy.
pub(super) fn add(table: &mut TableState, drops: BTreeMap<Dropped, Traces>) {
    // All counters of a role, so that the numbers of a family survive a policy without a rule for it.
    for reasons in [&DropReason::OF_NAT[..], &DropReason::OF_HOST] {
        if drops.keys().any(|it| reasons.contains(&it.reason)) {
            table.counters.extend(counters::of_drops(reasons));
        }
    }
    for (dropped, traces) in drops {
        if traces != Traces::NONE {
            table.chains.push(dropped.chain(traces));
        }
        if traces.record {
            table.sets.extend(dropped.sets());
        }
    }
}

impl Expressions {
    /// Loads the source of the flow's first packet; a packet without a flow ends the rule.
    fn original_source(self, register: u32, family: Family) -> Self {
        let key = match family {
            Family::Ipv4 => NFT_CT_SRC_IP,
            Family::Ipv6 => NFT_CT_SRC_IP6,
        };
        let load = Attributes::new()
            .put_be32(NFTA_CT_DREG, register)
            .put_be32(NFTA_CT_KEY, key)
            .put(NFTA_CT_DIRECTION, &[CT_DIR_ORIGINAL]);
        self.add("ct", load)
    }

    /// Ends the rule for packets beyond the rate.
    fn limit(self, a_second: u32) -> Self {
        let limit = Attributes::new()
            .put(NFTA_LIMIT_RATE, &u64::from(a_second).to_be_bytes())
            .put(NFTA_LIMIT_UNIT, &1u64.to_be_bytes())
            .put_be32(NFTA_LIMIT_BURST, a_second);
        self.add("limit", limit)
    }

    /// Writes the headers, and the user of the socket, to the kernel's log.
    fn log(self, prefix: &str) -> Self {
        let log = Attributes::new()
            .put_text(NFTA_LOG_PREFIX, prefix)
            .put_be32(NFTA_LOG_LEVEL, LOG_WARNING)
            .put_be32(NFTA_LOG_FLAGS, NF_LOG_UID);
        self.add("log", log)
    }

    /// Adds the key in the registers from the first on, unless the set has the key.
    fn add_to(self, set: &str) -> Self {
        self.add("dynset", dynset(set, NFT_DYNSET_OP_ADD))
    }

    /// Adds the key with a counter, or counts the packet and extends the time of the element.
    fn update(self, set: &str) -> Self {
        let update = dynset(set, NFT_DYNSET_OP_UPDATE);
        self.add(
            "dynset",
            update.nest(NFTA_DYNSET_EXPR, Expressions::counter_of_element()),
        )
    }
}

fn dynset(set: &str, operation: u32) -> Attributes {
    Attributes::new()
        .put_text(NFTA_DYNSET_SET_NAME, set)
        .put_be32(NFTA_DYNSET_OP, operation)
        .put_be32(NFTA_DYNSET_SREG_KEY, register(0))
}
