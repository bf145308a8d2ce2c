//! What passes: clients outside, the services of the VPC, exempt sources and devices.

use crate::packets::*;
use crate::*;
use lab::*;

/// The device comes after the firewall, and then its addresses and defaults.
fn network_comes_again(lab: &Lab) {
    let (host1, link) = (lab.ns("host1"), PRIVATE_LINK);
    host1.ip(&format!("link set {link} netns peer"));
    lab.ns("peer").ip(&format!("link set {link} netns host1"));
    let [default4, default6] = dhcp_routes(HOST1);
    host1.ip_batch(&format!(
        "link set {link} up\naddr add {HOST1}/24 dev {link}\n\
         addr replace {HOST1_6}/64 dev {link} nodad\n{default4}\n{default6}\n"
    ));
    eventually("the link is ready", || lab.who("host1", HOST2_6).is_ok());
}

/// The chain stands without any rule or route of ours, as when the firewall comes up first.
#[test]
fn chain_alone_locks_nobody_out() {
    isolated(|| {
        let lab = lab_with_nat();
        let open_before = [HOST1_PUBLIC, HOST1_6].map(|to| lab.long_flow("outside", to));
        let machine = Machine::new(&lab, "host1", Firewall::Nftables, BOTH);
        machine.changed();
        count_from_now(&lab);
        shell(&lab, &[DELETE_RULES, FLUSH_BYPASS, FLUSH_EGRESS].join("\n"));
        assert_not_locked_out(&lab);
        assert_seen(&lab, [None; 4]);
        network_comes_again(&lab);
        assert_not_locked_out(&lab);
        assert_seen(&lab, [None; 4]);
        assert_no_leaks(&lab);
        machine.changed();
        machine.in_sync();
        assert_right(&lab);
        for flow in open_before {
            flow.assert_alive();
        }
    });
}

/// More public addresses of `host1` on a link; the edge translates neither.
fn add_addresses(lab: &Lab, link: &str) -> [IpAddr; 2] {
    for (ns, last) in [("host1", 7), ("vpc", 8)] {
        lab.ns(ns).ip_batch(&format!(
            "link set {link} up\naddr add 203.0.113.7{last}/28 dev {link}\n\
             addr add 2600:1f18:1000:22::7{last}/64 dev {link} nodad preferred_lft 0\n"
        ));
    }
    ["203.0.113.77", "2600:1f18:1000:22::77"].map(|it| it.parse().unwrap())
}

/// The partner refuses these addresses of the host: packets have left.
#[track_caller]
fn assert_refused(lab: &Lab, sources: [IpAddr; 2]) {
    for (source, partner) in sources.into_iter().zip([PARTNER, PARTNER6]) {
        let seen = lab.ns("host1").who_from(source, partner);
        assert_eq!(seen, Err(ErrorKind::ConnectionReset), "{source}");
    }
}

/// Foreign routes send packets past both paths, with and without our rules.
#[track_caller]
fn assert_passes(lab: &Lab, sources: [IpAddr; 2]) {
    let machine = Machine::new(lab, "host1", Firewall::Nftables, BOTH);
    machine.changed();
    assert_refused(lab, sources);
    shell(lab, DELETE_RULES);
    assert_refused(lab, sources);
}

#[test]
fn administrators_routes_to_public_prefixes_pass() {
    isolated(|| {
        let lab = lab_with_nat();
        let routes = format!(
            "ip route add {PARTNER} via {ROUTER}; ip route add {PARTNER6} via {ROUTER6} dev priv"
        );
        shell(&lab, &routes);
        assert_passes(&lab, [HOST1, HOST1_6]);
    });
}

/// A running agent learns of a route that the administrator adds.
#[test]
fn later_route_of_the_administrator_passes() {
    isolated(|| {
        let lab = lab_with_nat();
        let machine = Machine::new(&lab, "host1", Firewall::Nftables, BOTH);
        let agent = machine.agent();
        agent.wait_in_force();
        shell(&lab, &format!("ip route add {PARTNER} via {ROUTER}"));
        eventually("the route passes", || {
            lab.who("host1", PARTNER) == Err(ErrorKind::ConnectionReset)
        });
        agent.stop();
    });
}

#[test]
fn device_of_neither_path_passes() {
    isolated(|| {
        let lab = lab_with_nat();
        let ends = "other index 300 type veth peer name other index 301 netns vpc";
        lab.ns("host1").ip(&format!("link add {ends}"));
        let [more4, more6] = add_addresses(&lab, "other");
        let rules = format!(
            "ip route add default via 203.0.113.78 table 77
             ip -6 route add default via 2600:1f18:1000:22::78 table 77
             ip rule add pref 1000 from {more4} lookup 77
             ip -6 rule add pref 1000 from {more6} lookup 77"
        );
        shell(&lab, &rules);
        assert_passes(&lab, [more4, more6]);
    });
}

/// Exempt sources and devices pass, and other sources don't.
#[test]
fn exempt_sources_and_devices_pass() {
    isolated(|| {
        let lab = lab_with_nat();
        let [more4, more6] = add_addresses(&lab, PRIVATE_LINK);
        let exempt = format!("{BOTH}exempt = [\"{more4}/32\", \"{more6}/128\"]\n");
        let mut machine = Machine::new(&lab, "host1", Firewall::Nftables, &exempt);
        machine.changed();
        shell(&lab, DELETE_RULES);
        count_from_now(&lab);
        assert_seen(&lab, [None; 4]);
        assert_no_leaks(&lab);
        assert_refused(&lab, [more4, more6]);
        machine.configure(&format!("{BOTH}exempt = [\"{PRIVATE_LINK}\"]\n"));
        machine.changed();
        assert_right(&lab);
        shell(&lab, DELETE_RULES);
        assert_refused(&lab, [HOST1, HOST1_6]);
    });
}
