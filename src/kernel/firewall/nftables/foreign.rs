//! Foreign chains in the path of forwarded packets and of the host's own, from ingress to egress, in
//! all tables except ours. The tables of iptables-nft are among them.
//!
//! Rules are read chain by chain from the base chains on, since a cluster node holds thousands of
//! chains that no forwarded packet of ours meets.

mod bases;
mod elements;
mod fields;
mod registers;
mod writes;
mod xtables;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::read::{body, consistently, generation, list, text};
use super::uapi::*;
use crate::judge::chain::{BaseChain, Condition, Effect, Field, ForeignRule, NewSource, Test};
use crate::judge::marks::Write;
use crate::kernel::wire::{Attribute, Attributes, DUMP, Wire, WireError, attributes, find, number};
use bases::base_chains;
use elements::{elements, verdict};
use fields::{flow, meta, payload, routing};
use registers::{Registers, key_conditions};
use writes::{flow_set, meta_set};
use xtables::{destination_type, flow_state, mark, multiport, owner, target, tcp, udp};

// linux/netfilter.h, linux/netfilter/nf_tables.h and nf_tables_compat.h.
const NFTA_RULE_EXPRESSIONS_OF_XT: [&str; 2] = ["match", "target"];
const NFTA_LOOKUP_DREG: u16 = 3;
const NFTA_RANGE_SREG: u16 = 1;
const NFTA_RANGE_OP: u16 = 2;
const NFTA_RANGE_FROM_DATA: u16 = 3;
const NFTA_RANGE_TO_DATA: u16 = 4;
/// The attribute of the destination register, for most expressions and for those with a source or a
/// key.
const FIRST: u16 = 1;
const SECOND: u16 = 2;
/// Bound of the chains read: enough for every firewall that people write, and for the chains of a
/// container host that a forwarded packet meets.
const MOST_CHAINS: usize = 512;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TableKey {
    pub(super) family: u8,
    pub(super) name: String,
}

/// Reads the foreign chains, with the generation of the reading. `known` is the generation of the
/// last reading: `None` if nothing has changed since.
pub(super) fn changed_chains(
    wire: &mut Wire,
    known: Option<u32>,
) -> Result<Option<(Vec<BaseChain>, u32)>, WireError> {
    if known.is_some() && known == Some(generation(wire)?) {
        return Ok(None);
    }
    consistently(wire, read_all).map(Some)
}

fn read_all(wire: &mut Wire) -> Result<Vec<BaseChain>, WireError> {
    let mut bases = base_chains(wire)?;
    let mut left = MOST_CHAINS;
    // Several base chains of a table may reach the same chain.
    let mut known: BTreeMap<(TableKey, String), Vec<ForeignRule>> = BTreeMap::new();
    for (key, base) in &mut bases {
        let mut open = vec![base.name.clone()];
        let mut seen: BTreeSet<String> = open.iter().cloned().collect();
        while let Some(name) = open.pop() {
            let of_table = (key.clone(), name.clone());
            if left == 0 && !known.contains_key(&of_table) {
                // An unread chain counts as unknown.
                break;
            }
            let rules = match known.entry(of_table) {
                Entry::Occupied(read) => read.get().clone(),
                Entry::Vacant(unread) => {
                    left -= 1;
                    unread.insert(rules(wire, key, &name)?).clone()
                }
            };
            let mut targets = Vec::new();
            for rule in &rules {
                targets_of(&rule.effect, &mut targets);
            }
            open.extend(targets.into_iter().filter(|name| seen.insert(name.clone())));
            base.chains.insert(name, rules);
        }
    }
    Ok(bases.into_iter().map(|(_, base)| base).collect())
}

fn targets_of(effect: &Effect, targets: &mut Vec<String>) {
    match effect {
        Effect::Jump(name) | Effect::Goto(name) => targets.push(name.clone()),
        Effect::Map(elements) => {
            for (_, effect) in elements {
                targets_of(effect, targets);
            }
        }
        _ => {}
    }
}

fn rules(wire: &mut Wire, table: &TableKey, chain: &str) -> Result<Vec<ForeignRule>, WireError> {
    let request = body(
        table.family,
        Attributes::new()
            .put_text(NFTA_RULE_TABLE, &table.name)
            .put_text(NFTA_RULE_CHAIN, chain),
    );
    let mut raw = Vec::new();
    wire.ask(msg::GETRULE, DUMP, &request, |frame| {
        let list = list(frame.body)?;
        // Old kernels ignore the filter by chain.
        let same = text(&list, NFTA_RULE_TABLE).as_deref() == Some(&table.name)
            && text(&list, NFTA_RULE_CHAIN).as_deref() == Some(chain);
        if same && let Some(expressions) = find(&list, NFTA_RULE_EXPRESSIONS) {
            raw.push(expressions.payload.to_vec());
        }
        Ok(())
    })?;
    raw.iter()
        .map(|expressions| rule(wire, table, expressions))
        .collect()
}

/// Decodes one rule. The elements of sets come from the kernel.
pub(super) fn rule(
    wire: &mut Wire,
    table: &TableKey,
    expressions: &[u8],
) -> Result<ForeignRule, WireError> {
    let mut reader = RuleReader {
        wire,
        table,
        registers: Registers::default(),
        conditions: Vec::new(),
        writes: Vec::new(),
        effect: Effect::Continue,
    };
    reader.read(expressions)?;
    Ok(ForeignRule {
        conditions: reader.conditions,
        writes: reader.writes,
        effect: reader.effect,
    })
}

struct RuleReader<'a> {
    wire: &'a mut Wire,
    table: &'a TableKey,
    registers: Registers,
    conditions: Vec<Condition>,
    writes: Vec<Write>,
    effect: Effect,
}

/// An attribute of one byte.
fn byte(list: &[Attribute<'_>], kind: u16) -> Option<u8> {
    find(list, kind)?.payload.first().copied()
}

fn data(list: &[Attribute<'_>], kind: u16) -> Option<Vec<u8>> {
    let outer = attributes(find(list, kind)?.payload).ok()?;
    Some(find(&outer, NFTA_DATA_VALUE)?.payload.to_vec())
}

impl RuleReader<'_> {
    fn read(&mut self, expressions: &[u8]) -> Result<(), WireError> {
        for expression in attributes(expressions)? {
            let parts = attributes(expression.payload)?;
            let name = text(&parts, NFTA_EXPR_NAME).unwrap_or_default();
            let body = find(&parts, NFTA_EXPR_DATA).map_or(&[][..], |data| data.payload);
            let list = attributes(body)?;
            if NFTA_RULE_EXPRESSIONS_OF_XT.contains(&name.as_str()) {
                self.extension(&name, &list);
            } else {
                self.expression(&name, &list)?;
            }
        }
        Ok(())
    }

    fn expression(&mut self, name: &str, list: &[Attribute<'_>]) -> Result<(), WireError> {
        match name {
            "meta" => {
                self.writes.extend(meta_set(list, &self.registers));
                self.load(list, NFTA_META_DREG, meta(number(list, NFTA_META_KEY)));
            }
            "ct" => {
                self.writes.extend(flow_set(list, &self.registers));
                self.load(list, NFTA_CT_DREG, flow(number(list, NFTA_CT_KEY)));
            }
            "fib" => self.load(list, NFTA_FIB_DREG, routing(list)),
            "payload" => self.load(list, NFTA_PAYLOAD_DREG, payload(list)),
            "bitwise" => self.bitwise(list),
            "cmp" => self.compare(list),
            "lookup" => self.lookup(list)?,
            "immediate" => self.immediate(list),
            "reject" => self.effect = Effect::Reject,
            "masq" => self.effect = Effect::Translate(NewSource::OfInterface),
            "redir" | "tproxy" => self.effect = Effect::Divert,
            "nat" => self.translate(list),
            // Without influence on the path of a packet.
            "counter" | "log" | "objref" | "flow_offload" | "dup" | "last" => {}
            "notrack" => self.writes.push(Write::Untrack),
            // A program decides, perhaps for an acceptance.
            "queue" => {
                self.conditions.push(Condition::unknown());
                self.effect = Effect::Accept;
            }
            "range" => self.range(list),
            // Loads a value outside our knowledge, which a comparison follows.
            "rt" | "numgen" | "osf" | "exthdr" | "xfrm" => self.outside(list, FIRST),
            "hash" | "socket" | "tunnel" | "byteorder" => self.outside(list, SECOND),
            _ => self.conditions.push(Condition::unknown()),
        }
        Ok(())
    }

    /// A load into a register; without one for a set.
    fn load(&mut self, list: &[Attribute<'_>], register: u16, field: Field) {
        if let Some(register) = number(list, register) {
            self.registers.load(register, field, Vec::new());
        }
    }

    /// A load of a value outside our knowledge; `register` is the attribute of the destination.
    fn outside(&mut self, list: &[Attribute<'_>], register: u16) {
        self.load(list, register, Field::Unknown);
        self.conditions.push(Condition::unknown());
    }

    fn bitwise(&mut self, list: &[Attribute<'_>]) {
        if let Some(register) = number(list, NFTA_BITWISE_DREG) {
            let from = number(list, NFTA_BITWISE_SREG);
            let (mask, xor) = (data(list, NFTA_BITWISE_MASK), data(list, NFTA_BITWISE_XOR));
            self.registers.mix(from, register, mask, xor);
        }
    }

    fn compare(&mut self, list: &[Attribute<'_>]) {
        let (field, mask) = self.registers.loaded(number(list, NFTA_CMP_SREG));
        let operator = number(list, NFTA_CMP_OP);
        let Some(bytes) = data(list, NFTA_CMP_DATA).filter(|it| it.len() <= field.width()) else {
            self.conditions.push(Condition::unknown());
            return;
        };
        let (low, high) = (vec![0; bytes.len()], vec![0xff; bytes.len()]);
        let (test, negated) = match operator {
            Some(NFT_CMP_EQ) => (Test::Equals(bytes), false),
            Some(NFT_CMP_NEQ) => (Test::Equals(bytes), true),
            Some(NFT_CMP_LT) => (Test::InRanges(vec![(bytes, high)]), true),
            Some(NFT_CMP_LTE) => (Test::InRanges(vec![(low, bytes)]), false),
            Some(NFT_CMP_GT) => (Test::InRanges(vec![(low, bytes)]), true),
            Some(NFT_CMP_GTE) => (Test::InRanges(vec![(bytes, high)]), false),
            _ => (Test::Unknown, false),
        };
        self.conditions.push(Condition {
            field,
            mask,
            test,
            negated,
        });
    }

    fn range(&mut self, list: &[Attribute<'_>]) {
        let (field, mask) = self.registers.loaded(number(list, NFTA_RANGE_SREG));
        let ends = (
            data(list, NFTA_RANGE_FROM_DATA),
            data(list, NFTA_RANGE_TO_DATA),
        );
        let condition = match ends {
            (Some(first), Some(last)) if first.len() <= field.width() => Condition {
                field,
                mask,
                test: Test::InRanges(vec![(first, last)]),
                negated: number(list, NFTA_RANGE_OP) == Some(NFT_CMP_NEQ),
            },
            _ => Condition::unknown(),
        };
        self.conditions.push(condition);
    }

    fn lookup(&mut self, list: &[Attribute<'_>]) -> Result<(), WireError> {
        let parts = self.registers.key_parts(number(list, NFTA_LOOKUP_SREG));
        let name = text(list, NFTA_LOOKUP_SET).unwrap_or_default();
        let negated = number(list, NFTA_LOOKUP_FLAGS).unwrap_or(0) & NFT_LOOKUP_F_INV != 0;
        let target = number(list, NFTA_LOOKUP_DREG);
        if let Some(register) = target.filter(|it| *it != NFT_REG_VERDICT) {
            // A map of data.
            self.registers.load(register, Field::Unknown, Vec::new());
            return Ok(());
        }
        let is_known = parts.iter().any(|part| part.field != Field::Unknown);
        if target.is_none() && !is_known {
            self.conditions.push(Condition::unknown());
            return Ok(());
        }
        let found = elements(self.wire, self.table, &name)?;
        if target == Some(NFT_REG_VERDICT) {
            let elements = found.into_iter().map(|(first, last, effect)| {
                let conditions = key_conditions(&parts, &first, &last);
                (conditions, effect)
            });
            self.effect = Effect::Map(elements.collect());
            return Ok(());
        }
        let single = match parts.as_slice() {
            [part, ..] => found
                .iter()
                .all(|(key, ..)| key.len() <= part.field.width()),
            [] => false,
        };
        let (field, mask, test) = match parts.first() {
            Some(part) if single => {
                let ranges = found.into_iter().map(|(first, last, _)| (first, last));
                let test = Test::InRanges(ranges.collect());
                (part.field, part.mask.clone(), test)
            }
            _ => {
                let lists = found
                    .iter()
                    .map(|(first, last, _)| key_conditions(&parts, first, last));
                (Field::Unknown, Vec::new(), Test::AnyOf(lists.collect()))
            }
        };
        self.conditions.push(Condition {
            field,
            mask,
            test,
            negated,
        });
        Ok(())
    }

    fn immediate(&mut self, list: &[Attribute<'_>]) {
        let register = number(list, NFTA_IMMEDIATE_DREG);
        if register != Some(NFT_REG_VERDICT) {
            if let (Some(register), Some(bytes)) = (register, data(list, NFTA_IMMEDIATE_DATA)) {
                self.registers.set(register, bytes);
            }
            return;
        }
        if let Some(data) = find(list, NFTA_IMMEDIATE_DATA) {
            self.effect = verdict(data.payload).unwrap_or(Effect::Continue);
        }
    }

    fn translate(&mut self, list: &[Attribute<'_>]) {
        if number(list, NFTA_NAT_TYPE) != Some(NFT_NAT_SNAT) {
            self.effect = Effect::Divert;
            return;
        }
        let bytes = self.registers.data(number(list, NFTA_NAT_REG_ADDR_MIN));
        self.effect = Effect::Translate(super::register::address(bytes).into());
    }

    /// A match or target of xtables, which iptables-nft embeds.
    fn extension(&mut self, kind: &str, list: &[Attribute<'_>]) {
        let name = text(list, NFTA_XT_NAME).unwrap_or_default();
        let revision = number(list, NFTA_XT_REV).unwrap_or(0);
        let info = find(list, NFTA_XT_INFO).map_or(&[][..], |info| info.payload);
        if kind == "match" {
            match name.as_str() {
                "comment" => {}
                "conntrack" | "state" => self.conditions.push(flow_state(info, revision)),
                "tcp" => self.conditions.extend(tcp(info)),
                "udp" => self.conditions.extend(udp(info)),
                "mark" => self.conditions.push(mark(Field::Mark, info, revision)),
                "connmark" => self.conditions.push(mark(Field::FlowMark, info, revision)),
                "owner" => self.conditions.push(owner(info)),
                "addrtype" => self.conditions.push(destination_type(info, revision)),
                "multiport" => self.conditions.push(multiport(info, revision)),
                _ => self.conditions.push(Condition::unknown()),
            }
            return;
        }
        if name == "NFQUEUE" {
            self.conditions.push(Condition::unknown());
        }
        self.writes.extend(writes::target(&name, info, revision));
        self.effect = target(&name, info, revision, self.table.family);
    }
}
