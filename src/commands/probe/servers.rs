//! The servers that answer probes, resolved.

use std::net::SocketAddr;
use std::time::Duration;

use super::Way;
use crate::config::{AutoOr, Config, Role, Target, TargetHost};
use crate::kernel::Kernel;
use crate::reconcile::{Asking, Firewalls, examine, remarked};
use crate::types::{Family, Region};

/// Longest wait for the resolver; its own timeout is 5 s for each server and try.
const WITHIN: Duration = Duration::from_secs(10);
const NO_TARGETS: &str = "no probe: [probe] targets is empty; name a server with --target";
const NO_ENDPOINT: &str = "the bypass path is not probed: [probe] bypass_targets names no server, and no \
    S3 endpoint is known by [select] or by the metadata service; name a server with --target";

/// A server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Server {
    /// As in the settings: `1.1.1.1:443`.
    pub target: Target,
    pub address: SocketAddr,
}

/// The servers of both paths.
#[derive(Debug, Default)]
pub(super) struct Servers {
    egress: Vec<Server>,
    bypass: Vec<Server>,
    /// Servers without an address.
    pub notes: Vec<String>,
}

impl Servers {
    /// The servers for the paths that are probed, egress and bypass: those of the command line, else
    /// those of the settings.
    ///
    /// # Errors
    /// The reason if there is no server at all.
    pub async fn find(
        config: &Config,
        role: Role,
        named: &[Target],
        [egress, bypass]: [bool; 2],
    ) -> Result<Servers, String> {
        let mut found = Servers::default();
        if !named.is_empty() {
            found.egress = found.resolve(named).await;
            found.bypass.clone_from(&found.egress);
        } else {
            if egress {
                found.egress = found.resolve(&config.probe.targets).await;
            }
            if bypass {
                let targets = bypass_targets(config, role).await;
                found
                    .notes
                    .extend(targets.is_empty().then(|| NO_ENDPOINT.to_owned()));
                found.bypass = found.resolve(&targets).await;
            }
        }
        if found.egress.is_empty() && found.bypass.is_empty() {
            let unknown = found.notes.join("; ");
            return Err(match unknown.as_str() {
                "" => NO_TARGETS.to_owned(),
                unknown => format!("no probe: {unknown}"),
            });
        }
        Ok(found)
    }

    /// The servers for a way.
    pub fn of(&self, way: Way) -> impl Iterator<Item = &Server> {
        let servers = match way {
            Way::Bypass(_) => &self.bypass,
            Way::Gateway(_) | Way::Egress(_) => &self.egress,
        };
        let family = way.family();
        let servers = servers.iter();
        servers.filter(move |server| Family::of(server.address.ip()) == family)
    }

    /// The first address of each family.
    async fn resolve(&mut self, targets: &[Target]) -> Vec<Server> {
        let mut found: Vec<Server> = Vec::new();
        for target in targets {
            let addresses = match &target.host {
                TargetHost::Address(address) => vec![SocketAddr::new(*address, target.port)],
                TargetHost::Name(name) => match look_up(name, target.port).await {
                    Ok(addresses) => addresses,
                    Err(why) => {
                        self.notes.push(why);
                        continue;
                    }
                },
            };
            for address in addresses {
                let known =
                    |it: &Server| it.target == *target && it.address.is_ipv4() == address.is_ipv4();
                if !found.iter().any(known) {
                    let target = target.clone();
                    found.push(Server { target, address });
                }
            }
        }
        found
    }
}

async fn look_up(name: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let asked = tokio::time::timeout(WITHIN, tokio::net::lookup_host((name, port)));
    let what = format_args!("the name resolution of {name}");
    match remarked(what, WITHIN, asked).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(error)) => Err(format!("cannot resolve {name}: {error}")),
        Err(_) => {
            let seconds = WITHIN.as_secs();
            Err(format!(
                "cannot resolve {name}: no answer within {seconds} s"
            ))
        }
    }
}

/// The servers of the bypass path.
async fn bypass_targets(config: &Config, role: Role) -> Vec<Target> {
    let mut own = None;
    if config.select.regions.contains(&AutoOr::Auto) {
        own = own_region(config, role).await;
    }
    config.bypass_targets(own.as_ref())
}

/// The region of this instance, as a pass knows it.
async fn own_region(config: &Config, role: Role) -> Option<Region> {
    let mut kernel = Kernel::open().ok()?;
    let examined = examine(
        config,
        role,
        Asking::Nobody,
        Firewalls::Ignored,
        &mut kernel,
    );
    examined.await.ok()?.view.instance?.region
}
