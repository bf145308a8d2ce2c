//! The watcher: a thread that listens to the kernel and restores deleted objects at once.
//!
//! A repair uses the plan and apply functions of a pass, restricted to the objects that a
//! notification reports as deleted; a pass then verifies everything. A burst of deletions is left
//! to that pass: restoring objects in the middle of a flush would be useless.

mod burst;
mod culprit;
mod foreign;
mod gateway;
mod held;
mod legacy;
mod poll;
mod reaction;
mod repair;

pub(super) use foreign::poll_foreign;
pub(super) use gateway::poll_gateways;
pub(super) use legacy::poll_own;
pub(super) use poll::Poll;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use self::burst::FlushDetector;
use self::culprit::Culprits;
use self::held::Held;
use self::reaction::{
    Reaction, Trigger, connected_changed, firewall_of, main_route_changed, policy_gone, route_gone,
    rule_came, rule_gone,
};
use self::repair::Gone;
use super::repair_log::may_wait;
use super::shared::{Shared, locked};
use crate::config::Role;
use crate::kernel::Kernel;
use crate::kernel::events::{Change, Event, Heard, ListenError, Listener};
use crate::kernel::firewall;
use crate::objects::Route;
use crate::plan::ObjectKey;
use crate::reconcile::InForce;
use crate::types::{IfIndex, TableId};

/// Datagrams per reading, few enough for a prompt repair of the first deletion.
const READING: usize = 128;

/// A link as last reported: name, alternative names and flags.
type SeenLink = (String, Vec<String>, u32);

pub(super) struct Watcher {
    shared: Arc<Shared>,
    listener: Listener,
    buffer: usize,
    state_dir: PathBuf,
    /// Our tables, those of earlier numbers included.
    tables: Vec<TableId>,
    links: BTreeMap<IfIndex, SeenLink>,
    addresses: BTreeMap<(IfIndex, IpAddr), u32>,
    /// The nf_tables transaction being reported touched a table of the firewall in use.
    firewall_touched: bool,
    /// The transaction touched any table: a foreign chain may stop forwarded packets, or a host's own.
    chains_touched: bool,
    flushes: FlushDetector,
    held: Option<Held>,
    restored_at: Option<Instant>,
    culprits: Culprits,
}

/// Starts the watcher's thread, which listens from the moment this function returns.
///
/// # Errors
/// The kernel's notifications are not available.
pub(super) fn start(
    shared: Arc<Shared>,
    tables: &[TableId],
    buffer: usize,
    state_dir: PathBuf,
    role: Role,
) -> Result<(), ListenError> {
    let mut listener = Listener::open(buffer)?;
    if role == Role::Nat {
        listener.hear_policies(buffer);
    }
    let mut watcher = Watcher {
        shared,
        listener,
        buffer,
        state_dir,
        tables: tables.to_vec(),
        links: BTreeMap::new(),
        addresses: BTreeMap::new(),
        firewall_touched: false,
        chains_touched: false,
        flushes: FlushDetector::default(),
        held: None,
        restored_at: None,
        culprits: Culprits::default(),
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
                tracing::warn!(
                    "no immediate repairs, the next pass repairs drift instead: {error}"
                );
                None
            }
        };
        loop {
            let heard = self
                .listener
                .wait(self.held.as_ref().map(Held::due))
                .and_then(|()| self.listener.read(READING));
            match heard {
                Ok(heard) => {
                    self.hear(heard, kernel.as_mut());
                    self.restore_held(kernel.as_mut());
                }
                Err(error) => {
                    locked(&self.shared.noticed).deaf = Some(error.to_string());
                    self.shared.wake.notify_one();
                    return;
                }
            }
        }
    }

    /// Restricts the notifications to changes of our tables by other programs.
    fn filter(&mut self) {
        // Without the filter more notifications arrive, which `react` ignores.
        if let Err(error) = self.listener.filter(&self.tables) {
            tracing::debug!("{error}");
        }
    }

    fn hear(&mut self, heard: Heard, kernel: Option<&mut Kernel>) {
        let now = Instant::now();
        let in_force = self.shared.in_force();
        if let Some(in_force) = &in_force {
            self.tables = in_force.ownership.tables();
            if !in_force.goal.policies.is_empty() {
                // After a reload with another role.
                self.listener.hear_policies(self.buffer);
            }
        }
        self.filter();
        let mut gone = Gone::default();
        let mut wakes = heard.lost;
        if heard.lost {
            let mut noticed = locked(&self.shared.noticed);
            noticed.lost += 1;
            // A flood continues for a while, as in a flush of 16,000 routes. A pass in the middle
            // would see a part of the damage only, and the rest would wait for its rest to end.
            noticed.repaired_at = Some(now);
            noticed.cause(|| "lost notifications".to_owned());
        }
        for event in heard.events {
            let reaction = self.react(event, in_force.as_deref(), &mut gone);
            wakes |= self.note(reaction, now);
        }
        if !gone.is_empty() {
            wakes = true;
            let flush = self.flushes.is_flush(gone.len(), now);
            let left = match (&in_force, kernel) {
                (Some(in_force), Some(kernel)) => {
                    // In a flush too, the egress path is restored at once.
                    let postponed = flush && gone.postpone(&in_force.ownership);
                    let passes = self.shared.passes();
                    let limiter = locked(&self.shared.limiter);
                    let ownership = &in_force.ownership;
                    Held::take(&mut self.held, &mut gone, &limiter, ownership, passes, now);
                    drop(limiter);
                    let left = !gone.is_empty() && self.restore(in_force, kernel, gone, now);
                    left || postponed
                }
                _ => true,
            };
            if left {
                locked(&self.shared.noticed).repaired_at = Some(now);
            }
        }
        if wakes {
            self.shared.wake.notify_one();
        }
    }

    /// Restores the held routes after their quiet time.
    fn restore_held(&mut self, kernel: Option<&mut Kernel>) {
        let now = Instant::now();
        let Some(held) = self.held.take_if(|held| held.due() <= now) else {
            return;
        };
        let left = match (
            held.release(self.shared.passes()),
            self.shared.in_force(),
            kernel,
        ) {
            (Some(gone), Some(in_force), Some(kernel)) => {
                self.restore(&in_force, kernel, gone, now)
            }
            _ => true,
        };
        if left {
            locked(&self.shared.noticed).repaired_at = Some(now);
        }
        self.shared.wake.notify_one();
    }

    /// The reaction to one event; adds a deleted object of ours to `gone`.
    fn react(&mut self, event: Event, in_force: Option<&InForce>, gone: &mut Gone) -> Reaction {
        let port = event.port;
        match event.change {
            Change::RouteGone(route) => route_gone(route, port, in_force, gone),
            Change::RouteCame(route) => self.route_came(route, in_force),
            Change::RuleGone(rule) => rule_gone(rule, port, in_force, gone),
            Change::RuleCame(rule) => rule_came(&rule, in_force),
            Change::MainDefault(family) => {
                Reaction::PathChanged(Trigger::Text(format!("the {family} default route changed")))
            }
            Change::MainRoute(dst) => main_route_changed(dst, in_force),
            Change::NexthopObject => match in_force.map(|known| known.facts.defaults_use_objects())
            {
                Some(true) => {
                    Reaction::PathChanged(Trigger::Text("a nexthop object changed".into()))
                }
                _ => Reaction::Nothing,
            },
            Change::MainConnected(network) => connected_changed(network, in_force),
            Change::Sysctl {
                family,
                host_wide: true,
            } => Reaction::Urgent(Trigger::Text(format!("a {family} sysctl changed"))),
            Change::Sysctl { family, .. } => Reaction::Pass(Trigger::Text(format!(
                "a {family} sysctl of a link changed"
            ))),
            Change::Link {
                index,
                name,
                altnames,
                flags,
            } => self.link_changed(index, (name, altnames, flags)),
            Change::LinkGone(index) => {
                let name = match self.links.remove(&index) {
                    Some((name, ..)) => name,
                    None => format!("{index}"),
                };
                self.addresses.retain(|(link, _), _| *link != index);
                Reaction::LinkLost(Trigger::Text(format!("link {name} was deleted")))
            }
            Change::Address(index, address, flags) => {
                match self.addresses.insert((index, address), flags) {
                    Some(before) if before == flags => Reaction::Nothing,
                    _ => {
                        Reaction::PathChanged(Trigger::Text(format!("address {address} was added")))
                    }
                }
            }
            Change::AddressGone(index, address) => {
                self.addresses.remove(&(index, address));
                Reaction::LinkLost(Trigger::Text(format!("address {address} was deleted")))
            }
            Change::PolicyGone(policy) => policy_gone(policy, in_force),
            Change::FirewallTable { family, table } => {
                self.firewall_touched |= is_our_firewall(in_force, family, &table);
                self.chains_touched |= in_force.is_some();
                Reaction::Nothing
            }
            Change::FirewallDone { program } => self.firewall_changed(&program, in_force),
        }
    }

    /// Notes a reaction for the agent's loop; returns true if the loop must wake.
    fn note(&self, reaction: Reaction, now: Instant) -> bool {
        let mut noticed = locked(&self.shared.noticed);
        let cause = match reaction {
            Reaction::Nothing => return false,
            Reaction::Repair(cause) => cause,
            Reaction::AfterBurst(cause) => {
                noticed.repaired_at = Some(now);
                cause
            }
            Reaction::Pass(cause) => {
                noticed.event = Some(now);
                cause
            }
            Reaction::Urgent(cause) => {
                noticed.urgent = Some(now);
                cause
            }
            Reaction::LinkLost(cause) => {
                noticed.event = Some(now);
                noticed.link_changed = Some(now);
                cause
            }
            Reaction::PathChanged(cause) => {
                noticed.event = Some(now);
                noticed.link_changed = Some(now);
                noticed.way_changed = true;
                cause
            }
        };
        noticed.cause(|| cause.to_string());
        true
    }

    fn link_changed(&mut self, index: IfIndex, link: SeenLink) -> Reaction {
        if self.links.get(&index) == Some(&link) {
            return Reaction::Nothing;
        }
        let cause = Trigger::Text(format!("link {} changed", link.0));
        self.links.insert(index, link);
        Reaction::PathChanged(cause)
    }

    fn firewall_changed(&mut self, program: &str, in_force: Option<&InForce>) -> Reaction {
        let foreign = std::mem::take(&mut self.chains_touched);
        if !std::mem::take(&mut self.firewall_touched) {
            if foreign {
                let text = format!("{program} changed foreign firewall rules");
                return Reaction::Pass(Trigger::Text(text));
            }
            return Reaction::Nothing;
        }
        if let Some(kind) = in_force.and_then(firewall_of) {
            let key = ObjectKey::Firewall(kind);
            self.shared.blame(key, format!("program {program}"));
        }
        Reaction::Urgent(Trigger::Text(format!("{program} changed the firewall")))
    }

    fn route_came(&self, route: Route, in_force: Option<&InForce>) -> Reaction {
        let key = ObjectKey::Route(route.key);
        let Some(in_force) = in_force else {
            return Reaction::AfterBurst(Trigger::Added(key));
        };
        if !in_force.ownership.tables().contains(&route.key.table)
            || in_force.goal.routes.binary_search(&route).is_ok()
        {
            return Reaction::Nothing;
        }
        let culprit = format!("a program with route protocol {}", route.protocol);
        let cause = Trigger::Text(format!("{key} was added by {culprit}"));
        let waits = may_wait(&key, &in_force.ownership);
        self.shared.blame(key, culprit);
        if waits {
            Reaction::Pass(cause)
        } else {
            Reaction::Urgent(cause)
        }
    }
}

/// True if a change of this nf_tables table may concern our rules.
fn is_our_firewall(in_force: Option<&InForce>, family: u8, table: &str) -> bool {
    match in_force.map(firewall_of) {
        Some(Some(kind)) => firewall::table_is_ours(kind, family, table),
        Some(None) => false,
        None => true,
    }
}
