//! The ordinary packet: sent to a partner or to storage by a socket without an address and without a
//! mark, or forwarded for such a socket.

/// `IPPROTO_TCP` (linux/in.h).
pub const PROTOCOL: u8 = 6;
/// The port of HTTPS, which storage and nearly all partners use.
pub const PORT: u16 = 443;
/// The user of the socket.
pub const USER: u32 = 0;
/// A range of users from [`USER`] to this one or above holds the users of people and services: only
/// `nobody` is missing (65534).
const LAST_USER: u32 = 60_000;

/// A range as rules name them: `443`, `80-443`.
pub fn range(text: &str) -> Option<(u32, u32)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((first.parse().ok()?, last.parse().ok()?))
}

/// True if a rule's selector of a protocol, port or user matches the ordinary packet; `None` for
/// other selectors.
pub fn matches_selector(name: &str, value: &str) -> Option<bool> {
    let holds = |number: u32| range(value).is_some_and(|(a, b)| (a..=b).contains(&number));
    match name {
        "ipproto" => Some(holds(u32::from(PROTOCOL))),
        "dport" => Some(holds(u32::from(PORT))),
        "uidrange" => Some(holds(USER)),
        // The source port is any; the other selectors compare values that nobody sets by default.
        "sport" | "oif" | "tos" | "dscp" => Some(false),
        _ => None,
    }
}

/// True if nearly all users are in the range of a rule.
pub fn is_everybody(value: &str) -> bool {
    range(value).is_some_and(|(first, last)| first == USER && last >= LAST_USER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_of_ordinary_packets_match() {
        for (name, value, expected) in [
            ("ipproto", "6", Some(true)),
            ("ipproto", "17", Some(false)),
            ("dport", "443-443", Some(true)),
            ("dport", "22-22", Some(false)),
            ("uidrange", "0-0", Some(true)),
            ("uidrange", "1000-1000", Some(false)),
            ("oif", "eth1", Some(false)),
            ("realms", "3", None),
        ] {
            assert_eq!(matches_selector(name, value), expected, "{name} {value}");
        }
        assert!(is_everybody("0-4294967294"));
        assert!(!is_everybody("0-0"));
    }
}
