//! Whole passes against the kernel, compared with `ip -batch`, BIRD 2 and the floor: the same
//! netlink messages, prepared and sent raw.
//!
//! `cargo bench --bench passes -- --quick` (under three minutes) or `-- --full`. Everything happens
//! in separate namespaces. Prints a table and PASS or FAIL for each bound; exits 1 on a FAIL. The
//! bounds are ratios within one run, since machines and their noise differ.

mod arena;
mod binary;
mod bounds;
mod documents;
mod floor;
mod flows;
mod foreign;
mod oneshot;
mod raw;
mod rivals;
mod samples;
mod subject;

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use bounds::Bounds;
use samples::Table;

/// An error ends the benchmark with its message.
type Res<T> = Result<T, Box<dyn Error>>;

/// The duration of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Quick,
    Full,
}

impl Mode {
    fn from_arguments() -> Mode {
        if std::env::args().any(|argument| argument == "--full") {
            Mode::Full
        } else {
            Mode::Quick
        }
    }

    /// Numbers of prefixes, and how many interleaved rounds each gets.
    fn sizes(self) -> [(usize, usize); 4] {
        match self {
            Mode::Quick => [(21, 11), (441, 11), (11_000, 11), (100_000, 3)],
            Mode::Full => [(21, 31), (441, 31), (11_000, 31), (100_000, 7)],
        }
    }
}

/// The size of the bounds: about all of AWS.
const BOUND_SIZE: usize = 11_000;

fn main() -> ExitCode {
    if !arena::inside() {
        return arena::enter();
    }
    match run(Mode::from_arguments()) {
        Ok(bounds) if bounds.all_hold() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the benchmark could not be carried out: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mode: Mode) -> Res<Bounds> {
    let started = Instant::now();
    arena::prepare()?;
    let mut bounds = Bounds::default();
    let mut table = Table::default();
    let rivals = rivals::Rivals::find();
    for (size, rounds) in mode.sizes() {
        compare(size, rounds, &rivals, &mut table, &mut bounds)?;
    }
    println!("{}", table.text());
    println!("{}", table.noise());
    foreign::measure(mode, &mut bounds)?;
    oneshot::measure(mode, &mut bounds)?;
    flows::measure(mode, &mut bounds)?;
    binary::inspect(&mut bounds)?;
    println!("{}", bounds.text());
    println!(
        "{mode:?} mode took {:.0} s. {}",
        started.elapsed().as_secs_f64(),
        arena::machine()
    );
    Ok(bounds)
}

/// One size: each round is a whole life (first installation, no-op, one prefix more, removal) of
/// every contender in turn, so that disturbances of the machine affect all of them.
fn compare(
    size: usize,
    rounds: usize,
    rivals: &rivals::Rivals,
    table: &mut Table,
    bounds: &mut Bounds,
) -> Res<()> {
    let ns = arena::Ns::create(&format!("size{size}"))?;
    ns.enter()?;
    let mut subject = subject::Subject::new(&format!("size{size}"), size)?;
    let mut rows = samples::Rows::default();
    let mut messages = Vec::new();
    // The first round warms caches and the kernel's slabs, and does not count.
    for round in 0..=rounds {
        let mut life = samples::Rows::default();
        let plan = subject.live(&mut life, &mut messages)?;
        arena::settle(size);
        floor::live(&plan, &subject, &mut life)?;
        arena::settle(size);
        rivals.live(&subject, &mut life)?;
        arena::settle(size);
        if round > 0 {
            rows.append(life);
        }
        eprint!("\r{size} prefixes: round {round} of {rounds} ");
    }
    eprintln!();
    bounds.exactly_one_message(size, &messages);
    if size == BOUND_SIZE {
        bounds.of_routes(&rows);
    }
    table.add(size, rows);
    Ok(())
}
