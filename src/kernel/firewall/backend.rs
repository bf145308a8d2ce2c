//! The operations of a firewall backend.

use super::error::FirewallError;
use super::nftables::Protection;
use crate::firewall::{
    BackendKind, DroppedTraffic, ObservedFirewall, PathTraffic, Ruleset, SavedRules, Variant,
};
use crate::types::PerFamily;

/// A firewall backend: reads, renders and writes our rules. Every write is atomic, so that no
/// packet meets a partial policy.
pub trait FirewallBackend {
    fn kind(&self) -> BackendKind;

    /// Name and version for reports: `nf_tables of the kernel`, `iptables v1.8.9 (nf_tables)`.
    fn description(&self) -> String;

    fn variant(&self) -> Variant;

    /// True if rules of ours certainly exist although `observe` answered `found`.
    fn certainly_holds_ours(&mut self, found: &ObservedFirewall) -> bool;

    /// Reads the objects of our name. A failed read is an error or `Unreadable`, never `Absent`.
    fn observe(&mut self) -> Result<ObservedFirewall, FirewallError>;

    /// The policy as canonical text, one line per object, equal to the text of a later `observe`.
    /// Pure.
    fn render(&self, ruleset: &Ruleset) -> Result<Vec<String>, FirewallError>;

    /// Traffic by path; `None` if no rule of ours counts. A family without a rule to distinguish
    /// the paths stays at zero.
    fn traffic(&mut self) -> Result<Option<PathTraffic>, FirewallError>;

    /// Packets that the rules after all translation have dropped; `None` without such rules. Starts
    /// no process.
    fn dropped(&mut self) -> Result<Option<DroppedTraffic>, FirewallError> {
        Ok(None)
    }

    /// Replaces all our objects by the policy, in one transaction. The counts continue.
    fn replace(&mut self, ruleset: &Ruleset) -> Result<(), FirewallError>;

    /// Restores exactly the state of an earlier `observe`, in one transaction. Counts since then
    /// are kept.
    fn restore(&mut self, snapshot: &SavedRules) -> Result<(), FirewallError>;

    /// Removes all our objects, in one transaction. Success if none exists.
    fn remove(&mut self) -> Result<(), FirewallError>;

    /// Checks the policy without a commit, as far as the backend can.
    ///
    /// # Errors
    /// The policy would be refused.
    fn rehearse(&mut self, _ruleset: &Ruleset) -> Result<(), FirewallError> {
        Ok(())
    }

    /// True if a checked policy is accepted for certain: the kernel itself checks.
    fn rehearses_fully(&self) -> bool {
        false
    }

    /// True if the rules after all translation need nothing that may be refused with the rest.
    fn has_own_place_for_last(&self) -> bool {
        false
    }

    /// Shares the protection of our nf_tables tables.
    fn protect(&mut self, _protection: &Protection) {}

    /// True if the backend can have [`crate::firewall::Hook::PreroutingMark`].
    fn marks_forwarded(&self) -> bool {
        false
    }

    /// Leaves the rules of some families as they are, neither read nor written, until the next
    /// call. Without effect on a backend with one transaction for both families.
    fn leave(&mut self, _families: PerFamily<bool>) {}
}
