//! The verdict of an earlier process.

use super::world::*;
use crate::health::*;

#[test]
fn bypass_that_was_down_before_a_restart_stays_out_of_use_until_it_answers() {
    for seed in 1..20 {
        let mut world = World::new(1, seed);
        let now = world.now;
        world.watch.take_over(BYPASS, now);
        world.truth.dead = [BYPASS].into();
        for _ in 0..60 {
            world.wait(seconds(1));
            assert!(!world.health.is_in_use(BYPASS));
        }
        assert_eq!(world.state(BYPASS).why, Why::Before);
        world.truth.dead.clear();
        // The hold is as long as the outage.
        world.until(BYPASS, true, seconds(70));
    }
}
