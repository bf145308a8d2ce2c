//! A packet filter in the kernel for route notifications. On a host with a full routing table, a
//! routing daemon changes thousands of foreign routes a second, and waking for each costs more than
//! repairing ours. Our own changes are filtered too: with their notifications, a first installation
//! of 16,000 routes would take half as long again and overrun the listener.
//!
//! Classic BPF over the netlink message (Documentation/networking/filter.rst). Loads are
//! big-endian and message fields are in the host's order, so that the operands of comparisons are
//! swapped.

use socket2::SockFilter;

use crate::types::TableId;

// linux/bpf_common.h.
const LD_H_ABS: u16 = 0x28;
const LD_B_ABS: u16 = 0x30;
const LD_W_ABS: u16 = 0x20;
const LD_W_IND: u16 = 0x40;
const LD_IMM: u16 = 0x00;
const LDX_IMM: u16 = 0x01;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const TAX: u16 = 0x07;
const RET: u16 = 0x06;
/// `SKF_AD_OFF` + `SKF_AD_NLATTR` (linux/filter.h): finds the attribute of type X, searching from
/// offset A.
const NLATTR: u32 = (-0x1000i32 + 12).cast_unsigned();

// linux/rtnetlink.h.
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTA_GATEWAY: u32 = 5;
const RTA_MULTIPATH: u32 = 9;
const RTA_TABLE: u32 = 15;
const RTA_NH_ID: u32 = 30;
const RT_SCOPE_LINK: u32 = 253;
/// `AF_INET` (linux/socket.h).
const AF_INET: u32 = 2;
/// Offset of `nlmsg_type` (`struct nlmsghdr`).
const TYPE: u32 = 4;
/// Offset of `nlmsg_pid`, the port of the socket that made the change.
const PORT: u32 = 12;
/// Offsets of `rtm_family`, `rtm_dst_len`, `rtm_table` and `rtm_scope` (`struct rtmsg`, behind the 16
/// bytes of the header).
const FAMILY: u32 = 16;
const DST_LEN: u32 = 16 + 1;
const TABLE: u32 = 16 + 4;
const SCOPE: u32 = 16 + 6;
/// Offset of `rtm_protocol`.
const PROTOCOL: u32 = 16 + 5;
/// Offset of the attributes: behind the 12 bytes of `struct rtmsg`.
const ATTRIBUTES: u32 = 16 + 12;
/// `rtm_table` of tables above 255, with the number in `RTA_TABLE`.
const COMPAT: u32 = 252;

// linux/rtnetlink.h and linux/neighbour.h.
const RTM_NEWNEIGH: u16 = 28;
const NUD_FAILED: u16 = 0x20;
/// Offset of `ndm_state` (`struct ndmsg`).
const NEIGHBOUR_STATE: u32 = 16 + 8;

/// The length of the widest IPv6 route that is no wide one ([`crate::types::Family::is_wide`]). For IPv4 a few
/// more routes are let through.
const WIDEST_NARROW: u32 = 12;

/// The protocols of routes that no routing daemon installs: `RTPROT_KERNEL`, `_BOOT`, `_STATIC`, `_RA`
/// and `_DHCP` (linux/rtnetlink.h).
pub(super) const OF_ADMINISTRATORS: [u8; 5] = [2, 3, 4, 9, 16];

const ACCEPT: u32 = u32::MAX;
const DROP: u32 = 0;

/// A filter that drops all changes made through these ports, and the routes of other tables than
/// `tables`, except those of the main table that no routing daemon installs, and all its wide routes and
/// connected networks.
pub(super) fn routes_of(tables: &[TableId], own_ports: &[u32]) -> Vec<SockFilter> {
    let kind = |kind: u16| u32::from(u16::from_be_bytes(kind.to_ne_bytes()));
    let mut program = vec![op(LD_W_ABS, PORT)];
    for port in own_ports {
        program.push(jump(u32::from_be_bytes(port.to_ne_bytes()), 0, 1));
        program.push(op(RET, DROP));
    }
    program.extend([
        op(LD_H_ABS, TYPE),
        jump(kind(RTM_NEWROUTE), 2, 0),
        jump(kind(RTM_DELROUTE), 1, 0),
        op(RET, ACCEPT),
        op(LD_B_ABS, TABLE),
    ]);
    let main = in_main();
    program.push(jump(
        TableId::MAIN.0,
        0,
        u8::try_from(main.len()).unwrap_or(u8::MAX),
    ));
    program.extend(main);
    for table in tables.iter().filter(|table| table.0 < COMPAT) {
        accept_if(&mut program, table.0);
    }
    program.extend([
        jump(COMPAT, 1, 0),
        op(RET, DROP),
        op(LDX_IMM, RTA_TABLE),
        op(LD_IMM, ATTRIBUTES),
        op(LD_W_ABS, NLATTR),
        jump(0, 0, 1),
        op(RET, DROP),
        op(TAX, 0),
        // The value follows the attribute's header of 4 bytes.
        op(LD_W_IND, 4),
    ]);
    for table in tables {
        accept_if(&mut program, u32::from_be_bytes(table.0.to_ne_bytes()));
    }
    program.push(op(RET, DROP));
    program
}

/// A filter that drops all notifications of neighbours but those that the kernel has given up.
pub(super) fn failed_neighbours() -> Vec<SockFilter> {
    let number = |number: u16| u32::from(u16::from_be_bytes(number.to_ne_bytes()));
    let mut program = vec![
        op(LD_H_ABS, TYPE),
        jump(number(RTM_NEWNEIGH), 1, 0),
        op(RET, DROP),
        op(LD_H_ABS, NEIGHBOUR_STATE),
    ];
    accept_if(&mut program, number(NUD_FAILED));
    program.push(op(RET, DROP));
    program
}

/// The decision about a route of the main table: accepts defaults and other wide routes, routes that no
/// routing daemon installs, and connected networks, on which a gateway may become reachable. IPv4 marks connected networks by the scope. IPv6 has no such
/// scope: there a connected network is a route without a gateway.
fn in_main() -> Vec<SockFilter> {
    let mut program = vec![
        op(LD_B_ABS, DST_LEN),
        // Wide routes may take ordinary traffic.
        SockFilter::new(JGT, 1, 0, WIDEST_NARROW - 1),
        op(RET, ACCEPT),
        op(LD_B_ABS, PROTOCOL),
    ];
    for protocol in OF_ADMINISTRATORS {
        accept_if(&mut program, protocol.into());
    }
    program.extend([
        op(LD_B_ABS, FAMILY),
        jump(AF_INET, 0, 4),
        op(LD_B_ABS, SCOPE),
    ]);
    accept_if(&mut program, RT_SCOPE_LINK);
    program.push(op(RET, DROP));
    for attribute in [RTA_GATEWAY, RTA_MULTIPATH, RTA_NH_ID] {
        program.extend([
            op(LDX_IMM, attribute),
            op(LD_IMM, ATTRIBUTES),
            op(LD_W_ABS, NLATTR),
            jump(0, 1, 0),
            op(RET, DROP),
        ]);
    }
    program.push(op(RET, ACCEPT));
    program
}

fn op(code: u16, operand: u32) -> SockFilter {
    SockFilter::new(code, 0, 0, operand)
}

/// Compares the loaded value with the operand and skips a number of instructions.
fn jump(operand: u32, if_equal: u8, otherwise: u8) -> SockFilter {
    SockFilter::new(JEQ, if_equal, otherwise, operand)
}

fn accept_if(program: &mut Vec<SockFilter>, operand: u32) {
    program.push(jump(operand, 0, 1));
    program.push(op(RET, ACCEPT));
}
