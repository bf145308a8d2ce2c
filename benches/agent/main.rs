//! The release build of the agent: speed of repairs, cost at rest and in a storm.
//!
//! `cargo bench --bench agent -- --quick` (about three minutes), `-- --full` (half an hour) or `--
//! --soak`. Names of single measurements (`drift`, `flush`, `start`, `storm`, `rest`) leave out the
//! others. Everything happens in separate namespaces. Prints the figures, and PASS or FAIL for each
//! bound; exits 1 on a FAIL.

#[path = "../passes/arena.rs"]
mod arena;
#[path = "../passes/bounds.rs"]
#[allow(dead_code)]
mod bounds;
mod daemon;
#[path = "../passes/documents.rs"]
mod documents;
mod drift;
#[path = "../passes/floor.rs"]
#[allow(dead_code)]
mod floor;
mod flush;
mod host;
#[path = "../passes/raw.rs"]
mod raw;
mod rest;
#[path = "../passes/samples.rs"]
#[allow(dead_code)]
mod samples;
mod soak;
mod start;
mod storm;
#[path = "../passes/subject.rs"]
#[allow(dead_code)]
mod subject;
mod web;
mod wire;
mod years;

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use bounds::Bounds;

/// An error ends the benchmark with its message.
type Res<T> = Result<T, Box<dyn Error>>;

/// Prefixes where there are many: more than all of AWS.
const MANY: usize = 16_000;
/// Prefixes of one region's S3, roughly.
const REGION: usize = 21;

/// The duration of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Quick,
    Full,
}

type Measurement = fn(Mode, &mut Bounds) -> Res<()>;
const MEASUREMENTS: [(&str, Measurement); 4] = [
    ("drift", drift::measure),
    ("flush", flush::measure),
    ("start", start::measure),
    ("storm", storm::measure),
];

fn main() -> ExitCode {
    if !arena::inside() {
        return arena::enter();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(bounds) if bounds.all_hold() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the benchmark could not be carried out: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Res<Bounds> {
    let started = Instant::now();
    let given = |name: &str| arguments.iter().any(|argument| argument == name);
    let mode = if given("--full") {
        Mode::Full
    } else {
        Mode::Quick
    };
    arena::prepare()?;
    println!("{}", arena::machine());
    let mut bounds = Bounds::default();
    if given("--soak") {
        soak::measure(&mut bounds)?;
    } else {
        let single = MEASUREMENTS.iter().any(|(name, _)| given(name)) || given("rest");
        let wanted = |name| !single || given(name);
        // Resting takes long and disturbs nobody: the other measurements go on meanwhile.
        let rest = if wanted("rest") {
            Some(rest::Rest::begin(mode)?)
        } else {
            None
        };
        for (name, measure) in MEASUREMENTS {
            if wanted(name) {
                eprintln!("{name}");
                measure(mode, &mut bounds)?;
            }
        }
        if let Some(rest) = rest {
            rest.end(&mut bounds)?;
        }
    }
    println!("{}", bounds.text());
    println!(
        "{:.0} s. {}",
        started.elapsed().as_secs_f64(),
        arena::machine()
    );
    Ok(bounds)
}
