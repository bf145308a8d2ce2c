//! The price of a packet: CPU time with the rules of the release binary, beside the same path without
//! us, with conntrack alone, MASQUERADE alone, the rules of fck-nat, and a rule of iptables for each
//! prefix.
//!
//! `cargo bench --bench packets -- --quick` (about three minutes on an idle machine) or `-- --full`.
//! `host` limits the run to packets of the host's own sockets, `nat` to forwarded packets. Every
//! contender has its own network namespaces, which stay for the whole run, and the contenders take turns,
//! so that a disturbance of the machine affects all of them. Prints a table, the price of each part of
//! our rules, and PASS or FAIL for each bound; exits 1 on a FAIL.
//!
//! The sender's CPU time is measured and not the time of the clock: the kernel delivers a packet over
//! veth links inside of the sender's system call, forwarding included. On a kernel with
//! `CONFIG_IRQ_TIME_ACCOUNTING` forwarding would be missing from the figure; the benchmark refuses to
//! run there.

#[path = "../passes/arena.rs"]
#[allow(dead_code)]
mod arena;
#[path = "../passes/bounds.rs"]
#[allow(dead_code)]
mod bounds;
mod contenders;
#[path = "../passes/documents.rs"]
#[allow(dead_code)]
mod documents;
mod parts;
mod probes;
mod report;
mod rivals;
#[path = "../passes/samples.rs"]
#[allow(dead_code)]
mod samples;
mod scene;
mod subject;

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use rustix::process::geteuid;

use bounds::Bounds;
use contenders::{Contender, Firewall, Role};
use probes::{PROBES, Target};
use report::Figures;

/// An error ends the benchmark with its message.
type Res<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    if !arena::inside() {
        // Inside a user namespace the kernel limits the buffer of a socket, and iptables cannot hand over
        // thousands of rules at once.
        return if geteuid().is_root() {
            arena::enter_with("-nmpf")
        } else {
            arena::enter()
        };
    }
    match run() {
        Ok(bounds) if bounds.all_hold() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the benchmark could not be carried out: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Res<Bounds> {
    let started = Instant::now();
    let asked = |word: &str| std::env::args().any(|argument| argument == word);
    let rounds = if asked("--full") { 31 } else { 7 };
    let one_role = Role::ALL.into_iter().any(|role| asked(role.as_str()));
    arena::prepare()?;
    probes::softirqs_count()?;
    let mut bounds = Bounds::default();
    for role in Role::ALL {
        if !one_role || asked(role.as_str()) {
            let figures = measure(role, rounds)?;
            println!("{}", figures.text());
            for firewall in Firewall::ALL {
                println!("{}", figures.parts(firewall));
            }
            figures.judge(&mut bounds);
        }
    }
    println!("{}", bounds.text());
    println!(
        "{rounds} rounds took {:.0} s. {}",
        started.elapsed().as_secs_f64(),
        arena::machine()
    );
    Ok(bounds)
}

/// All contenders of a role, in turn.
fn measure(role: Role, rounds: usize) -> Res<Figures> {
    let contenders = Contender::all(role);
    let scenes: Vec<_> = contenders
        .iter()
        .enumerate()
        .map(|(number, contender)| contender.scene(number))
        .collect::<Res<_>>()?;
    let mut figures = Figures::new(role, &contenders);
    // The first round warms caches, neighbours and the kernel's slabs, and does not count.
    for round in 0..=rounds {
        for (number, scene) in scenes.iter().enumerate() {
            for (probe, name) in PROBES.iter().zip(probes::NAMES) {
                scene.forget_flows()?;
                let measured = |target: &Target| {
                    let of_part = Target::OF_PARTS.contains(target);
                    (of_part || !contenders[number].shows_a_part()) && scene.serves(*target)
                };
                for target in Target::ALL.into_iter().filter(measured) {
                    let cost = probe(scene, target)?;
                    if round > 0 {
                        figures.push(number, name, target, cost);
                    }
                }
            }
        }
        eprint!("\r{}: round {round} of {rounds} ", role.as_str());
    }
    eprintln!();
    Ok(figures)
}
