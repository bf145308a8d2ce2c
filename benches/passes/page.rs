//! The page `docs/benchmarks.md`, written by the full mode and by nothing else.

use std::fmt::Write;
use std::process::Command;

use super::bounds::Bounds;
use super::million::PREFIXES;
use super::news::News;
use super::samples::{CONTENDERS, OPERATIONS, Rows, Samples, Table, cell};
use super::{Res, arena};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/benchmarks.md");

const METHOD: &str = "# What a pass costs

`cargo bench --locked --bench passes -- --full` has measured and written this page; edits are lost at \
the next run. `make bench` measures the same with fewer rounds.

## Method

Each contender lives a whole life in a network namespace of its own: the first installation, a pass \
without changes, one more prefix, the removal. The lives are interleaved round by round, so that a \
disturbance of the machine affects all contenders; the first round warms caches and does not count. \
Times are medians; a ratio is the median of the ratios of all rounds. Only ratios compare between \
machines. State files lie on a tmpfs.

| contender | work |
|---|---|
| floor | the same netlink messages, prepared beforehand and sent raw, those of the firewall as a replayed record; for the pass without changes a raw dump of the table. Nothing is compared, verified or stored. |
| trailblazer | the pass as a function call: source, guard, plan, apply, verify, journal, and the firewall of the host role |
| process | the same in a process of its own, from fork to exit |
| `ip -batch` | one line for each prefix; `route replace` of all prefixes for the pass without changes |
| ip and nft | the same script with `nft -f` first, which replaces the table of a pass in one transaction |
| BIRD 2 | a running daemon with static routes, from `birdc configure` until the table holds the routes |

`ip -batch` and BIRD install routes alone. A pass of trailblazer also installs and verifies policy \
rules and the firewall; the floor has both, and verifies nothing.

";

/// Writes the page.
pub fn write(table: &Table, million: &Rows, news: &[News], bounds: &Bounds) -> Res<()> {
    let mut text = METHOD.to_owned();
    writeln!(text, "## Machine\n\n{} {}\n", arena::machine(), versions())?;
    text.push_str("## Routes\n\nMedians in ms.\n\n");
    text.push_str(&routes(table)?);
    writeln!(
        text,
        "\n## {PREFIXES} prefixes\n\n| whole process | ms | MiB at the peak |\n|---|---|---|"
    )?;
    for operation in &OPERATIONS[..3] {
        let (took, peak) = (
            million.get("process", operation),
            million.get("peak", operation),
        );
        writeln!(
            text,
            "| {operation} | {} | {:.0} |",
            cell(&took),
            peak.quantile(1.0)
        )?;
    }
    text.push_str(
        "\n## The running agent\n\nA document with one prefix more; the request for a look at the source \
         starts the clock of the first column.\n\n| prefixes | until in force (ms) | its pass (ms) | raw \
         message and parse (ms) |\n|---|---|---|---|\n",
    );
    for one in news {
        let [kick, pass, needed] = [&one.from_kick, &one.pass, &one.needed].map(cell_of);
        writeln!(text, "| {} | {kick} | {pass} | {needed} |", one.prefixes)?;
    }
    writeln!(text, "\n## Bounds\n\n```text\n{}```\n", bounds.text())?;
    text.push_str(&losses(table, bounds)?);
    Ok(std::fs::write(PATH, text)?)
}

fn cell_of(samples: &Samples) -> String {
    cell(samples)
}

fn routes(table: &Table) -> Res<String> {
    let mut text = format!("| prefixes | | {} |\n|---|---|", CONTENDERS.join(" | "));
    text.push_str(&"---|".repeat(CONTENDERS.len()));
    text.push('\n');
    for (size, rows) in &table.0 {
        for operation in OPERATIONS {
            let cells = CONTENDERS.map(|contender| cell(&rows.get(contender, operation)));
            writeln!(text, "| {size} | {operation} | {} |", cells.join(" | "))?;
        }
    }
    Ok(text)
}

/// The operations in which another program is faster than our process, and the bounds that fail.
fn losses(table: &Table, bounds: &Bounds) -> Res<String> {
    let mut text = "## Where we lose\n\n".to_owned();
    for (size, rows) in &table.0 {
        for operation in &OPERATIONS[..3] {
            let ours = rows.get("process", operation).median();
            for other in ["ip -batch", "BIRD 2"] {
                let theirs = rows.get(other, operation).median();
                if theirs < ours {
                    writeln!(
                        text,
                        "- {size} prefixes, {operation}: {other} {theirs:.2} ms, our process {ours:.2} ms"
                    )?;
                }
            }
        }
    }
    for failure in bounds.failures() {
        writeln!(text, "- bound missed: {failure}")?;
    }
    Ok(text)
}

/// The versions of the programs, as each program tells its own.
fn versions() -> String {
    let first_line = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output().ok()?;
        let text = if output.stdout.is_empty() {
            output.stderr
        } else {
            output.stdout
        };
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines().next().map(str::to_owned)
    };
    let all = [
        Some(format!("trailblazer {}", env!("CARGO_PKG_VERSION"))),
        first_line("ip", "-V"),
        first_line("bird", "--version"),
    ];
    format!(
        "{}.",
        all.into_iter().flatten().collect::<Vec<_>>().join(", ")
    )
}
