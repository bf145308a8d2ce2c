//! Numbers of routing protocols.

/// Routing protocols of other programs (`RTPROT_*`, linux/rtnetlink.h), which delete every route
/// with their number.
pub(super) const TAKEN_PROTOCOLS: [(u8, &str); 19] = [
    (8, "gated"),
    (9, "router advertisements, by the kernel itself"),
    (10, "mrt"),
    (11, "zebra (FRR)"),
    (12, "BIRD"),
    (13, "DECnet routing"),
    (14, "xorp"),
    (15, "netsukuku"),
    (16, "DHCP clients"),
    (17, "multicast routing"),
    (18, "keepalived"),
    (42, "babel"),
    (99, "OpenR"),
    (186, "BGP"),
    (187, "IS-IS"),
    (188, "OSPF"),
    (189, "RIP"),
    (190, "FRR's NHRP"),
    (192, "EIGRP"),
];
