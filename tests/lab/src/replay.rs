//! Every version of `ip-ranges.json` from 2017 to 2023, one after the other.
//!
//! ```ignore
//! let mut replay = Replay::open(&dir);
//! while replay.advance_to_change(|row| row.is("S3", "us-east-1")) {
//!     let bytes = replay.document();          // as AWS wrote it, up to the order of rows
//!     let wanted = replay.selected(|row| row.is("S3", "us-east-1"));
//! }
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use ipnet::IpNet;
use serde::Deserialize;

use super::data::decompress;

/// One stored row: prefix, region, service, border group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct ReplayRow(pub String, pub String, pub String, pub Option<String>);

impl ReplayRow {
    pub fn prefix(&self) -> &str {
        &self.0
    }

    pub fn region(&self) -> &str {
        &self.1
    }

    pub fn service(&self) -> &str {
        &self.2
    }

    pub fn is(&self, service: &str, region: &str) -> bool {
        self.2 == service && self.1 == region
    }
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "syncToken")]
    sync_token: String,
    #[serde(rename = "createDate")]
    create_date: String,
    /// The first line's.
    #[serde(default)]
    rows: Vec<ReplayRow>,
    #[serde(default)]
    add: Vec<ReplayRow>,
    #[serde(default)]
    del: Vec<ReplayRow>,
}

/// The history, with one current version.
pub struct Replay {
    text: String,
    offset: usize,
    /// The number of occurrences of each row: one version lists a row twice.
    rows: BTreeMap<ReplayRow, u32>,
    current: Option<Line>,
    /// Number of versions so far.
    count: usize,
}

impl Replay {
    /// Opens the history before the first version.
    pub fn open(ip_ranges_dir: &Path) -> Replay {
        let bytes = decompress(&ip_ranges_dir.join("replay-2017-2023.jsonl.xz"));
        Replay {
            text: String::from_utf8(bytes).expect("the replay is UTF-8"),
            offset: 0,
            rows: BTreeMap::new(),
            current: None,
            count: 0,
        }
    }

    /// Goes to the next version; false at the end.
    pub fn advance(&mut self) -> bool {
        let Some(line) = self.text[self.offset..].lines().next() else {
            return false;
        };
        self.offset += line.len() + 1;
        let line: Line = serde_json::from_str(line).expect("a line of the replay");
        for row in &line.del {
            let count = self
                .rows
                .get_mut(row)
                .unwrap_or_else(|| panic!("{row:?} is withdrawn but was never listed"));
            *count -= 1;
            if *count == 0 {
                self.rows.remove(row);
            }
        }
        for row in line.rows.iter().chain(&line.add) {
            *self.rows.entry(row.clone()).or_default() += 1;
        }
        self.current = Some(line);
        self.count += 1;
        true
    }

    /// Goes to the next version with a matching row added or removed; false at the end.
    pub fn advance_to_change(&mut self, wanted: impl Fn(&ReplayRow) -> bool) -> bool {
        while self.advance() {
            let line = self.line();
            let changed = line.rows.iter().chain(&line.add).chain(&line.del);
            if changed.into_iter().any(&wanted) {
                return true;
            }
        }
        false
    }

    fn line(&self) -> &Line {
        self.current.as_ref().expect("advance() was called first")
    }

    /// `syncToken` of this version.
    pub fn sync_token(&self) -> u64 {
        self.line().sync_token.parse().expect("a token of digits")
    }

    /// `createDate` of this version.
    pub fn create_date(&self) -> &str {
        &self.line().create_date
    }

    /// Number of this version, from 1.
    pub fn number(&self) -> usize {
        self.count
    }

    /// The distinct rows of this version.
    pub fn rows(&self) -> impl Iterator<Item = &ReplayRow> {
        self.rows.keys()
    }

    /// The distinct prefixes of the matching rows: the correct result of a selection.
    pub fn selected(&self, wanted: impl Fn(&ReplayRow) -> bool) -> BTreeSet<IpNet> {
        self.rows()
            .filter(|row| wanted(row))
            .map(|row| row.prefix().parse().expect("a prefix"))
            .collect()
    }

    /// This version as a document in AWS's format.
    pub fn document(&self) -> Vec<u8> {
        let mut text = format!(
            "{{\n  \"syncToken\": \"{}\",\n  \"createDate\": \"{}\",\n  \"prefixes\": [",
            self.line().sync_token,
            self.line().create_date
        );
        self.write_rows(&mut text, false);
        text.push_str("\n  ],\n  \"ipv6_prefixes\": [");
        self.write_rows(&mut text, true);
        text.push_str("\n  ]\n}");
        text.into_bytes()
    }

    fn write_rows(&self, text: &mut String, ipv6: bool) {
        let key = if ipv6 { "ipv6_prefix" } else { "ip_prefix" };
        let mut comma = "";
        for (row, count) in &self.rows {
            if row.prefix().contains(':') != ipv6 {
                continue;
            }
            for _ in 0..*count {
                let ReplayRow(prefix, region, service, group) = row;
                write!(
                    text,
                    "{comma}\n    {{\n      \"{key}\": \"{prefix}\",\n      \"region\": \
                     \"{region}\",\n      \"service\": \"{service}\""
                )
                .expect("writing to a string");
                if let Some(group) = group {
                    write!(text, ",\n      \"network_border_group\": \"{group}\"")
                        .expect("writing to a string");
                }
                text.push_str("\n    }");
                comma = ",";
            }
        }
    }
}
