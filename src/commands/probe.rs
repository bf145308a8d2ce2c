//! `trailblazer probe`: probes the ways out of this host now, with or without an agent.

mod page;
mod servers;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::task::JoinSet;

use super::broken_config::{self, Shown};
use super::flows::pins;
use super::{complain, print};
use crate::cli::{ProbeArgs, ProbedWay};
use crate::config::Role;
use crate::desired::EGRESS_OF_NAT;
use crate::exit;
use crate::health::Answer;
use crate::judge::Pins;
use crate::kernel::privilege::has_net_admin;
use crate::kernel::probing;
use crate::types::{Family, Mark};
use page::Page;
use servers::{Server, Servers};

const NO_PRIVILEGE: &str = "probes carry the marks of pinned flows, which needs CAP_NET_ADMIN in this \
    network namespace: run as root";
/// The pause between two probes of a server through one way: a burst proves less.
const PAUSE: Duration = Duration::from_millis(200);

/// A way out of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Gateway(IpAddr),
    /// NAT role.
    Egress(Family),
    Bypass(Family),
}

impl Way {
    fn family(self) -> Family {
        match self {
            Way::Gateway(address) => Family::of(address),
            Way::Egress(family) | Way::Bypass(family) => family,
        }
    }
}

/// The probes of one server through one way.
#[derive(Debug, Clone)]
struct Series {
    server: Server,
    answers: Vec<Answer>,
}

/// The result of one way.
#[derive(Debug, Clone)]
struct Probed {
    way: Way,
    /// None if no server has an address of the family.
    series: Vec<Series>,
}

/// Runs `probe` and returns the exit code.
pub async fn run(arguments: &ProbeArgs) -> u8 {
    let base = &arguments.base;
    let (shown, role) = match broken_config::settings_and_role(base, &base.overrides()) {
        Ok(found) => found,
        Err(code) => return code,
    };
    let probed = probe(&shown, role, arguments).await;
    let page = Page::new(probed, arguments.count, shown.fault);
    print(base.output, || page.to_text(), || page.to_json());
    if let Some(error) = page.error() {
        complain(&error);
    }
    if page.is_good() {
        exit::OK
    } else {
        exit::FAILED
    }
}

/// Probes the ways. Returns the results, and notes.
///
/// # Errors
/// The reason if no probe can be sent.
async fn probe(
    shown: &Shown,
    role: Role,
    arguments: &ProbeArgs,
) -> Result<(Vec<Probed>, Vec<String>), String> {
    // A broken file comes first: its answer needs no privilege.
    if !shown.partial && has_net_admin() == Some(false) {
        return Err(NO_PRIVILEGE.to_owned());
    }
    let pins = pins(shown, role).map_err(|why| why.for_lack_of("probe"))?;
    let config = &shown.loaded.config;
    let ways = chosen(ways(&pins), arguments.way)?;
    let has = |bypass| {
        let mut ways = ways.iter();
        ways.any(|(way, _)| matches!(way, Way::Bypass(_)) == bypass)
    };
    let servers = Servers::find(config, role, &arguments.target, [has(false), has(true)]).await?;
    let mut tasks = JoinSet::new();
    for (way, mark) in &ways {
        for server in servers.of(*way) {
            let (way, mark, server) = (*way, *mark, server.clone());
            let (count, limit) = (arguments.count, config.probe.timeout);
            tasks.spawn(async move {
                let answers = series(server.address, mark, count, limit).await;
                (way, Series { server, answers })
            });
        }
    }
    let mut found = tasks.join_all().await;
    found.sort_by(|(_, a), (_, b)| a.server.cmp(&b.server));
    let probed = ways.into_iter().map(|(way, _)| Probed {
        way,
        series: found
            .iter()
            .filter(|(of, _)| *of == way)
            .map(|(_, series)| series.clone())
            .collect(),
    });
    Ok((probed.collect(), servers.notes))
}

/// The ways that packets with a mark take, each with the mark.
fn ways(pins: &Pins) -> Vec<(Way, Mark)> {
    let marks = pins.marks();
    let mut ways = Vec::new();
    for family in Family::ALL {
        let gateways = pins.gateways(family).into_iter();
        ways.extend(gateways.map(|(gateway, mark)| (Way::Gateway(gateway), mark)));
        if pins.are_of_nat() && pins.kept(family, EGRESS_OF_NAT).is_some() {
            ways.push((Way::Egress(family), marks.slot(EGRESS_OF_NAT)));
        }
    }
    for family in Family::ALL {
        if pins.kept(family, 0).is_some() {
            ways.push((Way::Bypass(family), marks.bypass_packet()));
        }
    }
    ways
}

/// The ways that the command line names.
fn chosen(ways: Vec<(Way, Mark)>, wanted: Option<ProbedWay>) -> Result<Vec<(Way, Mark)>, String> {
    let fits = |way: Way| match wanted {
        None => true,
        Some(ProbedWay::Bypass) => matches!(way, Way::Bypass(_)),
        Some(ProbedWay::Gateway(gateway)) => way == Way::Gateway(gateway),
    };
    let (chosen, others): (Vec<_>, Vec<_>) = ways.into_iter().partition(|(way, _)| fits(*way));
    if chosen.is_empty() {
        let known: Vec<String> = others.iter().map(|(way, _)| page::short(*way)).collect();
        let known = known.join(", ");
        return Err(format!(
            "no probe: the kernel has no policy rule for this way; it has rules for {known}"
        ));
    }
    Ok(chosen)
}

async fn series(server: SocketAddr, mark: Mark, count: u32, limit: Duration) -> Vec<Answer> {
    let mut answers = Vec::new();
    for number in 0..count {
        if number > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        answers.push(probing::probe(server, None, mark, limit).await);
    }
    answers
}
