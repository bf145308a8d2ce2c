//! `check` in the vpc role: credentials, tables, lists, permissions, quota and overlaps. Changes
//! nothing: permissions are proven by dry runs of EC2.

use ipnet::IpNet;

use super::explain::look;
use super::probes::permissions;
use crate::clock;
use crate::commands::check::data;
use crate::commands::check::report::CheckReport;
use crate::config::file::Loaded;
use crate::config::{Config, DriftUse, PlaneMode};
use crate::ranges::{PrefixSet, RangeSet};
use crate::reconcile::Asking;
use crate::state::StateFile;
use crate::state::store::Store;
use crate::types::{Family, PerFamily};
use crate::vpc::ec2::{Ec2, ErrorKind, ListFilter};
use crate::vpc::goal::{PlaneGoal, target_of};
use crate::vpc::ledger::Ledger;
use crate::vpc::observed::{Found, ObservedPlane, list_name};
use crate::vpc::plan::{Memory, plan};
use crate::vpc::quota::Usage;
use crate::vpc::routes;
use crate::vpc::session::Session;
use crate::words::counted;

/// Runs the check.
pub(in crate::commands) async fn run(loaded: &Loaded) -> CheckReport {
    let config = &loaded.config;
    let mut report = CheckReport::default();
    let name = match &loaded.file {
        Some(file) => file.display().to_string(),
        None => "no config file: defaults and flags".to_owned(),
    };
    report.ok("config", format!("{name}, role vpc"));
    let session = match Session::open(config).await {
        Ok(session) => session,
        Err(error) => {
            report.fail("region", error.to_string(), "repair this first");
            return report;
        }
    };
    report.ok("region", session.region.to_string());
    data::all(config, &mut report);
    let (observed, ranges) = match look(&session, Asking::Nobody).await {
        Ok(found) => found,
        Err(error) => {
            let advice = "repair this first, then run the check again";
            report.fail("ec2", error.to_string(), advice);
            return report;
        }
    };
    tables(&observed, &mut report);
    if config.vpc_plane.mode == PlaneMode::PrefixList {
        lists(config, &observed, &mut report);
        quota(config, &observed, &mut report);
    }
    overlaps(&session.config, &observed, &ranges, &mut report);
    let ec2 = session.ec2.for_pass();
    targets(&ec2, config, &observed, &mut report).await;
    permissions(&ec2, config, (&observed, &ranges), &mut report).await;
    amazons_list(&ec2, &session, &ranges, &mut report).await;
    report
}

fn tables(observed: &ObservedPlane, report: &mut CheckReport) {
    for table in &observed.tables {
        let subnets = match (table.subnets.len(), table.is_main) {
            (count, true) => format!("the main table, and {count} subnets of its own"),
            (count, false) => format!("{count} subnets"),
        };
        let text = format!("{} of {}: {subnets}", table.id, table.vpc);
        if table.subnets.is_empty() && !table.is_main {
            report.warn("table", text, "associate the table with a subnet");
        } else {
            report.ok("table", text);
        }
    }
}

fn lists(config: &Config, observed: &ObservedPlane, report: &mut CheckReport) {
    for family in config.vpc_plane.families() {
        let name = list_name(&config.vpc_plane.name, family);
        match observed.lists.get(family) {
            Found::Absent => report.ok("list", format!("{name}: the first pass creates the list")),
            Found::Conflict(why) => report.fail("list", why.clone(), "see above"),
            Found::Ours(ours) => report.ok(
                "list",
                format!(
                    "{} ({}): {} of at most {} entries, document {}",
                    ours.list.id,
                    ours.list.name,
                    ours.entries.len(),
                    ours.list.max_entries.unwrap_or(0),
                    ours.token()
                        .map_or_else(|| "unknown".to_owned(), |it| it.to_string())
                ),
            ),
        }
    }
}

/// The arithmetic of each table.
fn quota(config: &Config, observed: &ObservedPlane, report: &mut CheckReport) {
    let plane = &config.vpc_plane;
    for family in plane.families() {
        let ours = observed.lists.get(family).ours();
        let size = ours.and_then(|ours| ours.list.max_entries).unwrap_or(0);
        for table in &observed.tables {
            let usage = Usage::of(table, family, observed);
            let text = format!(
                "{} {family}: {}, of {}",
                table.id,
                usage.arithmetic(size),
                plane.quota
            );
            if usage.room(plane.quota) < size {
                let advice = "raise the quota \"Routes per route table\" and [vpc_plane] quota";
                report.fail("quota", text, advice);
            } else {
                report.ok("quota", text);
            }
        }
    }
}

/// Conflicts, holds and missing parts of a pass now.
fn overlaps(
    config: &Config,
    observed: &ObservedPlane,
    ranges: &RangeSet,
    report: &mut CheckReport,
) {
    let Some(goal) = PlaneGoal::new(&config.vpc_plane, ranges) else {
        let advice = "run `trailblazer reconcile`, which fetches the document";
        return report.warn("document", "no document is in force", advice);
    };
    let planned = match config.vpc_plane.mode {
        PlaneMode::PrefixList => {
            let memory = Memory {
                left: &PerFamily::default(),
                drift: DriftUse::Mend,
                now: clock::unix_seconds(),
            };
            plan(&goal, observed, memory)
        }
        PlaneMode::Routes => {
            let store = Store::open(&config.source.state_dir);
            let ledger: Option<Ledger> = store.read_json(StateFile::VpcRoutes).ok();
            routes::plan(&goal, observed, ledger.as_ref(), None).plan
        }
    };
    for conflict in &planned.conflicts {
        report.fail("conflict", conflict.clone(), "see above");
    }
    for hold in &planned.holds {
        report.warn("hold", hold.clone(), "see above");
    }
    for missing in &planned.degraded {
        report.fail("overlap", missing.reason.clone(), missing.advice.clone());
    }
    match planned.steps.len() {
        0 => report.ok("plan", "in sync"),
        steps => {
            let changes = counted(steps as u64, "change");
            report.ok("plan", format!("a pass would make {changes}"));
        }
    }
}

/// Finds each target, and its VPC.
async fn targets(ec2: &Ec2, config: &Config, observed: &ObservedPlane, report: &mut CheckReport) {
    let plane = &config.vpc_plane;
    for family in plane.families() {
        let Some(target) = target_of(plane, family) else {
            continue;
        };
        let places = match ec2.describe_target(&target).await {
            Ok(Some(places)) => places,
            Ok(None) => {
                let text = format!("{family} {target}: EC2 has no call that this check could ask");
                report.ok("target", text);
                continue;
            }
            Err(error) if matches!(error.kind, ErrorKind::NotFound) => {
                let advice = "set [vpc_plane] target to a target that exists";
                report.fail("target", format!("{family} {error}"), advice);
                continue;
            }
            Err(error) => {
                report.warn_plain("target", format!("{family} {error}"));
                continue;
            }
        };
        let states: Vec<&str> = places.iter().map(|place| place.state.as_str()).collect();
        let attached = |vpc| places.iter().any(|place| place.vpcs.contains(vpc));
        let away = observed.tables.iter().find(|table| !attached(&table.vpc));
        match away {
            Some(table) => report.fail(
                "target",
                format!(
                    "{family} {target} is not attached to {} of {}",
                    table.vpc, table.id
                ),
                "attach the target, or set [vpc_plane] target to another one",
            ),
            None => report.ok(
                "target",
                format!("{family} {target}: {}", states.join(", ")),
            ),
        }
    }
}

/// Compares the selection with Amazon's own list of S3, which a gateway endpoint uses.
async fn amazons_list(ec2: &Ec2, session: &Session, ranges: &RangeSet, report: &mut CheckReport) {
    let services = &session.config.select.services;
    if ranges.sync_token.is_none() || !services.iter().any(|service| service.0 == "S3") {
        return;
    }
    let name = format!("com.amazonaws.{}.s3", session.region);
    let filter = ListFilter {
        names: vec![name.clone()],
        ..ListFilter::default()
    };
    let entries: Result<Vec<IpNet>, _> = async {
        let mut cidrs = Vec::new();
        for list in ec2.describe_lists(&filter).await? {
            let entries = ec2.list_entries(&list.id, list.version).await?;
            cidrs.extend(entries.into_iter().map(|entry| entry.cidr));
        }
        Ok::<_, crate::vpc::ec2::Ec2Error>(cidrs)
    }
    .await;
    match entries {
        Err(error) => report.warn_plain("amazons_list", format!("{name}: {error}")),
        Ok(entries) if entries.is_empty() => {}
        Ok(entries) => {
            let theirs: PrefixSet = entries.iter().collect();
            let ours: PrefixSet = Family::ALL
                .iter()
                .flat_map(|family| ranges.prefixes.get(*family))
                .collect();
            let missing = theirs.subtract(&ours).all_prefixes();
            let missing: Vec<IpNet> = missing
                .into_iter()
                .filter(|prefix| {
                    session
                        .config
                        .vpc_plane
                        .target
                        .get(Family::of_net(prefix))
                        .is_some()
                })
                .collect();
            report.ok(
                "amazons_list",
                format!(
                    "{name} has {} prefixes; {} of its networks are outside the selection{}",
                    entries.len(),
                    missing.len(),
                    match missing.first() {
                        Some(first) => format!(" ({first} …)"),
                        None => String::new(),
                    }
                ),
            );
        }
    }
}
