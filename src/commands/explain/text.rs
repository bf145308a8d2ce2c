//! An explanation for people, in short lines, and for programs.

use std::fmt::Write as _;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::answer::KernelAnswer;
use super::{ExpectedPath, Explanation, Numbers, table_text};
use crate::commands::origins;
use crate::degraded::Degradation;
use crate::judge::{Agreement, RouteDecision, errno_text};
use crate::objects::RouteTarget;
use crate::printable::indented;
use crate::types::Family;

impl Explanation {
    /// The text for people. The last line is a sentence with the answer.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |title: &str, words: String| {
            let _ = writeln!(text, "{title:<9} {}", indented(&words, 10));
        };
        line("address", self.address.to_string());
        line(
            "document",
            match self.sync_token {
                Some(token) => format!("sync token {token}, published {}", self.create_date),
                None => "none in force".to_owned(),
            },
        );
        let mut title = "listed";
        for row in &self.rows {
            line(
                title,
                format!("{}  {} {}", row.prefix, row.service, row.region),
            );
            title = "";
        }
        if self.rows.is_empty() && self.sync_token.is_some() {
            line("listed", "not in the document".to_owned());
        }
        title = "origin";
        for (origin, prefix) in &self.origins {
            line(title, format!("{prefix}  {origin}"));
            title = "";
        }
        if self.origins.is_empty() {
            line("origin", "not in a selected prefix".to_owned());
        }
        if let Some(prefix) = self.excluded_by {
            line("excluded", format!("by {prefix} ([select] exclude)"));
        }
        line("expected", self.path_text());
        title = "gateways";
        // A single gateway is no choice.
        for candidate in self.gateways.iter().filter(|_| self.gateways.len() > 1) {
            line(title, candidate.to_string());
            title = "";
        }
        title = "kernel";
        for answer in &self.answers {
            line(title, answer_text(answer));
            title = "";
        }
        if let Some(probe) = &self.probe {
            line("probe", probe.text(self.path.is_translated_elsewhere()));
        }
        for note in &self.notes {
            line("note", note.clone());
        }
        let _ = writeln!(text, "\n{}", self.summary());
        text
    }

    fn path_text(&self) -> String {
        let Numbers {
            bypass_table,
            egress_table,
            ..
        } = self.numbers;
        match &self.path {
            ExpectedPath::Local => "this host itself".to_owned(),
            ExpectedPath::Bypass(prefix) => {
                format!(
                    "bypass: {prefix} in table {bypass_table}, {}",
                    self.via_text()
                )
            }
            ExpectedPath::Egress(gateways) => {
                let gateways = list(gateways);
                format!("egress: the default of table {egress_table}, via {gateways}")
            }
            ExpectedPath::Closed => format!(
                "blocked: table {egress_table} has no egress gateway and rejects the packet"
            ),
            ExpectedPath::Main(addresses) if addresses.is_empty() => "the main table".to_owned(),
            ExpectedPath::Main(addresses) => {
                format!("egress: the main table, translated to {}", list(addresses))
            }
        }
    }

    pub(super) fn via_text(&self) -> String {
        let hops = self.via.iter().map(|(gateway, device)| match gateway {
            Some(gateway) => format!("via {gateway} on {device}"),
            None => format!("on {device}"),
        });
        if self.via.is_empty() {
            return "no gateway".to_owned();
        }
        hops.collect::<Vec<_>>().join(" or ")
    }

    pub(super) fn summary(&self) -> String {
        let answer = self.answer();
        if self.partial {
            return format!("By the readable part of a broken config file: {answer}");
        }
        answer
    }

    fn answer(&self) -> String {
        let address = self.address;
        if self.agrees() {
            return format!("{address} {}, and the kernel agrees.", self.verb(Mood::Is));
        }
        let wrong = |found: fn(&Agreement) -> bool| {
            self.answers.iter().find(|answer| found(&answer.agreement))
        };
        let should = format!("{address} should {}", self.verb(Mood::Should));
        if self.is_routed()
            && let Some(obstacle) = self.obstacles.first()
        {
            return format!("{should}, but {}.", obstacle.fault_and_remedy());
        }
        let foreign = wrong(|agreement| {
            matches!(
                agreement,
                Agreement::Foreign(_) | Agreement::Defeated { .. }
            )
        });
        if let Some(reason) = foreign.and_then(|answer| answer.reason.as_ref()) {
            return format!("{should}, but {reason}.");
        }
        if !self.in_force {
            return format!(
                "{should}, but the rules are not in force yet: {} trailblazer reconcile.",
                self.run()
            );
        }
        let no = wrong(|agreement| *agreement == Agreement::No);
        let reason = no.and_then(|answer| answer.reason.clone());
        let obstacle = || self.obstacles.first().map(Degradation::fault_and_remedy);
        match reason.or_else(obstacle) {
            Some(reason) => format!("{should}, but {reason}."),
            None => {
                format!(
                    "{should}, but the kernel disagrees: {} trailblazer reconcile to repair this.",
                    self.run()
                )
            }
        }
    }

    /// The advice before the name of a command that needs a sound config.
    fn run(&self) -> &'static str {
        if self.partial {
            "correct the config file, then run"
        } else {
            "run"
        }
    }

    fn verb(&self, mood: Mood) -> String {
        let (s, is) = match mood {
            Mood::Is => ("s", "is"),
            Mood::Should => ("", "be"),
        };
        match &self.path {
            ExpectedPath::Local => format!("stay{s} on this host"),
            ExpectedPath::Bypass(_) => format!("take{s} the bypass path {}", self.via_text()),
            ExpectedPath::Egress(gateways) => {
                format!("take{s} the egress path via {}", list(gateways))
            }
            ExpectedPath::Closed => format!("{is} blocked: no egress gateway is available"),
            ExpectedPath::Main(addresses) if addresses.is_empty() => {
                format!("follow{s} the main table")
            }
            ExpectedPath::Main(addresses) => {
                format!("take{s} the egress path with source {}", list(addresses))
            }
        }
    }

    /// The object of `-o json`.
    pub(super) fn to_json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "prefix": row.prefix.to_string(),
                    "service": row.service,
                    "region": row.region,
                })
            })
            .collect();
        json!({
            "address": self.address,
            "family": Family::of(self.address),
            "sync_token": self.sync_token,
            "create_date": self.create_date,
            "listed": rows,
            "origins": self.origins.iter()
                .map(|(origin, prefix)| origins::to_json(origin, prefix))
                .collect::<Vec<_>>(),
            "excluded_by": self.excluded_by.map(|prefix| prefix.to_string()),
            "expected": self.path_json(),
            "gateways": self.gateways,
            "kernel": self.answers.iter().map(answer_json).collect::<Vec<_>>(),
            "in_force": self.in_force,
            "agrees": self.agrees(),
            "obstacles": self.obstacles,
            "summary": self.summary(),
            "probe": self.probe.as_ref()
                .map(|probe| probe.to_json(self.path.is_translated_elsewhere())),
            "notes": self.notes,
        })
    }

    pub(super) fn path_json(&self) -> Value {
        match &self.path {
            ExpectedPath::Local => json!({ "path": "local" }),
            ExpectedPath::Bypass(prefix) => json!({
                "path": "bypass",
                "prefix": prefix.to_string(),
                "table": self.numbers.bypass_table,
                "gateway": self.via.first().and_then(|(gateway, _)| *gateway),
                "device": self.via.first().map(|(_, device)| device),
            }),
            ExpectedPath::Egress(gateways) => json!({
                "path": "egress",
                "table": self.numbers.egress_table,
                "gateways": gateways,
            }),
            ExpectedPath::Closed => json!({ "path": "closed", "table": self.numbers.egress_table }),
            ExpectedPath::Main(addresses) => json!({ "path": "main", "translated_to": addresses }),
        }
    }
}

impl ExpectedPath {
    /// The path in one word, as in `-o json`.
    pub(super) fn word(&self) -> &'static str {
        match self {
            ExpectedPath::Local => "local",
            ExpectedPath::Bypass(_) => "bypass",
            ExpectedPath::Egress(_) => "egress",
            ExpectedPath::Closed => "closed",
            ExpectedPath::Main(_) => "main",
        }
    }

    /// True if a NAT behind this host replaces the source address.
    fn is_translated_elsewhere(&self) -> bool {
        matches!(self, ExpectedPath::Egress(_))
    }
}

/// The form of the verb in the summary: `takes` or `should take`.
#[derive(Clone, Copy)]
enum Mood {
    Is,
    Should,
}

pub(super) fn list(addresses: &[IpAddr]) -> String {
    let words: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    words.join(", ")
}

fn answer_text(answer: &KernelAnswer) -> String {
    let mut text = String::new();
    if let Some((source, device)) = &answer.from {
        if let Some(source) = source {
            let _ = write!(text, "from {source} ");
        }
        if let Some(device) = device {
            let _ = write!(text, "on {device}");
        }
        text.truncate(text.trim_end().len());
        text.push_str(": ");
    }
    match &answer.decision {
        Some(RouteDecision::Route(route)) => {
            let _ = write!(text, "{}", route.key.dst);
            match (&route.target, &answer.device) {
                (RouteTarget::Via(via), Some(device)) => {
                    if let Some(gateway) = via.gateway {
                        let _ = write!(text, " via {gateway}");
                    }
                    let _ = write!(text, " dev {device}");
                }
                (RouteTarget::Multipath(legs), _) => {
                    let gateways: Vec<IpAddr> =
                        legs.iter().filter_map(|leg| leg.via.gateway).collect();
                    let _ = write!(text, " via one of {}", list(&gateways));
                }
                (RouteTarget::Nexthop(id), _) => {
                    let _ = write!(text, " nhid {id}");
                }
                _ => {}
            }
            let _ = write!(
                text,
                " (table {}, protocol {})",
                table_text(route.key.table),
                route.protocol
            );
        }
        Some(RouteDecision::Errno(errno)) => {
            text.push_str(&errno_text(*errno));
        }
        None => text.push_str("not asked"),
    }
    match (&answer.agreement, &answer.reason) {
        (Agreement::Yes, _) => text.push_str(": agrees"),
        (Agreement::Foreign(_) | Agreement::Defeated { .. }, _) => {
            text.push_str(": a foreign route or rule comes first")
        }
        (_, Some(reason)) => {
            let _ = write!(text, ": {reason}");
        }
        (_, None) => text.push_str(": disagrees"),
    }
    text
}

fn answer_json(answer: &KernelAnswer) -> Value {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    if let Some((source, input)) = &answer.from {
        put("source", json!(source));
        put("input", json!(input));
    }
    match &answer.decision {
        Some(RouteDecision::Route(route)) => {
            put("prefix", json!(route.key.dst.to_string()));
            put("table", json!(route.key.table));
            put("protocol", json!(route.protocol));
            put("device", json!(answer.device));
            match &route.target {
                RouteTarget::Via(via) => put("gateway", json!(via.gateway)),
                RouteTarget::Multipath(legs) => {
                    let gateways = legs.iter().filter_map(|leg| leg.via.gateway);
                    put("gateways", gateways.map(|gateway| json!(gateway)).collect())
                }
                RouteTarget::Nexthop(id) => put("nexthop", json!(id)),
                _ => None,
            };
        }
        Some(RouteDecision::Errno(errno)) => {
            put("errno", json!(errno));
            put("error", json!(errno_text(*errno)));
        }
        None => {}
    }
    let agreement = match &answer.agreement {
        Agreement::Yes | Agreement::PerhapsDefeated { .. } => "yes",
        Agreement::Foreign(_) | Agreement::Defeated { .. } => "foreign",
        Agreement::No => "no",
    };
    put("agreement", json!(agreement));
    put("reason", json!(answer.reason));
    Value::Object(fields)
}
