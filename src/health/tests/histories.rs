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
}

fn turn() -> impl Strategy<Value = (u64, Turn)> {
    let pause = prop_oneof![4 => 50_u64..2_000, 3 => 2_000_u64..15_000, 1 => 15_000_u64..90_000];
    let turn = prop_oneof![
        6 => (1_u8..=3).prop_map(Turn::Gateway),
        1 => Just(Turn::Bypass),
        2 => (0..TARGETS).prop_map(Turn::Server),
        2 => (1_u8..=3).prop_map(Turn::Traffic),
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
        let well = |way: &WayId, time| !truth.dead.contains(way) && age(*way) > time;
        // A patient round asks one server: with most of them out, an answer takes several rounds.
        let most = truth.out.len() * 2 < TARGETS;
        let at_once = |way| world.watch.ways[way].is_doubted_at_once(now, &world.watch.terms);
        let traffic = |way| world.traffic.contains(way) && at_once(way);
        let traffic = most && in_use.clone().all(traffic);
        // A way that may have been down for longer than `hold_limit` is probed each `interval`, with one
        // server, and comes back after two good rounds of several.
        let long = now > ProbeConfig::default().hold_limit;
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
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_histories_keep_a_living_gateway_and_change_no_more_than_the_truth(
        turns in vec(turn(), 1..25),
        seed in any::<u64>(),
        busy in vec(any::<bool>(), 3),
    ) {
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
            let flipped = match turn {
                Turn::Gateway(number) => gateway(number),
                Turn::Bypass => BYPASS,
                Turn::Server(server) => {
                    if !world.truth.out.remove(&server) {
                        world.truth.out.insert(server);
                    }
                    ages.servers = world.now;
                    continue;
                }
                Turn::Traffic(number) => {
                    if !world.traffic.remove(&gateway(number)) {
                        world.traffic.insert(gateway(number));
                    }
                    // Silence is known only some readings later.
                    ages.servers = world.now;
                    continue;
                }
            };
            if !world.truth.dead.remove(&flipped) {
                world.truth.dead.insert(flipped);
                *ages.deaths.entry(flipped).or_default() += 1;
            }
            ages.changed.insert(flipped, world.now);
        }
        for way in [gateway(1), gateway(2), gateway(3), BYPASS] {
            let changes = world.events.iter().filter(|event| event.way == way).count();
            let deaths = ages.deaths.get(&way).copied().unwrap_or(0);
            prop_assert!(changes <= 2 * deaths, "{way}: {changes} changes, {deaths} deaths");
            let ends = world.ended.iter().filter(|(_, ended)| *ended == way).count();
            prop_assert!(ends <= deaths, "{way}: flows ended {ends} times, {deaths} deaths");
        }
    }
}
