//! Foreign rules of nf_tables that read or write marks, those of iptables-nft included.

use std::collections::{BTreeMap, BTreeSet};

use super::is_our_table;
use super::read::{body, list, text};
use super::uapi::*;
use crate::firewall::marks::{Access, Carrier, MarkUse};
use crate::kernel::firewall::iptables::CHAIN_PREFIX;
use crate::kernel::wire::{Attribute, Attributes, DUMP, Wire, WireError, attributes, find, number};
use crate::types::Mark;

/// The number of attempts at a dump that foreign transactions interrupt.
const ATTEMPTS: u32 = 5;

/// Reads the marks of all foreign rules.
pub(super) fn foreign(wire: &mut Wire) -> Result<BTreeSet<MarkUse>, WireError> {
    let request = body(NFPROTO_UNSPEC, Attributes::new());
    for _ in 0..ATTEMPTS {
        let mut found = BTreeSet::new();
        let answer = wire.ask(msg::GETRULE, DUMP, &request, |frame| {
            let family = frame.body.first().copied().unwrap_or_default();
            let list = list(frame.body)?;
            let table = text(&list, NFTA_RULE_TABLE).unwrap_or_default();
            let chain = text(&list, NFTA_RULE_CHAIN).unwrap_or_default();
            let table_is_ours = is_our_table(&table);
            let ours = family == NFPROTO_INET && table_is_ours || chain.starts_with(CHAIN_PREFIX);
            if let (false, Some(expressions)) = (ours, find(&list, NFTA_RULE_EXPRESSIONS)) {
                let place = format!("table {} {table}, chain {chain}", word(family));
                found.extend(of_rule(expressions.payload, &place)?);
            }
            Ok(())
        });
        match answer {
            Ok(()) => return Ok(found),
            Err(WireError::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Err(WireError::Interrupted)
}

fn word(family: u8) -> &'static str {
    match family {
        NFPROTO_INET => "inet",
        NFPROTO_IPV4 => "ip",
        NFPROTO_IPV6 => "ip6",
        // NFPROTO_ARP, NFPROTO_NETDEV and NFPROTO_BRIDGE (linux/netfilter.h).
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        _ => "?",
    }
}

#[derive(Debug, Clone, Copy)]
enum MarkRegister {
    /// Bits of a mark: those of `kept` as loaded, those of `set` inverted.
    Mark {
        carrier: Carrier,
        kept: u32,
        set: u32,
    },
    Constant(u32),
}

#[derive(Default)]
struct MarkReader {
    registers: BTreeMap<u32, MarkRegister>,
    found: Vec<(Carrier, Access, Mark)>,
}

pub(super) fn of_rule(expressions: &[u8], place: &str) -> Result<Vec<MarkUse>, WireError> {
    let mut reader = MarkReader::default();
    for expression in attributes(expressions)? {
        let parts = attributes(expression.payload)?;
        let name = text(&parts, NFTA_EXPR_NAME).unwrap_or_default();
        let body = find(&parts, NFTA_EXPR_DATA).map_or(&[][..], |data| data.payload);
        reader.expression(&name, &attributes(body)?);
    }
    let named = |(carrier, access, mark)| MarkUse {
        place: place.to_owned(),
        carrier,
        access,
        mark,
    };
    Ok(reader.found.into_iter().map(named).collect())
}

/// A constant of four bytes, in the host's byte order.
fn constant(list: &[Attribute<'_>], kind: u16) -> Option<u32> {
    let outer = attributes(find(list, kind)?.payload).ok()?;
    let bytes = find(&outer, NFTA_DATA_VALUE)?.payload;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

impl MarkReader {
    fn expression(&mut self, name: &str, list: &[Attribute<'_>]) {
        match name {
            "meta" if number(list, NFTA_META_KEY) == Some(NFT_META_MARK) => {
                let registers = (NFTA_META_DREG, NFTA_META_SREG);
                self.mark(Carrier::Packet, list, registers);
            }
            "ct" if number(list, NFTA_CT_KEY) == Some(NFT_CT_MARK) => {
                self.mark(Carrier::Flow, list, (NFTA_CT_DREG, NFTA_CT_SREG));
            }
            "bitwise" => self.bitwise(list),
            "cmp" => {
                let value = constant(list, NFTA_CMP_DATA).unwrap_or(0);
                self.compared(number(list, NFTA_CMP_SREG), value);
            }
            "lookup" | "range" => {
                // The first attribute after the name of the set, or of a range, is the register.
                let register = if name == "lookup" {
                    NFTA_LOOKUP_SREG
                } else {
                    1
                };
                self.compared(number(list, register), 0);
            }
            "immediate" => {
                let register = number(list, NFTA_IMMEDIATE_DREG);
                if let Some((register, value)) = register.zip(constant(list, NFTA_IMMEDIATE_DATA)) {
                    self.registers
                        .insert(register, MarkRegister::Constant(value));
                }
            }
            "match" | "target" => self.extension(list),
            _ => {}
        }
    }

    fn mark(&mut self, carrier: Carrier, list: &[Attribute<'_>], (load, set): (u16, u16)) {
        if let Some(register) = number(list, load) {
            let slot = MarkRegister::Mark {
                carrier,
                kept: u32::MAX,
                set: 0,
            };
            self.registers.insert(register, slot);
        }
        let Some(register) = number(list, set) else {
            return;
        };
        let mark = match self.registers.get(&register) {
            Some(MarkRegister::Constant(value)) => Mark {
                value: *value,
                mask: u32::MAX,
            },
            Some(MarkRegister::Mark {
                carrier: from,
                kept,
                set,
            }) if *from == carrier => Mark {
                value: *set,
                mask: !*kept | *set,
            },
            // A copy of the other mark may set every bit that was kept.
            Some(MarkRegister::Mark { kept, set, .. }) => Mark {
                value: *kept | *set,
                mask: u32::MAX,
            },
            // A hash or a map.
            None => Mark {
                value: u32::MAX,
                mask: u32::MAX,
            },
        };
        self.found.push((carrier, Access::Writes, mark));
    }

    fn bitwise(&mut self, list: &[Attribute<'_>]) {
        let source = number(list, NFTA_BITWISE_SREG).and_then(|at| self.registers.get(&at));
        let Some(target) = number(list, NFTA_BITWISE_DREG) else {
            return;
        };
        let slot = match source {
            Some(MarkRegister::Mark { carrier, kept, set }) => {
                let mask = constant(list, NFTA_BITWISE_MASK).unwrap_or(u32::MAX);
                let xor = constant(list, NFTA_BITWISE_XOR).unwrap_or(0);
                Some(MarkRegister::Mark {
                    carrier: *carrier,
                    kept: kept & mask,
                    set: (set & mask) ^ xor,
                })
            }
            _ => None,
        };
        match slot {
            Some(slot) => self.registers.insert(target, slot),
            None => self.registers.remove(&target),
        };
    }

    fn compared(&mut self, register: Option<u32>, value: u32) {
        let slot = register.and_then(|register| self.registers.get(&register));
        if let Some(MarkRegister::Mark { carrier, kept, .. }) = slot {
            let mark = Mark { value, mask: *kept };
            self.found.push((*carrier, Access::Reads, mark));
        }
    }

    /// A match or target of xtables, which iptables-nft embeds (linux/netfilter/xt_mark.h,
    /// xt_connmark.h, xt_TPROXY.h).
    fn extension(&mut self, list: &[Attribute<'_>]) {
        let name = text(list, NFTA_XT_NAME).unwrap_or_default();
        let revision = number(list, NFTA_XT_REV).unwrap_or(0);
        let info = find(list, NFTA_XT_INFO).map_or(&[][..], |info| info.payload);
        let word = |place: usize| {
            let bytes = info.get(place * 4..place * 4 + 4)?;
            Some(u32::from_ne_bytes(bytes.try_into().ok()?))
        };
        let (Some(first), Some(second)) = (word(0), word(1)) else {
            return;
        };
        let mark = Mark {
            value: first,
            mask: second,
        };
        match name.as_str() {
            "mark" => self.found.push((Carrier::Packet, Access::Reads, mark)),
            "connmark" => self.found.push((Carrier::Flow, Access::Reads, mark)),
            "MARK" => self.found.push((Carrier::Packet, Access::Writes, mark)),
            "TPROXY" => {
                let mark = Mark {
                    value: second,
                    mask: first,
                };
                self.found.push((Carrier::Packet, Access::Writes, mark));
            }
            "CONNMARK" => {
                let mode = info.get(if revision >= 2 { 14 } else { 12 }).copied();
                let (ctmask, nfmask) = (second, word(2).unwrap_or(u32::MAX));
                let copied = |mask| Mark {
                    value: ctmask & nfmask,
                    mask,
                };
                // XT_CONNMARK_SET, _SAVE and _RESTORE.
                match mode {
                    Some(0) => self.found.push((Carrier::Flow, Access::Writes, mark)),
                    Some(1) => {
                        let mark = copied(ctmask);
                        self.found.push((Carrier::Flow, Access::Writes, mark));
                    }
                    _ => {
                        let mark = copied(nfmask);
                        self.found.push((Carrier::Packet, Access::Writes, mark));
                    }
                }
            }
            _ => {}
        }
    }
}
