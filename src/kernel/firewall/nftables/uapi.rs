//! Constants of linux/netfilter/nf_tables.h, nfnetlink.h and related headers, with the kernel's
//! names.

/// `NETLINK_NETFILTER` (linux/netlink.h).
pub(super) const NETLINK_NETFILTER: isize = 12;
pub(super) const NFPROTO_UNSPEC: u8 = 0;
pub(super) const NFPROTO_INET: u8 = 1;
pub(super) const NFPROTO_IPV4: u8 = 2;
pub(super) const NFPROTO_IPV6: u8 = 10;

pub(super) const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
pub(super) const NFNL_MSG_BATCH_END: u16 = 0x11;
pub(super) const NFNL_BATCH_GENID: u16 = 1;

/// `NFT_MSG_…` with the subsystem in the high byte, as in `nlmsg_type`.
pub(super) mod msg {
    /// `NFNL_SUBSYS_NFTABLES`.
    pub const SUBSYSTEM: u16 = 10;

    const fn of(number: u16) -> u16 {
        (SUBSYSTEM << 8) | number
    }
    pub const NEWTABLE: u16 = of(0);
    pub const GETTABLE: u16 = of(1);
    pub const DELTABLE: u16 = of(2);
    pub const NEWCHAIN: u16 = of(3);
    pub const GETCHAIN: u16 = of(4);
    pub const NEWRULE: u16 = of(6);
    pub const GETRULE: u16 = of(7);
    pub const NEWSET: u16 = of(9);
    pub const GETSET: u16 = of(10);
    pub const NEWSETELEM: u16 = of(12);
    pub const GETSETELEM: u16 = of(13);
    pub const GETGEN: u16 = of(16);
    pub const NEWOBJ: u16 = of(18);
    pub const GETOBJ: u16 = of(19);
}

pub(super) const NFTA_GEN_ID: u16 = 1;
pub(super) const NFTA_LIST_ELEM: u16 = 1;

pub(super) const NFTA_TABLE_NAME: u16 = 1;
pub(super) const NFTA_TABLE_FLAGS: u16 = 2;
pub(super) const NFTA_TABLE_USE: u16 = 3;
pub(super) const NFTA_TABLE_USERDATA: u16 = 6;
pub(super) const NFTA_TABLE_OWNER: u16 = 7;
/// Comment in a table's user data (`NFTNL_UDATA_TABLE_COMMENT`, libnftnl/udata.h).
pub(super) const UDATA_TABLE_COMMENT: u8 = 0;
/// Comment in a rule's user data (`NFTNL_UDATA_RULE_COMMENT`, libnftnl/udata.h).
pub(super) const UDATA_RULE_COMMENT: u8 = 0;
pub(super) const NFT_TABLE_F_DORMANT: u32 = 1;
/// Since Linux 5.12.
pub(super) const NFT_TABLE_F_OWNER: u32 = 2;
/// Since Linux 6.9.
pub(super) const NFT_TABLE_F_PERSIST: u32 = 4;

pub(super) const NFTA_CHAIN_TABLE: u16 = 1;
pub(super) const NFTA_CHAIN_HANDLE: u16 = 2;
pub(super) const NFTA_CHAIN_NAME: u16 = 3;
pub(super) const NFTA_CHAIN_HOOK: u16 = 4;
pub(super) const NFTA_CHAIN_POLICY: u16 = 5;
pub(super) const NFTA_CHAIN_USE: u16 = 6;
pub(super) const NFTA_CHAIN_TYPE: u16 = 7;
pub(super) const NFTA_CHAIN_COUNTERS: u16 = 8;
pub(super) const NFTA_CHAIN_PAD: u16 = 9;
pub(super) const NFTA_CHAIN_FLAGS: u16 = 10;
pub(super) const NFTA_HOOK_HOOKNUM: u16 = 1;
pub(super) const NFTA_HOOK_PRIORITY: u16 = 2;
pub(super) const NFT_CHAIN_BASE: u32 = 1;
pub(super) const NF_INET_PRE_ROUTING: u32 = 0;
pub(super) const NF_INET_LOCAL_OUT: u32 = 3;
pub(super) const NF_INET_LOCAL_IN: u32 = 1;
pub(super) const NF_INET_FORWARD: u32 = 2;
pub(super) const NF_INET_POST_ROUTING: u32 = 4;
pub(super) const NF_DROP: u32 = 0;
pub(super) const NF_ACCEPT: u32 = 1;

pub(super) const NFTA_RULE_TABLE: u16 = 1;
pub(super) const NFTA_RULE_CHAIN: u16 = 2;
pub(super) const NFTA_RULE_EXPRESSIONS: u16 = 4;
pub(super) const NFTA_RULE_USERDATA: u16 = 7;

pub(super) const NFTA_SET_TABLE: u16 = 1;
pub(super) const NFTA_SET_NAME: u16 = 2;
pub(super) const NFTA_SET_FLAGS: u16 = 3;
pub(super) const NFTA_SET_KEY_TYPE: u16 = 4;
pub(super) const NFTA_SET_KEY_LEN: u16 = 5;
pub(super) const NFTA_SET_DESC: u16 = 9;
pub(super) const NFTA_SET_DESC_SIZE: u16 = 1;
pub(super) const NFTA_SET_ID: u16 = 10;
/// Milliseconds, as those of elements.
pub(super) const NFTA_SET_TIMEOUT: u16 = 11;
pub(super) const NFTA_SET_USERDATA: u16 = 13;
pub(super) const NFTA_SET_PAD: u16 = 14;
pub(super) const NFTA_SET_HANDLE: u16 = 16;
/// Since Linux 6.16: the kernel's choice of data structure, and the number of elements.
pub(super) const NFTA_SET_TYPE: u16 = 19;
pub(super) const NFTA_SET_COUNT: u16 = 20;
pub(super) const NFT_SET_ANONYMOUS: u32 = 1;
pub(super) const NFT_SET_CONSTANT: u32 = 2;
pub(super) const NFT_SET_INTERVAL: u32 = 4;
pub(super) const NFT_SET_TIMEOUT: u32 = 16;
/// Rules add elements.
pub(super) const NFT_SET_EVAL: u32 = 32;
/// The names of the set flags in nft, lowest bit first.
pub(super) const SET_FLAG_NAMES: [&str; 9] = [
    "anonymous",
    "constant",
    "interval",
    "map",
    "timeout",
    "dynamic",
    "object",
    "concat",
    "expr",
];
/// Key types in the numbering of nft (`TYPE_INTEGER`, `TYPE_IPADDR`, `TYPE_IP6ADDR`, datatype.h of nftables).
pub(super) const TYPE_INTEGER: u32 = 4;
pub(super) const TYPE_IPADDR: u32 = 7;
pub(super) const TYPE_IP6ADDR: u32 = 8;
pub(super) const TYPE_INET_PROTOCOL: u32 = 12;
pub(super) const TYPE_INET_SERVICE: u32 = 13;
/// Bits of each type in the number of a concatenation (`TYPE_BITS`, datatype.h of nftables).
pub(super) const TYPE_BITS: u32 = 6;

pub(super) const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
pub(super) const NFTA_SET_ELEM_LIST_SET: u16 = 2;
pub(super) const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
pub(super) const NFTA_SET_ELEM_KEY: u16 = 1;
pub(super) const NFTA_SET_ELEM_FLAGS: u16 = 3;
pub(super) const NFTA_SET_ELEM_EXPIRATION: u16 = 5;
pub(super) const NFTA_SET_ELEM_USERDATA: u16 = 6;
pub(super) const NFTA_SET_ELEM_EXPR: u16 = 7;
pub(super) const NFT_SET_ELEM_INTERVAL_END: u32 = 1;

pub(super) const NFTA_OBJ_TABLE: u16 = 1;
pub(super) const NFTA_OBJ_NAME: u16 = 2;
pub(super) const NFTA_OBJ_TYPE: u16 = 3;
pub(super) const NFTA_OBJ_DATA: u16 = 4;
pub(super) const NFT_OBJECT_COUNTER: u32 = 1;
pub(super) const NFTA_COUNTER_BYTES: u16 = 1;
pub(super) const NFTA_COUNTER_PACKETS: u16 = 2;
pub(super) const NFTA_OBJREF_IMM_TYPE: u16 = 1;
pub(super) const NFTA_OBJREF_IMM_NAME: u16 = 2;

pub(super) const NFTA_EXPR_NAME: u16 = 1;
pub(super) const NFTA_EXPR_DATA: u16 = 2;
pub(super) const NFTA_DATA_VALUE: u16 = 1;
pub(super) const NFTA_DATA_VERDICT: u16 = 2;
pub(super) const NFTA_VERDICT_CODE: u16 = 1;
pub(super) const NFTA_VERDICT_CHAIN: u16 = 2;
/// The verdict `goto`: later rules of the calling chain don't see the packet.
pub(super) const NFT_GOTO: i32 = -4;
pub(super) const NFT_REG_VERDICT: u32 = 0;
pub(super) const NFT_REG_1: u32 = 1;
pub(super) const NFT_REG_2: u32 = 2;
pub(super) const NFT_REG32_00: u32 = 8;

pub(super) const NFTA_META_DREG: u16 = 1;
pub(super) const NFTA_META_KEY: u16 = 2;
pub(super) const NFTA_META_SREG: u16 = 3;
pub(super) const NFT_META_MARK: u32 = 3;
pub(super) const NFT_META_IIF: u32 = 4;
pub(super) const NFT_META_OIF: u32 = 5;
pub(super) const NFT_META_IIFNAME: u32 = 6;
pub(super) const NFT_META_OIFNAME: u32 = 7;
pub(super) const NFT_META_NFPROTO: u32 = 15;
pub(super) const NFT_META_L4PROTO: u32 = 16;

pub(super) const NFTA_CT_DREG: u16 = 1;
pub(super) const NFTA_CT_KEY: u16 = 2;
pub(super) const NFTA_CT_DIRECTION: u16 = 3;
pub(super) const NFTA_CT_SREG: u16 = 4;
pub(super) const NFT_CT_SRC_IP: u32 = 19;
pub(super) const NFT_CT_SRC_IP6: u32 = 21;
pub(super) const NFT_CT_STATE: u32 = 0;
pub(super) const NFT_CT_DIRECTION: u32 = 1;
pub(super) const NFT_CT_STATUS: u32 = 2;
pub(super) const NFT_CT_MARK: u32 = 3;
/// `IPS_CONFIRMED` (linux/netfilter/nf_conntrack_common.h).
pub(super) const CT_STATUS_CONFIRMED: u32 = 8;
/// `NF_CT_STATE_…` bits (linux/netfilter/nf_conntrack_common.h) with the names in nft.
pub(super) const CT_STATES: [(u32, &str); 5] = [
    (1, "invalid"),
    (2, "established"),
    (4, "related"),
    (8, "new"),
    (64, "untracked"),
];
pub(super) const CT_STATE_ESTABLISHED: u32 = 2;
pub(super) const CT_STATE_NEW: u32 = 8;
/// `IP_CT_DIR_…` (linux/netfilter/nf_conntrack_tuple_common.h).
pub(super) const CT_DIR_ORIGINAL: u8 = 0;
pub(super) const CT_DIR_REPLY: u8 = 1;
pub(super) const CT_STATE_INVALID_UNTRACKED: u32 = 1 | 64;

pub(super) const NFTA_RT_DREG: u16 = 1;
pub(super) const NFTA_RT_KEY: u16 = 2;
pub(super) const NFT_RT_CLASSID: u32 = 0;
pub(super) const NFT_RT_NEXTHOP4: u32 = 1;
pub(super) const NFT_RT_NEXTHOP6: u32 = 2;

pub(super) const NFTA_FIB_DREG: u16 = 1;
pub(super) const NFTA_FIB_RESULT: u16 = 2;
pub(super) const NFTA_FIB_FLAGS: u16 = 3;
pub(super) const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
pub(super) const NFTA_FIB_F_SADDR: u32 = 1;
pub(super) const NFTA_FIB_F_DADDR: u32 = 2;
pub(super) const NFTA_FIB_F_MARK: u32 = 4;
// Kinds of routes (linux/rtnetlink.h).
pub(super) const RTN_UNICAST: u32 = 1;
pub(super) const RTN_LOCAL: u32 = 2;
pub(super) const RTN_UNREACHABLE: u32 = 7;

pub(super) const NFTA_PAYLOAD_DREG: u16 = 1;
pub(super) const NFTA_PAYLOAD_BASE: u16 = 2;
pub(super) const NFTA_PAYLOAD_OFFSET: u16 = 3;
pub(super) const NFTA_PAYLOAD_LEN: u16 = 4;
pub(super) const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
pub(super) const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
/// Offset and length of the fragment offset in the header of IPv4, and the bits of the offset (RFC 791).
pub(super) const FRAGMENT_OFFSET: (u32, u32) = (6, 2);
pub(super) const FRAGMENT_MASK: [u8; 2] = [0x1f, 0xff];
/// Offset and length in the headers of TCP and UDP (RFC 9293 §3.1, RFC 768).
pub(super) const SOURCE_PORT: (u32, u32) = (0, 2);
pub(super) const DESTINATION_PORT: (u32, u32) = (2, 2);
pub(super) const TCP_FLAGS: (u32, u32) = (13, 1);
pub(super) const ICMP_TYPE: (u32, u32) = (0, 1);
/// `ICMP_REDIRECT` of linux/icmp.h, and `NDISC_REDIRECT` of net/ndisc.h.
pub(super) const ICMP_REDIRECT: u8 = 5;
pub(super) const NDISC_REDIRECT: u8 = 137;
pub(super) const TCP_SYN: u8 = 0x02;
pub(super) const TCP_RST: u8 = 0x04;
pub(super) const TCP_ACK: u8 = 0x10;

pub(super) const NFTA_EXTHDR_TYPE: u16 = 2;
pub(super) const NFTA_EXTHDR_OFFSET: u16 = 3;
pub(super) const NFTA_EXTHDR_LEN: u16 = 4;
pub(super) const NFTA_EXTHDR_FLAGS: u16 = 5;
pub(super) const NFTA_EXTHDR_OP: u16 = 6;
pub(super) const NFTA_EXTHDR_SREG: u16 = 7;
pub(super) const NFT_EXTHDR_OP_TCPOPT: u32 = 1;
/// The TCP option of the segment size: kind, and place of the value (RFC 9293 §3.2).
pub(super) const TCPOPT_MAXSEG: u8 = 2;
pub(super) const MAXSEG_PLACE: (u32, u32) = (2, 2);

pub(super) const IPPROTO_TCP: u8 = 6;
pub(super) const IPPROTO_UDP: u8 = 17;
pub(super) const IPPROTO_ICMP: u8 = 1;
pub(super) const IPPROTO_ICMPV6: u8 = 58;

pub(super) const NFTA_SOCKET_KEY: u16 = 1;
pub(super) const NFTA_SOCKET_DREG: u16 = 2;
/// Since Linux 5.10.
pub(super) const NFT_SOCKET_WILDCARD: u32 = 2;

pub(super) const NFTA_CMP_SREG: u16 = 1;
pub(super) const NFTA_CMP_OP: u16 = 2;
pub(super) const NFTA_CMP_DATA: u16 = 3;
pub(super) const NFT_CMP_EQ: u32 = 0;
pub(super) const NFT_CMP_NEQ: u32 = 1;
pub(super) const NFT_CMP_LT: u32 = 2;
pub(super) const NFT_CMP_LTE: u32 = 3;
pub(super) const NFT_CMP_GT: u32 = 4;
pub(super) const NFT_CMP_GTE: u32 = 5;

pub(super) const NFTA_BITWISE_SREG: u16 = 1;
pub(super) const NFTA_BITWISE_DREG: u16 = 2;
pub(super) const NFTA_BITWISE_LEN: u16 = 3;
pub(super) const NFTA_BITWISE_MASK: u16 = 4;
pub(super) const NFTA_BITWISE_XOR: u16 = 5;
pub(super) const NFTA_BITWISE_OP: u16 = 6;

pub(super) const NFTA_LOOKUP_SET: u16 = 1;
pub(super) const NFTA_LOOKUP_SREG: u16 = 2;
pub(super) const NFTA_LOOKUP_FLAGS: u16 = 5;
pub(super) const NFT_LOOKUP_F_INV: u32 = 1;

pub(super) const NFTA_DYNSET_SET_NAME: u16 = 1;
pub(super) const NFTA_DYNSET_OP: u16 = 3;
pub(super) const NFTA_DYNSET_SREG_KEY: u16 = 4;
pub(super) const NFTA_DYNSET_TIMEOUT: u16 = 6;
pub(super) const NFTA_DYNSET_EXPR: u16 = 7;
pub(super) const NFTA_DYNSET_PAD: u16 = 8;
pub(super) const NFTA_DYNSET_FLAGS: u16 = 9;
pub(super) const NFT_DYNSET_OP_ADD: u32 = 0;
pub(super) const NFT_DYNSET_OP_UPDATE: u32 = 1;

pub(super) const NFTA_LIMIT_RATE: u16 = 1;
pub(super) const NFTA_LIMIT_UNIT: u16 = 2;
pub(super) const NFTA_LIMIT_BURST: u16 = 3;
pub(super) const NFTA_LIMIT_TYPE: u16 = 4;
pub(super) const NFTA_LIMIT_FLAGS: u16 = 5;
pub(super) const NFTA_LIMIT_PAD: u16 = 6;

pub(super) const NFTA_REJECT_TYPE: u16 = 1;
pub(super) const NFT_REJECT_TCP_RST: u32 = 1;

pub(super) const NFTA_LOG_PREFIX: u16 = 2;
pub(super) const NFTA_LOG_LEVEL: u16 = 5;
pub(super) const NFTA_LOG_FLAGS: u16 = 6;
/// `LOGLEVEL_WARNING` (linux/kern_levels.h), the kernel's default.
pub(super) const LOG_WARNING: u32 = 4;
/// The user of the socket (`NF_LOG_UID`, linux/netfilter/nf_log.h).
pub(super) const NF_LOG_UID: u32 = 8;

pub(super) const NFTA_IMMEDIATE_DREG: u16 = 1;
pub(super) const NFTA_IMMEDIATE_DATA: u16 = 2;

pub(super) const NFTA_HASH_SREG: u16 = 1;
pub(super) const NFTA_HASH_DREG: u16 = 2;
pub(super) const NFTA_HASH_LEN: u16 = 3;
pub(super) const NFTA_HASH_MODULUS: u16 = 4;
pub(super) const NFTA_HASH_SEED: u16 = 5;
pub(super) const NFTA_HASH_TYPE: u16 = 7;
pub(super) const NFT_HASH_JENKINS: u32 = 0;

pub(super) const NFTA_NAT_TYPE: u16 = 1;
pub(super) const NFTA_NAT_FAMILY: u16 = 2;
pub(super) const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
pub(super) const NFTA_NAT_REG_ADDR_MAX: u16 = 4;
pub(super) const NFTA_NAT_FLAGS: u16 = 7;
pub(super) const NF_NAT_RANGE_MAP_IPS: u32 = 1;
/// With `NF_NAT_RANGE_PROTO_RANDOM_FULLY` (linux/netfilter/nf_nat.h).
pub(super) const NF_NAT_RANGE_RANDOM: u32 = NF_NAT_RANGE_MAP_IPS | 1 << 4;
pub(super) const NFT_NAT_SNAT: u32 = 0;

/// The name, the revision and the data of an extension of iptables
/// (linux/netfilter/nf_tables_compat.h).
pub(super) const NFTA_XT_NAME: u16 = 1;
pub(super) const NFTA_XT_REV: u16 = 2;
pub(super) const NFTA_XT_INFO: u16 = 3;
