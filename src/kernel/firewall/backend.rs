//! The operations of a firewall backend.

use super::error::FirewallError;
use crate::firewall::{BackendKind, ObservedFirewall, PathTraffic, Ruleset, Snapshot, Variant};

/// A firewall that can carry our rules.
pub trait FirewallBackend {
    /// Which one it is.
    fn kind(&self) -> BackendKind;

    /// What it found itself to be, for reports: `nf_tables of the kernel`,
    /// `iptables v1.8.9 (nf_tables)`.
    fn description(&self) -> String;

    /// The kernel interface that holds the rules.
    fn variant(&self) -> Variant;

    /// True if rules of ours certainly exist that `observe` could not read; `found` is the answer
    /// of `observe`.
    fn certainly_holds_ours(&mut self, found: &ObservedFirewall) -> bool;

    /// Reads what is there of our name. Only a failure that leaves the answer unknown is an
    /// error or `Unreadable`; a failed read is never `Absent`.
    fn observe(&mut self) -> Result<ObservedFirewall, FirewallError>;

    /// The policy as this backend's own canonical text, one line an object, exactly as
    /// `observe` would read it back. Pure.
    fn render(&self, ruleset: &Ruleset) -> Result<Vec<String>, FirewallError>;

    /// What the rules have counted so far, by path; `None` where no rule of ours counts. A family
    /// whose paths can't be told apart stays at zero.
    fn traffic(&mut self) -> Result<Option<PathTraffic>, FirewallError>;

    /// Puts the policy in place of whatever of ours is there, in one transaction: no packet
    /// sees a half. What was counted is carried on.
    fn replace(&mut self, ruleset: &Ruleset) -> Result<(), FirewallError>;

    /// Puts back exactly what an earlier `observe` saw, in one transaction. What was counted
    /// since then is carried on.
    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), FirewallError>;

    /// Removes all of ours, in one transaction. Nothing there is success.
    fn remove(&mut self) -> Result<(), FirewallError>;
}
