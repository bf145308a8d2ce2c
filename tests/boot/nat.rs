//! A NAT instance, with each of the firewalls.

use std::net::IpAddr;
use std::time::Duration;

use crate::image::Packages;
use crate::lab::*;
use crate::life::*;
use crate::machine::{Image, Machine, SERVICE};
use crate::packets::nat::{SOURCES, behind_nat1, bulk_interface, egress_line};
use crate::packets::{FIRST, Firewall, PACE, count_from_now, document};

const DEADLINE_OF_A_LIFE: Duration = Duration::from_secs(240);
const TOKEN: u64 = 1_795_021_512;

/// What the documentation says to do for a firewall, and what the agent then may.
fn drop_in(firewall: Firewall) -> (Option<&'static str>, u64) {
    match firewall {
        Firewall::Nftables | Firewall::Iptables => (None, NET_ADMIN),
        Firewall::IptablesLegacy => (Some("iptables.conf"), NET_ADMIN | NET_RAW | DAC_READ_SEARCH),
    }
}

fn baked(name: &str, lab: &Lab, firewall: Firewall, packages: &Packages) -> (Image, Vec<String>) {
    let image = Image::new(name);
    let before = image.files();
    image.install(&packages.first);
    image.write(
        "/etc/trailblazer/trailblazer.toml",
        &format!(
            "role = \"nat\"\n\
             [source]\nurl = \"{}\"\n\
             [select]\nregions = [\"us-east-1\"]\nfamilies = [\"ipv4\", \"ipv6\"]\n\
             [nat]\n{}\n{SOURCES}{}[bypass]\ninterface = \"bulk\"\n",
            lab.mirror.url(),
            firewall.line(),
            egress_line(&lab.nat1)
        ),
    );
    let programs = match firewall {
        Firewall::IptablesLegacy => "legacy",
        Firewall::Nftables | Firewall::Iptables => "nft",
    };
    for family in ["ip", "ip6"] {
        image.chroot(&format!(
            "update-alternatives --set {family}tables /usr/sbin/{family}tables-{programs}"
        ));
    }
    if let (Some(name), _) = drop_in(firewall) {
        image.chroot(&format!(
            "mkdir -p /etc/systemd/system/trailblazer.service.d
             cp /usr/share/doc/trailblazer/dropins/{name} /etc/systemd/system/trailblazer.service.d/"
        ));
    }
    // The administrator's own rules, as their nftables.service loads them: a restart of it begins
    // with `flush ruleset`.
    let rules = lab.ns("nat1").run(&["nft", "list", "ruleset"]);
    image.write(
        "/etc/nftables.conf",
        &format!("#!/usr/sbin/nft -f\nflush ruleset\n{rules}\n"),
    );
    image.write(
        "/etc/systemd/system/trailblazer.service.d/test.conf",
        SHORT_WATCHDOG,
    );
    image.write("/var/tmp/ip-ranges.json", &document(TOKEN, FIRST));
    image.chroot("trailblazer reconcile --cache-only --source /var/tmp/ip-ranges.json");
    image.chroot("rm /var/tmp/ip-ranges.json; systemctl enable trailblazer nftables");
    (image, before)
}

fn life(name: &str, firewall: Firewall) {
    let packages = Packages::find();
    let case = bulk_interface(firewall);
    let lab = behind_nat1(case.layout);
    lab.mirror.set_document(document(TOKEN, FIRST));
    let (image, before) = baked(name, &lab, firewall, &packages);
    let nat1 = lab.ns("nat1");
    let machine = Machine::boot(&image, nat1);
    machine.wait_in_force(0);
    assert_sandboxed(&machine, drop_in(firewall).1);

    let bypass = (case.bypass)(&lab.nat1);
    let seen = |target: IpAddr| match target {
        S3 => bypass[0],
        S3_6 => bypass[1],
        PARTNER => lab.nat1.egress_public,
        _ => lab.nat1.egress6,
    };
    count_from_now(&lab);
    let stream = lab.stream("host1", &TARGETS, PACE);
    let flows = [S3, PARTNER].map(|target| lab.long_flow("host1", target));
    stream.wait_for(8);
    reload(&machine);
    stream.wait_for(8);
    killed(&machine);
    stream.wait_for(8);
    frozen(&machine);
    stream.wait_for(8);
    upgraded(&machine, nat1, &packages);
    stream.wait_for(8);
    for flow in flows {
        flow.assert_alive();
    }
    let report = stream.stop();
    assert_only(&lab, &report, seen);

    // Everything of nf_tables goes, and comes from the administrator's file without ours.
    machine.ok("systemctl restart nftables");
    eventually("the NAT rules are back", || {
        TARGETS
            .iter()
            .all(|&target| lab.who("host1", target) == Ok(seen(target)))
            && machine.run("trailblazer reconcile --dry-run").code == Some(0)
    });
    machine.ok("systemctl reload nftables");
    machine.wait_in_force(0);
    for target in TARGETS {
        assert_eq!(lab.who("host1", target), Ok(seen(target)));
    }
    assert_eq!(machine.property(SERVICE, "ActiveState"), "active");

    removed_and_purged(&machine, nat1, &before);
    machine.shutdown();
}

/// `[kernel] manage` with the drop-in that it needs: the agent writes sysctls.
#[test]
#[ignore = "boots a machine: make test-boot"]
fn a_nat_instance_that_manages_its_sysctls() {
    isolated_as_root(DEADLINE_OF_A_LIFE, || {
        let packages = Packages::find();
        let case = bulk_interface(Firewall::Nftables);
        let lab = behind_nat1(case.layout);
        lab.mirror.set_document(document(TOKEN, FIRST));
        let (image, _) = baked("nat-sysctls", &lab, Firewall::Nftables, &packages);
        let path = "/etc/trailblazer/trailblazer.toml";
        let config = image.read(path);
        image.write(
            path,
            &format!("{config}[kernel]\nmanage = [\"ip_forward\"]\n"),
        );
        image.chroot(
            "cp /usr/share/doc/trailblazer/dropins/sysctls.conf \
                /etc/systemd/system/trailblazer.service.d/",
        );
        let nat1 = lab.ns("nat1");
        nat1.sysctl(&[("net/ipv4/ip_forward", "0")]);
        let machine = Machine::boot(&image, nat1);
        machine.wait_in_force(0);
        assert_eq!(
            nat1.read_sysctl("net/ipv4/ip_forward").as_deref(),
            Some("1")
        );
        let seen = lab.who("host1", PARTNER);
        assert_eq!(seen, Ok(lab.nat1.egress_public));
        let pid = machine.number(SERVICE, "MainPID");
        let capabilities = machine.process_status(pid, "CapEff");
        assert_eq!(u64::from_str_radix(&capabilities, 16), Ok(NET_ADMIN));
        machine.shutdown();
    });
}

#[test]
#[ignore = "boots a machine: make test-boot"]
fn a_nat_instance_with_nftables() {
    isolated_as_root(DEADLINE_OF_A_LIFE, || life("nat-nft", Firewall::Nftables));
}

#[test]
#[ignore = "boots a machine: make test-boot"]
fn a_nat_instance_with_iptables() {
    isolated_as_root(DEADLINE_OF_A_LIFE, || {
        life("nat-iptables", Firewall::Iptables)
    });
}

#[test]
#[ignore = "boots a machine: make test-boot"]
fn a_nat_instance_with_legacy_iptables() {
    isolated_as_root(DEADLINE_OF_A_LIFE, || {
        life("nat-legacy", Firewall::IptablesLegacy);
    });
}
