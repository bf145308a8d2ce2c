//! Random histories: never without a gateway while one is well, and no change without a cause.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::world::*;
use crate::config::ProbeConfig;
use crate::health::*;

/// A way or a server changes after a pause.
#[derive(Debug, Clone)]
enum Turn {
    Gateway(u8),
    Bypass,
    Server(usize),
    /// Traffic begins or ends.
    Traffic(u8),
    /// A gateway begins or ceases to lose packets.
    Loss(u8),
}

/// Turns, of which so many of eleven or more are those of loss.
fn turn(losses: u32) -> impl Strategy<Value = (u64, Turn)> {
    let pause = prop_oneof![4 => 50_u64..2_000, 3 => 2_000_u64..15_000, 1 => 15_000_u64..90_000];
    let turn = prop_oneof![
        6 => (1_u8..=3).prop_map(Turn::Gateway),
        1 => Just(Turn::Bypass),
        2 => (0..TARGETS).prop_map(Turn::Server),
        2 => (1_u8..=3).prop_map(Turn::Traffic),
        losses => (1_u8..=3).prop_map(Turn::Loss),
    ];
    (pause, turn)
}

/// The time in which a dead gateway must be out of use while another one is well: three silent readings,
/// or the pause between two probes of a way without traffic, then the rounds.
fn patience(traffic: bool) -> Duration {
    Duration::from_millis(if traffic { 3_500 } else { 16_000 })
}

/// The same after a long outage.
const LONG_PATIENCE: Duration = Duration::from_secs(70);

/// The times since which each way has been in its present state.
#[derive(Default)]
struct Ages {
    changed: BTreeMap<WayId, Duration>,
    servers: Duration,
    deaths: BTreeMap<WayId, usize>,
    /// True once a gateway has lost packets.
    lossy: bool,
}

impl Ages {
    fn check(&self, world: &World) -> Result<(), TestCaseError> {
        let (now, truth) = (world.now, &world.truth);
        let age = |way| now - self.changed.get(&way).copied().unwrap_or_default();
        let gateways = [1, 2, 3].map(gateway);
        let mut in_use = gateways.iter().filter(|way| world.health.is_in_use(**way));
        prop_assert!(in_use.clone().count() > 0, "some gateway is in use");
        let out =
            [gateway(1), gateway(2), gateway(3), BYPASS].map(|way| !world.health.is_in_use(way));
        if out.iter().any(|out| *out) {
            prop_assert!(
                world.watch.ways.values().any(|way| way.in_use),
                "a way is out only beside another one"
            );
        }
        let quiet = now - self.servers;
        let well = |way: &WayId, time| {
            !truth.dead.contains(way) && !truth.loss.contains_key(way) && age(*way) > time
        };
        // A patient round asks one server: with most of them out, an answer takes several rounds.
        let most = truth.out.len() * 2 < TARGETS;
        let at_once = |way| world.watch.ways[way].is_doubted_at_once(now, &world.watch.terms);
        let traffic = |way| world.traffic.contains(way) && at_once(way);
        let traffic = most && in_use.clone().all(traffic);
        // A way that may have been down for longer than `hold_limit` is probed each `interval`, with one
        // server, and comes back after two good rounds of several.
        // Neither can rounds tell a dead one from others that lose packets as soon as from well ones.
        let long = now > ProbeConfig::default().hold_limit || self.lossy;
        let time = if long {
            LONG_PATIENCE
        } else {
            patience(traffic)
        };
        let shown = truth.out.len() < TARGETS && quiet > time;
        if shown && gateways.iter().any(|way| well(way, time)) {
            let living = in_use.any(|way| !truth.dead.contains(way) || age(*way) <= time);
            prop_assert!(living, "{:?} at {now:?}: {:?}", truth, world.events);
        }
        Ok(())
    }

    /// Changes the truth.
    fn turn(&mut self, world: &mut World, turn: &Turn) {
        let way = match turn {
            Turn::Gateway(number) | Turn::Loss(number) | Turn::Traffic(number) => gateway(*number),
            Turn::Bypass | Turn::Server(_) => BYPASS,
        };
        let begins = match turn {
            Turn::Gateway(_) | Turn::Bypass => {
                let begins = !world.truth.dead.remove(&way);
                begins.then(|| world.truth.dead.insert(way)).is_some()
            }
            Turn::Loss(_) => {
                self.lossy = true;
                let begins = world.truth.loss.remove(&way).is_none();
                begins.then(|| world.truth.loss.insert(way, 0.51)).is_some()
            }
            Turn::Server(server) => {
                if !world.truth.out.remove(server) {
                    world.truth.out.insert(*server);
                }
                self.servers = world.now;
                return;
            }
            Turn::Traffic(_) => {
                if !world.traffic.remove(&way) {
                    world.traffic.insert(way);
                }
                // Silence is known only some readings later.
                self.servers = world.now;
                return;
            }
        };
        *self.deaths.entry(way).or_default() += usize::from(begins);
        self.changed.insert(way, world.now);
    }
}

/// Lets the turns pass, with the checks after each step and in the end.
fn live(turns: Vec<(u64, Turn)>, seed: u64, busy: Vec<bool>) -> Result<(), TestCaseError> {
    let mut world = World::new(3, seed);
    for (number, busy) in (1..).zip(busy) {
        if busy {
            world.traffic.insert(gateway(number));
        }
    }
    let mut ages = Ages::default();
    for (pause, turn) in turns {
        let mut found = Ok(());
        world.pass(Duration::from_millis(pause), |world| {
            if found.is_ok() {
                found = ages.check(world);
            }
        });
        found?;
        ages.turn(&mut world, &turn);
    }
    for way in [gateway(1), gateway(2), gateway(3), BYPASS] {
        let changes = world.events.iter().filter(|event| event.way == way).count();
        let deaths = ages.deaths.get(&way).copied().unwrap_or(0);
        // If each living gateway loses packets, two good rounds bring one back, and its loss may take it
        // away again.
        let most = 2 * deaths + if ages.lossy { 2 } else { 0 };
        prop_assert!(
            changes <= most,
            "{way}: {changes} changes, {deaths} deaths: {:?}",
            world.events
        );
        let ends = world
            .ended
            .iter()
            .filter(|(_, ended)| *ended == way)
            .count();
        prop_assert!(
            ends <= most / 2,
            "{way}: flows ended {ends} times, {deaths} deaths"
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_histories_keep_a_living_gateway_and_change_no_more_than_the_truth(
        turns in vec(turn(0), 1..25),
        seed in any::<u64>(),
        busy in vec(any::<bool>(), 3),
    ) {
        live(turns, seed, busy)?;
    }

    #[test]
    fn random_histories_with_loss_keep_a_living_gateway_and_change_no_more_than_the_truth(
        turns in vec(turn(6), 1..25),
        seed in any::<u64>(),
        busy in vec(any::<bool>(), 3),
    ) {
        live(turns, seed, busy)?;
    }
}

/// The outage of a server looks like a loss of the gateways that are down, while the third one lives.
#[test]
fn gateways_that_answer_replace_the_last_one_whatever_they_have_lost() {
    let turns = vec![
        (50, Turn::Gateway(3)),
        (1_601, Turn::Gateway(1)),
        (74_802, Turn::Bypass),
        (1_901, Turn::Server(0)),
        (1_051, Turn::Gateway(1)),
        (1_651, Turn::Gateway(3)),
        (9_001, Turn::Gateway(2)),
        (701, Turn::Traffic(2)),
        (9_000, Turn::Bypass),
    ];
    live(turns, 9_885_063_732_519_319_790, vec![false; 3]).unwrap();
}
