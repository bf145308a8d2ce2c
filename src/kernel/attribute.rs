//! Netlink attributes, written and read without intermediate values.
//!
//! The packet crates build a `Vec` of attributes a message; at 100,000 routes that is most of
//! the time outside the kernel. What happens once a pass (links, rules) uses the crates.

use rtnetlink::packet_core::NlasIterator;

/// Length of `struct nlmsghdr` (linux/netlink.h).
pub const HEADER: usize = 16;

/// Rounds up to netlink's alignment of four bytes (`NLMSG_ALIGNTO`, `NLA_ALIGNTO`).
pub const fn align(length: usize) -> usize {
    (length + 3) & !3
}

/// Appends one attribute with its padding.
pub fn put(buffer: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = (4 + value.len()) as u16;
    buffer.extend_from_slice(&length.to_ne_bytes());
    buffer.extend_from_slice(&kind.to_ne_bytes());
    buffer.extend_from_slice(value);
    buffer.resize(align(buffer.len()), 0);
}

/// Appends a `u32` attribute in host order.
pub fn put_u32(buffer: &mut Vec<u8>, kind: u16, value: u32) {
    put(buffer, kind, &value.to_ne_bytes());
}

/// The attributes of a message after its fixed header: kind and value.
pub fn attributes(payload: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), Malformed>> {
    NlasIterator::new(payload).map(|item| {
        let attribute = item.map_err(|_| Malformed("attribute"))?;
        let kind = attribute.kind();
        let whole = attribute.into_inner();
        // `into_inner` gives the attribute's slice; its length field was checked by the iterator.
        let length = usize::from(u16::from_ne_bytes([whole[0], whole[1]]));
        whole
            .get(4..length)
            .map(|value| (kind, value))
            .ok_or(Malformed("attribute length"))
    })
}

/// A `u32` in host order.
pub fn u32_of(value: &[u8]) -> Result<u32, Malformed> {
    value
        .get(..4)
        .and_then(|four| four.try_into().ok())
        .map(u32::from_ne_bytes)
        .ok_or(Malformed("u32"))
}

/// A `u16` in host order.
pub fn u16_of(value: &[u8]) -> Result<u16, Malformed> {
    value
        .get(..2)
        .and_then(|two| two.try_into().ok())
        .map(u16::from_ne_bytes)
        .ok_or(Malformed("u16"))
}

/// An address of four or sixteen bytes.
pub fn address_of(value: &[u8]) -> Result<std::net::IpAddr, Malformed> {
    if let Ok(four) = <[u8; 4]>::try_from(value) {
        return Ok(std::net::IpAddr::from(four));
    }
    <[u8; 16]>::try_from(value)
        .map(std::net::IpAddr::from)
        .map_err(|_| Malformed("address"))
}

/// Appends an address attribute.
pub fn put_address(buffer: &mut Vec<u8>, kind: u16, address: std::net::IpAddr) {
    match address {
        std::net::IpAddr::V4(v4) => put(buffer, kind, &v4.octets()),
        std::net::IpAddr::V6(v6) => put(buffer, kind, &v6.octets()),
    }
}

/// A message of the kernel that doesn't have the form that its header file gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);
