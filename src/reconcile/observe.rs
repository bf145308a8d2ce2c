//! The first stage of a pass: reads the kernel and the state dir, and lets the guard judge the
//! document.

use super::documents::{self, Ground, Seen};
use super::gather::Gathered;
use super::instance::Metadata;
use super::pass::Pass;
use super::persist::store_silences;
use super::stored::read_optional;
use super::view::{Firewalls, View};
use super::{Cause, Job, Mode, PassError, instance};
use crate::config::{AutoOr, Role};
use crate::desired::shares::Shares;
use crate::facts::{HostFacts, InstanceFacts};
use crate::kernel::{Kernel, saved_rulesets};
use crate::ownership::Ownership;
use crate::state::StateFile;

/// The error of a pass whose disk gives no answer.
const SILENT: &str =
    "the disk of the state directory gives no answer; the bypass path stays as it is";

impl Pass<'_> {
    /// Reads kernel and state dir, and lets the guard judge the document.
    /// `answers` is false for a silent disk, which no stage may touch.
    pub(super) fn look(
        &mut self,
        kernel: &mut Kernel,
        gathered: Gathered,
        firewalls: Firewalls,
        answers: bool,
    ) -> Result<Seen, PassError> {
        let Job {
            config, options, ..
        } = self.job;
        self.note(gathered.notes);
        if !matches!(
            options.cause,
            Cause::Drift | Cause::Repair | Cause::Conflict
        ) {
            kernel.forget_refusals();
        }
        if answers {
            match self.numbers.read(&self.store, options) {
                Ok(notes) => self.note(notes),
                Err(error) if options.mode == Mode::Apply => self.degrade_state(&error),
                Err(error) => return Err(error.into()),
            }
        }
        let facts = kernel.facts()?;
        let (instance, instance_error) = if answers {
            self.learn(gathered.metadata, &facts)?
        } else {
            (None, None)
        };
        let ownership = self.numbers.ownership(config);
        let mut view = self.open_view(kernel, ownership, firewalls, facts)?;
        view.set_instance(config, instance);
        view.instance_error = instance_error;
        if options.former_health {
            view.confirm_diversions();
        }
        if answers {
            view.shares = self.read_shares();
        }
        self.take_drained(&mut view, answers);
        if firewalls == Firewalls::Chosen {
            self.report.backend = Some(view.backend.clone());
        }
        self.report.devices = view.devices();
        self.laps.end("observe");
        let found = if answers {
            if self.writes_state() {
                let written = self.journal.write_repairs(&self.report);
                self.tolerate(written)?;
                self.note(store_silences(&self.store, &gathered.silences));
            }
            documents::find(
                self.job,
                &self.store,
                &Ground::of(self.job.config, &view),
                (gathered.source, gathered.read_ahead),
                self.memory.as_deref_mut(),
                &mut self.laps,
            )
        } else {
            Err(PassError::NoStateDir(SILENT.to_owned()))
        };
        let documents = found.map(|(documents, notes)| {
            self.note(notes);
            self.report.take_judgement(&documents.judgement);
            self.report.fetch = documents.fetch.clone();
            documents
        });
        view.prefixes = match &documents {
            Ok(documents) => documents.prefixes_in_force(),
            Err(_) => self.earlier().map(|earlier| earlier.prefixes()),
        };
        Ok(Seen { view, documents })
    }

    /// The stored owners of the slots of source hosts. Without the file the hosts may change their
    /// address once, no more.
    fn read_shares(&mut self) -> Shares {
        if self.job.role != Role::Nat {
            return Shares::default();
        }
        let read = read_optional(&self.store, StateFile::Shares, self.job.options);
        let (shares, notes) = read.unwrap_or_else(|error| (None, error.to_string().into()));
        self.note(notes);
        shares.unwrap_or_default()
    }

    /// Learns the facts of the instance, or why none are known.
    ///
    /// # Errors
    /// The operator accepts a region that is not held. A pass that changes the kernel goes on.
    fn learn(
        &mut self,
        metadata: Metadata,
        facts: &HostFacts,
    ) -> Result<(Option<InstanceFacts>, Option<PassError>), PassError> {
        let memory = self.memory.as_deref_mut();
        let learned = instance::learn(metadata, self.job, &self.store, facts, memory);
        self.note(learned.notes);
        self.report.degrade(learned.held.as_slice());
        match learned.refusal {
            Some(refusal) if self.job.options.mode != Mode::Apply => return Err(refusal),
            refusal => self.late.extend(refusal),
        }
        Ok(match learned.instance {
            Ok(instance) => (instance, None),
            Err(error) => (None, Some(error)),
        })
    }

    /// Notes the reason if our table is open to other programs and should not be.
    fn note_unprotected(&mut self, kernel: &Kernel) {
        let unknown = kernel.unprotected();
        let wanted = self.job.config.kernel.protect_table;
        let note = match (wanted, unknown) {
            (AutoOr::Set(true), Some(why)) => format!(
                "[kernel] protect_table has no effect: the kernel cannot protect a table ({why}), which needs Linux 6.9"
            ),
            (AutoOr::Auto, None) if self.job.options.watched.is_some() => {
                let Some(saved) = saved_rulesets::with_our_table() else {
                    return;
                };
                let advice = saved.advice();
                format!(
                    "[kernel] protect_table: our table is open to other programs, since {saved}, and the kernel would refuse that file while the table is protected; {advice}"
                )
            }
            _ => return,
        };
        self.note(note.into());
    }

    /// Reads the kernel, twice if need be. A pass without a usable firewall does the rest.
    pub(super) fn open_view(
        &mut self,
        kernel: &mut Kernel,
        ownership: Ownership,
        firewalls: Firewalls,
        facts: HostFacts,
    ) -> Result<View, PassError> {
        let config = self.job.config;
        kernel.need_policies(self.job.role == Role::Nat);
        self.note_unprotected(kernel);
        let health = &self.job.options.health;
        let mut open = |firewalls| {
            let mut view = View::open(kernel, config, ownership.clone(), firewalls, facts.clone())?;
            view.health.clone_from(health);
            Ok(view)
        };
        if self.job.options.mode != Mode::Apply {
            return open(firewalls);
        }
        open(firewalls)
            .or_else(|_| open(firewalls))
            .or_else(|error| {
                let why = error.to_string();
                self.late.push(error);
                let mut view = open(Firewalls::Ignored)?;
                view.no_firewall = Some(why);
                Ok(view)
            })
    }
}
