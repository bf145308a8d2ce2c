//! The bypass path as a copy of the main table's default route: the kernel's answers and the source
//! addresses at the server, after one pass and under a running agent.

// Helper functions of tests are tests; clippy only knows the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::IpAddr;
use std::path::PathBuf;

use lab::*;
use serde_json::Value;

const STORAGE: &str = "52.216.1.1";
const STORAGE6: &str = "2600:1fa0:8000::1";
const PARTNER: &str = "203.0.113.1";
const PARTNER6: &str = "2a00:1450::1";

/// Both egress gateways, on the first link.
const EGRESS: &str = "[egress]\ngateways = [\"10.0.1.10\", \"2600:1f18:1000:1::10\"]\n";
const IPV4_ONLY: &str = "families = [\"ipv4\"]\n[egress]\ngateways = [\"10.0.1.10\"]\n";

/// A host with two links. The far end of both is every router, NAT instance, storage and partner.
struct Site {
    bare: Bare,
    server: Server,
    config: String,
    directory: PathBuf,
}

impl Site {
    fn new(name: &str, paths: &str) -> Site {
        let bare = Bare::with_links(2);
        let far = bare.far();
        let mut lines = String::from("link set lo up\n");
        for (link, subnet) in [(0, 1), (1, 2)] {
            for host in [1, 2, 10] {
                lines.push_str(&format!("addr add 10.0.{subnet}.{host}/24 dev eth{link}\n"));
            }
            for address in ["fe80::1", "fe80::aa", "fe80::bb"] {
                lines.push_str(&format!("addr add {address}/64 dev eth{link} nodad\n"));
            }
            let network = format!("2600:1f18:1000:{subnet}");
            lines.push_str(&format!(
                "addr add {network}::1/64 dev eth{link} nodad\n\
                 addr add {network}::10/64 dev eth{link} nodad\n"
            ));
        }
        for address in [STORAGE, PARTNER] {
            lines.push_str(&format!("addr add {address}/32 dev lo\n"));
        }
        for address in [STORAGE6, PARTNER6] {
            lines.push_str(&format!("addr add {address}/128 dev lo nodad\n"));
        }
        far.ip_batch(&lines);
        let directory = scratch().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let row = |key: &str, prefix: &str| {
            serde_json::json!({
                key: prefix, "region": "us-east-1", "service": "S3",
                "network_border_group": "us-east-1"
            })
        };
        let document = serde_json::json!({
            "syncToken": "1700000000", "createDate": "2023-11-14-22-13-20",
            "prefixes": [row("ip_prefix", "52.216.0.0/15")],
            "ipv6_prefixes": [row("ipv6_prefix", "2600:1fa0:8000::/39")]
        });
        let path = directory.join("document.json");
        std::fs::write(&path, document.to_string()).unwrap();
        let text = format!(
            "role = \"host\"\n\
             [source]\nurl = \"file://{}\"\nstate_dir = \"{}\"\n\
             [select]\nregions = [\"us-east-1\"]\n\
             {paths}\n\
             [vpc]\ncidrs = [\"10.0.0.0/16\", \"2600:1f18:1000::/56\"]\n\
             [agent]\nsocket = \"{}\"\n",
            path.display(),
            directory.join("state").display(),
            directory.join("control.sock").display()
        );
        Site {
            server: Server::start(&far, PORT, &[]),
            config: write_config(name, &text),
            directory,
            bare,
        }
    }

    fn ns(&self) -> &Ns {
        &self.bare.ns
    }

    /// Replaces both defaults of the main table.
    fn defaults(&self, lines: &str) {
        for family in ["-4", "-6"] {
            self.ns()
                .exec(&["ip", family, "route", "flush", "exact", "default"]);
        }
        self.ns().ip_batch(lines);
    }

    /// Runs a pass that succeeds, and a second pass without any step.
    #[track_caller]
    fn pass(&self) -> Output {
        let first = trailblazer(self.ns(), &["reconcile", "-c", &self.config]).ok();
        let again = trailblazer(self.ns(), &["reconcile", "-c", &self.config]).ok();
        assert!(again.stdout.contains("In sync"), "{again}");
        first
    }

    fn agent(&self) -> Agent {
        let log = self.directory.join("log");
        let agent = Agent::start(self.ns(), &self.config, &log);
        agent.wait_in_force();
        agent
    }

    /// The kernel's route to an address: table, gateway, device, source.
    fn way(&self, address: &str) -> String {
        let answer = self.ns().ip_json(&format!("route get {address}"));
        let text = |key: &str| answer[0][key].as_str().unwrap_or("-").to_owned();
        let via = answer[0]["via"]["host"].as_str().map(str::to_owned);
        let gateway = via.unwrap_or_else(|| text("gateway"));
        format!("{} {gateway} {}", text("table"), text("dev"))
    }

    /// The bypass route of a family, by `ip -j`.
    fn bypass(&self, family: &str) -> Value {
        let routes = self
            .ns()
            .ip_json(&format!("{family} route show table 1083"));
        routes[0].clone()
    }

    /// The source address of a new connection at the server.
    fn seen(&self, address: &str) -> Option<String> {
        let seen = self.ns().who(address.parse().unwrap());
        seen.ok().map(|source| source.to_string())
    }

    #[track_caller]
    fn assert_egress(&self) {
        assert_eq!(self.way(PARTNER), "1084 10.0.1.10 eth0");
        assert!(self.seen(PARTNER).is_some(), "partners answer");
    }
}

/// The next hops of a multipath route.
fn hops(route: &Value) -> Vec<String> {
    let hops = route["nexthops"].as_array().cloned().unwrap_or_default();
    let mut found: Vec<String> = hops
        .iter()
        .map(|hop| {
            format!(
                "{} x{}",
                hop["gateway"].as_str().unwrap_or("-"),
                hop["weight"]
            )
        })
        .collect();
    found.sort();
    found
}

#[test]
fn source_and_metrics_of_the_default_are_kept_and_followed() {
    isolated(|| {
        let site = Site::new("options", EGRESS);
        site.ns().ip_batch(
            "addr add 10.0.1.77/24 dev eth0\n\
             addr add 10.0.1.78/24 dev eth0\n\
             addr add 2600:1f18:1000:1::77/64 dev eth0 nodad\n\
             addr add 2600:1f18:1000:1::78/64 dev eth0 nodad\n",
        );
        let defaults = |last: u8, mtu: u32| {
            site.defaults(&format!(
                "route add default via 10.0.1.1 dev eth0 src 10.0.1.{last} mtu lock {mtu} advmss 1300 initcwnd 30\n\
                 route add default via fe80::1 dev eth0 metric 512 src 2600:1f18:1000:1::{last} mtu {mtu} hoplimit 40\n"
            ));
        };
        let assert_copied = |last: u8, mtu: u32| {
            assert_eq!(site.seen(STORAGE), Some(format!("10.0.1.{last}")));
            assert_eq!(
                site.seen(STORAGE6),
                Some(format!("2600:1f18:1000:1::{last}"))
            );
            let metrics = &site.bypass("-4")["metrics"][0];
            assert_eq!(metrics["mtu"], mtu);
            assert_eq!(metrics["advmss"], 1300);
            assert_eq!(metrics["initcwnd"], 30);
            let text = site.ns().ip("-4 route show table 1083");
            assert!(text.contains("mtu lock"), "{text}");
            let metrics = &site.bypass("-6")["metrics"][0];
            assert_eq!(
                (&metrics["mtu"], &metrics["hoplimit"]),
                (&mtu.into(), &40.into())
            );
        };
        defaults(77, 1400);
        let before = site.seen(STORAGE);
        assert_eq!(before, Some("10.0.1.77".to_owned()), "without our part");
        site.pass();
        assert_copied(77, 1400);
        site.assert_egress();
        // A change between two passes, then one under a running agent.
        defaults(78, 1350);
        site.pass();
        assert_copied(78, 1350);
        let agent = site.agent();
        defaults(77, 1300);
        eventually("the agent follows", || {
            let mtu = |family| site.bypass(family)["metrics"][0]["mtu"] == 1300;
            mtu("-4") && mtu("-6")
        });
        assert_copied(77, 1300);
        drop(agent);
    });
}

#[test]
fn preferred_source_that_the_host_loses_is_left_out_and_named() {
    isolated(|| {
        let site = Site::new("lost", IPV4_ONLY);
        site.ns().ip("addr add 10.0.1.77/24 dev eth0");
        site.defaults("route add default via 10.0.1.1 dev eth0 src 10.0.1.77\n");
        let agent = site.agent();
        assert_eq!(site.seen(STORAGE), Some("10.0.1.77".to_owned()));
        // The kernel removes the main default together with the address, and keeps our routes.
        site.ns().ip("addr del 10.0.1.77/24 dev eth0");
        eventually("storage is reached from an address of the host", || {
            site.seen(STORAGE) == Some("10.0.1.11".to_owned())
        });
        let noted = |status: &Value| status["notes"].to_string().contains("10.0.1.77");
        agent.wait_for("a note about the source", noted);
        assert_eq!(site.way(STORAGE), "1083 10.0.1.1 eth0");
        site.assert_egress();
    });
}

#[test]
fn multipath_default_gives_live_legs_with_weights() {
    isolated(|| {
        let site = Site::new("legs", EGRESS);
        site.defaults(
            "route add default nexthop via 10.0.1.1 dev eth0 weight 3 nexthop via 10.0.2.1 dev eth1\n\
             route add ::/0 metric 512 nexthop via fe80::aa dev eth0 nexthop via fe80::bb dev eth1\n",
        );
        site.pass();
        assert_eq!(hops(&site.bypass("-4")), ["10.0.1.1 x3", "10.0.2.1 x1"]);
        assert_eq!(hops(&site.bypass("-6")), ["fe80::aa x1", "fe80::bb x1"]);
        assert!(site.seen(STORAGE).is_some() && site.seen(STORAGE6).is_some());
        // Down, then without carrier: one pass each, then the agent sees the leg return.
        site.ns().ip("link set eth1 down");
        site.pass();
        assert_eq!(site.way(STORAGE), "1083 10.0.1.1 eth0");
        assert_eq!(site.way(STORAGE6), "1083 fe80::aa eth0");
        site.ns().ip("link set eth1 up");
        let agent = site.agent();
        site.bare.far().ip("link set eth1 down");
        eventually("the leg without carrier is out of use", || {
            site.way(STORAGE) == "1083 10.0.1.1 eth0" && hops(&site.bypass("-4")).is_empty()
        });
        site.bare.far().ip("link set eth1 up");
        eventually("both legs are back", || {
            hops(&site.bypass("-4")) == ["10.0.1.1 x3", "10.0.2.1 x1"]
        });
        drop(agent);
    });
}

#[test]
fn default_through_nexthop_objects_is_resolved_and_followed() {
    isolated(|| {
        let site = Site::new("objects", EGRESS);
        site.ns().sysctl(&[("net/ipv4/nexthop_compat_mode", "0")]);
        for line in [
            "nexthop add id 7 via 10.0.1.1 dev eth0",
            "nexthop add id 8 via 10.0.2.1 dev eth1",
            "nexthop add id 9 via fe80::1 dev eth0",
            "nexthop add id 20 group 7,2/8",
        ] {
            site.ns().ip(line);
        }
        site.defaults("route add default nhid 20\n");
        site.ns().ip("-6 route add default nhid 9");
        site.pass();
        assert_eq!(hops(&site.bypass("-4")), ["10.0.1.1 x2", "10.0.2.1 x1"]);
        assert_eq!(site.way(STORAGE6), "1083 fe80::1 eth0");
        assert!(site.seen(STORAGE).is_some() && site.seen(STORAGE6).is_some());
        // No notification names the route when an object changes.
        let agent = site.agent();
        site.ns().ip("nexthop replace id 20 group 8");
        site.ns().ip("nexthop replace id 9 via fe80::bb dev eth0");
        eventually("the agent follows the objects", || {
            site.way(STORAGE) == "1083 10.0.2.1 eth1" && site.way(STORAGE6) == "1083 fe80::bb eth0"
        });
        drop(agent);
    });
}

#[test]
fn default_for_some_packets_or_of_low_preference_is_not_the_default() {
    isolated(|| {
        let site = Site::new("selective", EGRESS);
        site.defaults(
            "route add default via 10.0.1.1 dev eth0 metric 100\n\
             route add default tos 0x10 via 10.0.2.1 dev eth1 metric 1\n",
        );
        for line in [
            "-6 route add default from 2600:1f18:99::/56 via fe80::99 dev eth0 metric 1",
            "-6 route add default via fe80::aa dev eth0 metric 512 pref low",
            "-6 route append default via fe80::bb dev eth0 metric 512 pref high",
        ] {
            site.ns().ip(line);
        }
        site.pass();
        assert_eq!(site.way(STORAGE), "1083 10.0.1.1 eth0");
        assert_eq!(site.way(STORAGE6), "1083 fe80::bb eth0");
        // A router lowers its preference, under a running agent.
        let agent = site.agent();
        site.defaults("route add default via 10.0.1.1 dev eth0\n");
        site.ns()
            .ip("-6 route add default via fe80::bb dev eth0 metric 512 pref low");
        site.ns()
            .ip("-6 route append default via fe80::aa dev eth0 metric 512");
        eventually("the agent follows", || {
            site.way(STORAGE6) == "1083 fe80::aa eth0"
        });
        drop(agent);
    });
}

#[test]
fn public_space_is_a_default_and_opens_no_egress_path() {
    isolated(|| {
        let site = Site::new("public", EGRESS);
        site.pass();
        assert_eq!(site.way(STORAGE6), "1083 fe80::1 eth0");
        let agent = site.agent();
        site.ns()
            .ip("-6 route add 2000::/3 via fe80::bb dev eth1 metric 100");
        eventually("the agent follows the longer default", || {
            site.way(STORAGE6) == "1083 fe80::bb eth1"
        });
        assert_eq!(site.way(PARTNER6), "1084 2600:1f18:1000:1::10 eth0");
        site.ns().ip("-6 route del 2000::/3");
        eventually("and the shorter one again", || {
            site.way(STORAGE6) == "1083 fe80::1 eth0"
        });
        drop(agent);
    });
}

#[test]
fn halves_of_a_vpn_never_see_a_packet_and_are_named() {
    isolated(|| {
        let site = Site::new("halves", EGRESS);
        site.pass();
        site.ns().ip_batch(
            "link add vpn0 type veth peer name vpn1\n\
             link set vpn1 up\n\
             link set vpn0 up\n\
             addr add 10.8.0.6/24 dev vpn0\n\
             route add 0.0.0.0/1 via 10.8.0.1 dev vpn0\n\
             route add 128.0.0.0/1 via 10.8.0.1 dev vpn0\n\
             route add ::/1 dev vpn0\n\
             route add 8000::/1 dev vpn0\n",
        );
        // At once, before any pass.
        site.assert_egress();
        assert_eq!(site.way(PARTNER6), "1084 2600:1f18:1000:1::10 eth0");
        assert_eq!(site.way(STORAGE), "1083 10.0.1.1 eth0");
        let check = trailblazer(site.ns(), &["check", "-c", &site.config]);
        for half in ["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"] {
            assert!(check.stdout.contains(half), "{half}: {check}");
        }
        site.pass();
        site.assert_egress();
        // The same scene with a rule that ignores only `0.0.0.0/0` shows the fault.
        site.ns()
            .ip("rule add pref 29000 lookup main suppress_prefixlength 0");
        assert!(site.way(PARTNER).ends_with("vpn0"), "{}", site.way(PARTNER));
    });
}

#[test]
fn onlink_gateways_are_accepted_by_the_default_or_by_the_settings() {
    isolated(|| {
        let site = Site::new(
            "onlink",
            "[bypass]\ngateway = \"10.0.1.1\"\n\
             [egress]\ngateways = [\"10.0.1.10\"]\nonlink = true\n",
        );
        site.ns().ip("addr flush dev eth0");
        site.ns().ip("addr add 10.0.1.11/32 dev eth0");
        site.ns()
            .ip("route add default via 10.0.1.1 dev eth0 onlink");
        site.bare.far().ip("route add 10.0.1.11/32 dev eth0");
        site.pass();
        assert_eq!(site.seen(STORAGE), Some("10.0.1.11".to_owned()));
        site.assert_egress();
        let shown = site.ns().ip("route show table 1083");
        assert!(shown.contains("onlink"), "{shown}");
        // The default is gone for a moment: both paths stay.
        site.ns().ip("route del default");
        let pass = site.pass();
        assert!(pass.stdout.contains("10.0.1.1"), "{pass}");
        assert_eq!(site.way(STORAGE), "1083 10.0.1.1 eth0");
        site.assert_egress();
    });
}

#[test]
fn ipv4_default_through_an_ipv6_router_carries_storage() {
    isolated(|| {
        let site = Site::new("inet6", IPV4_ONLY);
        site.defaults("link set lo up\n");
        site.ns()
            .ip("-4 route add default via inet6 fe80::1 dev eth0 src 10.0.1.11 mtu 1400");
        site.pass();
        assert_eq!(site.way(STORAGE), "1083 fe80::1 eth0");
        assert_eq!(site.seen(STORAGE), Some("10.0.1.11".to_owned()));
        assert_eq!(site.bypass("-4")["metrics"][0]["mtu"], 1400);
        site.assert_egress();
        let host: IpAddr = "10.0.1.11".parse().unwrap();
        assert!(site.server.peers().contains(&host));
        let explain = trailblazer(site.ns(), &["explain", STORAGE, "-c", &site.config]).ok();
        assert!(explain.stdout.contains("the kernel agrees"), "{explain}");
    });
}
