//! A NAT instance, with each of the firewalls.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::image::{Package, SETTINGS, TOKEN};
use crate::life::*;
use crate::machine::{Image, Machine, SERVICE};
use crate::packets::nat::{SOURCES, behind_nat1, bulk_interface, egress_line};
use crate::packets::{FIRST, Firewall, count_from_now, document};
use lab::*;

/// The drop-in that the documentation gives for a firewall, and the capabilities with the drop-in.
fn drop_in(firewall: Firewall) -> (Option<&'static str>, u64) {
    match firewall {
        Firewall::Nftables | Firewall::Iptables => (None, NET_ADMIN),
        Firewall::IptablesLegacy => (Some("iptables.conf"), NET_ADMIN | NET_RAW | DAC_READ_SEARCH),
    }
}

/// As the documentation says.
fn add_drop_in(image: &Image, name: &str) {
    image.chroot(&format!(
        "for unit in trailblazer trailblazer-shut; do
             mkdir -p /etc/systemd/system/$unit.service.d
             cp /usr/share/doc/trailblazer/dropins/{name} /etc/systemd/system/$unit.service.d/
         done"
    ));
}

fn settings(lab: &Lab, firewall: Firewall) -> String {
    format!(
        "role = \"nat\"\n\
         [source]\nurl = \"{}\"\n\
         [select]\nregions = [\"us-east-1\"]\nfamilies = [\"ipv4\", \"ipv6\"]\n\
         [nat]\n{}\n{SOURCES}{}[bypass]\ninterface = \"bulk\"\n",
        lab.mirror.url(),
        firewall.line(),
        egress_line(&lab.nat1)
    )
}

fn baked(name: &str, lab: &Lab, firewall: Firewall) -> (Image, BTreeSet<String>) {
    let (image, before) = Image::baked(name, &settings(lab, firewall), &Package::find());
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
        add_drop_in(&image, name);
    }
    // The administrator's own rules, loaded by nftables.service, whose restart begins with `flush
    // ruleset`.
    let rules = lab.ns("nat1").run(&["nft", "list", "ruleset"]);
    image.write(
        "/etc/nftables.conf",
        &format!("#!/usr/sbin/nft -f\nflush ruleset\n{rules}\n"),
    );
    image.chroot("systemctl enable nftables");
    (image, before)
}

fn life(name: &str, firewall: Firewall) {
    let case = bulk_interface(firewall);
    let lab = behind_nat1(case.layout);
    lab.mirror.set_document(document(TOKEN, FIRST));
    let (image, before) = baked(name, &lab, firewall);
    let nat1 = lab.ns("nat1");
    let machine = Machine::boot(&image, nat1);
    machine.wait_in_force(0);
    assert_sandboxed(&machine, drop_in(firewall).1);
    check_agrees_with_the_service(&machine);

    let bypass = (case.bypass)(&lab.nat1);
    let seen = |target: IpAddr| match target {
        S3 => bypass[0],
        S3_6 => bypass[1],
        PARTNER => lab.nat1.egress_public,
        _ => lab.nat1.egress6,
    };
    count_from_now(&lab);
    let package = Package::find();
    under_traffic(
        &lab,
        seen,
        &[
            &|| reload(&machine),
            &|| killed(&machine),
            &|| frozen(&machine),
            &|| upgraded(&machine, nat1, &package),
        ],
    );

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

/// `[kernel] manage` with the required drop-in: the agent writes sysctls.
#[test]
#[ignore = "boots a machine: make test-boot"]
fn nat_instance_manages_its_sysctls() {
    isolated_life(|| {
        let case = bulk_interface(Firewall::Nftables);
        let lab = behind_nat1(case.layout);
        lab.mirror.set_document(document(TOKEN, FIRST));
        let (image, _) = baked("nat-sysctls", &lab, Firewall::Nftables);
        let settings = image.read(SETTINGS);
        image.write(
            SETTINGS,
            &format!("{settings}[kernel]\nmanage = [\"ip_forward\"]\n"),
        );
        add_drop_in(&image, "sysctls.conf");
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
fn nat_instance_works_with_nftables() {
    isolated_life(|| life("nat-nft", Firewall::Nftables));
}

#[test]
#[ignore = "boots a machine: make test-boot"]
fn nat_instance_works_with_iptables() {
    isolated_life(|| life("nat-iptables", Firewall::Iptables));
}

#[test]
#[ignore = "boots a machine: make test-boot"]
fn nat_instance_works_with_legacy_iptables() {
    isolated_life(|| {
        life("nat-legacy", Firewall::IptablesLegacy);
    });
}
