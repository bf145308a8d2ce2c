//! Packets with a header of the sender's, for raw sockets.

use std::net::IpAddr;

/// RFC 793, RFC 768, RFC 792, RFC 4443.
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
const ICMPV4: u8 = 1;
const ICMPV6: u8 = 58;

/// The flags of TCP (RFC 793).
pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The ones' complement sum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let pairs = bytes.chunks(2);
    let words = pairs.map(|pair| u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    let mut sum: u32 = words.map(u32::from).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Writes the checksum over pseudo header and segment at `place`.
fn completed(
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    mut segment: Vec<u8>,
    place: usize,
) -> Vec<u8> {
    let mut covered = [octets(from), octets(to)].concat();
    covered.extend((segment.len() as u32).to_be_bytes());
    covered.extend([0, 0, 0, protocol]);
    covered.extend(&segment);
    let sum = checksum(&covered);
    segment[place..place + 2].copy_from_slice(&sum.to_be_bytes());
    segment
}

/// A packet of IP. The kernel fills in length, identification and header checksum of IPv4.
fn packet(from: IpAddr, to: IpAddr, protocol: u8, segment: &[u8]) -> Vec<u8> {
    let length = segment.len() as u16;
    let mut all = if from.is_ipv4() {
        let mut head = vec![0x45, 0];
        head.extend((20 + length).to_be_bytes());
        head.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
        head
    } else {
        let mut head = vec![0x60, 0, 0, 0];
        head.extend(length.to_be_bytes());
        head.extend([protocol, 64]);
        head
    };
    all.extend(octets(from));
    all.extend(octets(to));
    all.extend(segment);
    all
}

/// A segment of TCP with these flags, in the middle of no connection.
pub fn tcp(from: (IpAddr, u16), to: (IpAddr, u16), flags: u8) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(from.1.to_be_bytes());
    segment.extend(to.1.to_be_bytes());
    segment.extend(0x1234_5678_u32.to_be_bytes());
    segment.extend(0x0bad_cafe_u32.to_be_bytes());
    segment.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    let segment = completed(from.0, to.0, TCP, segment, 16);
    packet(from.0, to.0, TCP, &segment)
}

/// A datagram.
pub fn udp(from: (IpAddr, u16), to: (IpAddr, u16)) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(from.1.to_be_bytes());
    segment.extend(to.1.to_be_bytes());
    segment.extend(11u16.to_be_bytes());
    segment.extend([0, 0]);
    segment.extend(b"who");
    let segment = completed(from.0, to.0, UDP, segment, 6);
    packet(from.0, to.0, UDP, &segment)
}

/// An echo request without a header of IP. The kernel writes the checksum of ICMPv6.
pub fn echo(ipv6: bool) -> Vec<u8> {
    let mut message = vec![if ipv6 { 128 } else { 8 }, 0, 0, 0, 0x12, 0x34, 0, 1];
    if !ipv6 {
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// The protocol number of ICMP in a family.
pub fn icmp(ipv6: bool) -> u8 {
    if ipv6 { ICMPV6 } else { ICMPV4 }
}
