//! One fault each, with times.

use std::time::Duration;

use super::world::*;
use crate::config::ProbeConfig;
use crate::health::*;
use crate::types::Family;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn silence_under_traffic_takes_a_gateway_out_within_three_seconds() {
    for seed in 1..20 {
        let mut world = World::new(3, seed);
        world.traffic = [gateway(1), gateway(2)].into();
        world.wait(seconds(7));
        world.truth.dead = [gateway(2)].into();
        let took = world.until(gateway(2), false, millis(2_500));
        assert!(
            took > millis(1_500),
            "no verdict without {took:?} of silence"
        );
        world.wait(seconds(3));
        let ended: Vec<WayId> = world.ended.iter().map(|(_, way)| *way).collect();
        assert_eq!(ended, [gateway(2)], "its flows, once");
        assert!(world.ended[0].0 < seconds(12));
        assert_eq!(world.events.len(), 1, "{:?}", world.events);
        assert_eq!(world.state(gateway(2)).state, State::Down);
    }
}

#[test]
fn idle_gateway_is_found_down_by_single_probes() {
    let mut world = World::new(2, 9);
    world.wait(seconds(20));
    world.truth.dead = [gateway(1)].into();
    world.until(gateway(1), false, seconds(14));
}

#[test]
fn gateway_with_traffic_is_probed_a_fifth_as_often_as_an_idle_one() {
    let mut world = World::new(2, 4);
    world.traffic = [gateway(1)].into();
    world.wait(seconds(1_000));
    let probes = |way| world.probes.get(&way).copied().unwrap_or(0);
    assert!(
        (15..=21).contains(&probes(gateway(1))),
        "{:?}",
        world.probes
    );
    assert!(
        (90..=112).contains(&probes(gateway(2))),
        "{:?}",
        world.probes
    );
    assert_eq!(world.state(gateway(2)).state, State::Up);
}

#[test]
fn gateway_that_serves_open_flows_alone_is_found_by_a_probe() {
    let mut world = World::new(2, 4);
    world.traffic = [gateway(1)].into();
    world.wait(seconds(20));
    world.truth.old_flows_only = [gateway(1)].into();
    world.until(gateway(1), false, seconds(58));
    world.wait(seconds(5));
    assert_eq!(world.ended, [], "open flows go on");
    assert_eq!(world.begun_anew, [gateway(1)], "once");
}

#[test]
fn gateway_that_is_down_costs_the_living_ones_no_further_probes() {
    let mut world = World::new(3, 4);
    world.truth.dead = [gateway(1)].into();
    world.until(gateway(1), false, seconds(16));
    world.probes.clear();
    world.wait(seconds(200));
    let probes = |number| world.probes.get(&gateway(number)).copied().unwrap_or(0);
    assert!((300..=402).contains(&probes(1)), "{:?}", world.probes);
    for living in [2, 3] {
        assert!((17..=24).contains(&probes(living)), "{:?}", world.probes);
    }
}

#[test]
fn traffic_that_has_ended_puts_off_a_probe_by_no_more_than_the_interval() {
    let mut world = World::new(2, 4);
    world.traffic = [gateway(1)].into();
    world.wait(seconds(59));
    world.traffic.clear();
    world.probes.clear();
    world.wait(seconds(12));
    assert_eq!(world.probes.get(&gateway(1)).copied().unwrap_or(0), 1);
}

#[test]
fn gateway_returns_after_the_hold_and_not_before() {
    let mut world = World::new(2, 3);
    world.traffic = [gateway(1)].into();
    world.wait(seconds(5));
    world.truth.dead = [gateway(1)].into();
    world.until(gateway(1), false, seconds(3));
    world.truth.dead.clear();
    let took = world.until(gateway(1), true, seconds(13));
    assert!(took >= seconds(10), "{took:?}");
    assert_eq!(world.state(gateway(1)).state, State::Up);
}

#[test]
fn long_outage_is_followed_by_a_long_hold_up_to_the_limit() {
    let mut world = World::new(2, 3);
    world.traffic = [gateway(1)].into();
    for (outage, least, most) in [(60, 60, 75), (3_600, 300, 330)] {
        world.wait(seconds(400));
        world.truth.dead = [gateway(1)].into();
        world.wait(seconds(outage));
        world.truth.dead.clear();
        let took = world.until(gateway(1), true, seconds(most));
        assert!(took >= seconds(least), "{took:?} after {outage} s");
    }
}

#[test]
fn flapping_gateway_changes_the_routes_at_most_twice() {
    for (up, down, whole) in [(2, 2, 60), (20, 20, 600), (25, 5, 900)] {
        for seed in 1..8 {
            let mut world = World::new(2, seed);
            world.traffic = [gateway(1)].into();
            let begin = seconds(12) + millis(seed * 150);
            world.wait(begin);
            while world.now < begin + seconds(whole) {
                world.truth.dead = [gateway(1)].into();
                world.wait(seconds(down));
                world.truth.dead.clear();
                world.wait(seconds(up));
            }
            // Five minutes of a hold that doubles with each fall.
            let most = if up > down { 8 } else { 2 };
            let changes = world.events.len();
            assert!(changes <= most, "{up}/{down}: {:?}", world.events);
        }
    }
}

#[test]
fn outages_of_servers_are_no_outage_of_a_gateway() {
    for out in [vec![0], vec![0, 1], vec![0, 1, 2]] {
        let mut world = World::new(3, 11);
        world.wait(seconds(30));
        world.truth.out = out.iter().copied().collect();
        world.wait(seconds(120));
        world.truth.out.clear();
        world.wait(seconds(60));
        assert_eq!(world.events, [], "{out:?}");
        assert_eq!(world.ended, []);
        for number in 1..=3 {
            assert_eq!(world.state(gateway(number)).state, State::Up);
        }
    }
}

#[test]
fn probes_that_cannot_be_sent_prove_nothing() {
    let mut world = World::new(2, 5);
    let now = seconds(20);
    for probe in world.watch.due(now) {
        world.watch.answer(probe, Answer::Untried, now + seconds(1));
    }
    let decision = world.watch.decide(now + seconds(1));
    assert_eq!(decision, Decision::default(), "an outage of DNS");
    assert_eq!(world.state(gateway(1)).why, Why::Unknown);
}

#[test]
fn last_gateway_stays_whatever_the_probes_say() {
    let mut world = World::new(1, 5);
    world.traffic = [gateway(1)].into();
    world.wait(seconds(20));
    world.truth.dead = [gateway(1)].into();
    world.wait(seconds(600));
    assert_eq!(
        (world.events.clone(), world.ended.clone()),
        (vec![], vec![])
    );
    assert_eq!(world.state(gateway(1)).why, Why::Dark);
}

#[test]
fn all_dead_ends_nothing_and_the_first_that_returns_is_used_within_three_seconds() {
    for (seed, outage) in [(1, 5), (2, 10), (3, 100), (4, 299)] {
        let mut world = World::new(3, seed);
        world.traffic = [gateway(1), gateway(2), gateway(3)].into();
        world.wait(seconds(20));
        world.truth.dead = [gateway(1), gateway(2), gateway(3)].into();
        world.wait(seconds(outage));
        assert_eq!(world.ended, [], "it may come back");
        assert_eq!(world.events, []);
        world.truth.dead.remove(&gateway(3));
        world.until(gateway(1), false, seconds(3));
        world.until(gateway(2), false, seconds(1));
        assert!(world.health.is_in_use(gateway(3)));
        world.wait(seconds(2));
        let ended: Vec<WayId> = world.ended.iter().map(|(_, way)| *way).collect();
        assert_eq!(
            ended,
            [gateway(1), gateway(2)],
            "and none of the living one"
        );
    }
}

#[test]
fn deaths_shortly_after_each_other_leave_the_flows_of_the_survivor_alone() {
    let mut world = World::new(3, 8);
    world.traffic = [gateway(1), gateway(2), gateway(3)].into();
    world.wait(seconds(20));
    for number in [1, 2] {
        world.truth.dead.insert(gateway(number));
        world.wait(millis(700));
    }
    world.until(gateway(2), false, seconds(4));
    world.wait(seconds(3));
    assert!(world.ended.iter().all(|(_, way)| *way != gateway(3)));
    let moments: Vec<Duration> = world.events.iter().map(|event| event.at).collect();
    assert_eq!(moments.len(), 2, "{:?}", world.events);
    assert_eq!(moments[0], moments[1], "one change of the routes");
}

#[test]
fn flows_that_still_get_answers_are_not_ended() {
    let mut world = World::new(2, 6);
    world.traffic = [gateway(1)].into();
    world.wait(seconds(5));
    // Readings bring packets back, so that only a probe finds the fault: an idle moment.
    world.traffic.clear();
    world.truth.old_flows_only = [gateway(1)].into();
    world.until(gateway(1), false, seconds(30));
    let before = world.ended.len();
    assert_eq!(before, 1, "idle flows are ended");
    let mut world = World::new(2, 6);
    world.truth.old_flows_only = [gateway(1)].into();
    while world.state(gateway(1)).state != State::Suspect {
        world.wait(STEP);
    }
    world.wait(millis(950));
    world.traffic = [gateway(1)].into();
    world.until(gateway(1), false, seconds(5));
    world.wait(seconds(5));
    assert_eq!(world.ended, [], "open flows go on");
    world.truth.dead = [gateway(1)].into();
    world.wait(seconds(2));
    assert_eq!(world.ended.len(), 1, "until they stand still");
}

#[test]
fn dead_bypass_takes_the_egress_path_until_it_is_well() {
    let mut world = World::new(2, 12);
    world.traffic = [BYPASS, gateway(1)].into();
    world.wait(seconds(20));
    world.truth.dead = [BYPASS].into();
    world.until(BYPASS, false, seconds(3));
    world.wait(seconds(25));
    let ended: Vec<WayId> = world.ended.iter().map(|(_, way)| *way).collect();
    assert_eq!(ended, [BYPASS]);
    world.truth.dead.clear();
    let took = world.until(BYPASS, true, seconds(32));
    assert!(took >= seconds(10), "{took:?}");
    assert_eq!(world.events.len(), 2);
}

#[test]
fn dead_bypass_stays_without_a_gateway() {
    let mut world = World::new(1, 12);
    world.traffic = [BYPASS, gateway(1)].into();
    world.wait(seconds(20));
    world.truth.dead = [BYPASS, gateway(1)].into();
    world.wait(seconds(60));
    assert_eq!(world.events, []);
}

#[test]
fn changed_settings_keep_the_verdicts_about_ways_that_stay() {
    let mut world = World::new(2, 3);
    world.traffic = [gateway(1)].into();
    world.wait(seconds(5));
    world.truth.dead = [gateway(1)].into();
    world.until(gateway(1), false, seconds(3));
    let ways = [gateway(1), gateway(3), BYPASS];
    let targets = [(Group::Egress(Family::Ipv4), TARGETS)];
    let terms = Terms::from(&ProbeConfig::default());
    world.watch.change(terms, ways, targets.into(), world.now);
    world.wait(seconds(20));
    assert_eq!(world.state(gateway(1)).state, State::Down);
    assert!(!world.health.is_in_use(gateway(1)));
    assert!(world.health.is_in_use(gateway(3)));
}

#[test]
fn states_and_reasons_are_told_in_words() {
    for (why, text) in [
        (Why::Silent { readings: 3 }, "none came back for 750ms"),
        (Why::Rounds { failed: 3 }, "3 rounds failed in a row"),
        (Why::Dark, "through any way"),
    ] {
        assert!(why.to_string().contains(text), "{why}");
    }
    assert_eq!(gateway(1).to_string(), "gateway 10.0.1.1");
    assert_eq!(BYPASS.to_string(), "ipv4 bypass path");
}

#[test]
fn dead_bypass_without_counters_is_found_within_four_seconds() {
    for seed in 1..20 {
        let mut world = World::new(1, seed);
        world.counted = false;
        world.wait(seconds(20));
        world.truth.dead = [BYPASS].into();
        world.until(BYPASS, false, seconds(4));
        assert!(!world.health.is_rolled_back(BYPASS));
    }
}

#[test]
fn change_that_breaks_the_bypass_is_rolled_back_by_one_failed_round() {
    for seed in 1..20 {
        let probe = ProbeConfig {
            fall: 50,
            ..ProbeConfig::default()
        };
        let mut world = World::with(&probe, 1, seed);
        world.wait(seconds(20));
        world.truth.dead = [BYPASS].into();
        let now = world.now;
        world.watch.settle(BYPASS, now + seconds(5), now);
        // Two time limits: a single probe, and a round.
        world.until(BYPASS, false, millis(2_100));
        assert!(world.health.is_rolled_back(BYPASS));
        assert!(matches!(
            world.state(BYPASS).why,
            Why::Changed { failed: 1 }
        ));
        world.truth.dead.clear();
        world.until(BYPASS, true, seconds(15));
        assert!(!world.health.is_rolled_back(BYPASS));
    }
}

#[test]
fn bypass_that_dies_after_the_settle_time_falls_by_the_usual_rounds() {
    let mut world = World::new(1, 3);
    world.counted = false;
    world.wait(seconds(20));
    let now = world.now;
    world.watch.settle(BYPASS, now + seconds(5), now);
    world.wait(seconds(6));
    world.truth.dead = [BYPASS].into();
    world.until(BYPASS, false, seconds(4));
    assert!(!world.health.is_rolled_back(BYPASS));
}

#[test]
fn change_beside_a_dead_gateway_keeps_the_bypass() {
    let mut world = World::new(1, 3);
    world.wait(seconds(20));
    world.truth.dead = [BYPASS, gateway(1)].into();
    let now = world.now;
    world.watch.settle(BYPASS, now + seconds(5), now);
    world.wait(seconds(30));
    assert!(world.health.is_in_use(BYPASS), "nothing is better");
}

#[test]
fn bypass_that_heals_is_used_though_all_gateways_have_died() {
    let mut world = World::new(2, 3);
    world.wait(seconds(20));
    world.truth.dead = [BYPASS].into();
    world.until(BYPASS, false, seconds(4));
    world.truth.dead = [BYPASS, gateway(1)].into();
    world.until(gateway(1), false, seconds(15));
    world.truth.dead = [BYPASS, gateway(1), gateway(2)].into();
    world.wait(seconds(40));
    assert!(!world.health.is_in_use(BYPASS));
    world.truth.dead = [gateway(1), gateway(2)].into();
    world.until(BYPASS, true, seconds(5));
}
