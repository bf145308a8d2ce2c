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
use super::{IMDS, IMDS6, Ns};

const TOKEN: &str = "bGFiLXRva2Vu";
const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";

/// How the service behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ImdsMode {
    /// It answers.
    #[default]
    Up,
    /// This status for everything: 403 (switched off), 500, 503.
    Status(u16),
    /// It takes the request and never answers.
    Silent,
}

#[derive(Debug, Default)]
struct State {
    mode: ImdsMode,
    /// Machine → path below `/latest/meta-data/` → answer.
    trees: BTreeMap<String, BTreeMap<String, String>>,
    /// Which machine asks from an address.
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

    /// Says that requests from these addresses come from `machine`.
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

    /// Removes a path and everything below it.
    pub fn remove(&self, machine: &str, path: &str) {
        let below = format!("{}/", path.trim_end_matches('/'));
        if let Some(tree) = lock(&self.state).trees.get_mut(machine) {
            tree.retain(|key, _| key != path && !key.starts_with(&below));
        }
    }

    /// Changes how it behaves.
    pub fn set_mode(&self, mode: ImdsMode) {
        lock(&self.state).mode = mode;
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.log).clone()
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
