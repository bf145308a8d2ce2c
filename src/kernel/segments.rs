//! The segments that TCP of this network namespace has sent, first and again.

use std::io;

use crate::health::Segments;

/// Counters of the network namespace of the process, both families together (RFC 4022). Everybody may read
/// the file; a SYN that is sent again counts too (net/ipv4/tcp_output.c, `__tcp_retransmit_skb`).
const FILE: &str = "/proc/self/net/snmp";

/// Reads the segments since the begin of the network namespace.
///
/// # Errors
/// The file is unreadable, or without these counters.
pub fn read() -> io::Result<Segments> {
    let text = std::fs::read_to_string(FILE)?;
    parse(&text).ok_or_else(|| {
        let what = format!("{FILE} has no segments of TCP");
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
}

/// A line of names, and one of values with the same first word.
fn parse(text: &str) -> Option<Segments> {
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let value = |name: &str| {
        let mut pairs = names.split(' ').zip(values.split(' '));
        pairs.find(|(of, _)| *of == name)?.1.parse().ok()
    };
    Some(Segments {
        sent: value("OutSegs")?,
        repeated: value("RetransSegs")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_read_by_name() {
        let text =
            "Ip: Forwarding\nIp: 1\nTcp: MaxConn InSegs OutSegs RetransSegs\nTcp: -1 7 386379 42\n";
        let segments = Segments {
            sent: 386_379,
            repeated: 42,
        };
        assert_eq!(parse(text), Some(segments));
        assert_eq!(parse("Tcp: InSegs\nTcp: 1\n"), None);
        assert_eq!(parse(""), None);
        assert!(read().is_ok(), "of this process");
    }
}
