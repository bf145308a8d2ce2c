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
            1.2,
        );
        self.ratio(
            "first installation: whole process / floor",
            &rows.get("process", "first").over(&floor),
            2.0,
        );
        self.ratio(
            "first installation: whole process / ip -batch",
            &rows
                .get("process", "first")
                .over(&rows.get("ip -batch", "first")),
            1.0,
        );
        let no_op = rows.get("trailblazer", "no-op");
        let needed = rows.get("needed", "dump").plus(&rows.get("needed", "load"));
        self.ratio(
            format!(
                "no-op in process / (raw dump {:.2} ms + load of the document {:.2} ms)",
                rows.get("needed", "dump").median(),
                rows.get("needed", "load").median()
            ),
            &no_op.over(&needed),
            1.3,
        );
        self.against(
            "no-op: whole process / BIRD 2",
            &rows.get("process", "no-op"),
            &rows.get("BIRD 2", "no-op"),
            1.0,
        );
        // A round has several passes without a change, and one with a new prefix.
        self.ratio(
            "one more prefix in process / no-op in process",
            &rows
                .get("trailblazer", "one more")
                .times(1.0 / no_op.median()),
            1.15,
        );
        self.ratio(
            "removal / floor",
            &rows
                .get("trailblazer", "removal")
                .over(&rows.get("floor", "removal")),
            1.2,
        );
    }

    /// The bounds at the size of one region's S3: beside a script that installs the same rules too.
    pub fn of_region(&mut self, size: usize, rows: &Rows) {
        for operation in ["first", "no-op"] {
            self.ratio(
                format!("{size} prefixes, {operation}: whole process / ip -batch and nft -f"),
                &rows
                    .get("process", operation)
                    .over(&rows.get("ip and nft", operation)),
                2.0,
            );
        }
    }

    /// A ratio to a program that may not be installed: the bound then fails with that reason.
    fn against(&mut self, what: &str, ours: &Samples, theirs: &Samples, most: f64) {
        if theirs.0.is_empty() {
            self.add(false, what, "the other program is not installed");
        } else {
            self.ratio(what, &ours.over(theirs), most);
        }
    }

    /// The lines of the bounds that do not hold.
    pub fn failures(&self) -> impl Iterator<Item = String> + '_ {
        let failed = self.0.iter().filter(|bound| !bound.holds);
        failed.map(|bound| format!("{}: {}", bound.what, bound.figure))
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
