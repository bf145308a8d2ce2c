//! The objects of Trailblazer in the kernel, counted.

use crate::firewall::ObservedFirewall;
use crate::observed::ObservedState;
use crate::ownership::Ownership;
use crate::types::PerFamily;

/// The objects of Trailblazer in the kernel.
pub(super) struct InKernel {
    pub routes: PerFamily<usize>,
    pub all_routes: usize,
    pub rules: usize,
    /// Firewalls with rules of ours; `None` if unread.
    pub firewalls: Option<Vec<&'static str>>,
    /// True before the first pass on a host whose egress is shut since the boot.
    pub shut: bool,
}

impl InKernel {
    /// Those of the observed state.
    pub fn of(observed: &ObservedState, ownership: &Ownership) -> InKernel {
        let owned = observed.owned(ownership);
        let in_bypass = |family| {
            owned
                .routes
                .iter()
                .filter(|route| {
                    ownership.is_bypass_table(route.key.table) && route.key.family() == family
                })
                .count()
        };
        InKernel {
            routes: PerFamily::from_fn(in_bypass),
            all_routes: owned.routes.len(),
            rules: owned.rules.len(),
            shut: observed.is_shut(ownership),
            firewalls: readable(observed)
                .then(|| owned.firewalls.keys().map(|kind| kind.as_str()).collect()),
        }
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        let firewalls = self.firewalls.iter().flatten();
        self.all_routes == 0 && self.rules == 0 && firewalls.count() == 0
    }
}

/// True if the firewalls were read without an error.
pub(super) fn readable(observed: &ObservedState) -> bool {
    let mut firewalls = observed.firewalls.values();
    !observed.firewalls.is_empty()
        && !firewalls.any(|found| matches!(found, ObservedFirewall::Unreadable(_)))
}
