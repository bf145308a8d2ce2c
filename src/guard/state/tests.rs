use proptest::prelude::*;

use super::*;

const DAY: i64 = 86_400;
const NOW: i64 = 1_790_000_000;

fn anchor(boot: &str, boottime_s: u64, wall_s: i64) -> Anchor {
    Anchor {
        boot_id: boot.to_owned(),
        boottime_s,
        wall_s,
    }
}

/// A hold and a hold-down that began an hour before `NOW`, written at boot second 5000.
fn stored() -> GuardState {
    GuardState {
        selector: None,
        clock: Some(anchor("a", 5000, NOW)),
        hold: Some(Hold {
            since: NOW - 3600,
            last_seen: NOW - 300,
            ..Hold::default()
        }),
        hold_down: vec![HoldDown {
            prefix: "3.5.0.0/24".parse().unwrap(),
            group: None,
            since: NOW - 3600,
            kept: Default::default(),
        }],
    }
}

/// The age of hold and hold-down, which must be equal.
fn age(state: &GuardState, now: &Anchor) -> i64 {
    let hold = state.hold.as_ref().unwrap();
    assert_eq!(hold.since, state.hold_down[0].since);
    assert_eq!(hold.last_seen - hold.since, 3300);
    now.wall_s - hold.since
}

#[test]
fn within_a_boot_a_jump_moves_every_time() {
    for jump in [0, 2 * DAY, -2 * DAY, -NOW, 2] {
        let now = anchor("a", 5060, NOW + 60 + jump);
        let state = stored().rebase(&now);
        assert_eq!(age(&state, &now), 3660, "jump of {jump} s");
        assert_eq!(state.clock, Some(now));
    }
}

#[test]
fn a_second_of_drift_moves_no_time() {
    let mut state = stored();
    for round in 1..100i64 {
        let boottime_s = 5000 + 60 * round as u64;
        let now = anchor("a", boottime_s, NOW + 60 * round + 1);
        state = state.rebase(&now);
        assert_eq!(
            state.hold.as_ref().unwrap().since,
            NOW - 3600,
            "shown the same"
        );
        assert_eq!(state.clock, Some(anchor("a", boottime_s, NOW + 60 * round)));
    }
    // The ignored second counts as soon as the clock moves further.
    let now = anchor("a", 11_000, NOW + 6000 + 2);
    assert_eq!(age(&state.rebase(&now), &now), 3600 + 6000);
}

#[test]
fn across_boots_the_time_in_between_does_not_count() {
    for wall in [NOW + 10 * DAY, NOW, NOW - 10 * DAY, 0] {
        let now = anchor("b", 9000, wall);
        assert_eq!(age(&stored().rebase(&now), &now), 3600);
    }
    // The same boot with a clock that went back: a restored snapshot.
    let now = anchor("a", 4000, NOW + DAY);
    assert_eq!(age(&stored().rebase(&now), &now), 3600);
}

#[test]
fn without_an_anchor_the_times_stay() {
    let old = GuardState {
        clock: None,
        ..stored()
    };
    let now = anchor("a", 5000, NOW + DAY);
    let state = old.rebase(&now);
    assert_eq!(state.hold, old.hold);
    assert_eq!(state.hold_down, old.hold_down);
    assert_eq!(state.clock, Some(now));
    assert!(!state.differs_from(&old));
    assert!(state.needs_new_anchor(&old));
}

#[test]
fn states_with_other_clocks_only_are_equal() {
    for now in [
        anchor("a", 5060, NOW + 60),
        anchor("a", 5060, NOW - DAY),
        anchor("b", 10, NOW + DAY),
    ] {
        let state = stored().rebase(&now);
        assert!(!state.differs_from(&stored()));
        let seen = GuardState {
            hold: state.hold.clone().map(|hold| Hold {
                last_seen: now.wall_s,
                ..hold
            }),
            ..state.clone()
        };
        assert!(seen.differs_from(&stored()));
        let ended = GuardState {
            hold_down: Vec::new(),
            ..state
        };
        assert!(ended.differs_from(&stored()));
    }
}

/// The seconds of both clocks begin at different moments, so a jump is measured one too long or too
/// short. A hold-down that began at the present of one judgement is in the future of no later one,
/// and the memory needs no writing.
#[test]
fn time_of_a_judgement_is_never_later_than_the_next_present() {
    let before = GuardState {
        hold: None,
        hold_down: vec![HoldDown {
            since: NOW,
            ..stored().hold_down[0].clone()
        }],
        ..stored()
    };
    assert_eq!(before.present(), Some(NOW));
    let config = GuardConfig {
        hold_down: std::time::Duration::from_secs(86_400),
        ..GuardConfig::default()
    };
    for (wall_ms, jump, later_ms) in [0, 1, 500, 999]
        .into_iter()
        .flat_map(|phase| [2 * DAY, -2 * DAY, 2, 1, 0, -1, -2].map(|jump| (phase, jump)))
        .flat_map(|(phase, jump)| [0, 1, 600, 1999].map(|later| (phase, jump, later)))
    {
        // The boot clock was read just after its second began.
        let now = anchor(
            "a",
            5000 + later_ms / 1000,
            (NOW * 1000 + wall_ms + later_ms as i64) / 1000 + jump,
        );
        let state = before.rebase(&now);
        let present = state.present().unwrap();
        let pruned = GuardState {
            hold_down: prune(&state.hold_down, &PrefixSet::default(), &config, present),
            ..state
        };
        assert!(!pruned.differs_from(&before), "{wall_ms} {jump} {later_ms}");
    }
}

#[test]
fn an_anchor_is_renewed_while_clocks_run() {
    for (now, renewed) in [
        (anchor("a", 5599, NOW + 599), false),
        (anchor("a", 5600, NOW + 600), true),
        (anchor("a", 5010, NOW + DAY), false),
        (anchor("a", 10, NOW), true),
        (anchor("b", 5010, NOW + 10), true),
    ] {
        let state = stored().rebase(&now);
        assert_eq!(state.needs_new_anchor(&stored()), renewed, "{now:?}");
        let empty = GuardState {
            clock: stored().clock,
            ..GuardState::default()
        };
        assert!(!empty.rebase(&now).needs_new_anchor(&empty));
    }
}

#[test]
fn extreme_clocks_do_not_overflow() {
    let mut state = stored();
    for (boottime, wall) in [(u64::MAX, i64::MAX), (0, i64::MIN), (u64::MAX, 0)] {
        state = state.rebase(&anchor("a", boottime, wall));
    }
}

/// An event between two passes.
#[derive(Debug, Clone)]
enum ClockStep {
    /// Seconds go by, milliseconds too.
    Wait(u64),
    Jump(i64),
    /// Off for so many seconds, on with the clock so many seconds beside the truth.
    Reboot(i64, i64),
}

fn step() -> impl Strategy<Value = ClockStep> {
    prop_oneof![
        6 => (0u64..4_000_000).prop_map(ClockStep::Wait),
        2 => (-100 * DAY..100 * DAY).prop_map(ClockStep::Jump),
        2 => (-3i64..=3).prop_map(ClockStep::Jump),
        1 => (0..DAY, -DAY..DAY).prop_map(|(off, wrong)| ClockStep::Reboot(off, wrong)),
    ]
}

proptest! {
    /// A pass after each step, like `keep_documents`: the age in the memory is the machine's running
    /// time minus the time forgotten by reboots, within one or two seconds of rounding.
    #[test]
    fn age_is_the_time_that_went_by(steps in prop::collection::vec(step(), 1..100)) {
        // Milliseconds: of the boot clock, of the wall clock, of the truth.
        let (mut boot, mut wall) = (5_000_000u64, NOW * 1000);
        let (mut boots, mut ran, mut forgotten) = (0, 0i64, 0i64);
        let mut file = stored();
        let mut written_at = 0i64;
        for step in steps {
            match step {
                ClockStep::Wait(ms) => {
                    boot += ms;
                    wall += ms as i64;
                    ran += ms as i64;
                }
                ClockStep::Jump(seconds) => wall += seconds * 1000,
                ClockStep::Reboot(off, wrong) => {
                    boots += 1;
                    boot = 4000;
                    wall += (off + wrong) * 1000;
                    // The boot's first seconds pass before the first pass.
                    forgotten += ran - written_at;
                }
            }
            let now = anchor(&boots.to_string(), boot / 1000, wall.div_euclid(1000));
            // The first boot's name in the stored state is "a".
            let now = if boots == 0 { Anchor { boot_id: "a".into(), ..now } } else { now };
            let state = file.rebase(&now);
            let expected = 3600 + (ran - forgotten) / 1000;
            let error = age(&state, &now) - expected;
            prop_assert!(error.abs() <= 2 + boots, "off by {error} s after {boots} boots");
            prop_assert!(!state.differs_from(&file));
            if state.needs_new_anchor(&file) {
                file = state;
                written_at = ran;
            }
        }
    }
}
