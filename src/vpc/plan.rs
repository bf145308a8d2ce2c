//! The ordered steps from a reading of the VPC to the goal.
//!
//! # Invariants
//!
//! - Entries are added before others are removed, so that each version of a list holds every address
//!   that was in force and stays so.
//! - A list grows first, by a call of its own, and is marked with the document before its entries
//!   change.
//! - A list has all of its entries before a table leads to it.
//! - A list that a newer document has reached is left alone.
//! - Of several lists of ours, the chosen one has its entries and its route before another goes.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::calls::ENTRIES_PER_CALL;
use super::drift::{self, Drift, Left};
use super::goal::{FamilyGoal, PlaneGoal, weighed};
use super::lint;
use super::objects::{Entry, RouteDestination, RouteState, RouteTable};
use super::observed::{Found, ObservedList, ObservedPlane, list_name};
use super::quota::{LARGEST_LIST, Usage};
use super::spares;
use super::step::Step;
use super::tags;
use crate::config::DriftUse;
use crate::degraded::{Degradation, Part};
use crate::guard::figures;
use crate::ranges::PrefixSet;
use crate::types::{Family, PerFamily, SyncToken};

/// A token further ahead than this, in seconds, is no skew of clocks.
const FUTURE: u64 = 86_400;

/// The steps, and the parts without steps.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PlanePlan {
    pub steps: Vec<Step>,
    /// Objects in the place of ours.
    pub conflicts: Vec<String>,
    /// Changes that wait for an operator or for another writer.
    pub holds: Vec<String>,
    pub degraded: Vec<Degradation>,
    /// Changes of our entries by other programs.
    pub drift: Vec<Drift>,
}

/// The memory of earlier passes and the settings, for changes by other programs.
#[derive(Debug, Clone, Copy)]
pub struct Memory<'m> {
    /// The lists as an earlier pass of this writer left them.
    pub left: &'m PerFamily<Option<Left>>,
    pub drift: DriftUse,
    /// Wall clock, seconds since the epoch.
    pub now: u64,
}

/// Plans the steps from the reading to the goal.
pub fn plan(goal: &PlaneGoal, observed: &ObservedPlane, memory: Memory<'_>) -> PlanePlan {
    let mut plan = PlanePlan::default();
    for family in Family::ALL {
        if let Some(wanted) = goal.families.get(family) {
            let planner = Planner {
                goal,
                family,
                wanted,
                observed,
                memory,
            };
            planner.plan(&mut plan);
        }
    }
    plan
}

/// The plan of one family.
struct Planner<'p> {
    goal: &'p PlaneGoal,
    family: Family,
    wanted: &'p FamilyGoal,
    observed: &'p ObservedPlane,
    memory: Memory<'p>,
}

impl Planner<'_> {
    fn plan(&self, plan: &mut PlanePlan) {
        let found = self.observed.lists.get(self.family);
        let name = list_name(&self.goal.name, self.family);
        let left = self.memory.left.get(self.family).as_ref();
        let led = (name.as_str(), &self.wanted.target);
        let tables = &self.observed.tables;
        plan.drift
            .extend(drift::of_routes(self.family, left, found, tables, led));
        if self.wanted.entries.is_empty() {
            if *found == Found::Absent {
                return;
            }
            // An empty list would take every address off the bypass path at once.
            plan.holds.push(format!(
                "{}: the document selects no prefix; the list stays as it is",
                self.family
            ));
            return;
        }
        let size = match found {
            Found::Conflict(why) => {
                plan.conflicts.push(why.clone());
                return;
            }
            Found::Absent => self.create(plan),
            Found::Ours(list) => self.change(list, plan),
        };
        let Some(size) = size else {
            return;
        };
        let before = (plan.steps.len(), plan.holds.len());
        self.lead(size, plan);
        let is_led = before == (plan.steps.len(), plan.holds.len());
        if let Found::Ours(list) = found
            && is_led
            && !self.goal.frozen
            && !plan.steps.iter().any(|step| step.family() == self.family)
        {
            let steps = spares::steps(self.goal, self.family, list, self.observed);
            plan.steps.extend(steps);
        }
    }

    /// A new list. Returns `MaxEntries`, or `None` without a list.
    fn create(&self, plan: &mut PlanePlan) -> Option<u32> {
        let entries = &self.wanted.entries;
        let size = self.size_for(entries.len(), None, plan)?;
        let mut chunks = entries.chunks(ENTRIES_PER_CALL);
        plan.steps.push(Step::CreateList {
            family: self.family,
            name: list_name(&self.goal.name, self.family),
            max_entries: size,
            entries: chunks.next().unwrap_or_default().to_vec(),
            tags: tags::of_new_list(&self.goal.name, self.goal.token),
        });
        for chunk in chunks {
            plan.steps.push(self.modify(chunk.to_vec(), Vec::new()));
        }
        Some(size)
    }

    /// Changes of our list. Returns `MaxEntries` after them.
    fn change(&self, list: &ObservedList, plan: &mut PlanePlan) -> Option<u32> {
        let size = list.list.max_entries.unwrap_or(0);
        let present = list.cidrs();
        let wanted: BTreeSet<IpNet> = self.wanted.entries.iter().map(|it| it.cidr).collect();
        let kept = |prefix: &&IpNet| self.goal.frozen || self.wanted.kept.intersects(prefix);
        let entries = self.wanted.entries.iter();
        let add: Vec<Entry> = entries
            .filter(|entry| !present.contains(&entry.cidr))
            .cloned()
            .collect();
        let gone = present.difference(&wanted).filter(|prefix| !kept(prefix));
        let remove: Vec<IpNet> = gone.copied().collect();
        let left = self.memory.left.get(self.family).as_ref();
        let drift = drift::of(self.family, left, list, &self.wanted.entries);
        plan.drift.extend(drift.clone());
        if add.is_empty() && remove.is_empty() {
            // Without the mark, a writer with an older document than this one would change the list.
            if self.observed.newest(self.family) < Some(self.goal.token) {
                self.mark(list, plan);
            }
            return Some(size);
        }
        if let Some(hold) = self.hold(list, drift) {
            plan.holds.push(hold);
            return Some(size);
        }
        let after: PrefixSet = present
            .difference(&remove.iter().copied().collect())
            .collect();
        let after = after.union(&add.iter().map(|entry| &entry.cidr).collect());
        let left = weighed(&after, self.family);
        if left < u128::from(self.goal.floor) {
            plan.holds.push(format!(
                "{}: the list would be left with {left} addresses, fewer than [vpc_plane] floor = {}",
                self.family, self.goal.floor
            ));
            return Some(size);
        }
        let most = present.len() + add.len();
        let size = if most > size as usize {
            let Some(larger) = self.size_for(most, Some(size), plan) else {
                return Some(size);
            };
            plan.steps.push(Step::ResizeList {
                family: self.family,
                from: size,
                to: larger,
            });
            larger
        } else {
            size
        };
        self.mark(list, plan);
        self.modify_all(add, remove, plan);
        Some(size)
    }

    /// A reason to leave the list alone.
    fn hold(&self, list: &ObservedList, drift: Option<Drift>) -> Option<String> {
        let (id, name, own) = (&list.list.id, &list.list.name, self.goal.token);
        let newest = self.observed.newest(self.family);
        if let Some(token) = newest.filter(|token| *token > own) {
            let advice = if token.0 > self.memory.now.saturating_add(FUTURE) {
                format!(
                    "that is in the future: remove the tag {}:{token} if no writer has such a document",
                    tags::TOKEN
                )
            } else {
                "the source of this writer may be a stale mirror".to_owned()
            };
            return Some(format!(
                "prefix list {id} ({name}) has {}, newer than {} here: nothing is changed; {advice}",
                figures::token(token),
                figures::token(own)
            ));
        }
        let drift = drift.filter(|_| self.memory.drift == DriftUse::Hold)?;
        Some(format!(
            "{drift}; [vpc_plane] drift = \"hold\" leaves the list as it is"
        ))
    }

    /// Marks the list with the document, unless it is marked.
    fn mark(&self, list: &ObservedList, plan: &mut PlanePlan) {
        let from = tags::token_of(&list.list.tags, &[]);
        let to: SyncToken = self.goal.token;
        if from.is_none_or(|from| from < to) {
            plan.steps.push(Step::RaiseToken {
                family: self.family,
                from,
                to,
            });
            let keys = tags::outdated(&list.list.tags);
            if !keys.is_empty() {
                plan.steps.push(Step::DropTokens {
                    family: self.family,
                    keys,
                });
            }
        }
    }

    /// Additions first. The last call with additions takes removals too, since one call changes a
    /// list at once.
    fn modify_all(&self, add: Vec<Entry>, remove: Vec<IpNet>, plan: &mut PlanePlan) {
        let mut remove = remove.into_iter();
        let mut add = add.into_iter().peekable();
        loop {
            let more: Vec<Entry> = add.by_ref().take(ENTRIES_PER_CALL).collect();
            let room = match add.peek() {
                Some(_) => 0,
                None => ENTRIES_PER_CALL - more.len(),
            };
            let less: Vec<IpNet> = remove.by_ref().take(room).collect();
            if more.is_empty() && less.is_empty() {
                return;
            }
            plan.steps.push(self.modify(more, less));
        }
    }

    fn modify(&self, add: Vec<Entry>, remove: Vec<IpNet>) -> Step {
        Step::ModifyEntries {
            family: self.family,
            add,
            remove,
        }
    }

    /// `MaxEntries` for this many entries: with headroom, as far as the quota of each table allows
    /// that has or can have the route. `None` if a table has no room, which is held.
    fn size_for(&self, entries: usize, now: Option<u32>, plan: &mut PlanePlan) -> Option<u32> {
        let least = u32::try_from(entries).unwrap_or(u32::MAX);
        if least > LARGEST_LIST {
            plan.holds.push(format!(
                "{}: {least} entries are more than the {LARGEST_LIST} of a prefix list: select fewer \
                 regions or services, or write [vpc_plane] mode = \"routes\"",
                self.family
            ));
            return None;
        }
        let mut size = self.goal.room_for(entries).min(LARGEST_LIST);
        for table in &self.observed.tables {
            let usage = Usage::of(table, self.family, self.observed);
            let room = usage.room(self.goal.quota);
            if room >= least {
                size = size.min(room);
            } else if now.is_some() && self.has_route(table) {
                plan.holds.push(self.over_quota(table, &usage, least));
                return None;
            }
        }
        Some(size.max(least))
    }

    fn over_quota(&self, table: &RouteTable, usage: &Usage, ours: u32) -> String {
        format!(
            "route table {} has no room for the list: {} {}, above the quota of {}; raise the quota \
             (Service Quotas, \"Routes per route table\") and [vpc_plane] quota, or select fewer regions",
            table.id,
            self.family,
            usage.arithmetic(ours),
            self.goal.quota
        )
    }

    fn has_route(&self, table: &RouteTable) -> bool {
        let ours = self.observed.lists.get(self.family).ours();
        ours.is_some_and(|ours| {
            let destination = RouteDestination::List(ours.list.id.clone());
            table.route_to(&destination).is_some()
        })
    }

    /// Leads the list, of this size, to the target in each table.
    fn lead(&self, size: u32, plan: &mut PlanePlan) {
        let ours = self.observed.lists.get(self.family).ours();
        let destination = ours.map(|ours| RouteDestination::List(ours.list.id.clone()));
        for table in &self.observed.tables {
            let rivals = lint::list_rivals(table, self.family, self.wanted, self.observed);
            let beaten = lint::static_rivals(table, self.wanted);
            if let Some(reason) = beaten {
                let advice = "remove them, or name their prefixes in [select] exclude";
                let missing = Degradation::new(Part::Bypass, self.family, reason);
                plan.degraded.push(missing.with_advice(advice));
            }
            let present = destination.as_ref().and_then(|it| table.route_to(it));
            match (present, rivals) {
                (None, Some(rival)) => plan.conflicts.push(format!(
                    "{rival}: our route is not added; remove the other route, or leave this table \
                     out of [vpc_plane] tables"
                )),
                (Some(_), Some(rival)) => {
                    let missing = Degradation::new(Part::Bypass, self.family, rival);
                    plan.degraded
                        .push(missing.with_advice("remove one of the two routes"));
                }
                (None, None) => self.add_route(table, size, plan),
                (Some(_), None) => {}
            }
            let Some(route) = present else {
                continue;
            };
            if !route.leads_to(&self.wanted.target) {
                plan.steps.push(Step::ReplaceRoute {
                    family: self.family,
                    table: table.id.clone(),
                    prefix: None,
                    from: route.target_name().to_owned(),
                    target: self.wanted.target.clone(),
                });
            } else if route.state == RouteState::Blackhole {
                plan.degraded.push(lint::blackhole(
                    table,
                    &"the list",
                    self.family,
                    self.wanted,
                ));
            }
        }
    }

    fn add_route(&self, table: &RouteTable, size: u32, plan: &mut PlanePlan) {
        let usage = Usage::of(table, self.family, self.observed);
        if usage.room(self.goal.quota) < size {
            plan.holds.push(self.over_quota(table, &usage, size));
            return;
        }
        plan.steps.push(Step::CreateRoute {
            family: self.family,
            table: table.id.clone(),
            prefix: None,
            target: self.wanted.target.clone(),
        });
    }
}
