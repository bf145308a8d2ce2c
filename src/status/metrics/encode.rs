//! The text format, version 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats): what
//! every Prometheus reads, and `promtool check metrics` checks.

use std::fmt::{Display, Write as _};

use super::catalogue::{CATALOGUE, Metric};
use crate::status::snapshot::{Histogram, Snapshot};

/// Every metric of the snapshot. One that the snapshot has no value for keeps its HELP and TYPE.
pub fn encode(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    for metric in CATALOGUE {
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

/// Takes the samples of one metric.
pub struct Samples<'a> {
    metric: &'a Metric,
    text: &'a mut String,
}

impl Samples<'_> {
    /// A sample; `labels` are the values of the metric's labels, in their order.
    pub fn value(&mut self, labels: &[&str], value: impl Display) {
        self.line("", labels, None, value);
    }

    /// A histogram's lines.
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
        let labels = match pairs.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", pairs.join(",")),
        };
        let _ = writeln!(self.text, "{}{suffix}{labels} {value}", self.metric.name);
    }
}

fn escape_help(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n")
}

fn escape_label(text: &str) -> String {
    escape_help(text).replace('"', "\\\"")
}
