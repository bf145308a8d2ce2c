//! `[vpc_plane]`: the route tables of a VPC (vpc role).

use std::time::Duration;

use super::reader::Reader;
use super::texts::own_region;
use super::units::bare_percent;
use super::units::percent;
use super::values::{auto_or, integer, text, time, with_unit, word};
use super::{AutoOr, Config, settings};
use crate::types::{Family, PerFamily, Region};

/// `[vpc_plane] mode`: the objects that lead to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaneMode {
    /// One managed prefix list of each family, and one route to it in each table.
    PrefixList,
    /// One route for each prefix in each table.
    Routes,
}

words!(PlaneMode { PrefixList => "prefix-list", Routes => "routes" });

/// `[vpc_plane] drift`: the treatment of entries and routes that another program has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriftUse {
    /// The next pass restores them.
    Mend,
    /// The next pass reports them and changes nothing.
    Hold,
}

words!(DriftUse { Mend => "mend", Hold => "hold" });

/// `[vpc_plane] tables`: route tables.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableSelector {
    /// `rtb-…`
    Id(String),
    /// `tag:KEY=VALUE`: all tables with the tag.
    Tag { key: String, value: String },
}

impl std::fmt::Display for TableSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TableSelector::Id(id) => f.write_str(id),
            TableSelector::Tag { key, value } => write!(f, "tag:{key}={value}"),
        }
    }
}

settings! {
    /// `[vpc_plane]`: the route tables of a VPC.
    #[derive(Debug, Clone, PartialEq)]
    pub struct VpcPlaneConfig {
        pub mode: PlaneMode = PlaneMode::PrefixList,
        /// The lists' name without `-ipv4` and `-ipv6`.
        pub name: String = "trailblazer-s3".to_owned(),
        /// The ids of existing lists, at most one of each family; empty: found by tag and name, or
        /// created.
        pub lists: Vec<String> = Vec::new(),
        /// The tables; no other table is ever changed.
        pub tables: Vec<TableSelector> = Vec::new(),
        /// The id of the target of each family; `None` leaves the family out.
        pub target: PerFamily<Option<String>> = PerFamily { ipv4: None, ipv6: None },
        /// The room of a list above its entries, in percent of them.
        // The largest change of S3 in one region from 2024 to 2026 was 24 of 17 entries, in IPv6; the
        // usual one is 3 of 15.
        pub headroom: f64 = 25.0,
        /// The quota of routes in a table, of each family.
        // The default of new accounts since 2025 ("Amazon VPC quotas").
        pub quota: u32 = 500,
        /// No change leaves fewer addresses than this in a family; for IPv6, 4096 networks of /64 count
        /// as one.
        pub floor: u64 = 256,
        /// The region of the tables; `auto`: `AWS_REGION`, else the metadata service.
        pub region: AutoOr<Region> = AutoOr::Auto,
        /// Another endpoint of EC2 than the region's.
        pub endpoint: Option<String> = None,
        /// The changing calls a second.
        // EC2 grants an account 5 a second ("Request throttling for the Amazon EC2 API"); the
        // others are for the account's other users.
        pub writes_per_second: u32 = 2,
        /// The time limit of a pass's calls, with all retries.
        pub deadline: Duration = Duration::from_secs(300),
        pub drift: DriftUse = DriftUse::Mend,
    }
}

impl VpcPlaneConfig {
    /// The families with a target.
    pub fn families(&self) -> impl Iterator<Item = Family> {
        let families = Family::ALL.into_iter();
        families.filter(|family| self.target.get(*family).is_some())
    }
}

/// Reads the table.
pub(super) fn read(reader: &mut Reader<'_>, config: &mut Config) {
    let plane = &mut config.vpc_plane;
    let targets = "the id of a target such as \"igw-0123456789abcdef0\", or \"\" for none";
    reader.value(
        "vpc_plane.mode",
        "\"prefix-list\" or \"routes\"",
        &mut plane.mode,
        word,
    );
    let name = "a name such as \"trailblazer-s3\"";
    reader.value("vpc_plane.name", name, &mut plane.name, text(list_name));
    let lists = "a list of ids such as [\"pl-0123456789abcdef0\"]";
    reader.collect(
        "vpc_plane.lists",
        lists,
        false,
        &mut plane.lists,
        text(list_id),
    );
    let tables = "a list such as [\"tag:trailblazer=bypass\"] or [\"rtb-0123456789abcdef0\"]";
    reader.collect(
        "vpc_plane.tables",
        tables,
        false,
        &mut plane.tables,
        text(table),
    );
    let PerFamily { ipv4, ipv6 } = &mut plane.target;
    reader.value(
        "vpc_plane.target.ipv4",
        targets,
        ipv4,
        text(|id| target(id, Family::Ipv4)),
    );
    reader.value(
        "vpc_plane.target.ipv6",
        targets,
        ipv6,
        text(|id| target(id, Family::Ipv6)),
    );
    read_limits(reader, plane);
}

fn read_limits(reader: &mut Reader<'_>, plane: &mut VpcPlaneConfig) {
    let share = "a share such as \"25%\"";
    reader.value(
        "vpc_plane.headroom",
        share,
        &mut plane.headroom,
        with_unit(percent, bare_percent),
    );
    let quota = "a whole number such as 500";
    // The most that AWS grants ("Amazon VPC quotas").
    reader.value(
        "vpc_plane.quota",
        quota,
        &mut plane.quota,
        integer(1, 1000, ""),
    );
    let floor = "a whole number of addresses such as 256";
    reader.value(
        "vpc_plane.floor",
        floor,
        &mut plane.floor,
        integer(1, 1 << 32, ""),
    );
    let own = "a region such as \"us-east-1\", or \"auto\"";
    reader.value(
        "vpc_plane.region",
        own,
        &mut plane.region,
        auto_or(own_region),
    );
    let url = "a URL such as \"https://ec2.us-east-1.api.aws\", or \"\" for the region's own";
    reader.value(
        "vpc_plane.endpoint",
        url,
        &mut plane.endpoint,
        text(endpoint),
    );
    let rate = "a whole number such as 2";
    reader.value(
        "vpc_plane.writes_per_second",
        rate,
        &mut plane.writes_per_second,
        integer(1, 100, ""),
    );
    time(
        reader,
        "vpc_plane.deadline",
        &mut plane.deadline,
        Duration::from_secs(1),
    );
    reader.value(
        "vpc_plane.drift",
        "\"mend\" or \"hold\"",
        &mut plane.drift,
        word,
    );
}

/// The longest name of a prefix list is 255 characters; the family takes five.
fn list_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > 250 || !text.chars().all(plain) {
        return Err(format!(
            "{text:?} is not a name: write at most 250 letters, digits, hyphens, dots and underscores"
        ));
    }
    if text.starts_with("com.amazonaws") {
        return Err(format!(
            "{text:?} is a name of AWS's own lists: write another one"
        ));
    }
    Ok(text.to_owned())
}

/// True for `PREFIX` and 8 or 17 hexadecimal digits, the old and the new form of ids.
fn is_id(text: &str, prefix: &str) -> bool {
    let digits = text.strip_prefix(prefix).unwrap_or_default();
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    matches!(digits.len(), 8 | 17) && digits.chars().all(hex)
}

fn list_id(text: &str) -> Result<String, String> {
    if is_id(text, "pl-") {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is not the id of a prefix list: write \"pl-\" and 17 hexadecimal digits"
    ))
}

fn table(text: &str) -> Result<TableSelector, String> {
    if let Some(tag) = text.strip_prefix("tag:") {
        // The limits of EC2 ("Tag your Amazon EC2 resources").
        return match tag.split_once('=') {
            Some((key, value)) if !key.is_empty() && key.len() <= 128 && value.len() <= 256 => {
                Ok(TableSelector::Tag {
                    key: key.to_owned(),
                    value: value.to_owned(),
                })
            }
            _ => Err(format!("{text:?} is not a tag: write \"tag:KEY=VALUE\"")),
        };
    }
    if is_id(text, "rtb-") {
        return Ok(TableSelector::Id(text.to_owned()));
    }
    Err(format!(
        "{text:?} is not a route table: write \"rtb-\" and 17 hexadecimal digits, or \"tag:KEY=VALUE\""
    ))
}

/// The kinds of targets by the start of their ids.
const TARGETS: [&str; 11] = [
    "igw-", "vgw-", "eigw-", "nat-", "eni-", "i-", "tgw-", "pcx-", "vpce-", "lgw-", "cagw-",
];

fn target(text: &str, family: Family) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let by_arn =
        text.starts_with("arn:") && (text.contains(":networkmanager:") || text.contains(":odb:"));
    if !by_arn && !TARGETS.iter().any(|prefix| is_id(text, prefix)) {
        return Err(format!(
            "{text:?} is not the id of a target: write an id that begins with {}, or the ARN of a \
             core network",
            TARGETS.join(", ")
        ));
    }
    if family == Family::Ipv4 && text.starts_with("eigw-") {
        return Err(format!(
            "{text:?} is an egress-only internet gateway, which carries IPv6 alone: write \"igw-…\""
        ));
    }
    Ok(Some(text.to_owned()))
}

fn endpoint(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let host = rest.trim_end_matches('/');
    let plain = !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']);
    if !matches!(scheme, "http" | "https") || !plain {
        return Err(format!(
            "{text:?} is not an endpoint: write a URL without path and credentials, such as \
             \"https://ec2.us-east-1.api.aws\""
        ));
    }
    Ok(Some(format!("{scheme}://{host}")))
}
