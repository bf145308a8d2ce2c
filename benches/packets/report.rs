//! The figures of a role, and their bounds.

use std::collections::BTreeMap;

use super::bounds::Bounds;
use super::contenders::{Contender, GROWTH, Role, Rules, USUAL};
use super::probes::{CONNECTION, ESTABLISHED, NAMES, OPENING, ROUND_TRIP, Target};
use super::samples::Samples;

/// The most that open flows pay, in proportion to the same path without us.
const MOST_ESTABLISHED: f64 = 1.15;
/// The most that the first packet of a flow pays, in proportion to conntrack or MASQUERADE alone.
const MOST_OPENING: f64 = 1.3;
/// The most that 16,000 prefixes cost more than 21.
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
            "{} role, CPU time in ns (times the path without rules), medians\n{:<30}",
            self.role.as_str(),
            ""
        );
        for contender in &self.contenders {
            text.push_str(&format!("{:>17}", contender.name()));
        }
        text.push('\n');
        for probe in NAMES {
            for target in Target::ALL {
                text.push_str(&format!("{probe:<16}{:<14}", target.as_str()));
                let nothing = self.of(Rules::Nothing, probe, target);
                for contender in &self.contenders {
                    let samples = self.of(contender.rules, probe, target);
                    let ratio = samples.over(&nothing).median();
                    let cell = format!("{:.0} ({ratio:.2})", samples.median());
                    text.push_str(&format!("{cell:>17}"));
                }
                text.push('\n');
            }
        }
        text
    }

    /// Compares the figures with their bounds.
    pub fn judge(&self, bounds: &mut Bounds) {
        let role = self.role.as_str();
        let alone = match self.role {
            Role::Host => Rules::Conntrack,
            Role::Nat => Rules::Masquerade,
        };
        let alone_name = Contender {
            role: self.role,
            rules: alone,
        }
        .name();
        for firewall in ["nftables", "iptables"] {
            let ours = Rules::Ours(firewall, USUAL);
            for probe in [ESTABLISHED, ROUND_TRIP] {
                for (base, name) in [(Rules::Nothing, "no rules"), (alone, &alone_name)] {
                    let (target, ratio) = self.worst(ours, base, probe);
                    let what = format!("{role}, {firewall}: {probe} / {name} ({target})");
                    bounds.ratio(what, &ratio, MOST_ESTABLISHED);
                }
            }
            for probe in [OPENING, CONNECTION] {
                let (target, ratio) = self.worst(ours, alone, probe);
                let what = format!("{role}, {firewall}: {probe} / {alone_name} ({target})");
                bounds.ratio(what, &ratio, MOST_OPENING);
            }
        }
        for probe in NAMES {
            let [few, many] = GROWTH.map(|size| Rules::Ours("nftables", size));
            // The price depends on no destination: all ratios together are steadier than each.
            let all = Target::ALL.into_iter().flat_map(|target| {
                let few = self.of(few, probe, target);
                self.of(many, probe, target).over(&few).0
            });
            let what = format!(
                "{role}: {probe} with {} / {} prefixes",
                GROWTH[1], GROWTH[0]
            );
            bounds.ratio(what, &Samples(all.collect()), MOST_GROWTH);
        }
    }

    /// The destination with the highest ratio, and the ratios.
    fn worst(&self, ours: Rules, base: Rules, probe: &'static str) -> (&'static str, Samples) {
        let ratio = |target: Target| {
            let base = self.of(base, probe, target);
            (target.as_str(), self.of(ours, probe, target).over(&base))
        };
        let all = Target::ALL.into_iter().map(ratio);
        let worst = all.max_by(|(_, one), (_, other)| one.median().total_cmp(&other.median()));
        worst.unwrap_or_default()
    }
}
