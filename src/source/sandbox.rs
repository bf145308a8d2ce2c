//! The sandbox of the fetch child, which parses TLS, HTTP and gzip from strangers.
//!
//! Each layer stands alone, so that a kernel or a container without one still has the others:
//!
//! | layer | takes away |
//! |---|---|
//! | user *nobody*, no groups (if the agent runs as root) | the files of root |
//! | no capabilities | changes of routes, rules, firewall; marks of sockets |
//! | `no_new_privs` | privileges by programs with the setuid bit |
//! | Landlock | every file for writing, and every program |
//! | seccomp | netlink and packet sockets, other programs, namespaces, mounts, tracing |

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use landlock::{ABI, AccessFs, Ruleset, RulesetAttr as _, RulesetStatus};
use nix::libc;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_ambient_set,
    configure_capability_in_ambient_set, set_capabilities, set_no_new_privs,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

use super::marked;

/// The user and group *nobody* of every distribution: without files and without processes.
const NOBODY: u32 = 65_534;

/// The variables that name proxies, trusted authorities, the name resolution, and the log.
pub(super) const VARIABLES: [&str; 17] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "RES_OPTIONS",
    "LOCALDOMAIN",
    "TRAILBLAZER_LOG",
    "JOURNAL_STREAM",
    "NO_COLOR",
    // CGI servers set this variable, and `HTTP_PROXY` is a client's header there.
    "REQUEST_METHOD",
    "RUST_BACKTRACE",
];

/// System calls that no fetch needs.
const REFUSED: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
    libc::SYS_open_by_handle_at,
];

/// Families of sockets beside IPv4, IPv6 and local ones. glibc asks a netlink socket for the host's
/// addresses before a name lookup, and goes on without an answer.
const REFUSED_SOCKETS: [i32; 4] = [
    libc::AF_NETLINK,
    libc::AF_PACKET,
    libc::AF_VSOCK,
    libc::AF_ALG,
];

/// Gives up every privilege of this process for good. Sockets with `mark` are opened before, since
/// a mark needs `CAP_NET_ADMIN`. Must run before the process has a second thread.
pub fn enter(mark: Option<u32>) {
    if let Some(mark) = mark {
        marked::reserve(mark);
    }
    let layers = [
        (
            "no_new_privs",
            set_no_new_privs(true).map_err(|error| error.to_string()),
        ),
        ("Landlock", forbid_files()),
        ("user nobody", become_nobody()),
        ("capabilities", drop_capabilities()),
        ("seccomp", forbid_calls()),
    ];
    for (layer, result) in layers {
        if let Err(reason) = result {
            tracing::debug!(
                "the fetch child runs without one layer of its sandbox, {layer}: {reason}"
            );
        }
    }
}

/// Runs `spawn` without the ambient `CAP_NET_ADMIN` of this thread, so that the new program starts
/// without. The shipped unit forbids capset(2), with which a process gives capabilities up, but not
/// prctl(2), which decides what a new program inherits. `needed` leaves everything as it is.
pub(super) fn without_ambient<T>(needed: bool, spawn: impl FnOnce() -> T) -> T {
    const ADMIN: CapabilitySet = CapabilitySet::NET_ADMIN;
    let is_set = !needed && capability_is_in_ambient_set(ADMIN).unwrap_or(false);
    let lowered = is_set && configure_capability_in_ambient_set(ADMIN, false).is_ok();
    let spawned = spawn();
    if lowered && let Err(error) = configure_capability_in_ambient_set(ADMIN, true) {
        tracing::warn!(
            "CAP_NET_ADMIN is no longer passed on to programs such as iptables: {error}"
        );
    }
    spawned
}

fn become_nobody() -> Result<(), String> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setgroups(&[])
        .and_then(|()| setresgid(gid, gid, gid))
        .and_then(|()| setresuid(uid, uid, uid))
        .map_err(|error| error.to_string())
}

fn drop_capabilities() -> Result<(), String> {
    let none = CapabilitySet::empty();
    let sets = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    set_capabilities(None, sets).map_err(|error| error.to_string())
}

fn forbid_files() -> Result<(), String> {
    let accesses = AccessFs::from_write(ABI::V5) | AccessFs::Execute;
    let status = Ruleset::default()
        .handle_access(accesses)
        .and_then(|ruleset| ruleset.create())
        .and_then(|ruleset| ruleset.restrict_self())
        .map_err(|error| error.to_string())?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err("not in this kernel".to_owned()),
        _ => Ok(()),
    }
}

fn forbid_calls() -> Result<(), String> {
    let filter = filter().map_err(|error| error.to_string())?;
    apply_filter(&filter).map_err(|error| error.to_string())
}

fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let mut families = Vec::new();
    for family in REFUSED_SOCKETS {
        let family = u64::from(family.unsigned_abs());
        let condition =
            SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, family)?;
        families.push(SeccompRule::new(vec![condition])?);
    }
    rules.insert(libc::SYS_socket, families);
    let refusal = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, refusal, ARCH.try_into()?)?.try_into()
}
