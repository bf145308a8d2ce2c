//! Servers for each NAT: a model of backup servers in network namespaces, with real TCP and the release
//! binary. `make headline`, under three minutes.
//!
//! Each server reads from a customer's site through the NAT's fixed address and writes to S3. The NAT's
//! uplink is shaped. Four ways of steering, each with more and more servers, until the NAT is
//! saturated or the ladder ends. Prints a table, PASS or FAIL for each bound, and writes
//! `target/headline.json`, `docs/headline.md` and `docs/headline.svg`; exits 1 on a FAIL.

mod arena;
mod chart;
mod far;
mod load;
mod machine;
mod model;
mod money;
mod page;
mod report;
mod series;
mod steer;
mod verdict;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use arena::Arena;
use machine::Machine;
use model::Model;
use report::Report;
use series::{Series, Way};

/// An error ends the run with its message.
type Res<T> = Result<T, Box<dyn Error>>;

/// The nice value of the run, where permitted.
const PRIORITY: i32 = -10;

/// Servers for each NAT, without and with a bypass of S3.
#[derive(Debug, Parser)]
struct Arguments {
    /// The NAT's uplink in each direction, in Mbit/s.
    #[arg(long, default_value_t = 10.0)]
    uplink: f64,
    /// Reads and writes of a server together, in Mbit/s.
    #[arg(long, default_value_t = 1.83)]
    server: f64,
    /// The share of S3 in a server's traffic.
    #[arg(long, default_value_t = 0.975)]
    s3_share: f64,
    /// Dollars per GB through a NAT gateway.
    #[arg(long, default_value_t = 0.045)]
    price: f64,
    /// Numbers of servers, ascending.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1,2,3,4,5,6,8,10,25,50,100,150,200,210,215,225,250"
    )]
    ladder: Vec<usize>,
    /// The directory of the page and of the chart.
    #[arg(long, default_value = "docs")]
    pages: PathBuf,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A late load generator sends bursts. Only root may ask for more than the usual priority.
    let _ = rustix::process::setpriority_process(None, PRIORITY);
    match lab::enter("headline") {
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
        Ok(Some(code)) => return ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Ok(None) => {}
    }
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the run could not be carried out: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures, prints and writes everything; true if all bounds hold.
fn run(arguments: &Arguments) -> Res<bool> {
    let started = Instant::now();
    let model = Model {
        uplink: arguments.uplink * 1e6,
        server: arguments.server * 1e6,
        s3_share: arguments.s3_share,
        price: arguments.price,
    };
    model.check()?;
    let ladder = &arguments.ladder;
    if !ladder.is_sorted_by(|one, next| one < next) || ladder.first() < Some(&1) {
        return Err("the ladder must ascend from 1 or more".into());
    }
    let most = ladder.last().copied().unwrap_or(0);
    let arena = Arena::new(most, model.uplink)?;
    eprintln!(
        "{most} servers are up after {:.1} s",
        started.elapsed().as_secs_f64()
    );
    let seen = far::start(&arena, Duration::from_secs_f64(model.read_interval()))?;
    let mut series: Vec<Series> = Vec::new();
    for way in steer::IN_TURN {
        let ladder = series
            .first()
            .map_or(ladder.clone(), |one| shortened(ladder, one.capacity));
        series.push(steer::measure(way, &arena, &model, &seen, &ladder)?);
    }
    series.sort_by_key(|one| Way::ALL.iter().position(|way| *way == one.way));
    let machine = Machine::describe(arena::output, steer::BINARY)?;
    let report = Report::new(model, series, machine, started.elapsed());
    println!("{}", report.text());
    write(&Path::new("target").join("headline.json"), &report.json()?)?;
    write(&arguments.pages.join("headline.md"), &report.page())?;
    write(&arguments.pages.join("headline.svg"), &report.chart()?)?;
    Ok(report.all_hold())
}

/// The ladder of a way with a bypass, without most of the numbers around the capacity without one.
fn shortened(ladder: &[usize], capacity: usize) -> Vec<usize> {
    let first = ladder.first().copied();
    let kept =
        |servers: usize| Some(servers) == first || servers == capacity || servers >= 2 * capacity;
    ladder
        .iter()
        .copied()
        .filter(|servers| kept(*servers))
        .collect()
}

fn write(path: &Path, text: &str) -> Res<()> {
    let told = |error| format!("cannot write {}: {error}", path.display());
    Ok(std::fs::write(root(path), text).map_err(told)?)
}

/// A path below the project's directory, wherever the run was started.
fn root(path: &Path) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
