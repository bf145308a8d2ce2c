//! All foreign objects in the calling thread's namespace, byte for byte as in the kernel's
//! messages. Read in our own process, since a test reads them a thousand times.

use trailblazer::kernel::netlink::NetlinkSocket;

/// The protocol numbers of our objects in the scenarios.
const OURS: [u8; 2] = [83, 84];
// linux/rtnetlink.h, linux/nexthop.h, linux/fib_rules.h.
const RTM_GETROUTE: u16 = 26;
const RTM_GETRULE: u16 = 34;
const RTM_GETNEXTHOP: u16 = 106;
const RTPROT_KERNEL: u8 = 2;
const RTA_TABLE: u16 = 15;
const RTA_CACHEINFO: u16 = 12;
const FRA_PROTOCOL: u16 = 21;
const HEADER: usize = 12;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Routes, rules and nexthops, each as the kernel's message. The firewall takes a process to ask:
/// `Ns::foreign_nft`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    messages: Vec<Vec<u8>>,
}

/// Which routes a snapshot includes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routes {
    All,
    /// Without routes of the main table, which the kernel removes with their link.
    WithoutMain,
}

impl Foreign {
    /// Reads a snapshot.
    pub fn read(routes: Routes) -> Foreign {
        let mut socket = NetlinkSocket::open().expect("a route socket");
        let mut messages = Vec::new();
        for family in [AF_INET, AF_INET6] {
            messages.extend(dump(&mut socket, RTM_GETROUTE, family, |payload| {
                route(payload, routes)
            }));
            messages.extend(dump(&mut socket, RTM_GETRULE, family, rule));
        }
        messages.extend(dump(&mut socket, RTM_GETNEXTHOP, 0, |payload| {
            (!OURS.contains(&payload[2])).then(|| payload.to_vec())
        }));
        messages.sort();
        Foreign { messages }
    }

    /// The number of messages, as a safeguard: two empty snapshots are always equal.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Panics unless both are the same.
    #[track_caller]
    pub fn assert_same(&self, after: &Foreign, when: &str) {
        for message in &self.messages {
            assert!(
                after.messages.contains(message),
                "{when}: a foreign object is gone or changed: {message:?}"
            );
        }
        for message in &after.messages {
            assert!(
                self.messages.contains(message),
                "{when}: a foreign object appeared: {message:?}"
            );
        }
    }
}

fn dump(
    socket: &mut NetlinkSocket,
    kind: u16,
    family: u8,
    take: impl Fn(&[u8]) -> Option<Vec<u8>>,
) -> Vec<Vec<u8>> {
    let length = if kind == RTM_GETNEXTHOP { 8 } else { HEADER };
    let request = |buffer: &mut Vec<u8>| {
        buffer.push(family);
        buffer.resize(buffer.len() + length - 1, 0);
    };
    socket
        .dump("read what is foreign", kind, request, |frame| {
            Ok(take(frame.body))
        })
        .expect("the kernel tells all")
}

/// Type and value of each attribute. A decoder of its own, since the code under test cannot judge
/// itself.
fn attributes(mut rest: &[u8]) -> Vec<(u16, &[u8])> {
    let mut all = Vec::new();
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        all.push((u16::from_ne_bytes([rest[2], rest[3]]), &rest[4..length]));
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    all
}

fn route(payload: &[u8], routes: Routes) -> Option<Vec<u8>> {
    let mut kept = payload[..HEADER].to_vec();
    let mut table = u32::from(payload[4]);
    for (kind, value) in attributes(&payload[HEADER..]) {
        if kind == RTA_TABLE {
            table = u32::from_ne_bytes(value.try_into().expect("a table has four bytes"));
        }
        // Ages and reference counts.
        if kind != RTA_CACHEINFO {
            kept.extend(kind.to_ne_bytes());
            kept.extend(value);
        }
    }
    let main = routes == Routes::WithoutMain && table == 254;
    // The kernel's own routes appear and vanish with links and addresses, some with a delay.
    let left_out = main || payload[5] == RTPROT_KERNEL || OURS.contains(&payload[5]);
    (!left_out).then_some(kept)
}

fn rule(payload: &[u8]) -> Option<Vec<u8>> {
    let ours = attributes(&payload[HEADER..])
        .into_iter()
        .any(|(kind, value)| kind == FRA_PROTOCOL && OURS.contains(&value[0]));
    (!ours).then(|| payload.to_vec())
}
