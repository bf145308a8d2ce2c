//! `explain ADDRESS` in the vpc role: table, entry, target, and the reason.

use std::fmt::Write as _;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::session;
use crate::cli::{Destination, ExplainArgs};
use crate::commands::explain::resolve;
use crate::commands::{complain, print};
use crate::config::{Config, PlaneMode};
use crate::exit;
use crate::ranges::RangeSet;
use crate::reconcile::{Asking, Mode, Options};
use crate::types::Family;
use crate::vpc::error::VpcError;
use crate::vpc::goal::target_of;
use crate::vpc::look::{ask, judge};
use crate::vpc::lookup::{Hit, lookup};
use crate::vpc::observed::ObservedPlane;
use crate::vpc::pass::PassMemory;
use crate::vpc::session::Session;

/// Runs `explain` and returns the exit code.
pub(in crate::commands) async fn run(arguments: &ExplainArgs, config: &Config) -> u8 {
    if arguments.probe.is_some() {
        complain(&"--probe asks this machine's kernel: leave it out with role = \"vpc\"");
        return exit::USAGE;
    }
    let addresses = match &arguments.destination {
        Destination::Address(address) => vec![*address],
        Destination::Prefix(prefix) => vec![prefix.addr()],
        Destination::Name(name) => match resolve(name).await {
            Ok(resolved) => resolved.addresses,
            Err(error) => {
                complain(&error);
                return exit::FAILED;
            }
        },
    };
    let session = match session(config).await {
        Ok(session) => session,
        Err(code) => return code,
    };
    let asking = match arguments.common.source.is_empty() {
        true => Asking::Nobody,
        false => Asking::Source,
    };
    let (observed, ranges) = match look(&session, asking).await {
        Ok(found) => found,
        Err(error) => {
            complain(&error);
            return exit::FAILED;
        }
    };
    let answers: Vec<Answer<'_>> = addresses
        .iter()
        .flat_map(|address| of_address(*address, &observed, &ranges, config))
        .collect();
    print(
        arguments.common.base.output,
        || {
            let mut text = String::new();
            for answer in &answers {
                let _ = writeln!(text, "{}", answer.text());
            }
            text
        },
        || json!({"role": "vpc", "answers": answers.iter().map(Answer::json).collect::<Vec<_>>()}),
    );
    match answers.iter().all(|answer| answer.is_good) {
        true => exit::OK,
        false => exit::FAILED,
    }
}

/// Reads the VPC and the document in force. Writes nothing.
pub(super) async fn look(
    session: &Session,
    asking: Asking,
) -> Result<(ObservedPlane, RangeSet), VpcError> {
    let config = &session.config;
    let options = Options {
        mode: Mode::DryRun,
        asking,
        ..Options::default()
    };
    let ec2 = session.ec2.for_pass();
    let mut memory = PassMemory::default();
    let (gathered, observed) = ask(&ec2, config, &options, &mut memory).await?;
    let documents = &mut memory.documents;
    let judged = judge(config, &options, gathered, &observed, None, documents)?;
    let judgement = judged.judgement();
    let ranges = match judgement.nothing_in_force {
        true => RangeSet::default(),
        false => judgement.ranges.clone(),
    };
    Ok((observed, ranges))
}

/// The route of an address in one table.
struct Answer<'o> {
    address: IpAddr,
    table: &'o str,
    hit: Option<Hit<'o>>,
    /// The reason for the selection; `None` for an address outside.
    selected: Option<String>,
    /// True if selected addresses take the bypass path, and others don't.
    is_good: bool,
}

fn of_address<'o>(
    address: IpAddr,
    observed: &'o ObservedPlane,
    ranges: &RangeSet,
    config: &Config,
) -> Vec<Answer<'o>> {
    let family = Family::of(address);
    let led = config.vpc_plane.target.get(family).is_some();
    let inside = ranges.matching(address).filter(|_| led);
    let selected = inside.map(|prefix| {
        let origins = ranges.origins_of(address);
        let names: Vec<String> = origins
            .iter()
            .map(|(origin, _)| origin.to_string())
            .collect();
        format!("{prefix}: {}", names.join(", "))
    });
    let tables = observed.tables.iter();
    tables
        .map(|table| {
            let mut hit = lookup(table, address, observed);
            let by_target = config.vpc_plane.mode == PlaneMode::Routes;
            let target = target_of(&config.vpc_plane, family).filter(|_| by_target);
            let leads = |hit: &Hit<'_>| target.as_ref().is_some_and(|it| hit.route.leads_to(it));
            if let Some(hit) = &mut hit {
                hit.is_ours |= hit.prefix.prefix_len() > 0 && leads(hit);
            }
            let is_ours = hit.as_ref().is_some_and(|hit| hit.is_ours && !hit.drops());
            Answer {
                address,
                table: table.id.as_str(),
                is_good: is_ours == selected.is_some(),
                selected: selected.clone(),
                hit,
            }
        })
        .collect()
}

impl Answer<'_> {
    fn text(&self) -> String {
        let Answer { address, table, .. } = self;
        let way = match &self.hit {
            None => "no route: packets are dropped".to_owned(),
            Some(hit) => {
                let target = hit.route.target.as_ref();
                let target = target.map_or("an unknown target", |target| &target.id);
                let place = match hit.list {
                    Some((list, entry)) => format!(
                        "{} of prefix list {} ({}; {})",
                        hit.prefix,
                        list.list.id,
                        list.list.name,
                        entry.description.as_deref().unwrap_or("no description")
                    ),
                    None => format!("route {}", hit.prefix),
                };
                let dropped = if hit.drops() {
                    ", which drops packets (blackhole)"
                } else {
                    ""
                };
                format!("{place} to {target}{dropped}")
            }
        };
        let path = match (&self.hit, &self.selected) {
            (Some(hit), _) if hit.is_ours => "bypass path",
            (_, Some(_)) => "NOT the bypass path",
            _ => "egress path",
        };
        let reason = match &self.selected {
            Some(selected) => format!("selected ({selected})"),
            None => "not selected".to_owned(),
        };
        format!("{address}  {table}: {path}: {way}; {reason}")
    }

    fn json(&self) -> Value {
        let hit = self.hit.as_ref();
        json!({
            "address": self.address,
            "table": self.table,
            "path": match hit {
                Some(hit) if hit.is_ours => "bypass",
                Some(_) => "egress",
                None => "none",
            },
            "prefix": hit.map(|hit| hit.prefix),
            "list": hit.and_then(|hit| hit.list).map(|(list, _)| &list.list.id),
            "target": hit.and_then(|hit| hit.route.target.as_ref()).map(|target| &target.id),
            "blackhole": hit.is_some_and(Hit::drops),
            "selected": self.selected,
            "good": self.is_good,
        })
    }
}
