//! Takes our objects away: routes first, then the lists that we made.

use super::apply::{Applier, Ending, Waits};
use super::ec2::Ec2;
use super::error::VpcError;
use super::ledger::{HASH, Ledger};
use super::objects::{RouteDestination, RouteTable};
use super::observe::{EntryCache, observe};
use super::observed::{Found, ObservedPlane};
use super::step::Step;
use crate::config::{Config, PlaneMode, VpcPlaneConfig};
use crate::state::StateFile;
use crate::state::store::Store;
use crate::types::Family;

/// The readings after changes of other writers.
const READINGS: usize = 3;

/// The result of a flush.
#[derive(Debug, Default)]
pub struct Flushed {
    /// The steps, carried out or pending.
    pub steps: Vec<Step>,
    pub done: usize,
    /// Objects that are left, with the reason.
    pub left: Vec<String>,
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

/// The steps that delete the routes of a ledger.
fn plan_routes(observed: &ObservedPlane, ledger: &Ledger) -> Flushed {
    let mut flushed = Flushed::default();
    for table in &observed.tables {
        for prefix in ledger.0.get(&table.id).into_iter().flatten() {
            if table.route_to(&RouteDestination::Prefix(*prefix)).is_some() {
                flushed.steps.push(Step::DeleteRoute {
                    family: Family::of_net(prefix),
                    table: table.id.clone(),
                    prefix: Some(*prefix),
                });
            }
        }
        if !ledger.0.contains_key(&table.id) && table.tags.contains_key(HASH) {
            flushed.left.push(format!(
                "route table {}: the routes stay, since the ledger in the state dir is lost",
                table.id
            ));
        }
    }
    flushed
}

/// Takes our objects away; with `dry_run` only reads.
///
/// # Errors
/// EC2 cannot be read, or refuses a call. What was done before stays done.
pub async fn flush(ec2: &Ec2, config: &Config, dry_run: bool) -> Result<Flushed, VpcError> {
    let ec2 = ec2.for_pass();
    let plane = &config.vpc_plane;
    let mut all = Flushed::default();
    let mut contended = None;
    for _ in 0..READINGS {
        let observed = observe(&ec2, plane, &mut EntryCache::default()).await?;
        let mut planned = match plane.mode {
            PlaneMode::PrefixList => plan(plane, &observed),
            PlaneMode::Routes => {
                let store = Store::open(&config.source.state_dir);
                let ledger = store.read_json(StateFile::VpcRoutes).unwrap_or_default();
                plan_routes(&observed, &ledger)
            }
        };
        if all.steps.is_empty() {
            all.steps.append(&mut planned.steps.clone());
        }
        all.left = planned.left;
        if dry_run || planned.steps.is_empty() {
            return Ok(all);
        }
        // The objects that go are no drift. A file that stays costs a wrong word in the history.
        let _ = Store::open(&config.source.state_dir).remove_json(StateFile::Vpc);
        planned.steps.sort_by_key(Step::concerns_list);
        let mut applier = Applier::new(&ec2, &observed, 0, Waits::default());
        let ending = applier.apply(&planned.steps).await;
        all.done += applier.done;
        match ending {
            Ending::Done(failures) if failures.is_empty() => return Ok(all),
            Ending::Done(failures) => {
                let failures = failures.iter().map(ToString::to_string);
                return Err(VpcError::Incomplete(failures.collect()));
            }
            Ending::Again(error) => contended = Some(error),
        }
    }
    match contended {
        Some(error) => Err(VpcError::Contended(error)),
        None => Ok(all),
    }
}
