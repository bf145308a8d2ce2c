//! Whole passes against the kernel, compared with `ip -batch`, BIRD 2 and the floor: the same
//! netlink messages, prepared and sent raw.
//!
//! `cargo bench --bench passes -- --quick` or `-- --full`, which also writes
//! `docs/benchmarks.md`. Names of measurements (`routes`, `foreign`, `oneshot`, `flows`, `flush`,
//! `news`, `million`) leave out the others. Everything happens in separate namespaces. Prints a table and PASS or FAIL
//! for each bound; exits 1 on a FAIL. The bounds are ratios within one run, since machines and their
//! noise differ.

mod arena;
mod binary;
mod bounds;
#[path = "../agent/daemon.rs"]
#[allow(dead_code)]
mod daemon;
mod documents;
mod floor;
mod flows;
#[path = "../agent/flush.rs"]
mod flush;
mod foreign;
#[path = "../agent/host.rs"]
#[allow(dead_code)]
mod host;
mod million;
mod news;
mod oneshot;
mod page;
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

/// A measurement that adds its bounds.
type Measurement = fn(Mode, &mut Bounds) -> Res<()>;

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

/// The names of the measurements, for the command line.
const NAMES: [&str; 7] = [
    "routes", "foreign", "oneshot", "flows", "flush", "news", "million",
];

/// True if the command line names measurements.
fn has_names() -> bool {
    std::env::args().any(|argument| NAMES.contains(&argument.as_str()))
}

/// True for a measurement that the command line names, and for each without names.
fn wanted(name: &str) -> bool {
    !has_names() || std::env::args().any(|argument| argument == name)
}

/// The size of the bounds: about all of AWS.
const BOUND_SIZE: usize = 11_000;
/// The prefixes of one region's S3, roughly.
const REGION_SIZE: usize = 21;
/// The routes of a flush: more than all of AWS.
const MANY: usize = 16_000;

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
    if wanted("routes") {
        let rivals = rivals::Rivals::find();
        for (size, rounds) in mode.sizes() {
            compare(size, rounds, &rivals, &mut table, &mut bounds)?;
        }
        println!("{}", table.text());
        println!("{}", table.noise());
    }
    let others: [(&str, Measurement); 4] = [
        ("foreign", foreign::measure),
        ("oneshot", oneshot::measure),
        ("flows", flows::measure),
        ("flush", flush::measure),
    ];
    for (name, measure) in others {
        if wanted(name) {
            measure(mode, &mut bounds)?;
        }
    }
    let news = if wanted("news") {
        news::measure(mode, &mut bounds)?
    } else {
        Vec::new()
    };
    let million = if wanted("million") {
        million::measure(mode, &mut bounds)?
    } else {
        samples::Rows::default()
    };
    binary::inspect(&mut bounds)?;
    if mode == Mode::Full && !has_names() {
        page::write(&table, &million, &news, &bounds)?;
    }
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
    if size == REGION_SIZE {
        bounds.of_region(size, &rows);
    }
    table.add(size, rows);
    Ok(())
}
