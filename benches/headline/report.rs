//! The results: bounds, the table of the terminal, and JSON.

use std::time::Duration;

use super::machine::Machine;
use super::model::Model;
use super::money;
use super::series::{Series, Way};
use super::verdict::{Bound, LATE, Step};
use super::{chart, page};

/// Servers that a NAT must carry more of with a bypass, at the default parameters.
const MORE_THAN: usize = 200;
/// The share of the capacity by the model that a bypass must reach.
const LEAST_OF_ALLOWED: f64 = 0.95;
/// The longest run.
const LONGEST: Duration = Duration::from_secs(180);

/// Everything that a run has found.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Report {
    pub model: Model,
    pub series: Vec<Series>,
    pub bounds: Vec<Bound>,
    pub machine: Machine,
    pub seconds: f64,
}

impl Report {
    /// Judges the figures.
    pub fn new(model: Model, series: Vec<Series>, machine: Machine, took: Duration) -> Report {
        let mut bounds: Vec<Bound> = series
            .iter()
            .flat_map(|one| of_series(&model, one))
            .collect();
        bounds.push(Bound {
            holds: took < LONGEST,
            what: "duration of the run".to_owned(),
            figure: format!("{:.0} s, under {} s", took.as_secs_f64(), LONGEST.as_secs()),
        });
        Report {
            model,
            series,
            bounds,
            machine,
            seconds: took.as_secs_f64(),
        }
    }

    /// True if every bound holds.
    pub fn all_hold(&self) -> bool {
        self.bounds.iter().all(|bound| bound.holds)
    }

    /// The figures of a way.
    pub fn of(&self, way: Way) -> Option<&Series> {
        self.series.iter().find(|one| one.way == way)
    }

    /// The largest number of servers that no way's NAT is saturated by.
    pub fn common(&self) -> usize {
        self.series
            .iter()
            .map(|one| one.capacity)
            .min()
            .unwrap_or(0)
    }

    /// Ways with GB through the uplink for each GB written to S3, at [`Report::common`] servers.
    pub fn uplink_per_written(&self) -> Vec<(Way, f64)> {
        let common = self.common();
        let of = |one: &Series| Some((one.way, money::uplink_per_written(one.at(common)?)));
        self.series.iter().filter_map(of).collect()
    }

    /// The longest delay of the load generator, in milliseconds, at the 99th percentile of a step.
    fn late(&self) -> f64 {
        let steps = self.series.iter().flat_map(|one| &one.steps);
        steps.map(|step| step.late_p99).fold(0.0, f64::max)
    }

    /// The table, the bounds and the money, for a terminal.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for one in &self.series {
            text.push_str(&format!("\n{}: {} servers\n", one.way.name(), one.capacity));
            text.push_str(&format!(
                "{}\n",
                HEADINGS.map(|word| format!("{word:>11}")).concat()
            ));
            for step in &one.steps {
                text.push_str(&format!(
                    "{}\n",
                    cells(step).map(|cell| format!("{cell:>11}")).concat()
                ));
            }
        }
        text.push_str("\nbounds:\n");
        for bound in &self.bounds {
            text.push_str(&format!("{}\n", bound.text()));
        }
        if !self.all_hold() && self.late() > LATE {
            text.push_str(&format!(
                "\nThe load generator was up to {:.0} ms late: the machine is too busy. Repeat the run on \
                 a quiet one.\n",
                self.late()
            ));
        }
        text.push_str(&format!(
            "\nmoney: {} dollars per GB through a NAT gateway, in both directions, times GB through \
             the uplink\n",
            self.model.price
        ));
        for (way, factor) in self.uplink_per_written() {
            let dollars = money::dollars(self.model.price, page::MONTH_GB, factor);
            text.push_str(&format!(
                "{:<25} {factor:.4} GB for each GB written to S3; 100 TB written: {dollars:.2} dollars\n",
                way.name()
            ));
        }
        text
    }

    /// Everything as JSON.
    ///
    /// # Errors
    /// If serde cannot write a figure.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// The chart.
    ///
    /// # Errors
    /// As [`chart::svg`].
    pub fn chart(&self) -> Result<String, String> {
        chart::svg(&self.series)
    }
}

/// The bounds of a way.
fn of_series(model: &Model, one: &Series) -> Vec<Bound> {
    let mut bounds = Vec::new();
    let mut add = |holds, what: &str, figure| {
        let what = format!("{}: {what}", one.way.name());
        bounds.push(Bound {
            holds,
            what,
            figure,
        });
    };
    if one.way == Way::Nobody {
        let allowed = model.allowed_with_all();
        let fitting = one.steps.iter().map(|step| step.servers);
        let fitting = fitting
            .filter(|servers| *servers as f64 <= allowed)
            .max()
            .unwrap_or(0);
        let figure = format!("{}, {fitting} by the model ({allowed:.2})", one.capacity);
        add(one.capacity == fitting, "servers on one NAT", figure);
    }
    if one.way.is_ours() {
        let allowed = model.allowed_with_egress();
        let least = LEAST_OF_ALLOWED * allowed;
        let figure = format!(
            "{}, at least {least:.1} of {allowed:.1} by the model",
            one.capacity
        );
        add(one.capacity as f64 >= least, "servers on one NAT", figure);
        let figure = format!("{}, more than {MORE_THAN}", one.capacity);
        add(one.capacity > MORE_THAN, "servers on one NAT", figure);
    }
    let figure = format!(
        "{} at the customer's site, {} at S3",
        one.sources_at_site
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", "),
        addresses(one.sources_at_s3.len()),
    );
    add(one.sources_hold, "source addresses", figure);
    bounds
}

fn addresses(count: usize) -> String {
    format!("{count} address{}", if count == 1 { "" } else { "es" })
}

/// The columns of the tables.
pub const HEADINGS: [&str; 12] = [
    "servers", "demand", "goodput", "reads %", "writes %", "packets", "drops", "drops %", "failed",
    "p50 ms", "p99 ms", "late ms",
];

/// The row of a number of servers.
pub fn cells(step: &Step) -> [String; 12] {
    let percent = |got: f64, wanted: f64| format!("{:.1}", got / wanted * 100.0);
    let mark = if step.saturated() { "✗ " } else { "" };
    [
        format!("{mark}{}", step.servers),
        format!("{:.2}", (step.reads_demand + step.writes_demand) / 1e6),
        format!("{:.2}", (step.reads + step.writes) / 1e6),
        percent(step.reads, step.reads_demand),
        percent(step.writes, step.writes_demand),
        step.uplink_packets.to_string(),
        step.drops.to_string(),
        format!("{:.2}", step.drop_share() * 100.0),
        format!("{}/{}", step.failed, step.connections),
        format!("{:.1}", step.connect_median),
        format!("{:.1}", step.connect_p99),
        format!("{:.1}", step.late_p99),
    ]
}
