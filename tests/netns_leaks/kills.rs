//! The first pass after a boot, killed before each of its steps: no frame to the internet is wrong, from
//! the shut state until a later pass has ended.

use std::time::Duration;

use crate::killed::{dies, killed_before};
use crate::machines::{Backend, Phase, Role, lab_of};
use crate::matrix::is_long;
use crate::scene::Scene;
use crate::wire;
use lab::*;

/// Without TRAILBLAZER_LONG one step of this many: a boot takes its time.
const STRIDE: usize = 7;

fn killed_between_steps(role: Role, backend: Backend) {
    let product = if role.is_host() {
        trailblazer::config::Role::Host
    } else {
        trailblazer::config::Role::Nat
    };
    if dies(product) {
        return;
    }
    let lab = lab_of(role);
    let mut scene = Scene::new(&lab, role, backend);
    let stride = if is_long() { 1 } else { STRIDE };
    let mut boots = 0;
    for step in (0..).step_by(stride) {
        scene.enter(Phase::Boot);
        let killed = killed_before(scene.ns(), scene.machine.config(), step);
        scene.window();
        scene.converge();
        scene.window();
        scene.pause();
        let seen = wire::seen(&lab);
        let strangers = seen.kinds.iter().map(|kinds| {
            let strange = kinds
                .iter()
                .filter(|(kind, _)| kind.contains("foreign source"));
            strange.map(|(_, packets)| packets).sum::<u64>()
        });
        // A NAT that is shut knows the clients of `[nat] sources` alone.
        let stated: Vec<u64> = strangers
            .map(|all| if role.is_host() { 0 } else { all })
            .collect();
        assert_eq!(
            seen.wrong.to_vec(),
            stated,
            "killed before step {step}: {seen:?}"
        );
        assert!(
            !seen.right.contains(&0),
            "killed before step {step}: {seen:?}"
        );
        boots += 1;
        if !killed {
            break;
        }
    }
    println!("{role:?}, {backend:?}: {boots} boots, each {stride} steps");
    assert!(boots > 1, "the pass has steps");
}

macro_rules! kills {
    ($($name:ident, $role:ident, $backend:ident;)*) => { $(
        #[test]
        fn $name() {
            Isolation::default()
                .deadline(Duration::from_secs(1800))
                .run(|| killed_between_steps(Role::$role, Backend::$backend));
        }
    )* };
}

kills! {
    first_pass_of_a_host_killed_before_each_step_lets_nothing_out, Host, Nftables;
    first_pass_of_a_nat_killed_before_each_step_lets_nothing_out, NatTwo, Nftables;
}
