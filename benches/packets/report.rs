//! The figures of a role, and their bounds.

use std::collections::BTreeMap;

use super::bounds::Bounds;
use super::contenders::{Contender, FEW, Firewall, MANY, NONE, Role, Rules, USUAL};
use super::parts;
use super::probes::{CONNECTION, ESTABLISHED, NAMES, OPENING, ROUND_TRIP, Target};
use super::samples::Samples;

/// The most that open flows pay, in proportion to the same path without us.
const MOST_ESTABLISHED: f64 = 1.15;
/// The most that the first packet of a flow pays, in proportion to conntrack or MASQUERADE alone.
const MOST_OPENING: f64 = 1.3;
/// The most that 16,000 prefixes cost more than none.
const MOST_GROWTH: f64 = 1.05;

/// Nanoseconds by contender, operation and destination.
#[derive(Debug)]
pub struct Figures {
    role: Role,
    contenders: Vec<Contender>,
    samples: BTreeMap<(usize, &'static str, Target), Samples>,
}

impl Figures {
    /// No figures.
    pub fn new(role: Role, contenders: &[Contender]) -> Figures {
        Figures {
            role,
            contenders: contenders.to_vec(),
            samples: BTreeMap::new(),
        }
    }

    /// Adds the figure of a round.
    pub fn push(&mut self, contender: usize, probe: &'static str, target: Target, cost: f64) {
        let samples = self.samples.entry((contender, probe, target)).or_default();
        samples.0.push(cost);
    }

    fn of(&self, rules: Rules, probe: &'static str, target: Target) -> Samples {
        let number = self.contenders.iter().position(|it| it.rules == rules);
        let found = number.and_then(|number| self.samples.get(&(number, probe, target)));
        found.cloned().unwrap_or_default()
    }

    /// Medians, and medians of the ratios to the path without rules.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} role: CPU time in ns (times the path without rules), medians\n",
            self.role.as_str(),
        );
        for probe in NAMES {
            text.push_str(&format!("{probe:<24}"));
            for target in Target::ALL {
                text.push_str(&format!("{:>18}", target.as_str()));
            }
            text.push_str(if probe == CONNECTION {
                "     a second (IPv4, IPv6)\n"
            } else {
                "\n"
            });
            for contender in &self.contenders {
                if !contender.shows_a_part() {
                    text.push_str(&self.row(contender, probe));
                }
            }
        }
        text
    }

    fn row(&self, contender: &Contender, probe: &'static str) -> String {
        let mut row = format!("  {:<22}", contender.name());
        for target in Target::ALL {
            let nothing = self.of(Rules::Nothing, probe, target);
            let samples = self.of(contender.rules, probe, target);
            let ratio = samples.over(&nothing).median();
            let cell = if samples.0.is_empty() {
                "n/a".to_owned()
            } else {
                format!("{:.0} ({ratio:.2})", samples.median())
            };
            row.push_str(&format!("{cell:>18}"));
        }
        if probe == CONNECTION {
            let a_second = |target| 1e9 / self.of(contender.rules, probe, target).median();
            let [v4, v6] = [Target::Partner4, Target::Partner6].map(a_second);
            row.push_str(&format!("{v4:>14.0} {v6:.0}"));
        }
        row.push('\n');
        row
    }

    /// The price of each part: the difference between the rules with the part and those without.
    pub fn parts(&self, firewall: Firewall) -> String {
        let mut text = format!(
            "{} role, {}: ns by part, from leaving the parts out one after the other (IPv4, IPv6)\n{:<52}",
            self.role.as_str(),
            firewall.as_str(),
            ""
        );
        for probe in NAMES {
            text.push_str(&format!("{probe:>17}"));
        }
        text.push('\n');
        let with = |parts| match parts {
            0 => Rules::Ours(firewall, USUAL),
            parts => Rules::Without(firewall, parts),
        };
        let parts = parts::of(self.role, firewall);
        let removed = parts.iter().zip(0..);
        let of_parts = removed.map(|(part, before)| (part.name, with(before), with(before + 1)));
        let without_us = (
            "rules without us, above none",
            self.role.alone(),
            Rules::Nothing,
        );
        let rest = (
            "rest, above the rules without us",
            with(parts.len()),
            self.role.alone(),
        );
        let all = (
            "all, above the rules without us",
            with(0),
            self.role.alone(),
        );
        for (name, more, less) in of_parts.chain([rest, all, without_us]) {
            text.push_str(&format!("  {name:<50}"));
            for probe in NAMES {
                let [v4, v6] = Target::OF_PARTS.map(|target| {
                    let [more, less] = [more, less].map(|rules| self.of(rules, probe, target));
                    less_than(&more, &less).median()
                });
                let cell = format!("{v4:.0}, {v6:.0}");
                text.push_str(&format!("{cell:>17}"));
            }
            text.push('\n');
        }
        text
    }

    /// Compares the figures with their bounds.
    pub fn judge(&self, bounds: &mut Bounds) {
        let role = self.role.as_str();
        let alone = Contender {
            role: self.role,
            rules: self.role.alone(),
        };
        let nothing = Contender {
            rules: Rules::Nothing,
            ..alone
        };
        for firewall in Firewall::ALL {
            let ours = Rules::Ours(firewall, USUAL);
            let firewall = firewall.as_str();
            for (probes, bases, most) in [
                (
                    [ESTABLISHED, ROUND_TRIP],
                    &[nothing, alone][..],
                    MOST_ESTABLISHED,
                ),
                ([OPENING, CONNECTION], &[alone][..], MOST_OPENING),
            ] {
                for (probe, base) in probes
                    .into_iter()
                    .flat_map(|it| bases.iter().map(move |b| (it, b)))
                {
                    let (target, ratio) = self.worst(ours, base.rules, probe);
                    let what = format!("{role}, {firewall}: {probe} / {} ({target})", base.name());
                    bounds.ratio(what, &ratio, most);
                }
            }
        }
        for firewall in Firewall::ALL {
            for probe in NAMES {
                let (target, ratio) = self.growth(firewall, probe);
                let what = format!(
                    "{role}, {}: {probe}, growth to {MANY} prefixes ({target})",
                    firewall.as_str()
                );
                bounds.ratio(what, &ratio, MOST_GROWTH);
            }
        }
    }

    /// The destination with the highest ratio of the most prefixes to the fewest. Without a prefix
    /// storage takes the egress path, so that its growth begins with the first prefixes.
    fn growth(&self, firewall: Firewall, probe: &'static str) -> (&'static str, Samples) {
        let ratio = |target: Target| {
            let fewest = if target.is_storage() { FEW } else { NONE };
            let [few, many] = [fewest, MANY].map(|size| {
                let rules = Rules::Ours(firewall, size);
                self.of(rules, probe, target)
            });
            (target.as_str(), many.over(&few))
        };
        highest(Target::ALL.into_iter().map(ratio))
    }

    /// The destination with the highest ratio, and the ratios.
    fn worst(&self, ours: Rules, base: Rules, probe: &'static str) -> (&'static str, Samples) {
        let ratio = |target: Target| {
            let base = self.of(base, probe, target);
            (target.as_str(), self.of(ours, probe, target).over(&base))
        };
        highest(Target::ALL.into_iter().map(ratio))
    }
}

fn highest(ratios: impl Iterator<Item = (&'static str, Samples)>) -> (&'static str, Samples) {
    // A destination that the rules do not serve has no figure.
    let ratios = ratios.filter(|(_, ratios)| !ratios.0.is_empty());
    let highest = ratios.max_by(|(_, one), (_, other)| one.median().total_cmp(&other.median()));
    highest.unwrap_or_default()
}

/// The differences round by round.
fn less_than(more: &Samples, less: &Samples) -> Samples {
    let pairs = more.0.iter().zip(&less.0);
    Samples(pairs.map(|(more, less)| more - less).collect())
}
