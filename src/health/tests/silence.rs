//! Silence that is no outage: it costs few probes, and changes nothing.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::world::*;
use crate::health::*;

#[test]
fn log_that_nobody_answers_costs_few_probes_and_no_change() {
    for seed in 1..10 {
        let mut world = World::new(2, seed);
        world.one_way = [gateway(1)].into();
        world.wait(seconds(290));
        // The doubts after half a second, one, two, four and eight.
        assert!((1..=5).contains(&world.doubts), "{}", world.doubts);
        let probes = world.probes.get(&gateway(1)).copied().unwrap_or(0);
        // Those of 290 seconds at the pace of an idle way, and a few rounds of three servers.
        assert!((24..=80).contains(&probes), "{probes}");
        assert_eq!((&world.events[..], &world.ended[..]), (&[][..], &[][..]));
        assert_eq!(world.state(gateway(1)).state, State::Up);
    }
}

#[test]
fn death_beside_a_log_that_nobody_answers_is_found_by_single_probes() {
    let mut world = World::new(2, 7);
    world.one_way = [gateway(1)].into();
    world.wait(seconds(120));
    world.truth.dead = [gateway(1)].into();
    world.until(gateway(1), false, seconds(14));
}

/// Regular pauses teach the length of a silence that means nothing; a death is found soon after it.
#[test]
fn answers_once_a_second_beside_a_log_raise_two_doubts_at_most() {
    let mut world = World::new(2, 5);
    for _ in 0..60 {
        for reading in 0..4 {
            let back = u64::from(reading == 0);
            world.read(gateway(1), 5, back);
            world.wait(READING);
        }
    }
    assert!(world.doubts <= 2, "{}", world.doubts);
    world.truth.dead = [gateway(1)].into();
    world.one_way = [gateway(1)].into();
    world.until(gateway(1), false, Duration::from_millis(4_500));
}

#[test]
fn connection_that_is_being_opened_repeats_its_packet_and_raises_a_doubt() {
    let mut world = World::new(2, 5);
    world.traffic = [gateway(2)].into();
    world.wait(seconds(5));
    world.read(gateway(1), 1, 0);
    for _ in 0..4 {
        world.wait(READING);
        assert_eq!(world.state(gateway(1)).state, State::Up, "one packet alone");
        world.read(gateway(1), 0, 0);
    }
    world.truth.dead = [gateway(1)].into();
    world.read(gateway(1), 1, 0);
    assert_eq!(world.state(gateway(1)).state, State::Suspect);
    world.until(gateway(1), false, Duration::from_millis(1_600));
}

#[test]
fn last_packet_of_an_exchange_raises_no_doubt() {
    let mut world = World::new(2, 5);
    world.wait(seconds(2));
    for _ in 0..20 {
        world.read(gateway(1), 3, 2);
        world.wait(READING);
        world.read(gateway(1), 1, 0);
        for _ in 0..8 {
            world.wait(READING);
            world.read(gateway(1), 0, 0);
        }
    }
    assert_eq!(world.doubts, 0);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 50,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever traffic in one direction does beside probes that are answered: five doubts in five
    /// minutes, no change, nothing ended.
    #[test]
    fn silence_beside_answered_probes_raises_few_doubts(
        turns in vec((1_u64..40_000, any::<bool>(), any::<bool>()), 1..40),
        seed in any::<u64>(),
    ) {
        let mut world = World::new(2, seed);
        let mut doubts: Vec<(Duration, usize)> = Vec::new();
        for (pause, log, answers) in turns {
            world.one_way = if log { [gateway(1)].into() } else { Default::default() };
            world.traffic = if answers { [gateway(1)].into() } else { Default::default() };
            world.pass(Duration::from_millis(pause), |world| doubts.push((world.now, world.doubts)));
        }
        for (at, count) in &doubts {
            let later = doubts.partition_point(|(then, _)| *then < *at + seconds(300));
            let last = doubts.get(later).or(doubts.last()).map_or(0, |(_, count)| *count);
            prop_assert!(last - count <= 5, "{} doubts after {at:?}", last - count);
        }
        prop_assert_eq!(&world.events, &[]);
        prop_assert_eq!(&world.ended, &[]);
    }
}
