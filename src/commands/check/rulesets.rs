//! Saved rulesets: a firewall service loads them at its start, and old copies of our table with them.

use super::report::CheckReport;
use crate::config::{AutoOr, Config};
use crate::kernel::saved_rulesets::{SavedRuleset, with_our_table};

pub(super) fn all(config: &Config, report: &mut CheckReport) {
    let name = "saved rulesets";
    let Some(saved) = with_our_table() else {
        return report.ok(name, "no saved ruleset contains our table");
    };
    match (&saved, config.kernel.protect_table) {
        (SavedRuleset::OurTable(_), AutoOr::Set(true)) => {
            let text = format!(
                "{saved}, and [kernel] protect_table = true: while the agent runs, the kernel refuses the file as a whole, and a restart of the firewall service ends without its rules"
            );
            report.warn(name, text, saved.advice());
        }
        (SavedRuleset::OurTable(_), _) => {
            let text = format!(
                "{saved}: each start of the firewall service loads this old copy until the next pass, and our table is open to other programs"
            );
            report.warn(name, text, saved.advice());
        }
        (SavedRuleset::Unreadable(..), _) => report.warn(name, saved.to_string(), saved.advice()),
    }
}
