//! A case: `config.toml`, `observed.toml`, perhaps a `document` (the name of a file in
//! `documents/`), and the expected `plan.txt` (and `plan.json` where it exists).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::Deserialize;
use trailblazer::config::{Config, Role, parse};
use trailblazer::facts::{Address, HostFacts, InstanceFacts, Link, MainRoute, Sysctls};
use trailblazer::firewall::{BackendKind, ObservedFirewall, OwnedFirewall, Ruleset, SavedRules};
use trailblazer::objects::{NexthopObject, Route, Rule};
use trailblazer::observed::ObservedState;
use trailblazer::ownership::{Numbers, Ownership};
use trailblazer::types::{Family, IfIndex, Metric, Protocol, Region};

use crate::lines::{self, Names};
use crate::pipeline;

/// `observed.toml`: the host and the objects in its kernel, one line each, in the syntax of `ip`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observed {
    /// A description, printed with a failure.
    pub about: String,
    /// `eth0`, or `eth1 down`.
    pub links: Vec<String>,
    /// `10.0.1.11/24 dev eth0`; connected routes are derived.
    pub addresses: Vec<String>,
    /// The main table, but for the connected routes.
    #[serde(default)]
    pub main: Vec<String>,
    /// `nameserver` lines of resolv.conf.
    #[serde(default)]
    pub name_servers: Vec<IpAddr>,
    /// Path → value, as far as the case depends on sysctls.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// The answers of the metadata service.
    pub instance: Option<Instance>,
    /// Our objects are those that another case leaves behind, …
    pub after: Option<String>,
    /// … except these, in canonical lines.
    #[serde(default)]
    pub gone: Vec<String>,
    /// Further routes in our tables: ours by `proto 83`, or foreign.
    #[serde(default)]
    pub routes: Vec<String>,
    /// Further rules; the kernel's own need not be named.
    #[serde(default)]
    pub rules: Vec<String>,
    /// Nexthop objects: of an earlier version of ours, or foreign.
    #[serde(default)]
    pub nexthops: Vec<String>,
    /// The backends' content, where different from the outcome of `after`.
    #[serde(default)]
    pub firewall: Firewall,
    /// The reason if the case cannot exist in the kernel that runs the tests.
    pub not_in_kernel: Option<String>,
    /// `ip route get` afterwards: `"52.216.1.1" = "via 10.0.1.1 dev eth0"`.
    #[serde(default)]
    pub answers: BTreeMap<String, String>,
    /// Words of the degradation by foreign state, which the kernel's answers show after the pass.
    pub defeated: Option<String>,
}

/// The metadata service's facts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Instance {
    pub region: Option<String>,
    pub vpc_cidrs: Vec<IpNet>,
    /// Public address → private one.
    pub public_addresses: BTreeMap<IpAddr, IpAddr>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Firewall {
    /// `absent`, `foreign: WHAT`, `unavailable: WHY`
    pub nftables: Option<String>,
    pub iptables: Option<String>,
}

/// Everything about a case.
pub struct Case {
    pub name: String,
    pub directory: PathBuf,
    pub config: Config,
    pub document: Option<(PathBuf, Vec<u8>)>,
    pub observed: Observed,
    pub names: Names,
    /// The case whose outcome is in the kernel.
    pub before: Option<Box<Case>>,
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// All cases, by name.
pub fn all() -> Vec<Case> {
    let mut names: Vec<String> = std::fs::read_dir(root())
        .expect("tests/golden is there")
        .flatten()
        .filter(|entry| entry.path().join("config.toml").exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names.iter().map(|name| Case::read(name)).collect()
}

/// Number of the first link: the lab's own counting.
const FIRST_LINK: u32 = 100;

impl Case {
    fn read(name: &str) -> Case {
        let directory = root().join(name);
        let text = |file: &str| {
            let path = directory.join(file);
            std::fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let config = parse(&text("config.toml"), name)
            .unwrap_or_else(|error| panic!("{name}/config.toml: {error}"));
        let observed: Observed = toml::from_str(&text("observed.toml"))
            .unwrap_or_else(|error| panic!("{name}/observed.toml: {error}"));
        let document = directory.join("document").exists().then(|| {
            let path = root().join("documents").join(text("document").trim());
            let bytes = std::fs::read(&path)
                .unwrap_or_else(|error| panic!("{name}: {}: {error}", path.display()));
            (path, bytes)
        });
        let mut names = Names(vec![("lo".to_owned(), IfIndex(1))]);
        for (place, link) in observed.links.iter().enumerate() {
            let name = link.split(' ').next().unwrap_or_default().to_owned();
            names.0.push((name, IfIndex(FIRST_LINK + place as u32)));
        }
        Case {
            name: name.to_owned(),
            before: observed
                .after
                .as_deref()
                .map(|before| Box::new(Case::read(before))),
            directory,
            config,
            document,
            observed,
            names,
        }
    }

    pub fn role(&self) -> Role {
        self.config.role.expect("a case's config names the role")
    }

    /// Our numbers, and those of the earlier case.
    pub fn ownership(&self) -> Ownership {
        let earlier = self.before.iter().map(|case| Numbers::of(&case.config));
        Ownership::new(Numbers::of(&self.config), earlier)
    }

    pub fn links(&self) -> Vec<Link> {
        let mut links = vec![Link {
            index: IfIndex(1),
            name: "lo".to_owned(),
            altnames: Vec::new(),
            up: true,
            carrier: true,
            loopback: true,
            mac: Vec::new(),
            mtu: 1500,
        }];
        for line in &self.observed.links {
            let (name, state) = line.split_once(' ').unwrap_or((line, "up"));
            links.push(Link {
                index: self.names.index(name),
                name: name.to_owned(),
                altnames: Vec::new(),
                up: state != "down",
                carrier: state != "down",
                loopback: false,
                mac: Vec::new(),
                mtu: 1500,
            });
        }
        links
    }

    pub fn addresses(&self) -> Vec<Address> {
        let parse = |line: &String| {
            let (net, device) = line
                .split_once(" dev ")
                .unwrap_or_else(|| panic!("`{line}` is not `ADDRESS/LENGTH dev LINK`"));
            Address {
                link: self.names.index(device),
                net: net.parse().expect("an address with its length"),
            }
        };
        self.observed.addresses.iter().map(parse).collect()
    }

    /// The host's facts. `lo` has no addresses here, since nothing depends on them.
    pub fn facts(&self) -> HostFacts {
        let links = self.links();
        let addresses = self.addresses();
        let mut main_routes: Vec<MainRoute> = Vec::new();
        for address in &addresses {
            let up = links
                .iter()
                .any(|link| link.index == address.link && link.up);
            let connected = MainRoute {
                metric: match Family::of_net(&address.net) {
                    Family::Ipv4 => Metric(0),
                    // IP6_RT_PRIO_ADDRCONF, include/net/ip6_fib.h.
                    Family::Ipv6 => Metric(256),
                },
                device: Some(address.link),
                protocol: Protocol(2),
                ..MainRoute::unicast(address.net.trunc())
            };
            // The kernel adds no route for a network of one address.
            let network = address.net.prefix_len() < address.net.max_prefix_len();
            if up && network && !main_routes.contains(&connected) {
                main_routes.push(connected);
            }
        }
        for line in &self.observed.main {
            main_routes.extend(lines::main_routes(line, &self.names));
        }
        HostFacts {
            links,
            addresses,
            main_routes,
            name_servers: self.observed.name_servers.clone(),
            instance: self
                .observed
                .instance
                .as_ref()
                .map(|instance| InstanceFacts {
                    instance_id: None,
                    region: instance.region.as_deref().map(Region::from),
                    zone: None,
                    mac: None,
                    vpc_cidrs: instance.vpc_cidrs.clone(),
                    subnet_cidrs: Vec::new(),
                    public_addresses: instance.public_addresses.clone(),
                }),
            sysctls: Sysctls {
                values: self.observed.sysctls.clone(),
            },
            memory: None,
        }
    }

    /// The firewall policy that the earlier case left behind.
    pub fn firewall_before(&self) -> Option<(BackendKind, Ruleset)> {
        let before = self.before.as_deref()?;
        let outcome = pipeline::run(before);
        let ruleset = outcome.desired.firewall?;
        Some((outcome.backend, ruleset))
    }

    /// The state of the kernel.
    pub fn state(&self) -> ObservedState {
        let mut state = ObservedState::empty();
        if let Some(before) = self.before.as_deref() {
            let desired = pipeline::run(before).desired;
            state.routes = desired.routes;
            state.rules = desired.rules;
        }
        for line in &self.observed.gone {
            let before = (state.routes.len(), state.rules.len());
            let names = &self.names;
            state
                .routes
                .retain(|route| lines::route_line(route, names) != *line);
            state.rules.retain(|rule| lines::rule_line(rule) != *line);
            let after = (state.routes.len(), state.rules.len());
            assert!(before != after, "{}: nothing is `{line}`", self.name);
        }
        let observed = &self.observed;
        let route = |line: &String| lines::route(line, &self.names);
        let more: Vec<Route> = observed.routes.iter().map(route).collect();
        state.routes.extend(more);
        state.routes.sort();
        let more: Vec<Rule> = observed
            .rules
            .iter()
            .map(|line| lines::rule(line))
            .collect();
        state.rules.extend(more);
        state.rules.extend(KERNEL_RULES.map(lines::rule));
        state.rules.sort_by_key(|rule| (rule.family, rule.priority));
        let nexthop = |line: &String| lines::nexthop(line, &self.names);
        let more: Vec<NexthopObject> = observed.nexthops.iter().map(nexthop).collect();
        state.nexthops.extend(more);
        state.nexthops.sort();
        if let Some((backend, ruleset)) = self.firewall_before() {
            let owned = OwnedFirewall {
                text: pipeline::render(backend, &ruleset),
                snapshot: SavedRules::default(),
            };
            state
                .firewalls
                .insert(backend, ObservedFirewall::Owned(owned));
        }
        let explicit = [
            (BackendKind::Nftables, &observed.firewall.nftables),
            (BackendKind::Iptables, &observed.firewall.iptables),
        ];
        for (backend, text) in explicit {
            let Some(text) = text else { continue };
            let (word, what) = text.split_once(": ").unwrap_or((text, ""));
            let what = what.to_owned();
            let found = match word {
                "absent" => ObservedFirewall::Absent,
                "foreign" => ObservedFirewall::Foreign(what),
                "unavailable" => ObservedFirewall::Unavailable(what),
                other => panic!("{}: `{other}` is no state of a firewall", self.name),
            };
            state.firewalls.insert(backend, found);
        }
        // As in a pass: iptables is read only if chosen or possibly in use.
        let chosen = pipeline::choose(&self.config, &state).0;
        let held = matches!(
            state.firewalls.get(&BackendKind::Iptables),
            Some(ObservedFirewall::Owned(_))
        );
        if chosen != BackendKind::Iptables && !held {
            state.firewalls.remove(&BackendKind::Iptables);
        }
        state
    }
}

/// The initial rules of every network namespace (net/ipv4/fib_rules.c and the IPv6 counterpart).
pub const KERNEL_RULES: [&str; 5] = [
    "ipv4 0 from all lookup local proto kernel",
    "ipv4 32766 from all lookup main proto kernel",
    "ipv4 32767 from all lookup default proto kernel",
    "ipv6 0 from all lookup local proto kernel",
    "ipv6 32766 from all lookup main proto kernel",
];
