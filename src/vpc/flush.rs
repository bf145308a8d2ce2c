//! Takes our objects away: routes first, then the lists that we made.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::apply::{Applier, Ending, Waits};
use super::ec2::Ec2;
use super::error::VpcError;
use super::ledger::{HASH, Ledger, Owned, hash, led, owned, targets};
use super::objects::{RouteDestination, RouteTable};
use super::observe::{EntryCache, observe};
use super::observed::{Found, ObservedPlane};
use super::step::Step;
use crate::config::{Config, PlaneMode, VpcPlaneConfig};
use crate::state::StateFile;
use crate::state::error::ReadError;
use crate::state::store::Store;
use crate::types::Family;
use crate::words::first_few;

/// The readings after changes of other writers.
const READINGS: usize = 3;

/// The most routes that a message names.
const NAMED: usize = 5;

/// The result of a flush.
#[derive(Debug, Default)]
pub struct Flushed {
    /// The steps, carried out or pending.
    pub steps: Vec<Step>,
    pub done: usize,
    /// Objects that are left, with the reason.
    pub left: Vec<String>,
    /// True if routes that may be ours are among those left.
    pub incomplete: bool,
    /// A failure. Steps before it are done.
    pub error: Option<VpcError>,
}

impl Flushed {
    fn may_be_left(&mut self, why: String) {
        self.left.push(why);
        self.incomplete = true;
    }
}

/// The steps that take our objects away. Routes go first: a route to an emptied list drops no packet,
/// but a list in use cannot be deleted.
pub fn plan(plane: &VpcPlaneConfig, observed: &ObservedPlane) -> Flushed {
    let mut flushed = Flushed::default();
    for family in Family::ALL {
        let ours = match observed.lists.get(family) {
            Found::Absent => continue,
            Found::Conflict(why) => {
                flushed.left.push(why.clone());
                continue;
            }
            Found::Ours(ours) => ours,
        };
        let destination = RouteDestination::List(ours.list.id.clone());
        let leads = |table: &&RouteTable| table.route_to(&destination).is_some();
        for table in observed.tables.iter().filter(leads) {
            flushed.steps.push(Step::DeleteRoute {
                family,
                table: table.id.clone(),
                prefix: None,
            });
        }
        for spare in observed.spares.get(family) {
            let destination = RouteDestination::List(spare.id.clone());
            let tables = observed.tables.iter();
            for table in tables.filter(|table| table.route_to(&destination).is_some()) {
                flushed.steps.push(Step::DeleteSpareRoute {
                    family,
                    table: table.id.clone(),
                    list: spare.id.clone(),
                });
            }
            flushed.steps.push(Step::DeleteSpare {
                family,
                list: spare.id.clone(),
            });
        }
        if plane.lists.contains(&ours.list.id.0) {
            // The operator made the list, and other tables may use it.
            flushed.left.push(format!(
                "prefix list {} ({}) stays with its entries: [vpc_plane] lists names it",
                ours.list.id, ours.list.name
            ));
        } else {
            flushed.steps.push(Step::DeleteList { family });
        }
    }
    flushed
}

/// The steps that delete our single routes, found as a pass finds them: by the ledger, or by the tag of
/// the table. A route to the targets that neither explains may be ours, and is named.
fn plan_routes(plane: &VpcPlaneConfig, observed: &ObservedPlane, store: &Store) -> Flushed {
    let mut flushed = Flushed::default();
    let ledger: Option<Ledger> = match store.read_json(StateFile::VpcRoutes) {
        Ok(ledger) => Some(ledger),
        Err(ReadError::Absent { .. }) => None,
        Err(unreadable) => {
            flushed.may_be_left(format!(
                "the ledger of our routes cannot be read, and routes without a tag of their table stay: \
                 {unreadable}"
            ));
            None
        }
    };
    let targets = targets(plane);
    for table in &observed.tables {
        let owned = owned(table, ledger.as_ref(), &targets, &BTreeSet::new());
        let ours = match owned {
            Owned::Known(ours) => ours,
            Owned::Unknown => BTreeSet::new(),
        };
        let tag = table.tags.get(HASH);
        let others: Vec<IpNet> = led(table, &targets).difference(&ours).copied().collect();
        if !others.is_empty() && tag.is_some_and(|tag| *tag != hash(&ours)) {
            flushed.may_be_left(format!(
                "route table {}: {} stay, since the ledger in the state dir is lost or older than the tag \
                 {HASH}: delete those that are ours by hand, then the tag",
                table.id,
                first_few(&others, NAMED, ", ")
            ));
        }
        let present = |prefix: &IpNet| table.route_to(&RouteDestination::Prefix(*prefix)).is_some();
        for prefix in ours.into_iter().filter(present) {
            flushed.steps.push(Step::DeleteRoute {
                family: Family::of_net(&prefix),
                table: table.id.clone(),
                prefix: Some(prefix),
            });
        }
    }
    flushed
}

/// Takes our objects away; with `dry_run` only reads. The error is in the result, beside the objects that
/// were removed before.
pub async fn flush(ec2: &Ec2, config: &Config, dry_run: bool) -> Flushed {
    let mut flushed = Flushed::default();
    flushed.error = flush_into(&mut flushed, &ec2.for_pass(), config, dry_run)
        .await
        .err();
    flushed
}

async fn flush_into(
    all: &mut Flushed,
    ec2: &Ec2,
    config: &Config,
    dry_run: bool,
) -> Result<(), VpcError> {
    let plane = &config.vpc_plane;
    let store = Store::open(&config.source.state_dir);
    let mut contended = None;
    for _ in 0..READINGS {
        let observed = observe(ec2, plane, &mut EntryCache::default()).await?;
        let mut planned = match plane.mode {
            PlaneMode::PrefixList => plan(plane, &observed),
            PlaneMode::Routes => plan_routes(plane, &observed, &store),
        };
        if all.steps.is_empty() {
            all.steps.append(&mut planned.steps.clone());
        }
        (all.left, all.incomplete) = (planned.left, planned.incomplete);
        if dry_run || planned.steps.is_empty() {
            return Ok(());
        }
        // The objects that go are no drift. A file that stays costs a wrong word in the history.
        let _ = store.remove_json(StateFile::Vpc);
        planned.steps.sort_by_key(Step::concerns_list);
        let mut applier = Applier::new(ec2, &observed, 0, Waits::default());
        let ending = applier.apply(&planned.steps).await;
        all.done += applier.done;
        match ending {
            Ending::Done(failures) if failures.is_empty() => return Ok(()),
            Ending::Done(failures) => {
                let failures = failures.iter().map(ToString::to_string);
                return Err(VpcError::Incomplete(failures.collect()));
            }
            Ending::Again(error) => contended = Some(error),
        }
    }
    contended.map_or(Ok(()), |error| Err(VpcError::Contended(error)))
}
