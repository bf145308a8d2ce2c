//! Links and addresses on the wire.
//!
//! Only the needed attributes are read and names are taken as bytes: the kernel lets anybody give
//! an interface a name or an alias in any encoding, and newer kernels add attributes. Neither may
//! end a pass. A truncated message is an error, never a shorter list.

use std::net::IpAddr;

use ipnet::IpNet;

use super::netlink::{NetlinkError, NetlinkSocket};
use super::route::family_of;
use super::wire::{WireError, each_attribute, u32_at};
use crate::facts::{Address, Link};
use crate::types::IfIndex;

// Message types and attributes of linux/rtnetlink.h, if_link.h and if_addr.h.
pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
pub(super) const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
/// Length of `struct ifinfomsg`.
const IFINFOMSG: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
/// The list of the alternative names, each in an `IFLA_ALT_IFNAME`.
const IFLA_PROP_LIST: u16 = 52;
const IFLA_ALT_IFNAME: u16 = 53;
/// `IFF_UP` and `IFF_LOOPBACK` (linux/if.h).
const IFF_UP: u32 = 0x1;
const IFF_LOWER_UP: u32 = 0x1_0000;
const IFF_LOOPBACK: u32 = 0x8;
/// Length of `struct ifaddrmsg`.
const IFADDRMSG: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct LinkMessage {
    pub(super) index: IfIndex,
    /// `ifi_flags` (linux/if.h).
    pub(super) flags: u32,
    pub(super) name: String,
    pub(super) altnames: Vec<String>,
    mac: Vec<u8>,
    mtu: u32,
}

/// Reads a link message; `None` for the messages that bridges and IPv6 send about their own
/// settings of a link, under their own families.
pub(super) fn decode_link(body: &[u8]) -> Result<Option<LinkMessage>, WireError> {
    let (header, list) = body
        .split_at_checked(IFINFOMSG)
        .ok_or(WireError::Malformed("link header"))?;
    if header[0] != 0 {
        return Ok(None);
    }
    let mut link = LinkMessage {
        index: IfIndex(u32_at(header, 4)?),
        flags: u32_at(header, 8)?,
        name: String::new(),
        altnames: Vec::new(),
        mac: Vec::new(),
        mtu: 0,
    };
    for attribute in each_attribute(list) {
        let attribute = attribute?;
        match attribute.kind {
            IFLA_IFNAME => link.name = attribute.text(),
            IFLA_MTU => link.mtu = attribute.u32()?,
            IFLA_ADDRESS => link.mac = attribute.payload.to_vec(),
            IFLA_PROP_LIST => {
                for property in each_attribute(attribute.payload) {
                    let property = property?;
                    if property.kind == IFLA_ALT_IFNAME {
                        link.altnames.push(property.text());
                    }
                }
            }
            _ => {}
        }
    }
    Ok(Some(link))
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct AddressMessage {
    pub(super) link: IfIndex,
    pub(super) address: IpAddr,
    prefix_len: u8,
    /// `IFA_F_*` (linux/if_addr.h).
    pub(super) flags: u32,
}

/// Reads an address message; `None` for one of another family (MCTP has addresses of one byte)
/// and for one without an address.
pub(super) fn decode_address(body: &[u8]) -> Result<Option<AddressMessage>, WireError> {
    let (header, list) = body
        .split_at_checked(IFADDRMSG)
        .ok_or(WireError::Malformed("address header"))?;
    if family_of(header[0]).is_none() {
        return Ok(None);
    }
    let mut flags = u32::from(header[2]);
    let (mut local, mut address) = (None, None);
    for attribute in each_attribute(list) {
        let attribute = attribute?;
        match attribute.kind {
            IFA_LOCAL => local = Some(attribute.address()?),
            IFA_ADDRESS => address = Some(attribute.address()?),
            IFA_FLAGS => flags = attribute.u32()?,
            _ => {}
        }
    }
    let link = IfIndex(u32_at(header, 4)?);
    // On a point-to-point link, IFA_ADDRESS is the peer's address.
    Ok(local.or(address).map(|address| AddressMessage {
        link,
        address,
        prefix_len: header[1],
        flags,
    }))
}

/// All interfaces.
pub fn dump_links(socket: &mut NetlinkSocket) -> Result<Vec<Link>, NetlinkError> {
    let request = |buffer: &mut Vec<u8>| buffer.extend_from_slice(&[0; IFINFOMSG]);
    socket.dump("read the interfaces", RTM_GETLINK, request, |frame| {
        if frame.kind != RTM_NEWLINK {
            return Ok(None);
        }
        Ok(decode_link(frame.body)?.map(|link| Link {
            index: link.index,
            name: link.name,
            altnames: link.altnames,
            up: link.flags & IFF_UP != 0,
            carrier: link.flags & IFF_LOWER_UP != 0,
            loopback: link.flags & IFF_LOOPBACK != 0,
            mac: link.mac,
            mtu: link.mtu,
        }))
    })
}

/// All addresses of all interfaces, both families.
pub fn dump_addresses(socket: &mut NetlinkSocket) -> Result<Vec<Address>, NetlinkError> {
    let request = |buffer: &mut Vec<u8>| buffer.extend_from_slice(&[0; IFADDRMSG]);
    socket.dump("read the addresses", RTM_GETADDR, request, |frame| {
        if frame.kind != RTM_NEWADDR {
            return Ok(None);
        }
        let Some(found) = decode_address(frame.body)? else {
            return Ok(None);
        };
        let net = IpNet::new(found.address, found.prefix_len)
            .map_err(|_| WireError::Malformed("prefix length"))?;
        Ok(Some(Address {
            link: found.link,
            net,
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::super::wire::Attributes;
    use super::*;

    /// `IFLA_IFALIAS` (linux/if_link.h).
    const IFLA_IFALIAS: u16 = 20;

    fn link(family: u8, attributes: Attributes) -> Vec<u8> {
        let mut body = vec![family, 0, 1, 0];
        body.extend_from_slice(&7u32.to_ne_bytes());
        body.extend_from_slice(&(IFF_UP | 0x40).to_ne_bytes());
        body.extend_from_slice(&[0; 4]);
        body.extend(attributes.into_bytes());
        body
    }

    fn address(family: u8, attributes: Attributes) -> Vec<u8> {
        let mut body = vec![family, 24, 0x80, 0];
        body.extend_from_slice(&7u32.to_ne_bytes());
        body.extend(attributes.into_bytes());
        body
    }

    #[test]
    fn link_names_outside_utf8_are_escaped() {
        let names = Attributes::new()
            .put(IFLA_ALT_IFNAME, b"en\xffp\0")
            .put_text(IFLA_ALT_IFNAME, "enp0s3");
        let body = link(
            0,
            Attributes::new()
                .put(IFLA_IFNAME, b"\xff\xfe1\0")
                .put(IFLA_IFALIAS, b"caf\xe9\0")
                .put(IFLA_ADDRESS, &[2, 0, 0, 0, 0, 1])
                .nest(IFLA_PROP_LIST, names),
        );
        let link = decode_link(&body).unwrap().unwrap();
        assert_eq!(link.index, IfIndex(7));
        assert_eq!(link.flags, IFF_UP | 0x40);
        assert_eq!(link.name, r"\xff\xfe1");
        assert_eq!(link.altnames, [r"en\xffp", "enp0s3"]);
        assert_eq!(link.mac, [2, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn unknown_link_attributes_of_any_length_are_ignored() {
        let body = link(
            0,
            Attributes::new()
                .put(999, &[1, 2, 3])
                .put_text(IFLA_IFNAME, "eth0")
                .put(1000, &[]),
        );
        assert_eq!(decode_link(&body).unwrap().unwrap().name, "eth0");
    }

    #[test]
    fn truncated_link_and_address_messages_are_errors() {
        let list = || Attributes::new().put_text(IFLA_IFNAME, "eth0");
        let body = link(0, list());
        for length in [0, IFINFOMSG - 1, IFINFOMSG + 2, body.len() - 4] {
            assert!(decode_link(&body[..length]).is_err(), "{length}");
        }
        let nested = link(0, Attributes::new().put(IFLA_PROP_LIST, &[9, 0, 53]));
        assert!(decode_link(&nested).is_err(), "a truncated altname");
        let body = address(2, Attributes::new().put(IFA_LOCAL, &[10, 0, 0, 1]));
        for length in [0, IFADDRMSG - 1, IFADDRMSG + 2, body.len() - 1] {
            assert!(decode_address(&body[..length]).is_err(), "{length}");
        }
        let odd = address(2, Attributes::new().put(IFA_LOCAL, &[10, 0, 0]));
        assert!(decode_address(&odd).is_err(), "an address of three bytes");
    }

    #[test]
    fn messages_of_bridges_and_of_other_address_families_are_ignored() {
        const AF_BRIDGE: u8 = 7;
        const AF_MCTP: u8 = 45;
        let bridge = link(AF_BRIDGE, Attributes::new());
        assert_eq!(decode_link(&bridge).unwrap(), None);
        let mctp = address(AF_MCTP, Attributes::new().put(IFA_LOCAL, &[8]));
        assert_eq!(decode_address(&mctp).unwrap(), None);
    }

    #[test]
    fn own_address_of_a_point_to_point_link_is_the_local_one() {
        let body = address(
            2,
            Attributes::new()
                .put(IFA_ADDRESS, &[10, 0, 0, 2])
                .put(IFA_LOCAL, &[10, 0, 0, 1])
                .put(IFA_FLAGS, &0x280u32.to_ne_bytes()),
        );
        let found = decode_address(&body).unwrap().unwrap();
        assert_eq!(found.address, IpAddr::from([10, 0, 0, 1]));
        assert_eq!((found.prefix_len, found.flags), (24, 0x280));
    }
}
