//! Measured times and their statistics.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Milliseconds, in the order of the rounds.
#[derive(Debug, Clone, Default)]
pub struct Samples(pub Vec<f64>);

impl Samples {
    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    /// The quantile of a share; NaN without samples.
    pub fn quantile(&self, share: f64) -> f64 {
        let sorted = self.sorted();
        let place = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
        sorted.get(place).copied().unwrap_or(f64::NAN)
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The ratios round by round, since a disturbance affects both values of a round.
    pub fn over(&self, other: &Samples) -> Samples {
        Samples(self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect())
    }

    /// The sums round by round.
    pub fn plus(&self, other: &Samples) -> Samples {
        Samples(self.0.iter().zip(&other.0).map(|(a, b)| a + b).collect())
    }

    /// Each sample times a factor.
    pub fn times(&self, factor: f64) -> Samples {
        Samples(self.0.iter().map(|sample| sample * factor).collect())
    }

    /// The distance between the quartiles, in percent of the median.
    pub fn spread(&self) -> f64 {
        (self.quantile(0.75) - self.quantile(0.25)) / self.median() * 100.0
    }
}

/// Runs `what`, and measures the milliseconds.
pub fn timed<T>(what: impl FnOnce() -> T) -> (T, f64) {
    let started = Instant::now();
    let result = what();
    (result, milliseconds(started.elapsed()))
}

/// A duration in milliseconds.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A measurement: contender and operation.
pub type Key = (&'static str, &'static str);

/// Samples by contender and operation.
#[derive(Debug, Default)]
pub struct Rows(BTreeMap<Key, Samples>);

impl Rows {
    /// Adds one sample, in milliseconds.
    pub fn push(&mut self, contender: &'static str, operation: &'static str, value: f64) {
        let samples = self.0.entry((contender, operation)).or_default();
        samples.0.push(value);
    }

    /// Adds all of another.
    pub fn append(&mut self, other: Rows) {
        for (key, mut samples) in other.0 {
            self.0.entry(key).or_default().0.append(&mut samples.0);
        }
    }

    /// The samples, none where nothing was measured.
    pub fn get(&self, contender: &'static str, operation: &'static str) -> Samples {
        self.0
            .get(&(contender, operation))
            .cloned()
            .unwrap_or_default()
    }
}

/// The operations of every contender, in order.
pub const OPERATIONS: [&str; 4] = ["first", "no-op", "one more", "removal"];
/// The contenders, best known last.
pub const CONTENDERS: [&str; 6] = [
    "floor",
    "trailblazer",
    "process",
    "ip -batch",
    "ip and nft",
    "BIRD 2",
];

/// All sizes.
#[derive(Debug, Default)]
pub struct Table(pub Vec<(usize, Rows)>);

impl Table {
    /// Adds a size.
    pub fn add(&mut self, size: usize, rows: Rows) {
        self.0.push((size, rows));
    }

    /// Medians in milliseconds.
    pub fn text(&self) -> String {
        let mut text = format!("{:>8}  {:<9}", "prefixes", "");
        for contender in CONTENDERS {
            text.push_str(&format!("{contender:>13}"));
        }
        text.push_str("   (medians, ms)\n");
        for (size, rows) in &self.0 {
            for operation in OPERATIONS {
                text.push_str(&format!("{size:>8}  {operation:<9}"));
                for contender in CONTENDERS {
                    text.push_str(&format!("{:>13}", cell(&rows.get(contender, operation))));
                }
                text.push('\n');
            }
            let stages = [
                "observe", "source", "guard", "plan", "store", "apply", "verify",
            ];
            for name in ["first", "no-op", "one more"] {
                text.push_str(&format!("{:>8}  stages of {name}:", ""));
                for stage in stages {
                    let samples = rows.get(name, stage);
                    if !samples.0.is_empty() {
                        text.push_str(&format!(" {stage} {}", cell(&samples)));
                    }
                }
                text.push('\n');
            }
        }
        text
    }

    /// The spread of the samples of one measurement.
    pub fn noise(&self) -> String {
        let mut text =
            "noise (distance between the quartiles, in % of the median, of `first`):".to_owned();
        for (size, rows) in &self.0 {
            text.push_str(&format!("\n{size:>8} "));
            for contender in CONTENDERS {
                let samples = rows.get(contender, "first");
                if samples.0.is_empty() {
                    continue;
                }
                text.push_str(&format!(" {contender} {:.0} %,", samples.spread()));
            }
            let rounds = rows.get("trailblazer", "first").0.len();
            text.push_str(&format!(" {rounds} rounds"));
        }
        text.push('\n');
        text
    }
}

/// The median as text; `n/a` without samples.
pub fn cell(samples: &Samples) -> String {
    if samples.0.is_empty() {
        return "n/a".to_owned();
    }
    let median = samples.median();
    if median < 10.0 {
        format!("{median:.2}")
    } else {
        format!("{median:.1}")
    }
}
