//! `explain PREFIX`: the parts of a prefix with their paths, each compared with the kernel.

use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::ground::Ground;
use super::text::list;
use super::{ExpectedPath, Explanation, Page};
use crate::desired::special;
use crate::judge::{Agreement, Promise};
use crate::objects::ForeignSelector;
use crate::printable::indented;
use crate::ranges::PrefixSet;
use crate::reconcile::PassError;
use crate::types::{Family, SyncToken};
use crate::words::counted;

/// Most questions to the kernel; each takes some ten microseconds.
const MOST_ASKED: usize = 20_000;
/// Prefixes, and differences, named in the text.
const NAMED: usize = 8;
/// Differences in the JSON.
const LISTED: usize = 256;

/// A path, and the part of the prefix that takes the path.
struct Part {
    /// With the first prefix, for a bypass path.
    path: ExpectedPath,
    prefixes: Vec<IpNet>,
    percent: f64,
    /// The explanation of one address, for next hops and obstacles.
    sample: Explanation,
}

/// The report of `explain PREFIX`.
pub(super) struct ExplainedPrefix {
    prefix: IpNet,
    sync_token: Option<SyncToken>,
    create_date: String,
    parts: Vec<Part>,
    asked: usize,
    /// Pieces of the prefix without a question.
    unasked: usize,
    /// Of the unasked pieces, those that a packet can go to.
    beyond: usize,
    /// The first pieces whose answer is not the promised one, and the number of all.
    different: Vec<(IpNet, String)>,
    different_total: usize,
    notes: Vec<String>,
}

/// The largest pieces of a prefix without a boundary inside. `boundaries` are sorted.
fn pieces(prefix: IpNet, boundaries: &[IpNet], found: &mut Vec<IpNet>) {
    // Sorted by address, then by length: what lies inside of a prefix is one run.
    let from = boundaries.partition_point(|other| other.addr() < prefix.addr());
    let inside = &boundaries[from..];
    let to = inside.partition_point(|other| prefix.contains(&other.addr()));
    let inside = &inside[..to];
    let divides = |other: &IpNet| other.prefix_len() > prefix.prefix_len();
    if !inside.iter().any(divides) {
        found.push(prefix);
        return;
    }
    // A prefix with a longer one inside has two halves.
    for half in prefix
        .subnets(prefix.prefix_len() + 1)
        .into_iter()
        .flatten()
    {
        pieces(half, inside, found);
    }
}

/// An address of the prefix that is no network's own address: the first address of an IPv6 network
/// is anycast, the first and the last of an IPv4 network are broadcast addresses.
fn address_of(prefix: IpNet) -> IpAddr {
    let second = prefix.hosts().nth(usize::from(prefix.addr().is_ipv6()));
    second.unwrap_or_else(|| prefix.addr())
}

/// The pieces with the same path.
struct Group {
    path: ExpectedPath,
    pieces: Vec<IpNet>,
    /// An address that packets can go to.
    sample: Option<IpAddr>,
}

impl Ground<'_> {
    /// Explains the parts of a prefix.
    pub(super) fn explain_prefix(&mut self, prefix: IpNet) -> Result<ExplainedPrefix, PassError> {
        let mut all = Vec::new();
        pieces(prefix, &self.boundaries(prefix), &mut all);
        let mut groups: Vec<Group> = Vec::new();
        let (mut asked, mut different, mut different_total) = (0, Vec::new(), 0);
        let mut beyond = 0;
        for piece in &all {
            let address = address_of(*piece);
            let expected = self.expected(address);
            let path = self.path(&expected, address);
            let known = |group: &Group| group.path.word() == path.word();
            let place = groups.iter().position(known).unwrap_or(groups.len());
            if place == groups.len() {
                groups.push(Group {
                    path,
                    pieces: Vec::new(),
                    sample: None,
                });
            }
            let group = &mut groups[place];
            group.pieces.push(*piece);
            if self.is_broadcast(address) {
                continue;
            }
            group.sample.get_or_insert(address);
            if asked == MOST_ASKED {
                beyond += 1;
                continue;
            }
            asked += 1;
            let agreements = self.agreements(&expected, address)?;
            if agreements.iter().all(|found| *found == Agreement::Yes) {
                continue;
            }
            different_total += 1;
            if different.len() < LISTED {
                different.push((*piece, self.explain(address)?.summary()));
            }
        }
        let mut parts = Vec::new();
        for Group {
            path,
            pieces,
            sample,
        } in groups
        {
            let sample = sample.unwrap_or_else(|| address_of(pieces[0]));
            parts.push(Part {
                sample: self.explain(sample)?,
                percent: pieces.iter().map(|piece| share(*piece, prefix)).sum(),
                prefixes: pieces.into_iter().collect::<PrefixSet>().all_prefixes(),
                path,
            });
        }
        let ranges = &self.examined.judgement.ranges;
        Ok(ExplainedPrefix {
            prefix,
            sync_token: ranges.sync_token,
            create_date: ranges.create_date.clone(),
            parts,
            asked,
            unasked: all.len() - asked,
            beyond,
            different,
            different_total,
            notes: self.notes.clone(),
        })
    }

    /// True for the first and the last address of a network of this host.
    fn is_broadcast(&self, address: IpAddr) -> bool {
        let networks = self.examined.view.facts.own_networks();
        let mut own = networks.iter().filter(|net| net.max_prefix_len() == 32);
        own.any(|net| net.network() == address || net.broadcast() == address)
    }

    fn agreements(
        &mut self,
        expected: &crate::judge::Expected,
        address: IpAddr,
    ) -> Result<Vec<Agreement>, PassError> {
        let view = &self.examined.view;
        let kernel = &mut self.kernel;
        let promise = Promise {
            chains: &self.chains,
            ..view.promise(&self.desired)
        };
        let answers = super::answer::ask(view, &promise, expected, address, kernel)?;
        Ok(answers.into_iter().map(|answer| answer.agreement).collect())
    }

    /// Every prefix inside of `prefix` at which a path may begin or end: of our tables, of the main
    /// table, of foreign rules and routes, and the host's own addresses.
    fn boundaries(&self, prefix: IpNet) -> Vec<IpNet> {
        let family = Family::of_net(&prefix);
        let view = &self.examined.view;
        let rules = view.observed.rules.iter();
        let selectors = rules.flat_map(|rule| &rule.foreign_selectors);
        let mut found: Vec<IpNet> = special::thrown(family, &view.vpc_cidrs);
        // All of this network is local (RFC 1122, section 3.2.1.3).
        found.extend("127.0.0.0/8".parse::<IpNet>());
        found.extend(self.desired.routes.iter().map(|route| route.key.dst));
        found.extend(view.observed.routes.iter().map(|route| route.key.dst));
        found.extend(view.facts.main_routes.iter().map(|route| route.dst));
        found.extend(selectors.filter_map(ForeignSelector::destination).copied());
        found.extend(view.facts.own_addresses().into_iter().map(IpNet::from));
        found.retain(|other| prefix.contains(other));
        found.sort();
        found.dedup();
        found
    }
}

fn percent(value: f64) -> String {
    if value < 0.1 {
        "less than 0.1 %".to_owned()
    } else {
        format!("{value:.1} %")
    }
}

/// The share of a piece in the addresses of a prefix, in per cent.
fn share(piece: IpNet, prefix: IpNet) -> f64 {
    let longer = i32::from(piece.prefix_len()) - i32::from(prefix.prefix_len());
    100.0 * 0.5_f64.powi(longer)
}

impl ExplainedPrefix {
    fn agrees(&self) -> bool {
        let mut parts = self.parts.iter();
        self.different_total == 0 && parts.all(|part| part.sample.agrees())
    }

    fn summary(&self) -> String {
        let prefix = self.prefix;
        let parts: Vec<String> = self
            .parts
            .iter()
            .map(|part| format!("{} {}", percent(part.percent), part.path.phrase()))
            .collect();
        let parts = parts.join(", ");
        let verdict = match self.different_total {
            0 => match self.parts.iter().find(|part| !part.sample.agrees()) {
                Some(part) => format!("but {}", part.sample.summary()),
                None if self.beyond > 0 => {
                    format!(
                        "and the kernel agrees in the {} parts asked about.",
                        self.asked
                    )
                }
                None => "and the kernel agrees.".to_owned(),
            },
            count => format!("but the kernel disagrees in {count} places."),
        };
        let answer = format!("{prefix}: {parts}, {verdict}");
        if self.parts.iter().any(|part| part.sample.partial) {
            return format!("By the readable part of a broken config file: {answer}");
        }
        answer
    }
}

impl ExpectedPath {
    /// The path as the predicate of a sentence.
    fn phrase(&self) -> String {
        match self {
            ExpectedPath::Local => "stays on this host".to_owned(),
            ExpectedPath::Bypass(_) => "takes the bypass path".to_owned(),
            ExpectedPath::Egress(gateways) => {
                format!("takes the egress path via {}", list(gateways))
            }
            ExpectedPath::Closed => "is blocked without an egress gateway".to_owned(),
            ExpectedPath::Main(addresses) if addresses.is_empty() => {
                "follows the main table".to_owned()
            }
            ExpectedPath::Main(addresses) => {
                format!("takes the egress path with source {}", list(addresses))
            }
        }
    }
}

impl From<&ExplainedPrefix> for Page {
    fn from(explained: &ExplainedPrefix) -> Page {
        Page {
            text: text(explained),
            json: json(explained),
            good: explained.agrees(),
        }
    }
}

fn text(explained: &ExplainedPrefix) -> String {
    let mut text = String::new();
    let mut line = |title: &str, words: &str| {
        let _ = writeln!(text, "{title:<9} {}", indented(words, 10));
    };
    line("prefix", &explained.prefix.to_string());
    let document = match explained.sync_token {
        Some(token) => format!("sync token {token}, published {}", explained.create_date),
        None => "none in force".to_owned(),
    };
    line("document", &document);
    for part in &explained.parts {
        let via = match &part.path {
            ExpectedPath::Bypass(_) => format!(", {}", part.sample.via_text()),
            ExpectedPath::Egress(gateways) => format!(", via {}", list(gateways)),
            ExpectedPath::Main(addresses) if !addresses.is_empty() => {
                format!(", translated to {}", list(addresses))
            }
            _ => String::new(),
        };
        let title = part.path.word();
        line(title, &format!("{}{via}", percent(part.percent)));
        for prefix in part.prefixes.iter().take(NAMED) {
            line("", &prefix.to_string());
        }
        if part.prefixes.len() > NAMED {
            line("", &format!("and {} more", part.prefixes.len() - NAMED));
        }
        for obstacle in &part.sample.obstacles {
            line("", &format!("degraded: {obstacle}"));
        }
    }
    let addresses = counted(explained.asked as u64, "address");
    let asked = match explained.unasked {
        0 => format!("asked about {addresses}"),
        left => format!(
            "asked about {addresses}; {} left out",
            counted(left as u64, "piece")
        ),
    };
    let total = explained.different_total;
    line("kernel", &format!("{asked}, {total} not as expected"));
    for (piece, summary) in explained.different.iter().take(NAMED) {
        line("", &format!("{piece}: {summary}"));
    }
    if total > NAMED {
        line("", &format!("and {} more", total - NAMED));
    }
    for note in &explained.notes {
        line("note", note);
    }
    let _ = writeln!(text, "\n{}", explained.summary());
    text
}

fn json(explained: &ExplainedPrefix) -> Value {
    let parts: Vec<Value> = explained
        .parts
        .iter()
        .map(|part| {
            json!({
                "path": part.path.word(),
                "percent": part.percent,
                "prefixes": part.prefixes,
                "expected": part.sample.path_json(),
                "obstacles": part.sample.obstacles,
            })
        })
        .collect();
    let different: Vec<Value> = explained
        .different
        .iter()
        .map(|(piece, summary)| json!({ "prefix": piece, "summary": summary }))
        .collect();
    json!({
        "prefix": explained.prefix,
        "family": Family::of_net(&explained.prefix),
        "sync_token": explained.sync_token,
        "create_date": explained.create_date,
        "parts": parts,
        "asked": explained.asked,
        "unasked": explained.unasked,
        "different": different,
        "different_total": explained.different_total,
        "agrees": explained.agrees(),
        "summary": explained.summary(),
        "notes": explained.notes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn pieces_end_at_every_boundary_and_cover_the_prefix() {
        let boundaries = nets(&["10.0.0.0/8", "10.0.0.0/24", "10.0.0.128/25", "10.0.3.1/32"]);
        let mut found = Vec::new();
        pieces("10.0.0.0/22".parse().unwrap(), &boundaries, &mut found);
        assert_eq!(found[..2], nets(&["10.0.0.0/25", "10.0.0.128/25"]));
        assert!(found.contains(&"10.0.3.1/32".parse().unwrap()));
        let prefix = "10.0.0.0/22".parse().unwrap();
        let sum: f64 = found.iter().map(|piece| share(*piece, prefix)).sum();
        assert!((sum - 100.0).abs() < 1e-9, "{found:?}");
        let mut whole = Vec::new();
        pieces("2600::/16".parse().unwrap(), &[], &mut whole);
        assert_eq!(whole, nets(&["2600::/16"]));
    }
}
