//! No usable firewall, and a firewall that another process holds locked.

use std::fs::OpenOptions;
use std::os::unix::fs::symlink;

use rustix::fs::{FlockOperation, flock};
use trailblazer::kernel::firewall::iptables::IptablesBackend;
use trailblazer::reconcile::Outcome;

use crate::no_nf_tables;
use crate::site::{ROWS, Site, TOKEN, document};

#[test]
fn missing_iptables_binary_is_named_and_the_rest_goes_in() {
    lab::isolated(|| {
        let mut site = Site::new();
        site.config.push_str("nat.backend = \"iptables\"\n");
        site.publish(document(TOKEN, &ROWS));
        let empty = site.path("empty");
        std::fs::create_dir(&empty).unwrap();
        let mut command = site.command(&[]);
        command.env("PATH", &empty);
        let says = [
            "no usable firewall",
            "no iptables binary",
            "package iptables",
        ];
        let output = site.bare.ns.exec_command(&mut command).expect_code(1);
        for words in says {
            assert!(output.stderr.contains(words), "lacks {words:?}: {output}");
        }
        site.assert_closed();
        assert_eq!(site.bypass().len(), 4);
    });
}

#[test]
fn host_without_any_firewall_backend_gets_the_rest() {
    lab::isolated(|| {
        let mut site = Site::new();
        site.publish(document(TOKEN, &ROWS));
        let good = site.config.clone();
        for (line, says) in [
            ("", "auto: this kernel has no nf_tables"),
            (
                "nat.backend = \"nftables\"\n",
                "set it to \"auto\" or \"iptables\"",
            ),
            ("nat.backend = \"iptables\"\n", "no-such-iptables"),
        ] {
            site.config = format!("{good}{line}");
            let report = site.bare.ns.in_thread(|| {
                let iptables =
                    IptablesBackend::with_tools("no-such-iptables", "no-such-ip6tables", 1);
                no_nf_tables::pass(&site.config, iptables)
            });
            assert_eq!(report.outcome, Outcome::Failed, "{report:#?}");
            assert_eq!(report.outcome.exit_code(), 1);
            let error = report.error.unwrap();
            assert!(error.contains("no usable firewall"), "{error}");
            assert!(error.contains(says), "{line:?}: {error}");
            site.assert_closed();
            assert_eq!(site.bypass().len(), 4);
        }
    });
}

/// Somebody's firewall script holds the lock of iptables-legacy for longer than we wait.
#[test]
fn held_xtables_lock_leaves_out_the_firewall_alone() {
    lab::isolated(|| {
        let mut site = Site::new();
        site.config.push_str("nat.backend = \"iptables\"\n");
        site.publish(document(TOKEN, &ROWS));
        // The legacy variant, independent of the distribution's default.
        let tools = site.path("tools");
        std::fs::create_dir(&tools).unwrap();
        for family in ["iptables", "ip6tables"] {
            for part in ["", "-save", "-restore"] {
                let real = std::env::split_paths(&std::env::var("PATH").unwrap())
                    .chain(["/usr/sbin".into(), "/sbin".into()])
                    .map(|dir| dir.join(format!("{family}-legacy{part}")))
                    .find(|file| file.exists())
                    .expect("iptables-legacy must be installed (package iptables)");
                symlink(real, tools.join(format!("{family}{part}"))).unwrap();
            }
        }
        let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
        let command = |flags: &[&str]| {
            let mut command = site.command(flags);
            command.env("PATH", &path);
            command
        };
        // The first look makes the legacy tables appear, which is not a change of ours.
        let dry = site.bare.ns.exec_command(&mut command(&["--dry-run"]));
        assert_eq!(dry.code, Some(2), "{dry}");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open("/run/xtables.lock")
            .unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        let output = site.bare.ns.exec_command(&mut command(&[])).expect_code(1);
        for words in [
            "another program holds the xtables lock",
            "/run/xtables.lock",
            "everything else is in force",
        ] {
            assert!(output.stderr.contains(words), "lacks {words:?}: {output}");
        }
        assert_eq!(output.json()["outcome"], "failed", "{output}");
        site.assert_closed();
        assert_eq!(site.journal_end()["outcome"], "failed");
        drop(lock);
        let output = site.bare.ns.exec_command(&mut command(&[])).expect_code(0);
        assert_eq!(output.json()["outcome"], "changed");
        let firewall = &output.json()["firewall"];
        assert!(
            firewall["reason"].as_str().unwrap().contains("legacy"),
            "{firewall}"
        );
    });
}
