//! A strict double of EC2 for tests: prefix lists, route tables, routes, tags, and the targets of
//! routes, by the Query API of 2016-11-15.
//!
//! [`Cloud::answer`] takes the form of a request and returns status, header fields and XML. A
//! handle is cheap to clone and safe to share. [`Settings`] and [`Fault`] make the double slow,
//! forgetful, throttled or broken; [`Cloud::calls`], [`Cloud::versions`], [`Cloud::watch`] and
//! [`Cloud::target_of`] show what a client did.
//!
//! # From AWS's reference
//!
//! - Names, types, bounds and required members of each parameter: the service model in botocore
//!   (`tests/cloud/model.py`). A breach is an error, and [`Cloud::violations`] holds it against the
//!   client.
//! - The shapes of all answers: `tests/vpc_oracle.rs` reads them with boto3, and compares each
//!   element with the model.
//! - `ModifyManagedPrefixList` changes entries or the size, never both; a size that a referring
//!   table can't take ends in `modify-failed`, with at most ten ids in the state message.
//! - A restored version is a new version. A list is not deleted while a route refers to it.
//! - A list counts with `MaxEntries` in a table's quota, a list of AWS with its weight; IPv4 and
//!   IPv6 have quotas of their own. A list has at most 1,000 entries and 1,000 versions.
//! - AWS's own lists show no version and no maximum.
//! - Host bits of a route's destination are cleared.
//! - The router: the longest prefix first; of the same length a static route, then a list, then a
//!   propagated route. Entries inside of the VPC are ignored. Of two lists with one prefix and
//!   different targets, one wins at random.
//! - Sizes and rates of the token buckets. `NextToken` goes with the same parameters. The ids of
//!   network interfaces exclude `MaxResults`.
//! - A tag to delete, by key alone or with its value.
//!
//! # From reports of users of EC2
//!
//! - `PrefixListVersionMismatch`, `PrefixListMaxEntriesExceeded`, `InvalidPrefixListModification`,
//!   `IncorrectState` for a list in progress, `InvalidPrefixListID.NotFound`, and their texts.
//! - At most 100 additions or removals a request. One prefix can't be added and removed by one
//!   request. A request without any change is an `InvalidRequest`.
//! - The deletion of a list with references is taken, and ends in `delete-failed`.
//! - The code and text for a gateway of another VPC, for a missing route, for a local route.
//! - `DescribeManagedPrefixLists` takes filters on tags, which the reference doesn't list
//!   ([`Settings::unlisted_filters`]).
//!
//! # Assumed
//!
//! - 100 counts additions and removals together.
//! - `CurrentVersion` is required with entries, and compared if it comes with a size.
//! - The answer of a change shows the version before it, and `…-in-progress`.
//! - A known prefix with another description is refused ([`Settings::redescribe`]).
//! - Host bits of entries are cleared.
//! - A size below the number of entries is a `PrefixListMaxEntriesExceeded`.
//! - A list in creation can't be the destination of a route.
//! - Codes for lists of AWS, of other accounts and of IPAM resolvers; for the quota of lists; for
//!   token misuse; for targets of rare kinds.
//! - The local route has no place in the quota.
//! - A client's clock may be off by five minutes, as for AWS's other services.
//! - A dry run checks the contract, the permission and the named objects, nothing else.
//! - EC2 lets an interface take the place of a local route; the double refuses that.

mod actions;
mod answer;
mod clock;
mod cloud;
mod entries;
mod http;
mod knobs;
mod list_reads;
mod list_writes;
mod log;
mod model;
mod request;
mod router;
mod routes;
pub mod sample;
mod select;
mod signature;
mod state;
mod tables;
mod tags;
mod targets;
mod world;

pub use answer::{ApiError, Delivery, HttpAnswer};
pub use cloud::Cloud;
pub use http::{Serve, Server, serve};
pub use knobs::{Buckets, Fault, Identity, Settings, Wrong};
pub use log::{Call, Strayed, Version};
pub use request::Request;
pub use router::Way;
pub use signature::{Keys, Signature};
pub use state::{Entry, Family, Kind, Target};
pub use world::{NewList, Owner};
