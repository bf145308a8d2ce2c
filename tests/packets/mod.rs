//! Shared by the packet tests of both roles: documents, a machine with Trailblazer, and the verdict
//! on source addresses at the servers.

// Both test binaries include this file, and each uses a part.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub mod delay;
pub mod nat;
pub mod two_nats;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;

use serde_json::Value;
use trailblazer::firewall::PathTraffic;
use trailblazer::kernel::firewall::FirewallBackend;
use trailblazer::kernel::firewall::iptables::{IptablesBackend, LOCK_WAIT_S};
use trailblazer::kernel::firewall::nftables::Nftables;

use lab::*;

/// The prefixes of us-east-1 in the first document; the lab serves an address in each from the
/// start.
pub const FIRST: &[&str] = &[
    "3.5.0.0/19",
    "16.182.0.0/16",
    "52.216.0.0/15",
    "54.231.0.0/16",
    "2600:1fa0:8000::/39",
    "2600:1ff8:8000::/40",
];
/// New connections a second to each target of a stream: several during one pass.
pub const PACE: u32 = 25;

/// A document with the prefixes as S3 of us-east-1, beside S3 of another region.
pub fn document(token: u64, prefixes: &[&str]) -> String {
    let row = |region: &str, key: &str, prefix: &str| {
        serde_json::json!({
            key: prefix, "region": region, "service": "S3", "network_border_group": region
        })
    };
    let mut rows4 = vec![row("eu-west-1", "ip_prefix", "52.218.0.0/17")];
    let mut rows6 = Vec::new();
    for prefix in prefixes {
        if prefix.contains(':') {
            rows6.push(row("us-east-1", "ipv6_prefix", prefix));
        } else {
            rows4.push(row("us-east-1", "ip_prefix", prefix));
        }
    }
    serde_json::json!({
        "syncToken": token.to_string(), "createDate": "2026-11-18-17-05-12",
        "prefixes": rows4, "ipv6_prefixes": rows6
    })
    .to_string()
}

/// The firewall backend, and the variant of its programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firewall {
    /// Over netlink.
    Nftables,
    /// `iptables` and `ip6tables` as installed.
    Iptables,
    /// The legacy programs, put first in the PATH.
    IptablesLegacy,
}

impl Firewall {
    /// The line for `[nat]`.
    pub fn line(self) -> &'static str {
        match self {
            Firewall::Nftables => "backend = \"nftables\"",
            Firewall::Iptables | Firewall::IptablesLegacy => "backend = \"iptables\"",
        }
    }

    /// The program on this machine's command line.
    pub fn program(self, family: &str) -> String {
        match self {
            Firewall::IptablesLegacy => format!("{family}tables-legacy"),
            Firewall::Nftables | Firewall::Iptables => format!("{family}tables"),
        }
    }
}

/// The settings, with a table that other programs may change beside an agent.
fn with_open_table(settings: &str) -> String {
    const KERNEL: &str = "[kernel]\n";
    const OPEN: &str = "[kernel]\nprotect_table = false\n";
    if settings.contains(KERNEL) {
        settings.replacen(KERNEL, OPEN, 1)
    } else {
        format!("{settings}{OPEN}")
    }
}

/// A machine of the lab with Trailblazer and a document.
pub struct Machine<'a> {
    lab: &'a Lab,
    name: &'static str,
    firewall: Firewall,
    config: String,
    document: PathBuf,
    /// The lines of `[source]`, except the state dir.
    source: String,
    token: u64,
    /// The families and settings of the config.
    selected: (Vec<String>, String),
    /// Other programs may change the table of an agent.
    table_is_open: bool,
    /// A directory of programs that come first in the PATH.
    pub tools: Option<PathBuf>,
}

impl<'a> Machine<'a> {
    /// Writes config and first document. `settings` follow `role`, `[source]`, `[select]` and
    /// `[guard]`, and begin with the keys of `[nat]`.
    pub fn new(lab: &'a Lab, name: &'static str, firewall: Firewall, settings: &str) -> Self {
        let document = scratch().join(format!("{name}-ip-ranges.json"));
        let mut machine = Machine {
            lab,
            name,
            firewall,
            config: String::new(),
            source: format!("url = \"{}\"", document.display()),
            document,
            token: 1_795_021_512,
            selected: (Vec::new(), String::new()),
            table_is_open: false,
            tools: (firewall == Firewall::IptablesLegacy).then(legacy_programs),
        };
        machine.configure(settings);
        machine.publish(FIRST);
        machine
    }

    /// Another config from the next pass on.
    pub fn configure(&mut self, settings: &str) {
        self.select(&["ipv4", "ipv6"], settings);
    }

    /// Another source from the next config on.
    pub fn ask(&mut self, lines: &str) {
        self.source = lines.to_owned();
    }

    /// The agent protects its table from no program of the test, from the next config on.
    pub fn open_table(&mut self) {
        self.table_is_open = true;
        let (families, settings) = self.selected.clone();
        let families: Vec<&str> = families.iter().map(String::as_str).collect();
        self.select(&families, &settings);
    }

    /// Another config from the next pass on, with the selected families.
    pub fn select(&mut self, families: &[&str], settings: &str) {
        let owned = families.iter().map(|family| (*family).to_owned());
        self.selected = (owned.collect(), settings.to_owned());
        let settings = if self.table_is_open {
            with_open_table(settings)
        } else {
            settings.to_owned()
        };
        let role = if self.name.starts_with("nat") {
            "nat"
        } else {
            "host"
        };
        let text = format!(
            "role = \"{role}\"\n\
             [source]\n{}\nstate_dir = \"$STATE\"\n\
             [select]\nregions = [\"us-east-1\"]\nfamilies = {families:?}\n\
             [guard]\nmax_loss = \"100%\"\nhold_down = \"0s\"\n\
             [nat]\n{}\n{settings}",
            self.source,
            self.firewall.line()
        );
        self.config = self.lab.config(self.name, &text);
    }

    /// Publishes the next document, with these prefixes.
    pub fn publish(&mut self, prefixes: &[&str]) {
        self.token += 1;
        std::fs::write(&self.document, document(self.token, prefixes)).unwrap();
    }

    pub fn ns(&self) -> &Ns {
        self.lab.ns(self.name)
    }

    /// Runs a command of the binary.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.ns().exec_command(&mut self.command(arguments))
    }

    /// The command of the binary with the config, for processes that end early.
    pub fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut words = arguments.to_vec();
        words.extend(["-c", &self.config]);
        let mut command = trailblazer_command(&words);
        self.set_path(&mut command);
        command
    }

    fn set_path(&self, command: &mut std::process::Command) {
        if let Some(tools) = &self.tools {
            let path = std::env::var("PATH").unwrap_or_default();
            command.env("PATH", format!("{}:{path}", tools.display()));
        }
    }

    /// The path of the config.
    pub fn config(&self) -> &str {
        &self.config
    }

    /// Starts the agent, with a log beside the config. Two agents in one lab need `[agent] socket`.
    pub fn agent(&self) -> Agent {
        let log = scratch().join(format!("{}-agent.log", self.name));
        Agent::start_with(self.ns(), &self.config, &log, |command| {
            self.set_path(command);
        })
    }

    /// Runs a pass that must succeed; returns standard output.
    #[track_caller]
    pub fn reconcile(&self) -> Value {
        self.run(&["reconcile", "-o", "json"]).ok().json()
    }

    /// Runs a pass that must change something.
    #[track_caller]
    pub fn changed(&self) -> Value {
        let report = self.reconcile();
        assert_eq!(report["outcome"], "changed", "{report:#}");
        report
    }

    /// Runs a pass that must find nothing to do.
    #[track_caller]
    pub fn in_sync(&self) {
        let report = self.reconcile();
        assert_eq!(report["outcome"], "in_sync", "{report:#}");
    }

    /// The firewall's counts by path.
    pub fn traffic(&self) -> Option<PathTraffic> {
        let mut backend: Box<dyn FirewallBackend + Send> = match self.firewall {
            Firewall::Nftables => Box::new(Nftables::new()),
            Firewall::Iptables => Box::new(IptablesBackend::detect()),
            Firewall::IptablesLegacy => Box::new(IptablesBackend::with_tools(
                "iptables-legacy",
                "ip6tables-legacy",
                LOCK_WAIT_S,
            )),
        };
        self.ns().in_thread(|| backend.traffic().unwrap())
    }

    /// Takes everything away.
    #[track_caller]
    pub fn flush(&self) {
        self.run(&["flush"]).ok();
    }

    /// Adds a rule of the administrator to every table and family that Trailblazer may write to, so
    /// that no foreign table or base chain appears or vanishes.
    pub fn administrator(&self) {
        let ns = self.ns();
        ns.ip_batch(
            "rule add pref 12000 from 10.0.1.99 lookup 77\n\
             route add blackhole 10.99.0.0/16 table 77\n\
             route add blackhole 2001:4860:99::/48 table 77\n\
             nexthop add id 7 blackhole\n",
        );
        ns.ip("-6 rule add pref 12000 from 2600:1f18:1000:1::99 lookup 77");
        ns.nft(
            "table inet theirs {
               chain marks { type filter hook prerouting priority mangle; tcp dport 9 meta mark set 0x80; }
               chain post { type nat hook postrouting priority srcnat; tcp dport 9 masquerade; }
             }",
        );
        if self.firewall != Firewall::Nftables {
            for family in ["ip", "ip6"] {
                let program = self.firewall.program(family);
                for rule in [
                    "mangle PREROUTING -p tcp --dport 9 -j MARK --set-xmark 0x80/0x80",
                    "mangle OUTPUT -p tcp --dport 9 -j MARK --set-xmark 0x80/0x80",
                    "mangle POSTROUTING -p tcp --dport 9 -j MARK --set-xmark 0x80/0x80",
                    "nat POSTROUTING -p tcp --dport 9 -j MASQUERADE",
                    "filter FORWARD -p tcp --dport 9 -j DROP",
                ] {
                    let mut words = vec![program.as_str(), "-w", "-t"];
                    let (table, rest) = rule.split_once(' ').unwrap();
                    words.extend([table, "-A"]);
                    words.extend(rest.split(' '));
                    ns.run(&words);
                }
            }
        }
    }
}

/// A directory in which `iptables` means the legacy program.
fn legacy_programs() -> PathBuf {
    let directory = scratch().join("legacy");
    if !directory.exists() {
        std::fs::create_dir_all(&directory).unwrap();
        for family in ["ip", "ip6"] {
            for suffix in ["", "-save", "-restore"] {
                let target = ["/usr/sbin", "/sbin"]
                    .map(|place| PathBuf::from(format!("{place}/{family}tables-legacy{suffix}")))
                    .into_iter()
                    .find(|path| path.exists())
                    .expect("iptables-legacy is installed (package iptables; make deps)");
                let link = directory.join(format!("{family}tables{suffix}"));
                std::os::unix::fs::symlink(target, link).unwrap();
            }
        }
    }
    directory
}

/// Private neighbours, metadata and DNS answer `host1`, and see its private address.
#[track_caller]
pub fn assert_private_networks(lab: &Lab) {
    let host1 = lab.ns("host1");
    for neighbour in [PEER, PEER6, HOST2, HOST2_6] {
        let own = own_of_host1(neighbour);
        assert_eq!(host1.who(neighbour), Ok(own), "host1 to {neighbour}");
    }
    for resolver in [RESOLVER, RESOLVER6, RESOLVER_IN_VPC] {
        let asked = host1.who_udp(SocketAddr::new(resolver, DNS_PORT));
        assert_eq!(asked, Ok(own_of_host1(resolver)), "host1 to {resolver}");
    }
    for endpoint in [IMDS, IMDS6] {
        let status = metadata_status(host1, endpoint);
        assert_eq!(status.as_deref(), Ok("200"), "host1 to {endpoint}");
    }
}

/// The private address of `host1` in the same family.
pub fn own_of_host1(other: IpAddr) -> IpAddr {
    if other.is_ipv4() { HOST1 } else { HOST1_6 }
}

/// Requests a token of the metadata service; returns the status line.
fn metadata_status(ns: &Ns, endpoint: IpAddr) -> Result<String, ErrorKind> {
    let asked = ns.in_thread(|| -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(endpoint, 80), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(
            b"PUT /latest/api/token HTTP/1.1\r\nHost: metadata\r\n\
              X-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n",
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.split(' ').nth(1).unwrap_or_default().to_owned())
    });
    asked.map_err(|error| error.kind())
}

/// Nothing was seen on a wrong wire.
#[track_caller]
pub fn assert_no_leaks(lab: &Lab) {
    assert_eq!(lab.leaks(), Leaks::default());
    assert_eq!(lab.partner.refused(), BTreeSet::new());
}

/// Forgets all earlier observations at the gateway and the partner.
pub fn count_from_now(lab: &Lab) {
    lab.reset_leaks();
    lab.partner.clear();
    lab.s3.clear();
}
