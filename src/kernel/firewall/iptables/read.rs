//! Reads one family's rules, and tells "nothing there" from "can't see".

use std::io::ErrorKind;
use std::time::Duration;

use super::save::{self, Saved};
use super::tool::{self as programs, io, refused};
use crate::kernel::firewall::error::FirewallError;
use crate::kernel::privilege::has_net_admin;
use crate::types::Family;

/// What reading one family gave.
pub enum Reading {
    /// What is there.
    Read(Saved),
    /// No program, or a kernel that knows nothing of it: why. Nothing of ours can be there.
    Absent(String),
    /// It may hold something, but we can't see it: why.
    Unreadable(String),
}

/// Reads through `<tool>-save`; what the tool remarks is added to `notes`.
pub fn read(tool: &str, family: Family, notes: &mut Vec<String>) -> Result<Reading, FirewallError> {
    let program = format!("{tool}-save");
    let output = match programs::run(&program, &["-c"], "", Duration::ZERO) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(Reading::Absent(no_binary(tool)));
        }
        other => other.map_err(|source| io(&format!("read the rules with {program}"), source))?,
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stderr = stderr.trim();
    if !output.status.success() {
        let told = format!("{program}: {}: {stderr}", output.status);
        return if programs::is_permission(stderr) {
            Ok(Reading::Unreadable(format!(
                "{told}; reading iptables needs CAP_NET_ADMIN"
            )))
        } else if programs::is_unsupported(stderr) {
            Ok(Reading::Absent(told))
        } else {
            Err(refused(&format!("read the {family} rules"), told))
        };
    }
    let text = String::from_utf8_lossy(&output.stdout);
    if !text.contains("COMMIT") && has_net_admin() != Some(true) {
        // Without the privilege ip6tables-legacy-save ends with 0 and prints nothing (tried
        // with 1.8.9): empty then says nothing.
        return Ok(Reading::Unreadable(format!(
            "{program} prints nothing to a process without CAP_NET_ADMIN"
        )));
    }
    let saved = match save::parse(&text) {
        Ok(saved) => saved,
        Err(error @ save::SaveError::Incompatible(_)) => {
            return Ok(Reading::Unreadable(format!("{program}: {error}")));
        }
        Err(error) => {
            return Err(refused(
                &format!("read the {family} rules"),
                error.to_string(),
            ));
        }
    };
    let remarks = saved.notes.iter().map(String::as_str);
    for remark in remarks.chain(stderr.lines()) {
        let remark = remark.trim_start_matches(['#', ' ']);
        if !remark.is_empty() && !notes.iter().any(|note| note == remark) {
            notes.push(remark.to_owned());
        }
    }
    Ok(Reading::Read(saved))
}

/// Why there is nothing to read with.
pub fn no_binary(tool: &str) -> String {
    format!(
        "no iptables binary in PATH ({}): {tool} and its -save and -restore come with the package iptables",
        std::env::var("PATH").unwrap_or_default(),
    )
}
