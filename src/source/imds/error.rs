//! What can go wrong with the metadata service, and what to do about it.

use std::time::Duration;

use reqwest::StatusCode;

/// No usable answer.
#[derive(Debug, thiserror::Error)]
pub enum ImdsError {
    /// One of AWS's environment variables holds what it can't.
    #[error("{variable}={value:?} {why}")]
    Setting {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is wrong and what would be right.
        why: &'static str,
    },
    /// The agent's first pass asks nobody.
    #[error("the instance metadata service has not been asked yet")]
    NotAskedYet,
    /// Nobody there.
    #[error(
        "the instance metadata service does not answer ({0}): outside of EC2 set regions, gateways and CIDRs in the config; on EC2 check that it is enabled and, in a container, its hop limit"
    )]
    NoAnswer(String),
    /// Not all answers came in time.
    #[error(
        "the instance metadata service took longer than {budget:?} in all (at {path}): it is slow or throttles this instance; try again"
    )]
    Slow {
        /// What was being asked.
        path: String,
        /// The bound.
        budget: Duration,
    },
    /// No token.
    #[error(
        "the instance metadata service at {endpoint} gives no token (PUT /latest/api/token: {status}): only version 2 is used; enable the service and IMDSv2 for this instance"
    )]
    NoToken {
        /// Which endpoint.
        endpoint: String,
        /// Its answer.
        status: StatusCode,
    },
    /// A path that must be there is not.
    #[error(
        "the instance metadata service answers {status} to {path}: check the instance's metadata options, or set the value in the config"
    )]
    Status {
        /// The path.
        path: String,
        /// The answer.
        status: StatusCode,
    },
    /// The connection failed midway.
    #[error("asking the instance metadata service for {path} failed: {problem}; try again")]
    Transport {
        /// The path.
        path: String,
        /// What happened.
        problem: String,
    },
    /// Something else than the path promises.
    #[error(
        "the instance metadata service answers {path} with {start:?}, which is not {expected}: something else answers at its address; check AWS_EC2_METADATA_SERVICE_ENDPOINT and proxies"
    )]
    Garbage {
        /// The path.
        path: String,
        /// The beginning of the answer.
        start: String,
        /// What it should be.
        expected: &'static str,
    },
}
