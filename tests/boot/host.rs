//! A host with a NAT instance as its egress gateway.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::json;

use crate::image::{Package, TOKEN};
use crate::life::*;
use crate::machine::{Image, Machine, SERVICE};
use crate::packets::{FIRST, PACE, assert_no_leaks, count_from_now, document};
use lab::*;

/// A lab in which `host1` leaves through `nat1`, and the mirror serves the document.
fn behind_a_nat() -> Lab {
    let lab = Lab::new();
    lab.guarded_nat("nat1");
    lab.mirror.set_document(document(TOKEN, FIRST));
    lab
}

fn settings(lab: &Lab) -> String {
    format!(
        "role = \"host\"\n\
         [source]\nurl = \"{}\"\n\
         [select]\nregions = [\"us-east-1\"]\nfamilies = [\"ipv4\", \"ipv6\"]\n\
         [egress]\ngateways = [\"10.0.1.10\", \"2600:1f18:1000:1::10\"]\n",
        lab.mirror.url()
    )
}

/// A consumer of `network-online.target`: the first packet tells the partner the consumer's source
/// address.
const CONSUMER: &str = "[Unit]
Description=Talks to a partner as soon as the network is said to be there
After=network-online.target
Wants=network-online.target
[Service]
Type=oneshot
ExecStart=/bin/bash -c 'exec 3<>/dev/tcp/93.184.216.34/443; echo who >&3; head -n 1 <&3 >/var/tmp/seen'
[Install]
WantedBy=multi-user.target
";

/// An image of a host, with a consumer of the network.
fn baked(name: &str, lab: &Lab) -> (Image, BTreeSet<String>) {
    let (image, before) = Image::baked(name, &settings(lab), &Package::find());
    image.write("/etc/systemd/system/consumer.service", CONSUMER);
    image.chroot("systemctl enable consumer");
    (image, before)
}

fn seen_by(lab: &Lab, target: IpAddr) -> IpAddr {
    match target {
        S3 => HOST1_PUBLIC,
        S3_6 => HOST1_6,
        PARTNER => lab.nat1.egress_public,
        PARTNER6 => lab.nat1.egress6,
        other => panic!("no stream goes to {other}"),
    }
}

#[test]
#[ignore = "boots a machine: make test-boot"]
fn host_works_from_image_to_purge() {
    isolated_life(|| {
        let lab = behind_a_nat();
        let (image, before) = baked("host", &lab);
        count_from_now(&lab);
        let host1 = lab.ns("host1");
        let machine = Machine::boot(&image, host1);
        machine.wait_in_force(0);

        // READY came with everything in force, and before consumers of the network started.
        assert_eq!(
            image.read("/var/tmp/seen").trim(),
            lab.nat1.egress_public.to_string()
        );
        let ready = machine.number(SERVICE, "ActiveEnterTimestampMonotonic");
        let online = machine.number("network-online.target", "ActiveEnterTimestampMonotonic");
        assert!(0 < ready && ready <= online, "{ready} {online}");
        let journal = machine.journal(SERVICE);
        let line = |what: &str| {
            let found = journal.lines().position(|line| line.contains(what));
            found.unwrap_or_else(|| panic!("no line with {what:?}:\n{journal}"))
        };
        assert!(line("pass start: ") < line("Started "), "{journal}");
        assert_sandboxed(&machine, NET_ADMIN);
        check_agrees_with_the_service(&machine);
        culprit_is_named_by_its_unit(&machine);
        let names = machine.ok("ip route show table bypass proto trailblazer");
        assert!(names.contains("52.216.0.0/15"), "{names}");

        let package = Package::find();
        under_traffic(
            &lab,
            |target| seen_by(&lab, target),
            &[
                &|| reload(&machine),
                &|| killed(&machine),
                &|| frozen(&machine),
                &|| upgraded(&machine, host1, &package),
                // A stop leaves everything in place.
                &|| {
                    let in_place = ours(host1);
                    machine.ok("systemctl stop trailblazer");
                    assert_eq!(ours(host1), in_place);
                },
                &|| {
                    machine.ok("systemctl start trailblazer");
                    machine.wait_in_force(0);
                },
            ],
        );

        removed_and_purged(&machine, host1, &before);
        machine.shutdown();
    });
}

/// An agent that starts late leaves the machine to the shut egress for a while.
const LATE: &str = "[Service]\nExecStartPre=/bin/sleep 2\n";
/// Mounts come and go until the egress is shut: a unit whose sandbox copies the mounts then fails now
/// and again (`226/NAMESPACE`).
const MOUNTS: &str = "[Unit]
DefaultDependencies=no
Before=systemd-sysusers.service trailblazer-shut.service
[Service]
Type=notify
NotifyAccess=all
ExecStart=/bin/sh -c 'cd /run; mkdir 1 2 3 4; \\
  for i in 1 2 3 4; do \\
    while [ ! -e calm ] && mount -t tmpfs none $i/; do umount $i/; done & \\
  done; systemd-notify --ready; wait'
[Install]
WantedBy=sysinit.target
";
/// The end of the mounts.
const CALM: &str = "[Unit]
DefaultDependencies=no
After=trailblazer-shut.service
Before=network-pre.target
[Service]
Type=oneshot
ExecStart=touch /run/calm
[Install]
WantedBy=sysinit.target
";
/// The unit that shuts the egress before the network.
const SHUT: &str = "trailblazer-shut.service";

/// The addresses among what clients saw; the others are failures.
fn addresses(report: &StreamReport, target: IpAddr) -> BTreeSet<IpAddr> {
    let seen = report.of(target).into_keys();
    seen.filter_map(|word| word.parse().ok()).collect()
}

/// The egress was shut before the network came, and a start on the running machine shuts nothing.
#[track_caller]
fn assert_shut_at_boot(lab: &Lab, machine: &Machine, boot: &StreamReport) {
    let journal = machine.journal(SHUT);
    assert_eq!(machine.property(SHUT, "ActiveState"), "active", "{journal}");
    assert_no_leaks(lab);
    for target in TARGETS {
        let seen = addresses(boot, target);
        assert_eq!(seen, [seen_by(lab, target)].into(), "{target}: {boot:?}");
    }
    let shut = machine.number(SHUT, "ActiveEnterTimestampMonotonic");
    let networkd = machine.number("systemd-networkd", "InactiveExitTimestampMonotonic");
    assert!(0 < shut && shut <= networkd, "{shut} {networkd}\n{journal}");
    let status = machine.run("trailblazer status");
    assert!(!status.stdout.contains("masked"), "{status}");

    // Without objects the lab sees what a boot without the unit shows; the command shuts again, and
    // the agent opens.
    machine.ok("systemctl stop trailblazer trailblazer-shut; trailblazer flush");
    count_from_now(lab);
    eventually("a wrong address", || {
        let _refused = lab.who("host1", PARTNER);
        lab.leaks().partner4 > 0
    });
    machine.ok("systemctl start trailblazer-shut");
    assert_eq!(machine.property(SHUT, "ActiveState"), "inactive");
    machine.ok("trailblazer shut");
    count_from_now(lab);
    assert_eq!(lab.who("outside", HOST1_PUBLIC), Ok(OPERATOR));
    // The gateway is in reach now.
    assert_eq!(lab.who("host1", PARTNER), Ok(lab.nat1.egress_public));
    assert_no_leaks(lab);
    machine.ok("systemctl mask --now trailblazer-shut; systemctl start trailblazer");
    machine.wait_in_force(0);
    for command in ["check", "status"] {
        let said = machine.run(&format!("trailblazer {command}"));
        assert!(
            said.stdout.contains("trailblazer-shut.service is masked"),
            "{said}"
        );
    }
    machine.ok("systemctl unmask trailblazer-shut");
}

/// The network is systemd-networkd's and comes while the machine boots; networkd restarts, too. From
/// the first moment on, clients on the machine see no wrong address.
#[test]
#[ignore = "boots a machine: make test-boot"]
fn host_works_with_a_network_configured_during_boot() {
    isolated_life(|| {
        let lab = behind_a_nat();
        let (image, _) = baked("host-networkd", &lab);
        image.write(
            "/etc/systemd/network/10-priv.network",
            &format!(
                "[Match]\nName={PRIVATE_LINK}\n[Network]\nIPv6AcceptRA=no\n\
                 Address={HOST1}/24\nGateway={ROUTER}\n\
                 Address={HOST1_6}/64\nGateway={ROUTER6}\n"
            ),
        );
        image.chroot("systemctl enable systemd-networkd systemd-networkd-wait-online");
        image.write("/etc/systemd/system/trailblazer.service.d/late.conf", LATE);
        image.write("/etc/systemd/system/mounts.service", MOUNTS);
        image.write("/etc/systemd/system/calm.service", CALM);
        image.chroot("systemctl enable mounts calm");
        let host1 = lab.ns("host1");
        host1.ip_batch(&format!(
            "link set {PRIVATE_LINK} down\naddr flush dev {PRIVATE_LINK}\n"
        ));
        count_from_now(&lab);
        let boot = lab.stream("host1", &TARGETS, PACE);
        let machine = Machine::boot(&image, host1);
        machine.wait_in_force(0);
        boot.wait_for(8);
        let boot = boot.stop();
        assert_shut_at_boot(&lab, &machine, &boot);
        count_from_now(&lab);
        assert_eq!(
            image.read("/var/tmp/seen").trim(),
            lab.nat1.egress_public.to_string(),
            "{}",
            machine.journal(SERVICE)
        );
        for target in TARGETS {
            assert_eq!(lab.who("host1", target), Ok(seen_by(&lab, target)));
        }

        // networkd follows the package's drop-in and leaves foreign routes alone.
        // (tests/netns_agent/networkd.rs shows the damage without the drop-in.)
        let settings = machine.ok("systemd-analyze cat-config systemd/networkd.conf");
        assert!(
            settings.contains("\nManageForeignRoutes=no\n"),
            "{settings}"
        );
        eventually("the source has been asked", || {
            status(&machine)["source"]["fetches"] != json!({})
        });
        let before = ours(host1);
        let stream = lab.stream("host1", &TARGETS, PACE);
        stream.wait_for(8);
        machine.ok("systemctl restart systemd-networkd");
        machine.ok("networkctl reload");
        stream.wait_for(40);
        let report = stream.stop();
        assert_only(&lab, &report, |target| seen_by(&lab, target));
        assert_eq!(ours(host1), before);
        assert_eq!(status(&machine)["drift"]["mended"], json!({}));
        machine.shutdown();
    });
}

/// No settings: the package is there and does nothing.
#[test]
#[ignore = "boots a machine: make test-boot"]
fn unconfigured_package_does_nothing() {
    isolated_life(|| {
        let package = Package::find();
        let lab = Lab::new();
        let image = Image::new("unconfigured");
        image.install(&package);
        image.chroot("systemctl enable trailblazer trailblazer-reconcile.timer");
        let host1 = lab.ns("host1");
        let before = host1.snapshot();
        let machine = Machine::boot(&image, host1);
        assert_eq!(machine.property(SERVICE, "ActiveState"), "inactive");
        assert_eq!(machine.property(SERVICE, "ConditionResult"), "no");
        let failed = machine.ok("systemctl --failed --plain --no-legend");
        assert_eq!(failed.trim(), "");
        // Installed once more on the running machine, as unattended upgrades do.
        machine.install(&package.next().0);
        assert_eq!(machine.property(SERVICE, "ActiveState"), "inactive");
        before.assert_same(&host1.snapshot());
        machine.shutdown();
    });
}

/// Hosts without the daemon: the timer's pass.
#[test]
#[ignore = "boots a machine: make test-boot"]
fn host_works_with_the_timer_instead_of_the_agent() {
    isolated_life(|| {
        let lab = behind_a_nat();
        let (image, before_installation) = baked("timer", &lab);
        image.chroot("systemctl disable trailblazer; systemctl enable trailblazer-reconcile.timer");
        // Every second instead of every five minutes, so that the test sees the timer work.
        image.write(
            "/etc/systemd/system/trailblazer-reconcile.timer.d/test.conf",
            "[Timer]\nOnCalendar=*:*:0/1\nRandomizedDelaySec=0\nAccuracySec=100ms\n",
        );
        let machine = Machine::boot(&image, lab.ns("host1"));
        // The boot's own pass, which is part of the boot.
        for target in TARGETS {
            assert_eq!(lab.who("host1", target), Ok(seen_by(&lab, target)));
        }
        // The next pass may run already, which clears the unit's exit time and result: the journal
        // and the time of the last end keep them.
        let unit = "trailblazer-reconcile.service";
        assert!(machine.number(unit, "InactiveEnterTimestampMonotonic") > 0);
        let journal = machine.journal(unit);
        assert!(journal.contains("Finished "), "{journal}");
        // The timer's pass restores deleted objects.
        let before = ours(lab.ns("host1"));
        lab.ns("host1").ip("route flush table 1083");
        eventually("the timer's pass", || ours(lab.ns("host1")) == before);
        let journal = machine.journal(unit);
        assert!(!journal.contains("Failed "), "{journal}");
        assert_eq!(machine.property(SERVICE, "ActiveState"), "inactive");
        removed_and_purged(&machine, lab.ns("host1"), &before_installation);
        machine.shutdown();
    });
}
