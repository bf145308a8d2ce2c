//! Control sockets of running agents, found in `/proc` when no config names them.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use rustix::process::geteuid;

use crate::cli::{Cli, Command};
use crate::config::file::DEFAULT_FILE;

/// `__SO_ACCEPTCON` in the flags of `/proc/net/unix`: the socket listens.
const LISTENS: u64 = 1 << 16;

/// The control sockets of the agents that were started with this config file, in the network
/// namespace of this process. Empty without permission to look.
pub(super) fn sockets_of(config: &Path) -> Vec<PathBuf> {
    let wanted = std::path::absolute(config).unwrap_or_else(|_| config.to_owned());
    listening_where(&|config| config == wanted)
}

/// The same for any config file.
pub(super) fn sockets() -> Vec<PathBuf> {
    listening_where(&|_config| true)
}

fn listening_where(wanted: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let processes = processes.flatten().map(|entry| entry.path());
    let agents = processes.filter(|process| is_agent(process, wanted));
    agents.flat_map(|process| listening(&process)).collect()
}

/// True for an agent with a wanted config file. Another user's process could claim to be one.
fn is_agent(process: &Path, wanted: &dyn Fn(&Path) -> bool) -> bool {
    let Ok(line) = fs::read(process.join("cmdline")) else {
        return false;
    };
    let words: Vec<_> = line
        .strip_suffix(b"\0")
        .unwrap_or(&line)
        .split(|byte| *byte == 0)
        .map(std::ffi::OsStr::from_bytes)
        .collect();
    if !words.contains(&std::ffi::OsStr::new("agent")) {
        return false;
    }
    let Ok(Cli {
        command: Command::Agent(arguments),
        ..
    }) = Cli::try_parse_from(words)
    else {
        return false;
    };
    let config = arguments.common.base.config;
    let config = config.unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    let Ok(directory) = fs::read_link(process.join("cwd")) else {
        return false;
    };
    wanted(&directory.join(config)) && is_trusted(process) && shares_network(process)
}

/// True if the process runs the program of this command, or belongs to root or to this user.
fn is_trusted(process: &Path) -> bool {
    let program = |process: &Path| fs::read_link(process.join("exe")).ok();
    let own = program(Path::new("/proc/self"));
    let user = fs::metadata(process).map(|found| found.uid()).ok();
    own.is_some() && program(process) == own
        || user.is_some_and(|user| user == 0 || user == geteuid().as_raw())
}

fn shares_network(process: &Path) -> bool {
    let namespace = |process: &Path| fs::read_link(process.join("ns/net")).ok();
    let own = namespace(Path::new("/proc/self"));
    own.is_some() && namespace(process) == own
}

/// The paths of the process's listening unix sockets.
fn listening(process: &Path) -> Vec<PathBuf> {
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten();
    let targets = descriptors
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok());
    let own: Vec<String> = targets
        .filter_map(|target| {
            let inode = target.to_str()?.strip_prefix("socket:[")?;
            Some(inode.strip_suffix(']')?.to_owned())
        })
        .collect();
    let table = fs::read_to_string(process.join("net/unix")).unwrap_or_default();
    paths(&table, &own)
}

/// The paths in `/proc/net/unix` that belong to listening sockets with these inodes.
fn paths(table: &str, inodes: &[String]) -> Vec<PathBuf> {
    let path = |line: &str| {
        // Num RefCount Protocol Flags Type St Inode Path
        let mut fields = line.split_ascii_whitespace();
        let flags = u64::from_str_radix(fields.nth(3)?, 16).ok()?;
        let inode = fields.nth(2)?;
        let path = line.split_once(&format!(" {inode} "))?.1;
        let listens = flags & LISTENS != 0 && inodes.iter().any(|own| own == inode);
        (listens && path.starts_with('/')).then(|| PathBuf::from(path))
    };
    table.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_are_told_from_others() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
             0000000000000000: 00000002 00000000 00010000 0001 01 51 /run/a b/control.sock\n\
             0000000000000000: 00000003 00000000 00000000 0001 03 52 /run/a b/control.sock\n\
             0000000000000000: 00000002 00000000 00010000 0001 01 53 /run/other\n\
             0000000000000000: 00000002 00000000 00010000 0001 01 54 @abstract\n\
             0000000000000000: 00000002 00000000 00010000 0001 01 55\n";
        let own = ["51", "52", "54", "55"].map(str::to_owned);
        assert_eq!(paths(table, &own), [Path::new("/run/a b/control.sock")]);
    }
}
