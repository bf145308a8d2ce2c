//! The text format, version 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats), which
//! every Prometheus reads and `promtool check metrics` checks.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use crate::printable::escaped;
use crate::status::snapshot::{Histogram, Snapshot};

/// A metric's type in Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Never decreases while the agent runs; restarts at 0 with the agent.
    Counter,
    Gauge,
    Histogram,
}

words!(Kind { Counter => "counter", Gauge => "gauge", Histogram => "histogram" });

/// A metric and the function that reads its samples from a snapshot.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Base units; counters end in `_total` (prometheus.io/docs/practices/naming).
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
    pub samples: fn(&Snapshot, &mut Samples<'_>),
}

/// Writes every metric of the catalogue. A metric without a value keeps HELP and TYPE.
pub fn encode(catalogue: &[Metric], snapshot: &Snapshot) -> String {
    let mut text = String::new();
    for metric in catalogue {
        let kind = metric.kind.as_str();
        // Writing to a String can't fail.
        let _ = writeln!(text, "# HELP {} {}", metric.name, escape_help(metric.help));
        let _ = writeln!(text, "# TYPE {} {kind}", metric.name);
        let mut samples = Samples {
            metric,
            text: &mut text,
        };
        (metric.samples)(snapshot, &mut samples);
    }
    text
}

/// Writes the samples of one metric.
pub struct Samples<'a> {
    metric: &'a Metric,
    text: &'a mut String,
}

impl Samples<'_> {
    /// Writes a sample; `labels` are the label values in the metric's order.
    pub fn value(&mut self, labels: &[&str], value: impl Display) {
        self.line("", labels, None, value);
    }

    /// Writes the lines of a histogram.
    pub fn histogram(&mut self, labels: &[&str], histogram: &Histogram) {
        for (bound, count) in &histogram.buckets {
            self.line("_bucket", labels, Some(&bound.to_string()), count);
        }
        self.line("_bucket", labels, Some("+Inf"), histogram.count);
        self.line("_sum", labels, None, histogram.sum);
        self.line("_count", labels, None, histogram.count);
    }

    fn line(&mut self, suffix: &str, labels: &[&str], bound: Option<&str>, value: impl Display) {
        debug_assert_eq!(labels.len(), self.metric.labels.len());
        let names = self.metric.labels.iter().copied();
        let pairs: Vec<String> = names
            .zip(labels.iter().copied())
            .chain(bound.map(|bound| ("le", bound)))
            .map(|(name, value)| format!("{name}=\"{}\"", escape_label(value)))
            .collect();
        let labels = if pairs.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", pairs.join(","))
        };
        let _ = writeln!(self.text, "{}{suffix}{labels} {value}", self.metric.name);
    }
}

fn escape_help(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n")
}

fn escape_label(text: &str) -> String {
    // The format has an escape of its own for a line feed.
    let lines: Vec<_> = text.split('\n').map(escaped).collect();
    escape_help(&lines.join("\n")).replace('"', "\\\"")
}

/// Writes a sample for each known word, and for each other counted word. Known words start at 0:
/// a series that begins with the first event would hide this event from `increase()`.
pub(super) fn counts(known: &[&str], counted: &BTreeMap<String, u64>, out: &mut Samples<'_>) {
    for word in known {
        out.value(&[word], counted.get(*word).unwrap_or(&0));
    }
    for (word, count) in counted {
        if !known.contains(&word.as_str()) {
            out.value(&[word], count);
        }
    }
}
