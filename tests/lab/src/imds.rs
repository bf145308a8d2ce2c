//! The instance metadata service, version 2 only, with a tree of answers for each machine.
//!
//! Paths and behaviour after "Use the Instance Metadata Service" and "Instance metadata
//! categories" (EC2 User Guide): a token by `PUT /latest/api/token`, 401 without it, 404 for an
//! unknown path, directories listed with a slash after sub-directories.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use super::http::{self, Log, Reply, Request};
use super::server::lock;
use super::*;

const TOKEN: &str = "bGFiLXRva2Vu";
const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";

/// The service's behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ImdsMode {
    /// Answers.
    #[default]
    Up,
    /// Answers every request with this status: 403 (switched off), 500, 503.
    Status(u16),
    /// Accepts the request and never answers.
    Silent,
}

#[derive(Debug, Default)]
struct State {
    mode: ImdsMode,
    /// Machine → path below `/latest/meta-data/` → answer.
    trees: BTreeMap<String, BTreeMap<String, String>>,
    /// The machine behind each client address.
    machines: BTreeMap<IpAddr, String>,
}

/// The metadata service of the lab.
#[derive(Debug, Clone)]
pub struct Imds {
    state: Arc<Mutex<State>>,
    log: Log,
}

impl Imds {
    /// Serves on port 80 of both endpoints.
    pub fn start(ns: &Ns) -> Imds {
        let state: Arc<Mutex<State>> = Arc::default();
        let served = Arc::clone(&state);
        let log = http::serve(ns, 80, &[IMDS, IMDS6], move |request| {
            answer(&lock(&served), request)
        });
        Imds { state, log }
    }

    /// Declares the client addresses of `machine`.
    pub fn know(&self, machine: &str, addresses: impl IntoIterator<Item = IpAddr>) {
        let mut state = lock(&self.state);
        for address in addresses {
            state.machines.insert(address, machine.to_owned());
        }
    }

    /// Sets one answer of a machine: `set("host1", "placement/region", "eu-west-1")`.
    pub fn set(&self, machine: &str, path: &str, value: &str) {
        let mut state = lock(&self.state);
        let tree = state.trees.entry(machine.to_owned()).or_default();
        tree.insert(path.to_owned(), value.to_owned());
    }

    /// Removes a path and all paths below.
    pub fn remove(&self, machine: &str, path: &str) {
        let below = format!("{}/", path.trim_end_matches('/'));
        if let Some(tree) = lock(&self.state).trees.get_mut(machine) {
            tree.retain(|key, _| key != path && !key.starts_with(&below));
        }
    }

    /// Changes the behaviour.
    pub fn set_mode(&self, mode: ImdsMode) {
        lock(&self.state).mode = mode;
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.log).clone()
    }
}

impl Imds {
    /// Fills in the answers about the lab's hosts and NAT instances.
    pub(super) fn fill(&self, layout: NatLayout) {
        let hosts = [("host1", HOST1, HOST1_6), ("host2", HOST2, HOST2_6)];
        for (name, address, address6) in hosts {
            let public = if name == "host1" {
                HOST1_PUBLIC
            } else {
                HOST2_PUBLIC
            };
            let pairs = [(address, Some(public))];
            self.fill_instance(name, address, "us-east-1");
            self.fill_interface(name, 0, &pairs, &[address6], SUBNET4, SUBNET6);
        }
        for (name, nat) in [("nat1", layout.addresses(1)), ("nat2", layout.addresses(2))] {
            self.fill_instance(name, nat.private, "us-east-1");
            if layout == NatLayout::OneInterface {
                let pairs = [
                    (nat.private, None),
                    (nat.egress, Some(nat.egress_public)),
                    (nat.second, Some(nat.second_public)),
                ];
                let ipv6 = [nat.private6, nat.egress6, nat.second6];
                self.fill_interface(name, 0, &pairs, &ipv6, SUBNET4, SUBNET6);
            } else {
                let private = [(nat.private, None)];
                self.fill_interface(name, 0, &private, &[nat.private6], SUBNET4, SUBNET6);
                let known = [nat.egress, nat.egress6, nat.second, nat.second6];
                self.know(name, known);
            }
        }
    }

    fn fill_instance(&self, name: &str, address: IpAddr, region: &str) {
        let set = |path: &str, value: &str| self.set(name, path, value);
        set("instance-id", &instance_id(name));
        set("mac", &mac(address));
        set("local-ipv4", &address.to_string());
        set("placement/region", region);
        set("placement/availability-zone", &format!("{region}a"));
    }

    fn fill_interface(
        &self,
        name: &str,
        device: u8,
        addresses: &[(IpAddr, Option<IpAddr>)],
        ipv6: &[IpAddr],
        subnet4: &str,
        subnet6: &str,
    ) {
        let join = |all: Vec<IpAddr>| {
            let words: Vec<String> = all.iter().map(ToString::to_string).collect();
            words.join("\n")
        };
        let own: Vec<IpAddr> = addresses.iter().map(|(own, _)| *own).collect();
        let public: Vec<IpAddr> = addresses.iter().filter_map(|(_, public)| *public).collect();
        self.know(name, own.iter().chain(ipv6).copied());
        let mac = mac(own[0]);
        let set = |path: &str, value: &str| {
            let path = format!("network/interfaces/macs/{mac}/{path}");
            self.set(name, &path, value);
        };
        set("device-number", &device.to_string());
        set("mac", &mac);
        set("interface-id", &format!("eni-0{name}{device}"));
        set("subnet-id", "subnet-0private");
        set("vpc-id", "vpc-0lab");
        set("local-ipv4s", &join(own.clone()));
        set("ipv6s", &join(ipv6.to_vec()));
        set("subnet-ipv4-cidr-block", subnet4);
        set("subnet-ipv6-cidr-blocks", subnet6);
        set("vpc-ipv4-cidr-block", VPC4);
        set("vpc-ipv4-cidr-blocks", VPC4);
        set("vpc-ipv6-cidr-blocks", VPC6);
        if !public.is_empty() {
            set("public-ipv4s", &join(public));
        }
        for (own, public) in addresses {
            if let Some(public) = public {
                set(&format!("ipv4-associations/{public}"), &own.to_string());
            }
        }
    }
}

fn answer(state: &State, request: &Request) -> Option<Reply> {
    match state.mode {
        ImdsMode::Up => {}
        ImdsMode::Status(status) => return Some(Reply::status(status)),
        ImdsMode::Silent => return None,
    }
    if request.path == "/latest/api/token" {
        let ttl: Option<u32> = request.header(TTL).and_then(|value| value.parse().ok());
        return Some(match (request.method.as_str(), ttl) {
            // 1 second to 6 hours.
            ("PUT", Some(1..=21_600)) => Reply::ok(TOKEN),
            ("PUT", _) => Reply::status(400),
            _ => Reply::status(405),
        });
    }
    if request.header("x-aws-ec2-metadata-token") != Some(TOKEN) {
        return Some(Reply::status(401));
    }
    let path = request
        .path
        .strip_prefix("/latest/meta-data")
        .unwrap_or("?");
    let machine = state.machines.get(&request.peer);
    let tree = machine.and_then(|machine| state.trees.get(machine));
    let found = tree.and_then(|tree| look_up(tree, path.trim_matches('/')));
    Some(found.map_or_else(|| Reply::status(404), Reply::ok))
}

fn look_up(tree: &BTreeMap<String, String>, path: &str) -> Option<String> {
    if let Some(value) = tree.get(path) {
        return Some(value.clone());
    }
    let below = if path.is_empty() {
        String::new()
    } else {
        format!("{path}/")
    };
    let entries: BTreeSet<String> = tree
        .keys()
        .filter_map(|key| key.strip_prefix(&below))
        .map(|rest| match rest.split_once('/') {
            Some((directory, _)) => format!("{directory}/"),
            None => rest.to_owned(),
        })
        .collect();
    (!entries.is_empty()).then(|| entries.into_iter().collect::<Vec<_>>().join("\n"))
}

/// An id in the real form: `i-` and 17 hexadecimal digits with the machine's name in hexadecimal.
fn instance_id(machine: &str) -> String {
    let digits: String = machine.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("i-{digits:0>17.17}")
}
