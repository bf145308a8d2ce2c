//! The protection against a real kernel, judged by the real `nft`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lab::isolated;
use lab::shell::{sh, try_run};
use trailblazer::firewall::{
    Chain, FwRule, Hook, ObservedFirewall, OwnedFirewall, Path, PathTraffic, Ruleset, Statement,
};
use trailblazer::kernel::firewall::nftables::{Nftables, Protection};
use trailblazer::kernel::firewall::{FirewallBackend, FirewallError};
use trailblazer::types::Family;

const LINE: &str =
    "table inet trailblazer flags owner,persist comment \"trailblazer: managed, do not edit\"";

fn policy(verdict: Statement) -> Ruleset {
    let rule = FwRule {
        family: Some(Family::Ipv4),
        matches: Vec::new(),
        verdict,
    };
    Ruleset {
        chains: vec![Chain {
            hook: Hook::PostroutingCount,
            rules: vec![rule],
        }],
    }
}

fn counting() -> Ruleset {
    policy(Statement::Count(Path::Bypass))
}

fn other() -> Ruleset {
    let mut policy = counting();
    policy.chains[0]
        .rules
        .extend(self::policy(Statement::Accept).chains[0].rules.clone());
    policy
}

fn backend(protection: &Protection) -> Nftables {
    let mut backend = Nftables::new();
    backend.protect(protection);
    backend
}

fn claimed() -> Protection {
    let protection = Protection::default();
    protection.claim();
    assert_eq!(protection.unknown_to_kernel(), None, "Linux 6.9 or later");
    protection
}

fn owned(backend: &mut Nftables) -> OwnedFirewall {
    match backend.observe().unwrap() {
        ObservedFirewall::Owned(owned) => owned,
        other => panic!("not ours: {other:?}"),
    }
}

fn nft(script: &str) -> bool {
    try_run("nft", &[script]).status.success()
}

fn send() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(b"counted", "127.0.0.1:9").unwrap();
}

fn packets(traffic: Option<PathTraffic>) -> u64 {
    traffic.unwrap().bypass.ipv4.packets
}

#[test]
fn strangers_can_neither_flush_nor_change_a_protected_table() {
    isolated(|| {
        let protection = claimed();
        let mut ours = backend(&protection);
        ours.replace(&counting()).unwrap();
        let text = owned(&mut ours).text;
        assert_eq!(text, ours.render(&counting()).unwrap());
        assert_eq!(text[0], LINE);
        sh("nft add table inet theirs");
        for script in [
            "delete table inet trailblazer",
            "flush table inet trailblazer",
            "add chain inet trailblazer mine",
            "add rule inet trailblazer count accept",
        ] {
            assert!(!nft(script), "{script}");
        }
        assert!(nft("flush ruleset"));
        let listing = sh("nft list ruleset");
        assert!(!listing.contains("theirs"), "{listing}");
        assert_eq!(owned(&mut ours).text, text);

        // The flags are no matter of a process that protects nothing.
        let mut reader = Nftables::new();
        assert_eq!(owned(&mut reader).text, reader.render(&counting()).unwrap());

        // Transactions of the process itself replace and remove the table, and the counts continue.
        send();
        let counted = packets(ours.traffic().unwrap());
        assert_ne!(counted, 0);
        let snapshot = owned(&mut ours).snapshot;
        ours.replace(&other()).unwrap();
        assert_eq!(owned(&mut ours).text, ours.render(&other()).unwrap());
        assert_eq!(packets(ours.traffic().unwrap()), counted);
        ours.restore(&snapshot).unwrap();
        assert_eq!(owned(&mut ours).text, text);
        assert!(!nft("delete table inet trailblazer"));
        ours.remove().unwrap();
        assert_eq!(ours.observe().unwrap(), ObservedFirewall::Absent);
    });
}

#[test]
fn table_outlives_its_process_and_is_taken_over() {
    isolated(|| {
        let mut first = backend(&claimed());
        first.replace(&counting()).unwrap();
        send();
        let counted = packets(first.traffic().unwrap());
        drop(first);
        let before = sh("nft -a list tables");
        assert!(nft("add chain inet trailblazer mine"), "the table is open");
        sh("nft delete chain inet trailblazer mine");
        let protection = claimed();
        let mut next = backend(&protection);
        let wanted = next.render(&counting()).unwrap();
        assert_eq!(owned(&mut next).text, wanted);
        assert_eq!(sh("nft -a list tables"), before, "no new table");
        assert_eq!(packets(next.traffic().unwrap()), counted);
        assert!(nft("flush ruleset"));
        assert_eq!(owned(&mut next).text, wanted);

        // A plain process replaces or removes the table of a dead one, and a stranger flushes it.
        protection.release();
        Nftables::new().replace(&other()).unwrap();
        next.replace(&counting()).unwrap();
        assert!(nft("flush ruleset"));
        assert_eq!(next.observe().unwrap(), ObservedFirewall::Absent);
        protection.claim();
        next.replace(&counting()).unwrap();
        protection.release();
        Nftables::new().remove().unwrap();
        assert_eq!(next.observe().unwrap(), ObservedFirewall::Absent);
    });
}

#[test]
fn plain_table_is_replaced_by_a_protected_one() {
    isolated(|| {
        Nftables::new().replace(&counting()).unwrap();
        let mut ours = backend(&claimed());
        let before = owned(&mut ours);
        assert_ne!(before.text, ours.render(&counting()).unwrap());
        ours.replace(&counting()).unwrap();
        assert_eq!(owned(&mut ours).text[0], LINE);
        // A rollback restores the plain table.
        ours.restore(&before.snapshot).unwrap();
        assert_eq!(owned(&mut ours).text, before.text);
        assert!(nft("flush ruleset"));
        assert_eq!(ours.observe().unwrap(), ObservedFirewall::Absent);
    });
}

#[test]
fn foreign_table_of_our_name_stays_a_conflict() {
    isolated(|| {
        sh("nft add table inet trailblazer");
        let mut ours = backend(&claimed());
        assert!(matches!(
            ours.observe().unwrap(),
            ObservedFirewall::Foreign(_)
        ));
        let error = ours.replace(&counting()).unwrap_err();
        assert!(
            error.to_string().contains("belongs to another program"),
            "{error}"
        );
        sh("nft list table inet trailblazer");
    });
}

#[test]
fn command_asks_the_process_for_its_table() {
    isolated(|| {
        let protection = claimed();
        backend(&protection).replace(&counting()).unwrap();
        let error = Nftables::new().remove().unwrap_err();
        assert!(
            matches!(error, FirewallError::Protected { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains("stop the agent"), "{error}");

        let refusing = Protection::asking(|| Err("no time".to_owned()));
        let error = backend(&refusing).replace(&other()).unwrap_err();
        assert!(
            error.to_string().contains("does not release it: no time"),
            "{error}"
        );
        assert_eq!(
            owned(&mut backend(&protection)).text[0],
            LINE,
            "nothing has changed"
        );

        let asked = Arc::new(AtomicUsize::new(0));
        let (count, owner) = (Arc::clone(&asked), protection.clone());
        let mut command = backend(&Protection::asking(move || {
            count.fetch_add(1, Ordering::SeqCst);
            owner.release();
            Ok(())
        }));
        command.replace(&other()).unwrap();
        assert_eq!(owned(&mut command).text, command.render(&other()).unwrap());
        command.replace(&counting()).unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 1);

        // The process takes the table back with its next transaction.
        protection.claim();
        let mut ours = backend(&protection);
        assert_ne!(owned(&mut ours).text, ours.render(&counting()).unwrap());
        ours.replace(&counting()).unwrap();
        assert_eq!(owned(&mut ours).text[0], LINE);
    });
}
