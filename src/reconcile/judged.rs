//! The judgement at the end of a pass: one value for report, status, health and metrics.

use super::Mode;
use super::attempt::{Aim, Machine};
use super::pass::Pass;
use crate::degraded::{Degradation, Part};
use crate::judge::judge_redirects;
use crate::kernel::netlink::NetlinkError;
use crate::kernel::redirects;
use crate::plan::rule_text::orphaned_rules;
use crate::types::Family;
use crate::verify::{judge_kernel, learned_hops};

const RUN_FLUSH: &str = "run flush with -c and that config";

impl Pass<'_> {
    /// Asks the kernel whether the promise holds now, also if the pass has changed nothing. Foreign
    /// state that defeats the promise makes the state degraded; the objects of the pass stay.
    pub(super) fn judge(&mut self, machine: &mut Machine<'_>, aim: &Aim) {
        if self.job.options.mode == Mode::Apply
            && let Err(error) = self.forget_redirects(machine, aim)
        {
            // The judgement names redirects that remain.
            let text = format!("cannot remove next hops of ICMP redirects: {error}");
            self.report.notes.push(text);
        }
        let promise = machine.view.promise(&aim.desired);
        let verdicts = match judge_kernel(&promise, machine.kernel) {
            Ok(verdicts) => verdicts,
            Err(error) => {
                let reason = format!("the kernel's routing decisions are unknown: {error}");
                self.report
                    .degrade(&[Degradation::new(Part::Egress, None, reason)]);
                return;
            }
        };
        let view = &machine.view;
        if let Some(text) = orphaned_rules(&view.observed.rules, &view.ownership) {
            self.report.notes.push(format!("{text}: {RUN_FLUSH}"));
        }
        for exempt in &verdicts.exempt {
            self.report.notes.push(exempt.to_string());
        }
        for doubt in &verdicts.doubts {
            self.report.notes.push(doubt.to_string());
        }
        self.report.degrade(&verdicts.degraded);
        self.judge_dropped(machine, aim);
        if !verdicts.mismatches.is_empty() && !self.is_drifting(machine, aim) {
            self.report.degrade(&verdicts.mismatches);
        }
        self.laps.end("verify");
    }

    /// Removes the next hops that ICMP redirects left before our rules against redirects came in.
    fn forget_redirects(
        &mut self,
        machine: &mut Machine<'_>,
        aim: &Aim,
    ) -> Result<(), NetlinkError> {
        let promise = machine.view.promise(&aim.desired);
        let table = promise.numbers().egress_table;
        let found = judge_redirects(&promise, &learned_hops(&promise, machine.kernel)?);
        for family in Family::ALL {
            let mut redirected = found.iter().filter(|it| it.family == Some(family));
            let default = family.default_prefix();
            let mut ours = aim.goal.routes.iter().filter(|route| {
                route.key.table == table && route.key.dst == default && route.target.forwards()
            });
            let (Some(redirect), Some(route)) = (redirected.next(), ours.next()) else {
                continue;
            };
            let note = match redirects::forget(machine.kernel.socket(), route)? {
                Ok(()) => format!("{family}: {}; removed", redirect.reason),
                Err(refusal) => format!("{family}: {}: not removed: {refusal}", redirect.reason),
            };
            self.report.notes.push(note);
        }
        Ok(())
    }

    /// True if a watched object has changed since the last reading: the watcher restores the object
    /// and requests another pass.
    fn is_drifting(&self, machine: &mut Machine<'_>, aim: &Aim) -> bool {
        if self.job.options.watched.is_none() || self.job.options.mode != Mode::Apply {
            return false;
        }
        let looked = machine.view.refresh(machine.kernel);
        looked.is_ok() && !machine.view.plan_to(&aim.goal).is_empty()
    }
}
