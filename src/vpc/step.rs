//! The steps of a plan, and the calls that carry them out.

use ipnet::IpNet;
use serde_json::{Value, json};

use super::calls::Call;
use super::objects::{
    Entry, ListId, PrefixList, RouteDestination, RouteTableId, RouteTarget, Tags,
};
use super::tags;
use crate::types::{Family, PerFamily, SyncToken};

/// One step: one changing call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Creates our list, with the first entries.
    CreateList {
        family: Family,
        name: String,
        max_entries: u32,
        entries: Vec<Entry>,
        tags: Tags,
    },
    /// Raises `MaxEntries`; a call of its own.
    ResizeList {
        family: Family,
        from: u32,
        to: u32,
    },
    /// Marks the list with the document, before its entries change.
    RaiseToken {
        family: Family,
        from: Option<SyncToken>,
        to: SyncToken,
    },
    /// Removes the marks of older documents.
    DropTokens {
        family: Family,
        keys: Vec<String>,
    },
    ModifyEntries {
        family: Family,
        add: Vec<Entry>,
        remove: Vec<IpNet>,
    },
    /// Leads the prefix, or our list, to the target.
    CreateRoute {
        family: Family,
        table: RouteTableId,
        /// `None` for our list.
        prefix: Option<IpNet>,
        target: RouteTarget,
    },
    /// Leads the prefix, or our list, to another target; the route is never absent.
    ReplaceRoute {
        family: Family,
        table: RouteTableId,
        prefix: Option<IpNet>,
        from: String,
        target: RouteTarget,
    },
    DeleteRoute {
        family: Family,
        table: RouteTableId,
        prefix: Option<IpNet>,
    },
    /// Marks a table of `mode = "routes"`.
    TagTable {
        table: RouteTableId,
        tags: Tags,
    },
    /// Removes the marks of older documents from a table of `mode = "routes"`.
    UntagTable {
        table: RouteTableId,
        keys: Vec<String>,
    },
    DeleteList {
        family: Family,
    },
    /// Deletes the route to a spare list: another writer created a list of ours at the same time.
    DeleteSpareRoute {
        family: Family,
        table: RouteTableId,
        list: ListId,
    },
    DeleteSpare {
        family: Family,
        list: ListId,
    },
}

/// Our lists, as last described.
pub type KnownLists = PerFamily<Option<PrefixList>>;

impl Step {
    /// The family.
    pub fn family(&self) -> Family {
        match self {
            Step::CreateList { family, .. }
            | Step::ResizeList { family, .. }
            | Step::RaiseToken { family, .. }
            | Step::DropTokens { family, .. }
            | Step::ModifyEntries { family, .. }
            | Step::CreateRoute { family, .. }
            | Step::ReplaceRoute { family, .. }
            | Step::DeleteRoute { family, .. }
            | Step::DeleteList { family }
            | Step::DeleteSpareRoute { family, .. }
            | Step::DeleteSpare { family, .. } => *family,
            // A table has routes of both families.
            Step::TagTable { .. } | Step::UntagTable { .. } => Family::Ipv4,
        }
    }

    /// The table of a step that concerns one table.
    pub fn table(&self) -> Option<&RouteTableId> {
        match self {
            Step::CreateRoute { table, .. }
            | Step::ReplaceRoute { table, .. }
            | Step::DeleteRoute { table, .. }
            | Step::TagTable { table, .. }
            | Step::UntagTable { table, .. }
            | Step::DeleteSpareRoute { table, .. } => Some(table),
            _ => None,
        }
    }

    /// True for a step of a list, which later steps of the family build on; false for a step of one table.
    pub fn concerns_list(&self) -> bool {
        self.table().is_none()
    }

    /// True for a step that changes our list, or marks the list with a document.
    pub fn changes_list(&self) -> bool {
        matches!(
            self,
            Step::ResizeList { .. } | Step::RaiseToken { .. } | Step::ModifyEntries { .. }
        )
    }

    /// True for a step that changes the marks of our list alone.
    pub fn is_mark(&self) -> bool {
        matches!(self, Step::RaiseToken { .. } | Step::DropTokens { .. })
    }

    /// True for a step that takes a spare list away.
    pub fn concerns_spare(&self) -> bool {
        matches!(
            self,
            Step::DeleteSpareRoute { .. } | Step::DeleteSpare { .. }
        )
    }

    /// The call of the step. `None` if the step needs a list, and no list is known.
    pub fn call(&self, lists: &KnownLists, client_token: &str) -> Option<Call> {
        let list = lists.get(self.family()).as_ref();
        let to = |prefix: &Option<IpNet>| match (prefix, list) {
            (Some(prefix), _) => Some(RouteDestination::Prefix(*prefix)),
            (None, list) => Some(RouteDestination::List(list?.id.clone())),
        };
        Some(match self {
            Step::CreateList {
                family,
                name,
                max_entries,
                entries,
                tags,
            } => Call::CreateList {
                name: name.clone(),
                family: *family,
                max_entries: *max_entries,
                entries: entries.clone(),
                tags: tags.clone(),
                client_token: client_token.to_owned(),
            },
            Step::ResizeList { to, .. } => Call::ResizeList {
                list: list?.id.clone(),
                name: list?.name.clone(),
                max_entries: *to,
            },
            Step::RaiseToken { to, .. } => tag(&list?.id.0, tags::of_token(*to)),
            Step::DropTokens { keys, .. } => untag(&list?.id.0, keys),
            Step::ModifyEntries { add, remove, .. } => Call::ModifyEntries {
                list: list?.id.clone(),
                name: list?.name.clone(),
                current: list?.version?,
                add: add.clone(),
                remove: remove.clone(),
            },
            Step::CreateRoute {
                table,
                prefix,
                target,
                ..
            } => Call::CreateRoute {
                table: table.clone(),
                destination: to(prefix)?,
                target: target.clone(),
            },
            Step::ReplaceRoute {
                table,
                prefix,
                target,
                ..
            } => Call::ReplaceRoute {
                table: table.clone(),
                destination: to(prefix)?,
                target: target.clone(),
            },
            Step::DeleteRoute { table, prefix, .. } => Call::DeleteRoute {
                table: table.clone(),
                destination: to(prefix)?,
            },
            Step::TagTable { table, tags } => tag(&table.0, tags.clone()),
            Step::UntagTable { table, keys } => untag(&table.0, keys),
            Step::DeleteList { .. } => Call::DeleteList {
                list: list?.id.clone(),
            },
            Step::DeleteSpareRoute { table, list, .. } => Call::DeleteRoute {
                table: table.clone(),
                destination: RouteDestination::List(list.clone()),
            },
            Step::DeleteSpare { list, .. } => Call::DeleteList { list: list.clone() },
        })
    }

    /// The step as JSON: `action`, `object`, `family`, and the fields of the object.
    pub fn to_json(&self) -> Value {
        let of = |action: &str, object: &str, more: Value| {
            let mut fields = json!({
                "action": action,
                "object": object,
                "family": self.family(),
            });
            if let (Some(fields), Value::Object(more)) = (fields.as_object_mut(), more) {
                fields.extend(more);
            }
            fields
        };
        let cidrs = |entries: &[Entry]| -> Vec<String> {
            entries.iter().map(|entry| entry.cidr.to_string()).collect()
        };
        match self {
            Step::CreateList {
                name,
                max_entries,
                entries,
                ..
            } => of(
                "add",
                "prefix_list",
                json!({"name": name, "max_entries": max_entries, "entries": cidrs(entries)}),
            ),
            Step::ResizeList { from, to, .. } => of(
                "replace",
                "prefix_list",
                json!({"max_entries_before": from, "max_entries": to}),
            ),
            Step::RaiseToken { from, to, .. } => of(
                "replace",
                "token",
                json!({"token_before": from, "token": to}),
            ),
            Step::DropTokens { keys, .. } => of("delete", "token", json!({"keys": keys})),
            Step::ModifyEntries { add, remove, .. } => of(
                "replace",
                "entries",
                json!({"add": cidrs(add), "remove": remove}),
            ),
            Step::CreateRoute {
                table,
                prefix,
                target,
                ..
            } => of(
                "add",
                "route",
                json!({"table": table, "dst": prefix, "target": target.id}),
            ),
            Step::ReplaceRoute {
                table,
                prefix,
                from,
                target,
                ..
            } => of(
                "replace",
                "route",
                json!({"table": table, "dst": prefix, "target_before": from, "target": target.id}),
            ),
            Step::DeleteRoute { table, prefix, .. } => {
                of("delete", "route", json!({"table": table, "dst": prefix}))
            }
            Step::TagTable { table, tags } => {
                of("replace", "tags", json!({"table": table, "tags": tags}))
            }
            Step::UntagTable { table, keys } => {
                of("delete", "tags", json!({"table": table, "keys": keys}))
            }
            Step::DeleteList { .. } => of("delete", "prefix_list", json!({})),
            Step::DeleteSpareRoute { table, list, .. } => {
                of("delete", "route", json!({"table": table, "list": list}))
            }
            Step::DeleteSpare { list, .. } => of("delete", "prefix_list", json!({"list": list})),
        }
    }
}

fn tag(resource: &str, tags: Tags) -> Call {
    Call::Tag {
        resource: resource.to_owned(),
        tags,
    }
}

fn untag(resource: &str, keys: &[String]) -> Call {
    Call::Untag {
        resource: resource.to_owned(),
        keys: keys.to_vec(),
    }
}
