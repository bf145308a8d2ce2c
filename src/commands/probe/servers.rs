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
/// The most S3 endpoints that a selection of many regions is probed with.
const MOST_REGIONS: usize = 4;
const NO_TARGETS: &str = "no probe: [probe] targets is empty; name a server with --target";
const NO_ENDPOINT: &str = "the bypass path is not probed: no S3 endpoint is known, since the settings \
    select no region and no service S3, and the metadata service names no region; name a server with \
    --target";

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
                let endpoints = endpoints(config, role).await;
                found
                    .notes
                    .extend(endpoints.is_empty().then(|| NO_ENDPOINT.to_owned()));
                found.bypass = found.resolve(&endpoints).await;
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

/// The S3 endpoints of the selected regions, names with addresses of both families.
async fn endpoints(config: &Config, role: Role) -> Vec<Target> {
    if !config.select.services.iter().any(|it| it.0 == "S3") {
        return Vec::new();
    }
    let mut own = None;
    if config.select.regions.contains(&AutoOr::Auto) {
        own = own_region(config, role).await;
    }
    let regions = config.select.regions.iter();
    let regions = regions.filter_map(|region| match region {
        AutoOr::Auto => own.as_ref(),
        AutoOr::Set(region) => Some(region),
    });
    let regions = regions.filter(|region| region.0 != "GLOBAL");
    let endpoint = |region: &Region| {
        let domain = match region.0.starts_with("cn-") {
            true => "amazonaws.com.cn",
            false => "amazonaws.com",
        };
        Target {
            host: TargetHost::Name(format!("s3.dualstack.{}.{domain}", region.0)),
            port: 443,
        }
    };
    regions.take(MOST_REGIONS).map(endpoint).collect()
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
