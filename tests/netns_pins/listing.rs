//! `trailblazer flows` and the numbers in `status`: open flows that keep another path than a new flow
//! would take.

use serde_json::{Value, json};

use crate::packets::*;
use crate::*;
use lab::*;

const NAT1: [&str; 2] = ["10.0.1.10", "2600:1f18:1000:1::10"];
const NAT2: [&str; 2] = ["10.0.1.20", "2600:1f18:1000:1::20"];

/// Conntrack on `host1` counts the bytes of new flows and keeps their start.
fn record(lab: &Lab) {
    lab.ns("host1").sysctl(&[
        ("net/netfilter/nf_conntrack_acct", "1"),
        ("net/netfilter/nf_conntrack_timestamp", "1"),
    ]);
}

/// A machine with pins in force, and five flows to each target.
fn opened<'l>(lab: &'l Lab, gateways: &str) -> (Machine<'l>, Flows) {
    let machine = Machine::new(lab, "host1", Firewall::Nftables, &settings(gateways, true));
    machine.changed();
    machine.in_sync();
    let flows = Flows::open(lab, &TARGETS);
    flows.assert_moving();
    (machine, flows)
}

fn listed(machine: &Machine, more: &[&str]) -> Value {
    let words = [&["flows", "-o", "json"], more].concat();
    machine.run(&words).ok().json()
}

/// The flows of a list to one address.
fn to(list: &Value, target: IpAddr) -> Vec<Value> {
    let flows = list["flows"].as_array().unwrap().iter();
    let found = flows.filter(|flow| {
        let end = flow["destination"].as_str().unwrap();
        end.parse::<std::net::SocketAddr>().unwrap().ip() == target
    });
    found.cloned().collect()
}

/// Each flow to the target has these fields.
#[track_caller]
fn assert_each(list: &Value, target: IpAddr, fields: &Value) {
    let flows = to(list, target);
    assert_eq!(flows.len(), FLOWS, "to {target}: {list:#}");
    for flow in flows {
        for (name, value) in fields.as_object().unwrap() {
            assert_eq!(&flow[name], value, "{name} of {flow:#}");
        }
        let source = flow["source"].as_str().unwrap();
        let source: std::net::SocketAddr = source.parse().unwrap();
        assert_eq!(source.ip(), own_of_host1(target), "{flow:#}");
    }
}

/// The counts of both families, which are equal in every scene.
#[track_caller]
fn assert_counts(counts: &Value, bypass: [usize; 2], egress: [usize; 2]) {
    let count = |[pinned, displaced]: [usize; 2]| json!({"pinned": pinned, "displaced": displaced});
    let both = json!({"bypass": count(bypass), "egress": count(egress)});
    assert_eq!(*counts, json!({"ipv4": both, "ipv6": both}));
}

/// Storage leaves the selection, and the partner enters it.
fn publish_change(machine: &mut Machine) {
    machine.publish(&[&format!("{PARTNER}/32"), &format!("{PARTNER6}/128")]);
}

#[test]
fn flows_displaced_by_a_document_are_listed_until_they_end() {
    isolated(|| {
        let lab = lab_with_nats();
        record(&lab);
        let (mut machine, flows) = opened(&lab, ONE);
        let before = listed(&machine, &[]);
        assert_eq!(before["flows"], json!([]));
        assert_counts(&before["counts"], [FLOWS, 0], [FLOWS, 0]);
        assert_eq!(
            listed(&machine, &["--all"])["flows"]
                .as_array()
                .unwrap()
                .len(),
            4 * FLOWS
        );

        publish_change(&mut machine);
        machine.changed();
        let list = listed(&machine, &[]);
        let [router4, router6] = [json!([ROUTER]), json!([ROUTER6])];
        for (target, nat, router) in [(S3, NAT1[0], &router4), (S3_6, NAT1[1], &router6)] {
            let fields = json!({
                "path": "bypass", "gateways": router, "protocol": "tcp", "displaced": true,
                "why": "left_bypass", "new_path": "egress", "new_gateways": [nat],
            });
            assert_each(&list, target, &fields);
        }
        for (target, nat, router) in [(PARTNER, NAT1[0], &router4), (PARTNER6, NAT1[1], &router6)] {
            let fields = json!({
                "path": "egress", "gateways": [nat], "protocol": "tcp", "displaced": true,
                "why": "entered_bypass", "new_path": "bypass", "new_gateways": router,
            });
            assert_each(&list, target, &fields);
        }
        assert_counts(&list["counts"], [FLOWS, FLOWS], [FLOWS, FLOWS]);
        assert_eq!(list["notes"], json!([]));
        assert_eq!([&list["accounting"], &list["timestamps"]], [true, true]);
        for flow in list["flows"].as_array().unwrap() {
            assert!(flow["bytes"].as_u64().unwrap() > 500, "{flow:#}");
            assert!(flow["age_s"].as_u64().unwrap() < 600, "{flow:#}");
            assert!(flow["timeout_s"].as_u64().unwrap() > 100, "{flow:#}");
        }
        // The flows are where the list says.
        assert_eq!(who(&lab, S3), Some(lab.nat1.egress_public));
        assert_eq!(flows.broken(), 0);
        // Their ends are packets under way.
        eventually("no open flow is left", || {
            let counts = &listed(&machine, &[])["counts"];
            let none = json!({"pinned": 0, "displaced": 0});
            let none = json!({"bypass": none, "egress": none});
            *counts == json!({"ipv4": none, "ipv6": none})
        });
        assert_eq!(listed(&machine, &["--all"])["flows"], json!([]));
    });
}

#[test]
fn flows_through_a_draining_gateway_are_listed() {
    isolated(|| {
        let lab = lab_with_nats();
        let (mut machine, flows) = opened(&lab, ONE);
        machine.configure(&settings(TWO, true));
        machine.changed();
        // A new flow may get either gateway.
        assert_eq!(listed(&machine, &[])["flows"], json!([]));
        machine.configure(&settings(OTHER, true));
        machine.changed();
        let list = listed(&machine, &[]);
        for (target, family) in [(PARTNER, 0), (PARTNER6, 1)] {
            let fields = json!({
                "path": "egress", "gateways": [NAT1[family]], "why": "gateway_left",
                "new_path": "egress", "new_gateways": [NAT2[family]],
                "bytes": null, "age_s": null,
            });
            assert_each(&list, target, &fields);
        }
        assert_eq!(
            list["flows"].as_array().unwrap().len(),
            2 * FLOWS,
            "{list:#}"
        );
        assert_counts(&list["counts"], [FLOWS, 0], [FLOWS, FLOWS]);
        // Unknown is neither 0 nor a secret.
        assert_eq!([&list["accounting"], &list["timestamps"]], [false, false]);
        let notes = list["notes"].to_string();
        assert!(notes.contains("nf_conntrack_acct is 0"), "{notes}");
        assert!(notes.contains("nf_conntrack_timestamp is 0"), "{notes}");

        let text = machine.run(&["flows", "--limit", "3"]).ok().stdout;
        let rows: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("egress"))
            .collect();
        assert_eq!(rows.len(), 3, "{text}");
        assert!(
            rows.iter()
                .all(|row| row.contains("gateway left the settings")),
            "{text}"
        );
        assert!(text.contains("and 7 flows more: --limit"), "{text}");
        assert!(text.contains("ipv4: 5 pinned flows on the bypass path, 5 pinned flows (5 displaced) on the egress path"), "{text}");
        let few = listed(&machine, &["--limit", "0"]);
        assert_eq!((&few["flows"], &few["left_out"]), (&json!([]), &json!(10)));
        assert_eq!(flows.broken(), 0);
    });
}

/// With `when_down = "bypass"` and no gateway, new flows follow the main table's default; the
/// administrator's own routes win for open flows too.
#[test]
fn flows_displaced_by_the_main_default_are_listed() {
    isolated(|| {
        let lab = lab_with_nats();
        let when_down = format!("{}when_down = \"bypass\"\n", settings(ONE, true));
        let machine = Machine::new(&lab, "host1", Firewall::Nftables, &when_down);
        machine.changed();
        let flows = Flows::open(&lab, &TARGETS);
        flows.assert_moving();
        let host1 = lab.ns("host1");
        host1.ip(&format!("route add {S3}/32 via 10.0.1.1"));
        assert_eq!(listed(&machine, &[])["flows"], json!([]));
        // The rule that leads new flows to the gateway.
        host1.ip("rule del pref 30030 proto 83");
        let list = listed(&machine, &[]);
        let fields = json!({
            "path": "egress", "gateways": [NAT1[0]], "why": "other_route", "new_path": "other",
            "new_gateways": [ROUTER],
            "reason": "route 0.0.0.0/0 of table main leads elsewhere",
        });
        assert_each(&list, PARTNER, &fields);
        assert_eq!(list["flows"].as_array().unwrap().len(), FLOWS, "{list:#}");
        assert_eq!(flows.broken(), 0);
    });
}

#[test]
fn status_of_an_agent_counts_pinned_and_displaced_flows() {
    isolated(|| {
        let lab = lab_with_nats();
        let (mut machine, flows) = opened(&lab, ONE);
        let agent = machine.agent();
        agent.wait_in_force();
        // A kick during the first fetch would bring no other document.
        agent.wait_for(
            "all flows are counted, and the first fetch is over",
            |status| {
                let fetched = status["source"]["fetches"]["unchanged"] == 1;
                fetched && status["pinned"]["flows"]["ipv4"]["egress"]["pinned"] == FLOWS
            },
        );
        publish_change(&mut machine);
        machine.run(&["kick"]).ok();
        let status = agent.wait_for("the displaced flows are counted", |status| {
            let flows = &status["pinned"]["flows"];
            // A count in the middle of the change sees a part of it.
            ["ipv4", "ipv6"].iter().all(|family| {
                let displaced = |path: &str| flows[family][path]["displaced"] == FLOWS;
                displaced("bypass") && displaced("egress")
            })
        });
        assert_counts(&status["pinned"]["flows"], [FLOWS, FLOWS], [FLOWS, FLOWS]);
        let text = machine.run(&["status"]).ok().stdout;
        assert!(
            text.contains(
                "pinned     ipv4 10 flows, 10 displaced; ipv6 10 flows, 10 displaced (counted "
            ),
            "{text}"
        );
        assert_eq!(flows.broken(), 0);
        agent.wait_for("no flow is left", |status| {
            status["pinned"]["flows"]["ipv4"]["bypass"] == json!({"pinned": 0, "displaced": 0})
        });
        // Without pins the number is unknown, and not 0.
        machine.run(&["flush"]).ok();
        agent.wait_for("no number in a pause", |status| status["pinned"].is_null());
    });
}

#[test]
fn command_says_where_no_flow_can_be_pinned() {
    isolated(|| {
        let lab = lab_with_nats();
        let mut machine = Machine::new(&lab, "host1", Firewall::Nftables, &settings(ONE, true));
        let refused = |machine: &Machine, reason: &str| {
            let said = machine.run(&["flows"]).expect_code(1);
            assert!(
                said.stderr.contains(reason) && said.stdout.is_empty(),
                "{said}"
            );
            let object = machine.run(&["flows", "-o", "json"]).expect_code(1).json();
            assert!(
                object["error"].as_str().unwrap().contains(reason),
                "{object:#}"
            );
            assert_eq!(object["flows"], json!([]));
            assert_eq!(object["counts"], json!({"ipv4": null, "ipv6": null}));
            assert_eq!(object["left_out"], Value::Null);
        };
        refused(&machine, "no policy rules of pinned flows");
        machine.changed();
        machine.run(&["flows"]).ok();
        let words = ["flows", "-c", machine.config()];
        let program = binary().display().to_string();
        let words: Vec<&str> = std::iter::once(program.as_str()).chain(words).collect();
        let said = machine.ns().exec_unprivileged(&words).expect_code(1);
        assert!(said.stderr.contains("CAP_NET_ADMIN"), "{said}");
        assert!(said.stdout.is_empty(), "{said}");
        machine.configure(&settings(ONE, false));
        refused(&machine, "[egress] pin = false");
        machine.configure(&format!("[egress]\nenforce = false\n{ONE}\n"));
        refused(&machine, "[egress] enforce = false");
        machine.configure("");
        refused(&machine, "no egress gateway");
        let iptables = Machine::new(&lab, "host2", Firewall::Iptables, &settings(ONE, true));
        refused(&iptables, "only nftables can pin the flows of a host");
        let nat = Machine::new(
            &lab,
            "nat1",
            Firewall::Nftables,
            "egress_addresses = [\"10.0.0.10\"]\n",
        );
        refused(&nat, "no interface or gateway of one path alone");
    });
}

/// A NAT with a bulk interface: the clients behind it are the sources of its flows.
#[test]
fn flows_of_a_nat_are_listed() {
    use crate::packets::nat::{SOURCES, behind_nat1, bulk_interface};
    isolated(|| {
        let case = bulk_interface(Firewall::Nftables);
        let lab = behind_nat1(case.layout);
        let mut machine = case.machine(&lab);
        machine.configure(&format!("{SOURCES}{}", (case.settings)(&lab.nat1)));
        machine.changed();
        let flows = Flows::open(&lab, &TARGETS);
        flows.assert_moving();
        assert_eq!(listed(&machine, &[])["flows"], json!([]));
        publish_change(&mut machine);
        machine.changed();
        let list = listed(&machine, &[]);
        for target in [S3, S3_6] {
            let fields = json!({"path": "bypass", "why": "left_bypass", "new_path": "egress"});
            assert_each(&list, target, &fields);
        }
        for target in [PARTNER, PARTNER6] {
            let fields = json!({"path": "egress", "why": "entered_bypass", "new_path": "bypass"});
            assert_each(&list, target, &fields);
        }
        assert_counts(&list["counts"], [FLOWS, FLOWS], [FLOWS, FLOWS]);
        // The router has one link-local address on all links, so that IPv6 shows no difference.
        for flow in [S3, PARTNER].iter().flat_map(|target| to(&list, *target)) {
            assert_ne!(flow["gateways"], flow["new_gateways"], "{flow:#}");
        }
        assert_eq!(flows.broken(), 0);
    });
}
