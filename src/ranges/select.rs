//! Which rows of a document are wanted, and their prefixes, strictly parsed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::publisher::{Document, Row};
use crate::nearest::nearest;
use crate::types::{Family, Region, Service};

/// What the config selects, with `auto` regions resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// Services, exactly as AWS writes them.
    pub services: Vec<Service>,
    /// Regions, exactly as AWS writes them.
    pub regions: Vec<Region>,
    /// Address families.
    pub families: BTreeSet<Family>,
}

impl Selector {
    /// Whether the config still wants this group.
    pub fn wants(&self, group: &Group) -> bool {
        self.families.contains(&group.family)
            && self.services.contains(&group.service)
            && self.regions.contains(&group.region)
    }
}

/// The unit in which the guard measures: one service in one region, one family.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Group {
    /// The service.
    pub service: Service,
    /// The region.
    pub region: Region,
    /// The family.
    pub family: Family,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.service, self.region, self.family)
    }
}

/// The selected prefixes as the document lists them, group by group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// Sorted and distinct within a group; a group without prefixes is absent.
    pub groups: BTreeMap<Group, Vec<IpNet>>,
    /// What the operator may have mistyped.
    pub hints: Vec<Hint>,
}

impl Selection {
    /// Every prefix with its group.
    pub fn prefixes(&self) -> impl Iterator<Item = (&Group, &IpNet)> {
        self.groups
            .iter()
            .flat_map(|(group, prefixes)| prefixes.iter().map(move |prefix| (group, prefix)))
    }
}

/// Something selected that the document doesn't have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Hint {
    /// No row is of this service.
    #[error(
        "the document knows no service `{service}`{}; names are case-sensitive",
        did_you_mean(.nearest.as_deref())
    )]
    UnknownService {
        /// As configured.
        service: Service,
        /// The nearest one that exists.
        nearest: Option<String>,
    },
    /// No row is of this region.
    #[error(
        "the document knows no region `{region}`{}; names are case-sensitive",
        did_you_mean(.nearest.as_deref())
    )]
    UnknownRegion {
        /// As configured.
        region: Region,
        /// The nearest one that exists.
        nearest: Option<String>,
    },
    /// Both exist, but not together.
    #[error("the document lists no prefix of {service} in {region}")]
    NothingThere {
        /// The service.
        service: Service,
        /// The region.
        region: Region,
    },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

/// Why a row's prefix can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPrefix {
    /// Not a prefix of the family whose list it stands in.
    #[error("not an {0} prefix")]
    NotAPrefix(&'static str),
    /// A number that is decimal to some readers and octal to others.
    #[error("a number begins with 0, which some readers take for octal")]
    LeadingZero,
    /// Address bits behind the length: one typing error away from another network.
    #[error("host bits are set; its network would be {0}")]
    HostBits(IpNet),
}

/// A row whose prefix can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("row `{prefix}` ({service}, {region}): {reason}")]
pub struct BadRow {
    /// The prefix as written.
    pub prefix: String,
    /// The row's service.
    pub service: String,
    /// The row's region.
    pub region: String,
    /// What is wrong.
    pub reason: BadPrefix,
}

/// Selected rows that can't be used: the document isn't to be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{first}{}", and_more(.others))]
pub struct SelectError {
    /// The first of them.
    pub first: BadRow,
    /// The others.
    pub others: Vec<BadRow>,
}

fn and_more(others: &[BadRow]) -> String {
    match others.len() {
        0 => String::new(),
        1 => " (and 1 more selected row)".to_owned(),
        more => format!(" (and {more} more selected rows)"),
    }
}

/// `052.216.0.0` is 52.216.0.0 to some readers and, octal, 42.216.0.0 to others (inet_aton(3)).
pub(crate) fn has_leading_zero(ipv4: &str) -> bool {
    ipv4.split(['.', '/'])
        .any(|number| number.len() > 1 && number.starts_with('0'))
}

/// The two sides of the slash. The standard library reads addresses in half the time of ipnet's
/// own parser, and refuses leading zeros; its numbers alone would take "+19" and "019".
fn address_and_length(text: &str) -> Option<(&str, u8)> {
    let (address, length) = text.split_once('/')?;
    let digits = length.bytes().all(|byte| byte.is_ascii_digit());
    let plain = digits && (length.len() == 1 || !length.starts_with('0'));
    Some((address, length.parse().ok().filter(|_| plain)?))
}

fn parse_prefix(row: &Row<'_>) -> Result<IpNet, BadRow> {
    let parsed = address_and_length(&row.prefix).and_then(|(address, length)| {
        let prefix = match row.family {
            Family::Ipv4 => IpNet::V4(Ipv4Net::new(address.parse().ok()?, length).ok()?),
            Family::Ipv6 => IpNet::V6(Ipv6Net::new(address.parse().ok()?, length).ok()?),
        };
        Some(prefix)
    });
    parsed
        .ok_or_else(|| match row.family {
            Family::Ipv4 if has_leading_zero(&row.prefix) => BadPrefix::LeadingZero,
            Family::Ipv4 => BadPrefix::NotAPrefix("IPv4"),
            Family::Ipv6 => BadPrefix::NotAPrefix("IPv6"),
        })
        .and_then(|prefix| match prefix.trunc() {
            network if network == prefix => Ok(prefix),
            network => Err(BadPrefix::HostBits(network)),
        })
        .map_err(|reason| BadRow {
            prefix: row.prefix.clone().into_owned(),
            service: row.service.clone().into_owned(),
            region: row.region.clone().into_owned(),
            reason,
        })
}

/// The selected prefixes of a document.
///
/// # Errors
/// A selected row whose prefix doesn't parse or has host bits set.
pub fn select(document: &Document<'_>, selector: &Selector) -> Result<Selection, SelectError> {
    let (selection, bad) = select_lenient(document, selector);
    let mut bad = bad.into_iter();
    match bad.next() {
        None => Ok(selection),
        Some(first) => Err(SelectError {
            first,
            others: bad.collect(),
        }),
    }
}

/// As [`select`], but leaves bad rows out and returns them: for a document that was accepted
/// before the config selected those rows.
pub fn select_lenient(document: &Document<'_>, selector: &Selector) -> (Selection, Vec<BadRow>) {
    let (services, regions) = (&selector.services, &selector.regions);
    let mut service_seen = vec![false; services.len()];
    let mut region_seen = vec![false; regions.len()];
    let mut pair_seen = vec![false; services.len() * regions.len()];
    let mut found: BTreeMap<(usize, usize, Family), Vec<IpNet>> = BTreeMap::new();
    let mut bad = Vec::new();
    for row in &document.rows {
        let service = services.iter().position(|name| name.0 == *row.service);
        let region = regions.iter().position(|name| name.0 == *row.region);
        if let Some(service) = service {
            service_seen[service] = true;
        }
        if let Some(region) = region {
            region_seen[region] = true;
        }
        let (Some(service), Some(region)) = (service, region) else {
            continue;
        };
        pair_seen[service * regions.len() + region] = true;
        if !selector.families.contains(&row.family) {
            continue;
        }
        match parse_prefix(row) {
            Ok(prefix) => found
                .entry((service, region, row.family))
                .or_default()
                .push(prefix),
            Err(row) => bad.push(row),
        }
    }
    let groups = found
        .into_iter()
        .map(|((service, region, family), mut prefixes)| {
            prefixes.sort_unstable();
            prefixes.dedup();
            let group = Group {
                service: services[service].clone(),
                region: regions[region].clone(),
                family,
            };
            (group, prefixes)
        })
        .collect();
    let hints = hints(document, selector, &service_seen, &region_seen, &pair_seen);
    (Selection { groups, hints }, bad)
}

fn hints(
    document: &Document<'_>,
    selector: &Selector,
    service_seen: &[bool],
    region_seen: &[bool],
    pair_seen: &[bool],
) -> Vec<Hint> {
    let mut hints = Vec::new();
    for (service, _) in unseen(&selector.services, service_seen) {
        let existing: BTreeSet<&str> = document.rows.iter().map(|row| &*row.service).collect();
        hints.push(Hint::UnknownService {
            service: service.clone(),
            nearest: nearest(service.as_str(), existing).map(str::to_owned),
        });
    }
    for (region, _) in unseen(&selector.regions, region_seen) {
        let existing: BTreeSet<&str> = document.rows.iter().map(|row| &*row.region).collect();
        hints.push(Hint::UnknownRegion {
            region: region.clone(),
            nearest: nearest(region.as_str(), existing).map(str::to_owned),
        });
    }
    for (s, service) in selector.services.iter().enumerate() {
        for (r, region) in selector.regions.iter().enumerate() {
            let pair = s * selector.regions.len() + r;
            if service_seen[s] && region_seen[r] && !pair_seen[pair] {
                hints.push(Hint::NothingThere {
                    service: service.clone(),
                    region: region.clone(),
                });
            }
        }
    }
    hints
}

fn unseen<'n, T>(names: &'n [T], seen: &'n [bool]) -> impl Iterator<Item = (&'n T, &'n bool)> {
    names.iter().zip(seen).filter(|(_, seen)| !**seen)
}

/// Rows outside the selection whose prefix can't be used: worth a note, no more. Parses the
/// whole document, so only for one that is new.
pub fn bad_rows_outside(document: &Document<'_>, selector: &Selector) -> Vec<BadRow> {
    let selected = |row: &Row<'_>| {
        selector.families.contains(&row.family)
            && selector.services.iter().any(|name| name.0 == *row.service)
            && selector.regions.iter().any(|name| name.0 == *row.region)
    };
    document
        .rows
        .iter()
        .filter_map(|row| parse_prefix(row).err().map(|bad| (row, bad)))
        .filter(|(row, _)| !selected(row))
        .map(|(_, bad)| bad)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"syncToken": "1", "prefixes": [
        {"ip_prefix": "52.216.0.0/15", "region": "us-east-1", "service": "S3"},
        {"ip_prefix": "3.5.0.0/19", "region": "us-east-1", "service": "S3"},
        {"ip_prefix": "3.5.0.0/19", "region": "us-east-1", "service": "S3"},
        {"ip_prefix": "3.5.0.0/19", "region": "us-east-1", "service": "EC2"},
        {"ip_prefix": "52.218.0.0/17", "region": "eu-west-1", "service": "S3"},
        {"ip_prefix": "52.119.240.0/21", "region": "eu-west-1", "service": "DYNAMODB"}],
      "ipv6_prefixes": [
        {"ipv6_prefix": "2600:1fa0:8000::/39", "region": "us-east-1", "service": "S3"}]}"#;

    fn selector(services: &[&str], regions: &[&str], families: &[Family]) -> Selector {
        Selector {
            services: services.iter().copied().map(Service::from).collect(),
            regions: regions.iter().copied().map(Region::from).collect(),
            families: families.iter().copied().collect(),
        }
    }

    fn shown(selection: &Selection) -> Vec<String> {
        selection
            .prefixes()
            .map(|(group, prefix)| format!("{group} {prefix}"))
            .collect()
    }

    #[test]
    fn rows_of_the_service_region_and_family() {
        let document = Document::parse(TEXT.as_bytes()).unwrap();
        let wanted = selector(&["S3"], &["us-east-1"], &Family::ALL);
        assert_eq!(
            shown(&select(&document, &wanted).unwrap()),
            [
                "S3 us-east-1 ipv4 3.5.0.0/19",
                "S3 us-east-1 ipv4 52.216.0.0/15",
                "S3 us-east-1 ipv6 2600:1fa0:8000::/39",
            ]
        );
        let wanted = selector(&["S3"], &["us-east-1"], &[Family::Ipv6]);
        assert_eq!(
            shown(&select(&document, &wanted).unwrap()),
            ["S3 us-east-1 ipv6 2600:1fa0:8000::/39"]
        );
    }

    #[test]
    fn a_name_that_does_not_occur_gets_a_hint() {
        let document = Document::parse(TEXT.as_bytes()).unwrap();
        let wanted = selector(
            &["s3", "DYNAMODB"],
            &["us-east1", "us-east-1"],
            &Family::ALL,
        );
        let selection = select(&document, &wanted).unwrap();
        assert!(selection.groups.is_empty());
        let hints: Vec<String> = selection.hints.iter().map(ToString::to_string).collect();
        assert_eq!(
            hints,
            [
                "the document knows no service `s3`; did you mean `S3`?; names are case-sensitive",
                "the document knows no region `us-east1`; did you mean `us-east-1`?; \
                 names are case-sensitive",
                "the document lists no prefix of DYNAMODB in us-east-1",
            ]
        );
    }

    #[test]
    fn a_bad_selected_row_is_an_error_and_elsewhere_a_note() {
        for (bad, reason) in [
            (
                "52.216.0.1/15",
                "host bits are set; its network would be 52.216.0.0/15",
            ),
            ("52.216.0.0", "not an IPv4 prefix"),
            (
                "052.216.0.0/15",
                "a number begins with 0, which some readers take for octal",
            ),
            (
                "52.216.0.0/015",
                "a number begins with 0, which some readers take for octal",
            ),
            ("52.216.0.0/33", "not an IPv4 prefix"),
            ("", "not an IPv4 prefix"),
            ("2600::/12", "not an IPv4 prefix"),
            (" 52.216.0.0/15", "not an IPv4 prefix"),
        ] {
            let text = TEXT.replace("52.216.0.0/15", bad);
            let document = Document::parse(text.as_bytes()).unwrap();
            let inside = selector(&["S3"], &["us-east-1"], &Family::ALL);
            let error = select(&document, &inside).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("row `{bad}` (S3, us-east-1): {reason}")
            );
            assert_eq!(bad_rows_outside(&document, &inside), []);
            let (lenient, left_out) = select_lenient(&document, &inside);
            assert_eq!((lenient.groups.len(), left_out.len()), (2, 1));
            for outside in [
                selector(&["S3"], &["eu-west-1"], &Family::ALL),
                selector(&["S3"], &["us-east-1"], &[Family::Ipv6]),
            ] {
                assert!(select(&document, &outside).is_ok());
                assert_eq!(
                    bad_rows_outside(&document, &outside),
                    vec![error.first.clone()]
                );
            }
        }
    }

    #[test]
    fn several_bad_rows_are_counted() {
        let text = TEXT.replace("3.5.0.0/19", "3.5.0.1/19");
        let document = Document::parse(text.as_bytes()).unwrap();
        let wanted = selector(&["S3", "EC2"], &["us-east-1"], &Family::ALL);
        let message = select(&document, &wanted).unwrap_err().to_string();
        assert!(message.ends_with("(and 2 more selected rows)"), "{message}");
    }
}
