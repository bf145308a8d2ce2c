//! The firewall policy as a value, independent of the backend.
//!
//! `desired` builds a [`Ruleset`]. A backend of `kernel::firewall` renders the ruleset twice: as
//! canonical text, for the plan and for the comparison with the kernel's state, and in the wire
//! format of the backend.

mod blocked;
pub mod marks;
mod pieces;
mod traffic;

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

pub use crate::types::BackendKind;
use crate::types::{Family, IfIndex, Mark, Realm, Slot};
pub use blocked::{BlockedEntry, BlockedRecord};
pub(crate) use pieces::keeps_flows;
pub use pieces::{Piece, Pieces};
pub use traffic::{
    Direction, DropReason, DroppedTraffic, Path, PathTraffic, Traces, Traffic, WayTraffic,
    WaysTraffic,
};

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

/// The point in the packet's path where the kernel runs a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Before the routing decision, after conntrack: `filter` at priority mangle (-150);
    /// iptables: mangle PREROUTING.
    Prerouting,
    /// Just after [`Hook::Prerouting`]: `filter` at mangle + 1 (-149). Marks of pinned flows beside
    /// iptables, nf_tables only.
    PreroutingPin,
    /// Before the routing decision, after the marks of all other programs: `filter` at the last
    /// priority. nf_tables only: beside iptables the rules lie in a table of their own, since rules of
    /// iptables behind ours could change the mark.
    PreroutingMark,
    /// Forwarded packets, before the rules of other programs: `filter` at the first priority. nf_tables
    /// only. The kernel looks at the policies of IPsec before this point.
    ForwardUnmark,
    /// Packets of the host itself. The kernel routes a packet again when a rule here changes the
    /// mark: type `route` at priority mangle (-150); iptables: mangle OUTPUT.
    OutputReroute,
    /// Just after [`Hook::OutputReroute`]: type `route` at mangle + 1 (-149). Marks of pinned flows
    /// beside iptables, nf_tables only.
    OutputPin,
    /// Forwarded packets: `filter` at forward, priority mangle (-150); iptables: mangle FORWARD.
    Forward,
    /// Just after [`Hook::Forward`]: `filter` at forward, mangle + 1 (-149). Resets of the connections that
    /// the agent has ended. nf_tables only: iptables resets in the table of the administrator's filter.
    ForwardEnded,
    /// All leaving packets, before the marks of their path: `filter` at postrouting, mangle - 2 (-152).
    /// Host role. nf_tables only.
    PostroutingClosed,
    /// Packets that have passed [`Hook::PostroutingClosed`], just before the counters: `filter` at
    /// postrouting, mangle - 1 (-151). Flow marks beside iptables, nf_tables only: iptables cannot match
    /// the next hop.
    PostroutingPin,
    /// All leaving packets, forwarded and local, after the last routing decision and before any
    /// source translation: `filter` at postrouting, priority mangle (-150); iptables: mangle
    /// POSTROUTING.
    PostroutingCount,
    /// Source translation, just before the chains of other programs (srcnat - 5 = 95): the first
    /// nat chain to translate a flow decides. iptables: nat POSTROUTING.
    PostroutingNat,
    /// After source translation: filter at postrouting, srcnat + 50 = 150. A packet with a private
    /// source was not translated. iptables has no hook after translation: the rules lie in mangle
    /// POSTROUTING and match the packets without a flow, which conntrack can't translate. Filters of
    /// an administrator accept packets in filter FORWARD, and would hide rules there.
    PostroutingGuard,
    /// After all translation and all guards: filter at postrouting, srcnat + 60 = 160. Rules see the
    /// source that partners would see. iptables has no such place, so that the rules lie in an
    /// nf_tables table beside iptables.
    PostroutingLast,
}

impl Hook {
    /// True for the chains with the marks that the forward policies look at.
    pub fn is_of_switch(self) -> bool {
        matches!(self, Hook::PreroutingMark | Hook::ForwardUnmark)
    }

    /// True for the chains of pinned flows beside iptables.
    pub fn is_of_pins(self) -> bool {
        matches!(
            self,
            Hook::PreroutingPin | Hook::OutputPin | Hook::PostroutingPin
        )
    }

    /// True for a chain that lies in nf_tables beside iptables too.
    pub fn is_beside_iptables(self) -> bool {
        let further = matches!(
            self,
            Hook::ForwardEnded | Hook::PostroutingClosed | Hook::PostroutingLast
        );
        further || self.is_of_switch() || self.is_of_pins()
    }
}

/// A range of ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports {
    pub first: u16,
    pub last: u16,
}

impl Ports {
    /// The kernel's default of `ip_local_port_range` (net/ipv4/af_inet.c).
    pub const LOCAL: Ports = Ports {
        first: 32_768,
        last: 60_999,
    };

    /// True if the port is in the range.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// The ports outside of the range, from 1 on.
    pub fn others(self) -> Vec<Ports> {
        let below = (self.first > 1).then(|| Ports {
            first: 1,
            last: self.first - 1,
        });
        let above = (self.last < u16::MAX).then(|| Ports {
            first: self.last + 1,
            last: u16::MAX,
        });
        below.into_iter().chain(above).collect()
    }

    /// Reads the value of `ip_local_port_range`.
    pub fn parse(text: &str) -> Option<Ports> {
        let mut words = text.split_whitespace();
        let (first, last) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        (first <= last).then_some(Ports { first, last })
    }
}

/// `FIRST:LAST`, the notation of iptables.
impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.first, self.last)
    }
}

/// A condition of a rule. A rule matches if all of the conditions hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Match {
    /// The packet came in through another interface, or is local.
    NotInputInterface(String),
    InputInterface(String),
    OutputInterface(String),
    /// The packet leaves by the interface with this number, whatever the name: a rename keeps the
    /// number. nftables only.
    OutputIndex(IfIndex),
    Source(IpNet),
    NotSource(IpNet),
    /// The destination is an address of this host (FIB type `local`).
    DestinationIsLocal,
    /// The policy rules lead the destination to a route of this kind, for the packet's mark (`fib daddr
    /// . mark type`). IPv6 only: the kernel asks only the local table about IPv4. nftables only.
    DestinationByMark(RouteKind),
    /// The source is no address of this host (FIB type not `local`).
    SourceNotLocal,
    /// The packet came in by an interface. Packets of this host have none, except those inside a
    /// tunnel, which have the tunnel's.
    Forwarded,
    /// The flow has no entry in conntrack's table yet: the packet opens the flow. In contrast to
    /// [`Match::NewFlow`], the second packet of a flow without answers fails this match.
    OpensFlow,
    /// First packet of a flow (conntrack state `new`).
    NewFlow,
    /// A packet of a flow with packets in both directions (conntrack state `established`), in contrast to
    /// an ICMP error about the flow.
    Established,
    /// An ICMP message that names a nearer router for a destination; only in rules with a family.
    Redirect,
    /// A TCP packet that negotiates the segment size: SYN without RST.
    TcpSyn,
    /// A TCP packet to one of these ports that doesn't open a connection: without SYN, or with ACK.
    TcpAnswer(Ports),
    /// A TCP packet from one of these ports that doesn't open a connection.
    TcpAnswerFrom(Ports),
    /// A datagram to one of these ports from a port of a service (below 1024).
    UdpAnswer(Ports),
    /// A datagram to one of these ports, for a socket with an address of its own: a connected
    /// socket, as clients have, or one bound to an address. Left out of the policy on kernels
    /// without the match.
    UdpWithSocket(Ports),
    /// The packet has the direction of the flow's first packet.
    OriginalDirection,
    /// The packet answers the flow's first direction.
    ReplyDirection,
    /// conntrack can't assign the packet to a flow, or doesn't track the packet: NAT leaves the
    /// addresses unchanged. nftables needs no such condition at [`Hook::PostroutingGuard`], where
    /// rules see the source address after translation, but renders the condition too.
    NotTracked,
    FlowMark(Mark),
    PacketMark(Mark),
    /// The routing decision's next hop (`rt ip nexthop`, `rt ip6 nexthop`); nftables only.
    NextHop(IpAddr),
    /// Any other next hop; nftables only.
    NotNextHop(IpAddr),
    /// The routing decision's next hop is a link-local address, as of a router that advertises itself;
    /// IPv6 and nftables only.
    LinkLocalHop,
    /// The routing decision's destination realm (`rt classid`, `-m realm`); IPv4 only.
    Realm(Realm),
    /// Any other realm, or no realm; IPv4 only.
    NotRealm(Realm),
    /// The destination lies inside a prefix of the list (sorted, disjoint): the substitute where
    /// rules can't match the routing decision.
    DestinationAnyOf(Vec<IpNet>),
    /// The destination lies outside all prefixes of the list.
    DestinationNoneOf(Vec<IpNet>),
    /// The hash of the source address selects one of these slots. A source host keeps the same slot
    /// as long as `of` and `seed` stay.
    SourceSlots {
        /// Each below `of`; sorted.
        slots: Vec<u32>,
        /// At least 2; iptables: at most 32.
        of: u32,
        /// Fixed: without a seed nftables draws a new random seed at each load.
        seed: u32,
    },
}

/// The kind of a route, by the answer of the kernel (`RTN_*`, linux/rtnetlink.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    Unicast,
    Unreachable,
}

/// The effect of a rule, a statement in the words of nftables: a verdict, a translation or a mark.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Statement {
    /// Set the masked bits of the flow's mark; continue with the next rule.
    SetFlowMark(Mark),
    /// Copy the masked bits of the flow's mark to the packet's mark; continue with the next rule.
    RestoreMark {
        mask: u32,
    },
    /// Set the masked bits of the packet's mark; continue with the next rule. nf_tables only.
    SetPacketMark(Mark),
    /// Lower the segment size of a TCP packet with SYN to this limit; never raise it. Continue with
    /// the next rule.
    ClampMss(u16),
    /// Translate the source to this address, and keep the port if no other flow has the port.
    Snat(IpAddr),
    /// Translate the source to this address and to a random port. Two flows that begin at the same
    /// moment rarely get the same port then; the kernel drops the second one at a collision. Tools
    /// and kernels without random ports get [`Statement::Snat`].
    SnatRandomly(IpAddr),
    /// Translate the source to the outgoing interface's address.
    Masquerade,
    /// Count the packet for the path and the rule's family, and skip the later rules of the base chain.
    /// The count outlives the rule: replacing or restoring the policy preserves the number.
    Count(Path),
    /// As [`Statement::Count`], for the way of pinned flows with this slot, 0 for the bypass path. The
    /// traffic of a path is the sum of its ways. nf_tables only.
    CountWay(Slot, Direction),
    /// Leave the packet unchanged and skip the later rules of the base chain.
    Accept,
    Drop,
    /// Answer a TCP packet with a reset, and drop the packet. nf_tables only.
    Reset,
    /// Count the packet for the reason and the rule's family, leave every trace, and drop the packet.
    /// The count outlives the rule.
    DropCounted(DropReason),
    /// As [`Statement::DropCounted`], with these traces alone.
    DropTraced(DropReason, Traces),
}

impl Statement {
    /// The reason and the traces of a counted drop.
    pub fn drops(&self) -> Option<(DropReason, Traces)> {
        match self {
            Statement::DropCounted(reason) => Some((*reason, Traces::ALL)),
            Statement::DropTraced(reason, traces) => Some((*reason, *traces)),
            _ => None,
        }
    }
}

/// A rule: if all `matches` hold for a packet of `family`, `verdict` applies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FwRule {
    /// `None`: both families, unless an address in the rule implies a family.
    pub family: Option<Family>,
    /// In the order of evaluation.
    pub matches: Vec<Match>,
    pub verdict: Statement,
}

/// A base chain: the rules of one hook, in order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Chain {
    pub hook: Hook,
    pub rules: Vec<FwRule>,
}

/// The whole policy. Invariant: at most one chain per hook, in the order of [`Hook`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ruleset {
    pub chains: Vec<Chain>,
}

impl Ruleset {
    /// Adds rules behind those of the same hook.
    pub fn extend(&mut self, hook: Hook, rules: Vec<FwRule>) {
        if rules.is_empty() {
            return;
        }
        let place = self.chains.partition_point(|chain| chain.hook < hook);
        match self.chains.get_mut(place) {
            Some(chain) if chain.hook == hook => chain.rules.extend(rules),
            _ => self.chains.insert(place, Chain { hook, rules }),
        }
    }

    /// Adds rules before those of the same hook.
    pub fn lead(&mut self, hook: Hook, mut rules: Vec<FwRule>) {
        let chain = self.chains.iter_mut().find(|chain| chain.hook == hook);
        if let Some(chain) = chain {
            rules.append(&mut chain.rules);
            chain.rules = rules;
        } else {
            self.extend(hook, rules);
        }
    }
}

/// Our firewall objects in the kernel, as read by a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedFirewall {
    /// Canonical text without counters: equal to the text that the backend renders from the same
    /// [`Ruleset`].
    pub text: Vec<String>,
    /// Input for a rollback to exactly the state read.
    pub snapshot: SavedRules,
}

/// A record of the state read, in a format that only the same backend can replay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SavedRules(pub Vec<u8>);

/// The state of one backend. A failed read is never [`ObservedFirewall::Absent`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObservedFirewall {
    Absent,
    Owned(OwnedFirewall),
    /// An object of our name belongs to another program: a conflict, with the description.
    Foreign(String),
    /// The backend doesn't exist on this host (no nf_tables in the kernel, no binary): the reason.
    Unavailable(String),
    /// The backend exists but refuses to be read (no privilege): the reason.
    Unreadable(String),
}
