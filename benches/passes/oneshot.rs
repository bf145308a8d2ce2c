//! The whole process of a pass without changes: the cost of the timer every few minutes.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use trailblazer::reconcile::Outcome;

use super::bounds::Bounds;
use super::samples::Samples;
use super::subject::Subject;
use super::{Mode, Res, arena, documents};

/// Prefixes of one region's S3, roughly.
const PREFIXES: usize = 21;
/// Bytes in a MiB.
const MIB: f64 = 1_048_576.0;

/// Measures time and memory, with a document as large as AWS's own.
pub fn measure(mode: Mode, bounds: &mut Bounds) -> Res<()> {
    let rounds = if mode == Mode::Full { 51 } else { 21 };
    let ns = arena::Ns::create("oneshot")?;
    ns.enter()?;
    let document = |token, count| documents::large_document(token, count);
    let subject = Subject::with_documents(
        "oneshot",
        PREFIXES,
        document(1_700_000_000, PREFIXES),
        document(1_700_000_001, PREFIXES + 1),
    )?;
    subject.forget()?;
    subject.pass(Outcome::Changed)?;
    let mut times = Samples::default();
    let mut peaks = Samples::default();
    for _ in 0..rounds {
        times.0.push(subject.run_binary()?);
        peaks.0.push(peak(&subject)?);
    }
    bounds.add(
        times.median() < 50.0,
        "one-shot no-op of one region's S3 out of 17,000 rows: time",
        format!(
            "{:.1} ms (quartiles {:.1} to {:.1}), under 50 ms",
            times.median(),
            times.quantile(0.25),
            times.quantile(0.75)
        ),
    );
    let most = peaks.quantile(1.0);
    bounds.add(
        most < 16.0,
        "one-shot no-op of one region's S3 out of 17,000 rows: memory",
        format!("at most {most:.1} MiB resident, under 16 MiB"),
    );
    Ok(())
}

/// The peak of resident memory in MiB, by the kernel's count (`VmHWM`). Read repeatedly until the
/// process ends, since the peak comes in the middle, with the documents.
fn peak(subject: &Subject) -> Res<f64> {
    let mut child = subject.command().stderr(Stdio::null()).spawn()?;
    let path = format!("/proc/{}/status", child.id());
    let mut peak = 0.0f64;
    while child.try_wait()?.is_none() {
        let status = std::fs::read_to_string(&path).unwrap_or_default();
        // Between fork and exec the child is still a copy of this benchmark.
        let ours = status.starts_with("Name:\ttrailblazer");
        let high = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|rest| rest.trim().split(' ').next()?.parse::<f64>().ok());
        if let Some(kilobytes) = high.filter(|_| ours) {
            peak = peak.max(kilobytes * 1024.0 / MIB);
        }
        thread::sleep(Duration::from_micros(50));
    }
    if peak > 0.0 {
        Ok(peak)
    } else {
        Err("the memory of the process was never seen".into())
    }
}
