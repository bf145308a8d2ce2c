//! The part of a status that only the vpc role has.

use serde::{Deserialize, Serialize};

use crate::vpc::summary::{ListSummary, TableSummary};

/// The VPC as of the last reading, and the requests to EC2.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct VpcStatus {
    /// `None` while the region is unknown.
    pub region: Option<String>,
    /// Our prefix lists.
    pub lists: Vec<ListSummary>,
    /// The route tables of the settings.
    pub tables: Vec<TableSummary>,
    /// Changes that wait for an operator or for another writer, as of the last pass.
    pub holds: Vec<String>,
    /// Requests to EC2 since the start of the agent.
    pub requests: RequestsStatus,
    /// The first pass since the last success that failed or left out a part, in seconds since the epoch.
    #[serde(default)]
    pub failing_since: Option<i64>,
    /// The number of such passes.
    #[serde(default)]
    pub failures: u32,
    /// Seconds until the next pass; 0 during a pass.
    pub next_pass_in_s: u64,
}

/// Numbers of requests, repeated ones included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RequestsStatus {
    pub reads: u64,
    /// Requests that change something.
    pub changes: u64,
    /// Requests after which EC2 asked for fewer requests.
    pub throttled: u64,
}
