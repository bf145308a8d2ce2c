//! The ground of a judgement on a host: the kernel's addresses, gateways and routes.

use std::net::IpAddr;

use super::documents::{Ground, configured_gateways};
use super::instance;
use super::view::View;
use crate::config::Config;
use crate::guard::Environment;
use crate::types::{Family, METADATA};

impl Ground {
    /// The ground of a host.
    pub(super) fn of(config: &Config, view: &View) -> Ground {
        let instance = view.instance.as_ref();
        let error = view.instance_error.as_ref().map(ToString::to_string);
        Ground {
            selector: instance::selector(config, instance),
            region: instance::regions(config, instance).map(|_| ()).ok_or(error),
            environment: environment(config, view),
            present: view.kernel_prefixes(),
        }
    }
}

/// Addresses that no document may put on the bypass path.
fn environment(config: &Config, view: &View) -> Environment {
    let facts = &view.facts;
    let mut gateways: Vec<IpAddr> = Family::ALL
        .into_iter()
        .flat_map(|family| facts.defaults(family))
        .filter_map(|route| route.gateway)
        .collect();
    gateways.extend(configured_gateways(config));
    gateways.sort();
    gateways.dedup();
    Environment {
        vpc_cidrs: view.vpc_cidrs.clone(),
        own_addresses: facts.own_addresses(),
        gateways,
        name_servers: facts.name_servers.clone(),
        sources: config.source.addresses(),
        metadata: METADATA.to_vec(),
    }
}
