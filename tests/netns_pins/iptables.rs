//! Host role with iptables: pins lie in nf_tables beside iptables.

use crate::more::containers;
use crate::packets::Firewall;
use crate::scenes::{first_pass, gateways_change, prefixes_change};
use crate::*;
use lab::*;

macro_rules! scenes {
    ($($name:ident: $scene:expr, $at_least:expr;)*) => { $(
        mod $name {
            use super::*;

            #[test]
            fn break_no_flow() {
                isolated(|| assert_eq!($scene(true), 0));
            }

            #[test]
            fn break_flows_without_pins() {
                isolated(|| assert!($scene(false) >= $at_least));
            }
        }
    )* };
}

scenes! {
    changes_of_prefixes: |pin| prefixes_change(Firewall::Iptables, pin), FLOWS;
    changes_of_gateways: |pin| gateways_change(Firewall::Iptables, pin), 2 * FLOWS;
    changes_of_gateways_with_legacy_programs:
        |pin| gateways_change(Firewall::IptablesLegacy, pin), 2 * FLOWS;
    // The first pass leaves a flow that conntrack knows by an answer on the main table's path.
    first_passes: |pin| first_pass(Firewall::Iptables, pin, false), FLOWS;
    changes_behind_containers:
        |pin| containers(Firewall::IptablesLegacy, pin, false), 2 * FLOWS;
}
