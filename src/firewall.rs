//! The firewall policy as a value: chains and rules in words that both backends can speak.
//!
//! `desired` builds a [`Ruleset`]; a backend of `kernel::firewall` renders it to canonical text (for
//! the plan and for the comparison with what the kernel holds) and to its own wire format.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use crate::types::BackendKind;
use crate::types::{Family, Mark, PerFamily, Realm};

/// The kernel interface that holds the rules of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    /// nf_tables: the nftables backend, and iptables built for nf_tables.
    Nft,
    /// The x_tables of iptables-legacy.
    Legacy,
}

impl Variant {
    /// True if the kernel notifies listeners of changes to the rules. x_tables has no such
    /// notification: drift is only found by reading the rules again.
    pub fn announces_changes(self) -> bool {
        self == Variant::Nft
    }
}

impl BackendKind {
    /// True if a rule can match the next hop of the routing decision (`rt ip nexthop`). iptables
    /// has no such match.
    pub fn matches_next_hop(self) -> bool {
        self == BackendKind::Nftables
    }

    /// True if reading the counters starts no process.
    pub fn counters_are_cheap(self) -> bool {
        self == BackendKind::Nftables
    }

    /// True if removal can delete our objects beside a foreign object of our name: iptables chains
    /// are owned one by one, an nf_tables table is owned as a whole.
    pub fn removes_beside_foreign(self) -> bool {
        self == BackendKind::Iptables
    }
}

/// Where a chain hangs in the packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Before the routing decision, after conntrack: `filter` at priority mangle (-150);
    /// iptables: mangle PREROUTING.
    Prerouting,
    /// Packets of the host itself; a changed mark routes them again: type `route` at priority
    /// mangle (-150); iptables: mangle OUTPUT.
    OutputReroute,
    /// Everything that leaves, forwarded or the host's own, after the last routing decision and
    /// before any source translation: `filter` at postrouting, priority mangle (-150); iptables:
    /// mangle POSTROUTING.
    PostroutingCount,
    /// Source translation, just before everybody else's (srcnat - 5 = 95), since of two nat
    /// chains the first that translates wins; iptables: nat POSTROUTING.
    PostroutingNat,
    /// After source translation: filter at postrouting, srcnat + 50 = 150. What still carries a
    /// private source here was never translated. iptables has no such hook: it takes
    /// filter FORWARD and matches the packets that conntrack can't translate.
    PostroutingGuard,
}

/// A condition of a rule; all of a rule's conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Match {
    /// The packet did not come in through this interface.
    NotInputInterface(String),
    /// The packet leaves through this interface.
    OutputInterface(String),
    /// Source address inside the prefix.
    Source(IpNet),
    /// Source address outside the prefix.
    NotSource(IpNet),
    /// Destination is an address of this host (FIB type `local`).
    DestinationIsLocal,
    /// Source is no address of this host (FIB type not `local`).
    SourceNotLocal,
    /// First packet of a flow (conntrack state `new`).
    NewFlow,
    /// The packet goes the way of the flow's first packet.
    OriginalDirection,
    /// The packet is an answer.
    ReplyDirection,
    /// Packet that conntrack can't assign to a flow, or doesn't track: NAT leaves it as it is.
    /// The nftables backend doesn't need it at [`Hook::PostroutingGuard`] (it sees the source
    /// itself) but renders it all the same.
    NotTracked,
    /// The flow's mark.
    FlowMark(Mark),
    /// The packet's own mark.
    PacketMark(Mark),
    /// The routing decision's next hop (`rt ip nexthop`, `rt ip6 nexthop`); nftables only.
    NextHop(IpAddr),
    /// Another next hop than this; nftables only.
    NotNextHop(IpAddr),
    /// The routing decision's destination realm (`rt classid`, `-m realm`); IPv4 only.
    Realm(Realm),
    /// Another realm than this, or none; IPv4 only.
    NotRealm(Realm),
    /// Destination inside any of the prefixes (sorted, disjoint): the substitute where the
    /// routing decision can't be asked.
    DestinationAnyOf(Vec<IpNet>),
    /// Not inside any of the prefixes.
    DestinationNoneOf(Vec<IpNet>),
    /// Every source host has one of `buckets` numbers, always the same: its own is `bucket`.
    SourceBucket {
        /// This rule's number, below `buckets`.
        bucket: u32,
        /// How many there are (2 to 32).
        buckets: u32,
        /// The fixed seed: without one, nftables draws a new one at each load.
        seed: u32,
    },
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Write these bits of the flow's mark, leave the others; go on.
    SetFlowMark(Mark),
    /// Copy the flow mark's bits inside the mask to the packet's mark, leave the others; go on.
    RestoreMark {
        /// The bits.
        mask: u32,
    },
    /// Translate the source to this address.
    Snat(IpAddr),
    /// Translate the source to the outgoing interface's address.
    Masquerade,
    /// Count the packet for this path and its family; go on. The rule says its family. The count
    /// outlives the rule: whoever replaces or restores the policy carries it on.
    Count(Path),
    /// Leave the packet as it is; no later rule of this base chain sees it.
    Accept,
    /// Drop it.
    Drop,
}

/// One of the two paths, as far as traffic is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// Past the NAT.
    Bypass,
    /// Through it.
    Egress,
}

words!(Path { Bypass => "bypass", Egress => "egress" });

/// Traffic of one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets, both directions.
    pub packets: u64,
    /// Bytes at the IP layer, both directions.
    pub bytes: u64,
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, more: Traffic) {
        self.packets = self.packets.saturating_add(more.packets);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }
}

/// Traffic by path and family, since the counters began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PathTraffic {
    /// What took the bypass path.
    pub bypass: PerFamily<Traffic>,
    /// What took the egress path.
    pub egress: PerFamily<Traffic>,
}

impl PathTraffic {
    /// One path's.
    pub fn of(&self, path: Path) -> &PerFamily<Traffic> {
        match path {
            Path::Bypass => &self.bypass,
            Path::Egress => &self.egress,
        }
    }

    /// One path's, to be changed.
    pub fn of_mut(&mut self, path: Path) -> &mut PerFamily<Traffic> {
        match path {
            Path::Bypass => &mut self.bypass,
            Path::Egress => &mut self.egress,
        }
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FwRule {
    /// The family it speaks of; `None` means both.
    pub family: Option<Family>,
    /// Its conditions, in the order in which they are checked.
    pub matches: Vec<Match>,
    /// Its effect.
    pub verdict: Verdict,
}

/// One chain, hooked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Chain {
    /// Its hook; a ruleset has at most one chain a hook.
    pub hook: Hook,
    /// Its rules, in order.
    pub rules: Vec<FwRule>,
}

/// The whole policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ruleset {
    /// Its chains, ordered by hook.
    pub chains: Vec<Chain>,
}

/// Our own firewall objects as a backend reads them back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedFirewall {
    /// Canonical text, line by line, counters left out: comparable with what the backend renders
    /// from a [`Ruleset`].
    pub text: Vec<String>,
    /// What the backend needs to put exactly this back (rollback); meaningless to others.
    pub snapshot: Snapshot,
}

/// A backend's own record of what it read, replayable by the same backend.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot(pub Vec<u8>);

/// What one backend finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObservedFirewall {
    /// Nothing of ours, nothing in our way.
    Absent,
    /// Ours.
    Owned(OwnedFirewall),
    /// Something of our name that isn't ours, described: a conflict.
    Foreign(String),
    /// The backend doesn't exist here (no nf_tables in the kernel, no binary): the reason.
    Unavailable(String),
    /// It exists but can't be read (no privilege): the reason. Never taken for empty.
    Unreadable(String),
}
