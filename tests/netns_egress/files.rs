//! Faults of the state directory and of the source.

use std::io::Write as _;

use trailblazer::state::lock::PassLock;

use crate::faults::{NONE, Row};
use crate::packets::Firewall;
use crate::scene::*;
use lab::*;

fn mount(scene: &Scene, options: &str) {
    let dir = scene.state_dir();
    std::fs::create_dir_all(&dir).unwrap();
    scene.shell(&format!("mount {options} {}", dir.display()));
}

fn unmount(scene: &Scene) {
    scene.shell(&format!("umount -l {}", scene.state_dir().display()));
}

/// A tmpfs without a free byte.
fn full_disk(scene: &Scene) {
    mount(scene, "-t tmpfs -o size=64k tmpfs");
    let mut filler = std::fs::File::create(scene.state_dir().join("filler")).unwrap();
    while filler.write_all(&[0; 512]).is_ok() {}
}

/// A pipe in the place of a file: opening it would wait for a reader.
fn pipe(scene: &Scene, name: &str) {
    let path = scene.state_dir().join(name);
    std::fs::create_dir_all(scene.state_dir()).unwrap();
    let _missing = std::fs::remove_file(&path);
    scene.shell(&format!("mkfifo {}", path.display()));
}

/// Another program holds the file of the lock until the mending.
fn lock_file(scene: &Scene) {
    let dir = scene.state_dir();
    scene.shell(&format!(
        "mkdir -p {dir}; flock {dir}/lock sleep 1000 >/dev/null 2>&1 & echo $! >{dir}.holder
         while flock -n {dir}/lock true; do sleep 0.02; done",
        dir = dir.display()
    ));
}

fn unlock_file(scene: &Scene) {
    let dir = scene.state_dir();
    // The sleep has the file open too.
    scene.shell(&format!(
        "pid=$(cat {dir}.holder); kill $(pgrep -P $pid) $pid",
        dir = dir.display()
    ));
}

/// The directory goes, with everything in it.
fn remove_state(scene: &Scene) {
    let _missing = std::fs::remove_dir_all(scene.state_dir());
}

pub const ROWS: &[Row] = &[
    Row {
        name: "lock file held by another program",
        early: lock_file,
        mend: unlock_file,
        names: &["state"],
        ..NONE
    },
    Row {
        name: "removed state directory",
        early: remove_state,
        late: remove_state,
        ..NONE
    },
    Row {
        name: "full disk",
        early: full_disk,
        mend: unmount,
        names: &["state"],
        ..NONE
    },
    Row {
        name: "read-only state directory",
        early: |scene| mount(scene, "-t tmpfs -o ro tmpfs"),
        mend: unmount,
        names: &["state"],
        ..NONE
    },
    Row {
        name: "pipe in place of the lock",
        early: |scene| pipe(scene, "lock"),
        mend: |scene| std::fs::remove_file(scene.state_dir().join("lock")).unwrap(),
        names: &["state"],
        ..NONE
    },
    Row {
        name: "pipe in place of the journal",
        early: |scene| pipe(scene, "journal.jsonl"),
        // A pass without changes writes no journal.
        running: false,
        mend: |scene| std::fs::remove_file(scene.state_dir().join("journal.jsonl")).unwrap(),
        names: &["state"],
        ..NONE
    },
    Row {
        name: "file in place of the state directory",
        early: |scene| {
            let _missing = std::fs::remove_dir_all(scene.state_dir());
            std::fs::write(scene.state_dir(), "").unwrap();
        },
        mend: |scene| std::fs::remove_file(scene.state_dir()).unwrap(),
        names: &["state"],
        ..NONE
    },
];

/// The first document comes late or never: the egress path waits for no source.
fn without_an_answer(kind: Kind, source: &str, firewall: Firewall) {
    let lab = lab_of(kind);
    lab.mirror.set_mode(MirrorMode::Silent);
    let mut scene = Scene::new(&lab, kind, firewall);
    let settings = scene.settings();
    scene
        .machine
        .ask(&source.replace("$MIRROR", &lab.mirror.url()));
    scene.machine.configure(&settings);
    for agent in [false, true] {
        scene.network_down();
        let probe = scene.probe();
        // The pass waits for the source in the background.
        let mut one_shot = scene.ns().spawn(&mut scene.machine.command(&["reconcile"]));
        let agent = agent.then(|| scene.machine.agent());
        eventually("the egress path is closed", || match kind {
            Kind::Host => scene.ns().ip("rule show").contains("lookup 1084"),
            Kind::Nat => {
                let listing = scene
                    .ns()
                    .exec(&["nft", "list", "table", "inet", "trailblazer"]);
                listing.code == Some(0)
            }
        });
        scene.network_up();
        probe.window();
        one_shot.wait().unwrap();
        scene.pass();
        probe.arrives(source, [false; 2], [true; 2]);
        probe.window();
        probe.assert_no_leak(source);
        drop(agent);
        drop(probe);
        scene.clean();
    }
}

/// Longer than a pass, shorter than the patience of a test.
const SILENT: &str = "url = \"$MIRROR\"\ntimeout = \"3s\"";
/// No program listens on the port.
const REFUSED: &str = "url = \"http://10.0.1.1:9/ip-ranges.json\"\ntimeout = \"3s\"";

#[test]
fn silent_source_delays_no_egress_path_of_a_host() {
    isolated(|| without_an_answer(Kind::Host, SILENT, Firewall::Nftables));
}

#[test]
fn silent_source_delays_no_egress_path_of_a_nat() {
    isolated(|| without_an_answer(Kind::Nat, SILENT, Firewall::Nftables));
}

#[test]
fn refused_source_delays_no_egress_path_of_a_host() {
    isolated(|| without_an_answer(Kind::Host, REFUSED, Firewall::Nftables));
}

/// Another pass holds the lock and doesn't end: the egress goes in by the settings alone. A NAT boots
/// without addresses, and without its translation the path stays closed.
fn pass_that_hangs(kind: Kind) {
    let lab = lab_of(kind);
    let scene = Scene::new(&lab, kind, Firewall::Nftables);
    let dir = scene.state_dir();
    let hold = || PassLock::acquire(&dir, "reconcile", SOON).unwrap();
    scene.network_down();
    let probe = scene.probe();
    let lock = scene.ns().in_thread(hold);
    let agent = scene.machine.agent();
    agent.wait_for("a failed pass", |status| {
        named(status).contains(&"failed".to_owned())
    });
    scene.network_up();
    probe.arrives("at boot", [false; 2], [kind == Kind::Host; 2]);
    probe.window();
    drop(lock);
    agent.wait_in_force();
    probe.arrives("without the lock", [true; 2], [true; 2]);
    let lock = scene.ns().in_thread(hold);
    scene.machine.run(&["kick"]);
    probe.window();
    probe.arrives("on a running machine", [true; 2], [true; 2]);
    drop(lock);
    agent.wait_in_force();
    probe.assert_no_leak("without the lock");
}

#[test]
fn egress_of_a_host_waits_for_no_pass_that_hangs() {
    isolated(|| pass_that_hangs(Kind::Host));
}

#[test]
fn egress_of_a_nat_waits_for_no_pass_that_hangs() {
    isolated(|| pass_that_hangs(Kind::Nat));
}
