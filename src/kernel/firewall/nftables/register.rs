//! The content of a register during a rule, in the notation of nft.

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use super::uapi::*;
use crate::types::Family;

/// The origin of a register's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Meta(u32),
    Ct(u32),
    Rt(u32),
    Socket(u32),
    /// The source of the flow's first packet, before any translation.
    OriginalSource(Family),
    SourceType,
    DestinationType,
    DestinationTypeByMark,
    Payload {
        base: u32,
        offset: u32,
        length: u32,
    },
    Jhash {
        of: Box<Value>,
        modulus: u32,
        seed: u32,
    },
    Masked {
        of: Box<Value>,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    Data(Vec<u8>),
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The address of 4 or 16 bytes.
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn host_number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn prefix_length(mask: &[u8]) -> Option<u8> {
    ipnet::ip_mask_to_prefix(address(mask)?).ok()
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Meta(NFT_META_IIFNAME) => f.write_str("iifname"),
            Value::Meta(NFT_META_OIFNAME) => f.write_str("oifname"),
            Value::Meta(NFT_META_IIF) => f.write_str("iif"),
            Value::Meta(NFT_META_OIF) => f.write_str("oif"),
            Value::Meta(NFT_META_MARK) => f.write_str("meta mark"),
            Value::Meta(NFT_META_NFPROTO) => f.write_str("meta nfproto"),
            Value::Meta(NFT_META_L4PROTO) => f.write_str("meta l4proto"),
            Value::Meta(key) => write!(f, "meta key-{key}"),
            Value::Ct(NFT_CT_STATE) => f.write_str("ct state"),
            Value::Ct(NFT_CT_DIRECTION) => f.write_str("ct direction"),
            Value::Ct(NFT_CT_STATUS) => f.write_str("ct status"),
            Value::Ct(NFT_CT_MARK) => f.write_str("ct mark"),
            Value::Ct(key) => write!(f, "ct key-{key}"),
            Value::Rt(NFT_RT_CLASSID) => f.write_str("rt classid"),
            Value::Rt(NFT_RT_NEXTHOP4) => f.write_str("rt ip nexthop"),
            Value::Rt(NFT_RT_NEXTHOP6) => f.write_str("rt ip6 nexthop"),
            Value::Rt(key) => write!(f, "rt key-{key}"),
            Value::Socket(NFT_SOCKET_WILDCARD) => f.write_str("socket wildcard"),
            Value::Socket(key) => write!(f, "socket key-{key}"),
            Value::OriginalSource(Family::Ipv4) => f.write_str("ct original ip saddr"),
            Value::OriginalSource(Family::Ipv6) => f.write_str("ct original ip6 saddr"),
            Value::SourceType => f.write_str("fib saddr type"),
            Value::DestinationType => f.write_str("fib daddr type"),
            Value::DestinationTypeByMark => f.write_str("fib daddr . mark type"),
            Value::Payload {
                base,
                offset,
                length,
            } => match (*base, *offset, *length) {
                (NFT_PAYLOAD_NETWORK_HEADER, 12, 4) => f.write_str("ip saddr"),
                (NFT_PAYLOAD_NETWORK_HEADER, 6, 2) => f.write_str("ip frag-off"),
                (NFT_PAYLOAD_NETWORK_HEADER, 16, 4) => f.write_str("ip daddr"),
                (NFT_PAYLOAD_NETWORK_HEADER, 8, 16) => f.write_str("ip6 saddr"),
                (NFT_PAYLOAD_NETWORK_HEADER, 24, 16) => f.write_str("ip6 daddr"),
                (NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1) => f.write_str("icmp type"),
                (NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2) => f.write_str("th sport"),
                (NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2) => f.write_str("th dport"),
                (NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1) => f.write_str("tcp flags"),
                // The raw syntax of nft in bits, with the header as a number instead of a name.
                // A foreign rule may name any 32-bit number of bytes.
                (base, offset, length) => {
                    let (first, count) = (u64::from(offset) * 8, u64::from(length) * 8);
                    write!(f, "@base-{base},{first},{count}")
                }
            },
            Value::Jhash { of, modulus, seed } => {
                write!(f, "jhash {of} mod {modulus} seed {seed:#x}")
            }
            Value::Masked { of, mask, xor } => {
                match (of.is_mark(), host_number(mask), host_number(xor)) {
                    (true, Some(mask), Some(0)) => write!(f, "{of} & {mask:#010x}"),
                    (true, Some(mask), Some(xor)) if mask & xor == 0 => {
                        write!(f, "{of} & {mask:#010x} | {xor:#010x}")
                    }
                    (true, Some(mask), Some(xor)) => {
                        write!(f, "{of} & {mask:#010x} ^ {xor:#010x}")
                    }
                    _ if xor.iter().all(|byte| *byte == 0) => {
                        write!(f, "{of} & 0x{}", hex(mask))
                    }
                    _ => write!(f, "{of} & 0x{} ^ 0x{}", hex(mask), hex(xor)),
                }
            }
            Value::Data(bytes) => write!(f, "0x{}", hex(bytes)),
        }
    }
}

impl Value {
    /// The length in bytes, as far as known.
    pub(super) fn length(&self) -> Option<u32> {
        match self {
            Value::Payload { length, .. } => Some(*length),
            Value::Meta(NFT_META_L4PROTO) => Some(1),
            Value::OriginalSource(family) => Some(u32::from(family.bits()) / 8),
            Value::Data(bytes) => u32::try_from(bytes.len()).ok(),
            _ => None,
        }
    }

    fn is_mark(&self) -> bool {
        matches!(
            self,
            Value::Meta(NFT_META_MARK)
                | Value::Ct(NFT_CT_MARK | NFT_CT_STATUS)
                | Value::Rt(NFT_RT_CLASSID)
        )
    }

    fn is_address(&self) -> bool {
        match self {
            Value::Rt(key) => [NFT_RT_NEXTHOP4, NFT_RT_NEXTHOP6].contains(key),
            Value::Payload {
                base,
                offset,
                length,
            } => {
                *base == NFT_PAYLOAD_NETWORK_HEADER
                    && [(12, 4), (16, 4), (8, 16), (24, 16)].contains(&(*offset, *length))
            }
            _ => false,
        }
    }

    /// The text of the value on the right of `target set`.
    pub(super) fn text_for(&self, target: &Value) -> String {
        match self {
            Value::Data(bytes) => target
                .constant(bytes)
                .unwrap_or_else(|| format!("0x{}", hex(bytes))),
            other => other.to_string(),
        }
    }

    /// A constant in the notation for comparisons with the value.
    fn constant(&self, bytes: &[u8]) -> Option<String> {
        match self {
            Value::Meta(NFT_META_IIFNAME | NFT_META_OIFNAME) if bytes.len() == 16 => {
                let length = bytes.iter().position(|byte| *byte == 0)?;
                let (name, padding) = bytes.split_at(length);
                if padding.iter().any(|byte| *byte != 0) {
                    return None;
                }
                Some(format!("{:?}", std::str::from_utf8(name).ok()?))
            }
            Value::Meta(NFT_META_NFPROTO) => match bytes {
                [NFPROTO_IPV4] => Some("ipv4".to_owned()),
                [NFPROTO_IPV6] => Some("ipv6".to_owned()),
                _ => None,
            },
            Value::Meta(NFT_META_L4PROTO) => match bytes {
                [IPPROTO_TCP] => Some("tcp".to_owned()),
                [IPPROTO_UDP] => Some("udp".to_owned()),
                [IPPROTO_ICMP] => Some("icmp".to_owned()),
                [IPPROTO_ICMPV6] => Some("icmpv6".to_owned()),
                _ => None,
            },
            Value::Socket(_) => match bytes {
                [number] => Some(number.to_string()),
                _ => None,
            },
            Value::Payload {
                base: NFT_PAYLOAD_TRANSPORT_HEADER,
                offset: 0,
                length: 1,
            } => match bytes {
                [ICMP_REDIRECT] => Some("redirect".to_owned()),
                [NDISC_REDIRECT] => Some("nd-redirect".to_owned()),
                _ => None,
            },
            Value::Payload {
                base: NFT_PAYLOAD_TRANSPORT_HEADER,
                length: 2,
                ..
            } => Some(u16::from_be_bytes(bytes.try_into().ok()?).to_string()),
            Value::Ct(NFT_CT_DIRECTION) => match bytes {
                [CT_DIR_ORIGINAL] => Some("original".to_owned()),
                [CT_DIR_REPLY] => Some("reply".to_owned()),
                _ => None,
            },
            Value::Meta(NFT_META_OIF) | Value::Rt(NFT_RT_CLASSID) | Value::Jhash { .. } => {
                Some(host_number(bytes)?.to_string())
            }
            Value::SourceType | Value::DestinationType | Value::DestinationTypeByMark => {
                match host_number(bytes)? {
                    RTN_UNICAST => Some("unicast".to_owned()),
                    RTN_LOCAL => Some("local".to_owned()),
                    RTN_UNREACHABLE => Some("unreachable".to_owned()),
                    other => Some(other.to_string()),
                }
            }
            value if value.is_mark() => Some(format!("{:#010x}", host_number(bytes)?)),
            value if value.is_address() => Some(address(bytes)?.to_string()),
            Value::Masked { of, .. } if of.is_mark() => of.constant(bytes),
            _ => None,
        }
    }

    /// `value operator constant`; `None` for an unknown operator.
    pub(super) fn compared(&self, operator: u32, right: &[u8]) -> Option<String> {
        // NFT_CMP_… (linux/netfilter/nf_tables.h).
        let sign = *["==", "!=", "<", "<=", ">", ">="].get(operator as usize)?;
        if let Some(idiom) = self.idiom(operator, right) {
            return Some(idiom);
        }
        let constant = self
            .constant(right)
            .unwrap_or_else(|| format!("0x{}", hex(right)));
        match self {
            Value::Masked { .. } => Some(format!("{self} {sign} {constant}")),
            _ if operator == NFT_CMP_EQ => Some(format!("{self} {constant}")),
            _ => Some(format!("{self} {sign} {constant}")),
        }
    }

    /// Masked comparisons with a syntax of their own in nft: prefixes and conntrack states.
    fn idiom(&self, operator: u32, right: &[u8]) -> Option<String> {
        let Value::Masked { of, mask, xor } = self else {
            return None;
        };
        if xor.iter().any(|byte| *byte != 0) {
            return None;
        }
        let zero = right.iter().all(|byte| *byte == 0);
        if **of == Value::Ct(NFT_CT_STATE) && operator == NFT_CMP_NEQ && zero {
            let mut bits = host_number(mask)?;
            let mut names = Vec::new();
            for (bit, name) in CT_STATES {
                if bits & bit != 0 {
                    names.push(name);
                    bits &= !bit;
                }
            }
            return (bits == 0).then(|| format!("ct state {}", names.join(",")));
        }
        if of.is_address() && right.len() == mask.len() {
            let not = match operator {
                NFT_CMP_EQ => "",
                NFT_CMP_NEQ => "!= ",
                _ => return None,
            };
            let length = prefix_length(mask)?;
            return Some(format!("{of} {not}{}/{length}", address(right)?));
        }
        None
    }
}
