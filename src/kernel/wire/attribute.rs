//! Netlink attributes: a type, a length, a payload, padded to four bytes.

use std::fmt::Write;
use std::net::IpAddr;

use super::error::WireError;

const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;

/// Appends one attribute to a message.
///
/// # Panics
/// With a payload over 65,531 bytes, the limit of the 16-bit length; callers split unbounded
/// payloads.
pub fn put(bytes: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    #[allow(clippy::expect_used)]
    let length =
        u16::try_from(payload.len() + 4).expect("attribute payloads are bounded by their callers");
    bytes.extend_from_slice(&head(length, kind));
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// `struct nlattr` (linux/netlink.h); the length includes these four bytes.
fn head(length: u16, kind: u16) -> [u8; 4] {
    let ([l0, l1], [k0, k1]) = (length.to_ne_bytes(), kind.to_ne_bytes());
    [l0, l1, k0, k1]
}

/// Appends an attribute with a payload of four bytes. Head and payload are appended in one piece:
/// such attributes are most of a message, and each append checks the capacity again.
fn put_four(bytes: &mut Vec<u8>, kind: u16, payload: [u8; 4]) {
    bytes.extend_from_slice([head(8, kind), payload].as_flattened());
}

/// Appends a 32-bit number in host order.
pub fn put_u32(bytes: &mut Vec<u8>, kind: u16, value: u32) {
    put_four(bytes, kind, value.to_ne_bytes());
}

/// Appends a string with its final NUL.
pub fn put_text(bytes: &mut Vec<u8>, kind: u16, text: &str) {
    let mut payload = text.as_bytes().to_vec();
    payload.push(0);
    put(bytes, kind, &payload);
}

/// Appends an address.
pub fn put_address(bytes: &mut Vec<u8>, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => put_four(bytes, kind, v4.octets()),
        IpAddr::V6(v6) => {
            let mut attribute = [0; 20];
            attribute[..4].copy_from_slice(&head(20, kind));
            attribute[4..].copy_from_slice(&v6.octets());
            bytes.extend_from_slice(&attribute);
        }
    }
}

/// The 32-bit number in host order at offset `at`.
pub fn u32_at(bytes: &[u8], at: usize) -> Result<u32, WireError> {
    match bytes.get(at..at + 4) {
        Some(&[a, b, c, d]) => Ok(u32::from_ne_bytes([a, b, c, d])),
        _ => Err(WireError::Malformed("a truncated number")),
    }
}

/// The 16-bit number in host order at offset `at`.
pub fn u16_at(bytes: &[u8], at: usize) -> Result<u16, WireError> {
    match bytes.get(at..at + 2) {
        Some(&[a, b]) => Ok(u16::from_ne_bytes([a, b])),
        _ => Err(WireError::Malformed("a truncated number")),
    }
}

/// Builds a list of attributes.
#[derive(Debug, Clone, Default)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an attribute.
    ///
    /// # Panics
    /// As [`put`].
    pub fn put(mut self, kind: u16, payload: &[u8]) -> Self {
        put(&mut self.0, kind, payload);
        self
    }

    /// Adds a 32-bit number in network order, the order of netfilter.
    pub fn put_be32(self, kind: u16, value: u32) -> Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// Adds a string with its final NUL.
    pub fn put_text(mut self, kind: u16, text: &str) -> Self {
        put_text(&mut self.0, kind, text);
        self
    }

    /// Adds a list inside the list.
    pub fn nest(self, kind: u16, inner: Attributes) -> Self {
        self.put(kind | NLA_F_NESTED, &inner.0)
    }

    /// Adds encoded attributes.
    pub fn raw(mut self, encoded: &[u8]) -> Self {
        self.0.extend_from_slice(encoded);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// The encoded list.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The length of the encoded list.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True for a list without attributes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One attribute of a received list.
#[derive(Debug, Clone, Copy)]
pub struct Attribute<'a> {
    /// The type without the flag bits.
    pub kind: u16,
    pub payload: &'a [u8],
}

impl Attribute<'_> {
    /// The payload as one byte.
    pub fn u8(&self) -> Result<u8, WireError> {
        match self.payload {
            [byte, ..] => Ok(*byte),
            [] => Err(WireError::Malformed("a truncated number")),
        }
    }

    /// The payload as a 32-bit number in network order.
    pub fn be32(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.payload.try_into().ok()?))
    }

    /// The payload as a 32-bit number in host order.
    pub fn u32(&self) -> Result<u32, WireError> {
        u32_at(self.payload, 0)
    }

    /// The payload as an address of four or sixteen bytes.
    pub fn address(&self) -> Result<IpAddr, WireError> {
        if let Ok(four) = <[u8; 4]>::try_from(self.payload) {
            return Ok(IpAddr::from(four));
        }
        match <[u8; 16]>::try_from(self.payload) {
            Ok(sixteen) => Ok(IpAddr::from(sixteen)),
            Err(_) => Err(WireError::Malformed("an address of neither 4 nor 16 bytes")),
        }
    }

    /// The payload as text up to the first NUL. Bytes outside UTF-8 become `\xff` and the like:
    /// the kernel accepts names in any encoding, and two such names must stay distinct.
    pub fn text(&self) -> String {
        let end = self.payload.iter().position(|byte| *byte == 0);
        let mut text = String::new();
        for chunk in self.payload[..end.unwrap_or(self.payload.len())].utf8_chunks() {
            text.push_str(chunk.valid());
            for byte in chunk.invalid() {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
        text
    }
}

/// The attributes of a list, one by one. A malformed attribute yields an error, never a shorter
/// list.
pub fn each_attribute(mut bytes: &[u8]) -> impl Iterator<Item = Result<Attribute<'_>, WireError>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let whole = std::mem::take(&mut bytes);
        let Some((head, _)) = whole.split_first_chunk::<4>() else {
            return Some(Err(WireError::Malformed("a truncated list of attributes")));
        };
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let Some(payload) = whole.get(4..length) else {
            return Some(Err(WireError::Malformed(
                "an attribute longer than its message",
            )));
        };
        bytes = whole.get((length + 3) & !3..).unwrap_or_default();
        Some(Ok(Attribute {
            kind: u16::from_ne_bytes([head[2], head[3]]) & NLA_TYPE_MASK,
            payload,
        }))
    })
}

/// All attributes of a list.
pub fn attributes(bytes: &[u8]) -> Result<Vec<Attribute<'_>>, WireError> {
    each_attribute(bytes).collect()
}

/// The first attribute of a type.
pub fn find<'a>(list: &[Attribute<'a>], kind: u16) -> Option<Attribute<'a>> {
    list.iter()
        .copied()
        .find(|attribute| attribute.kind == kind)
}

/// The number of an attribute in network order, as nf_tables sends numbers.
pub fn number(list: &[Attribute<'_>], kind: u16) -> Option<u32> {
    find(list, kind)?.be32()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_round_trip() {
        let bytes = Attributes::new()
            .put_be32(1, 7)
            .put_text(2, "abc")
            .nest(3, Attributes::new().put(9, &[1]))
            .into_bytes();
        let list = attributes(&bytes).unwrap();
        assert_eq!(list.len(), 3);
        assert_eq!(list[0].be32(), Some(7));
        assert_eq!(list[1].text(), "abc");
        assert_eq!(attributes(list[2].payload).unwrap()[0].payload, &[1]);
    }

    #[test]
    fn truncated_list_is_an_error_and_not_a_shorter_list() {
        let bytes = Attributes::new().put_be32(1, 7).put_be32(2, 8).into_bytes();
        assert!(attributes(&bytes[..14]).is_err());
        assert!(attributes(&bytes[..10]).is_err());
    }
}
