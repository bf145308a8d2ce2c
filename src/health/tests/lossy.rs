//! Gateways that lose a part of the probes.

use std::time::Duration;

use super::world::*;
use crate::health::*;

/// A NAT that loses 30 % of the packets in each direction.
const LOSSY: f64 = 0.51;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn gateway_that_loses_half_of_the_probes_is_down_within_five_seconds_of_traffic() {
    let mut times: Vec<Duration> = Vec::new();
    for count in [2, 3, 7] {
        for seed in 1..100 {
            let mut world = World::new(count, seed);
            world.traffic = [gateway(1), gateway(2)].into();
            world.wait(seconds(7) + millis(seed * 10));
            world.truth.loss = [(gateway(2), LOSSY)].into();
            let took = world.until(gateway(2), false, millis(6_500));
            times.push(took);
            let why = world.state(gateway(2)).why;
            let by_loss = matches!(why, Why::Loss { .. } | Why::Rounds { .. });
            assert!(by_loss, "{why}");
            assert_eq!(world.events.len(), 1, "{:?}", world.events);
            assert_eq!(world.ended, [], "its flows go on");
        }
        times.sort();
        let (middle, late) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        assert!(middle <= millis(3_000), "{count}: {middle:?}");
        assert!(late <= millis(5_000), "{count}: {late:?}");
        times.clear();
    }
}

#[test]
fn idle_gateway_that_loses_half_of_the_probes_is_found_by_single_probes() {
    for seed in 1..50 {
        let mut world = World::new(2, seed);
        world.wait(seconds(20));
        world.truth.loss = [(gateway(1), LOSSY)].into();
        world.until(gateway(1), false, seconds(120));
    }
}

#[test]
fn lossy_gateway_stays_out_of_use_while_it_loses_and_returns_once_well() {
    for loss in [0.25, LOSSY, 0.75] {
        for seed in 1..5 {
            let mut world = World::new(3, seed);
            world.traffic = [gateway(1)].into();
            world.wait(seconds(10));
            world.truth.loss = [(gateway(1), loss)].into();
            world.until(gateway(1), false, seconds(60));
            world.wait(seconds(3_600));
            // The hold doubles with each fall.
            let most = if loss < 0.5 { 5 } else { 1 };
            let changes = world.events.len();
            assert!(changes <= most, "{loss} {seed}: {:?}", world.events);
            world.truth.loss.clear();
            world.until(gateway(1), true, seconds(400));
            world.wait(seconds(600));
            assert_eq!(world.events.len(), changes + 1, "{:?}", world.events);
        }
    }
}

/// The limits of the hold apply to a gateway with the ordinary loss too: a lost probe now and then begins no
/// new hold.
#[test]
fn gateway_with_the_ordinary_loss_returns_after_a_long_outage() {
    for seed in 1..12 {
        let mut world = World::new(2, seed);
        world.truth.loss = [1, 2].map(|it| (gateway(it), 0.01)).into();
        world.traffic = [gateway(1)].into();
        world.wait(seconds(10));
        world.truth.dead = [gateway(1)].into();
        world.wait(seconds(1_200));
        world.truth.dead.clear();
        world.until(gateway(1), true, seconds(1_200));
    }
}

#[test]
fn ordinary_loss_is_no_reason_for_a_change_in_days() {
    for (loss, days) in [(0.01, 1), (0.02, 1)] {
        let mut world = World::new(3, 77);
        world.traffic = [gateway(1), gateway(2)].into();
        world.truth.loss = [1, 2, 3].map(|it| (gateway(it), loss)).into();
        let day = seconds(86_400);
        world.wait(day * days);
        assert_eq!(world.events, [], "{loss}");
        let probes: usize = [1, 2, 3].map(|it| world.probes[&gateway(it)]).iter().sum();
        let rate = probes as f64 / (day * days).as_secs_f64();
        assert!(rate < 0.6, "{rate}");
    }
}

#[test]
fn gateways_that_lose_alike_keep_their_use() {
    let mut changed = 0;
    for loss in [0.1, 0.3, LOSSY, 0.7] {
        for seed in 1..5 {
            let mut world = World::new(2 + (seed % 2) as u8, seed);
            world.traffic = [gateway(1)].into();
            world.wait(seconds(10));
            world.truth.loss = [1, 2, 3].map(|it| (gateway(it), loss)).into();
            world.probes.clear();
            world.wait(seconds(3_600));
            if !world.events.is_empty() {
                changed += 1;
            }
            assert!(world.events.len() <= 2, "{loss} {seed}: {:?}", world.events);
            let probes: usize = world.probes.values().sum();
            let most = 3_600 * if loss < 0.5 { 15 } else { 40 };
            assert!(probes < most, "{loss} {seed}: {probes}");
        }
    }
    assert_eq!(changed, 0);
}

#[test]
fn last_gateway_that_loses_packets_stays() {
    let mut world = World::new(2, 5);
    world.traffic = [gateway(1)].into();
    world.wait(seconds(10));
    world.truth.dead = [gateway(2)].into();
    world.until(gateway(2), false, seconds(16));
    world.truth.loss = [(gateway(1), LOSSY)].into();
    world.wait(seconds(600));
    assert!(world.health.is_in_use(gateway(1)));
    assert_eq!(world.events.len(), 1, "{:?}", world.events);
}

#[test]
fn flapping_loss_changes_the_routes_a_few_times_only() {
    for (lossy, well, whole) in [(5, 5, 600), (20, 20, 1_200), (60, 60, 3_600)] {
        for seed in 1..5 {
            let mut world = World::new(2, seed);
            world.traffic = [gateway(1)].into();
            world.wait(seconds(12));
            let end = world.now + seconds(whole);
            while world.now < end {
                world.truth.loss = [(gateway(1), LOSSY)].into();
                world.wait(seconds(lossy));
                world.truth.loss.clear();
                world.wait(seconds(well));
            }
            let changes = world.events.len();
            assert!(changes <= 8, "{lossy}/{well}: {:?}", world.events);
        }
    }
}
