//! The watcher: a thread that hears the kernel and puts back at once what has gone.
//!
//! It plans and applies as a pass does, with the very same functions, but for the objects alone
//! that a notification says have gone; a pass then looks at the whole. A burst of deletions is
//! left to that pass: putting back what somebody is about to flush again helps nobody.

mod burst;
mod repair;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use self::burst::Burst;
use self::repair::Gone;
use super::shared::{Shared, locked};
use crate::firewall::BackendKind;
use crate::kernel::Kernel;
use crate::kernel::events::{Change, Event, Heard, ListenError, Listener};
use crate::kernel::firewall;
use crate::objects::{Route, Rule};
use crate::plan::{FirewallGoal, ObjectKey};
use crate::reconcile::InForce;
use crate::types::{IfIndex, TableId};

/// Datagrams of one reading: small enough that an answer to the first isn't held up.
const READING: usize = 128;
/// The watcher's state.
pub(super) struct Watcher {
    shared: Arc<Shared>,
    listener: Listener,
    state_dir: PathBuf,
    /// Ours, those of earlier numbers included.
    tables: Vec<TableId>,
    /// Name, alternative names and flags.
    links: BTreeMap<IfIndex, (String, Vec<String>, u32)>,
    addresses: BTreeMap<(IfIndex, IpAddr), u32>,
    /// A table of the firewall in use was touched by the transaction that is being told.
    firewall_touched: bool,
    burst: Burst,
}

/// Starts the watcher's thread. It listens from the moment this returns.
///
/// # Errors
/// The kernel can't be listened to.
pub(super) fn start(
    shared: Arc<Shared>,
    tables: &[TableId],
    buffer: usize,
    state_dir: PathBuf,
) -> Result<(), ListenError> {
    let listener = Listener::open(buffer)?;
    let mut watcher = Watcher {
        shared,
        listener,
        state_dir,
        tables: tables.to_vec(),
        links: BTreeMap::new(),
        addresses: BTreeMap::new(),
        firewall_touched: false,
        burst: Burst::default(),
    };
    watcher.filter();
    std::thread::Builder::new()
        .name("watcher".to_owned())
        .spawn(move || watcher.run())
        .map(|_thread| ())
        .map_err(ListenError::no_thread)
}

impl Watcher {
    fn run(mut self) {
        let mut kernel = match Kernel::open() {
            Ok(kernel) => Some(kernel),
            Err(error) => {
                tracing::warn!("single repairs are left to passes: {error}");
                None
            }
        };
        loop {
            let heard = self
                .listener
                .wait()
                .and_then(|()| self.listener.read(READING));
            match heard {
                Ok(heard) => self.hear(heard, kernel.as_mut()),
                Err(error) => {
                    locked(&self.shared.noticed).deaf = Some(error.to_string());
                    self.shared.wake.notify_one();
                    return;
                }
            }
        }
    }

    /// Only our tables are of interest, and only what others do there.
    fn filter(&mut self) {
        // More is heard than is needed then: it is left out below.
        if let Err(error) = self.listener.filter(&self.tables) {
            tracing::debug!("{error}");
        }
    }

    fn hear(&mut self, heard: Heard, kernel: Option<&mut Kernel>) {
        let now = Instant::now();
        let in_force = self.shared.in_force();
        if let Some(in_force) = &in_force {
            self.tables = in_force.ownership.tables();
        }
        self.filter();
        let mut gone = Gone::default();
        let mut wakes = heard.lost;
        if heard.lost {
            let mut noticed = locked(&self.shared.noticed);
            noticed.lost += 1;
            // A flood goes on, as when 16,000 routes are flushed: a pass in the middle of it would
            // see a part of what it does, and the rest would wait until that pass has rested.
            noticed.mended_at = Some(now);
            noticed.cause(|| "lost notifications".to_owned());
        }
        for event in heard.events {
            wakes |= self.take(event, in_force.as_deref(), &mut gone, now);
        }
        if !gone.is_empty() {
            wakes = true;
            let left = match (&in_force, kernel) {
                (Some(in_force), Some(kernel)) if !self.burst.is_on(gone.len(), now) => {
                    self.put_back(in_force, kernel, gone, now)
                }
                _ => true,
            };
            if left {
                locked(&self.shared.noticed).mended_at = Some(now);
            }
        }
        if wakes {
            self.shared.wake.notify_one();
        }
    }

    /// Sorts one event. Whether the loop should know.
    fn take(
        &mut self,
        event: Event,
        in_force: Option<&InForce>,
        gone: &mut Gone,
        now: Instant,
    ) -> bool {
        let port = event.port;
        let verdict = match event.change {
            Change::RouteGone(route) => return self.route_gone(route, port, in_force, gone, now),
            Change::RouteCame(route) => self.route_came(route, in_force),
            Change::RuleGone(rule) => return self.rule_gone(rule, port, in_force, gone, now),
            Change::RuleCame(rule) => rule_came(&rule, in_force),
            Change::MainDefault(family) => Verdict::Way(format!("the {family} default changed")),
            Change::Link {
                index,
                name,
                altnames,
                flags,
            } => {
                let cause = format!("link {name} changed");
                let link = (name, altnames, flags);
                if self.links.get(&index) == Some(&link) {
                    Verdict::Nothing
                } else {
                    self.links.insert(index, link);
                    Verdict::Way(cause)
                }
            }
            Change::LinkGone(index) => {
                let name = match self.links.remove(&index) {
                    Some((name, ..)) => name,
                    None => format!("{index}"),
                };
                self.addresses.retain(|(link, _), _| *link != index);
                Verdict::LinkLost(format!("link {name} has gone"))
            }
            Change::Address(index, address, flags) => {
                match self.addresses.insert((index, address), flags) {
                    Some(before) if before == flags => Verdict::Nothing,
                    _ => Verdict::Way(format!("address {address} came")),
                }
            }
            Change::AddressGone(index, address) => {
                self.addresses.remove(&(index, address));
                Verdict::LinkLost(format!("address {address} has gone"))
            }
            Change::Nexthop(id) => {
                let ours = in_force.is_none_or(|in_force| {
                    let ours = &in_force.goal.nexthops;
                    ours.iter().any(|nexthop| nexthop.id == id)
                });
                match ours {
                    true => {
                        self.shared.blame(ObjectKey::Nexthop(id), name_of(port));
                        Verdict::Now(format!("nexthop {id} changed"))
                    }
                    false => Verdict::Nothing,
                }
            }
            Change::FirewallTable { family, table } => {
                self.firewall_touched |= concerns_us(in_force, family, &table);
                Verdict::Nothing
            }
            Change::FirewallDone { program } => match std::mem::take(&mut self.firewall_touched) {
                true => {
                    if let Some(kind) = in_force.and_then(firewall_of) {
                        let key = ObjectKey::Firewall(kind);
                        self.shared.blame(key, format!("program {program}"));
                    }
                    Verdict::Now(format!("{program} changed the firewall"))
                }
                false => Verdict::Nothing,
            },
        };
        let mut noticed = locked(&self.shared.noticed);
        match verdict {
            Verdict::Nothing => return false,
            Verdict::Later(cause) => {
                noticed.mended_at = Some(now);
                noticed.cause(|| cause);
            }
            Verdict::Now(cause) => {
                noticed.event = Some(now);
                noticed.cause(|| cause);
            }
            Verdict::LinkLost(cause) => {
                noticed.event = Some(now);
                noticed.link_changed = Some(now);
                noticed.cause(|| cause);
            }
            Verdict::Way(cause) => {
                noticed.event = Some(now);
                noticed.link_changed = Some(now);
                noticed.way_changed = true;
                noticed.cause(|| cause);
            }
        }
        true
    }

    fn route_gone(
        &self,
        route: Route,
        port: u32,
        in_force: Option<&InForce>,
        gone: &mut Gone,
        now: Instant,
    ) -> bool {
        // The kernel sends what our filter, set a moment later, leaves out.
        if in_force.is_some_and(|in_force| !in_force.ownership.tables().contains(&route.key.table))
        {
            return false;
        }
        let wanted = in_force.is_some_and(|in_force| {
            in_force.ownership.owns_route(&route)
                && in_force.goal.routes.binary_search(&route).is_ok()
        });
        let key = ObjectKey::Route(route.key);
        let mut noticed = locked(&self.shared.noticed);
        noticed.cause(|| format!("{key} has gone"));
        if wanted && port == 0 {
            // The kernel itself took it, with its link or its nexthop: it can't come back alone.
            noticed.event = Some(now);
        } else if wanted {
            gone.routes.push(route);
            gone.ports.push((key, port));
        } else {
            noticed.mended_at = Some(now);
        }
        true
    }

    fn rule_gone(
        &self,
        rule: Rule,
        port: u32,
        in_force: Option<&InForce>,
        gone: &mut Gone,
        now: Instant,
    ) -> bool {
        if in_force.is_some_and(|in_force| !in_force.ownership.owns_rule(&rule)) {
            // Somebody else's: at most a note of the next pass changes.
            return false;
        }
        let key = ObjectKey::Rule(rule.family, rule.priority);
        let wanted = in_force.is_some_and(|in_force| in_force.goal.rules.contains(&rule));
        let mut noticed = locked(&self.shared.noticed);
        noticed.cause(|| format!("{key} has gone"));
        if wanted {
            gone.rules.push(rule);
            gone.ports.push((key, port));
        } else {
            noticed.mended_at = Some(now);
        }
        true
    }

    fn route_came(&self, route: Route, in_force: Option<&InForce>) -> Verdict {
        let Some(in_force) = in_force else {
            return Verdict::Later(format!("{} came", ObjectKey::Route(route.key)));
        };
        if !in_force.ownership.tables().contains(&route.key.table)
            || in_force.goal.routes.binary_search(&route).is_ok()
        {
            return Verdict::Nothing;
        }
        let key = ObjectKey::Route(route.key);
        let who = format!("a program with route protocol {}", route.protocol);
        let cause = format!("{key} came from {who}");
        self.shared.blame(key, who);
        Verdict::Now(cause)
    }
}

/// What an event calls for.
enum Verdict {
    Nothing,
    /// A pass when the burst is over.
    Later(String),
    /// A pass at once.
    Now(String),
    /// A pass at once; routes have gone along.
    LinkLost(String),
    /// A pass at once, and the source may be within reach again.
    Way(String),
}

fn rule_came(rule: &Rule, in_force: Option<&InForce>) -> Verdict {
    let Some(in_force) = in_force else {
        return Verdict::Later("a rule came".to_owned());
    };
    let ownership = &in_force.ownership;
    let cause = || format!("{} came", ObjectKey::Rule(rule.family, rule.priority));
    match ownership.owns_rule(rule) {
        true if in_force.goal.rules.contains(rule) => Verdict::Nothing,
        true => Verdict::Now(cause()),
        // It may take packets past ours: that is a note of a pass.
        false if ownership.is_passed_by(rule) => Verdict::Later(cause()),
        false => Verdict::Nothing,
    }
}

fn firewall_of(in_force: &InForce) -> Option<BackendKind> {
    match &in_force.goal.firewall {
        FirewallGoal::Policy { backend, .. } => Some(*backend),
        FirewallGoal::Earlier(_) => None,
    }
}

/// True if a change of this nf_tables table may concern our rules.
fn concerns_us(in_force: Option<&InForce>, family: u8, table: &str) -> bool {
    match in_force.map(firewall_of) {
        Some(Some(kind)) => firewall::table_is_ours(kind, family, table),
        Some(None) => false,
        None => true,
    }
}

/// Who stands behind a netlink port, as far as can be told: the kernel gives a process's first
/// socket the process's number, and a program may be gone by now.
fn name_of(port: u32) -> String {
    if port == 0 {
        return "the kernel".to_owned();
    }
    match std::fs::read_to_string(format!("/proc/{port}/comm")) {
        Ok(name) => format!("program {} (pid {port})", name.trim()),
        Err(_gone) => format!("netlink port {port}"),
    }
}
