//! The prober: a thread that probes the gateways, and decides which ones new flows take.
//!
//! The thread only decides: the worker's next pass changes the route. Then the prober ends the flows
//! that stand still on a gateway that is down.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::shared::{Probed, Shared, locked};
use crate::config::{ProbeConfig, Target, TargetHost};
use crate::health::{Answer, Change, Group, Health, Probe, Terms, Watch, WayId};
use crate::judge::Pins;
use crate::kernel::flows::end_flows;
use crate::kernel::probing::probe;
use crate::random;
use crate::types::{Family, Mark};

/// The time between two resolutions of the names of servers.
const RESOLVE_EVERY: Duration = Duration::from_secs(300);
/// Stragglers of the flows that were ended: a connection that was being opened meanwhile.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The gateways in force, each with its mark, and how to probe them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ways {
    marks: BTreeMap<WayId, Mark>,
    terms: Terms,
    servers: Vec<Target>,
}

impl Ways {
    /// The ways to probe; `None` where probes would change nothing: a family with one gateway keeps it
    /// whatever the probes say.
    pub fn of(pins: &Pins, probe: &ProbeConfig) -> Option<Ways> {
        if !probe.enabled || probe.targets.is_empty() {
            return None;
        }
        let mut marks = BTreeMap::new();
        for family in Family::ALL {
            let gateways = pins.gateways(family);
            if gateways.len() > 1 {
                marks.extend(
                    gateways
                        .into_iter()
                        .map(|(gateway, mark)| (WayId::Gateway(gateway), mark)),
                );
            }
        }
        (!marks.is_empty()).then(|| Ways {
            marks,
            terms: Terms::from(probe),
            servers: probe.targets.clone(),
        })
    }
}

enum Order {
    Watch(Option<Box<Ways>>),
    /// A pass has put the routes for this health in force.
    InForce(Health),
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

    /// Probes these ways from now on; `None` for none.
    pub fn watch(&mut self, ways: Option<Ways>) {
        if ways != self.ways {
            self.ways.clone_from(&ways);
            // The thread ends only with the prober.
            let _ = self.orders.send(Order::Watch(ways.map(Box::new)));
        }
    }

    /// Says which health the routes in force are for.
    pub fn in_force(&self, health: Health) {
        let _ = self.orders.send(Order::InForce(health));
    }
}

async fn run(mut orders: UnboundedReceiver<Order>, shared: &Shared) {
    let mut idle = None;
    loop {
        let order = match idle.take() {
            Some(order) => order,
            None => match orders.recv().await {
                Some(order) => order,
                None => return,
            },
        };
        let Order::Watch(Some(ways)) = order else {
            share(shared, &Health::default(), None);
            continue;
        };
        match Probing::new(*ways, shared).run(&mut orders).await {
            Some(order) => idle = Some(order),
            None => return,
        }
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
    shared: &'a Shared,
    ways: Ways,
    watch: Watch,
    start: Instant,
    servers: BTreeMap<Family, Vec<SocketAddr>>,
    resolved: Instant,
    /// Ways whose flows are to be ended once a route leads past them.
    stuck: Vec<WayId>,
    answer: UnboundedSender<(Probe, Answer)>,
    answers: UnboundedReceiver<(Probe, Answer)>,
}

impl<'a> Probing<'a> {
    fn new(ways: Ways, shared: &'a Shared) -> Self {
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
        Probing {
            shared,
            ways,
            watch,
            start,
            servers: BTreeMap::new(),
            resolved: start,
            stuck: Vec::new(),
            answer,
            answers,
        }
    }

    /// Runs until the ways are others; returns that order, or `None` at the end of the agent.
    async fn run(mut self, orders: &mut UnboundedReceiver<Order>) -> Option<Order> {
        self.resolve().await;
        loop {
            let now = self.start.elapsed();
            for probe in self.watch.due(now) {
                self.send(probe);
            }
            self.decide(now);
            let wake = self.start + self.watch.wake(now).max(now + Duration::from_millis(5));
            let wake = wake.min(self.resolved + RESOLVE_EVERY);
            tokio::select! {
                order = orders.recv() => match order? {
                    Order::InForce(health) => self.end_stuck(&health).await,
                    Order::Watch(Some(ways)) => self.change(*ways).await,
                    none => return Some(none),
                },
                Some((probe, answer)) = self.answers.recv() => {
                    self.watch.answer(probe, answer, self.start.elapsed());
                }
                () = tokio::time::sleep_until(wake.into()) => {}
            }
            if self.resolved.elapsed() >= RESOLVE_EVERY {
                self.resolve().await;
            }
        }
    }

    async fn change(&mut self, ways: Ways) {
        self.ways = ways;
        self.resolve().await;
    }

    /// Finds the addresses of the servers. A name without an answer keeps its former addresses: an
    /// outage of name resolution is no outage of a gateway.
    async fn resolve(&mut self) {
        self.resolved = Instant::now();
        let mut found: BTreeMap<Family, Vec<SocketAddr>> = BTreeMap::new();
        for target in &self.ways.servers {
            match &target.host {
                TargetHost::Address(address) => {
                    let server = SocketAddr::new(*address, target.port);
                    found.entry(Family::of(*address)).or_default().push(server);
                }
                TargetHost::Name(name) => {
                    let asked = tokio::net::lookup_host((name.as_str(), target.port));
                    let answer = tokio::time::timeout(self.ways.terms.timeout * 5, asked).await;
                    match answer {
                        Ok(Ok(servers)) => {
                            let mut known = Vec::new();
                            for server in servers {
                                let family = Family::of(server.ip());
                                if !known.contains(&family) {
                                    known.push(family);
                                    found.entry(family).or_default().push(server);
                                }
                            }
                        }
                        _ => tracing::debug!("no address of the probed server {target}"),
                    }
                }
            }
        }
        for (family, servers) in found {
            self.servers.insert(family, servers);
        }
        let counts = self.servers.iter();
        let counts = counts.map(|(family, servers)| (Group::Egress(*family), servers.len()));
        let now = self.start.elapsed();
        self.watch.change(
            self.ways.terms,
            self.ways.marks.keys().copied(),
            counts.collect(),
            now,
        );
    }

    fn send(&self, asked: Probe) {
        let (Group::Egress(family) | Group::Bypass(family)) = asked.group;
        let server = self
            .servers
            .get(&family)
            .and_then(|it| it.get(asked.target));
        let mark = self.ways.marks.get(&asked.way);
        let answers = self.answer.clone();
        let (Some(server), Some(mark)) = (server.copied(), mark.copied()) else {
            let _ = answers.send((asked, Answer::Untried));
            return;
        };
        let limit = self.ways.terms.timeout;
        tokio::spawn(async move {
            let answer = probe(server, mark, limit).await;
            // A failure means that the ways are others.
            let _ = answers.send((asked, answer));
        });
    }

    fn decide(&mut self, now: Duration) {
        let decision = self.watch.decide(now);
        for change in &decision.changes {
            log(change);
        }
        self.stuck.extend(decision.end);
        let probed = Probed {
            start: self.start,
            ways: self.watch.status().collect(),
        };
        share(self.shared, &decision.health, Some(probed));
    }

    /// Ends the flows of ways that no route uses for new flows any more.
    async fn end_stuck(&mut self, in_force: &Health) {
        let (left, stuck): (Vec<_>, Vec<_>) = std::mem::take(&mut self.stuck)
            .into_iter()
            .partition(|way| in_force.is_in_use(*way));
        self.stuck = left;
        for round in 0..2 {
            for way in &stuck {
                let Some(mark) = self.ways.marks.get(way).copied() else {
                    continue;
                };
                match tokio::task::spawn_blocking(move || end_flows(mark)).await {
                    Ok(Ok(ended)) => tracing::warn!("{way} is down: {ended}"),
                    Ok(Err(error)) => {
                        tracing::warn!("{way} is down, and its flows stand still: {error}")
                    }
                    Err(error) => tracing::warn!("{way} is down: {error}"),
                }
            }
            if stuck.is_empty() || round == 1 {
                break;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
}

fn log(change: &Change) {
    let Change { way, in_use, why } = change;
    if *in_use {
        tracing::info!("{way} is in use again: {why}");
    } else {
        tracing::warn!("{way} is down: {why}; new flows take another way");
    }
}
