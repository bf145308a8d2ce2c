//! The calls of EC2 that change something, as values: the steps of a plan.

use ipnet::IpNet;

use super::objects::{
    Entry, ListId, ListVersion, RouteDestination, RouteTableId, RouteTarget, Tags,
};
use crate::types::Family;

/// The most entries, added and removed together, of one call (`ModifyManagedPrefixList`,
/// `CreateManagedPrefixList`; "Amazon VPC quotas").
pub const ENTRIES_PER_CALL: usize = 100;

/// A call that changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `CreateManagedPrefixList`, with at most [`ENTRIES_PER_CALL`] entries.
    CreateList {
        name: String,
        family: Family,
        max_entries: u32,
        entries: Vec<Entry>,
        tags: Tags,
        /// A repeated call with the same token creates no second list.
        client_token: String,
    },
    /// `ModifyManagedPrefixList` with entries: compare-and-set on the version.
    ModifyEntries {
        list: ListId,
        /// The name, as described: some implementations of EC2 clear the name otherwise.
        name: String,
        current: ListVersion,
        add: Vec<Entry>,
        remove: Vec<IpNet>,
    },
    /// `ModifyManagedPrefixList` with `MaxEntries` alone.
    ResizeList {
        list: ListId,
        name: String,
        max_entries: u32,
    },
    /// `RestoreManagedPrefixListVersion`
    RestoreList {
        list: ListId,
        previous: ListVersion,
        current: ListVersion,
    },
    /// `DeleteManagedPrefixList`
    DeleteList { list: ListId },
    /// `CreateRoute`
    CreateRoute {
        table: RouteTableId,
        destination: RouteDestination,
        target: RouteTarget,
    },
    /// `ReplaceRoute`
    ReplaceRoute {
        table: RouteTableId,
        destination: RouteDestination,
        target: RouteTarget,
    },
    /// `DeleteRoute`
    DeleteRoute {
        table: RouteTableId,
        destination: RouteDestination,
    },
    /// `CreateTags`: sets keys, and leaves the other keys alone.
    Tag { resource: String, tags: Tags },
    /// `DeleteTags`
    Untag { resource: String, keys: Vec<String> },
}

impl Call {
    /// The name of EC2's action, as in the API and in IAM policies after `ec2:`.
    pub fn action(&self) -> &'static str {
        match self {
            Call::CreateList { .. } => "CreateManagedPrefixList",
            Call::ModifyEntries { .. } | Call::ResizeList { .. } => "ModifyManagedPrefixList",
            Call::RestoreList { .. } => "RestoreManagedPrefixListVersion",
            Call::DeleteList { .. } => "DeleteManagedPrefixList",
            Call::CreateRoute { .. } => "CreateRoute",
            Call::ReplaceRoute { .. } => "ReplaceRoute",
            Call::DeleteRoute { .. } => "DeleteRoute",
            Call::Tag { .. } => "CreateTags",
            Call::Untag { .. } => "DeleteTags",
        }
    }
}
