//! The selection of prefix lists and route tables.

use super::error::{Ec2Error, ErrorKind};
use crate::vpc::objects::{ListId, PrefixList, RouteTable, RouteTableId, Tags};

/// A selection of prefix lists. Set parts apply together; a list matches a part with several values if
/// it has one of the values, and the tags if it has all tags.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListFilter {
    /// EC2 answers with an error if one of the ids doesn't exist.
    pub ids: Vec<ListId>,
    pub names: Vec<String>,
    pub tags: Tags,
}

impl ListFilter {
    /// True if no part is set: every list of the region matches.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.names.is_empty() && self.tags.is_empty()
    }

    /// True if the list matches. EC2's own filters read `*` and `?` as wildcards, so that the names
    /// and tags of an answer need a second look.
    pub fn matches(&self, list: &PrefixList) -> bool {
        (self.ids.is_empty() || self.ids.contains(&list.id))
            && (self.names.is_empty() || self.names.contains(&list.name))
            && has_all(&list.tags, &self.tags)
    }
}

/// A selection of route tables, as [`ListFilter`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableFilter {
    /// EC2 answers with an error if one of the ids doesn't exist.
    pub ids: Vec<RouteTableId>,
    pub tags: Tags,
}

impl TableFilter {
    /// True if no part is set: every table of the region matches.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.tags.is_empty()
    }

    /// True if the table matches, as [`ListFilter::matches`].
    pub fn matches(&self, table: &RouteTable) -> bool {
        (self.ids.is_empty() || self.ids.contains(&table.id)) && has_all(&table.tags, &self.tags)
    }
}

fn has_all(tags: &Tags, wanted: &Tags) -> bool {
    wanted
        .iter()
        .all(|(key, value)| tags.get(key) == Some(value))
}

/// Refuses a selection of everything: EC2 grants such calls half the budget, and an answer with
/// objects of others has no use here.
pub(super) fn refuse_open(action: &'static str, is_open: bool) -> Result<(), Ec2Error> {
    if !is_open {
        return Ok(());
    }
    let message = "not sent: no id, name or tag selects the objects";
    let kind = ErrorKind::Other;
    Err(Ec2Error::without_answer(action, kind, message))
}
