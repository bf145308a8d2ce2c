//! A host at rest: few readings and probes, and none the later a verdict once packets flow again.

use std::time::Duration;

use super::world::*;
use crate::config::ProbeConfig;
use crate::health::*;
use crate::types::Family;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn host_at_rest_reads_its_counters_slowly_and_probes_all_ways_at_one_pace() {
    let mut world = World::new(2, 4);
    world.wait(seconds(600));
    assert!((700..=850).contains(&world.readings), "{}", world.readings);
    for way in [gateway(1), gateway(2), BYPASS] {
        let probes = world.probes.get(&way).copied().unwrap_or(0);
        assert!((54..=68).contains(&probes), "{way}: {probes}");
    }
    world.traffic = [gateway(1)].into();
    world.wait(seconds(2));
    let before = world.readings;
    world.wait(seconds(10));
    assert!((39..=41).contains(&(world.readings - before)), "quick");
    world.traffic.clear();
    world.wait(seconds(2));
    let before = world.readings;
    world.wait(seconds(60));
    assert!((70..=81).contains(&(world.readings - before)), "slow again");
}

#[test]
fn bypass_without_counters_has_its_own_pace() {
    let mut world = World::new(2, 4);
    world.counted = false;
    world.wait(seconds(1_000));
    let probes = world.probes.get(&BYPASS).copied().unwrap_or(0);
    assert!((600..=740).contains(&probes), "{probes}");
}

/// A client opens a connection through a way that died at rest: SYN, and repetitions after one second and
/// after three (RFC 6298). The moment within the pause between two readings makes no difference.
#[test]
fn first_connection_after_a_death_at_rest_has_its_verdict_as_soon_as_under_traffic() {
    for way in [gateway(1), BYPASS] {
        for phase in 0..30 {
            let mut world = World::new(2, 40 + phase);
            world.wait(seconds(70));
            world.truth.dead = [way].into();
            world.wait(STEP * u32::try_from(phase).unwrap());
            let opened = world.now;
            for repeated in [0, 1_000, 3_000] {
                while world.now < opened + millis(repeated) {
                    world.wait(STEP);
                }
                if world.health.is_in_use(way) {
                    world.send(way);
                }
            }
            let fall = world.events.first().expect("a death").at;
            let took = fall.saturating_sub(opened);
            assert!(took <= millis(2_700), "{way}, {phase}: {took:?}");
        }
    }
}

/// A client that only receives sends nothing once its way has died.
#[test]
fn bypass_with_packets_within_the_last_minute_is_probed_as_under_traffic() {
    for seed in 1..10 {
        let mut world = World::new(2, seed);
        world.traffic = [BYPASS].into();
        world.wait(seconds(20));
        world.traffic.clear();
        world.wait(seconds(seed * 5));
        world.truth.dead = [BYPASS].into();
        world.until(BYPASS, false, seconds(4));
    }
}

#[test]
fn bypass_at_rest_that_dies_is_found_at_the_pace_of_gateways() {
    for seed in 1..10 {
        let mut world = World::new(2, seed);
        world.wait(seconds(70));
        world.truth.dead = [BYPASS].into();
        world.until(BYPASS, false, seconds(14));
    }
}

/// The probes wait for the next reading, so that one wake-up serves both.
#[test]
fn probes_at_rest_need_no_wake_up_of_their_own() {
    let ways = [gateway(1), gateway(2), BYPASS];
    let groups = [Group::Egress(Family::Ipv4), Group::Bypass(Family::Ipv4)];
    let terms = Terms::from(&ProbeConfig::default());
    let targets = groups.map(|group| (group, 1)).into();
    let mut watch = Watch::new(terms, ways, targets, 9, Duration::ZERO);
    let (mut now, mut read, mut wakes, mut probes) = (Duration::ZERO, None, 0, 0);
    while now < seconds(600) {
        let reading = read.map_or(now, |at| at + watch.reading_pause(now));
        if reading <= now {
            read = Some(now);
            for way in ways {
                watch.reading(way, Reading::default(), now);
            }
        }
        for probe in watch.due(now) {
            probes += 1;
            watch.answer(probe, Answer::Reached(millis(1)), now);
        }
        now = watch
            .wake(now)
            .min(now.max(reading) + watch.reading_pause(now));
        wakes += 1;
    }
    assert!(probes > 160, "{probes}");
    assert!((790..=815).contains(&wakes), "{wakes} wake-ups");
}

#[test]
fn silence_without_meaning_needs_no_quick_readings() {
    let mut world = World::new(2, 3);
    world.one_way = [gateway(1)].into();
    // The doubts that probes refute come within half a minute.
    world.wait(seconds(60));
    let before = world.readings;
    world.wait(seconds(60));
    assert!((70..=81).contains(&(world.readings - before)));
}
