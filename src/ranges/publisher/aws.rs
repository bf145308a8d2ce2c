//! The parser of Amazon's `ip-ranges.json`. Text is borrowed, not copied.
//!
//! Format: "AWS IP address ranges: syntax", Amazon VPC User Guide. The parser accepts every
//! variation in Amazon's published documents (unknown fields, any key order within a row, missing
//! `ipv6_prefixes` and `network_border_group`, duplicate rows) and rejects mistakes that would
//! move traffic.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::document::{Document, DocumentError, Row};
use crate::printable::{escaped, shortened};
use crate::types::{Family, SyncToken};

/// The longest `createDate`, in bytes. Amazon's has 19.
const LONGEST_DATE: usize = 40;

/// The longest quotation of the document in an error, in characters.
const LONGEST_QUOTE: usize = 200;

impl<'a> Document<'a> {
    /// Parses the bytes of an `ip-ranges.json`.
    ///
    /// # Errors
    /// The bytes are not a complete, well-formed document.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DocumentError> {
        match bytes {
            // With a byte order mark, and without: the first character is no NUL.
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [_, 0, ..] | [0, _, ..] => {
                return Err(DocumentError::Utf16);
            }
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => return Err(DocumentError::Compressed("xz")),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => return Err(DocumentError::Compressed("zstd")),
            [b'P', b'K', 3, 4, ..] => return Err(DocumentError::Compressed("zip")),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => {
                return Err(DocumentError::Compressed("bzip2"));
            }
            _ => {}
        }
        // Editors and shells of Windows write a byte order mark, which JSON forbids and RFC 8259
        // (section 8.1) lets a reader ignore.
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let text = std::str::from_utf8(bytes).map_err(|error| DocumentError::NotUtf8 {
            offset: error.valid_up_to(),
        })?;
        if text.trim().is_empty() {
            return Err(DocumentError::Empty);
        }
        if text.trim_start().starts_with('<') {
            return Err(DocumentError::Html);
        }
        let mut json = serde_json::Deserializer::from_str(text);
        let Object(raw) =
            Object::<RawDocument>::deserialize(&mut json).map_err(DocumentError::from_json)?;
        json.end().map_err(|error| DocumentError::TrailingGarbage {
            line: error.line(),
            column: error.column(),
        })?;
        raw.into_document()
    }
}

impl DocumentError {
    fn from_json(error: serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        // serde_json appends the place to the reason; our messages already name the place.
        let reason = error.to_string();
        let reason = reason
            .strip_suffix(&format!(" at line {line} column {column}"))
            .unwrap_or(&reason);
        let reason = shortened(reason, LONGEST_QUOTE);
        match error.classify() {
            serde_json::error::Category::Eof => DocumentError::Truncated {
                line,
                column,
                reason,
            },
            serde_json::error::Category::Data => DocumentError::Shape {
                line,
                column,
                reason,
            },
            serde_json::error::Category::Syntax | serde_json::error::Category::Io => {
                DocumentError::NotJson {
                    line,
                    column,
                    reason,
                }
            }
        }
    }
}

/// A value that only a JSON object fills: serde's derive would also accept an array of fields.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

#[derive(Deserialize)]
struct RawDocument<'a> {
    #[serde(rename = "syncToken", default)]
    sync_token: Option<RawToken>,
    /// For display only, so a date of another type counts as absent.
    #[serde(rename = "createDate", borrow, default)]
    create_date: FieldName<'a>,
    #[serde(borrow, default)]
    prefixes: Option<Rows<'a, false>>,
    /// Documents of 2015 have no such list; a mirror that re-encodes them writes `null`.
    #[serde(borrow, default)]
    ipv6_prefixes: Option<Rows<'a, true>>,
}

/// One of the two lists, collected straight into rows: an intermediate list of rows without a
/// family would take another 2 MB.
#[derive(Default)]
struct Rows<'a, const IPV6: bool>(Vec<Row<'a>>);

impl<'de: 'a, 'a, const IPV6: bool> Deserialize<'de> for Rows<'a, IPV6> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RowsVisitor<const IPV6: bool>;

        impl<'de, const IPV6: bool> Visitor<'de> for RowsVisitor<IPV6> {
            type Value = Rows<'de, IPV6>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of rows")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let family = if IPV6 { Family::Ipv6 } else { Family::Ipv4 };
                let mut rows = Vec::new();
                // A filter such as `jq 'map(if … then . else null end)'` leaves `null` in place of a
                // row.
                while let Some(row) = list.next_element::<Option<Object<RawRow<'de>>>>()? {
                    rows.extend(row.map(|Object(row)| row.into_row(family)));
                }
                Ok(Rows(rows))
            }
        }

        deserializer.deserialize_seq(RowsVisitor)
    }
}

/// A row whose fields may be absent, `null`, or of another type: a mirror that re-encodes the
/// document may give each row the fields of both families. Such a field reads as empty text, and
/// only a selected row with one rejects the document.
#[derive(Deserialize)]
struct RawRow<'a> {
    #[serde(borrow, default)]
    ip_prefix: FieldName<'a>,
    #[serde(borrow, default)]
    ipv6_prefix: FieldName<'a>,
    #[serde(borrow, default)]
    region: FieldName<'a>,
    #[serde(borrow, default)]
    service: FieldName<'a>,
    #[serde(borrow, default)]
    network_border_group: FieldName<'a>,
}

impl<'a> RawRow<'a> {
    fn into_row(self, family: Family) -> Row<'a> {
        let (own, other) = match family {
            Family::Ipv4 => (self.ip_prefix, self.ipv6_prefix),
            Family::Ipv6 => (self.ipv6_prefix, self.ip_prefix),
        };
        let border_group = self.network_border_group.0;
        Row {
            family,
            prefix: if own.0.is_empty() { other.0 } else { own.0 },
            region: self.region.0,
            service: self.service.0,
            border_group: (!border_group.is_empty()).then_some(border_group),
        }
    }
}

impl<'a> RawDocument<'a> {
    fn into_document(self) -> Result<Document<'a>, DocumentError> {
        let prefixes = self.prefixes.ok_or(DocumentError::NoPrefixes)?;
        let sync_token = match self.sync_token.ok_or(DocumentError::NoToken)? {
            RawToken::Number(number) => SyncToken(number),
            RawToken::Other(text) => return Err(DocumentError::BadToken(text)),
        };
        let mut rows = prefixes.0;
        rows.extend(self.ipv6_prefixes.into_iter().flat_map(|list| list.0));
        let mut create_date = self.create_date.0;
        // The date goes into messages, the journal and metrics.
        if create_date.len() > LONGEST_DATE {
            create_date = Cow::Borrowed("");
        } else if let Cow::Owned(shown) = escaped(&create_date) {
            create_date = Cow::Owned(shown);
        }
        Ok(Document {
            sync_token,
            create_date,
            rows,
        })
    }
}

/// Text borrowed from the JSON string unless the string has escapes; empty for a value that is no
/// string. serde borrows a plain `Cow<str>` only, and copies inside an `Option`; `&str` rejects
/// strings with escapes.
#[derive(Default)]
struct FieldName<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for FieldName<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldVisitor;

        impl<'de> Visitor<'de> for FieldVisitor {
            type Value = FieldName<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(FieldName(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(FieldName(Cow::Owned(text.to_owned())))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok(FieldName::default())
            }

            fn visit_bool<E: de::Error>(self, _: bool) -> Result<Self::Value, E> {
                Ok(FieldName::default())
            }

            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Self::Value, E> {
                Ok(FieldName::default())
            }

            fn visit_u64<E: de::Error>(self, _: u64) -> Result<Self::Value, E> {
                Ok(FieldName::default())
            }

            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Self::Value, E> {
                Ok(FieldName::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(FieldName::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(FieldName::default())
            }
        }

        deserializer.deserialize_any(FieldVisitor)
    }
}

/// Amazon writes the token as a string of digits; a mirror may re-encode the token as a number.
enum RawToken {
    Number(u64),
    Other(String),
}

impl<'de> Deserialize<'de> for RawToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TokenVisitor;

        impl Visitor<'_> for TokenVisitor {
            type Value = RawToken;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a `syncToken` of digits")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RawToken, E> {
                // `u64::from_str` alone would accept "+1".
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                Ok(match text.parse() {
                    Ok(number) if digits => RawToken::Number(number),
                    _ => RawToken::Other(shortened(text, LONGEST_QUOTE)),
                })
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<RawToken, E> {
                Ok(RawToken::Number(number))
            }
        }

        deserializer.deserialize_any(TokenVisitor)
    }
}

#[cfg(test)]
mod tests;
