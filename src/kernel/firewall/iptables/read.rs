//! Reads the rules of a family. Distinguishes an empty ruleset from an unreadable ruleset.

use std::io::ErrorKind;
use std::time::Duration;

use super::save::{self, Saved};
use super::tool::{self as programs, io, refused};
use crate::kernel::firewall::error::FirewallError;
use crate::kernel::privilege::has_net_admin;
use crate::types::Family;

/// The result of reading a family.
pub enum Reading {
    Read(Saved),
    /// No binary, or no support in the kernel, so that no rule of ours can exist: the reason.
    Absent(String),
    /// Rules may exist, but are not readable: the reason.
    Unreadable(String),
}

/// Reads with `<tool>-save`; adds the warnings of the tool to `notes`.
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
        let failure = format!("{program}: {}: {stderr}", output.status);
        return if programs::is_permission(stderr) {
            Ok(Reading::Unreadable(format!(
                "{failure}; reading iptables needs CAP_NET_ADMIN"
            )))
        } else if programs::is_unsupported(stderr) {
            Ok(Reading::Absent(failure))
        } else {
            Err(refused(&format!("read the {family} rules"), failure))
        };
    }
    let text = String::from_utf8_lossy(&output.stdout);
    if !text.contains("COMMIT") && has_net_admin() != Some(true) {
        // Without CAP_NET_ADMIN ip6tables-legacy-save exits with 0 and prints nothing (observed with
        // 1.8.9), so empty output doesn't mean an empty ruleset.
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

/// The message about a missing binary.
pub fn no_binary(tool: &str) -> String {
    format!(
        "no iptables binary in PATH ({}): install the package iptables for {tool}, {tool}-save and {tool}-restore",
        std::env::var("PATH").unwrap_or_default(),
    )
}
