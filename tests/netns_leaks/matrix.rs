//! Cause x role x backend x phase: no frame to the internet is wrong. Each cause shows wrong frames
//! without our part.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::causes::{BULK_ALONE, CAUSES, Cause, FLUSH_IPTABLES, FLUSH_NFT, LINK_FLAPS};
use crate::machines::{Backend, Phase, Role, lab_of};
use crate::scene::Scene;
use crate::storm::KINDS;
use crate::wire::{self, Seen};
use lab::*;

const PHASES: [Phase; 4] = [Phase::Boot, Phase::OneShot, Phase::Running, Phase::Dead];

/// True for the whole matrix (make test-long).
pub fn is_long() -> bool {
    std::env::var_os("TRAILBLAZER_LONG").is_some_and(|value| value == "1")
}

/// The frames of one cell, from before the cause until after the repair.
fn cell(scene: &mut Scene, cause: &Cause, phase: Phase) -> (Seen, Duration) {
    scene.enter(phase);
    (cause.before)(scene, phase);
    if phase != Phase::Boot {
        scene.pause();
        wire::forget(scene.lab);
        scene.resume();
    }
    scene.window();
    cause.happen(scene, phase);
    scene.window();
    (cause.undo)(scene);
    let undone = Instant::now();
    scene.repaired(phase);
    let repair = undone.elapsed();
    scene.window();
    scene.pause();
    (wire::seen(scene.lab), repair)
}

/// One line for a person, and the names of the wrong kinds.
fn line(scene: &Scene, cause: &Cause, phase: Phase, seen: &Seen) -> String {
    let [right4, right6] = seen.right;
    let [wrong4, wrong6] = seen.wrong;
    let mut line = format!(
        "cell | {:?} | {:?} | {phase:?} | {} | {right4}/{right6} | {wrong4}/{wrong6} |",
        scene.role, scene.backend, cause.name
    );
    for (version, kinds) in ["ipv4", "ipv6"].iter().zip(&seen.kinds) {
        for (kind, packets) in kinds {
            line += &format!(" {version} {kind} {packets},");
        }
    }
    line
}

/// The wrong frames of a family that are no stated limit (docs/operation.md).
fn faults_of(scene: &Scene, cause: &Cause, phase: Phase, seen: &Seen, family: usize) -> u64 {
    if scene.backend == Backend::Alone && family == 1 {
        return 0;
    }
    let firewall_gone = cause.name.starts_with(FLUSH_NFT);
    // Nothing of ours looks at the packets of bound sockets then.
    if scene.role.is_host() && phase == Phase::Boot && firewall_gone {
        return 0;
    }
    // Rules of iptables return in several transactions.
    let by_iptables = [Backend::Iptables, Backend::Legacy].contains(&scene.backend);
    let stated = match phase {
        Phase::Boot => cause.name.starts_with(FLUSH_IPTABLES),
        _ => {
            let links = [LINK_FLAPS, BULK_ALONE].contains(&cause.name);
            scene.role == Role::NatBulk && (firewall_gone || links)
        }
    };
    if !scene.role.is_host() && by_iptables && stated {
        return 0;
    }
    let strangers = !scene.role.is_host() && (phase == Phase::Boot || cause.sources_alone);
    let kinds = seen.kinds[family].iter();
    let known = kinds.filter(|(kind, _)| strangers && kind.contains("foreign source"));
    seen.wrong[family] - known.map(|(_, packets)| packets).sum::<u64>()
}

fn matrix(role: Role, backend: Backend) {
    let lab = lab_of(role);
    let mut scene = Scene::new(&lab, role, backend);
    let mut faults = Vec::new();
    let mut cells = 0;
    for phase in PHASES {
        if backend == Backend::Alone && phase != Phase::OneShot {
            println!(
                "cell | {role:?} | {backend:?} | {phase:?} | cannot run: no process of the binary"
            );
            continue;
        }
        if phase != Phase::Boot {
            scene.pause();
        }
        if phase == Phase::OneShot && backend != Backend::Alone {
            scene.take_away();
        }
        let causes = CAUSES.iter().filter(|it| it.quick || is_long());
        for cause in causes.filter(|it| (it.applies)(role, backend, phase)) {
            let (seen, repair) = cell(&mut scene, cause, phase);
            let told = line(&scene, cause, phase, &seen);
            println!("{told} repaired {} ms", repair.as_millis());
            cells += 1;
            if (0..2).any(|family| faults_of(&scene, cause, phase, &seen, family) > 0) {
                faults.push(told.clone());
            }
            if phase != Phase::Boot && seen.right.contains(&0) {
                faults.push(format!("nothing has left: {told}"));
            }
        }
    }
    println!("{role:?}, {backend:?}: {cells} cells");
    counter_proofs(&mut scene, &mut faults);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Each cause without our part: with `enforce = false` on a host, else without the product.
fn counter_proofs(scene: &mut Scene, faults: &mut Vec<String>) {
    scene.take_away();
    let phases = if scene.role.is_host() && scene.backend != Backend::Alone {
        &[Phase::Open, Phase::Absent][..]
    } else {
        &[Phase::Absent]
    };
    let mut kinds = <[BTreeSet<String>; 2]>::default();
    for cause in CAUSES.iter().filter(|it| it.quick || is_long()) {
        let applies = |phase| (cause.applies)(scene.role, scene.backend, phase);
        if ![Phase::OneShot, Phase::Running].into_iter().any(applies) {
            continue;
        }
        let mut wrong = 0;
        for phase in phases {
            scene.enforce(*phase != Phase::Open);
            let (seen, _) = cell(scene, cause, *phase);
            println!("without, {}", line(scene, cause, *phase, &seen));
            wrong += seen.wrong.iter().sum::<u64>();
            if *phase == Phase::Absent {
                for (all, seen) in kinds.iter_mut().zip(seen.kinds) {
                    all.extend(seen.into_keys());
                }
            }
            if wrong > 0 {
                break;
            }
        }
        if wrong == 0 {
            faults.push(format!("without our part nothing leaks: {}", cause.name));
        }
    }
    for (version, kinds) in ["ipv4", "ipv6"].iter().zip(&kinds) {
        let missing = KINDS.iter().filter(|(name, _)| !kinds.contains(*name));
        faults.extend(missing.map(|(name, _)| format!("without our part, {version}: no {name}")));
    }
}

macro_rules! matrices {
    ($($name:ident, $role:ident, $backend:ident, $long:expr;)*) => { $(
        #[test]
        fn $name() {
            if $long && !is_long() {
                println!("not run: TRAILBLAZER_LONG=1 (make test-long) runs this part of the matrix");
                return;
            }
            Isolation::default()
                .deadline(Duration::from_secs(1800))
                .run(|| matrix(Role::$role, Backend::$backend));
        }
    )* };
}

matrices! {
    host_nftables, Host, Nftables, false;
    host_iptables, Host, Iptables, true;
    host_iptables_legacy, Host, Legacy, true;
    host_iptables_alone, Host, Alone, true;
    host_with_two_interfaces_nftables, HostTwo, Nftables, true;
    host_with_two_interfaces_iptables, HostTwo, Iptables, true;
    nat_two_addresses_nftables, NatTwo, Nftables, false;
    nat_two_addresses_iptables, NatTwo, Iptables, true;
    nat_two_addresses_iptables_legacy, NatTwo, Legacy, true;
    nat_one_interface_nftables, NatOne, Nftables, true;
    nat_one_interface_iptables, NatOne, Iptables, true;
    nat_one_interface_iptables_legacy, NatOne, Legacy, true;
    nat_bulk_nftables, NatBulk, Nftables, true;
    nat_bulk_iptables, NatBulk, Iptables, true;
    nat_bulk_iptables_legacy, NatBulk, Legacy, true;
}
