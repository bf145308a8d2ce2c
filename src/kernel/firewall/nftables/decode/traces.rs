//! The expressions that log and record packets.

use super::{Decoder, only};
use crate::kernel::firewall::nftables::register::Value;
use crate::kernel::firewall::nftables::traces::register;
use crate::kernel::firewall::nftables::uapi::*;
use crate::kernel::wire::{Attribute, attributes, find, number};
use crate::types::Family;

/// True if the attribute is absent or zero.
fn is_zero(list: &[Attribute<'_>], kind: u16) -> bool {
    find(list, kind).is_none_or(|found| found.payload.iter().all(|byte| *byte == 0))
}

/// The 64-bit number of an attribute in network order.
fn number64(list: &[Attribute<'_>], kind: u16) -> Option<u64> {
    Some(u64::from_be_bytes(
        find(list, kind)?.payload.try_into().ok()?,
    ))
}

impl Decoder {
    pub(super) fn limit(&mut self, body: &[u8]) -> Option<()> {
        let kinds = [
            NFTA_LIMIT_RATE,
            NFTA_LIMIT_UNIT,
            NFTA_LIMIT_BURST,
            NFTA_LIMIT_TYPE,
            NFTA_LIMIT_FLAGS,
            NFTA_LIMIT_PAD,
        ];
        let list = only(body, &kinds)?;
        // Packets, and those below the rate.
        let plain = is_zero(&list, NFTA_LIMIT_TYPE) && is_zero(&list, NFTA_LIMIT_FLAGS);
        if !plain || number64(&list, NFTA_LIMIT_UNIT)? != 1 {
            return None;
        }
        let rate = number64(&list, NFTA_LIMIT_RATE)?;
        let burst = number(&list, NFTA_LIMIT_BURST)?;
        self.say(format!("limit rate {rate}/second burst {burst} packets"))
    }

    pub(super) fn log(&mut self, body: &[u8]) -> Option<()> {
        let list = only(body, &[NFTA_LOG_PREFIX, NFTA_LOG_LEVEL, NFTA_LOG_FLAGS])?;
        let prefix = find(&list, NFTA_LOG_PREFIX)?.text();
        let level = number(&list, NFTA_LOG_LEVEL).unwrap_or(LOG_WARNING);
        if level != LOG_WARNING || number(&list, NFTA_LOG_FLAGS) != Some(NF_LOG_UID) {
            return None;
        }
        self.say(format!("log prefix {prefix:?} flags skuid"))
    }

    /// `ct` with a direction: the source of the flow's first packet.
    pub(super) fn original_source(&mut self, body: &[u8]) -> Option<()> {
        let list = only(body, &[NFTA_CT_DREG, NFTA_CT_KEY, NFTA_CT_DIRECTION])?;
        if find(&list, NFTA_CT_DIRECTION)?.payload != [CT_DIR_ORIGINAL] {
            return None;
        }
        let family = match number(&list, NFTA_CT_KEY)? {
            NFT_CT_SRC_IP => Family::Ipv4,
            NFT_CT_SRC_IP6 => Family::Ipv6,
            _ => return None,
        };
        self.store(number(&list, NFTA_CT_DREG)?, Value::OriginalSource(family))
    }

    pub(super) fn dynset(&mut self, body: &[u8]) -> Option<()> {
        let kinds = [
            NFTA_DYNSET_SET_NAME,
            NFTA_DYNSET_OP,
            NFTA_DYNSET_SREG_KEY,
            NFTA_DYNSET_TIMEOUT,
            NFTA_DYNSET_EXPR,
            NFTA_DYNSET_PAD,
            NFTA_DYNSET_FLAGS,
        ];
        let list = only(body, &kinds)?;
        let plain = is_zero(&list, NFTA_DYNSET_TIMEOUT) && is_zero(&list, NFTA_DYNSET_FLAGS);
        if !plain || number(&list, NFTA_DYNSET_SREG_KEY)? != register(0) {
            return None;
        }
        let operation = match number(&list, NFTA_DYNSET_OP)? {
            NFT_DYNSET_OP_ADD => "add",
            NFT_DYNSET_OP_UPDATE => "update",
            _ => return None,
        };
        let counted = match find(&list, NFTA_DYNSET_EXPR) {
            None => "",
            Some(expression) => {
                let inner = attributes(expression.payload).ok()?;
                let name = find(&inner, NFTA_EXPR_NAME)?.text();
                if name != "counter" {
                    return None;
                }
                " counter"
            }
        };
        let set = find(&list, NFTA_DYNSET_SET_NAME)?.text();
        let key = self.concatenation()?;
        self.say(format!("{operation} @{set} {{ {key}{counted} }}"))
    }

    /// The values in the adjacent registers from the first on.
    fn concatenation(&mut self) -> Option<String> {
        let mut parts = Vec::new();
        let mut word = 0;
        while let Some(value) = self.take(register(word)) {
            word += value.length()?.div_ceil(4);
            parts.push(value.to_string());
        }
        (!parts.is_empty()).then(|| parts.join(" . "))
    }
}
