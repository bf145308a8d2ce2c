//! The prober: a thread that probes the gateways, and decides which ones new flows take.
//!
//! The thread only decides: the worker's next pass changes the route. Then the prober ends the flows
//! that stand still on a gateway that is down. The counters of pinned flows show which gateways answer, and
//! which are silent: those are probed at once.

mod counted;
mod ending;
mod segments;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use self::counted::Counted;
use self::ending::Endings;
use self::segments::Sent;
use super::alarm::Alarm;
use super::shared::{Probed, Shared, locked};
use super::ways::Ways;
use crate::config::{Target, TargetHost};
use crate::health::{Answer, Change, Group, Health, Probe, Watch, WayId};
use crate::journal::WayChange;
use crate::kernel::probing::probe;
use crate::random;
use crate::types::Family;

/// The time between two resolutions of the names of servers.
const RESOLVE_EVERY: Duration = Duration::from_secs(300);
/// The longest wait for an answer about a name.
const RESOLVE_WITHIN: Duration = Duration::from_secs(10);
/// The most probes under way, each with a socket: the usual limit of a process is 1024.
const MOST_PENDING: usize = 512;

enum Order {
    /// Ways to probe, and those of them that an earlier process has found down.
    Watch(Option<Box<Ways>>, Health),
    /// A pass has put the routes for this health in force.
    InForce(Health),
    /// A pass has changed the bypass path of a family.
    Changed(Family),
}

/// The loop's side of the prober.
pub(super) struct Prober {
    orders: UnboundedSender<Order>,
    ways: Option<Ways>,
}

impl Prober {
    /// Starts the thread, which ends with the value.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(shared: Arc<Shared>) -> std::io::Result<Prober> {
        let (orders, waiting) = unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name("prober".to_owned())
            .spawn(move || runtime.block_on(run(waiting, &shared)))?;
        Ok(Prober { orders, ways: None })
    }

    /// Probes these ways from now on; `None` for none. The first ways to probe are in use as in `health`.
    pub fn watch(&mut self, ways: Option<Ways>, health: &Health) {
        if ways != self.ways {
            self.ways.clone_from(&ways);
            let order = Order::Watch(ways.map(Box::new), health.clone());
            // The thread ends only with the prober.
            let _ = self.orders.send(order);
        }
    }

    /// Says which health the routes in force are for.
    pub fn in_force(&self, health: Health) {
        let _ = self.orders.send(Order::InForce(health));
    }

    /// Says that a pass has changed the bypass path of a family: the prober tests it at once.
    pub fn changed(&self, family: Family) {
        let _ = self.orders.send(Order::Changed(family));
    }
}

async fn run(mut orders: UnboundedReceiver<Order>, shared: &Arc<Shared>) {
    let mut next = orders.recv().await;
    while let Some(order) = next {
        next = match order {
            Order::Watch(Some(ways), health) => {
                let mut probing = Probing::new(*ways, shared);
                probing.take_over(&health);
                probing.run(&mut orders).await
            }
            Order::Watch(None, _) | Order::InForce(_) | Order::Changed(_) => {
                share(shared, &Health::default(), None);
                orders.recv().await
            }
        };
    }
}

/// Publishes the health, and asks for a pass if it has changed.
fn share(shared: &Shared, health: &Health, probed: Option<Probed>) {
    *locked(&shared.ways) = probed;
    let mut known = locked(&shared.health);
    if *known == *health {
        return;
    }
    known.clone_from(health);
    drop(known);
    locked(&shared.noticed).health_changed = true;
    shared.wake.notify_one();
}

/// Probes under way.
struct Probing<'a> {
    shared: &'a Arc<Shared>,
    ways: Ways,
    watch: Watch,
    start: Instant,
    servers: BTreeMap<Group, Vec<SocketAddr>>,
    /// The addresses of servers with a name, as of the last answer.
    addresses: BTreeMap<Target, Vec<SocketAddr>>,
    resolved: Instant,
    resolution: UnboundedSender<(Target, Vec<SocketAddr>)>,
    resolutions: UnboundedReceiver<(Target, Vec<SocketAddr>)>,
    counted: Counted,
    sent: Sent,
    /// The health that the routes in force are for.
    in_force: Health,
    /// Flows to be ended.
    endings: Endings,
    /// Probes without an answer yet.
    pending: usize,
    answer: UnboundedSender<(Probe, Answer)>,
    answers: UnboundedReceiver<(Probe, Answer)>,
}

impl<'a> Probing<'a> {
    fn new(ways: Ways, shared: &'a Arc<Shared>) -> Self {
        let start = Instant::now();
        let seed = (random::fraction() * u64::MAX as f64) as u64;
        let watch = Watch::new(
            ways.terms,
            ways.marks.keys().copied(),
            BTreeMap::new(),
            seed,
            Duration::ZERO,
        );
        let (answer, answers) = unbounded_channel();
        let (resolution, resolutions) = unbounded_channel();
        Probing {
            shared,
            ways,
            watch,
            start,
            servers: BTreeMap::new(),
            addresses: BTreeMap::new(),
            resolved: start,
            resolution,
            resolutions,
            counted: Counted::new(),
            sent: Sent::default(),
            in_force: Health::default(),
            endings: Endings::default(),
            pending: 0,
            answer,
            answers,
        }
    }

    /// Takes over the verdicts about bypass paths. Those about gateways come from the first probes: until
    /// then each gateway is in use.
    fn take_over(&mut self, health: &Health) {
        let bypass = |way: &WayId| matches!(way, WayId::Bypass(_));
        for way in health.out().filter(bypass) {
            self.watch.take_over(way, Duration::ZERO);
        }
        self.in_force = health.clone();
    }

    /// Runs until the ways are others; returns that order, or `None` at the end of the agent.
    async fn run(mut self, orders: &mut UnboundedReceiver<Order>) -> Option<Order> {
        self.serve();
        self.resolve();
        let alarm = Alarm::new();
        loop {
            let now = self.start.elapsed();
            self.count(now);
            for probe in self.watch.due(now) {
                self.send(probe);
            }
            self.decide(now);
            self.end_stuck();
            let wake = self.start + self.watch.wake(now).max(now + Duration::from_millis(5));
            let wake = wake.min(self.resolved + RESOLVE_EVERY);
            let reading = self.reading_due(now).map(|due| self.start + due);
            let wake = reading.map_or(wake, |due| wake.min(due));
            let due = self.endings.due(&self.in_force);
            let wake = due.map_or(wake, |due| wake.min(due));
            tokio::select! {
                order = orders.recv() => match order? {
                    Order::InForce(health) => self.in_force = health,
                    Order::Changed(family) => {
                        let now = self.start.elapsed();
                        self.watch.settle(WayId::Bypass(family), now + self.ways.settle, now);
                    }
                    Order::Watch(Some(ways), _) => {
                        self.count_anew(&ways);
                        self.ways = *ways;
                        self.serve();
                        self.resolve();
                    }
                    none => return Some(none),
                },
                Some((probe, answer)) = self.answers.recv() => {
                    self.pending = self.pending.saturating_sub(1);
                    self.watch.answer(probe, answer, self.start.elapsed());
                }
                Some((target, addresses)) = self.resolutions.recv() => {
                    if self.addresses.insert(target, addresses.clone()) != Some(addresses) {
                        self.serve();
                    }
                }
                () = self.endings.ended() => {}
                () = alarm.at(wake) => {}
            }
            if self.resolved.elapsed() >= RESOLVE_EVERY {
                self.resolve();
            }
        }
    }

    /// Asks for the addresses of the servers with a name. A name without an answer keeps its former
    /// addresses: an outage of name resolution is no outage of a gateway.
    fn resolve(&mut self) {
        self.resolved = Instant::now();
        let targets: BTreeSet<&Target> = self.ways.targets.values().flatten().collect();
        for target in targets {
            if let TargetHost::Name(name) = &target.host {
                let (name, target) = (name.clone(), target.clone());
                let resolution = self.resolution.clone();
                tokio::spawn(async move {
                    let asked = tokio::net::lookup_host((name.as_str(), target.port));
                    match tokio::time::timeout(RESOLVE_WITHIN, asked).await {
                        Ok(Ok(addresses)) => {
                            // A failure means that the ways are others.
                            let _ = resolution.send((target, one_of_each_family(addresses)));
                        }
                        _ => tracing::debug!("no address of the probed server {target}"),
                    }
                });
            }
        }
    }

    /// Probes the servers of the settings with the addresses that are known.
    fn serve(&mut self) {
        let wanted = &self.ways.targets;
        self.addresses
            .retain(|target, _| wanted.values().any(|targets| targets.contains(target)));
        self.servers.clear();
        for (group, targets) in wanted {
            let servers = targets.iter().flat_map(|target| match &target.host {
                TargetHost::Address(address) => vec![SocketAddr::new(*address, target.port)],
                TargetHost::Name(_) => self.addresses.get(target).cloned().unwrap_or_default(),
            });
            let family = group.family();
            let servers = servers.filter(|server| Family::of(server.ip()) == family);
            self.servers.insert(*group, servers.collect());
        }
        let counts = self.servers.iter();
        let counts = counts.map(|(group, servers)| (*group, servers.len()));
        let ways = self.ways.marks.keys().copied();
        let now = self.start.elapsed();
        self.watch
            .change(self.ways.terms, ways, counts.collect(), now);
    }

    fn send(&mut self, asked: Probe) {
        let servers = self.servers.get(&asked.group);
        let server = servers.and_then(|it| it.get(asked.target));
        let marks = self.ways.marks.get(&asked.way).copied();
        let answers = self.answer.clone();
        let room = self.pending < MOST_PENDING;
        self.pending += 1;
        let (Some(server), Some(marks), true) = (server.copied(), marks, room) else {
            let _ = answers.send((asked, Answer::Untried));
            return;
        };
        let limit = self.ways.terms.timeout;
        tokio::spawn(async move {
            let answer = probe(server, marks.source, marks.packet, limit).await;
            // A failure means that the ways are others.
            let _ = answers.send((asked, answer));
        });
    }

    fn decide(&mut self, now: Duration) {
        let decision = self.watch.decide(now);
        for change in &decision.changes {
            log(change);
            let word = if change.in_use { "back" } else { "down" };
            let record = WayChange::now(change.way, word, change.why);
            locked(&self.shared.way_changes).push(record);
        }
        // A way that is back keeps its flows.
        let health = &decision.health;
        self.endings.decided(health, &decision.end);
        let ways = self.watch.status();
        let probed = Probed {
            start: self.start,
            ways: ways.filter(|it| self.ways.judges(it.way)).collect(),
            traffic: self.traffic(),
        };
        share(self.shared, &decision.health, Some(probed));
    }
}

/// A server with several addresses counts once in each family.
fn one_of_each_family(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut found: Vec<SocketAddr> = Vec::new();
    for address in addresses {
        if !found
            .iter()
            .any(|known| known.is_ipv4() == address.is_ipv4())
        {
            found.push(address);
        }
    }
    found
}

fn log(change: &Change) {
    let Change { way, in_use, why } = change;
    if *in_use {
        tracing::info!("{way} is in use again: {why}");
    } else {
        tracing::warn!("{way} is down: {why}; new flows take another way");
    }
}
