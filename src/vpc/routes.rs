//! `mode = "routes"`: one route for each prefix in each table.
//!
//! EC2's routes have no tags, so a ledger in the state dir says which ones are ours. A tag of the
//! table has a hash of the ledger: a writer without a ledger, or with one that the disk has refused to
//! bring up to date, takes over the routes to the target if they have this very hash. Without a ledger
//! nothing is deleted otherwise.

use std::collections::{BTreeMap, BTreeSet};

use super::drift::Drift;
use super::goal::{FamilyGoal, PlaneGoal, weighed};
use super::ledger::{HASH, Ledger, Owned, hash, owned, prefix_of};
use super::lint;
use super::objects::{RouteState, RouteTable, RouteTableId, RouteTarget, Tags, VpcRoute};
use super::observed::ObservedPlane;
use super::plan::PlanePlan;
use super::quota::Usage;
use super::step::Step;
use super::tags;
use crate::guard::figures;
use crate::ranges::PrefixSet;
use crate::types::Family;
use crate::words::first_few;
use ipnet::IpNet;

/// The most prefixes that a message names.
const NAMED: usize = 3;

/// Identifies a ledger under the targets of a goal.
pub fn fingerprint(ledger: &Ledger, goal: &PlaneGoal) -> String {
    ledger.fingerprint(goal.wanted().map(|wanted| wanted.target.id.as_str()))
}

/// The ledgers of a plan.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ledgers {
    /// For the time before the first step: with the routes that the plan creates, and those that it
    /// deletes.
    pub before: Ledger,
    /// After the last step.
    pub after: Ledger,
    /// Without those that the plan creates.
    pub known: Ledger,
}

impl Ledgers {
    fn insert(&mut self, table: &RouteTableId, [before, after, known]: [BTreeSet<IpNet>; 3]) {
        self.before.0.insert(table.clone(), before);
        self.after.0.insert(table.clone(), after);
        self.known.0.insert(table.clone(), known);
    }
}

/// The plan and its ledgers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RoutesPlan {
    pub plan: PlanePlan,
    pub ledgers: Ledgers,
}

/// Plans the routes of all tables. `verified` has the fingerprint of the ledger whose routes were all in
/// force after an earlier pass: a route of this ledger that is absent was deleted by another program.
pub fn plan(
    goal: &PlaneGoal,
    observed: &ObservedPlane,
    ledger: Option<&Ledger>,
    verified: Option<&str>,
) -> RoutesPlan {
    let was_verified = ledger.is_some_and(|it| Some(fingerprint(it, goal).as_str()) == verified);
    let mut planned = RoutesPlan::default();
    let targets: Vec<RouteTarget> = goal.wanted().map(|wanted| wanted.target.clone()).collect();
    let entries = goal.wanted().flat_map(|wanted| &wanted.entries);
    let wanted: BTreeSet<IpNet> = entries.map(|entry| entry.cidr).collect();
    for table in &observed.tables {
        let mut planner = Planner {
            goal,
            observed,
            table,
            ours: BTreeSet::new(),
            was_verified,
            taken: Vec::new(),
            repairs: Vec::new(),
            adds: Vec::new(),
            deletes: Vec::new(),
            may_delete: true,
        };
        match owned(table, ledger, &targets, &wanted) {
            Owned::Known(ours) => planner.ours = ours,
            Owned::Unknown => {
                planner.may_delete = false;
                planned.plan.holds.push(format!(
                    "route table {}: the ledger of our routes is lost, and the routes differ from the tag \
                     {HASH}: nothing is deleted; delete the routes that no document has, or remove the \
                     tag to start anew",
                    table.id
                ));
            }
        }
        planner.run(&mut planned);
    }
    planned
}

struct Planner<'p> {
    goal: &'p PlaneGoal,
    observed: &'p ObservedPlane,
    table: &'p RouteTable,
    /// Our routes after the plan, present or about to be.
    ours: BTreeSet<IpNet>,
    /// True if all routes of the ledger were in force after an earlier pass.
    was_verified: bool,
    /// The wanted prefixes with a route of somebody else: these addresses need our older routes.
    taken: Vec<IpNet>,
    /// Routes of ours that another program has changed, and that the document still has.
    repairs: Vec<Step>,
    adds: Vec<Step>,
    deletes: Vec<Step>,
    may_delete: bool,
}

impl Planner<'_> {
    fn run(mut self, planned: &mut RoutesPlan) {
        let before = self.ours.clone();
        for family in Family::ALL {
            if let Some(wanted) = self.goal.families.get(family) {
                self.family(family, wanted, &mut planned.plan);
            }
        }
        let table = &self.table.id;
        let changes = [&self.repairs, &self.adds, &self.deletes];
        let changes = changes.iter().any(|steps| !steps.is_empty());
        let (newest, own) = (tags::token_of(&self.table.tags, &[]), self.goal.token);
        if let Some(newest) = newest.filter(|newest| *newest > own && changes) {
            planned.plan.holds.push(format!(
                "route table {table} has the routes of {}, newer than {} here: nothing is changed; the \
                 source of this writer may be a stale mirror",
                figures::token(newest),
                figures::token(own)
            ));
            if self.may_delete {
                let unchanged = [before.clone(), before.clone(), before];
                planned.ledgers.insert(table, unchanged);
            }
            return;
        }
        // The ledger has routes from before their call until after their deletion.
        if self.may_delete {
            let all = before.union(&self.ours).copied().collect();
            let ledgers = [all, self.ours.clone(), before];
            planned.ledgers.insert(table, ledgers);
        }
        // A route that comes back is of both documents, as a table without a change is.
        let moves = !self.adds.is_empty() || !self.deletes.is_empty();
        self.push(&mut planned.plan.steps, moves && newest != Some(own));
    }

    /// The steps in order. `unmarked` is true for a table without the mark of the document.
    fn push(mut self, steps: &mut Vec<Step>, unmarked: bool) {
        // Both documents have these routes: no mark is needed.
        steps.append(&mut self.repairs);
        let mut mark = Tags::new();
        if unmarked {
            // First, so that a table with all of its 50 tags takes the mark.
            let keys = tags::outdated(&self.table.tags);
            if !keys.is_empty() {
                steps.push(Step::UntagTable {
                    table: self.table.id.clone(),
                    keys,
                });
            }
            mark = tags::of_token(self.goal.token);
        }
        let hash = hash(&self.ours);
        let tag = (!self.ours.is_empty() || self.table.tags.contains_key(HASH))
            && self.may_delete
            && self.table.tags.get(HASH) != Some(&hash);
        let mut tag = tag.then_some((HASH.to_owned(), hash));
        if self.goal.frozen {
            // The disk may have refused the ledger: the tag is the only record, and nothing is deleted.
            mark.extend(tag.take());
        }
        if !mark.is_empty() {
            steps.push(self.tag(mark));
        }
        steps.append(&mut self.adds);
        steps.extend(tag.map(|tag| self.tag(Tags::from([tag]))));
        steps.append(&mut self.deletes);
    }

    fn tag(&self, tags: Tags) -> Step {
        Step::TagTable {
            table: self.table.id.clone(),
            tags,
        }
    }

    fn family(&mut self, family: Family, wanted: &FamilyGoal, plan: &mut PlanePlan) {
        let table = &self.table.id;
        let present: BTreeMap<IpNet, &VpcRoute> = self
            .table
            .routes
            .iter()
            .filter_map(|route| Some((prefix_of(route)?, route)))
            .collect();
        let prefixes: BTreeSet<IpNet> = wanted.entries.iter().map(|entry| entry.cidr).collect();
        let ours: Vec<IpNet> = self
            .ours
            .iter()
            .filter(|prefix| Family::of_net(prefix) == family)
            .copied()
            .collect();
        if prefixes.is_empty() {
            if !ours.is_empty() {
                plan.holds.push(format!(
                    "route table {table}: the document selects no {family} prefix; the routes stay"
                ));
            }
            return;
        }
        let usage = Usage::of(self.table, family, self.observed);
        let missing = prefixes
            .iter()
            .filter(|it| !present.contains_key(it))
            .count();
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        if usage.room(self.goal.quota) < missing {
            plan.holds.push(format!(
                "route table {table} has no room for {missing} routes more: {family} {}, above the quota \
                 of {}; raise the quota (Service Quotas, \"Routes per route table\") and [vpc_plane] \
                 quota, select fewer regions, or write [vpc_plane] mode = \"prefix-list\"",
                usage.arithmetic(missing),
                self.goal.quota
            ));
            return;
        }
        for prefix in &prefixes {
            self.wanted(family, *prefix, wanted, present.get(prefix).copied(), plan);
        }
        let taken: PrefixSet = self.taken.iter().collect();
        let gone = ours.into_iter().filter(|prefix| {
            let kept = wanted.kept.intersects(prefix) || taken.intersects(prefix);
            let kept = kept && present.contains_key(prefix);
            !self.goal.frozen && !prefixes.contains(prefix) && !kept
        });
        let gone: Vec<IpNet> = gone.collect();
        self.remove(family, &gone, &present, plan);
    }

    fn wanted(
        &mut self,
        family: Family,
        prefix: IpNet,
        wanted: &FamilyGoal,
        present: Option<&VpcRoute>,
        plan: &mut PlanePlan,
    ) {
        let (table, target) = (&self.table.id, &wanted.target);
        if self.was_verified
            && self.ours.contains(&prefix)
            && present.is_none_or(|route| !route.leads_to(target))
        {
            plan.drift.push(Drift::Route {
                family,
                table: table.clone(),
                destination: prefix.to_string(),
                target_before: target.id.clone(),
                target: present.map(|route| route.target_name().to_owned()),
            });
        }
        let Some(route) = present else {
            let is_new = self.ours.insert(prefix);
            let steps = if is_new {
                &mut self.adds
            } else {
                &mut self.repairs
            };
            steps.push(Step::CreateRoute {
                family,
                table: table.clone(),
                prefix: Some(prefix),
                target: target.clone(),
            });
            return;
        };
        let from = route.target.as_ref();
        let from = from.map_or_else(|| "unknown".to_owned(), |from| from.id.clone());
        match (route.leads_to(target), self.ours.contains(&prefix)) {
            (true, _) if route.state == RouteState::Blackhole => {
                let missing = lint::blackhole(self.table, &prefix, family, wanted);
                plan.degraded.push(missing);
            }
            (true, _) => {}
            (false, true) => self.repairs.push(Step::ReplaceRoute {
                family,
                table: table.clone(),
                prefix: Some(prefix),
                from,
                target: target.clone(),
            }),
            (false, false) => {
                self.taken.push(prefix);
                plan.conflicts.push(format!(
                    "route table {table}: a route that is not ours leads {prefix} to {from}: remove the \
                     route, or name the prefix in [select] exclude"
                ));
            }
        }
    }

    fn remove(
        &mut self,
        family: Family,
        gone: &[IpNet],
        present: &BTreeMap<IpNet, &VpcRoute>,
        plan: &mut PlanePlan,
    ) {
        let there: Vec<IpNet> = gone
            .iter()
            .filter(|prefix| present.contains_key(prefix))
            .copied()
            .collect();
        let left = self.ours.iter().filter(|prefix| !gone.contains(prefix));
        let left: PrefixSet = left.collect();
        let left = weighed(&left, family);
        if !there.is_empty() && left < u128::from(self.goal.floor) {
            plan.holds.push(format!(
                "route table {}: the routes would be left with {left} {family} addresses, fewer than \
                 [vpc_plane] floor = {}: {} stay",
                self.table.id,
                self.goal.floor,
                first_few(&there, NAMED, ", ")
            ));
            return;
        }
        for prefix in gone {
            self.ours.remove(prefix);
        }
        if self.may_delete {
            self.deletes
                .extend(there.into_iter().map(|prefix| Step::DeleteRoute {
                    family,
                    table: self.table.id.clone(),
                    prefix: Some(prefix),
                }));
        }
    }
}
