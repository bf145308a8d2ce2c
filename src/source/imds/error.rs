//! The failures of the metadata service, with advice.

use std::time::Duration;

use reqwest::StatusCode;

/// No usable answer.
#[derive(Debug, thiserror::Error)]
pub enum ImdsError {
    #[error("{variable}={value:?} {why}")]
    Setting {
        variable: &'static str,
        value: String,
        /// The fault and the right form.
        why: &'static str,
    },
    #[error("the instance metadata service has not been asked yet")]
    NotAskedYet,
    #[error(
        "the instance metadata service is not asked, since this machine has no mark of an EC2 instance (/sys/class/dmi/id, /sys/hypervisor/uuid); [vpc] metadata = \"on\" asks all the same"
    )]
    NotEc2,
    #[error("the instance metadata service is not asked ({0})")]
    Off(&'static str),
    #[error(
        "the running agent asks the instance metadata service and has no answer so far: see `trailblazer status`"
    )]
    LeftToAgent,
    #[error(
        "the instance metadata service does not answer ({0}): outside of EC2 set regions, gateways and CIDRs in the config; on EC2 check that the service is enabled and, in a container, its hop limit"
    )]
    NoAnswer(String),
    #[error(
        "the instance metadata service took longer than {budget:?} in all (at {path}): the service is slow or throttles this instance; try again"
    )]
    Slow { path: String, budget: Duration },
    #[error(
        "the instance metadata service at {endpoint} gives no token (PUT /latest/api/token: {status}): only version 2 is used; enable the service and IMDSv2 for this instance"
    )]
    NoToken {
        endpoint: String,
        status: StatusCode,
    },
    #[error(
        "the instance metadata service answers {status} to {path}: check the instance's metadata options, or set the value in the config"
    )]
    Status { path: String, status: StatusCode },
    #[error("the request for {path} to the instance metadata service failed: {problem}; try again")]
    Transport { path: String, problem: String },
    #[error(
        "the instance metadata service answers {path} with {start:?}, which is not {expected}: something else answers at its address; check AWS_EC2_METADATA_SERVICE_ENDPOINT and proxies"
    )]
    Garbage {
        path: String,
        start: String,
        expected: &'static str,
    },
}
