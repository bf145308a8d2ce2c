//! Thousands of passes and a thousand documents, AWS's own of six years if available: no growth, no
//! failure.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use trailblazer::journal::DEFAULT_MAX_BYTES;
use trailblazer::status::snapshot::{Snapshot, State};

use super::Res;
use super::bounds::Bounds;
use super::daemon::Daemon;
use super::host::Host;
use super::web::Web;
use super::years::Years;

/// Requested passes, with documents published in between.
const PASSES: u64 = 10_000;
const DOCUMENTS: usize = 1000;
/// Figures are printed at this interval, in passes.
const STEP: u64 = 1000;
/// The largest growth of memory in the second half, in MiB: the noise of an allocator.
const MOST_GROWTH: f64 = 0.5;
/// The limit for each document and the passes in between; the fastest setting is a fetch a second.
const DOCUMENT_WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy)]
struct Figures {
    passes: u64,
    resident: f64,
    anonymous: f64,
    files: usize,
    threads: usize,
}

/// Kicks and publishes until both counts are reached.
pub fn measure(bounds: &mut Bounds) -> Res<()> {
    let mut years = Years::open(DOCUMENTS);
    let first = years.advance().ok_or("no document")?;
    let mut host = Host::new("soak", 0, first.clone())?;
    let web = Web::start("soak", first)?;
    host.source(&web.url())?;
    host.variable("SSL_CERT_FILE", web.authorities());
    let [regions, services] = years.selection();
    host.settings("regions = [\"us-east-1\"]", &format!("regions = {regions}"))?;
    host.settings("services = [\"S3\"]", &format!("services = {services}"))?;
    host.settings("[source]", "[source]\nrefresh = \"1s\"")?;
    let daemon = host.start()?;
    daemon.ready()?;
    let mut status = daemon.quiet()?;
    println!("soak, {}:", years.name());
    println!("  passes  documents  resident  anonymous  files  threads (MiB)");
    let (mut figures, mut published, started) = (Vec::new(), 1u64, Instant::now());
    loop {
        let next = years.advance();
        let more = next.is_some();
        if let Some(document) = next {
            web.publish(document);
            published += 1;
        }
        status = kick_until(&daemon, &status, more)?;
        let passes = status.pass_totals.duration.count;
        let due = figures.last().map_or(0, |last: &Figures| last.passes) + STEP;
        if passes >= due {
            let now = look(&daemon, passes)?;
            println!(
                "  {passes:>6}  {published:>9}  {:>8.2}  {:>9.2}  {:>5}  {:>7}",
                now.resident, now.anonymous, now.files, now.threads
            );
            figures.push(now);
        }
        if !more && passes >= PASSES {
            break;
        }
    }
    let status = daemon.quiet()?;
    println!("  {:.0} s", started.elapsed().as_secs_f64());
    judge_figures(&figures, bounds);
    judge_outcome(&status, published, bounds);
    let found: BTreeSet<IpNet> = host.routes()?.iter().map(|route| route.key.dst).collect();
    let wanted = years.routes();
    bounds.add(
        status.state == State::InForce && found == *wanted,
        "soak: in force in the end",
        format!(
            "{} of {} prefixes",
            found.intersection(wanted).count(),
            wanted.len()
        ),
    );
    let journal = size_of_journal(&host.subject.directory().join("state"))?;
    bounds.add(
        journal <= 2 * DEFAULT_MAX_BYTES,
        "soak: the journal is bounded",
        format!("{:.1} MiB, at most 16", journal as f64 / 1_048_576.0),
    );
    Ok(())
}

/// Kicks ten passes, and continues until the published document is in force.
fn kick_until(daemon: &Daemon, before: &Snapshot, published: bool) -> Res<Snapshot> {
    let changed = |status: &Snapshot| status.source.fetches.get("changed").copied();
    let started = Instant::now();
    let mut kicks = 0;
    loop {
        let seen = daemon.status()?.pass_totals.duration.count;
        daemon.kick()?;
        kicks += 1;
        let status =
            daemon.wait_for("a pass", |status| status.pass_totals.duration.count > seen)?;
        if kicks >= 10 && (!published || changed(&status) > changed(before)) {
            return Ok(status);
        }
        if started.elapsed() > DOCUMENT_WITHIN {
            let log = daemon.log();
            return Err(format!("a document isn't in force: {status:#?}; its log:\n{log}").into());
        }
        if kicks >= 10 {
            // The fetch takes the time; a pass now and then keeps the count going.
            thread::sleep(Duration::from_millis(100));
        }
    }
}

fn look(daemon: &Daemon, passes: u64) -> Res<Figures> {
    Ok(Figures {
        passes,
        resident: daemon.memory("VmRSS")?,
        anonymous: daemon.memory("RssAnon")?,
        files: daemon.files()?,
        threads: daemon.threads()?,
    })
}

fn judge_figures(figures: &[Figures], bounds: &mut Bounds) {
    let half = &figures[figures.len() / 2..];
    let memory: Vec<(f64, f64)> = half
        .iter()
        .map(|figures| (figures.passes as f64, figures.resident))
        .collect();
    let first = half.first().map_or(0, |figures| figures.passes);
    let span = half.last().map_or(0, |figures| figures.passes) - first;
    let growth = slope(&memory) * span as f64;
    bounds.add(
        growth.abs() < MOST_GROWTH || growth < 0.0,
        "soak: memory is steady over the second half",
        format!("{growth:+.2} MiB over {span} passes, at most {MOST_GROWTH}"),
    );
    let spread = |count: fn(&Figures) -> usize| {
        let counts: Vec<usize> = half.iter().map(count).collect();
        (counts.iter().copied().min(), counts.iter().copied().max())
    };
    for (what, (least, most)) in [
        ("files", spread(|figures| figures.files)),
        ("threads", spread(|figures| figures.threads)),
    ] {
        let (least, most) = (least.unwrap_or(0), most.unwrap_or(0));
        bounds.add(
            // A thread that answers a question or reads a file may exist at the moment.
            most <= least + 3,
            format!("soak: {what} are constant"),
            format!("{least} to {most}"),
        );
    }
}

/// Of a straight line through the points, by least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let (x, y) = points
        .iter()
        .fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
    let (x, y) = (x / count, y / count);
    let above: f64 = points
        .iter()
        .map(|point| (point.0 - x) * (point.1 - y))
        .sum();
    let below: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    if below > 0.0 { above / below } else { 0.0 }
}

fn judge_outcome(status: &Snapshot, published: u64, bounds: &mut Bounds) {
    let outcomes = &status.pass_totals.outcomes;
    let good = ["in_sync", "changed"];
    let bad: Vec<String> = outcomes
        .iter()
        .filter(|(outcome, _)| !good.contains(&outcome.as_str()))
        .map(|(outcome, count)| format!("{count} {outcome}"))
        .collect();
    let others = ["failed", "rejected", "held"]
        .map(|what| status.source.fetches.get(what).copied().unwrap_or(0));
    bounds.add(
        bad.is_empty() && others == [0; 3],
        "soak: no pass and no fetch failed",
        format!(
            "{} passes, {published} documents, {:?}, {:?}",
            status.pass_totals.duration.count, outcomes, status.source.fetches
        ),
    );
}

fn size_of_journal(state: &Path) -> Res<u64> {
    let mut size = 0;
    for name in ["journal.jsonl", "journal.jsonl.1"] {
        size += std::fs::metadata(state.join(name)).map_or(0, |meta| meta.len());
    }
    match size {
        0 => Err("there is no journal".into()),
        size => Ok(size),
    }
}
