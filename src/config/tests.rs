//! The config text as operators write it, right and wrong.

use std::net::IpAddr;
use std::time::Duration;

use super::*;

fn good(text: &str) -> Config {
    parse(text, "test.toml").unwrap_or_else(|error| panic!("{text}\n{error}"))
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn empty_text_gives_the_defaults() {
    assert_eq!(good(""), Config::default());
    assert_eq!(good("# only a comment\n[source]\n"), Config::default());
}

/// Sets every key to another value than its default.
const EVERY_KEY: &str = r#"
role = "nat"
[source]
url = ["https://mirror.example/ip-ranges.json", "file:///srv/ip-ranges.json", "/srv/b.json"]
refresh = "1m"
timeout = "3s"
max_bytes = "8MiB"
state_dir = "/srv/state"
path = "bypass"
[select]
services = ["S3", "EC2"]
regions = ["auto", "us-gov-west-1", "GLOBAL"]
families = ["ipv6"]
include = ["2001:db8::/32"]
exclude = ["3.5.0.0/19"]
[guard]
max_loss = "5.5%"
max_prefixes = 100
accept_after = "2h"
hold_down = "0s"
[bypass]
gateway = ["10.0.0.1", "fe80::1"]
interface = "eth1"
table = 200
[egress]
table = 0xC9
when_down = "bypass"
exempt = ["tun0", "10.9.0.0/16"]
[nat]
backend = "iptables"
sources = ["10.0.0.0/16", "fd00::/8"]
egress_interface = "eth0"
egress_addresses = ["10.0.0.21", "10.0.0.20", "2001:db8::5"]
bypass = ["10.0.0.30", "2001:db8::6"]
[vpc]
cidrs = ["auto", "100.64.0.0/10"]
[kernel]
protocol = 84
priority = 20000
manage = ["ip_forward", "rp_filter"]
protect_table = true
log_drops = false
[kernel.marks]
path = 0x300
gateway = "0x3C00"
[agent]
socket = "/run/other.sock"
metrics = "[::1]:9683"
resync = "1h"
stale = { warn = "2d", alarm = "2w" }
nat_price_per_gb = 1
event_buffer = "1MiB"
"#;

#[test]
fn every_key_is_read() {
    let config = good(EVERY_KEY);
    assert_eq!(config.role, Some(Role::Nat));
    assert_eq!(config.source.urls.len(), 3);
    assert_eq!(config.source.refresh, Duration::from_secs(60));
    assert_eq!(config.source.timeout, Duration::from_secs(3));
    assert_eq!(config.source.max_bytes, 8 << 20);
    assert_eq!(config.source.state_dir, PathBuf::from("/srv/state"));
    assert_eq!(config.source.path, FetchPath::Bypass);
    assert_eq!(config.select.services, ["S3".into(), "EC2".into()]);
    assert_eq!(
        config.select.regions,
        [
            AutoOr::Auto,
            AutoOr::Set("us-gov-west-1".into()),
            AutoOr::Set("GLOBAL".into())
        ]
    );
    assert_eq!(config.select.families, [Family::Ipv6].into());
    assert_eq!(config.select.include[0].to_string(), "2001:db8::/32");
    assert_eq!(config.select.exclude[0].to_string(), "3.5.0.0/19");
    assert_eq!(config.guard.max_loss, 5.5);
    assert_eq!(config.guard.max_prefixes, 100);
    assert_eq!(config.guard.accept_after, Duration::from_secs(7200));
    assert_eq!(config.guard.hold_down, Duration::ZERO);
    assert_eq!(config.bypass.gateway.ipv4, AutoOr::Set(address("10.0.0.1")));
    assert_eq!(config.bypass.gateway.ipv6, AutoOr::Set(address("fe80::1")));
    assert_eq!(config.bypass.interface, AutoOr::Set("eth1".to_owned()));
    assert_eq!(config.bypass.table, TableId(200));
    assert_eq!(config.egress.table, TableId(201));
    assert_eq!(config.egress.when_down, WhenDown::Bypass);
    let tunnel = Exemption::Interface("tun0".to_owned());
    let network = Exemption::Source("10.9.0.0/16".parse().unwrap());
    assert_eq!(config.egress.exempt, [tunnel, network]);
    assert_eq!(config.nat.backend, AutoOr::Set(BackendKind::Iptables));
    assert_eq!(config.nat.sources.set().map(Vec::len), Some(2));
    assert_eq!(config.nat.egress_interface, AutoOr::Set("eth0".to_owned()));
    assert_eq!(
        config.nat.egress_addresses[0],
        address("10.0.0.20"),
        "sorted"
    );
    assert_eq!(
        config.nat.bypass,
        NatBypass::Addresses(vec![address("10.0.0.30"), address("2001:db8::6")])
    );
    assert_eq!(config.vpc_cidrs.len(), 2);
    assert_eq!(config.kernel.protocol, Protocol(84));
    assert_eq!(config.kernel.priority, Priority(20_000));
    assert_eq!(
        config.kernel.manage,
        [ManagedSysctl::IpForward, ManagedSysctl::RpFilter].into()
    );
    assert_eq!(config.kernel.protect_table, AutoOr::Set(true));
    assert!(!config.kernel.log_drops);
    assert_eq!(config.kernel.path_mask, PathMask(0x300));
    assert_eq!(config.kernel.gateway_mask, 0x3c00);
    assert_eq!(config.agent.socket, PathBuf::from("/run/other.sock"));
    assert_eq!(config.agent.metrics.map(|at| at.port()), Some(9683));
    assert_eq!(config.agent.resync, Duration::from_secs(3600));
    assert_eq!(config.agent.stale_warn, Duration::from_secs(2 * 86_400));
    assert_eq!(config.agent.stale_alarm, Duration::from_secs(14 * 86_400));
    assert_eq!(config.agent.nat_price_per_gb, 1.0);
    assert_eq!(config.agent.event_buffer, 1 << 20);
}

#[test]
fn reads_the_host_role_and_single_values() {
    let config = good(
        r#"
        role = "host"
        source.url = "http://[fd00:ec2::1]:8080/x.json"
        bypass.gateway = "fe80::1"
        egress.gateways = ["10.0.1.11", "10.0.1.10", "fd00::10"]
        nat.sources = "auto"
        nat.bypass = "10.0.0.5"
        agent.metrics = ""
        "#,
    );
    assert_eq!(config.source.urls, ["http://[fd00:ec2::1]:8080/x.json"]);
    assert_eq!(config.bypass.gateway.ipv4, AutoOr::Auto);
    assert_eq!(config.bypass.gateway.ipv6, AutoOr::Set(address("fe80::1")));
    assert_eq!(
        config.egress.gateways_of(Family::Ipv4),
        [address("10.0.1.10"), address("10.0.1.11")]
    );
    assert_eq!(config.nat.sources, AutoOr::Auto);
    assert_eq!(
        config.nat.bypass,
        NatBypass::Addresses(vec![address("10.0.0.5")])
    );
    assert_eq!(good("nat.bypass = \"none\"").nat.bypass, NatBypass::None);
    assert_eq!(good("nat.sources = [\"auto\"]").nat.sources, AutoOr::Auto);
    assert_eq!(
        good("egress.close = [\"ipv6\"]").egress.close,
        [Family::Ipv6].into()
    );
}

/// Each row has a text with one mistake, and parts of the message: `text → part ¦ part`.
/// `\n` is a line break.
const BAD: &str = r#"
# Unknown keys.
[source]\nrefesh = "5m" → test.toml:2:1: source.refesh: unknown key; did you mean "refresh"? ¦  2 | refesh = "5m"\n   | ^^^^^^
[egres]\ngateways = ["10.0.1.10"]\ntable = 9 → test.toml:1:2: egres: unknown table; did you mean "egress"?
[select]\nurl = "https://a/b" → select.url: unknown key here; it belongs in [source]
zzz = 1 → zzz: unknown key; known here: agent, bypass, egress
[agent]\nstale = { warn = "1d", alert = "2d" } → agent.stale.alert: unknown key; known here: alarm, warn
source = "https://a/b" → source: is a table: write [source] and its keys below it
[[source]]\nurl = "https://a/b" → source: is a table
[source.url]\na = 1 → source.url: is a value, not a table
"source.url" = "https://a/b" → "source.url": unknown key
rolle = "host" → rolle: unknown key; did you mean "role"?
# TOML itself.
[source]\nrefresh = 5m → test.toml:2: ¦ stands in double quotes: write "5m"
[source]\nurl = "a\nb" → test.toml:2: ¦ not valid TOML
role = "host"\nrole = "nat" → test.toml:2:1 ¦ not valid TOML ¦ duplicate key
# Wrong types.
select.services = "S3" → expected a list such as ["S3"], found the string "S3"
role = 1 → expected "host", "nat" or "vpc", found the integer 1
source.url = [1] → source.url: expected a URL or path, or a list of them, found the integer 1
guard.max_prefixes = true → expected a whole number such as 5000, found the boolean true
guard.max_prefixes = 1.5 → expected a whole number such as 5000, found the number 1.5
source.timeout = 2026-01-01 → found the date 2026-01-01
bypass.interface = [] → expected the name of an interface such as "eth1", or "auto", found a list
agent.nat_price_per_gb = "0.045" → expected a price in dollars such as 0.045, found the string
# Units.
source.refresh = 5 → 5 has no unit: write a duration such as "5m" (units: ms, s, m, h, d, w)
source.refresh = "5" → "5" has no unit
source.max_bytes = 1024 → 1024 has no unit: write a size such as "64MiB" (units: B, KiB, MiB, GiB, kB, MB, GB)
guard.max_loss = 0.2 → 0.2 has no unit: write a share such as "20%"
guard.max_loss = "101%" → 0% to 100%
source.refresh = "5ms" → "5ms" is too short: at least "1s"
source.timeout = "0s" → too short: at least "1ms"
source.max_bytes = "0B" → 0 bytes would refuse every document
# Words.
role = "Host" → "Host" is not one of "host", "nat", "vpc"; did you mean "host"?
role = "router" → "router" is not one of "host", "nat", "vpc"
egress.when_down = "unreachabel" → did you mean "unreachable"?
nat.backend = "nft" → "nft" is not one of "auto", "nftables", "iptables"
kernel.manage = ["ip_foward"] → did you mean "ip_forward"?
select.families = ["IPv4"] → did you mean "ipv4"?
bypass.gateway = "Auto" → did you mean "auto"?
nat.bypass = "masquarade" → did you mean "masquerade"?
source.path = "" → "" is not one of "auto", "egress", "bypass"
# Sources.
source.url = "ftp://a/b" → has the scheme "ftp": only https, http and file
source.url = "https:///x" → has no host
source.url = "ip-ranges.amazonaws.com/ip-ranges.json" → neither a URL nor an absolute path: write https:// before a host
source.url = "file://host/x" → write file:/// and the absolute path
source.url = [] → source.url: the list is empty
source.state_dir = "state" → not an absolute path
# Selection.
select.regions = ["US-East-1"] → "US-East-1" is not a region: did you mean "us-east-1"?
select.regions = ["us-east-1a"] → availability zone, in the region "us-east-1"
select.regions = ["global"] → did you mean "GLOBAL"?
select.regions = ["virginia"] → write a region such as "us-east-1"
select.regions = [] → select.regions: the list is empty, so no prefix would be selected
select.services = ["s3"] → did you mean "S3"?
select.services = [] → select.services: the list is empty
select.families = [] → select.families: the list is empty
select.include = ["010.0.0.0/8"] → begins with 0 ¦ octal ¦ write "10.0.0.0/8"
select.include = ["10.1.2.3/16"] → 10.1.2.3/16 has host bits set: write "10.1.0.0/16", or "10.1.2.3/32"
select.exclude = ["10.1.2.3"] → is an address, not a prefix: write "10.1.2.3/32"
select.include = ["0.0.0.0/0"] → 0.0.0.0/0 is a default route
select.include = ["::/0"] → ::/0 is a default route
select.include = ["10.0.0.0/33"] → is not a prefix
select = { families = ["ipv4"], include = ["2001:db8::/32"] } → select.families lacks "ipv6"
select.include = ["::ffff:10.0.0.0/104"] → an IPv4-mapped IPv6 prefix
# Addresses.
egress.gateways = ["10.0.1.10/24"] → a prefix: write the address alone
egress.gateways = ["nat.internal"] → names are not resolved
egress.gateways = ["0.0.0.0"] → the unspecified address
egress.gateways = ["127.0.0.1"] → a loopback address
egress.gateways = ["ff02::1"] → a multicast address
egress.gateways = ["fe80::10"] → fe80::10 is a link-local address ¦ another address
egress.gateways = ["::ffff:10.0.0.1"] → write 10.0.0.1
egress.gateways = ["10.0.1.10", "10.0.1.10"] → 10.0.1.10 is listed twice
bypass.gateway = "fe80::1%eth0" → remove the %
bypass.gateway = ["10.0.0.1", "10.0.0.2"] → 10.0.0.1 and 10.0.0.2 are of the same family
bypass.gateway = "10.0.1.10"\negress.gateways = ["10.0.1.10"] → test.toml:1:18: bypass.gateway: 10.0.1.10 is an egress gateway too: the bypass would go through the NAT
egress.gateways = ["10.0.0.1","10.0.0.2","10.0.0.3","10.0.0.4","10.0.0.5","10.0.0.6","10.0.0.7","10.0.0.8"] → 8 ipv4 gateways, but kernel.marks.gateway 0xe has room for 7
egress = { gateways = ["fd00::1"], close = ["ipv6"] } → ipv6 is closed and has the gateway fd00::1
bypass.interface = "a/b" → can't be an interface
bypass.interface = "abcdefghijklmnopabcdefghijklmnopabcdefghijklmnopabcdefghijklmnopabcdefghijklmnopabcdefghijklmnopabcdefghijklmnopabcdefghijklmnop" → can't be an interface
vpc.cidrs = ["0.0.0.0/0"] → 0.0.0.0/0 is a default route
# The kernel's numbers.
bypass.table = 1084 → egress.table: 1084 is the bypass path's table too
bypass.table = 254 → 254 is the kernel's own table "main"
egress.table = 255 → the kernel's own table "local"
egress.table = 253 → the kernel's own table "default"
egress.table = 0 → 0 is out of range 1 to 19999999
egress.table = 4294967296 → 4294967296 is out of range
egress.table = -1 → -1 is out of range
kernel.protocol = 0 → 0 is out of range 1 to 255
kernel.protocol = 256 → 256 is out of range 1 to 255
kernel.protocol = 2 → 2 marks the routes that the kernel itself installs
kernel.protocol = 4 → 4 marks the administrator's static routes
kernel.protocol = 12 → 12 is registered for BIRD
kernel.priority = 0 → 0 is out of range 1 to 32666
kernel.priority = 32667 → 32667 is out of range 1 to 32666
kernel.marks.path = "0x5000" → 0x5000 is not two adjacent bits ¦ free of the marks of Kubernetes, Podman, Tailscale
kernel.marks.path = "0x7000" → 0x7000 is not two adjacent bits
kernel.marks.path = "0x1000" → 0x1000 is not two adjacent bits
kernel.marks.path = "three" → expected mark bits such as "0x0030", found the string "three"
kernel.marks.path = "0x300000000" → out of range ¦ 32 bits
kernel.marks.gateway = "0x50" → 0x50 has a hole
kernel.marks.gateway = "0x0070" → 0x70 shares the bits 0x30 with kernel.marks.path 0x30: the masks must not overlap
# NAT.
role = "nat" → nat.egress_addresses: missing: the nat role needs
role = "nat"\nnat.egress_addresses = ["10.0.0.20"]\negress.gateways = ["10.0.1.10"] → test.toml:3:19: egress.gateways: is for the host role only
role = "nat"\nnat.egress_addresses = ["10.0.0.20"]\negress.close = ["ipv6"] → egress.close: is for the host role only
role = "nat"\nnat = { egress_addresses = ["10.0.0.20"], sources = [] } → nat.sources: the list is empty
nat = { egress_addresses = ["10.0.0.20"], bypass = "10.0.0.20" } → nat.bypass: 10.0.0.20 is an egress address
nat.egress_addresses = ["10.0.0.20", "10.0.0.20"] → 10.0.0.20 is listed twice
nat.egress_addresses = ["224.0.0.1"] → a multicast address
nat.bypass = ["10.0.0.1", "10.0.0.2"] → more than one ipv4 address
nat.bypass = ["none", "10.0.0.2"] → cannot be combined with other values
nat.bypass = [] → nat.bypass: the list is empty
nat.sources = ["auto", "10.0.0.0/8"] → "auto" cannot be combined
# The agent.
agent.metrics = "9683" → is not an address with a port
agent.metrics = "127.0.0.1:0" → is not an address with a port
agent.nat_price_per_gb = -1 → -1 is not a price
agent.event_buffer = "1KiB" → event_buffer: is out of range: the kernel accepts 2KiB to 1GiB
agent.nat_price_per_gb = inf → inf is not a price
agent.stale = { warn = "8d" } → agent.stale.warn: is later than agent.stale.alarm
guard.max_prefixes = 0 → 0 is out of range 1 to 10000000
"#;

#[test]
fn each_mistake_gets_one_problem_with_its_message() {
    let mut wrong = Vec::new();
    let rows = BAD
        .lines()
        .filter(|row| !row.is_empty() && !row.starts_with("# "));
    for row in rows {
        let row = row.replace("\\n", "\n");
        let (text, snippets) = row.split_once(" → ").expect("text → parts");
        let snippets: Vec<&str> = snippets.split(" ¦ ").collect();
        let error = match parse(text, "test.toml") {
            Ok(_) => {
                wrong.push(format!("accepted:\n{text}"));
                continue;
            }
            Err(error) => error,
        };
        let message = error.to_string();
        if error.problems.len() != 1 || snippets.iter().any(|snippet| !message.contains(snippet)) {
            wrong.push(format!("{text}\n→\n{message}\nexpected {snippets:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn socket_path_beyond_the_kernels_limit_is_refused() {
    let text = format!("agent.socket = \"/{}\"", "a".repeat(107));
    let message = parse(&text, "t").expect_err("too long").to_string();
    assert!(message.contains("the path has 108 bytes"), "{message}");
}

#[test]
fn all_problems_are_reported_at_once_in_file_order() {
    let text = "role = \"nat\"\n[source]\nrefresh = 5\nurl = [\"ftp://x/\", \"gopher://y/\"]\n\
                [egress]\ntable = 1083\ngatways = []\n";
    let error = parse(text, "/etc/t.toml").expect_err("many problems");
    let message = error.to_string();
    let starts: Vec<&str> = message
        .lines()
        .filter(|line| line.starts_with("/etc/t.toml"))
        .map(|line| line.split(' ').next().unwrap_or(""))
        .collect();
    assert_eq!(
        starts,
        [
            "/etc/t.toml:3:11:",
            "/etc/t.toml:4:8:",
            "/etc/t.toml:4:20:",
            "/etc/t.toml:6:9:",
            "/etc/t.toml:7:1:",
            "/etc/t.toml:",
        ],
        "{message}"
    );
    assert!(message.ends_with("6 problems in all"), "{message}");
    assert!(
        message.contains(" 3 | refresh = 5\n   |           ^"),
        "{message}"
    );
}

/// An unreadable key has its default; checks of this default must stay silent.
#[test]
fn unreadable_key_causes_no_further_problem() {
    let text = "role = \"nat\"\n[nat]\negress_addresses = [\"10.0.0\"]\n";
    let error = parse(text, "t").expect_err("one problem");
    assert_eq!(error.problems.len(), 1, "{error}");
}

#[test]
fn flags_beat_the_file_and_are_checked() {
    let text = "role = \"nat\"\n[select]\nregions = [\"eu-west-1\"]\n";
    let flags = Overrides {
        role: Some(AnyRole::Host),
        source: vec!["examples/ip-ranges.json".to_owned()],
        regions: vec!["auto".to_owned(), "us-east-1".to_owned()],
        services: vec!["EC2".to_owned()],
        state_dir: Some(PathBuf::from("state")),
    };
    let config = parse_with(text, "t", &flags).expect("good");
    assert_eq!(
        config.role,
        Some(Role::Host),
        "and no nat addresses are missed"
    );
    assert_eq!(config.source.urls, ["examples/ip-ranges.json"]);
    assert_eq!(
        config.select.regions,
        [AutoOr::Auto, AutoOr::Set("us-east-1".into())]
    );
    assert_eq!(config.select.services, ["EC2".into()]);
    assert_eq!(config.source.state_dir, PathBuf::from("state"));

    let flags = Overrides {
        source: vec!["ftp://x".to_owned()],
        regions: vec!["us-east-1a".to_owned()],
        services: vec!["s3".to_owned()],
        ..Overrides::default()
    };
    let message = parse_with("", "t", &flags)
        .expect_err("bad flags")
        .to_string();
    for snippet in [
        "command line: --source: \"ftp://x\"",
        "command line: --region: \"us-east-1a\"",
        "command line: --service: \"s3\"",
        "3 problems",
    ] {
        assert!(message.contains(snippet), "{message}\nlacks\n{snippet}");
    }
}

#[test]
fn marker_stands_below_the_marked_characters() {
    let text = "# ä\n\tsource.refresh = 5 # ü\n";
    let message = parse(text, "t").expect_err("no unit").to_string();
    assert!(
        message.ends_with(" 2 | \tsource.refresh = 5 # ü\n   | \t                 ^"),
        "{message}"
    );
}

#[test]
fn unquoted_values_are_all_reported_and_an_open_quote_once() {
    let lines = |text: &str| -> Vec<usize> {
        let error = parse(text, "t").expect_err("no TOML");
        let places = error.problems.iter().map(|problem| problem.place.as_ref());
        places
            .map(|place| place.map_or(0, |place| place.line))
            .collect()
    };
    assert_eq!(
        lines("[source]\nrefresh = 5m\ntimeout = 10s\nmax_bytes = 64MiB\n"),
        [2, 3, 4]
    );
    assert_eq!(lines("[source]\nurl = \"a\nb\"\n"), [2]);
    assert_eq!(lines("[select]\nregions = [\"a\",\nservices = 2\n"), [3]);
}
