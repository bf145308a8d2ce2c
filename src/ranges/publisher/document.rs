//! The document type that every publisher's parser fills.

use std::borrow::Cow;

use crate::types::{Family, SyncToken};

/// A published list of prefixes: a version and one [`Row`] for each listed prefix, with borrowed
/// text. A document is complete and well-formed; its prefixes are unchecked text, since a pass
/// parses some hundred of some 17,000 rows. [`select`](fn@crate::ranges::select) parses and checks
/// the prefixes of selected rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document<'a> {
    /// The version (`syncToken`). Later versions have larger tokens.
    pub sync_token: SyncToken,
    /// `createDate`, as written (`YYYY-MM-DD-HH-MM-SS`, UTC); empty when missing. For display
    /// only: old documents have dates minutes away from the token, and one had no date at all.
    pub create_date: Cow<'a, str>,
    /// All rows, IPv4 first, in the order of the document.
    pub rows: Vec<Row<'a>>,
}

/// One listed prefix with its region and service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row<'a> {
    /// The family of the list that held the row (`prefixes` or `ipv6_prefixes`).
    pub family: Family,
    /// The prefix as written. This field and the two below are empty when missing.
    pub prefix: Cow<'a, str>,
    pub region: Cow<'a, str>,
    pub service: Cow<'a, str>,
    /// `network_border_group`; documents before April 2020 have none.
    pub border_group: Option<Cow<'a, str>>,
}

/// The fault of bytes that are no document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    #[error("the document is empty; check what the source serves")]
    Empty,
    #[error("the document is not UTF-8 text at byte {offset}; check what the source serves")]
    NotUtf8 {
        /// The number of valid bytes before the error.
        offset: usize,
    },
    /// As PowerShell writes by default.
    #[error("the document is UTF-16 or UTF-32 text; save it as UTF-8")]
    Utf16,
    /// A compression that is no gzip.
    #[error("the document is compressed with {0}: only plain text and gzip are read; unpack it")]
    Compressed(&'static str),
    /// A page of a proxy, a portal or a fresh web server in place of the document.
    #[error(
        "the source serves a web page (HTML or XML) and not ip-ranges.json; check the URL, and whether a proxy or a login page answers in its place"
    )]
    Html,
    #[error(
        "the document is truncated: it ends at line {line}, column {column} ({reason}); \
         the download was cut short"
    )]
    Truncated {
        line: usize,
        column: usize,
        reason: String,
    },
    #[error(
        "the document is not JSON at line {line}, column {column}: {reason}; \
         check what the source serves"
    )]
    NotJson {
        line: usize,
        column: usize,
        reason: String,
    },
    #[error(
        "extra text follows the end of the document at line {line}, column {column}; \
         a longer file was overwritten in place"
    )]
    TrailingGarbage { line: usize, column: usize },
    #[error(
        "the document is JSON, but not of the shape of ip-ranges.json, at line {line}, \
         column {column}: {reason}; check the source's URL"
    )]
    Shape {
        line: usize,
        column: usize,
        reason: String,
    },
    #[error("the document has no `prefixes`; check the source's URL")]
    NoPrefixes,
    #[error("the document has no `syncToken`, so its age is unknown; check the source's URL")]
    NoToken,
    #[error("`syncToken` is not a number of seconds: \"{0}\"; check what the source serves")]
    BadToken(String),
}

impl Document<'_> {
    /// True if both documents hold the same set of rows; order and duplicates don't count.
    pub fn same_rows(&self, other: &Document<'_>) -> bool {
        fn sorted<'r>(rows: &'r [Row<'_>]) -> Vec<&'r Row<'r>> {
            let mut rows: Vec<&Row<'_>> = rows.iter().collect();
            rows.sort_unstable();
            rows.dedup();
            rows
        }
        self.rows == other.rows || sorted(&self.rows) == sorted(&other.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_duplicates_of_rows_do_not_count() {
        let row = |prefix: &'static str| Row {
            family: Family::Ipv4,
            prefix: prefix.into(),
            region: "us-east-1".into(),
            service: "S3".into(),
            border_group: None,
        };
        let document = |prefixes: &[&'static str]| Document {
            sync_token: SyncToken(1),
            create_date: "".into(),
            rows: prefixes.iter().copied().map(row).collect(),
        };
        let first = document(&["3.5.0.0/19", "3.6.0.0/19"]);
        let reordered = document(&["3.6.0.0/19", "3.5.0.0/19", "3.6.0.0/19"]);
        assert!(first.same_rows(&reordered));
        assert!(!first.same_rows(&document(&["3.6.0.0/19"])));
    }
}
