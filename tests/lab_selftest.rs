//! The lab's own test: the properties that other tests rely on hold without Trailblazer.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use lab::*;

#[test]
fn lab_starts_in_under_a_second() {
    lab::isolated(|| {
        let started = Instant::now();
        let _lab = Lab::new();
        let took = started.elapsed();
        println!("the lab was up after {took:?}");
        // 60 ms on two idle cores; the rest is reserve for a machine that also compiles.
        assert!(took < Duration::from_secs(1), "the lab took {took:?}");
    });
}

#[test]
fn hosts_are_seen_from_their_public_address() {
    lab::isolated(|| {
        let lab = Lab::new();
        assert_eq!(lab.who("host1", S3), Ok(HOST1_PUBLIC));
        assert_eq!(lab.who("host2", S3), Ok(HOST2_PUBLIC));
        assert_eq!(lab.who("host1", S3_SECOND), Ok(HOST1_PUBLIC));
        assert_eq!(lab.who("host1", S3_ELSEWHERE), Ok(HOST1_PUBLIC));
        assert_eq!(lab.who("host1", S3_6), Ok(HOST1_6));
        assert_eq!(lab.who("host2", S3_6), Ok(HOST2_6));
        assert_eq!(
            lab.s3.peers(),
            BTreeSet::from([HOST1_PUBLIC, HOST2_PUBLIC, HOST1_6, HOST2_6])
        );
        let first = &lab.s3.contacts()[0];
        assert_eq!((first.local, first.first_line.as_str()), (S3, "who"));
        for address in [S3, S3_6, S3_SECOND, S3_SECOND6, S3_ELSEWHERE] {
            let own = if address.is_ipv4() {
                HOST1_PUBLIC
            } else {
                HOST1_6
            };
            let datagram = lab.ns("host1").who_udp(SocketAddr::new(address, PORT));
            assert_eq!(datagram, Ok(own), "UDP to {address}");
        }
    });
}

#[test]
fn every_address_of_a_served_prefix_answers() {
    lab::isolated(|| {
        let lab = Lab::new();
        let prefixes = [
            "3.5.0.0/19",
            "18.34.232.0/21",
            "203.0.112.7/32",
            "2600:1ff0:8000::/39",
        ];
        lab.serve_s3(prefixes);
        for prefix in prefixes {
            let address = address_in(prefix);
            assert!(lab.who("host1", address).is_ok(), "{address} in {prefix}");
        }
        let last: IpAddr = "3.5.31.255".parse().unwrap();
        assert_eq!(lab.who("host1", last), Ok(HOST1_PUBLIC));
        let outside: IpAddr = "3.5.32.1".parse().unwrap();
        assert!(lab.who("host1", outside).is_err(), "nobody serves 3.5.32.1");
    });
}

#[test]
fn partner_resets_all_but_egress_addresses() {
    lab::isolated(|| {
        let lab = Lab::new();
        for (partner, own) in [(PARTNER, HOST1_PUBLIC), (PARTNER6, HOST1_6)] {
            assert_eq!(lab.who("host1", partner), Err(ErrorKind::ConnectionReset));
            assert!(lab.partner.refused().contains(&own));
            let datagram = lab.ns("host1").who_udp(SocketAddr::new(partner, PORT));
            assert_eq!(datagram, Err(ErrorKind::TimedOut));
        }
        let leaks = lab.leaks();
        assert!(
            leaks.partner4 > 0 && leaks.partner6 > 0,
            "the leaks were seen: {leaks:?}"
        );
        lab.reset_leaks();
        lab.partner.clear();
        assert_eq!(lab.leaks(), Leaks::default());
        assert_eq!(lab.partner.contacts(), []);
    });
}

/// Without Trailblazer partners and S3 both see the egress address of the NAT.
fn through_the_nat(layout: NatLayout) {
    let lab = Lab::with(layout);
    for name in ["nat1", "nat2"] {
        lab.plain_nat(name);
    }
    for (host, name) in [("host1", "nat1"), ("host2", "nat2")] {
        lab.default_via(host, name);
        let nat = lab.nat(name);
        for (target, seen) in [
            (PARTNER, nat.egress_public),
            (PARTNER6, nat.egress6),
            (S3, nat.egress_public),
            (S3_6, nat.egress6),
        ] {
            assert_eq!(
                lab.who(host, target),
                Ok(seen),
                "{layout:?} {host} to {target}"
            );
        }
    }
    let leaks = lab.leaks();
    assert_eq!(
        (leaks.partner4, leaks.partner6, leaks.unmapped),
        (0, 0, 0),
        "{layout:?}"
    );
    assert!(
        leaks.s3_egress4 > 0 && leaks.s3_egress6 > 0,
        "S3 over the NAT was seen: {leaks:?}"
    );
    assert_eq!(lab.partner.refused(), BTreeSet::new());

    // The instance itself, from each of its addresses.
    let (ns, nat) = (lab.ns("nat1"), lab.nat1);
    assert_eq!(
        ns.who_from(nat.egress, PARTNER),
        Ok(nat.egress_public),
        "{layout:?}"
    );
    assert_eq!(
        ns.who_from(nat.egress6, PARTNER6),
        Ok(nat.egress6),
        "{layout:?}"
    );
    assert_eq!(
        ns.who_from(nat.second, S3),
        Ok(nat.second_public),
        "{layout:?}"
    );
    assert_eq!(
        ns.who_from(nat.second6, S3_6),
        Ok(nat.second6),
        "{layout:?}"
    );
    assert_eq!(
        ns.who_from(nat.second, PARTNER),
        Err(ErrorKind::ConnectionReset),
        "{layout:?}"
    );

    // The second link's gateway leads to the internet too.
    ns.ip(&format!(
        "route add 54.231.0.0/16 via {} src {}",
        nat.second_gateway, nat.second
    ));
    assert_eq!(ns.who(S3_SECOND), Ok(nat.second_public), "{layout:?}");
}

#[test]
fn plain_nat_works_with_two_interfaces() {
    lab::isolated(|| through_the_nat(NatLayout::TwoInterfaces));
}

#[test]
fn plain_nat_works_with_a_bulk_interface() {
    lab::isolated(|| through_the_nat(NatLayout::BulkInterface));
}

#[test]
fn plain_nat_works_with_one_interface() {
    lab::isolated(|| through_the_nat(NatLayout::OneInterface));
}

#[test]
fn untranslated_packets_are_counted() {
    lab::isolated(|| {
        let lab = Lab::new();
        lab.default_via("host1", "nat1");
        assert_eq!(lab.who("host1", PARTNER), Err(ErrorKind::TimedOut));
        assert_eq!(lab.who("host1", PARTNER6), Err(ErrorKind::ConnectionReset));
        let leaks = lab.leaks();
        assert!(
            leaks.unmapped > 0,
            "a private source on the public wire: {leaks:?}"
        );
        assert!(leaks.partner6 > 0, "the host's own IPv6 address: {leaks:?}");
    });
}

#[test]
fn outside_reaches_the_hosts() {
    lab::isolated(|| {
        let lab = Lab::new();
        assert_eq!(lab.who("outside", HOST1_PUBLIC), Ok(OPERATOR));
        assert_eq!(lab.who("outside", HOST2_PUBLIC), Ok(OPERATOR));
        assert_eq!(lab.who("outside", HOST1_6), Ok(OPERATOR6));
        assert_eq!(lab.host1.peers(), BTreeSet::from([OPERATOR, OPERATOR6]));
        let flow = lab.long_flow("outside", HOST1_PUBLIC);
        let flow6 = lab.long_flow("outside", HOST1_6);
        assert_eq!(flow.assert_alive().seen, OPERATOR);
        assert_eq!(flow6.assert_alive().seen, OPERATOR6);
    });
}

/// The reason for marks on flows from outside: with the default through a NAT, the reply leaves
/// from another address than the operator connected to.
#[test]
fn outside_loses_a_host_whose_default_is_the_nat() {
    lab::isolated(|| {
        let lab = Lab::new();
        lab.plain_nat("nat1");
        let flow = lab.long_flow("outside", HOST1_PUBLIC);
        lab.default_via("host1", "nat1");
        assert!(lab.who("outside", HOST1_PUBLIC).is_err());
        assert!(lab.who("outside", HOST1_6).is_err());
        std::thread::sleep(Duration::from_secs(1));
        let report = flow.stop();
        assert!(
            report.broken.is_some(),
            "the open connection broke as well: {report:?}"
        );
    });
}

#[test]
fn private_neighbours_see_no_translation() {
    lab::isolated(|| {
        let lab = Lab::new();
        assert_eq!(lab.who("host1", PEER), Ok(HOST1));
        assert_eq!(lab.who("host1", PEER6), Ok(HOST1_6));
        assert_eq!(lab.who("peer", HOST1), Ok(PEER));
        assert_eq!(lab.who("peer", HOST1_6), Ok(PEER6));
        assert_eq!(lab.who("host1", HOST2), Ok(HOST1));
        assert_eq!(lab.who("host1", HOST2_6), Ok(HOST1_6));
        for resolver in [RESOLVER, RESOLVER6, RESOLVER_IN_VPC] {
            let own = if resolver.is_ipv4() { HOST1 } else { HOST1_6 };
            let asked = lab.ns("host1").who_udp(SocketAddr::new(resolver, DNS_PORT));
            assert_eq!(asked, Ok(own), "{resolver}");
        }
        assert_eq!(lab.leaks(), Leaks::default());
    });
}

/// One raw HTTP exchange: status and body.
fn http(ns: &Ns, address: IpAddr, request: &str) -> (u16, String) {
    use std::io::{Read, Write};
    let answer = ns.in_thread(|| {
        let mut stream = std::net::TcpStream::connect((address, 80)).unwrap();
        write!(stream, "{request}\r\nHost: lab\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

#[test]
fn metadata_needs_a_token_and_depends_on_the_client() {
    lab::isolated(|| {
        let lab = Lab::new();
        for endpoint in [IMDS, IMDS6] {
            let host1 = lab.ns("host1");
            let get = |path: &str, token: &str| {
                http(
                    host1,
                    endpoint,
                    &format!("GET /latest/{path} HTTP/1.1{token}"),
                )
            };
            assert_eq!(get("meta-data/placement/region", "").0, 401);
            assert_eq!(
                http(host1, endpoint, "PUT /latest/api/token HTTP/1.1").0,
                400
            );
            let ttl = "X-aws-ec2-metadata-token-ttl-seconds: 60";
            let (status, token) = http(
                host1,
                endpoint,
                &format!("PUT /latest/api/token HTTP/1.1\r\n{ttl}"),
            );
            assert_eq!(status, 200);
            let token = format!("\r\nX-aws-ec2-metadata-token: {token}");
            let ask = |path: &str| get(&format!("meta-data/{path}"), &token);
            assert_eq!(ask("placement/region"), (200, "us-east-1".into()));
            assert_eq!(ask("instance-id"), (200, "i-0000000686f737431".into()));
            assert_eq!(
                ask("network/interfaces/macs/"),
                (200, "02:00:0a:00:01:0b/".into())
            );
            let (_, mac) = ask("mac");
            assert!(host1.ip("link show priv").contains(&mac));
            let interface = format!("network/interfaces/macs/{mac}");
            assert_eq!(
                ask(&format!("{interface}/vpc-ipv4-cidr-blocks")),
                (200, VPC4.into())
            );
            assert_eq!(
                ask(&format!("{interface}/vpc-ipv6-cidr-blocks")),
                (200, VPC6.into())
            );
            let public = HOST1_PUBLIC.to_string();
            assert_eq!(
                ask(&format!("{interface}/ipv4-associations/")),
                (200, public)
            );
            assert_eq!(ask("nothing/here").0, 404);
        }
        lab.imds.set_mode(ImdsMode::Status(503));
        assert_eq!(
            http(lab.ns("host2"), IMDS, "PUT /latest/api/token HTTP/1.1").0,
            503
        );
    });
}

#[test]
fn mirror_serves_the_documents_of_a_test() {
    lab::isolated(|| {
        let lab = Lab::new();
        let host1 = lab.ns("host1");
        lab.mirror.set_document("first");
        let get = |more: &str| {
            http(
                host1,
                MIRROR,
                &format!("GET /ip-ranges.json HTTP/1.1{more}"),
            )
        };
        assert_eq!(get(""), (200, "first".into()));
        assert_eq!(get("\r\nIf-None-Match: \"lab-1\""), (304, String::new()));
        lab.mirror.set_document("second");
        assert_eq!(get("\r\nIf-None-Match: \"lab-1\""), (200, "second".into()));
        assert_eq!(
            http(host1, MIRROR6, "GET /ip-ranges.json HTTP/1.1"),
            (200, "second".into())
        );
        lab.mirror.set_status(Some(500));
        assert_eq!(get("").0, 500);
        assert_eq!(lab.mirror.requests().len(), 5);
        assert_eq!(lab.mirror.requests()[0].peer, HOST1_PUBLIC);
    });
}

#[test]
fn stream_shows_the_moment_of_a_change() {
    lab::isolated(|| {
        let lab = Lab::new();
        lab.plain_nat("nat1");
        let stream = lab.stream("host1", &[S3, S3_6, PARTNER], 50);
        stream.wait_for(30);
        lab.default_via("host1", "nat1");
        stream.wait_for(30);
        let report = stream.stop();
        let (s3, s3_6) = (report.of(S3), report.of(S3_6));
        let egress = lab.nat1.egress_public.to_string();
        assert!(
            s3[&HOST1_PUBLIC.to_string()] > 0 && s3[&egress] > 0,
            "{s3:?}"
        );
        assert!(
            s3_6[&HOST1_6.to_string()] > 0 && s3_6.len() == 2,
            "{s3_6:?}"
        );
        let partner = report.of(PARTNER);
        assert!(
            partner["ConnectionReset"] > 0 && partner[&egress] > 0,
            "{partner:?}"
        );
        report.assert_only(S3, &[HOST1_PUBLIC, lab.nat1.egress_public]);
        let strict = std::panic::catch_unwind(|| report.assert_only(S3, &[HOST1_PUBLIC]));
        assert!(strict.is_err(), "a wrong source must be noticed");
    });
}

#[test]
fn snapshot_shows_every_foreign_change_and_no_owned_one() {
    lab::isolated(|| {
        let lab = Lab::new();
        let host1 = lab.ns("host1");
        host1.nft(
            "table ip theirs { chain c { type filter hook input priority 0; counter accept; }; }",
        );
        let before = host1.foreign_snapshot();
        lab.who("host1", S3).unwrap();
        before.assert_same(&host1.foreign_snapshot());

        // Objects of Trailblazer are left out.
        host1.ip_batch(
            "route add 52.216.0.0/15 via 10.0.1.1 table 1083 proto 83\n\
             route add 2600:1fa0:8000::/39 via fe80::1 dev priv table 1083 proto 83\n\
             route add unreachable default table 1084 proto 83 metric 4000\n\
             rule add pref 30002 lookup 1083 proto 83\n",
        );
        host1.ip("-6 rule add pref 30002 lookup 1083 proto 83");
        host1.nft("table inet trailblazer { set s { type mark; }; chain c { type filter hook output priority 0; counter; }; }");
        before.assert_same(&host1.foreign_snapshot());
        assert_ne!(before, host1.snapshot());

        // Foreign objects are included, each kind.
        for (make, unmake) in [
            (
                "ip route add 10.9.0.0/16 via 10.0.1.1",
                "ip route del 10.9.0.0/16",
            ),
            (
                "ip route add 10.9.0.0/16 via 10.0.1.1 table 1083",
                "ip route del 10.9.0.0/16 table 1083",
            ),
            ("ip rule add pref 30050 lookup 7", "ip rule del pref 30050"),
            (
                "ip nexthop add id 7 via 10.0.1.1 dev priv",
                "ip nexthop del id 7",
            ),
            (
                "ip addr add 10.0.1.99/24 dev priv",
                "ip addr del 10.0.1.99/24 dev priv",
            ),
            ("nft add table ip other", "nft delete table ip other"),
            (
                "echo 1 > /proc/sys/net/ipv4/conf/all/src_valid_mark",
                "echo 0 > /proc/sys/net/ipv4/conf/all/src_valid_mark",
            ),
        ] {
            host1.run(&["sh", "-c", make]);
            let changed = host1.foreign_snapshot();
            assert_ne!(before, changed, "unnoticed: {make}");
            assert!(!before.difference(&changed).is_empty());
            host1.run(&["sh", "-c", unmake]);
            before.assert_same(&host1.foreign_snapshot());
        }
    });
}

#[test]
fn flap_removes_routes_and_dhcp_restores_its_own() {
    lab::isolated(|| {
        let lab = Lab::new();
        let host1 = lab.ns("host1");
        let main = |ns: &Ns| ns.ip("-4 route show") + &ns.ip("-6 route show");
        let before = main(host1);
        host1.ip("route add 52.216.0.0/15 via 10.0.1.1 table 1083 proto 83");
        lab.flap_host("host1");
        assert_eq!(
            host1
                .ip_json("route show table 1083")
                .as_array()
                .map(Vec::len),
            Some(0)
        );
        let sorted = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
        assert_eq!(sorted(&before), sorted(&main(host1)));
        assert_eq!(lab.who("host1", S3), Ok(HOST1_PUBLIC));
        assert_eq!(lab.who("host1", S3_6), Ok(HOST1_6));
    });
}

#[test]
fn bare_namespaces_are_cheap_and_separate() {
    lab::isolated(|| {
        let started = Instant::now();
        let (one, two) = (Bare::with_links(2), Bare::new());
        println!("two bare namespaces took {:?}", started.elapsed());
        one.ns
            .ip("route add 10.9.0.0/16 via 10.0.2.1 dev eth1 table 1083");
        assert_eq!(
            one.ns.ip_json("route show table 1083")[0]["dst"],
            "10.9.0.0/16"
        );
        assert_eq!(
            two.ns
                .ip_json("route show table 1083")
                .as_array()
                .map(Vec::len),
            Some(0)
        );
        assert!(two.ns.exec(&["ip", "link", "show", "eth1"]).code != Some(0));
        let default6 = &two.ns.ip_json("-6 route show default")[0];
        assert_eq!(default6["gateway"], "fe80::1");
        assert_eq!(
            default6["flags"],
            serde_json::json!([]),
            "no linkdown: {default6}"
        );
    });
}

#[test]
fn unprivileged_commands_have_no_capability() {
    lab::isolated(|| {
        let bare = Bare::new();
        let add = ["ip", "route", "add", "10.9.0.0/16", "via", "10.0.1.1"];
        let refused = bare.ns.exec_unprivileged(&add);
        assert!(refused.stderr.contains("not permitted"), "{refused}");
        bare.ns.exec_unprivileged(&["ip", "route", "show"]).ok();
        bare.ns.exec(&add).ok();
    });
}

#[test]
fn configs_name_a_state_directory_inside_the_lab() {
    lab::isolated(|| {
        let path = write_config("host1", "state_dir = \"$STATE\"\n");
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "state_dir = \"/run/lab/host1/state\"\n");
    });
}

#[test]
fn resolver_configuration_is_private() {
    let before = std::fs::read_to_string("/etc/resolv.conf").ok();
    lab::isolated(|| {
        set_resolv_conf("nameserver 169.254.169.253\n");
        let now = std::fs::read_to_string("/etc/resolv.conf").unwrap();
        assert_eq!(now, "nameserver 169.254.169.253\n");
    });
    if !lab::inside() {
        assert_eq!(before, std::fs::read_to_string("/etc/resolv.conf").ok());
    }
}

#[test]
#[should_panic(expected = "failed inside its namespaces")]
fn failure_inside_fails_the_test_outside() {
    lab::isolated(|| panic!("on purpose"));
}

#[test]
#[should_panic(expected = "no test named")]
fn body_that_never_runs_fails_the_test() {
    Isolation::default().run_named("no_such_test", || {});
}

#[test]
#[should_panic(expected = "exceeded its deadline of 1 s")]
fn hanging_body_is_killed_at_its_deadline() {
    Isolation::default()
        .deadline(Duration::from_secs(1))
        .run(|| std::thread::sleep(Duration::from_secs(60)));
}

/// Runs as root, and shows that the lab needs no root: the same test program as nobody. If the
/// system forbids user namespaces, the failure must say so and name the setting.
#[test]
fn lab_works_for_an_unprivileged_user() {
    if lab::inside() || !rustix::process::geteuid().is_root() {
        lab::isolated(|| assert_eq!(Lab::new().who("host1", S3), Ok(HOST1_PUBLIC)));
        return;
    }
    // The build directory may lie where nobody can't look.
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("lab_selftest");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    for path in [directory.path(), &copy] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let output = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=-all",
        ])
        .arg(&copy)
        .args([
            "--exact",
            "lab_works_for_an_unprivileged_user",
            "--nocapture",
        ])
        .current_dir("/")
        .output()
        .expect("setpriv starts (package util-linux; make deps)");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        assert!(text.contains("1 passed"), "{text}");
        return;
    }
    let permitted = |path: &str, forbidden: &str| {
        std::fs::read_to_string(path).map_or(true, |value| value.trim() != forbidden)
    };
    let anybody = permitted("/proc/sys/kernel/unprivileged_userns_clone", "0")
        && permitted(
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
        )
        && permitted("/proc/sys/user/max_user_namespaces", "0");
    assert!(
        !anybody,
        "users may make namespaces here, but the lab failed for one:\n{text}"
    );
    assert!(
        text.contains("To do:") && text.contains("sysctl -w"),
        "no advice in:\n{text}"
    );
}

/// The host role set up by hand, with `ip` and `nft`: the lab can show every promise, and the
/// promises hold on this kernel.
#[test]
fn host_role_set_up_by_hand_keeps_its_promises() {
    lab::isolated(|| {
        let lab = Lab::new();
        lab.plain_nat("nat1");
        let host1 = lab.ns("host1");
        let before = host1.foreign_snapshot();
        let stream = lab.stream("host1", &[S3, S3_6], 40);

        host1.nft(
            "table inet trailblazer {
               chain incoming {
                 type filter hook prerouting priority mangle;
                 iifname priv ct direction original ct state new ct mark set ct mark | 0x3000
               }
               chain outgoing {
                 type route hook output priority mangle;
                 ct direction reply ct mark & 0x3000 == 0x3000 meta mark set meta mark | 0x3000
               }
             }",
        );
        // Opened before the rules, and marked by the first packet afterwards.
        let inbound = lab.long_flow("outside", HOST1_PUBLIC);
        let inbound6 = lab.long_flow("outside", HOST1_6);
        let egress = lab.nat1;
        host1.ip_batch(&format!(
            "route add 52.216.0.0/15 via {ROUTER} dev priv table 1083 proto 83
             route add 54.231.0.0/16 via {ROUTER} dev priv table 1083 proto 83
             route add 2600:1fa0:8000::/39 via {ROUTER6} dev priv table 1083 proto 83
             route add throw 10.0.0.0/8 table 1084 proto 83
             route add throw 169.254.0.0/16 table 1084 proto 83
             route add throw fc00::/7 table 1084 proto 83
             route add throw fe80::/10 table 1084 proto 83
             route add throw {VPC6} table 1084 proto 83
             route add default via {} dev priv table 1084 proto 83 metric 10
             route add default via {} dev priv table 1084 proto 83 metric 10
             route add unreachable 0.0.0.0/0 table 1084 proto 83 metric 4000
             route add unreachable ::/0 table 1084 proto 83 metric 4000
             ",
            egress.private, egress.private6
        ));
        for family in ["-4", "-6"] {
            for rule in [
                "pref 30000 fwmark 0x3000/0x3000 lookup main",
                "pref 30001 lookup main suppress_prefixlength 0",
                "pref 30002 lookup 1083",
                "pref 30003 lookup 1084",
            ] {
                host1.ip(&format!("{family} rule add {rule} proto 83"));
            }
        }
        before.assert_same(&host1.foreign_snapshot());
        lab.reset_leaks();
        let partners = lab.stream("host1", &[PARTNER, PARTNER6], 40);
        partners.wait_for(20);

        assert_eq!(lab.who("host1", PEER), Ok(HOST1));
        assert_eq!(lab.who("host1", PEER6), Ok(HOST1_6));
        for resolver in [RESOLVER, RESOLVER6, RESOLVER_IN_VPC] {
            let own = if resolver.is_ipv4() { HOST1 } else { HOST1_6 };
            let asked = host1.who_udp(SocketAddr::new(resolver, DNS_PORT));
            assert_eq!(asked, Ok(own), "{resolver}");
        }
        assert_eq!(lab.who("outside", HOST1_PUBLIC), Ok(OPERATOR));
        assert_eq!(lab.who("outside", HOST1_6), Ok(OPERATOR6));

        let s3 = stream.stop();
        s3.assert_only(S3, &[HOST1_PUBLIC]);
        s3.assert_only(S3_6, &[HOST1_6]);
        let partners = partners.stop();
        partners.assert_only(PARTNER, &[egress.egress_public]);
        partners.assert_only(PARTNER6, &[egress.egress6]);
        assert_eq!(inbound.assert_alive().seen, OPERATOR);
        assert_eq!(inbound6.assert_alive().seen, OPERATOR6);
        assert_eq!(lab.leaks(), Leaks::default());
        // S3 of an unselected region takes the egress path.
        assert_eq!(lab.who("host1", S3_ELSEWHERE), Ok(egress.egress_public));
    });
}
