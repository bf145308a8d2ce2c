//! Steers S3 in each of the four ways, and measures.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::Res;
use super::arena::{self, Arena, BULK, DIRECTORY, EGRESS, NAT, NAT_FIRST, ROUTER};
use super::far::Seen;
use super::load;
use super::model::Model;
use super::series::{Series, Way};
use super::verdict::far_beyond;

/// The release binary, of the profile `bench`, which has all settings of the profile `release`.
pub const BINARY: &str = env!("CARGO_BIN_EXE_trailblazer");
/// The document of all hosts: a sample in the form of AWS's own.
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/ip-ranges.json");
/// The region of the S3 server.
const REGION: &str = "us-east-1";

/// All ways, in the order of the run: the host role comes last, so that nothing has to be removed.
pub const IN_TURN: [Way; 4] = [Way::Nobody, Way::NatRole, Way::Script, Way::HostRole];

/// The source of S3's connections; `None`: each server's own address.
fn source_at_s3(way: Way) -> Option<Ipv4Addr> {
    match way {
        Way::Nobody => Some(NAT_FIRST),
        Way::NatRole => Some(BULK),
        Way::HostRole | Way::Script => None,
    }
}

/// Steers in one way, and measures each number of servers of the ladder.
pub fn measure(
    way: Way,
    arena: &Arena,
    model: &Model,
    seen: &Arc<Seen>,
    ladder: &[usize],
) -> Res<Series> {
    steer(way, arena)?;
    seen.take_sources();
    let allowed = match way {
        Way::Nobody => model.allowed_with_all(),
        _ => model.allowed_with_egress(),
    };
    let mut steps = Vec::new();
    for servers in ladder {
        let step = load::step(arena, model, seen, *servers, allowed)?;
        eprintln!(
            "{:<25} {servers:>4} servers: goodput {:5.1} %, drops {}{}",
            way.name(),
            step.goodput() * 100.0,
            step.drops,
            if step.saturated() { ", saturated" } else { "" },
        );
        steps.push(step);
        if far_beyond(&steps) {
            break;
        }
    }
    let [site, s3] = seen.take_sources();
    let own: BTreeSet<_> = (0..arena.servers.len()).map(arena::address).collect();
    let expected = match source_at_s3(way) {
        Some(source) => BTreeSet::from([source]),
        None => own,
    };
    let hold = site == BTreeSet::from([EGRESS]) && !s3.is_empty() && s3.is_subset(&expected);
    remove(way, arena)?;
    Ok(Series::new(way, steps, [site, s3], hold))
}

fn steer(way: Way, arena: &Arena) -> Res<()> {
    // On the NAT of every way the nat role translates.
    arena.nat.enter()?;
    let bypass = match way {
        Way::NatRole => "[bypass]\ninterface = \"bulk\"\n",
        _ => "",
    };
    reconcile(
        "nat",
        &format!(
            "role = \"nat\"\n{bypass}\
             [nat]\nsources = [\"10.0.0.0/16\"]\negress_interface = \"pub\"\n\
             egress_addresses = [\"{EGRESS}\"]\n"
        ),
    )?;
    match way {
        Way::Nobody | Way::NatRole => Ok(()),
        Way::Script => on_servers(arena, |_| arena::ip_batch(&script("replace")?)),
        Way::HostRole => on_servers(arena, |number| {
            reconcile(
                &format!("h{number}"),
                &format!(
                    "role = \"host\"\n[bypass]\ngateway = \"{ROUTER}\"\n\
                     [egress]\ngateways = [\"{NAT}\"]\n"
                ),
            )
        }),
    }
}

/// Removes the routes of the script. The host role is last; the next pass replaces the NAT's rules.
fn remove(way: Way, arena: &Arena) -> Res<()> {
    if way == Way::Script {
        on_servers(arena, |_| arena::ip_batch(&script("del")?))?;
    }
    Ok(())
}

fn on_servers(arena: &Arena, mut what: impl FnMut(usize) -> Res<()>) -> Res<()> {
    for (number, space) in arena.servers.iter().enumerate() {
        space.enter()?;
        what(number)?;
    }
    Ok(())
}

/// A pass of the release binary in the namespace of the thread.
fn reconcile(name: &str, of_role: &str) -> Res<()> {
    let directory = format!("{DIRECTORY}/{name}");
    std::fs::create_dir_all(&directory)?;
    let config = format!("{directory}/trailblazer.toml");
    std::fs::write(
        &config,
        format!(
            "{of_role}\n[source]\nurl = \"{DOCUMENT}\"\nstate_dir = \"{directory}/state\"\n\
             [select]\nregions = [\"{REGION}\"]\n\
             [vpc]\nmetadata = \"off\"\ncidrs = [\"10.0.0.0/16\"]\n"
        ),
    )?;
    arena::output(BINARY, &["reconcile", "-c", &config])?;
    Ok(())
}

/// The commands of a cron script: a route past the NAT for each prefix of S3 in the region.
fn script(verb: &str) -> Res<String> {
    let text = std::fs::read(DOCUMENT).map_err(|error| format!("{DOCUMENT}: {error}"))?;
    let document: serde_json::Value = serde_json::from_slice(&text)?;
    let rows = document["prefixes"].as_array().cloned().unwrap_or_default();
    let wanted = |row: &&serde_json::Value| row["service"] == "S3" && row["region"] == REGION;
    let prefixes = rows.iter().filter(wanted);
    let line = |prefix: &str| format!("route {verb} {prefix} via {ROUTER} dev priv\n");
    let lines = prefixes.filter_map(|row| row["ip_prefix"].as_str().map(line));
    Ok(lines.collect())
}
