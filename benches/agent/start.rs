//! From exec to in force, from the last known good alone: nobody has to be asked first.

use trailblazer::plan::{Action, Plan, Step};
use trailblazer::reconcile::Outcome;

use super::bounds::Bounds;
use super::daemon::Daemon;
use super::host::Host;
use super::samples::Samples;
use super::{MANY, Mode, REGION, Res, arena, documents, floor};

/// Milliseconds.
const MOST: f64 = 100.0;
/// See [`Times::judge`].
const MOST_RATIO: f64 = 3.5;

/// Measures a boot (empty kernel) and a restart (everything in force).
pub fn measure(mode: Mode, bounds: &mut Bounds) -> Res<()> {
    let rounds = if mode == Mode::Quick { 7 } else { 31 };
    println!("from exec to READY=1, from the last known good (ms; the pass is a part of it):");
    let cases = [
        (
            "one region's S3",
            REGION,
            documents::large_document(1_700_000_000, REGION),
        ),
        (
            "16,000 prefixes",
            MANY,
            documents::document(1_700_000_000, &documents::prefixes(MANY)),
        ),
    ];
    for (name, size, document) in cases {
        let host = Host::new(&format!("start{size}"), size, document)?;
        let [mut boot, mut restart] = <[Times; 2]>::default();
        let mut least = Samples::default();
        for _ in 0..rounds {
            boot.add(&host.start()?)?;
            restart.add(&host.start()?)?;
            let removal = host.subject.remove()?;
            arena::settle(size);
            least.0.push(floor::install(&backwards(removal))?);
            host.subject.remove()?;
            arena::settle(size);
        }
        println!("  {name}, the same messages raw: {:.1}", least.median());
        if boot.whole.median() >= MOST {
            // The share of the pass's stages.
            let (report, _took) = host.subject.pass(Outcome::Changed)?;
            println!("  {name}, the stages in process: {:.1?}", report.stages);
        }
        boot.judge(name, "boot", &least, bounds);
        restart.judge(name, "restart", &least, bounds);
    }
    Ok(())
}
/// The plan that restores an installation: routes and rules to add instead of delete.
fn backwards(mut plan: Plan) -> Plan {
    for step in &mut plan.steps {
        if let Step::Route { action, .. } | Step::Rule { action, .. } = step {
            *action = Action::Add;
        }
    }
    plan.steps.reverse();
    plan
}

#[derive(Debug, Default)]
struct Times {
    whole: Samples,
    pass: Samples,
}

impl Times {
    /// With many routes the kernel takes most of the time, and machines differ: if the raw messages
    /// alone take a good part, the bound is a ratio to them, as for a one-shot pass. (29 ms for
    /// 16,000 routes on the machine for which the absolute bound was set.)
    fn judge(&self, name: &str, kind: &str, least: &Samples, bounds: &mut Bounds) {
        let (whole, raw) = (self.whole.median(), least.median());
        println!(
            "  {name}, {kind:<8} {whole:7.1} (quartiles {:.1} to {:.1}), the pass {:.1}",
            self.whole.quantile(0.25),
            self.whole.quantile(0.75),
            self.pass.median(),
        );
        let what = format!("exec to in force from the last known good, {name}, {kind}");
        let ratio = whole / raw;
        if whole < MOST || raw < MOST / MOST_RATIO {
            bounds.add(
                whole < MOST,
                what,
                format!("{whole:.1} ms, under {MOST} ms"),
            );
        } else {
            bounds.add(
                ratio < MOST_RATIO,
                what,
                format!(
                    "{whole:.1} ms; the kernel takes {raw:.1} ms of it for the same raw messages: \
                     {ratio:.2} times that, under {MOST_RATIO}"
                ),
            );
        }
    }

    fn add(&mut self, daemon: &Daemon) -> Res<()> {
        self.whole.0.push(daemon.ready()?);
        let status = daemon.status()?;
        let first = status.passes.last().ok_or("no pass")?;
        self.pass.0.push(first.duration_ms);
        Ok(())
    }
}
