//! Privileges, the kernel and its firewalls.

use super::report::CheckReport;
use crate::config::{AutoOr, Config};
use crate::firewall::{BackendKind, ObservedFirewall};
use crate::kernel::Kernel;
use crate::kernel::firewall::FirewallBackend as _;
use crate::kernel::firewall::iptables::IptablesBackend;
use crate::kernel::firewall::nftables::{Probe, probe};
use crate::kernel::privilege::has_net_admin;
use crate::types::Family;

pub(super) fn privileges(report: &mut CheckReport) {
    const NAME: &str = "privileges";
    match has_net_admin() {
        Some(true) => report.ok(NAME, "CAP_NET_ADMIN is available"),
        None => report.warn(
            NAME,
            "cannot find out whether CAP_NET_ADMIN is available",
            "if `trailblazer reconcile` fails with a permission error, run it as root",
        ),
        Some(false) => report.warn(
            NAME,
            "no CAP_NET_ADMIN: a pass cannot change anything, and this check cannot read the firewall",
            "run the check as root (sudo trailblazer check)",
        ),
    }
}

pub(super) fn families(config: &Config, kernel: &Kernel, report: &mut CheckReport) {
    for family in Family::ALL {
        let wanted = config.select.families.contains(&family) || config.egress.has_gateway(family);
        if *kernel.available.get(family) {
            report.ok(family.as_str(), "enabled in the kernel");
        } else if wanted {
            report.warn(
                family.as_str(),
                "disabled in the kernel; the config's settings for this family have no effect",
                format!("remove {family} from [select] families, or enable it in the kernel"),
            );
        } else {
            report.ok(
                family.as_str(),
                "disabled in the kernel, and not in the config",
            );
        }
    }
}

pub(super) fn nf_tables(config: &Config, report: &mut CheckReport) {
    let name = "nf_tables";
    let asked_for = config.nat.backend == AutoOr::Set(BackendKind::Nftables);
    match probe() {
        Ok(Probe::Available) => report.ok(name, "the kernel supports all of Trailblazer's rules"),
        Ok(Probe::Unprivileged(why)) => report.warn(name, why, "run the check as root"),
        Ok(Probe::Unavailable(why)) if asked_for => report.fail(
            name,
            why,
            "run modprobe nf_tables, or set [nat] backend = \"iptables\"",
        ),
        Ok(Probe::Unavailable(why)) => report.ok(name, format!("not available ({why})")),
        Err(error) => report.fail(
            name,
            error.to_string(),
            "look for a reason in dmesg, or use iptables",
        ),
    }
}

/// Checks the binaries and, if the iptables backend is or was in use, its rules.
pub(super) fn iptables(kernel: &mut Kernel, chosen: BackendKind, report: &mut CheckReport) {
    let name = "iptables";
    let in_use = chosen == BackendKind::Iptables;
    let mut backend = IptablesBackend::detect();
    let holds = match kernel.may_hold_iptables_chains() {
        Ok(holds) => holds,
        Err(error) => {
            report.warn(name, error.to_string(), "run the check again");
            false
        }
    };
    if !in_use && !holds {
        report.ok(name, format!("{}; not in use", backend.description()));
        return;
    }
    match backend.observe() {
        Ok(ObservedFirewall::Absent | ObservedFirewall::Owned(_)) => {
            report.ok(name, backend.description());
        }
        // The plan's conflicts include a foreign chain of our name.
        Ok(ObservedFirewall::Foreign(_)) => {}
        Ok(ObservedFirewall::Unavailable(why) | ObservedFirewall::Unreadable(why)) => {
            if in_use && has_net_admin() != Some(false) {
                report.fail(name, why, "install iptables, or make nf_tables available");
            } else {
                report.warn(name, why, "run the check as root");
            }
        }
        Err(error) => report.fail(
            name,
            error.to_string(),
            "run iptables-save by hand for details",
        ),
    }
    for note in backend.notes() {
        // The judge reads the tables of both variants, so nothing is to be done.
        if note.contains("-legacy tables present") {
            report.ok(
                name,
                "rules of iptables-legacy exist too: each packet meets both",
            );
        } else {
            report.warn_plain(name, note.clone());
        }
    }
    match backend.jumps_behind_others() {
        Ok(behind) => {
            for jump in behind {
                report.warn(
                    name,
                    jump,
                    "check with iptables-save: earlier rules must not accept or translate Trailblazer's traffic",
                );
            }
        }
        Err(error) => report.warn(
            name,
            error.to_string(),
            "run iptables-save by hand for details",
        ),
    }
}
