//! Links and addresses.

use ipnet::IpNet;
use rtnetlink::packet_core::Parseable;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

use super::netlink::{NetlinkError, NetlinkSocket};
use super::wire::WireError;
use crate::facts::{Address, Link};
use crate::types::IfIndex;

// Message types of linux/rtnetlink.h.
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
/// Length of `struct ifinfomsg` (linux/rtnetlink.h).
const IFINFOMSG: usize = 16;
/// Length of `struct ifaddrmsg` (linux/if_addr.h).
const IFADDRMSG: usize = 8;

/// All interfaces.
pub fn dump_links(socket: &mut NetlinkSocket) -> Result<Vec<Link>, NetlinkError> {
    let request = |buffer: &mut Vec<u8>| buffer.extend_from_slice(&[0; IFINFOMSG]);
    socket.dump("read the interfaces", RTM_GETLINK, request, |frame| {
        if frame.kind != RTM_NEWLINK {
            return Ok(None);
        }
        let message = LinkMessage::parse(frame.body).map_err(|_| WireError::Malformed("link"))?;
        let mut link = Link {
            index: IfIndex(message.header.index),
            name: String::new(),
            up: message.header.flags.contains(LinkFlags::Up),
            loopback: message.header.flags.contains(LinkFlags::Loopback),
            mac: Vec::new(),
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(mac) => link.mac = mac,
                _ => {}
            }
        }
        Ok(Some(link))
    })
}

/// All addresses of all interfaces, both families.
pub fn dump_addresses(socket: &mut NetlinkSocket) -> Result<Vec<Address>, NetlinkError> {
    let request = |buffer: &mut Vec<u8>| buffer.extend_from_slice(&[0; IFADDRMSG]);
    socket.dump("read the addresses", RTM_GETADDR, request, |frame| {
        if frame.kind != RTM_NEWADDR {
            return Ok(None);
        }
        let message =
            AddressMessage::parse(frame.body).map_err(|_| WireError::Malformed("address"))?;
        let (mut local, mut address) = (None, None);
        for attribute in message.attributes {
            match attribute {
                // On point-to-point links the local address differs from the peer's.
                AddressAttribute::Local(ip) => local = Some(ip),
                AddressAttribute::Address(ip) => address = Some(ip),
                _ => {}
            }
        }
        let Some(ip) = local.or(address) else {
            return Ok(None);
        };
        let net = IpNet::new(ip, message.header.prefix_len)
            .map_err(|_| WireError::Malformed("prefix length"))?;
        Ok(Some(Address {
            link: IfIndex(message.header.index),
            net,
        }))
    })
}
