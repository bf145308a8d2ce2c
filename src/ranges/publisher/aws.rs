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
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

use super::document::{Document, DocumentError, Row};
use crate::types::{Family, SyncToken};

impl<'a> Document<'a> {
    /// Parses the bytes of an `ip-ranges.json`.
    ///
    /// # Errors
    /// The bytes are not a complete, well-formed document.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DocumentError> {
        let text = std::str::from_utf8(bytes).map_err(|error| DocumentError::NotUtf8 {
            offset: error.valid_up_to(),
        })?;
        if text.trim().is_empty() {
            return Err(DocumentError::Empty);
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
            .unwrap_or(&reason)
            .to_owned();
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
    #[serde(rename = "createDate", borrow, default)]
    create_date: Text<'a>,
    #[serde(borrow, default)]
    prefixes: Option<Rows<'a, false>>,
    #[serde(borrow, default)]
    ipv6_prefixes: Rows<'a, true>,
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
                while let Some(Object(row)) = list.next_element::<Object<RawRow<'de>>>()? {
                    rows.push(row.into_row(family));
                }
                Ok(Rows(rows))
            }
        }

        deserializer.deserialize_seq(RowsVisitor)
    }
}

#[derive(Deserialize)]
struct RawRow<'a> {
    #[serde(rename = "ip_prefix", alias = "ipv6_prefix", borrow, default)]
    prefix: Text<'a>,
    #[serde(borrow)]
    region: Text<'a>,
    #[serde(borrow)]
    service: Text<'a>,
    #[serde(borrow, default)]
    network_border_group: Option<Text<'a>>,
}

impl<'a> RawRow<'a> {
    fn into_row(self, family: Family) -> Row<'a> {
        Row {
            family,
            prefix: self.prefix.0,
            region: self.region.0,
            service: self.service.0,
            border_group: self.network_border_group.map(|text| text.0),
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
        rows.extend(self.ipv6_prefixes.0);
        Ok(Document {
            sync_token,
            create_date: self.create_date.0,
            rows,
        })
    }
}

/// Text borrowed from the JSON string unless the string has escapes. serde borrows a plain
/// `Cow<str>` only, and copies inside an `Option`; `&str` rejects strings with escapes.
#[derive(Default)]
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(TextVisitor)
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
                    _ => RawToken::Other(text.to_owned()),
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
mod tests {
    use super::*;

    const SMALL: &str = r#"{
  "syncToken": "1700000000",
  "createDate": "2023-11-14-22-13-20",
  "prefixes": [
    {"ip_prefix": "3.5.0.0/19", "region": "us-east-1", "service": "S3", "network_border_group": "us-east-1"}
  ],
  "ipv6_prefixes": [
    {"service": "S3", "new_field": [1, {"a": null}], "region": "us-east-1", "ipv6_prefix": "2600:1fa0:8000::/39"}
  ],
  "unknown": {"deep": [true]}
}"#;

    fn error(text: &str) -> DocumentError {
        Document::parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn unescaped_text_is_borrowed_from_the_bytes() {
        let document = Document::parse(SMALL.as_bytes()).unwrap();
        assert_eq!(document.sync_token, SyncToken(1_700_000_000));
        assert_eq!(document.create_date, "2023-11-14-22-13-20");
        assert_eq!(document.rows.len(), 2);
        let [v4, v6] = &document.rows[..] else {
            panic!()
        };
        assert_eq!((v4.family, v6.family), (Family::Ipv4, Family::Ipv6));
        assert_eq!(v6.prefix, "2600:1fa0:8000::/39");
        assert_eq!(v6.border_group, None);
        assert_eq!(v4.border_group.as_deref(), Some("us-east-1"));
        for text in [&v4.prefix, &v4.region, v4.border_group.as_ref().unwrap()] {
            assert!(matches!(text, Cow::Borrowed(_)), "{text} was copied");
        }
    }

    #[test]
    fn escaped_strings_are_unescaped() {
        let text = SMALL.replace("3.5.0.0/19", r"3.5.0.0\/19");
        let document = Document::parse(text.as_bytes()).unwrap();
        assert_eq!(document.rows[0].prefix, "3.5.0.0/19");
        let text = SMALL.replace("\"S3\", \"network", "\"\\u00533\", \"network");
        assert_ne!(text, SMALL);
        let document = Document::parse(text.as_bytes()).unwrap();
        assert_eq!(document.rows[0].service, "S3");
    }

    #[test]
    fn ipv6_prefixes_and_create_date_may_be_missing() {
        let document = Document::parse(br#"{"prefixes": [], "syncToken": 12}"#).unwrap();
        assert_eq!(document.sync_token, SyncToken(12));
        assert_eq!(document.create_date, "");
        assert!(document.rows.is_empty());
    }

    #[test]
    fn each_malformed_document_gets_its_own_error() {
        assert_eq!(error(""), DocumentError::Empty);
        assert_eq!(error(" \n\t"), DocumentError::Empty);
        assert_eq!(
            Document::parse(b"{\"a\": \"\xff\"}"),
            Err(DocumentError::NotUtf8 { offset: 7 })
        );
        assert!(matches!(
            error("<html>"),
            DocumentError::NotJson {
                line: 1,
                column: 1,
                ..
            }
        ));
        assert!(matches!(
            error("{\n\"prefixes\": nope}"),
            DocumentError::NotJson { line: 2, .. }
        ));
        assert!(matches!(error("[]"), DocumentError::Shape { .. }));
        assert!(matches!(error("null"), DocumentError::Shape { .. }));
        // serde's derive alone would accept both arrays as lists of fields.
        for arrays in [
            r#"["1", "", [], []]"#,
            r#"{"syncToken": "1", "prefixes": [["3.5.0.0/19", "us-east-1", "S3", null]]}"#,
        ] {
            assert!(matches!(error(arrays), DocumentError::Shape { .. }));
        }
        assert_eq!(error(r#"{"syncToken": "1"}"#), DocumentError::NoPrefixes);
        assert_eq!(error(r#"{"prefixes": []}"#), DocumentError::NoToken);
        for bad in ["", "+1", "-1", "1.5", "now", "99999999999999999999999"] {
            let text = format!(r#"{{"prefixes": [], "syncToken": "{bad}"}}"#);
            assert_eq!(error(&text), DocumentError::BadToken(bad.to_owned()));
        }
        for bad in ["1.5", "true", "-4"] {
            let text = format!(r#"{{"prefixes": [], "syncToken": {bad}}}"#);
            assert!(matches!(error(&text), DocumentError::Shape { .. }), "{bad}");
        }
        assert!(matches!(
            error(
                r#"{"syncToken": "1", "prefixes": [{"ip_prefix": "1.2.3.0/24", "region": "x"}]}"#
            ),
            DocumentError::Shape { .. }
        ));
        assert!(matches!(
            error(r#"{"syncToken": "1", "prefixes": {"a": 1}}"#),
            DocumentError::Shape { .. }
        ));
    }

    #[test]
    fn every_truncation_is_reported_as_truncated() {
        for end in 1..SMALL.len() {
            let found = error(&SMALL[..end]);
            assert!(
                matches!(found, DocumentError::Truncated { .. }),
                "cut at {end}: {found}"
            );
        }
    }

    #[test]
    fn text_after_the_end_is_an_error_with_its_place() {
        assert_eq!(
            error(&format!("{SMALL}\n}}")),
            DocumentError::TrailingGarbage {
                line: 12,
                column: 1
            }
        );
        assert!(Document::parse(format!("{SMALL}\n\n").as_bytes()).is_ok());
        assert!(matches!(
            error(&format!("{SMALL}{SMALL}")),
            DocumentError::TrailingGarbage { .. }
        ));
    }

    #[test]
    fn messages_name_the_place_once() {
        let message = error("{\n\"prefixes\": nope}").to_string();
        assert!(message.contains("line 2, column"), "{message}");
        assert_eq!(message.matches("line").count(), 1, "{message}");
    }
}
