//! `check` names each fault with a remedy, and changes nothing.

use std::path::Path;

use crate::setup::*;
use lab::*;

struct Checked(serde_json::Value);

impl Checked {
    #[track_caller]
    fn run(setup: &Setup, ns: &Ns, code: i32) -> Checked {
        let before = ns.snapshot();
        let text = setup.run(ns, &["check"]).expect_code(code);
        println!("{}", text.stdout);
        let value = setup.json(ns, &["check"], code);
        before.assert_same(&ns.snapshot());
        Checked(value)
    }

    fn all(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.0["checks"].as_array().unwrap().iter().map(|check| {
            let part = |name: &str| check[name].as_str().unwrap();
            (part("name"), part("level"), part("message"))
        })
    }

    /// Asserts that the report has this finding.
    #[track_caller]
    fn has(&self, name: &str, level: &str, words: &str) {
        assert!(
            self.all()
                .any(|(n, l, message)| n == name && l == level && message.contains(words)),
            "no `{level} {name}` with {words:?} in {:#}",
            self.0
        );
    }

    #[track_caller]
    fn has_no(&self, level: &str) {
        let found: Vec<_> = self.all().filter(|(_, l, _)| *l == level).collect();
        assert!(found.is_empty(), "{found:#?}");
    }
}

/// Settings that keep a host of the lab free of every warning.
const CLEAN: [(&str, &str); 4] = [
    ("net/ipv4/tcp_fwmark_accept", "1"),
    ("net/ipv4/conf/all/src_valid_mark", "1"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/priv/rp_filter", "0"),
];

#[test]
fn check_covers_the_host_role() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        ns.sysctl(&CLEAN);
        let setup = Setup::host("s", "");
        let new = Checked::run(&setup, ns, 0);
        new.has("document", "warn", "no document stored yet");
        new.has("state_dir", "ok", "will be created");
        new.has("metadata", "ok", "10.0.0.0/16");
        new.has_no("fail");
        assert!(!setup.state.exists());

        setup.run(ns, &["reconcile"]).ok();
        let well = Checked::run(&setup, ns, 0);
        well.has("config", "ok", "role host");
        well.has("backend", "ok", "nftables (auto");
        well.has("nf_tables", "ok", "");
        well.has("document", "ok", "confirmed ");
        well.has("bypass", "ok", "ipv4: via 10.0.1.1 on priv");
        well.has("egress", "ok", "ipv6: via 2600:1f18:1000:1::a");
        well.has("conflicts", "ok", "");
        well.has("lock", "ok", "");
        well.has("rules", "ok", "ipv6");
        well.has_no("fail");
        assert_eq!(well.0["fails"], 0);

        ns.sysctl(&[
            ("net/ipv4/tcp_fwmark_accept", "0"),
            ("net/ipv4/conf/all/src_valid_mark", "0"),
            ("net/ipv4/conf/priv/rp_filter", "1"),
        ]);
        ns.ip_batch(
            "rule add pref 1024 fwmark 0x80/0x80 lookup main protocol boot\n\
             rule add pref 10001 from 10.0.1.77 lookup 1001 protocol dhcp\n\
             rule add pref 30050 from 10.0.1.78 lookup 1002 protocol dhcp\n\
             rule add pref 30500 from all lookup 52 protocol static\n",
        );
        let warned = Checked::run(&setup, ns, 0);
        warned.has("rules", "warn", "foreign rule 1024");
        warned.has("rules", "warn", "fwmark 0x80/0x80 lookup main");
        warned.has("rules", "warn", "from 10.0.1.77 lookup 1001");
        warned.has(
            "rules",
            "warn",
            "foreign rule 30500 follows Trailblazer's rules",
        );
        warned.has("kernel", "warn", "foreign ipv4 rule 30050");
        warned.has("tcp_fwmark_accept", "warn", "off");
        warned.has("src_valid_mark", "warn", "off");
        warned.has("rp_filter", "warn", "priv is strict");

        ns.ip("route add default via 10.0.1.1 table 1084 metric 7 proto static");
        let conflict = Checked::run(&setup, ns, 1);
        conflict.has(
            "conflicts",
            "fail",
            "is a default route in Trailblazer's table",
        );
        assert_eq!(conflict.0["fails"], 1);
    });
}

#[test]
fn check_names_a_hash_that_does_not_spread_flows() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        ns.sysctl(&CLEAN);
        let more = "spread = \"flow\"\n[[egress.gateway]]\naddress = \"10.0.1.10\"\n\
                    [[egress.gateway]]\naddress = \"10.0.1.20\"\n";
        let text =
            format!("role = \"host\"\n[select]\nregions = [\"us-east-1\"]\n[egress]\n{more}");
        let setup = Setup::new("s", &text);
        let policy = "net/ipv4/fib_multipath_hash_policy";
        ns.sysctl(&[(policy, "0")]);
        let warned = Checked::run(&setup, ns, 0);
        let text =
            "net.ipv4.fib_multipath_hash_policy is 0, and [egress] spread = \"flow\" needs 1";
        warned.has("spread", "warn", text);
        ns.sysctl(&[(policy, "1")]);
        let well = Checked::run(&setup, ns, 0);
        well.has("spread", "ok", "net.ipv4.fib_multipath_hash_policy is 1");
        let one = Setup::host("one", "spread = \"flow\"\n");
        let one = Checked::run(&one, ns, 0);
        assert!(!one.0["checks"].to_string().contains("fib_multipath"));
    });
}

#[test]
fn check_fails_for_settings_that_cost_a_part() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        ns.sysctl(&CLEAN);
        let config = |gateways: &str| {
            let text = format!(
                "role = \"host\"\n[select]\nregions = [\"us-east-1\"]\n[egress]\ngateways = [{gateways}]"
            );
            Setup::new("s", &text)
        };
        Checked::run(&config("\"192.0.2.9\""), ns, 1).has("egress", "fail", "192.0.2.9");
        let one = Checked::run(&config("\"10.0.1.10\""), ns, 0);
        one.has("paths", "warn", "ipv6: no egress gateway");
        ns.sysctl(&[
            ("net/ipv4/tcp_fwmark_accept", "0"),
            ("net/ipv4/conf/all/src_valid_mark", "0"),
            ("net/ipv4/conf/priv/rp_filter", "2"),
        ]);
        let closed = Checked::run(&config("\"10.0.1.10\"]\nclose = [\"ipv6\""), ns, 0);
        closed.has("tcp_fwmark_accept", "warn", "while ipv6 is closed");
        closed.has(
            "tcp_fwmark_accept",
            "warn",
            "no egress gateway is available",
        );
        closed.has("src_valid_mark", "warn", "no egress gateway is available");
        ns.sysctl(&CLEAN);
        let none = Checked::run(&config(""), ns, 0);
        none.has("egress", "warn", "ipv4: no egress gateway");

        let http = config("\"10.0.1.10\"").run(ns, &["check", "--source", &lab.mirror.url()]);
        assert!(http.ok().stdout.contains("the one exemption"));

        let auto = Setup::new("auto", "role = \"host\"\n[select]\nregions = [\"auto\"]\n");
        Checked::run(&auto, ns, 0).has("metadata", "ok", "region us-east-1");
        lab.imds.set_mode(ImdsMode::Status(403));
        Checked::run(&auto, ns, 1).has("metadata", "fail", "403");

        let file = Setup::host("file", "");
        std::fs::write(&file.state, "").unwrap();
        let refused = setup_check(&file, ns);
        assert!(
            refused.contains("is a file") || refused.contains("Not a directory"),
            "{refused}"
        );
        let wrong = trailblazer(ns, &["check", "--role", "host", "-c", "/nowhere"]);
        wrong.expect_code(64);
        trailblazer(ns, &["check"]).expect_code(64);
    });
}

fn setup_check(setup: &Setup, ns: &Ns) -> String {
    let output = setup.run(ns, &["check"]).expect_code(1);
    output.stdout
}

#[test]
fn check_covers_the_nat_role() {
    lab::isolated(|| {
        let lab = Lab::with(NatLayout::BulkInterface);
        let ns = lab.ns("nat1");
        let gateway = lab.nat1.second_gateway;
        let setup = Setup::nat(
            "s",
            &lab.nat1,
            &format!("[bypass]\ninterface = \"{BULK_LINK}\"\ngateway = [\"{gateway}\"]\n"),
        );
        ns.sysctl(&[
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/bulk/rp_filter", "0"),
        ]);
        let well = Checked::run(&setup, ns, 0);
        well.has("forwarding", "ok", "net.ipv4.ip_forward is on");
        well.has("rp_filter", "ok", "bulk");
        well.has("egress", "ok", "source address");
        well.has("ports", "ok", "random source ports");
        ns.sysctl(&[
            ("net/ipv4/ip_forward", "0"),
            ("net/ipv4/conf/bulk/rp_filter", "1"),
            ("net/ipv4/ip_local_port_range", "40000 41000"),
        ]);
        let off = Checked::run(&setup, ns, 1);
        off.has("forwarding", "fail", "net.ipv4.ip_forward is off");
        // The rules of a pass lead the look-up back out by the interface that the reply came in by.
        off.has("rp_filter", "ok", "bulk is strict; the next pass");
        off.has("ip_local_port_range", "warn", "1001 ports");
        ns.sysctl(&[("net/ipv4/ip_forward", "1")]);
        setup.run(ns, &["reconcile"]).ok();
        let strict = Checked::run(&setup, ns, 0);
        strict.has("rp_filter", "ok", "bulk is strict, and accepts replies");
        // A foreign rule leads the look-up back elsewhere.
        ns.ip("rule add pref 1000 iif priv lookup main");
        let foreign = Checked::run(&setup, ns, 1);
        foreign.has(
            "rp_filter",
            "fail",
            "bulk is strict: the kernel drops replies",
        );
    });
}

#[test]
fn check_reports_the_order_of_iptables_jumps() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        let setup = Setup::host("s", "[nat]\nbackend = \"iptables\"\n");
        setup.run(ns, &["reconcile"]).ok();
        let before = ["iptables", "-t", "mangle", "-I", "OUTPUT", "-j", "RETURN"];
        ns.run(&before);
        let checked = Checked::run(&setup, ns, 0);
        checked.has("backend", "ok", "iptables (as configured");
        checked.has("iptables", "warn", "is rule 2, behind foreign rules");
        // The tool warns of the other variant in its own words.
        ns.run(&["iptables-legacy", "-t", "filter", "-S"]);
        let both = Checked::run(&setup, ns, 0);
        both.has("iptables", "ok", "rules of iptables-legacy exist too");
        let warned = |(name, level, message): (&str, &str, &str)| {
            name == "iptables" && level == "warn" && message.contains("tables present")
        };
        assert!(!both.all().any(warned), "{:#}", both.0);
    });
}

#[test]
fn check_works_without_privileges() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        let setup = Setup::host("s", "");
        setup.run(ns, &["reconcile"]).ok();
        let arguments = ["check", "-c", &setup.config, "-o", "json"];
        let checked = Checked(as_nobody(ns, &arguments).ok().json());
        checked.has("privileges", "warn", "no CAP_NET_ADMIN");
        checked.has("nf_tables", "warn", "CAP_NET_ADMIN");
        checked.has_no("fail");
    });
}

#[test]
fn check_warns_of_networkd_removing_our_objects() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        let setup = Setup::host("s", "");
        // /run is the test's own. systemd-tmpfiles creates this directory on machines without
        // networkd too.
        std::fs::create_dir_all("/run/systemd/netif").unwrap();
        Checked::run(&setup, ns, 0).has("networkd", "ok", "is off");
        let wants = Path::new("/run/systemd/system/multi-user.target.wants");
        std::fs::create_dir_all(wants).unwrap();
        let unit = "systemd-networkd.service";
        std::os::unix::fs::symlink(unit, wants.join(unit)).unwrap();
        std::fs::create_dir_all("/run/systemd/networkd.conf.d").unwrap();
        let text = "[Network]\nManageForeignRoutes=no\n";
        std::fs::write("/run/systemd/networkd.conf.d/99-lab.conf", text).unwrap();
        let checked = Checked::run(&setup, ns, 0);
        checked.has("networkd", "warn", "removes Trailblazer's routes or rules");
        let advice = checked.0["checks"].to_string();
        assert!(
            advice.contains("ManageForeignRoutingPolicyRules=no"),
            "{advice}"
        );
    });
}

#[test]
fn foreign_rules_are_printed_as_ip_rule_prints_them() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        let setup = Setup::host("s", "");
        ns.ip_batch(
            "rule add pref 101 not from 10.9.0.0/16 tos 0x10 iif lo lookup 100\n\
             rule add pref 102 uidrange 0-0 lookup 100\n\
             rule add pref 103 sport 1000-2000 ipproto udp prohibit\n\
             rule add pref 104 to 192.0.2.0/24 blackhole\n\
             rule add pref 105 oif lo fwmark 0x5/0xff unreachable\n\
             rule add pref 106 fwmark 7 realms 3/4 lookup 200\n\
             rule add pref 107 l3mdev\n\
             rule add pref 108 from 10.0.1.99 ipproto tcp dport 443 lookup default\n\
             rule add pref 109 from 10.0.1.99 lookup 100 suppress_prefixlength 8 suppress_ifgroup 3\n",
        );
        ns.ip("-6 rule add pref 110 to 2001:db8::/32 ipproto ipv6-icmp lookup main");
        let printed = setup.run(ns, &["check"]).stdout;
        let mut compared = 0;
        for family in ["-4", "-6"] {
            let rules = ns.ip(&format!("{family} rule"));
            let foreign = rules.lines().filter_map(|line| line.split_once(":\t"));
            for (priority, words) in foreign.filter(|(priority, _)| priority.starts_with("10")) {
                let line = printed
                    .lines()
                    .find(|line| line.contains(&format!("foreign rule {priority} ")));
                // A rule that cannot divert a packet is not listed.
                let Some(line) = line else { continue };
                compared += 1;
                assert!(
                    line.ends_with(&format!(": {}", words.trim())),
                    "{line}\n{words}"
                );
            }
        }
        assert!(compared >= 8, "{compared}: {printed}");
    });
}
