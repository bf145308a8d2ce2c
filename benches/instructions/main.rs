//! The instructions of the pure stages at 17,000 rows, counted by callgrind: a regression shows without
//! a clock, on a busy machine too. `make bench-instructions`, and a part of `make test-long`.
//!
//! Each stage runs in a process of its own under valgrind, once without and once with the stage itself;
//! the difference is the price of the stage. The baseline lies beside this file: with
//! `TRAILBLAZER_BLESS=1` the counts become the baseline. Another compiler or architecture gives other
//! counts.

#[path = "../passes/documents.rs"]
mod documents;
#[path = "../passes/goals.rs"]
mod goals;
mod stages;

use std::collections::BTreeMap;
use std::error::Error;
use std::process::{Command, ExitCode};

use stages::STAGES;

/// The largest growth of a stage's count.
const MOST_GROWTH: f64 = 1.10;

const BASELINE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/benches/instructions/baseline.txt"
);

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["stage", name, rounds] => {
            let stage = STAGES.iter().find(|(known, _)| *known == name);
            let (_, run) = stage.ok_or_else(|| format!("no stage {name}"))?;
            run(rounds.parse()?)?;
            Ok(ExitCode::SUCCESS)
        }
        // cargo passes `--bench`.
        [] | ["--bench"] => compare(),
        _ => Err("usage: cargo bench --features fuzzing --bench instructions".into()),
    }
}

/// The instructions of a process that runs the stage this many times.
fn instructions(stage: &str, rounds: u8) -> Result<u64, Box<dyn Error>> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["stage", stage, &rounds.to_string()])
        .output()
        .map_err(|error| format!("valgrind does not start: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{stage} under valgrind: {}: {text}", output.status).into());
    }
    let count = text.lines().find_map(|line| line.split_once("Collected :"));
    let (_, count) = count.ok_or_else(|| format!("no count by valgrind: {text}"))?;
    Ok(count.trim().parse()?)
}

fn compare() -> Result<ExitCode, Box<dyn Error>> {
    let mut counts = BTreeMap::new();
    for (stage, _) in STAGES {
        let without = instructions(stage, 0)?;
        let count = instructions(stage, 1)?.saturating_sub(without);
        counts.insert(*stage, count);
    }
    if std::env::var_os("TRAILBLAZER_BLESS").is_some_and(|value| value == "1") {
        let lines = counts
            .iter()
            .map(|(stage, count)| format!("{stage} {count}\n"));
        std::fs::write(BASELINE, lines.collect::<String>())?;
        println!("wrote {BASELINE}");
    }
    let baseline = std::fs::read_to_string(BASELINE)?;
    let baseline: BTreeMap<&str, u64> = baseline
        .lines()
        .map(|line| {
            let (stage, count) = line
                .split_once(' ')
                .ok_or_else(|| format!("{BASELINE}: {line:?} is no stage with a count"))?;
            Ok((stage, count.parse()?))
        })
        .collect::<Result<_, Box<dyn Error>>>()?;
    println!(
        "{:<12} {:>14} {:>14} {:>7}",
        "stage", "instructions", "baseline", "ratio"
    );
    let mut all_hold = true;
    for (stage, count) in &counts {
        let before = baseline.get(stage).copied().unwrap_or(0);
        let ratio = *count as f64 / before as f64;
        let holds = before > 0 && ratio <= MOST_GROWTH;
        all_hold &= holds;
        let verdict = if holds { "PASS" } else { "FAIL" };
        println!("{stage:<12} {count:>14} {before:>14} {ratio:>7.3}  {verdict}");
    }
    println!(
        "bound: at most {MOST_GROWTH} times the baseline of each stage; below 0.9, write a new baseline"
    );
    Ok(match all_hold {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
