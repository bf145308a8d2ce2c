//! Gateways, their spread and their probes, as operators write them.

use std::time::Duration;

use super::*;

const TABLES: &str = r#"
role = "host"
[egress]
spread = "order"
zone = "us-east-1b"
[[egress.gateway]]
address = "10.0.1.11"
weight = 2
zone = "us-east-1b"
[[egress.gateway]]
address = "fd00::10"
[[egress.gateway]]
address = "10.0.1.10"
weight = "0xff"
[probe]
enabled = false
targets = ["192.0.2.1:443", "[2001:db8::1]:53", "Partner-1.example:8443"]
interval = "30s"
suspect_interval = "500ms"
timeout = "2s"
fall = 5
rise = 1
hold = "20s"
hold_limit = "1m"
"#;

#[test]
fn every_key_of_gateways_and_probes_is_read() {
    let config = parse(TABLES, "test.toml").unwrap_or_else(|error| panic!("{error}"));
    let shown = config.egress.gateways.iter();
    let shown: Vec<String> = shown
        .map(|it| format!("{} {} {:?}", it.address, it.weight, it.zone))
        .collect();
    assert_eq!(
        shown,
        [
            "10.0.1.11 2 Some(\"us-east-1b\")",
            "fd00::10 1 None",
            "10.0.1.10 255 None"
        ],
        "in the order of the file"
    );
    let ordered = config.egress.ordered(Family::Ipv4);
    let ordered: Vec<String> = ordered.map(|it| it.address.to_string()).collect();
    assert_eq!(ordered, ["10.0.1.11", "10.0.1.10"]);
    assert_eq!(config.egress.spread, Spread::Order);
    assert_eq!(config.egress.zone, AutoOr::Set("us-east-1b".to_owned()));
    let probe = &config.probe;
    let targets: Vec<String> = probe.targets.iter().map(Target::to_string).collect();
    assert_eq!(
        targets,
        [
            "192.0.2.1:443",
            "[2001:db8::1]:53",
            "Partner-1.example:8443"
        ]
    );
    let defaults = ProbeConfig::default();
    for (read, default) in [
        (probe.interval, defaults.interval),
        (probe.suspect_interval, defaults.suspect_interval),
        (probe.timeout, defaults.timeout),
        (probe.hold, defaults.hold),
        (probe.hold_limit, defaults.hold_limit),
    ] {
        assert_ne!(read, default);
    }
    assert_eq!((probe.enabled, probe.fall, probe.rise), (false, 5, 1));
    assert_eq!(probe.hold, Duration::from_secs(20));
}

#[test]
fn default_targets_have_two_operators_left_in_each_family() {
    let targets = ProbeConfig::default().targets;
    assert_eq!(targets.len(), 6, "each address parses");
    for family in Family::ALL {
        let of_family = targets.iter().filter(|target| match target.host {
            TargetHost::Address(address) => Family::of(address) == family,
            TargetHost::Name(_) => false,
        });
        assert_eq!(of_family.count(), 3, "{family}");
    }
}

/// Each line: the settings, then parts of the messages.
const WRONG: &str = r#"
[[egress.gateway]]\naddres = "10.0.1.10" → test.toml:1:1: egress.gateway: has no address
[[egress.gateway]]\naddress = "10.0.1.10"\nwieght = 2 → test.toml:3:1: egress.gateway.wieght: unknown key; did you mean "weight"?
[[egress.gateway]]\naddress = "10.0.1.10"\npriority = 2 → test.toml:3:1: egress.gateway.priority: unknown key; known here: address, weight, zone
[[egress.gateway]]\naddress = "10.0.1.10"\nweight = 0 → test.toml:3:10: egress.gateway.weight: 0 is out of range 1 to 255
[[egress.gateway]]\naddress = "10.0.1.10"\nweight = 256 → 256 is out of range
[[egress.gateway]]\naddress = "10.0.1.10"\nweight = "much" → egress.gateway.weight: expected a whole number
[[egress.gateway]]\naddress = "nat"\nzone = "us east" → test.toml:2:11: egress.gateway.address: "nat" is not an IP address ¦ test.toml:3:8: egress.gateway.zone: "us east" is not a zone
[[egress.gateway]]\naddress = "10.0.1.10"\n[[egress.gateway]]\naddress = "10.0.1.10" → egress.gateway: 10.0.1.10 is listed twice
[egress.gateway]\naddress = "10.0.1.10" → test.toml:1:9: egress.gateway: is a list of tables: write [[egress.gateway]]
egress.gateway = "10.0.1.10" → expected tables [[egress.gateway]] ¦ a list of addresses is egress.gateways
egress.gateway = ["10.0.1.10"] → expected tables [[egress.gateway]]
[[egress.gatway]]\naddress = "10.0.1.10" → egress.gatway: unknown key; did you mean "gateway"?
egress.gateways = ["10.0.1.10"]\n[[egress.gateway]]\naddress = "10.0.1.11" → egress.gateway: egress.gateways lists gateways too ¦ or all in egress.gateways
egress.spread = "hosts" → "hosts" is not one of "host", "flow", "order"; did you mean "host"?
egress = { gateways = ["10.0.1.10", "10.0.1.11"], spread = "flow", pin = false } → egress.spread: "flow" needs pinned flows ¦ remove pin = false
egress = { gateways = ["10.0.1.10", "10.0.1.11"], spread = "flow", enforce = false } → egress.spread: "flow" needs pinned flows
egress = { gateways = ["10.0.1.10"], zone = "us-east-1a" } → egress.zone: no gateway has a zone
egress.zone = "" → write "auto" for automatic detection
role = "nat"\nnat.egress_addresses = ["10.0.0.20"]\negress.spread = "order"\negress.zone = "a" → egress.spread: is for the host role only ¦ egress.zone: is for the host role only
role = "nat"\nnat.egress_addresses = ["10.0.0.20"]\n[[egress.gateway]]\naddress = "10.0.1.10" → egress.gateway: is for the host role only
probe.targets = [] → probe.targets: the list is empty ¦ or enabled = false
probe.targets = ["a.example:443", "b.example:443", "a.example:443"] → a.example:443 is listed twice
probe.targets = ["https://a.example/health"] → "https://a.example/health" is not a target ¦ write "a.example:443"
probe.targets = ["https://a.example:8443"] → write "a.example:8443"
probe.targets = ["a.example"] → write the port too, as "a.example:443"
probe.targets = ["1.1.1.1"] → write the port too, as "1.1.1.1:443"
probe.targets = ["2001:db8::1"] → write the port too, as "[2001:db8::1]:443"
probe.targets = ["2001:db8::1:x:443"] → in brackets, as "[2001:db8::1:x]:443"
probe.targets = ["a.example:0"] → "0" is no port
probe.targets = ["a.example:+80"] → "+80" is no port
probe.targets = ["10.0.0.999:80"] → 0 to 255
probe.targets = ["127.0.0.1:80"] → a loopback address
probe.targets = ["a b:80"] → write a host and a port
probe.bypass_targets = ["auto", "auto"] → probe.bypass_targets: "auto" is listed twice
probe.bypass_targets = ["Auto"] → did you mean "auto"?
probe.bypass_targets = ["s3.eu-west-1.amazonaws.com"] → write the port too
probe = { bypass_interval = "1s", suspect_interval = "2s" } → probe.suspect_interval: is longer than probe.bypass_interval
probe.settle = "100ms" → "100ms" is too short: at least "1s"
probe.interval = "100ms" → "100ms" is too short: at least "500ms"
probe.interval = 10 → no unit
probe = { interval = "1s", suspect_interval = "2s" } → probe.suspect_interval: is longer than probe.interval
probe = { hold = "10m" } → probe.hold: is longer than probe.hold_limit
probe.fall = 0 → 0 is out of range 1 to 100
probe.enable = true → probe.enable: unknown key; did you mean "enabled"?
[probes]\nenabled = true → probes: unknown table; did you mean "probe"?
"#;

#[test]
fn mistakes_are_named_with_place_and_advice() {
    for line in WRONG.trim().lines() {
        let (text, parts) = line.split_once(" → ").expect("an arrow");
        let text = text.replace("\\n", "\n");
        let message = match parse(&text, "test.toml") {
            Ok(_) => panic!("accepted: {text}"),
            Err(error) => error.to_string(),
        };
        for part in parts.split(" ¦ ") {
            assert!(message.contains(part), "{text}\n{message}\nlacks {part}");
        }
    }
}

#[test]
fn probes_need_pins() {
    let probes = |text: &str| {
        let text = format!("role = \"host\"\negress.gateways = [\"10.0.1.10\"]\n{text}");
        parse(&text, "test.toml").map(|config| config.probes())
    };
    assert_eq!(probes(""), Ok(true));
    for off in [
        "probe.enabled = false",
        "egress.pin = false",
        "egress.enforce = false",
    ] {
        assert_eq!(probes(off), Ok(false), "{off}");
    }
}
