//! A case in a kernel: built with `ip` in namespaces, run with the real binary, and read back with
//! `ip`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use trailblazer::facts::HostFacts;
use trailblazer::firewall::{BackendKind, ObservedFirewall};
use trailblazer::kernel::Kernel;
use trailblazer::kernel::firewall;
use trailblazer::objects::{MetricKind, NexthopKind, Route, RouteTarget, Rule, RuleAction};
use trailblazer::observed::ObservedState;
use trailblazer::ownership::{Numbers, Ownership};
use trailblazer::state::StateFile;
use trailblazer::state::store::Store;
use trailblazer::types::{Family, Protocol};

use crate::case::{Case, KERNEL_RULES};
use crate::{difference, lines, pipeline};
use lab::{Imds, Ns, Output};

struct Host {
    ns: Ns,
    far: Ns,
    state_dir: PathBuf,
}

/// Builds the case, runs the dry run and the pass, and compares.
pub fn carry_out(case: &Case) {
    let host = build(case);
    assert_as_described(case, &host);
    let expected = pipeline::run(case);

    let dry = run(case, &host, &["--dry-run"]);
    let golden = std::fs::read_to_string(case.directory.join("plan.txt")).unwrap_or_default();
    let planned = without_judgement(&normal(&dry));
    let (golden, seen) = (without_times(&golden), without_times(&planned));
    assert!(
        seen == golden,
        "the binary's dry run isn't the golden text:\n{}\n{dry}",
        difference(&golden, &seen)
    );
    assert_eq!(dry.code, Some(i32::from(expected.report.exit_code())));

    let foreign = foreign(case, &host);
    let real = run(case, &host, &[]);
    // Without a document, or with a part missing, everything else goes in all the same, and the
    // exit code says so.
    let defeated = case.observed.defeated.as_deref();
    let degraded = !expected.report.degraded.is_empty();
    let fails = expected.report.error.is_some() || degraded || defeated.is_some();
    let named = defeated.is_none_or(|words| real.stdout.contains(words));
    assert!(named, "{defeated:?} is not in the report: {real}");
    assert_eq!(real.code, Some(i32::from(fails)), "{real}");
    assert!(!real.stdout.contains("Rolled back"), "{real}");
    assert_desired(case, &host, &expected);
    let now = self::foreign(case, &host);
    assert!(
        foreign.is_subset(&now),
        "foreign objects have changed; gone: {:#?}",
        foreign.difference(&now).collect::<Vec<_>>()
    );
    assert_numbers_known(case, &host);
    for (question, answer) in &case.observed.answers {
        let found = ask(&host.ns, question, answer.contains(" src "));
        assert_eq!(&found, answer, "ip route get {question}");
    }
    let again = run(case, &host, &["--dry-run"]);
    let quiet = again.stdout.contains("In sync: nothing to do")
        || again.stdout.contains("the rest is in sync")
        || (fails && !again.stdout.lines().any(|line| line.starts_with("  ")));
    assert!(quiet, "a second pass still has something to do:\n{again}");
}

fn build(case: &Case) -> Host {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let names = [format!("case{number}"), format!("far{number}")];
    for name in &names {
        let status = Command::new("ip").args(["netns", "add", name]).status();
        assert!(status.is_ok_and(|status| status.success()), "ip netns add");
    }
    let (ns, far) = (Ns::open(&names[0]), Ns::open(&names[1]));
    for ns in [&ns, &far] {
        ns.sysctl(&[
            ("net/ipv4/ip_forward", "0"),
            ("net/ipv6/conf/all/disable_ipv6", "0"),
            ("net/ipv6/conf/default/disable_ipv6", "0"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
            ("net/ipv6/conf/default/accept_dad", "0"),
            ("net/ipv6/conf/default/accept_ra", "0"),
            ("net/ipv6/conf/default/router_solicitations", "0"),
        ]);
        ns.ip("link set lo up");
    }
    let mut near = String::new();
    let mut other = String::new();
    for link in case.links().iter().skip(1) {
        let name = &link.name;
        near.push_str(&format!(
            "link add {name} index {} type veth peer name {name} netns {}\n\
             link set {name} addrgenmode none\n",
            link.index, names[1]
        ));
        other.push_str(&format!(
            "link set {name} addrgenmode none\nlink set {name} up\n"
        ));
        if link.up {
            near.push_str(&format!("link set {name} up\n"));
        }
    }
    ns.ip_batch(&near);
    far.ip_batch(&other);
    // Some settings belong to links.
    let settings: Vec<(&str, &str)> = case
        .observed
        .sysctls
        .iter()
        .map(|(path, value)| (path.as_str(), value.as_str()))
        .collect();
    ns.sysctl(&settings);
    for line in &case.observed.addresses {
        let nodad = if line.contains(':') { " nodad" } else { "" };
        ns.ip(&format!("addr add {line}{nodad}"));
    }
    let up: Vec<String> = case
        .links()
        .iter()
        .skip(1)
        .filter(|link| link.up)
        .map(|link| link.name.clone())
        .collect();
    wait_for_carrier(&ns, &up);
    let mut batch = ["".to_owned(), "".to_owned()];
    let place = |family: Family| usize::from(family == Family::Ipv6);
    for line in &case.observed.main {
        let family = lines::route(line, &case.names).key.family();
        batch[place(family)].push_str(&format!("route add {line}\n"));
    }
    feed(&ns, &batch);

    let state_dir = lab::scratch().join(&case.name);
    if case.observed.instance.is_some() {
        serve_instance(case, &far);
    }
    let host = Host { ns, far, state_dir };
    if let Some(before) = &case.before
        && before.document.is_some()
    {
        let cached = run(before, &host_of(case, &host), &["--cache-only"]);
        assert_eq!(cached.code, Some(0), "{cached}");
    }
    let store = Store::open(&host.state_dir).with_sync(false);
    store.create_directory().expect("the scratch is writable");
    let earlier = case.ownership().earlier;
    store
        .write_json(StateFile::Numbers, &earlier)
        .expect("same");
    put_objects(case, &host.ns);
    host
}

/// The earlier case is judged on this case's host, with this case's state directory.
fn host_of(_case: &Case, host: &Host) -> Host {
    Host {
        ns: host.ns.clone(),
        far: host.far.clone(),
        state_dir: host.state_dir.clone(),
    }
}

fn feed(ns: &Ns, batch: &[String; 2]) {
    for (family, lines) in ["-4", "-6"].iter().zip(batch) {
        if !lines.is_empty() {
            ns.feed(&["ip", family, "-batch", "-"], lines);
        }
    }
}

fn wait_for_carrier(ns: &Ns, links: &[String]) {
    lab::wait_until(
        Duration::from_secs(10),
        Duration::from_millis(2),
        || {
            let found = ns.ip_json("link show");
            let up = |name: &String| {
                found.as_array().is_some_and(|all| {
                    all.iter()
                        .any(|link| link["ifname"] == **name && link["operstate"] == "UP")
                })
            };
            links.iter().all(up).then_some(())
        },
        || format!("a carrier of each of {links:?}"),
    );
}

/// The resolver's configuration of a case.
pub fn resolv_conf(case: &Case) -> String {
    let servers = case.observed.name_servers.iter();
    servers
        .map(|server| format!("nameserver {server}\n"))
        .collect()
}

/// Adds the case's routes, rules, nexthops and firewalls.
fn put_objects(case: &Case, ns: &Ns) {
    let state = case.state();
    let mut nexthops = state.nexthops.clone();
    nexthops.sort_by_key(|nexthop| matches!(nexthop.kind, NexthopKind::Group(_)));
    for nexthop in &nexthops {
        let line = lines::nexthop_line(nexthop, &case.names).replace("group6", "group");
        ns.ip(&format!("nexthop add {line}"));
    }
    let mut batch = ["".to_owned(), "".to_owned()];
    let place = |family: Family| usize::from(family == Family::Ipv6);
    for route in &state.routes {
        batch[place(route.key.family())]
            .push_str(&format!("{}\n", lines::route_command(route, &case.names)));
    }
    let there: Vec<Rule> = KERNEL_RULES.map(lines::rule).into();
    let mut twins: Vec<Rule> = Vec::new();
    let mut seen: Vec<Rule> = Vec::new();
    for rule in state.rules.iter().filter(|rule| !there.contains(rule)) {
        // The kernel compares everything but the protocol.
        let bare = Rule {
            protocol: Protocol(0),
            ..rule.clone()
        };
        if seen.contains(&bare) {
            twins.push(rule.clone());
            continue;
        }
        seen.push(bare);
        batch[place(rule.family)].push_str(&format!("{}\n", lines::rule_command(rule)));
    }
    feed(ns, &batch);
    // `ip` refuses a twin of a rule, the kernel doesn't.
    ns.in_thread(|| {
        let mut kernel = Kernel::open().expect("netlink is there");
        let refused = kernel
            .socket()
            .batch("put twins", twins.len(), |place, buffer| {
                trailblazer::kernel::rule::encode(false, &twins[place], buffer)
            })
            .expect("rules can be written");
        assert!(refused.is_empty(), "{refused:?}");
    });
    if let Some((backend, ruleset)) = case.firewall_before() {
        ns.in_thread(|| firewall::backend(backend).replace(&ruleset))
            .expect("the policy of the case before goes in");
    }
    if let Some(ObservedFirewall::Foreign(_)) = state.firewalls.get(&BackendKind::Nftables) {
        ns.nft("table inet trailblazer {\n chain theirs {\n type filter hook input priority 0\n }\n}\n");
    }
}

/// The metadata service, behind the first gateway.
fn serve_instance(case: &Case, far: &Ns) {
    let instance = case.observed.instance.clone().unwrap_or_default();
    let facts = case.facts();
    far.ip(&format!("addr add {}/32 dev lo", lab::IMDS));
    far.ip(&format!("addr add {}/128 dev lo nodad", lab::IMDS6));
    for route in facts.defaults(Family::Ipv4) {
        let (Some(gateway), Some(device)) = (route.gateway, route.device) else {
            continue;
        };
        far.ip(&format!(
            "addr add {gateway}/24 dev {}",
            case.names.name(device)
        ));
    }
    let imds = Imds::start(far);
    imds.know("host", facts.addresses.iter().map(|own| own.net.addr()));
    let set = |path: &str, value: &str| imds.set("host", path, value);
    set("instance-id", "i-0123456789abcdef0");
    if let Some(region) = &instance.region {
        set("placement/region", region);
    }
    let mac = "02:00:00:00:00:01";
    set("mac", mac);
    let list = |family: Family| {
        let cidrs = instance.vpc_cidrs.iter();
        cidrs
            .filter(|cidr| Family::of_net(cidr) == family)
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let below = |path: &str, value: &str| {
        set(&format!("network/interfaces/macs/{mac}/{path}"), value);
    };
    below("device-number", "0");
    for (family, path) in [
        (Family::Ipv4, "vpc-ipv4-cidr-blocks"),
        (Family::Ipv6, "vpc-ipv6-cidr-blocks"),
    ] {
        let text = list(family);
        if !text.is_empty() {
            below(path, &text);
        }
    }
    for (public, private) in &instance.public_addresses {
        below(&format!("ipv4-associations/{public}"), &private.to_string());
    }
}

/// Our reading of the kernel equals the case's description, so the pure pipeline starts from the
/// real state.
fn assert_as_described(case: &Case, host: &Host) {
    let ownership = case.ownership();
    let described = case.state();
    let kinds: Vec<BackendKind> = described.firewalls.keys().copied().collect();
    let (facts, state) = host.ns.in_thread(|| {
        let mut kernel = Kernel::open().expect("netlink is there");
        let facts = kernel.facts().expect("facts can be read");
        let state = kernel
            .observe(&ownership, &kinds)
            .expect("state can be read");
        (facts, state)
    });
    let same = |what: &str, described: String, found: String| {
        assert!(
            described == found,
            "{what} in the kernel aren't what the case describes (- case, + kernel):\n{}",
            difference(&described, &found)
        );
    };
    same("facts", facts_text(&case.facts()), facts_text(&facts));
    same(
        "objects",
        state_text(case, &described),
        state_text(case, &state),
    );
}

fn facts_text(facts: &HostFacts) -> String {
    let lo = facts.link_named("lo").map(|link| link.index);
    let mut lines: Vec<String> = Vec::new();
    for link in &facts.links {
        lines.push(format!("link {} {} up {}", link.index, link.name, link.up));
    }
    for address in facts.addresses.iter().filter(|a| Some(a.link) != lo) {
        lines.push(format!("{address:?}"));
    }
    for route in facts
        .main_routes
        .iter()
        .filter(|r| r.device != lo || lo.is_none())
    {
        lines.push(format!("{route:?}"));
    }
    for server in &facts.name_servers {
        lines.push(format!("name server {server}"));
    }
    lines.sort();
    lines.join("\n")
}

fn state_text(case: &Case, state: &ObservedState) -> String {
    let mut lines: Vec<String> = Vec::new();
    let names = &case.names;
    lines.extend(state.routes.iter().map(|r| lines::route_line(r, names)));
    lines.extend(state.rules.iter().map(lines::rule_line));
    lines.extend(state.nexthops.iter().map(|n| lines::nexthop_line(n, names)));
    for (kind, found) in &state.firewalls {
        let text = match found {
            ObservedFirewall::Owned(owned) => owned.text.join("\n"),
            other => format!("{other:?}"),
        };
        lines.push(format!("{kind}: {text}"));
    }
    lines.sort();
    lines.join("\n")
}

fn run(case: &Case, host: &Host, arguments: &[&str]) -> Output {
    let source = match &case.document {
        Some((path, _)) => path.display().to_string(),
        None => "/nonexistent/ip-ranges.json".to_owned(),
    };
    let mut command = Command::new(lab::binary());
    command
        .arg("reconcile")
        .arg("-c")
        .arg(case.directory.join("config.toml"))
        .args(["--source", &source, "--state-dir"])
        .arg(&host.state_dir)
        .args(arguments)
        .env("NO_COLOR", "1")
        .env(lab::IMDS_ENDPOINT, format!("http://{}", lab::IMDS))
        .stdin(Stdio::null());
    host.ns.exec_command(&mut command)
}

/// The binary's text without parts that depend on the machine or the moment: the version of
/// iptables, the duration, the failure of the missing source.
fn normal(output: &Output) -> String {
    let mut text = String::new();
    for line in output.stdout.lines() {
        let mut line = line.to_owned();
        if line.starts_with(pipeline::SOURCE_NOTE) {
            continue;
        }
        if line.starts_with("firewall  iptables")
            && let Some((start, _)) = line.rsplit_once("; ")
        {
            line = format!("{start}; iptables)");
        }
        if let Some((start, rest)) = line.split_once(" (")
            && rest.ends_with(" ms).")
        {
            line = format!("{start} (0.0 ms).");
        }
        text.push_str(&line);
        text.push('\n');
    }
    if !output.stdout.contains("document  none in force")
        && output.code == Some(1)
        && let Some(error) = output.stderr.lines().find(|line| line.contains("ERROR"))
        && let Some((_, message)) = error.split_once("ERROR ")
    {
        text.push_str(&format!("error: {}\n", message.trim()));
    }
    text
}

/// The golden text has no kernel to ask, and so no notes of the judge.
fn without_judgement(text: &str) -> String {
    let judged = |line: &&str| {
        line.starts_with("note")
            && (line.ends_with(" takes precedence") || line.ends_with("routes like these"))
    };
    let lines = text.split_inclusive('\n');
    lines.filter(|line| !judged(&line.trim_end())).collect()
}

/// When a hold-down ends depends on the clock.
fn without_times(text: &str) -> String {
    let mut rest = text;
    let mut kept = String::new();
    while let Some((before, after)) = rest.split_once(" until ") {
        kept.push_str(before);
        kept.push_str(" until then");
        rest = after.split_once('Z').map_or("", |(_time, after)| after);
    }
    kept + rest
}

/// Foreign objects, one a line, printed by `ip` and `nft` and told apart by our marks of ownership.
fn foreign(case: &Case, host: &Host) -> BTreeSet<String> {
    let ownership = case.ownership();
    let mut marks = vec![format!("proto {} ", ownership.current.protocol)];
    for numbers in &ownership.earlier {
        marks.push(format!("proto {} ", numbers.protocol));
    }
    let snapshot = host.ns.foreign_snapshot();
    let mut found = BTreeSet::new();
    for title in [
        "ip -N -o addr",
        "ip -N -d -4 route",
        "ip -N -d -6 route",
        "ip -N -d -4 rule",
        "ip -N -d -6 rule",
        "ip -N -d nexthop",
        "nft",
    ] {
        let section = snapshot.section(title).expect("the snapshot has all");
        let kept = section
            .lines()
            .filter(|line| !line.trim().is_empty())
            .filter(|line| !marks.iter().any(|mark| format!("{line} ").contains(mark)));
        found.extend(kept.map(|line| format!("{title}: {line}")));
    }
    found
}

/// Tables, rules and nexthops, read by `ip`, are the desired ones plus those kept by a frozen
/// family; the firewall is the desired one.
fn assert_desired(case: &Case, host: &Host, expected: &pipeline::Outcome) {
    let desired = &expected.desired;
    let ownership = case.ownership();
    let numbers = ownership.current;
    let before = case.state();
    let names = &case.names;
    let mut wanted: BTreeSet<String> = BTreeSet::new();
    let keeps_route = |route: &&Route| {
        ownership.owns_route(route)
            && *desired.frozen.get(route.key.family())
            && ownership.is_bypass_table(route.key.table)
    };
    let keeps_rule = |rule: &&Rule| {
        let to_egress = matches!(rule.action, RuleAction::Lookup { table, suppress_prefixlength: None }
            if !ownership.is_bypass_table(table));
        ownership.owns_rule(rule) && *desired.frozen.get(rule.family) && !to_egress
    };
    let foreign_routes = before.routes.iter().filter(|r| !ownership.owns_route(r));
    let routes = desired.routes.iter().chain(foreign_routes);
    let routes = routes.chain(before.routes.iter().filter(keeps_route));
    wanted.extend(routes.map(|route| lines::route_line(route, names)));
    let foreign_rules = before.rules.iter().filter(|r| !ownership.owns_rule(r));
    let rules = desired.rules.iter().chain(foreign_rules);
    let rules = rules.chain(before.rules.iter().filter(keeps_rule));
    wanted.extend(rules.map(lines::rule_line));
    let foreign_nexthops = before
        .nexthops
        .iter()
        .filter(|n| !ownership.owns_nexthop(n));
    wanted.extend(
        foreign_nexthops
            .map(|nexthop| lines::nexthop_line(nexthop, names).replace("group6", "group")),
    );

    let mut found: Vec<String> = Vec::new();
    for family in ["-4", "-6"] {
        for table in ownership.tables() {
            let routes = host
                .ns
                .ip_json(&format!("{family} route show table {table}"));
            let routes = routes.as_array().expect("an array");
            found.extend(
                routes
                    .iter()
                    .map(|route| route_of_json(family, table.0, route)),
            );
        }
        let rules = host.ns.ip_json(&format!("{family} rule show"));
        found.extend(
            rules
                .as_array()
                .expect("an array")
                .iter()
                .map(|rule| rule_of_json(family, rule)),
        );
    }
    let nexthops = host.ns.ip_json("nexthop show");
    found.extend(
        nexthops
            .as_array()
            .expect("an array")
            .iter()
            .map(nexthop_of_json),
    );
    found.sort();
    let distinct: BTreeSet<String> = found.iter().cloned().collect();
    assert!(
        wanted == distinct && found.len() == distinct.len(),
        "the kernel doesn't hold the desired state (- desired, + kernel):\n{}",
        difference(
            &wanted.iter().cloned().collect::<Vec<_>>().join("\n"),
            &found.join("\n")
        )
    );
    // The bypass table never holds a default of ours.
    let default = desired.routes.iter().any(|route| {
        route.key.table == numbers.bypass_table
            && (route.key.dst.prefix_len() == 0 || route.target == RouteTarget::Unreachable)
    });
    assert!(!default, "a default in the bypass table");

    let kept_rules = before.rules.iter().any(|rule| keeps_rule(&rule));
    for kind in BackendKind::ALL {
        let state = host.ns.in_thread(|| firewall::backend(kind).observe());
        let state = state.expect("firewalls can be read");
        let text = match &state {
            ObservedFirewall::Owned(owned) => Some(owned.text.clone()),
            _ => None,
        };
        match &desired.firewall {
            Some(ruleset) if kind == expected.backend => {
                assert_eq!(text, Some(pipeline::render(kind, ruleset)), "{kind}");
            }
            // The marks stay along with the rules of a frozen family.
            None if kept_rules => {}
            _ => assert_eq!(text, None, "{kind} holds something of ours"),
        }
    }
}

/// The state directory knows the numbers of all objects of ours left under earlier numbers.
fn assert_numbers_known(case: &Case, host: &Host) {
    let store = Store::open(&host.state_dir);
    let known: Vec<Numbers> = store
        .read_json(StateFile::Numbers)
        .expect("a pass keeps it");
    let known = Ownership::new(Numbers::of(&case.config), known);
    let all = case.ownership();
    let state = host.ns.in_thread(|| {
        let mut kernel = Kernel::open().expect("netlink is there");
        kernel.observe(&all, &[]).expect("state can be read")
    });
    assert_eq!(state.owned(&known), state.owned(&all), "forgotten objects");
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn route_of_json(family: &str, table: u32, route: &Value) -> String {
    let text = |key: &str| text_of(&route[key]);
    let v6 = family == "-6";
    let mut dst = text("dst").unwrap_or_default();
    if dst == "default" && v6 {
        dst = "::/0".to_owned();
    } else if dst != "default" && !dst.contains('/') {
        dst.push_str(if v6 { "/128" } else { "/32" });
    }
    let hop = |value: &Value| {
        let onlink = value["flags"]
            .as_array()
            .is_some_and(|flags| flags.iter().any(|flag| flag == "onlink"));
        let weight = match text_of(&value["weight"]).as_deref() {
            None | Some("1") => String::new(),
            Some(weight) => format!(" weight {weight}"),
        };
        format!(
            "{}dev {}{}{weight}",
            via_text(value),
            text_of(&value["dev"]).unwrap_or_default(),
            if onlink { " onlink" } else { "" }
        )
    };
    let kind = text("type").unwrap_or_else(|| "unicast".to_owned());
    let mut line = if kind != "unicast" && kind != "1" {
        let kind = match kind.as_str() {
            "7" => "unreachable",
            "9" => "throw",
            "6" => "blackhole",
            other => other,
        };
        format!("{kind} {dst}")
    } else if let Some(id) = text("nhid") {
        format!("{dst} nhid {id}")
    } else if let Some(hops) = route["nexthops"].as_array() {
        // The kernel keeps the order of insertion, which has no meaning.
        let mut hops: Vec<String> = hops.iter().map(hop).collect();
        hops.sort();
        format!("{dst} nexthop {}", hops.join(" nexthop "))
    } else {
        format!("{dst} {}", hop(route))
    };
    line.push_str(&format!(
        " table {table} proto {}",
        text("protocol").unwrap_or_default()
    ));
    let usual = if v6 { "1024" } else { "0" };
    let metric = text("metric").unwrap_or_else(|| "0".to_owned());
    if metric != usual {
        line.push_str(&format!(" metric {metric}"));
    }
    // A multipath route has the realm in each leg.
    let places = [
        &route["flow"],
        &route["realm"],
        &route["nexthops"][0]["flow"],
    ];
    if let Some(realm) = places.iter().find_map(|place| text_of(&place["to"])) {
        line.push_str(&format!(" realm {realm}"));
    }
    if let Some(source) = text("prefsrc") {
        line.push_str(&format!(" src {source}"));
    }
    // In the kernel's order, by number.
    for name in (2..=17).filter_map(|kind| MetricKind(kind).name()) {
        if let Some(value) = text_of(&route["metrics"][0][name]) {
            line.push_str(&format!(" {name} {value}"));
        }
    }
    line
}

fn rule_of_json(family: &str, rule: &Value) -> String {
    let text = |key: &str| text_of(&rule[key]);
    let name = if family == "-6" { "ipv6" } else { "ipv4" };
    let mut line = format!("{name} {}", text("priority").unwrap_or_default());
    let ends = |end: &str, length: &str| {
        let address = text(end).filter(|address| address != "all")?;
        let length = text(length).map(|length| format!("/{length}"));
        Some(format!("{address}{}", length.unwrap_or_default()))
    };
    line.push_str(&format!(
        " from {}",
        ends("src", "srclen").unwrap_or_else(|| "all".to_owned())
    ));
    if let Some(dst) = ends("dst", "dstlen") {
        line.push_str(&format!(" to {dst}"));
    }
    if let Some(mark) = text("fwmark") {
        let mask = text("fwmask").map(|mask| format!("/{mask}"));
        line.push_str(&format!(" fwmark {mark}{}", mask.unwrap_or_default()));
    }
    if let Some(iif) = text("iif") {
        line.push_str(&format!(" iif {iif}"));
    }
    if let Some(table) = text("table") {
        let table = match table.as_str() {
            "255" => "local",
            "254" => "main",
            "253" => "default",
            other => other,
        };
        line.push_str(&format!(" lookup {table}"));
    }
    if let Some(length) = text("suppress_prefixlen") {
        line.push_str(&format!(" suppress_prefixlength {length}"));
    }
    if let Some(target) = text("goto") {
        line.push_str(&format!(" goto {target}"));
    } else if text("nop").is_some() || rule.get("nop").is_some() {
        line.push_str(" nop");
    }
    if let Some(realm) = text("flow_to") {
        line.push_str(&format!(" realms {realm}"));
    }
    // FR_ACT_UNREACHABLE (linux/fib_rules.h).
    if text("action").as_deref() == Some("7") {
        line.push_str(" unreachable");
    }
    format!("{line} proto {}", text("protocol").unwrap_or_default())
}

/// The gateway of a route or next hop, with a family if different from the route's.
fn via_text(value: &Value) -> String {
    let via = &value["via"];
    if let (Some(family), Some(host)) = (text_of(&via["family"]), text_of(&via["host"])) {
        return format!("via {family} {host} ");
    }
    text_of(&value["gateway"])
        .map(|gateway| format!("via {gateway} "))
        .unwrap_or_default()
}

fn nexthop_of_json(nexthop: &Value) -> String {
    let text = |key: &str| text_of(&nexthop[key]);
    let what = match nexthop["group"].as_array() {
        Some(members) => {
            let ids: Vec<String> = members
                .iter()
                .filter_map(|member| text_of(&member["id"]))
                .collect();
            format!("group {}", ids.join("/"))
        }
        None => format!(
            "{}dev {}",
            text("gateway")
                .map(|gateway| format!("via {gateway} "))
                .unwrap_or_default(),
            text("dev").unwrap_or_default()
        ),
    };
    format!(
        "id {} {what} proto {}",
        text("id").unwrap_or_default(),
        text("protocol").unwrap_or_default()
    )
}

/// `ip route get`: the gateway, the device and, if wanted, the source; or the refusal.
fn ask(ns: &Ns, question: &str, with_source: bool) -> String {
    let words: Vec<&str> = ["ip", "-j", "route", "get"]
        .into_iter()
        .chain(question.split_whitespace())
        .collect();
    let output = ns.exec(&words);
    if output.code != Some(0) {
        let unreachable = output.stderr.contains("No route to host")
            || output.stderr.contains("Network is unreachable");
        return if unreachable {
            "unreachable".to_owned()
        } else {
            output.stderr.trim().to_owned()
        };
    }
    let found = &output.json()[0];
    if found["type"] == "unreachable" {
        return "unreachable".to_owned();
    }
    let source = if with_source {
        format!(" src {}", text_of(&found["prefsrc"]).unwrap_or_default())
    } else {
        String::new()
    };
    format!(
        "{}dev {}{source}",
        via_text(found),
        text_of(&found["dev"]).unwrap_or_default()
    )
}
