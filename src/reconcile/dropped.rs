//! Names packets that the rules after all translation have dropped.

use std::time::Instant;

use super::attempt::{Aim, Machine};
use super::drop_readings::since;
use super::pass::Pass;
use crate::config::Role;
use crate::firewall::DroppedTraffic;
use crate::judge::judge_dropped;
use crate::plan::Step;
use crate::state::StateFile;

impl Pass<'_> {
    /// Names packets with a wrong address that were dropped in the last minutes, or since the one-shot
    /// pass before.
    pub(super) fn judge_dropped(&mut self, machine: &mut Machine<'_>, aim: &Aim) {
        if self.job.role != Role::Nat {
            return;
        }
        let kind = machine.view.backend.kind;
        // The judge of foreign chains reports an unreadable firewall.
        let Ok(Some(counts)) = machine.kernel.firewall(kind).dropped() else {
            return;
        };
        let (grown, span) = match self.memory.as_deref_mut() {
            Some(memory) => {
                let (grown, age) = memory.dropped.grown(Instant::now(), counts);
                let minutes = age.as_secs().div_ceil(60).max(1);
                (grown, format!("in the last {minutes} min"))
            }
            None => (
                self.since_last_pass(&counts),
                "since the last pass".to_owned(),
            ),
        };
        let promise = machine.view.promise(&aim.desired);
        let (mut degraded, mut doubts) = judge_dropped(&promise, &grown, &span);
        if self.firewall_was_repaired() {
            // The packets came while rules were missing, and the rules are back.
            doubts.append(&mut degraded);
            if let Some(memory) = self.memory.as_deref_mut() {
                memory.dropped.restart(Instant::now(), counts);
            }
        }
        for doubt in &doubts {
            self.report.notes.push(doubt.to_string());
        }
        self.report.degrade(&degraded);
    }

    /// True if this pass, or the watcher since the pass before, has changed rules of the firewall.
    fn firewall_was_repaired(&self) -> bool {
        let watched = self.job.options.watched.as_ref();
        let repaired = watched.iter().flat_map(|watched| &watched.repaired);
        let mut steps = repaired.chain(&self.report.plan.steps);
        steps.any(|step| matches!(step, Step::Firewall { .. }))
    }

    fn since_last_pass(&self, counts: &DroppedTraffic) -> DroppedTraffic {
        if self.job.options.mode.writes() && !self.writes_state() {
            // The disk is silent, or the state dir in other hands: the next pass counts the packets.
            return DroppedTraffic::default();
        }
        let stored: Option<DroppedTraffic> = self.store.read_json(StateFile::Dropped).ok();
        let before = stored
            .filter(|before| !counts.restarted_since(before))
            .unwrap_or_default();
        if self.writes_state() && before != *counts {
            // Without the file the next pass counts the same packets again.
            let _ = self.store.write_json(StateFile::Dropped, counts);
        }
        since(&before, counts)
    }
}
