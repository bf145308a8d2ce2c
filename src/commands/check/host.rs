//! Privileges, the kernel and its firewalls.

use super::finding::Findings;
use crate::config::{AutoOr, Config};
use crate::firewall::{BackendKind, ObservedFirewall};
use crate::kernel::Kernel;
use crate::kernel::firewall::FirewallBackend as _;
use crate::kernel::firewall::iptables::IptablesBackend;
use crate::kernel::firewall::nftables::{Probe, probe};
use crate::kernel::privilege::has_net_admin;
use crate::types::Family;

pub(super) fn privileges(findings: &mut Findings) {
    const NAME: &str = "privileges";
    match has_net_admin() {
        Some(true) => findings.ok(NAME, "CAP_NET_ADMIN is there"),
        None => findings.warn(
            NAME,
            "the system refuses to say whether CAP_NET_ADMIN is there",
            "if a pass is refused, run it as root",
        ),
        Some(false) => findings.warn(
            NAME,
            "no CAP_NET_ADMIN: a pass can't change anything, and this check can't see the firewall",
            "run it as root (sudo trailblazer check)",
        ),
    }
}

pub(super) fn families(config: &Config, kernel: &Kernel, findings: &mut Findings) {
    for family in Family::ALL {
        let wanted = config.select.families.contains(&family)
            || !config.egress.gateways_of(family).is_empty();
        if *kernel.available.get(family) {
            findings.ok(family.as_str(), "the kernel has it");
        } else if wanted {
            findings.warn(
                family.as_str(),
                "the kernel has it switched off; what the config says about it has no effect",
                format!("leave {family} out of [select] families, or switch it on"),
            );
        } else {
            findings.ok(family.as_str(), "switched off, and not asked for");
        }
    }
}

pub(super) fn nf_tables(config: &Config, findings: &mut Findings) {
    let name = "nf_tables";
    let asked_for = config.nat.backend == AutoOr::Set(BackendKind::Nftables);
    match probe() {
        Ok(Probe::Available) => findings.ok(name, "the kernel has all that our rules need"),
        Ok(Probe::Unprivileged(why)) => findings.warn(name, why, "run the check as root"),
        Ok(Probe::Unavailable(why)) if asked_for => findings.fail(
            name,
            why,
            "modprobe nf_tables, or set [nat] backend = \"iptables\"",
        ),
        Ok(Probe::Unavailable(why)) => findings.ok(name, format!("not there ({why})")),
        Err(error) => findings.fail(name, error.to_string(), "see dmesg, or use iptables"),
    }
}

/// The binaries, and what they hold where they are or were in use.
pub(super) fn iptables(kernel: &mut Kernel, chosen: BackendKind, findings: &mut Findings) {
    let name = "iptables";
    let in_use = chosen == BackendKind::Iptables;
    let mut backend = IptablesBackend::detect();
    let holds = match kernel.may_hold_iptables_chains() {
        Ok(holds) => holds,
        Err(error) => {
            findings.warn(name, error.to_string(), "run the check again");
            false
        }
    };
    if !in_use && !holds {
        findings.ok(name, format!("{}; not in use", backend.description()));
        return;
    }
    match backend.observe() {
        Ok(ObservedFirewall::Absent | ObservedFirewall::Owned(_)) => {
            findings.ok(name, backend.description());
        }
        // A foreign chain of our name is among the plan's conflicts.
        Ok(ObservedFirewall::Foreign(_)) => {}
        Ok(ObservedFirewall::Unavailable(why) | ObservedFirewall::Unreadable(why)) => {
            if in_use && has_net_admin() != Some(false) {
                findings.fail(name, why, "install iptables, or make nf_tables available");
            } else {
                findings.warn(name, why, "run the check as root");
            }
        }
        Err(error) => findings.fail(name, error.to_string(), "run the tool by hand to see more"),
    }
    for note in backend.notes() {
        findings.warn_plain(name, note.clone());
    }
    match backend.jumps_behind_others() {
        Ok(behind) => {
            for jump in behind {
                findings.warn(
                    name,
                    jump,
                    "see with iptables-save that those before it don't accept or translate what is ours",
                );
            }
        }
        Err(error) => findings.warn(name, error.to_string(), "run the tool by hand to see more"),
    }
}
