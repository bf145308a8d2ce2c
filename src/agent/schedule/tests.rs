//! The timer and the breaker, with hours simulated in microseconds.

use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const REFRESH: Duration = Duration::from_secs(300);

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn finish(schedule: &mut FetchSchedule, good: bool, now: Instant, random: f64) {
    if good {
        schedule.succeeded(now, random);
    } else {
        schedule.failed(now, random);
    }
}

/// A fetch at its due time, with a duration of `took`.
fn fetch(schedule: &mut FetchSchedule, took: Duration, good: bool, random: f64) -> Instant {
    let start = schedule.due();
    schedule.started(start);
    finish(schedule, good, start + took, random);
    start
}

#[test]
fn every_slot_has_one_fetch_at_a_random_point() {
    let origin = Instant::now();
    let mut schedule = FetchSchedule::new(REFRESH, origin);
    assert_eq!(schedule.due(), origin);
    for (slot, random) in [(1, 0.0), (2, 0.999), (3, 0.25), (4, 0.5)] {
        fetch(&mut schedule, seconds(0.2), true, random);
        assert_eq!(
            schedule.due(),
            origin + REFRESH * slot + REFRESH.mul_f64(random)
        );
    }
}

#[test]
fn a_fetch_into_the_next_slot_is_followed_by_the_fetch_of_that_slot() {
    let origin = Instant::now();
    let mut schedule = FetchSchedule::new(REFRESH, origin);
    fetch(&mut schedule, REFRESH + seconds(30.0), true, 0.5);
    assert_eq!(schedule.due(), origin + REFRESH + REFRESH / 2);
    fetch(&mut schedule, REFRESH * 2, true, 0.5);
    let late = origin + REFRESH * 3 + REFRESH / 2;
    assert_eq!(schedule.due(), late, "passed already: at once");
}

#[test]
fn a_suspended_host_fetches_once_after_resuming() {
    let origin = Instant::now();
    let mut schedule = FetchSchedule::new(REFRESH, origin);
    fetch(&mut schedule, Duration::ZERO, true, 0.5);
    let woken = origin + REFRESH * 1000 + seconds(7.0);
    schedule.started(woken);
    schedule.succeeded(woken, 0.5);
    assert_eq!(schedule.due(), origin + REFRESH * 1001 + REFRESH / 2);
}

#[test]
fn failures_back_off_and_open_the_breaker() {
    let mut schedule = FetchSchedule::new(REFRESH, Instant::now());
    for ceiling in [2.0, 4.0, 8.0, 16.0] {
        let start = fetch(&mut schedule, Duration::ZERO, false, 0.5);
        assert_eq!(schedule.breaker(), BreakerState::Closed);
        assert_eq!(schedule.due(), start + seconds(ceiling / 2.0));
    }
    for minutes in [5, 10, 20, 40, 60, 60, 60] {
        let start = fetch(&mut schedule, Duration::ZERO, false, 0.0);
        assert_eq!(schedule.breaker(), BreakerState::Open);
        assert_eq!(schedule.due(), start + MINUTE * minutes / 2);
    }
    assert_eq!(schedule.failures_in_a_row(), 11);
    let trial = schedule.due();
    schedule.started(trial);
    assert_eq!(schedule.breaker(), BreakerState::HalfOpen);
    schedule.succeeded(trial, 0.0);
    assert_eq!(schedule.breaker(), BreakerState::Closed);
    assert_eq!(schedule.failures_in_a_row(), 0);
    assert!(schedule.due() <= trial + REFRESH);
}

#[test]
fn a_long_refresh_is_the_longest_pause() {
    let day = MINUTE * 60 * 24;
    let mut schedule = FetchSchedule::new(day, Instant::now());
    for _ in 0..4 {
        fetch(&mut schedule, Duration::ZERO, false, 0.0);
    }
    for _ in 0..3 {
        let start = fetch(&mut schedule, Duration::ZERO, false, 0.5);
        assert_eq!(schedule.due(), start + day.mul_f64(0.75));
    }
}

#[test]
fn a_short_refresh_is_not_slowed_by_the_back_off() {
    let origin = Instant::now();
    let mut schedule = FetchSchedule::new(seconds(1.0), origin);
    for slot in 1..=4 {
        fetch(&mut schedule, Duration::ZERO, false, 0.9);
        assert!(schedule.due() <= origin + seconds(1.0) * slot + seconds(0.9));
    }
}

#[test]
fn a_link_coming_up_brings_a_fetch_forward() {
    let mut schedule = FetchSchedule::new(REFRESH, Instant::now());
    for _ in 0..7 {
        fetch(&mut schedule, Duration::ZERO, false, 0.5);
    }
    let up = schedule.due() - MINUTE;
    schedule.bring_forward(up);
    assert_eq!(schedule.due(), up);
    fetch(&mut schedule, Duration::ZERO, false, 0.0);
    let pause = schedule.due() - up;
    assert_eq!(pause, MINUTE * 10, "20 min as before, its half");
    // A flapping link causes one fetch in five seconds, and the last flap is not lost.
    for flap in 1..40 {
        schedule.bring_forward(up + seconds(0.1) * flap);
        assert_eq!(schedule.due(), up + FORWARD_PAUSE);
    }
    fetch(&mut schedule, Duration::ZERO, true, 0.0);
    assert_eq!(schedule.breaker(), BreakerState::Closed);
}

#[test]
fn a_link_coming_up_during_a_fetch_counts_if_the_fetch_fails() {
    for good in [true, false] {
        let start = Instant::now();
        let mut schedule = FetchSchedule::new(REFRESH, start);
        schedule.started(start);
        schedule.bring_forward(start + seconds(1.0));
        let end = start + seconds(10.0);
        finish(&mut schedule, good, end, 0.5);
        let due = schedule.due();
        assert_eq!(due == end, !good);
        assert!(due == end || due == start + REFRESH + REFRESH / 2);
    }
}

#[test]
fn another_refresh_begins_new_slots() {
    let origin = Instant::now();
    let mut schedule = FetchSchedule::new(MINUTE * 60, origin);
    fetch(&mut schedule, Duration::ZERO, true, 0.5);
    let reload = origin + MINUTE;
    schedule.set_refresh(MINUTE * 60, reload, 0.9);
    assert_eq!(schedule.due(), origin + MINUTE * 90, "the same: no change");
    schedule.set_refresh(REFRESH, reload, 0.5);
    assert_eq!(schedule.due(), reload + REFRESH / 2);
    fetch(&mut schedule, Duration::ZERO, true, 0.5);
    assert_eq!(schedule.due(), reload + REFRESH + REFRESH / 2);
    // A longer refresh: a due fetch stays due.
    let overdue = schedule.due() + MINUTE;
    schedule.set_refresh(MINUTE * 60, overdue, 0.5);
    assert!(schedule.due() <= overdue);
}

#[test]
fn a_reload_neither_hastens_an_open_breaker_nor_leaves_it_waiting() {
    let mut schedule = FetchSchedule::new(MINUTE * 60, Instant::now());
    for _ in 0..6 {
        fetch(&mut schedule, Duration::ZERO, false, 0.5);
    }
    let reload = schedule.due() - MINUTE * 40;
    schedule.set_refresh(REFRESH, reload, 0.0);
    assert_eq!(schedule.breaker(), BreakerState::Open);
    assert_eq!(schedule.due(), reload + REFRESH, "its second pause, halved");
}

#[test]
fn a_fetch_given_up_is_no_failure() {
    let origin = Instant::now();
    let mut schedule = FetchSchedule::new(REFRESH, origin);
    fetch(&mut schedule, seconds(0.2), false, 0.5);
    let start = schedule.due();
    schedule.started(start);
    let reload = start + seconds(3.0);
    schedule.given_up(reload);
    assert_eq!((schedule.due(), schedule.failures_in_a_row()), (reload, 1));
    schedule.started(reload);
    schedule.succeeded(reload + seconds(1.0), 0.5);
    assert_eq!(schedule.due(), origin + REFRESH + REFRESH / 2);
}

#[test]
fn extreme_arguments_do_not_overflow() {
    for refresh in [Duration::ZERO, Duration::MAX] {
        let now = Instant::now();
        let mut schedule = FetchSchedule::new(refresh, now);
        for random in [f64::NAN, f64::INFINITY, -1.0, 7.0] {
            for good in [true, false, false, false, false, false, false] {
                let start = fetch(&mut schedule, MINUTE, good, random);
                assert!(schedule.due() >= start);
            }
            schedule.started(now);
            schedule.failed(now, random);
        }
    }
}

/// An event between two fetches.
#[derive(Debug, Clone)]
enum ScheduleStep {
    Fetch { took: f64, good: bool, random: f64 },
    Event { after: f64 },
    Reload { refresh: u64, random: f64 },
}

fn step() -> impl Strategy<Value = ScheduleStep> {
    prop_oneof![
        4 => (0.0..20.0, any::<bool>(), 0.0..1.0)
            .prop_map(|(took, good, random)| ScheduleStep::Fetch { took, good, random }),
        2 => (0.0..3.0).prop_map(|after| ScheduleStep::Event { after }),
        1 => (1u64..7200, 0.0..1.0)
            .prop_map(|(refresh, random)| ScheduleStep::Reload { refresh, random }),
    ]
}

proptest! {
    /// For all random draws the mean interval is the refresh, and the longest two refreshes.
    #[test]
    fn the_mean_is_the_refresh(
        refresh in 1u64..100_000,
        draws in prop::collection::vec(0.0..1.0f64, 1..200),
    ) {
        let refresh = Duration::from_secs(refresh);
        let origin = Instant::now();
        let mut schedule = FetchSchedule::new(refresh, origin);
        for (slot, random) in (1u32..).zip(draws) {
            let start = fetch(&mut schedule, Duration::ZERO, true, random);
            prop_assert!(schedule.due() - start <= refresh * 2);
            prop_assert!(schedule.due() >= origin + refresh * slot);
            prop_assert!(schedule.due() < origin + refresh * (slot + 1) + refresh / 1000);
        }
    }

    /// For all sequences of events a fetch comes in bounded time, the breaker is open exactly
    /// after five failures, and events alone never cause fetches more often than their pause.
    #[test]
    fn a_fetch_always_comes(steps in prop::collection::vec(step(), 1..100)) {
        let mut now = Instant::now();
        let mut refresh = REFRESH;
        let mut failures = 0;
        let mut forwarded: Option<Instant> = None;
        let mut schedule = FetchSchedule::new(refresh, now);
        for step in steps {
            match step {
                ScheduleStep::Fetch { took, good, random } => {
                    now = now.max(schedule.due());
                    schedule.started(now);
                    prop_assert_eq!(schedule.breaker(), match failures {
                        0..5 => BreakerState::Closed,
                        _ => BreakerState::HalfOpen,
                    });
                    now += seconds(took);
                    finish(&mut schedule, good, now, random);
                    failures = if good { 0 } else { failures + 1 };
                    prop_assert!(schedule.due() >= now);
                }
                ScheduleStep::Event { after } => {
                    now += seconds(after);
                    let before = schedule.due();
                    schedule.bring_forward(now);
                    prop_assert!(schedule.due() <= before);
                    prop_assert!(schedule.due() <= now.max(before.min(now + FORWARD_PAUSE)));
                    if schedule.due() < before {
                        let due = schedule.due();
                        prop_assert!(forwarded.is_none_or(|last| due >= last + FORWARD_PAUSE));
                        forwarded = Some(due);
                    }
                }
                ScheduleStep::Reload { refresh: other, random } => {
                    refresh = Duration::from_secs(other);
                    schedule.set_refresh(refresh, now, random);
                }
            }
            let longest = LONGEST_PAUSE.max(refresh).max(refresh * 2).max(REFRESH * 2);
            prop_assert!(schedule.due() <= now + longest.max(MINUTE * 240));
            prop_assert_eq!(schedule.failures_in_a_row(), failures);
            prop_assert_eq!(schedule.breaker() == BreakerState::Open, failures >= 5);
        }
    }
}
