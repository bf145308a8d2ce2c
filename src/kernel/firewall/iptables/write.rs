//! Writes rules with `iptables-restore`, and takes partial writes back.

use std::time::Duration;

use super::model::{Own, command};
use super::read::Reading;
use super::save::Saved;
use super::tool::{self, Version, io, refused};
use super::{IptablesBackend, WAITING_RESTORE, script};
use crate::firewall::BackendKind;
use crate::kernel::firewall::error::FirewallError;
use crate::types::{Family, PerFamily};

impl IptablesBackend {
    /// Writes the goal of both families, or restores both.
    pub(super) fn apply(
        &mut self,
        operation: &str,
        goal: &PerFamily<Own>,
    ) -> Result<(), FirewallError> {
        let removing = Family::ALL.iter().all(|f| goal.get(*f).is_empty());
        let mut before = PerFamily::<Saved>::default();
        for family in self.handled() {
            *before.get_mut(family) = match self.read(family)? {
                Reading::Read(saved) => saved,
                Reading::Absent(_) if goal.get(family).is_empty() => Saved::default(),
                Reading::Absent(why) | Reading::Unreadable(why) => {
                    return Err(refused(operation, why));
                }
            };
            let foreign = &before.get(family).foreign;
            if !removing && !foreign.is_empty() {
                return Err(refused(
                    operation,
                    format!("{family}: conflict: {}", foreign.join("; ")),
                ));
            }
        }
        for family in self.handled() {
            let input = script::script(before.get(family), goal.get(family));
            if let Err(error) = self.feed(operation, family, &input) {
                return Err(self.roll_back(&before, error));
            }
        }
        let references = foreign_references(&before, goal);
        if references.is_empty() {
            return Ok(());
        }
        Err(FirewallError::Referenced {
            operation: format!("{}: {operation}", BackendKind::Iptables),
            references,
        })
    }

    fn feed(&mut self, operation: &str, family: Family, input: &str) -> Result<(), FirewallError> {
        self.feed_with(operation, family, input, &[])
    }

    pub(super) fn feed_with(
        &mut self,
        operation: &str,
        family: Family,
        input: &str,
        options: &[&str],
    ) -> Result<(), FirewallError> {
        if input.is_empty() {
            return Ok(());
        }
        self.check_variants(operation)?;
        let program = format!("{}-restore", self.tools.get(family));
        let operation = format!("{operation} with {program}");
        let wait = self.wait.to_string();
        // The tool waits again for each table.
        let tables = u32::try_from(input.matches("COMMIT\n").count()).unwrap_or(u32::MAX);
        let extra = Duration::from_secs(u64::from(self.wait.saturating_mul(tables)));
        let options = [&["--noflush", "--wait", &wait], options].concat();
        let output =
            tool::run(&program, &options, input, extra).map_err(|source| io(&operation, source))?;
        if output.status.success() {
            Ok(())
        } else {
            Err(tool::restore_failure(operation, &output, input, self.wait))
        }
    }

    /// Checks before the first write that all three programs have the same variant: else we would
    /// read the rules of one variant and write the other.
    fn check_variants(&mut self, operation: &str) -> Result<(), FirewallError> {
        if self.variants_checked {
            return Ok(());
        }
        let Ok(version) = self.version().clone() else {
            return Ok(());
        };
        if version.number < WAITING_RESTORE {
            return Err(refused(
                operation,
                format!(
                    "{} {version} can't wait for the xtables lock at a restore; install iptables 1.6.2 or later",
                    self.tools.ipv4
                ),
            ));
        }
        for part in ["save", "restore"] {
            let program = format!("{}-{part}", self.tools.ipv4);
            let output =
                tool::run(&program, &["--version"], "", Duration::ZERO).map_err(|source| {
                    io(
                        &format!("{operation}: ask {program} for the version"),
                        source,
                    )
                })?;
            let other = Version::parse(&String::from_utf8_lossy(&output.stdout));
            if let Some(other) = other.filter(|other| other.variant != version.variant) {
                return Err(refused(
                    operation,
                    format!(
                        "{} is {version} but {program} is {other}: select the same variant for both (update-alternatives)",
                        self.tools.ipv4
                    ),
                ));
            }
        }
        self.variants_checked = true;
        Ok(())
    }

    /// After a partial write, restores the earlier rules from a fresh reading; returns the error to
    /// report.
    fn roll_back(&mut self, before: &PerFamily<Saved>, error: FirewallError) -> FirewallError {
        let mut failures = Vec::new();
        for family in self.handled() {
            let now = match self.read(family) {
                Ok(Reading::Read(saved)) => saved,
                Ok(Reading::Absent(_)) => continue,
                Ok(Reading::Unreadable(why)) => {
                    failures.push(why);
                    continue;
                }
                Err(failure) => {
                    failures.push(failure.to_string());
                    continue;
                }
            };
            let input = script::script(&now, &before.get(family).own);
            if let Err(failure) = self.feed("restore the earlier rules", family, &input) {
                failures.push(failure.to_string());
            }
        }
        if failures.is_empty() {
            return error;
        }
        refused(
            "replace our rules",
            format!("{error}; the rollback failed too: {}", failures.join("; ")),
        )
    }
}

/// Foreign rules with a jump to a chain that `goal` removes, each as a command.
fn foreign_references(before: &PerFamily<Saved>, goal: &PerFamily<Own>) -> Vec<String> {
    let of_family = |family: Family| {
        let kept = &goal.get(family).0;
        let references = before.get(family).references.iter();
        references
            .filter(move |reference| {
                let table = kept.get(&reference.table);
                !table.is_some_and(|own| own.chains.contains_key(&reference.target))
            })
            .map(move |reference| {
                let tool = command(family);
                format!("{tool} -t {} {}", reference.table, reference.rule)
            })
    };
    Family::ALL.into_iter().flat_map(of_family).collect()
}
