//! Offsets of our rules in the priority range. The gaps are for rules of the administrator between ours.

/// Flows opened from outside skip the other rules.
pub const INBOUND: u32 = 0;
/// The first rule for answers of a host whose egress is shut before the first pass.
pub const ANSWERS: u32 = 1;
/// NAT role: the tables of pinned flows, one rule for each path: the marks of the rules are disjoint.
pub const PINS_OF_NAT: u32 = 9;
/// The main table without its default.
pub const MAIN: u32 = 10;
/// The rules of IPv6 look-ups of the firewall: is the destination a bypass prefix?
pub const PROOF: u32 = 11;
/// Host role: the tables of pinned flows, one rule for each slot. The administrator's own routes take
/// precedence, and the way back of the reverse path filter is theirs.
pub const PINS: u32 = 14;
/// The bypass table.
pub const BYPASS: u32 = 20;
/// The egress table.
pub const EGRESS: u32 = 30;
/// Marked packets of a host whose egress is shut before the first pass.
pub const OWN: u32 = 35;
/// Two rules for each further incoming interface of a closed path: the main table without its
/// default, and the egress table.
pub const FURTHER: u32 = 40;
/// The limit for rules of one kind, one for each incoming interface.
pub const MOST: usize = 10;
/// The limit for incoming interfaces of a closed path.
pub const MOST_CLOSED: usize = 39;
