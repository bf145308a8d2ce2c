//! A host for an agent: one link, and behind the link the router, the NAT instances, the mirror and
//! the metadata service.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::packets::{FIRST, document};
use lab::*;

/// Of the first document.
pub const TOKEN: u64 = 1_795_021_512;
/// The configured egress gateways and a second pair, both families.
pub const GATEWAYS: [&str; 2] = ["10.0.1.10", "2600:1f18:1000:1::10"];
pub const OTHER_GATEWAYS: [&str; 2] = ["10.0.1.20", "2600:1f18:1000:1::20"];
/// More than half of the IPv4 addresses of `FIRST`: a document without `BIG` is held.
pub const BIG: &str = "52.216.0.0/15";
/// Few enough addresses for the guard to accept the withdrawal.
pub const SMALL: &str = "3.5.0.0/19";
/// In no document of `FIRST`.
pub const NEW: &str = "18.34.0.0/19";

/// The host, and the machines in reach.
pub struct Host {
    pub ns: Ns,
    pub far: Ns,
    pub mirror: Mirror,
    pub imds: Imds,
    name: String,
    /// Dotted keys and their values, as in TOML.
    settings: BTreeMap<String, String>,
    _bare: Bare,
}

impl Host {
    /// The mirror serves `FIRST`; the source is asked every second.
    pub fn new() -> Host {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("agent{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let bare = Bare::new();
        let far = bare.far();
        far.ip_batch(&format!(
            "link set lo up\n\
             addr add 10.0.1.1/24 dev eth0\n\
             addr add fe80::1/64 dev eth0 nodad\n\
             addr add 10.0.1.10/24 dev eth0\n\
             addr add 10.0.1.20/24 dev eth0\n\
             addr add 2600:1f18:1000:1::10/64 dev eth0 nodad\n\
             addr add 2600:1f18:1000:1::20/64 dev eth0 nodad\n\
             addr add {IMDS}/32 dev lo\n\
             addr add {IMDS6}/128 dev lo nodad\n\
             addr add {MIRROR}/32 dev lo\n\
             addr add {MIRROR6}/128 dev lo nodad\n"
        ));
        let mirror = Mirror::start(&far, &[MIRROR, MIRROR6]);
        let imds = Imds::start(&far);
        imds.know("host", [HOST1, HOST1_6]);
        imds.set("host", "instance-id", "i-0123456789abcdef0");
        imds.set("host", "placement/region", "us-east-1");
        let mut host = Host {
            ns: bare.ns.clone(),
            far,
            mirror,
            imds,
            name,
            settings: BTreeMap::new(),
            _bare: bare,
        };
        for (key, value) in [
            ("role", "\"host\""),
            ("source.refresh", "\"1s\""),
            // Long enough for a busy machine, short enough for a test that waits for the timeout.
            ("source.timeout", "\"500ms\""),
            ("source.state_dir", "\"$STATE\""),
            ("select.regions", "[\"us-east-1\"]"),
            ("vpc.cidrs", "[\"10.0.0.0/16\", \"2600:1f18:1000::/56\"]"),
            ("nat.backend", "\"nftables\""),
        ] {
            host.set(key, value);
        }
        host.set("source.url", &format!("{:?}", host.mirror.url()));
        host.set("egress.gateways", &format!("{GATEWAYS:?}"));
        let socket = host.path("control.sock");
        host.set("agent.socket", &format!("{socket:?}"));
        host.publish(TOKEN, FIRST);
        host
    }

    /// Sets one key, for the next start or reload.
    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.insert(key.to_owned(), value.to_owned());
    }

    /// Writes the config and returns the path.
    pub fn config(&self) -> String {
        let lines = self.settings.iter();
        let text: String = lines
            .map(|(key, value)| format!("{key} = {value}\n"))
            .collect();
        write_config(&self.name, &text)
    }

    /// A file beside the config.
    pub fn path(&self, name: &str) -> PathBuf {
        let directory = scratch().join(&self.name);
        std::fs::create_dir_all(&directory).unwrap();
        directory.join(name)
    }

    pub fn state_dir(&self) -> PathBuf {
        self.path("state")
    }

    /// The mirror serves a document with these prefixes.
    pub fn publish(&self, token: u64, prefixes: &[&str]) {
        self.mirror.set_document(document(token, prefixes));
    }

    /// Starts an agent.
    pub fn start(&self) -> Agent {
        self.start_with(|_command| {})
    }

    /// The same, with a word about the command.
    pub fn start_with(&self, prepare: impl FnOnce(&mut Command)) -> Agent {
        Agent::start_with(&self.ns, &self.config(), &self.path("agent.log"), prepare)
    }

    /// Starts an agent and waits until the mirror's document is in force.
    #[track_caller]
    pub fn in_force(&self) -> Agent {
        let agent = self.start();
        agent.wait_for("the mirror's document in force", |status| {
            status["state"] == "in_force" && fetches(status, &["changed", "unchanged"]) > 0
        });
        agent
    }

    /// Runs a command of the binary.
    pub fn run(&self, words: &[&str]) -> Output {
        let config = self.config();
        let words = [words, &["-c", &config]].concat();
        self.ns.exec_command(&mut trailblazer_command(&words))
    }

    /// Runs a one-shot pass and returns the report.
    #[track_caller]
    pub fn reconcile(&self, flags: &[&str]) -> Value {
        let words = [&["reconcile", "-o", "json"], flags].concat();
        self.run(&words).ok().json()
    }

    /// Destinations of our own in a table, as text.
    pub fn table(&self, table: u32) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for family in ["-4", "-6"] {
            let words = format!("{family} route show table {table} proto 83");
            let routes = self.ns.ip_json(&words);
            let routes = routes.as_array().unwrap().iter();
            found.extend(routes.map(|route| route["dst"].as_str().unwrap().to_owned()));
        }
        found
    }

    /// Destinations in the bypass table.
    pub fn bypass(&self) -> BTreeSet<String> {
        self.table(1083)
    }

    /// The gateways of the egress table's defaults.
    pub fn egress(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for family in ["-4", "-6"] {
            let words = format!("{family} route show table 1084 proto 83 default");
            let routes = self.ns.ip_json(&words);
            let routes = routes.as_array().unwrap().iter();
            found.extend(routes.filter_map(|route| Some(route["gateway"].as_str()?.to_owned())));
        }
        found
    }

    /// Priorities of our rules, IPv4 and IPv6.
    pub fn rules(&self) -> [Vec<u64>; 2] {
        ["-4", "-6"].map(|family| {
            let rules = self.ns.ip_json(&format!("{family} rule show"));
            let rules = rules.as_array().unwrap().iter();
            let ours = rules.filter(|rule| rule["protocol"] == "83");
            ours.map(|rule| rule["priority"].as_u64().unwrap())
                .collect()
        })
    }

    /// The promised state without a document: the egress table with its gateways, and the rules.
    pub fn egress_is_in_force(&self) -> bool {
        self.egress() == set(&GATEWAYS) && self.rules().iter().all(|rules| rules.len() > 2)
    }

    /// The egress path and these prefixes are in force.
    pub fn has(&self, prefixes: &[&str]) -> bool {
        self.bypass() == set(prefixes) && self.egress_is_in_force()
    }

    /// True if our tables and rules are empty.
    pub fn has_nothing(&self) -> bool {
        self.bypass().is_empty()
            && self.table(1084).is_empty()
            && self.rules().iter().all(Vec::is_empty)
    }

    /// Asks the agent over HTTP, as a scraper on the host does: status and body; `None` where
    /// nobody listens.
    pub fn http(&self, port: u16, path: &str) -> Option<(u16, String)> {
        let asked = self.ns.in_thread(|| -> std::io::Result<String> {
            let at = SocketAddr::from(([127, 0, 0, 1], port));
            let mut stream = TcpStream::connect_timeout(&at, SOON)?;
            stream.set_read_timeout(Some(SOON))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        });
        let answer = asked.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    /// Silences the mirror, and waits until a fetch hangs there.
    #[track_caller]
    pub fn hang_a_fetch(&self) {
        self.mirror.set_mode(MirrorMode::Silent);
        let asked = self.mirror.requests().len();
        eventually("a fetch hangs", || self.mirror.requests().len() > asked);
    }

    /// Drops packets to the mirror in silence, or answers with `verdict`; `None` opens the way
    /// again.
    pub fn cut_off(&self, verdict: Option<&str>) {
        let rules = match verdict {
            Some(verdict) => format!(
                "table inet cut {{
                   chain input {{ type filter hook input priority 0; tcp dport 80 {verdict}; }}
                 }}"
            ),
            None => "delete table inet cut".to_owned(),
        };
        self.far.nft(&rules);
    }
}

/// As a set of text.
pub fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// All but some.
pub fn without<'p>(prefixes: &[&'p str], gone: &[&str]) -> Vec<&'p str> {
    let kept = prefixes.iter().filter(|prefix| !gone.contains(prefix));
    kept.copied().collect()
}

/// The number of fetches with one of these results.
pub fn fetches(status: &Value, results: &[&str]) -> u64 {
    let count = |result: &&str| status["source"]["fetches"][*result].as_u64().unwrap_or(0);
    results.iter().map(count).sum()
}

/// How many passes there were.
pub fn passes(status: &Value) -> u64 {
    let outcomes = status["pass_totals"]["outcomes"].as_object().unwrap();
    outcomes.values().filter_map(Value::as_u64).sum()
}

/// The promised second for a stop. Beyond three runnable processes a core, which the suite never
/// causes by itself, everything takes longer in proportion, and the figure says nothing about the
/// agent.
pub fn a_second() -> Duration {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    let load: f64 = load.split(' ').next().unwrap().parse().unwrap();
    let cores = std::thread::available_parallelism().unwrap().get() as f64;
    let busy = (load / (3.0 * cores)).max(1.0);
    if busy > 1.0 {
        println!("a load of {load} on {cores} cores: a second is {busy:.1} here");
    }
    Duration::from_secs_f64(busy)
}
