//! The four ways of steering S3, and the figures of each.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::verdict::{Step, capacity};

/// A way of steering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Everything through the NAT's uplink.
    Nobody,
    /// `trailblazer reconcile` in the host role on each server.
    HostRole,
    /// Everything to the NAT; its nat role sends S3 out by the bulk interface.
    NatRole,
    /// Routes by `ip route` on each server, as a cron script makes them.
    Script,
}

impl Way {
    /// All, in the order of the page.
    pub const ALL: [Way; 4] = [Way::Nobody, Way::HostRole, Way::NatRole, Way::Script];

    /// The name in tables and in the chart.
    pub fn name(self) -> &'static str {
        match self {
            Way::Nobody => "nobody steers",
            Way::HostRole => "host role",
            Way::NatRole => "nat role, bulk interface",
            Way::Script => "script with ip route",
        }
    }

    /// True for the ways with promises.
    pub fn is_ours(self) -> bool {
        matches!(self, Way::HostRole | Way::NatRole)
    }
}

/// The figures of a way.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Series {
    pub way: Way,
    pub steps: Vec<Step>,
    pub capacity: usize,
    /// Addresses from which the customer's site saw connections.
    pub sources_at_site: BTreeSet<Ipv4Addr>,
    /// Addresses from which S3 saw connections.
    pub sources_at_s3: BTreeSet<Ipv4Addr>,
    /// True if the site saw the egress address alone, and S3 the addresses of the way alone.
    pub sources_hold: bool,
}

impl Series {
    /// The figures, with their capacity.
    pub fn new(
        way: Way,
        steps: Vec<Step>,
        [sources_at_site, sources_at_s3]: [BTreeSet<Ipv4Addr>; 2],
        sources_hold: bool,
    ) -> Series {
        Series {
            way,
            capacity: capacity(&steps),
            steps,
            sources_at_site,
            sources_at_s3,
            sources_hold,
        }
    }

    /// The figures of a number of servers.
    pub fn at(&self, servers: usize) -> Option<&Step> {
        self.steps.iter().find(|step| step.servers == servers)
    }
}
