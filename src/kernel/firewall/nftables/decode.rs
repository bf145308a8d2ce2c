//! The expressions of a rule as text in the syntax of nft.
//!
//! The decoder is strict: an expression with an unknown part becomes hexadecimal bytes, so that
//! every foreign change of a rule shows as different text.

mod traces;

use std::collections::BTreeMap;

use super::message::{RuleState, userdata_comment};
use super::register::{Value, hex};
use super::uapi::*;
use crate::kernel::wire::{Attribute, attributes, find, number};

struct LoadedRegister {
    value: Value,
    /// True once a later expression has read the register.
    used: bool,
}

#[derive(Default)]
struct Decoder {
    registers: BTreeMap<u32, LoadedRegister>,
    words: Vec<String>,
}

pub(super) fn rule(rule: &RuleState) -> String {
    let mut decoder = Decoder::default();
    match attributes(&rule.expressions) {
        Ok(list) => {
            for expression in list {
                decoder.expression(expression.payload);
            }
        }
        Err(_) => decoder.words.push(unknown("list", &rule.expressions)),
    }
    let registers = std::mem::take(&mut decoder.registers);
    for slot in registers.into_values() {
        decoder.discard(slot);
    }
    if !rule.userdata.is_empty() {
        decoder.words.push(userdata(&rule.userdata));
    }
    decoder.words.join(" ")
}

/// The user data of a rule: the comment, or hexadecimal bytes.
fn userdata(bytes: &[u8]) -> String {
    match userdata_comment(bytes, UDATA_RULE_COMMENT) {
        Some(comment) => format!("comment {comment:?}"),
        None => format!("userdata 0x{}", hex(bytes)),
    }
}

fn unknown(name: &str, bytes: &[u8]) -> String {
    format!("unknown expression {name} 0x{}", hex(bytes))
}

/// The attributes, if all have one of these types.
fn only<'a>(bytes: &'a [u8], kinds: &[u16]) -> Option<Vec<Attribute<'a>>> {
    let list = attributes(bytes).ok()?;
    list.iter()
        .all(|attribute| kinds.contains(&attribute.kind))
        .then_some(list)
}

/// The payload of a nested `NFTA_DATA_VALUE`.
fn data(list: &[Attribute<'_>], kind: u16) -> Option<Vec<u8>> {
    match attributes(find(list, kind)?.payload).ok()?.as_slice() {
        [value] if value.kind == NFTA_DATA_VALUE => Some(value.payload.to_vec()),
        _ => None,
    }
}

impl Decoder {
    fn expression(&mut self, bytes: &[u8]) {
        let Ok(list) = attributes(bytes) else {
            return self.words.push(unknown("", bytes));
        };
        let name = find(&list, NFTA_EXPR_NAME).map_or_else(String::new, |name| name.text());
        let body = find(&list, NFTA_EXPR_DATA).map_or(&[][..], |data| data.payload);
        let understood = match name.as_str() {
            "meta" => self.meta(body),
            "ct" => self.ct(body),
            "rt" => self.rt(body),
            "fib" => self.fib(body),
            "payload" => self.payload(body),
            "socket" => self.socket(body),
            "exthdr" => self.segment_size(body),
            "hash" => self.hash(body),
            "bitwise" => self.bitwise(body),
            "immediate" => self.immediate(body),
            "cmp" => self.cmp(body),
            "lookup" => self.lookup(body),
            "nat" => self.nat(body),
            "reject" => self.reject(body),
            "masq" if body.is_empty() => self.say("masquerade"),
            // The numbers of a counter are not a part of the policy.
            "counter" => self.say("counter"),
            "objref" => self.objref(body),
            "limit" => self.limit(body),
            "log" => self.log(body),
            "dynset" => self.dynset(body),
            _ => None,
        };
        if understood.is_none() {
            self.words.push(unknown(&name, body));
        }
    }

    fn say(&mut self, words: impl Into<String>) -> Option<()> {
        self.words.push(words.into());
        Some(())
    }

    fn store(&mut self, register: u32, value: Value) -> Option<()> {
        if let Some(old) = self
            .registers
            .insert(register, LoadedRegister { value, used: false })
        {
            self.discard(old);
        }
        Some(())
    }

    /// Prints a value never read: a load without effect, but not one of our expressions.
    fn discard(&mut self, slot: LoadedRegister) {
        if !slot.used {
            self.words.push(format!("load {}", slot.value));
        }
    }

    fn take(&mut self, register: u32) -> Option<Value> {
        let slot = self.registers.get_mut(&register)?;
        slot.used = true;
        Some(slot.value.clone())
    }

    /// `meta` and `ct`: load into a register, or set from a register.
    fn load_or_set(
        &mut self,
        list: &[Attribute<'_>],
        [dreg, key, sreg]: [u16; 3],
        value: fn(u32) -> Value,
    ) -> Option<()> {
        let key = value(number(list, key)?);
        match (number(list, dreg), number(list, sreg)) {
            (Some(register), None) => self.store(register, key),
            (None, Some(register)) => {
                let new = self.take(register)?;
                let text = new.text_for(&key);
                self.say(format!("{key} set {text}"))
            }
            _ => None,
        }
    }

    fn meta(&mut self, body: &[u8]) -> Option<()> {
        let kinds = [NFTA_META_DREG, NFTA_META_KEY, NFTA_META_SREG];
        self.load_or_set(&only(body, &kinds)?, kinds, Value::Meta)
    }

    fn ct(&mut self, body: &[u8]) -> Option<()> {
        let kinds = [NFTA_CT_DREG, NFTA_CT_KEY, NFTA_CT_SREG];
        match only(body, &kinds) {
            Some(list) => self.load_or_set(&list, kinds, Value::Ct),
            None => self.original_source(body),
        }
    }

    fn rt(&mut self, body: &[u8]) -> Option<()> {
        let list = only(body, &[NFTA_RT_DREG, NFTA_RT_KEY])?;
        let key = number(&list, NFTA_RT_KEY)?;
        self.store(number(&list, NFTA_RT_DREG)?, Value::Rt(key))
    }

    fn fib(&mut self, body: &[u8]) -> Option<()> {
        let list = only(body, &[NFTA_FIB_DREG, NFTA_FIB_RESULT, NFTA_FIB_FLAGS])?;
        if number(&list, NFTA_FIB_RESULT)? != NFT_FIB_RESULT_ADDRTYPE {
            return None;
        }
        let value = match number(&list, NFTA_FIB_FLAGS)? {
            NFTA_FIB_F_SADDR => Value::SourceType,
            NFTA_FIB_F_DADDR => Value::DestinationType,
            flags if flags == NFTA_FIB_F_DADDR | NFTA_FIB_F_MARK => Value::DestinationTypeByMark,
            _ => return None,
        };
        self.store(number(&list, NFTA_FIB_DREG)?, value)
    }

    fn payload(&mut self, body: &[u8]) -> Option<()> {
        let kinds = [
            NFTA_PAYLOAD_DREG,
            NFTA_PAYLOAD_BASE,
            NFTA_PAYLOAD_OFFSET,
            NFTA_PAYLOAD_LEN,
        ];
        let list = only(body, &kinds)?;
        let value = Value::Payload {
            base: number(&list, NFTA_PAYLOAD_BASE)?,
            offset: number(&list, NFTA_PAYLOAD_OFFSET)?,
            length: number(&list, NFTA_PAYLOAD_LEN)?,
        };
        self.store(number(&list, NFTA_PAYLOAD_DREG)?, value)
    }

    fn socket(&mut self, body: &[u8]) -> Option<()> {
        let list = only(body, &[NFTA_SOCKET_KEY, NFTA_SOCKET_DREG])?;
        let key = number(&list, NFTA_SOCKET_KEY)?;
        self.store(number(&list, NFTA_SOCKET_DREG)?, Value::Socket(key))
    }

    fn segment_size(&mut self, body: &[u8]) -> Option<()> {
        let kinds = [
            NFTA_EXTHDR_SREG,
            NFTA_EXTHDR_TYPE,
            NFTA_EXTHDR_OFFSET,
            NFTA_EXTHDR_LEN,
            NFTA_EXTHDR_FLAGS,
            NFTA_EXTHDR_OP,
        ];
        let list = only(body, &kinds)?;
        let place = (
            number(&list, NFTA_EXTHDR_OFFSET)?,
            number(&list, NFTA_EXTHDR_LEN)?,
        );
        let plain = find(&list, NFTA_EXTHDR_TYPE)?.payload == [TCPOPT_MAXSEG]
            && place == MAXSEG_PLACE
            && number(&list, NFTA_EXTHDR_FLAGS).unwrap_or(0) == 0
            && number(&list, NFTA_EXTHDR_OP)? == NFT_EXTHDR_OP_TCPOPT;
        if !plain {
            return None;
        }
        let size = match self.take(number(&list, NFTA_EXTHDR_SREG)?)? {
            Value::Data(bytes) => u16::from_be_bytes(bytes.try_into().ok()?),
            _ => return None,
        };
        self.say(format!("tcp option maxseg size set {size}"))
    }

    fn hash(&mut self, body: &[u8]) -> Option<()> {
        let kinds = [
            NFTA_HASH_SREG,
            NFTA_HASH_DREG,
            NFTA_HASH_LEN,
            NFTA_HASH_MODULUS,
            NFTA_HASH_SEED,
            NFTA_HASH_TYPE,
        ];
        let list = only(body, &kinds)?;
        if number(&list, NFTA_HASH_TYPE)? != NFT_HASH_JENKINS {
            return None;
        }
        let modulus = number(&list, NFTA_HASH_MODULUS)?;
        let seed = number(&list, NFTA_HASH_SEED)?;
        let length = number(&list, NFTA_HASH_LEN)?;
        let register = number(&list, NFTA_HASH_DREG)?;
        let of = self.take(number(&list, NFTA_HASH_SREG)?)?;
        if of.length() != Some(length) {
            return None;
        }
        let of = Box::new(of);
        self.store(register, Value::Jhash { of, modulus, seed })
    }

    fn bitwise(&mut self, body: &[u8]) -> Option<()> {
        let kinds = [
            NFTA_BITWISE_SREG,
            NFTA_BITWISE_DREG,
            NFTA_BITWISE_LEN,
            NFTA_BITWISE_MASK,
            NFTA_BITWISE_XOR,
            NFTA_BITWISE_OP,
        ];
        let list = only(body, &kinds)?;
        let length = number(&list, NFTA_BITWISE_LEN)? as usize;
        let mask = data(&list, NFTA_BITWISE_MASK)?;
        let xor = data(&list, NFTA_BITWISE_XOR)?;
        // Operation 0 is "mask and xor"; kernels before 5.7 omit the attribute.
        let other = find(&list, NFTA_BITWISE_OP).is_some_and(|op| op.be32() != Some(0));
        if other || mask.len() != length || xor.len() != length {
            return None;
        }
        let of = Box::new(self.take(number(&list, NFTA_BITWISE_SREG)?)?);
        let register = number(&list, NFTA_BITWISE_DREG)?;
        self.store(register, Value::Masked { of, mask, xor })
    }

    fn immediate(&mut self, body: &[u8]) -> Option<()> {
        let list = only(body, &[NFTA_IMMEDIATE_DREG, NFTA_IMMEDIATE_DATA])?;
        let register = number(&list, NFTA_IMMEDIATE_DREG)?;
        if register != NFT_REG_VERDICT {
            return self.store(register, Value::Data(data(&list, NFTA_IMMEDIATE_DATA)?));
        }
        let outer = only(
            find(&list, NFTA_IMMEDIATE_DATA)?.payload,
            &[NFTA_DATA_VERDICT],
        )?;
        let inner = only(
            find(&outer, NFTA_DATA_VERDICT)?.payload,
            &[NFTA_VERDICT_CODE, NFTA_VERDICT_CHAIN],
        )?;
        let chain = find(&inner, NFTA_VERDICT_CHAIN).map(|chain| chain.text());
        // The NFT_… verdicts are negative numbers (linux/netfilter/nf_tables.h).
        let text = match (number(&inner, NFTA_VERDICT_CODE)?.cast_signed(), chain) {
            (0, None) => "drop".to_owned(),
            (1, None) => "accept".to_owned(),
            (-1, None) => "continue".to_owned(),
            (-5, None) => "return".to_owned(),
            (-3, Some(chain)) => format!("jump {chain}"),
            (-4, Some(chain)) => format!("goto {chain}"),
            _ => return None,
        };
        self.say(text)
    }

    fn cmp(&mut self, body: &[u8]) -> Option<()> {
        let list = only(body, &[NFTA_CMP_SREG, NFTA_CMP_OP, NFTA_CMP_DATA])?;
        let operator = number(&list, NFTA_CMP_OP)?;
        let right = data(&list, NFTA_CMP_DATA)?;
        let left = self.take(number(&list, NFTA_CMP_SREG)?)?;
        self.say(left.compared(operator, &right)?)
    }

    fn lookup(&mut self, body: &[u8]) -> Option<()> {
        let kinds = [NFTA_LOOKUP_SET, NFTA_LOOKUP_SREG, NFTA_LOOKUP_FLAGS];
        let list = only(body, &kinds)?;
        let not = match find(&list, NFTA_LOOKUP_FLAGS).map(|flags| flags.be32()) {
            None | Some(Some(0)) => "",
            Some(Some(NFT_LOOKUP_F_INV)) => "!= ",
            Some(_) => return None,
        };
        let set = find(&list, NFTA_LOOKUP_SET)?.text();
        let key = self.take(number(&list, NFTA_LOOKUP_SREG)?)?;
        self.say(format!("{key} {not}@{set}"))
    }

    fn objref(&mut self, body: &[u8]) -> Option<()> {
        let list = only(body, &[NFTA_OBJREF_IMM_TYPE, NFTA_OBJREF_IMM_NAME])?;
        if number(&list, NFTA_OBJREF_IMM_TYPE)? != NFT_OBJECT_COUNTER {
            return None;
        }
        let name = find(&list, NFTA_OBJREF_IMM_NAME)?.text();
        self.say(format!("counter name {name:?}"))
    }

    fn reject(&mut self, body: &[u8]) -> Option<()> {
        let list = only(body, &[NFTA_REJECT_TYPE])?;
        if number(&list, NFTA_REJECT_TYPE)? != NFT_REJECT_TCP_RST {
            return None;
        }
        self.say("reject with tcp reset")
    }

    fn nat(&mut self, body: &[u8]) -> Option<()> {
        let kinds = [
            NFTA_NAT_TYPE,
            NFTA_NAT_FAMILY,
            NFTA_NAT_REG_ADDR_MIN,
            NFTA_NAT_REG_ADDR_MAX,
            NFTA_NAT_FLAGS,
        ];
        let list = only(body, &kinds)?;
        let least = number(&list, NFTA_NAT_REG_ADDR_MIN)?;
        // Without an upper bound in the request the kernel reports the lower bound twice.
        let most = number(&list, NFTA_NAT_REG_ADDR_MAX).unwrap_or(least);
        // The kernel sets NF_NAT_RANGE_MAP_IPS by itself; other flags change the translation.
        let flags = number(&list, NFTA_NAT_FLAGS).unwrap_or(NF_NAT_RANGE_MAP_IPS);
        let ports = match flags {
            NF_NAT_RANGE_MAP_IPS => "",
            NF_NAT_RANGE_RANDOM => " fully-random",
            _ => return None,
        };
        if number(&list, NFTA_NAT_TYPE)? != NFT_NAT_SNAT || most != least {
            return None;
        }
        let (words, length) = match u8::try_from(number(&list, NFTA_NAT_FAMILY)?).ok()? {
            NFPROTO_IPV4 => ("snat ip to", 4),
            NFPROTO_IPV6 => ("snat ip6 to", 16),
            _ => return None,
        };
        let address = match self.take(least)? {
            Value::Data(bytes) if bytes.len() == length => super::register::address(&bytes)?,
            _ => return None,
        };
        self.say(format!("{words} {address}{ports}"))
    }
}
