//! Builds the expressions of a rule, in the form in which the kernel reports expressions.

use std::net::IpAddr;

use ipnet::IpNet;

use super::uapi::*;
use crate::firewall::RouteKind;
use crate::kernel::wire::Attributes;
use crate::types::Family;

/// The expressions of a rule under construction. Values pass through register 1, as with nft.
#[derive(Clone, Default)]
pub(super) struct Expressions(Attributes);

fn data(value: &[u8]) -> Attributes {
    Attributes::new().put(NFTA_DATA_VALUE, value)
}

/// The bytes of an address in network order.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The number of the family.
pub(super) fn protocol_of(family: Family) -> u8 {
    match family {
        Family::Ipv4 => NFPROTO_IPV4,
        Family::Ipv6 => NFPROTO_IPV6,
    }
}

/// Offset and length in bytes of the source address in the IP header (RFC 791, RFC 8200).
pub(super) fn source_of(family: Family) -> (u32, u32) {
    match family {
        Family::Ipv4 => (12, 4),
        Family::Ipv6 => (8, 16),
    }
}

/// Offset and length in bytes of the destination address in the IP header.
pub(super) fn destination_of(family: Family) -> (u32, u32) {
    match family {
        Family::Ipv4 => (16, 4),
        Family::Ipv6 => (24, 16),
    }
}

impl Expressions {
    pub(super) fn add(mut self, name: &str, attributes: Attributes) -> Self {
        let expression = Attributes::new()
            .put_text(NFTA_EXPR_NAME, name)
            .nest(NFTA_EXPR_DATA, attributes);
        self.0 = self.0.nest(NFTA_LIST_ELEM, expression);
        self
    }

    /// The encoded list: the payload of `NFTA_RULE_EXPRESSIONS`.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0.into_bytes()
    }

    pub(super) fn meta(self, key: u32) -> Self {
        self.meta_into(NFT_REG_1, key)
    }

    pub(super) fn meta_into(self, register: u32, key: u32) -> Self {
        let load = Attributes::new()
            .put_be32(NFTA_META_KEY, key)
            .put_be32(NFTA_META_DREG, register);
        self.add("meta", load)
    }

    pub(super) fn set_meta(self, key: u32) -> Self {
        let store = Attributes::new()
            .put_be32(NFTA_META_KEY, key)
            .put_be32(NFTA_META_SREG, NFT_REG_1);
        self.add("meta", store)
    }

    /// Matches ICMP redirects.
    pub(super) fn redirect(self, family: Family) -> Self {
        let (protocol, kind) = match family {
            Family::Ipv4 => (IPPROTO_ICMP, ICMP_REDIRECT),
            Family::Ipv6 => (IPPROTO_ICMPV6, NDISC_REDIRECT),
        };
        self.meta(NFT_META_L4PROTO)
            .compare(NFT_CMP_EQ, &[protocol])
            .transport_header(ICMP_TYPE)
            .compare(NFT_CMP_EQ, &[kind])
    }

    pub(super) fn ct(self, key: u32) -> Self {
        let load = Attributes::new()
            .put_be32(NFTA_CT_KEY, key)
            .put_be32(NFTA_CT_DREG, NFT_REG_1);
        self.add("ct", load)
    }

    pub(super) fn set_ct(self, key: u32) -> Self {
        let store = Attributes::new()
            .put_be32(NFTA_CT_KEY, key)
            .put_be32(NFTA_CT_SREG, NFT_REG_1);
        self.add("ct", store)
    }

    pub(super) fn rt(self, key: u32) -> Self {
        let load = Attributes::new()
            .put_be32(NFTA_RT_KEY, key)
            .put_be32(NFTA_RT_DREG, NFT_REG_1);
        self.add("rt", load)
    }

    /// Loads the type of the source or destination address, as selected by `flags`.
    /// Compares the kind of the route to an address of the packet (`RTN_*`).
    pub(super) fn route_kind(self, flags: u32, operator: u32, kind: u32) -> Self {
        self.fib_type(flags).compare(operator, &kind.to_ne_bytes())
    }

    /// Matches the first bytes of the next hop. RFC 4291: the bits of fe80::/10, and zeros after them.
    pub(super) fn link_local_hop(self) -> Self {
        self.rt(NFT_RT_NEXTHOP6).compare(NFT_CMP_EQ, &[0xfe, 0x80])
    }

    /// Matches the kind of the route that the policy rules find for the destination and the mark.
    pub(super) fn kind_by_mark(self, kind: RouteKind) -> Self {
        let kind = match kind {
            RouteKind::Unicast => RTN_UNICAST,
            RouteKind::Unreachable => RTN_UNREACHABLE,
        };
        self.route_kind(NFTA_FIB_F_DADDR | NFTA_FIB_F_MARK, NFT_CMP_EQ, kind)
    }

    fn fib_type(self, flags: u32) -> Self {
        let load = Attributes::new()
            .put_be32(NFTA_FIB_DREG, NFT_REG_1)
            .put_be32(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE)
            .put_be32(NFTA_FIB_FLAGS, flags);
        self.add("fib", load)
    }

    pub(super) fn network_header(self, register: u32, (offset, length): (u32, u32)) -> Self {
        let load = Attributes::new()
            .put_be32(NFTA_PAYLOAD_DREG, register)
            .put_be32(NFTA_PAYLOAD_BASE, NFT_PAYLOAD_NETWORK_HEADER)
            .put_be32(NFTA_PAYLOAD_OFFSET, offset)
            .put_be32(NFTA_PAYLOAD_LEN, length);
        self.add("payload", load)
    }

    pub(super) fn transport_header(self, place: (u32, u32)) -> Self {
        self.transport_header_into(NFT_REG_1, place)
    }

    pub(super) fn transport_header_into(self, register: u32, (offset, length): (u32, u32)) -> Self {
        let load = Attributes::new()
            .put_be32(NFTA_PAYLOAD_DREG, register)
            .put_be32(NFTA_PAYLOAD_BASE, NFT_PAYLOAD_TRANSPORT_HEADER)
            .put_be32(NFTA_PAYLOAD_OFFSET, offset)
            .put_be32(NFTA_PAYLOAD_LEN, length);
        self.add("payload", load)
    }

    /// Loads 1 if the packet's socket is bound to no address, else 0; a packet without a socket
    /// ends the rule.
    pub(super) fn socket_wildcard(self) -> Self {
        let load = Attributes::new()
            .put_be32(NFTA_SOCKET_KEY, NFT_SOCKET_WILDCARD)
            .put_be32(NFTA_SOCKET_DREG, NFT_REG_1);
        self.add("socket", load)
    }

    /// Lowers the segment size in the TCP options to the value in register 1; the kernel never
    /// raises it (`nft_exthdr_tcp_set_eval`, net/netfilter/nft_exthdr.c).
    pub(super) fn set_segment_size(self) -> Self {
        let set = Attributes::new()
            .put_be32(NFTA_EXTHDR_SREG, NFT_REG_1)
            .put(NFTA_EXTHDR_TYPE, &[TCPOPT_MAXSEG])
            .put_be32(NFTA_EXTHDR_OFFSET, MAXSEG_PLACE.0)
            .put_be32(NFTA_EXTHDR_LEN, MAXSEG_PLACE.1)
            .put_be32(NFTA_EXTHDR_OP, NFT_EXTHDR_OP_TCPOPT);
        self.add("exthdr", set)
    }

    pub(super) fn compare(self, operator: u32, value: &[u8]) -> Self {
        let compare = Attributes::new()
            .put_be32(NFTA_CMP_SREG, NFT_REG_1)
            .put_be32(NFTA_CMP_OP, operator)
            .nest(NFTA_CMP_DATA, data(value));
        self.add("cmp", compare)
    }

    /// `register = (register & mask) ^ xor`; both as long as the value.
    pub(super) fn bitwise(self, mask: &[u8], xor: &[u8]) -> Self {
        #[allow(clippy::expect_used)]
        let length = u32::try_from(mask.len()).expect("masks are 16 bytes at most");
        let bitwise = Attributes::new()
            .put_be32(NFTA_BITWISE_SREG, NFT_REG_1)
            .put_be32(NFTA_BITWISE_DREG, NFT_REG_1)
            .put_be32(NFTA_BITWISE_LEN, length)
            .nest(NFTA_BITWISE_MASK, data(mask))
            .nest(NFTA_BITWISE_XOR, data(xor));
        self.add("bitwise", bitwise)
    }

    pub(super) fn lookup(self, set: &str, inverted: bool) -> Self {
        let mut lookup = Attributes::new()
            .put_text(NFTA_LOOKUP_SET, set)
            .put_be32(NFTA_LOOKUP_SREG, NFT_REG_1);
        if inverted {
            lookup = lookup.put_be32(NFTA_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
        }
        self.add("lookup", lookup)
    }

    /// Hashes the `length` bytes in register 2 to a number below `modulus`.
    pub(super) fn jhash(self, length: u32, modulus: u32, seed: u32) -> Self {
        let hash = Attributes::new()
            .put_be32(NFTA_HASH_SREG, NFT_REG_2)
            .put_be32(NFTA_HASH_DREG, NFT_REG_1)
            .put_be32(NFTA_HASH_LEN, length)
            .put_be32(NFTA_HASH_MODULUS, modulus)
            .put_be32(NFTA_HASH_SEED, seed)
            .put_be32(NFTA_HASH_TYPE, NFT_HASH_JENKINS);
        self.add("hash", hash)
    }

    pub(super) fn load(self, value: &[u8]) -> Self {
        self.load_into(NFT_REG_1, value)
    }

    pub(super) fn load_into(self, register: u32, value: &[u8]) -> Self {
        let immediate = Attributes::new()
            .put_be32(NFTA_IMMEDIATE_DREG, register)
            .nest(NFTA_IMMEDIATE_DATA, data(value));
        self.add("immediate", immediate)
    }

    pub(super) fn verdict(self, code: u32) -> Self {
        self.ended(Attributes::new().put_be32(NFTA_VERDICT_CODE, code))
    }

    pub(super) fn goto(self, chain: &str) -> Self {
        let verdict = Attributes::new()
            .put_be32(NFTA_VERDICT_CODE, NFT_GOTO.cast_unsigned())
            .put_text(NFTA_VERDICT_CHAIN, chain);
        self.ended(verdict)
    }

    fn ended(self, verdict: Attributes) -> Self {
        let immediate = Attributes::new()
            .put_be32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT)
            .nest(
                NFTA_IMMEDIATE_DATA,
                Attributes::new().nest(NFTA_DATA_VERDICT, verdict),
            );
        self.add("immediate", immediate)
    }

    pub(super) fn counter(self) -> Self {
        self.add("counter", Attributes::new())
    }

    /// The expression that counts the packets of an element.
    pub(super) fn counter_of_element() -> Attributes {
        Attributes::new()
            .put_text(NFTA_EXPR_NAME, "counter")
            .nest(NFTA_EXPR_DATA, Attributes::new())
    }

    /// Adds the packet to a named counter of the table.
    pub(super) fn counter_named(self, name: &str) -> Self {
        let reference = Attributes::new()
            .put_be32(NFTA_OBJREF_IMM_TYPE, NFT_OBJECT_COUNTER)
            .put_text(NFTA_OBJREF_IMM_NAME, name);
        self.add("objref", reference)
    }

    /// Answers a TCP packet with a reset, and drops the packet.
    pub(super) fn reset(self) -> Self {
        let kind = Attributes::new().put_be32(NFTA_REJECT_TYPE, NFT_REJECT_TCP_RST);
        self.meta(NFT_META_L4PROTO)
            .compare(NFT_CMP_EQ, &[IPPROTO_TCP])
            .counter()
            .add("reject", kind)
    }

    pub(super) fn masquerade(self) -> Self {
        self.add("masq", Attributes::new())
    }

    /// Source translation with flags of `NF_NAT_RANGE_…`.
    pub(super) fn snat(self, to: IpAddr, flags: u32) -> Self {
        let family = match to {
            IpAddr::V4(_) => NFPROTO_IPV4,
            IpAddr::V6(_) => NFPROTO_IPV6,
        };
        let nat = Attributes::new()
            .put_be32(NFTA_NAT_TYPE, NFT_NAT_SNAT)
            .put_be32(NFTA_NAT_FAMILY, u32::from(family))
            .put_be32(NFTA_NAT_REG_ADDR_MIN, NFT_REG_1);
        // The kernel sets the flag of the address by itself.
        let nat = match flags {
            NF_NAT_RANGE_MAP_IPS => nat,
            flags => nat.put_be32(NFTA_NAT_FLAGS, flags),
        };
        self.load(&octets(to)).add("nat", nat)
    }

    /// Compares the address at `place` (offset, length) of the IP header with a prefix.
    pub(super) fn prefix(self, place: (u32, u32), operator: u32, prefix: IpNet) -> Self {
        let loaded = self.network_header(NFT_REG_1, place);
        let masked = if prefix.prefix_len() == prefix.max_prefix_len() {
            loaded
        } else {
            let mask = octets(prefix.netmask());
            let none = vec![0; mask.len()];
            loaded.bitwise(&mask, &none)
        };
        masked.compare(operator, &octets(prefix.network()))
    }
}

/// Matches TCP packets with SYN and without RST.
pub(super) fn syn(expressions: Expressions) -> Expressions {
    expressions
        .meta(NFT_META_L4PROTO)
        .compare(NFT_CMP_EQ, &[IPPROTO_TCP])
        .transport_header(TCP_FLAGS)
        .bitwise(&[TCP_SYN | TCP_RST], &[0])
        .compare(NFT_CMP_EQ, &[TCP_SYN])
}

/// Matches TCP packets without SYN, or with ACK.
pub(super) fn not_opening(expressions: Expressions) -> Expressions {
    expressions
        .transport_header(TCP_FLAGS)
        .bitwise(&[TCP_SYN | TCP_ACK], &[0])
        .compare(NFT_CMP_NEQ, &[TCP_SYN])
}
