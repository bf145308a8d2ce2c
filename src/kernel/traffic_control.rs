//! Filters of traffic control (tc-filter(8)): they see packets of an interface before or after every
//! firewall chain and may drop or redirect them.

use super::netlink::{NetlinkError, NetlinkSocket};
use super::wire::{WireError, each_attribute, u32_at};
use crate::judge::Filter;
use crate::types::IfIndex;

// linux/rtnetlink.h and linux/pkt_sched.h.
const RTM_GETQDISC: u16 = 38;
const RTM_GETTFILTER: u16 = 46;
const TCA_KIND: u16 = 1;
/// Length of `struct tcmsg`, and the place of the interface in it.
const TCMSG: usize = 20;
const INTERFACE: usize = 4;
/// The hooks of the qdisc `clsact`; the qdisc `ingress` has the first only.
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;

fn put_tcmsg(buffer: &mut Vec<u8>, device: IfIndex, parent: u32) {
    buffer.extend_from_slice(&[0; INTERFACE]);
    buffer.extend_from_slice(&device.0.to_ne_bytes());
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend_from_slice(&parent.to_ne_bytes());
    buffer.extend_from_slice(&[0; 4]);
}

/// The filters of these interfaces, one of each kind and hook.
///
/// # Errors
/// The kernel refuses a dump.
pub fn filters(
    socket: &mut NetlinkSocket,
    devices: &[IfIndex],
) -> Result<Vec<Filter>, NetlinkError> {
    let request = |buffer: &mut Vec<u8>| put_tcmsg(buffer, IfIndex(0), 0);
    let hooked = socket.dump("read the qdiscs", RTM_GETQDISC, request, |frame| {
        let kind = kind(frame.body)?;
        let device = IfIndex(u32_at(frame.body, INTERFACE)?);
        let found = ["clsact", "ingress"].contains(&kind.as_str()) && devices.contains(&device);
        Ok(found.then_some(device))
    })?;
    let mut filters = Vec::new();
    for device in hooked {
        for (parent, leaves) in [(INGRESS, false), (EGRESS, true)] {
            let request = |buffer: &mut Vec<u8>| put_tcmsg(buffer, device, parent);
            let dump = socket.dump("read the filters of tc", RTM_GETTFILTER, request, |frame| {
                let kind = kind(frame.body)?;
                Ok(Some(Filter {
                    device,
                    leaves,
                    kind,
                }))
            });
            // The qdisc `ingress` has no egress, and a qdisc may go between the two questions.
            filters.append(&mut dump.unwrap_or_default());
        }
    }
    filters.sort();
    filters.dedup();
    Ok(filters)
}

fn kind(body: &[u8]) -> Result<String, WireError> {
    let list = body.get(TCMSG..).ok_or(WireError::Malformed("tc header"))?;
    for attribute in each_attribute(list) {
        let attribute = attribute?;
        if attribute.kind == TCA_KIND {
            return Ok(attribute.text());
        }
    }
    Ok(String::new())
}
