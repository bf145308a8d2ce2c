//! Selection of the wanted rows of a document, with strictly parsed prefixes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::hint::{Hint, Occurrences};
use super::publisher::{Document, Row};
use super::row::{BadRow, parse_prefix};
use crate::types::{Family, Region, Service};

/// The selection of the config, with `auto` regions resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    /// Services, exactly as AWS writes them.
    pub services: Vec<Service>,
    /// Regions, exactly as AWS writes them.
    pub regions: Vec<Region>,
    pub families: BTreeSet<Family>,
}

impl Selector {
    /// True if the config selects this group.
    pub fn wants(&self, group: &Group) -> bool {
        self.families.contains(&group.family)
            && self.services.contains(&group.service)
            && self.regions.contains(&group.region)
    }

    /// True if the config selects the row, or would select the row if the row had the fields that
    /// are missing.
    fn may_want(&self, row: &Row<'_>) -> bool {
        let service = |name: &Service| row.service.is_empty() || name.0 == *row.service;
        let region = |name: &Region| row.region.is_empty() || name.0 == *row.region;
        self.families.contains(&row.family)
            && self.services.iter().any(service)
            && self.regions.iter().any(region)
    }
}

/// One family of one service in one region: the unit in which the guard measures losses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Group {
    pub service: Service,
    pub region: Region,
    pub family: Family,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.service, self.region, self.family)
    }
}

/// Listed prefixes by group: sorted and distinct, and no group is empty.
pub type Groups = BTreeMap<Group, Vec<IpNet>>;

/// The selected prefixes as the document lists them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    pub groups: Groups,
    /// Configured names that the document lacks: possible typing errors.
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

/// Selected rows with unusable prefixes: the whole document is untrustworthy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{first}{}", and_more(.others))]
pub struct SelectError {
    pub first: BadRow,
    pub others: Vec<BadRow>,
}

fn and_more(others: &[BadRow]) -> String {
    match others.len() {
        0 => String::new(),
        1 => " (and 1 more selected row)".to_owned(),
        more => format!(" (and {more} more selected rows)"),
    }
}

/// Returns the selected prefixes of a document.
///
/// # Errors
/// The prefix of a selected row doesn't parse or has host bits set.
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
    let mut seen = Occurrences::new(services.len(), regions.len());
    let mut found: BTreeMap<(usize, usize, Family), Vec<IpNet>> = BTreeMap::new();
    let mut bad = Vec::new();
    for row in &document.rows {
        let service = services.iter().position(|name| name.0 == *row.service);
        let region = regions.iter().position(|name| name.0 == *row.region);
        seen.note(service, region);
        let (Some(service), Some(region)) = (service, region) else {
            let incomplete = row.service.is_empty() || row.region.is_empty();
            if incomplete && selector.may_want(row) {
                bad.extend(parse_prefix(row).err());
            }
            continue;
        };
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
    let hints = seen.hints(document, services, regions);
    (Selection { groups, hints }, bad)
}

/// Returns the rows outside the selection with unusable prefixes: reason for a note, not for a
/// rejection. Parses every prefix of the document, so it is for new documents only.
pub fn bad_rows_outside(document: &Document<'_>, selector: &Selector) -> Vec<BadRow> {
    document
        .rows
        .iter()
        .filter(|row| !selector.may_want(row))
        .filter_map(|row| parse_prefix(row).err())
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
    fn incomplete_row_counts_as_selected_only_if_its_names_allow_it() {
        let wanted = selector(&["S3"], &["us-east-1"], &Family::ALL);
        for (row, is_selected) in [
            (r#"{"ip_prefix": "3.5.0.0/19", "service": "S3"}"#, true),
            (r#"{"region": "us-east-1", "service": "S3"}"#, true),
            (r#"{}"#, true),
            (
                r#"{"ip_prefix": 5, "region": "eu-west-1", "service": "S3"}"#,
                false,
            ),
            (r#"{"region": null, "service": "EC2"}"#, false),
        ] {
            let text = format!(r#"{{"syncToken": "1", "prefixes": [{row}]}}"#);
            let document = Document::parse(text.as_bytes()).unwrap();
            assert_eq!(select(&document, &wanted).is_err(), is_selected, "{row}");
            let outside = bad_rows_outside(&document, &wanted).len();
            assert_eq!(outside, usize::from(!is_selected), "{row}");
        }
    }

    #[test]
    fn selects_rows_of_the_service_region_and_family() {
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
    fn configured_name_absent_from_the_document_gets_a_hint() {
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
    fn bad_prefix_is_an_error_inside_the_selection_and_a_note_outside() {
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
            ("", "the row has no prefix"),
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
