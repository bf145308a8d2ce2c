//! The promises of speed, each with its figure, and PASS or FAIL.

use super::samples::{Rows, Samples};

/// The results of all bounds.
#[derive(Debug, Default)]
pub struct Bounds(Vec<Bound>);

#[derive(Debug)]
struct Bound {
    holds: bool,
    what: String,
    figure: String,
}

impl Bounds {
    /// Adds a finding.
    pub fn add(&mut self, holds: bool, what: impl Into<String>, figure: impl Into<String>) {
        self.0.push(Bound {
            holds,
            what: what.into(),
            figure: figure.into(),
        });
    }

    /// A ratio, round by round, with a bound on the median.
    pub fn ratio(&mut self, what: impl Into<String>, ratio: &Samples, most: f64) {
        let median = ratio.median();
        self.add(
            median <= most,
            what,
            format!(
                "{median:.2} (quartiles {:.2} to {:.2}, {} rounds), at most {most}",
                ratio.quantile(0.25),
                ratio.quantile(0.75),
                ratio.0.len()
            ),
        );
    }

    /// A change of one prefix: one step and one kernel notification, each time.
    pub fn exactly_one_message(&mut self, size: usize, counts: &[(usize, usize)]) {
        self.add(
            !counts.is_empty() && counts.iter().all(|count| *count == (1, 1)),
            format!("a one-prefix change is one route message ({size} prefixes)"),
            match counts.iter().find(|count| **count != (1, 1)) {
                None => format!("1 step and 1 notification, {} times", counts.len()),
                Some((steps, heard)) => format!("{steps} steps, {heard} notifications"),
            },
        );
    }

    /// The bounds about routes, at the size of the promise.
    pub fn of_routes(&mut self, rows: &Rows) {
        let floor = rows.get("floor", "first");
        self.ratio(
            "first installation: apply stage / floor",
            &rows.get("first", "apply").over(&floor),
            1.3,
        );
        for (contender, name) in [
            ("trailblazer", "pass in process"),
            ("process", "whole process"),
        ] {
            self.ratio(
                format!("first installation: {name} / floor"),
                &rows.get(contender, "first").over(&floor),
                3.5,
            );
            self.ratio(
                format!("first installation: {name} / ip -batch"),
                &rows
                    .get(contender, "first")
                    .over(&rows.get("ip -batch", "first")),
                1.0,
            );
        }
        let needed = rows.get("needed", "dump").plus(&rows.get("needed", "load"));
        self.ratio(
            format!(
                "no-op pass / (raw dump {:.2} ms + load {:.2} ms)",
                rows.get("needed", "dump").median(),
                rows.get("needed", "load").median()
            ),
            &rows.get("trailblazer", "no-op").over(&needed),
            1.5,
        );
    }

    /// True if every bound holds.
    pub fn all_hold(&self) -> bool {
        self.0.iter().all(|bound| bound.holds)
    }

    /// A line each.
    pub fn text(&self) -> String {
        let mut text = String::from("bounds:\n");
        for bound in &self.0 {
            let verdict = if bound.holds { "PASS" } else { "FAIL" };
            text.push_str(&format!("{verdict}  {}: {}\n", bound.what, bound.figure));
        }
        text
    }
}
