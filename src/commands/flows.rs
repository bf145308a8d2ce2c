//! `trailblazer flows`: the open flows that keep another path than a new flow would take.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::broken_config::{self, Shown};
use super::{complain, print};
use crate::cli::{FlowsArgs, Output};
use crate::columns::aligned;
use crate::config::{AutoOr, Role};
use crate::exit;
use crate::firewall::BackendKind;
use crate::judge::{Counts, Displacement, FlowCount, Pins};
use crate::kernel::flows::PinnedFlow;
use crate::kernel::{Kernel, sysctl};
use crate::ownership::{Numbers, Ownership};
use crate::pinned::each_flow;
use crate::status::text::figures::{bytes, span};
use crate::types::{Family, PerFamily};
use crate::words::{counted, protocol_name};

const NOT_ENFORCED: &str = "no flow is pinned, since [egress] enforce = false; new and open \
    flows take the same path";
const SWITCHED_OFF: &str = "no flow is pinned, since [egress] pin = false; new and open flows \
    take the same path";
const ONE_PATH_OF_HOST: &str = "no flow is pinned, since the settings name no egress gateway";
const ONE_PATH_OF_NAT: &str = "no flow is pinned, since the settings name no interface or \
    gateway of one path alone; conntrack keeps the source address of each translated flow";
const IPTABLES: &str = "no flow is pinned, since only nftables can pin the flows of a host; \
    set [nat] backend = \"auto\" or \"nftables\"";
const UNKNOWN: &str = "the config file is broken, and no running agent tells whether flows are \
    pinned";
const NO_PINS: &str = "the kernel has no policy rules of pinned flows. No pass has run yet \
    (`trailblazer reconcile`), the firewall cannot pin flows (`trailblazer check`), or both paths of a \
    NAT leave by one interface and gateway";
const ACCOUNTING: &str = "net/netfilter/nf_conntrack_acct";
const TIMESTAMPS: &str = "net/netfilter/nf_conntrack_timestamp";

/// A flow of the list.
#[derive(Debug)]
struct Row {
    flow: PinnedFlow,
    /// `bypass` or `egress`.
    path: &'static str,
    gateways: Vec<IpAddr>,
    displaced: Option<Displacement>,
}

/// The flows of the list, and the numbers of all.
#[derive(Debug)]
struct Listing {
    rows: Vec<Row>,
    /// Flows beyond the limit.
    left_out: u64,
    counts: Counts,
}

/// The answer of the command.
struct Answer {
    listing: Result<Listing, String>,
    /// True if every pinned flow is listed.
    all: bool,
    /// True if conntrack counts bytes and keeps start times of new flows; `None` if unreadable.
    accounting: Option<bool>,
    timestamps: Option<bool>,
    notes: Vec<String>,
}

/// Runs `flows` and returns the exit code.
pub fn run(arguments: &FlowsArgs) -> u8 {
    let base = &arguments.base;
    let (shown, role) = match broken_config::settings_and_role(base, &base.overrides()) {
        Ok(found) => found,
        Err(code) => return code,
    };
    let pins = pins(&shown, role).map_err(|why| why.for_lack_of("list"));
    let listing = pins.and_then(|pins| list(&pins, arguments.all, arguments.limit));
    let answer = Answer::new(listing, arguments.all, shown.fault);
    if answer.listing.is_ok() || base.output == Output::Json {
        print(base.output, || answer.to_text(), || answer.to_json());
    }
    match &answer.listing {
        Ok(_) => exit::OK,
        Err(why) => {
            complain(why);
            exit::FAILED
        }
    }
}

/// The open flows pinned to a gateway of a host, counted now.
pub(super) fn on_gateway(shown: &Shown, gateway: IpAddr) -> Result<u64, String> {
    let pins = pins(shown, Role::Host).map_err(|why| why.for_lack_of("list"))?;
    let listing = list(&pins, false, 0)?;
    let flows = listing.counts.gateways.get(&gateway);
    Ok(flows.copied().unwrap_or_default())
}

/// The reason why there are no pins.
pub(super) enum NoPins {
    /// No flow is pinned, or nobody knows.
    Lacking(&'static str),
    /// The kernel refuses.
    Kernel(String),
}

impl NoPins {
    /// The reason for the lack of what a command shows.
    pub(super) fn for_lack_of(self, what: &str) -> String {
        match self {
            NoPins::Lacking(why) => format!("no {what}: {why}"),
            NoPins::Kernel(error) => error,
        }
    }
}

/// The pins in the kernel.
///
/// # Errors
/// [`NoPins`].
pub(super) fn pins(shown: &Shown, role: Role) -> Result<Pins, NoPins> {
    if shown.partial {
        return Err(NoPins::Lacking(UNKNOWN));
    }
    let config = &shown.loaded.config;
    let egress = &config.egress;
    let iptables = config.nat.backend == AutoOr::Set(BackendKind::Iptables);
    let why = match role {
        _ if !egress.pin => Some(SWITCHED_OFF),
        Role::Nat => (!config.pins()).then_some(ONE_PATH_OF_NAT),
        Role::Host if !egress.enforces() => Some(NOT_ENFORCED),
        Role::Host if !egress.pins() => Some(ONE_PATH_OF_HOST),
        Role::Host => iptables.then_some(IPTABLES),
    };
    if let Some(why) = why {
        return Err(NoPins::Lacking(why));
    }
    let refused = |error: &dyn std::fmt::Display| NoPins::Kernel(error.to_string());
    let ownership = Ownership::new(Numbers::of(config), []);
    let mut kernel = Kernel::open().map_err(|error| refused(&error))?;
    let observed = kernel.observe(&ownership, &[]);
    let observed = observed.map_err(|error| refused(&error))?;
    let pins = Pins::of(config, &observed.routes, &observed.rules);
    let pins = pins.filter(|pins| Family::ALL.into_iter().any(|family| pins.are_in(family)));
    pins.ok_or(NoPins::Lacking(NO_PINS))
}

fn list(pins: &Pins, all: bool, limit: usize) -> Result<Listing, String> {
    let mut found = Listing {
        rows: Vec::new(),
        left_out: 0,
        counts: Counts::none(pins),
    };
    let read = each_flow(pins, |flow, kept, displaced| {
        let family = Family::of(flow.destination.ip());
        found.counts.add(family, kept, displaced.is_some());
        if !all && displaced.is_none() {
            return;
        }
        if found.rows.len() == limit {
            found.left_out += 1;
            return;
        }
        found.rows.push(Row {
            flow: flow.clone(),
            path: if kept.is_bypass() { "bypass" } else { "egress" },
            gateways: kept.gateways(),
            displaced,
        });
    });
    // A part of the list looks like the whole.
    read.map_err(|error| error.to_string())?;
    found.rows.sort_by(|a, b| a.key().cmp(&b.key()));
    Ok(found)
}

impl Row {
    fn key(&self) -> (&'static str, &[IpAddr], SocketAddr, SocketAddr) {
        let PinnedFlow {
            source,
            destination,
            ..
        } = self.flow;
        (self.path, &self.gateways, destination, source)
    }

    fn cells(&self) -> [String; 8] {
        let flow = &self.flow;
        let unknown = || "-".to_owned();
        let gateways: Vec<String> = self.gateways.iter().map(IpAddr::to_string).collect();
        let gateways = match gateways.as_slice() {
            [] => unknown(),
            known => known.join(" or "),
        };
        [
            self.path.to_owned(),
            gateways,
            protocol_name(flow.protocol),
            end(flow.source),
            end(flow.destination),
            self.displaced
                .as_ref()
                .map_or_else(unknown, Displacement::to_string),
            flow.age.map_or_else(unknown, |age| span(age.as_secs())),
            flow.bytes.map_or_else(unknown, bytes),
        ]
    }

    fn to_json(&self) -> Value {
        let flow = &self.flow;
        let new = self.displaced.as_ref();
        json!({
            "family": Family::of(flow.destination.ip()),
            "path": self.path,
            "gateways": self.gateways,
            "protocol": protocol_name(flow.protocol),
            "source": end(flow.source),
            "destination": end(flow.destination),
            "displaced": new.is_some(),
            "why": new.map(|new| new.why.as_str()),
            "reason": new.map(Displacement::to_string),
            "new_path": new.map(|new| new.new_path.as_str()),
            "new_gateways": new.map(|new| &new.gateways),
            "age_s": flow.age.map(|age| age.as_secs()),
            "bytes": flow.bytes,
            "timeout_s": flow.timeout.map(|timeout| timeout.as_secs()),
        })
    }
}

/// An address, with the port of protocols that have ports.
fn end(end: SocketAddr) -> String {
    match end.port() {
        0 => end.ip().to_string(),
        _ => end.to_string(),
    }
}

impl Answer {
    fn new(listing: Result<Listing, String>, all: bool, fault: Option<String>) -> Answer {
        let values = sysctl::read([ACCOUNTING, TIMESTAMPS].map(str::to_owned));
        let is_on = |path| values.get(path).map(|value| value != "0");
        let (accounting, timestamps) = (is_on(ACCOUNTING), is_on(TIMESTAMPS));
        let rows: &[Row] = listing.as_ref().map_or(&[], |listing| &listing.rows);
        let mut notes = Vec::new();
        for (value, on, lacking) in [
            (
                "bytes",
                accounting,
                rows.iter().any(|row| row.flow.bytes.is_none()),
            ),
            (
                "ages",
                timestamps,
                rows.iter().any(|row| row.flow.age.is_none()),
            ),
        ] {
            notes.extend(lacking.then(|| unknown(value, on)));
        }
        Answer {
            listing,
            all,
            accounting,
            timestamps,
            notes: notes.into_iter().chain(fault).collect(),
        }
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        let Ok(listing) = &self.listing else {
            return text;
        };
        if !listing.rows.is_empty() {
            let heading = [
                "PATH",
                "GATEWAY",
                "PROTOCOL",
                "SOURCE",
                "DESTINATION",
                "WHY",
                "AGE",
                "BYTES",
            ];
            let mut rows = vec![heading.map(str::to_owned)];
            rows.extend(listing.rows.iter().map(Row::cells));
            for line in aligned(&rows, 6) {
                let _ = writeln!(text, "{line}");
            }
        }
        if listing.left_out > 0 {
            let more = counted(listing.left_out, "flow");
            let _ = writeln!(text, "and {more} more: --limit");
        }
        for family in Family::ALL {
            let line = match listing.counts.paths.get(family) {
                Some(counts) => format!(
                    "{family}: {} on the bypass path, {} on the egress path",
                    count_text(counts.bypass),
                    count_text(counts.egress)
                ),
                None => format!("{family}: no flow is pinned"),
            };
            let _ = writeln!(text, "{line}");
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        text
    }

    fn to_json(&self) -> Value {
        let listing = self.listing.as_ref().ok();
        let flows: Vec<Value> = listing
            .iter()
            .flat_map(|listing| listing.rows.iter().map(Row::to_json))
            .collect();
        let counts = listing.map_or_else(PerFamily::default, |listing| listing.counts.paths);
        json!({
            "flows": flows,
            "all": self.all,
            "left_out": listing.map(|listing| listing.left_out),
            "counts": counts,
            "accounting": self.accounting,
            "timestamps": self.timestamps,
            "error": self.listing.as_ref().err(),
            "notes": self.notes,
        })
    }
}

/// `12 pinned flows, 3 of them displaced`.
fn count_text(count: FlowCount) -> String {
    let pinned = counted(count.pinned, "pinned flow");
    match count.displaced {
        0 => pinned,
        displaced => format!("{pinned} ({displaced} displaced)"),
    }
}

/// The note about a value that conntrack does not have for some of the flows.
fn unknown(value: &str, on: Option<bool>) -> String {
    let key = match value {
        "bytes" => "net.netfilter.nf_conntrack_acct",
        _ => "net.netfilter.nf_conntrack_timestamp",
    };
    match on {
        Some(true) => format!("unknown {value}: flows that are older than {key} = 1"),
        Some(false) => {
            format!("unknown {value}: {key} is 0 (`sysctl -w {key}=1` records them for new flows)")
        }
        None => format!("unknown {value}: {key} is unreadable"),
    }
}
