//! Forward policies of IPsec over NETLINK_XFRM (linux/xfrm.h): only those of ours.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::sys::protocols::NETLINK_XFRM;
use rustix::io::Errno;

use super::errno::KernelError;
use super::netlink::{NetlinkError, NetlinkSocket};
use super::route::{family_number, family_of};
use super::wire::{Frame, WireError, attributes, find, put, u16_at, u32_at};
use crate::objects::{ForwardPolicy, PolicyAction};
use crate::observed::ObservedPolicies;
use crate::types::Family;

/// `XFRM_MSG_*`.
const NEWPOLICY: u16 = 0x13;
pub(super) const DELPOLICY: u16 = 0x14;
const GETPOLICY: u16 = 0x15;
pub(super) const FLUSHPOLICY: u16 = 0x1d;

/// `XFRMA_*`.
const TEMPLATES: u16 = 5;
const POLICY: u16 = 7;
const POLICY_TYPE: u16 = 16;
const MARK: u16 = 21;
const INTERFACE: u16 = 31;

/// `XFRM_POLICY_FWD`.
const FORWARD: u8 = 2;
/// `XFRM_POLICY_ALLOW`, `XFRM_POLICY_BLOCK`.
const ALLOW: u8 = 0;
const BLOCK: u8 = 1;
/// `XFRM_INF`: no limit of bytes or packets.
const NO_LIMIT: u64 = u64::MAX;

// `struct xfrm_selector`: daddr, saddr (16 bytes each), ports and their masks (4 × 2), family (2),
// prefixlen_d, prefixlen_s, proto (1 each), 3 bytes of padding, ifindex (4), user (4).
const SELECTOR: usize = 56;
const SADDR: usize = 16;
const PORTS: usize = 32;
const FAMILY: usize = 40;
const PREFIXLEN_D: usize = 42;
const PREFIXLEN_S: usize = 43;
const PROTO: usize = 44;
const IFINDEX: usize = 48;

// `struct xfrm_userpolicy_info`: the selector, `xfrm_lifetime_cfg` (8 × 8 bytes, the first four of
// them limits of bytes and packets), `xfrm_lifetime_cur` (4 × 8), priority (4), index (4), dir,
// action, flags, share (1 each), and padding to a multiple of 8.
const LIMITS: usize = 4;
const PRIORITY: usize = SELECTOR + 64 + 32;
const DIR: usize = PRIORITY + 8;
const ACTION: usize = DIR + 1;
const INFO: usize = 168;

// `struct xfrm_userpolicy_id`: the selector, index (4), dir (1), padding.
const ID_DIR: usize = SELECTOR + 4;
const ID: usize = 64;

/// The socket, and the reason for a refusal.
#[derive(Debug, Default)]
pub(super) struct Policies {
    socket: Option<NetlinkSocket>,
    /// True for a machine that needs policies. On other machines an unused module stays unloaded:
    /// the socket loads `xfrm_user`.
    pub needed: bool,
    refused: Option<String>,
}

impl Policies {
    /// Our policies in the kernel, or the reason for not knowing them.
    pub fn observe(&mut self) -> ObservedPolicies {
        let mut observed = ObservedPolicies {
            unusable: self.refused.clone(),
            ..ObservedPolicies::default()
        };
        if !self.needed && self.socket.is_none() && !is_in_use() {
            return observed;
        }
        match self.socket().and_then(dump) {
            Ok(mut ours) => {
                ours.sort();
                observed.ours = ours;
            }
            Err(error) if is_absent(&error) => {
                observed.unusable = Some(format!("the kernel has no IPsec policies ({error})"));
            }
            Err(error) => observed.unreadable = Some(error.to_string()),
        }
        observed
    }

    /// Adds or deletes a policy. A refused addition is remembered: the next reading reports the
    /// reason, and the machine goes on without policies.
    ///
    /// # Errors
    /// Communication with the kernel failed.
    pub fn change(
        &mut self,
        delete: bool,
        policy: &ForwardPolicy,
    ) -> Result<Option<KernelError>, NetlinkError> {
        let socket = self.socket()?;
        let write = |_, buffer: &mut Vec<u8>| encode(delete, policy, buffer);
        let refusals = socket.batch("change xfrm policies", 1, write)?;
        let refusal = refusals.into_iter().next().map(|(_, error)| error);
        if let Some(error) = &refusal
            && !delete
        {
            self.refused = Some(format!("the kernel refuses an xfrm policy: {error}"));
            return Ok(None);
        }
        Ok(refusal)
    }

    /// Lets the next pass try refused policies again.
    pub fn forget(&mut self) {
        self.refused = None;
    }

    fn socket(&mut self) -> Result<&mut NetlinkSocket, NetlinkError> {
        match &mut self.socket {
            Some(socket) => Ok(socket),
            empty => Ok(empty.insert(NetlinkSocket::open_protocol(
                NETLINK_XFRM,
                "open an xfrm socket",
            )?)),
        }
    }
}

fn is_absent(error: &NetlinkError) -> bool {
    let absent = [Errno::PROTONOSUPPORT, Errno::AFNOSUPPORT];
    absent
        .map(Errno::raw_os_error)
        .map(Some)
        .contains(&error.errno())
}

/// True if the kernel listens to NETLINK_XFRM in this network namespace. Otherwise no policy exists,
/// or none over netlink.
fn is_in_use() -> bool {
    // Columns: socket, protocol, port (0 for the kernel), and more.
    let Ok(sockets) = std::fs::read_to_string("/proc/thread-self/net/netlink") else {
        return true;
    };
    let protocol = NETLINK_XFRM.to_string();
    sockets.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some(&protocol) && words.next() == Some("0")
    })
}

fn dump(socket: &mut NetlinkSocket) -> Result<Vec<ForwardPolicy>, NetlinkError> {
    let request = |buffer: &mut Vec<u8>| buffer.resize(buffer.len() + ID, 0);
    socket.dump("read the xfrm policies", GETPOLICY, request, |frame| {
        decode(frame.body)
    })
}

/// Appends the request to add or to delete a policy; returns type and flags.
fn encode(delete: bool, policy: &ForwardPolicy, buffer: &mut Vec<u8>) -> (u16, u16) {
    let mut body = [0; INFO];
    put_selector(&mut body, policy);
    let (kind, length) = if delete {
        body[ID_DIR] = FORWARD;
        (DELPOLICY, ID)
    } else {
        for limit in body[SELECTOR..].chunks_exact_mut(8).take(LIMITS) {
            limit.copy_from_slice(&NO_LIMIT.to_ne_bytes());
        }
        let priority = policy.action.priority();
        body[PRIORITY..PRIORITY + 4].copy_from_slice(&priority.to_ne_bytes());
        body[DIR] = FORWARD;
        body[ACTION] = match policy.action {
            PolicyAction::Allow => ALLOW,
            PolicyAction::Block => BLOCK,
        };
        (NEWPOLICY, INFO)
    };
    buffer.extend_from_slice(&body[..length]);
    put(buffer, MARK, &mark());
    (kind, 0)
}

/// `struct xfrm_mark`: value and mask.
fn mark() -> [u8; 8] {
    let mut mark = [0; 8];
    mark[..4].copy_from_slice(&ForwardPolicy::MARK.value.to_ne_bytes());
    mark[4..].copy_from_slice(&ForwardPolicy::MARK.mask.to_ne_bytes());
    mark
}

fn put_selector(body: &mut [u8], policy: &ForwardPolicy) {
    let mut put_address = |at: usize, net: &IpNet| match net.network() {
        IpAddr::V4(v4) => body[at..at + 4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => body[at..at + 16].copy_from_slice(&v6.octets()),
    };
    put_address(0, &policy.destination);
    put_address(SADDR, &policy.source);
    let family = u16::from(family_number(policy.family()));
    body[FAMILY..FAMILY + 2].copy_from_slice(&family.to_ne_bytes());
    body[PREFIXLEN_D] = policy.destination.prefix_len();
    body[PREFIXLEN_S] = policy.source.prefix_len();
}

/// Reads a policy; `None` for a policy that is not exactly as we write ours.
fn decode(body: &[u8]) -> Result<Option<ForwardPolicy>, WireError> {
    let Some((info, list)) = body.split_at_checked(INFO) else {
        return Err(WireError::Malformed("a truncated xfrm policy"));
    };
    let action = match info[ACTION] {
        ALLOW => PolicyAction::Allow,
        BLOCK => PolicyAction::Block,
        _ => return Ok(None),
    };
    let ours = info[DIR] == FORWARD
        && u32_at(info, PRIORITY)? == action.priority()
        && info[PORTS..FAMILY].iter().all(|byte| *byte == 0)
        && info[PROTO] == 0
        && u32_at(info, IFINDEX)? == 0;
    if !ours {
        return Ok(None);
    }
    let list = attributes(list)?;
    let marked = find(&list, MARK).is_some_and(|found| found.payload == mark());
    // Every kernel with policy types reports the type: a byte, 0 for the main type.
    let main = find(&list, POLICY_TYPE).is_none_or(|found| found.payload.first() == Some(&0));
    if !marked || !main || find(&list, TEMPLATES).is_some() || find(&list, INTERFACE).is_some() {
        return Ok(None);
    }
    let net = |at: usize, length: u8| {
        let number = u8::try_from(u16_at(info, FAMILY)?).ok();
        let address = match number.and_then(family_of) {
            Some(Family::Ipv4) => <[u8; 4]>::try_from(&info[at..at + 4]).map(IpAddr::from),
            Some(Family::Ipv6) => <[u8; 16]>::try_from(&info[at..at + 16]).map(IpAddr::from),
            None => return Ok(None),
        };
        let address = address.map_err(|_| WireError::Malformed("an address"))?;
        Ok::<_, WireError>(IpNet::new(address, length).ok())
    };
    let destination = net(0, info[PREFIXLEN_D])?;
    let source = net(SADDR, info[PREFIXLEN_S])?;
    Ok(source
        .zip(destination)
        .map(|(source, destination)| ForwardPolicy {
            action,
            source,
            destination,
        }))
}

/// The policy of ours that a notification reports as deleted. The flush of all policies has none.
pub(super) fn deleted(frame: &Frame<'_>) -> Result<Option<ForwardPolicy>, WireError> {
    let list = frame.body.get(ID..).unwrap_or_default();
    let list = attributes(list)?;
    let Some(info) = find(&list, POLICY) else {
        return Ok(None);
    };
    // The mark stands beside the policy.
    let mut body = info.payload.to_vec();
    for attribute in &list {
        if attribute.kind != POLICY {
            put(&mut body, attribute.kind, attribute.payload);
        }
    }
    decode(&body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policies() -> Vec<ForwardPolicy> {
        [
            (PolicyAction::Allow, "10.0.0.0/16", "192.168.0.0/16"),
            (PolicyAction::Block, "10.0.0.0/16", "0.0.0.0/0"),
            (PolicyAction::Block, "fd00:1::/64", "::/0"),
        ]
        .map(|(action, source, destination)| ForwardPolicy {
            action,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        })
        .into()
    }

    #[test]
    fn policies_round_trip() {
        for policy in policies() {
            let mut body = Vec::new();
            assert_eq!(encode(false, &policy, &mut body), (NEWPOLICY, 0));
            assert_eq!(body.len(), INFO + 12);
            assert_eq!(decode(&body).unwrap(), Some(policy));
            // A deletion names the selector, the direction and the mark.
            let mut deletion = Vec::new();
            assert_eq!(encode(true, &policy, &mut deletion), (DELPOLICY, 0));
            assert_eq!(deletion[..SELECTOR], body[..SELECTOR]);
            assert_eq!(deletion[ID..], body[INFO..]);
        }
    }

    #[test]
    fn policies_that_differ_in_any_field_are_foreign() {
        let policy = policies()[0];
        let mut body = Vec::new();
        encode(false, &policy, &mut body);
        for place in [PORTS, PROTO, IFINDEX, PRIORITY, DIR, ACTION, INFO + 4] {
            let mut other = body.clone();
            other[place] ^= 1;
            assert_eq!(decode(&other).unwrap(), None, "byte {place}");
        }
        for (kind, payload) in [(TEMPLATES, &[0; 64][..]), (INTERFACE, &[1, 0, 0, 0])] {
            let mut other = body.clone();
            put(&mut other, kind, payload);
            assert_eq!(decode(&other).unwrap(), None, "attribute {kind}");
        }
        assert!(decode(&body[..INFO - 1]).is_err());
        assert_eq!(decode(&body[..INFO]).unwrap(), None, "without a mark");
    }

    #[test]
    fn deleted_policy_is_read_from_a_notification() {
        let policy = policies()[1];
        let mut body = Vec::new();
        encode(false, &policy, &mut body);
        let mut note = vec![0; ID];
        put(&mut note, POLICY, &body[..INFO]);
        put(&mut note, MARK, &mark());
        let frame = |body| Frame {
            kind: DELPOLICY,
            flags: 0,
            sequence: 0,
            port: 7,
            body,
        };
        assert_eq!(deleted(&frame(&note)).unwrap(), Some(policy));
        assert_eq!(deleted(&frame(&[])).unwrap(), None);
    }
}
