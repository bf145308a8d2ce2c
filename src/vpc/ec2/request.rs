//! Requests of EC2's Query API as form parameters: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference>.

use std::fmt::Display;

use ipnet::IpNet;
use url::form_urlencoded::Serializer;

use super::filter::{ListFilter, TableFilter};
use crate::types::Family;
use crate::vpc::calls::Call;
use crate::vpc::objects::{
    Entry, ListId, ListVersion, RouteDestination, RouteTableId, RouteTarget, Tags, TargetKind,
};

/// The version of the API.
const VERSION: &str = "2016-11-15";

/// The largest page of the calls that describe lists, entries and tables.
const PAGE: u32 = 100;

/// The largest page of `GetManagedPrefixListAssociations`.
const PAGE_OF_ASSOCIATIONS: u32 = 255;

/// The effect of a request whose answer is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// No change.
    Read,
    /// No change; the answer of success is an error code, and EC2's bucket for changes pays.
    DryRun,
    /// A change that a repeated request makes only once: the request has a client token.
    Repeatable,
    /// A change.
    Change,
}

impl Effect {
    /// True for a request that takes from EC2's token bucket for changes.
    pub(super) fn is_mutating_call(self) -> bool {
        self != Effect::Read
    }
}

/// A request: an action and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub action: &'static str,
    pub effect: Effect,
    parameters: Vec<(String, String)>,
}

impl Request {
    pub(super) fn new(action: &'static str, effect: Effect) -> Request {
        let mut request = Request {
            action,
            effect,
            parameters: Vec::new(),
        };
        request.set("Action", action);
        request.set("Version", VERSION);
        request
    }

    fn set(&mut self, name: impl Into<String>, value: impl Display) {
        self.parameters.push((name.into(), value.to_string()));
    }

    pub(super) fn set_all<T: Display>(&mut self, name: &str, values: impl IntoIterator<Item = T>) {
        for (index, value) in (1..).zip(values) {
            self.set(format!("{name}.{index}"), value);
        }
    }

    fn tags(&mut self, prefix: &str, tags: &Tags) {
        for (index, (key, value)) in (1..).zip(tags) {
            self.set(format!("{prefix}Tag.{index}.Key"), key);
            self.set(format!("{prefix}Tag.{index}.Value"), value);
        }
    }

    pub(super) fn filters(&mut self, filters: impl IntoIterator<Item = (String, Vec<String>)>) {
        for (index, (name, values)) in (1..).zip(filters) {
            self.set(format!("Filter.{index}.Name"), name);
            self.set_all(&format!("Filter.{index}.Value"), values);
        }
    }

    fn entries(&mut self, name: &str, entries: &[Entry]) {
        for (index, entry) in (1..).zip(entries) {
            self.set(format!("{name}.{index}.Cidr"), entry.cidr);
            if let Some(description) = &entry.description {
                self.set(format!("{name}.{index}.Description"), description);
            }
        }
    }

    fn destination(&mut self, destination: &RouteDestination) {
        match destination {
            RouteDestination::Prefix(IpNet::V4(prefix)) => self.set("DestinationCidrBlock", prefix),
            RouteDestination::Prefix(IpNet::V6(prefix)) => {
                self.set("DestinationIpv6CidrBlock", prefix);
            }
            RouteDestination::List(list) => self.set("DestinationPrefixListId", list),
        }
    }

    fn target(&mut self, target: &RouteTarget) {
        match target.kind {
            // `ReplaceRoute` alone has this parameter.
            TargetKind::Local => self.set("LocalTarget", true),
            kind => self.set(kind.as_str(), &target.id),
        }
    }

    /// The size of a page, unless ids are given: EC2 answers `InvalidParameterCombination` to ids
    /// with `MaxResults`.
    fn page_size(&mut self, is_open: bool) {
        if is_open {
            self.set("MaxResults", PAGE);
        }
    }

    /// The next page.
    pub(super) fn page(&self, token: &str) -> Request {
        let mut request = self.clone();
        request.set("NextToken", token);
        request
    }

    /// The parameters, form-encoded.
    pub(super) fn body(&self) -> String {
        let mut form = Serializer::new(String::new());
        form.extend_pairs(&self.parameters);
        form.finish()
    }

    /// The value of a parameter.
    #[cfg(test)]
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// All parameters after action and version, as `NAME=VALUE`.
    #[cfg(test)]
    fn shown(&self) -> Vec<String> {
        let all = self.parameters[2..].iter();
        all.map(|(name, value)| format!("{name}={value}")).collect()
    }
}

/// `DescribeManagedPrefixLists`
pub(super) fn describe_lists(filter: &ListFilter) -> Request {
    let mut request = Request::new("DescribeManagedPrefixLists", Effect::Read);
    request.set_all("PrefixListId", &filter.ids);
    let names =
        (!filter.names.is_empty()).then(|| ("prefix-list-name".to_owned(), filter.names.clone()));
    request.filters(names.into_iter().chain(tag_filters(&filter.tags)));
    request.page_size(filter.ids.is_empty());
    request
}

/// `GetManagedPrefixListEntries`, of one version, so that all pages belong together.
pub(super) fn list_entries(list: &ListId, version: Option<ListVersion>) -> Request {
    let mut request = Request::new("GetManagedPrefixListEntries", Effect::Read);
    request.set("PrefixListId", list);
    if let Some(version) = version {
        request.set("TargetVersion", version);
    }
    request.set("MaxResults", PAGE);
    request
}

/// `GetManagedPrefixListAssociations`
pub(super) fn list_associations(list: &ListId) -> Request {
    let mut request = Request::new("GetManagedPrefixListAssociations", Effect::Read);
    request.set("PrefixListId", list);
    request.set("MaxResults", PAGE_OF_ASSOCIATIONS);
    request
}

/// `DescribeRouteTables`. The ids are parameters and no filter: EC2 then refuses an unknown id, and a
/// filter would leave it out of the answer.
pub(super) fn describe_route_tables(filter: &TableFilter) -> Request {
    let mut request = Request::new("DescribeRouteTables", Effect::Read);
    request.set_all("RouteTableId", &filter.ids);
    request.filters(tag_filters(&filter.tags));
    request.page_size(filter.ids.is_empty());
    request
}

fn tag_filters(tags: &Tags) -> impl Iterator<Item = (String, Vec<String>)> {
    tags.iter()
        .map(|(key, value)| (format!("tag:{key}"), vec![value.clone()]))
}

/// The request of a call that changes something.
pub(super) fn change(call: &Call) -> Request {
    let effect = match call {
        Call::CreateList { .. } => Effect::Repeatable,
        _ => Effect::Change,
    };
    let mut request = Request::new(call.action(), effect);
    match call {
        Call::CreateList { .. } => create_list(&mut request, call),
        Call::ModifyEntries {
            list,
            name,
            current,
            add,
            remove,
        } => {
            request.set("PrefixListId", list);
            request.set("PrefixListName", name);
            request.set("CurrentVersion", current);
            request.entries("AddEntry", add);
            for (index, cidr) in (1..).zip(remove) {
                request.set(format!("RemoveEntry.{index}.Cidr"), cidr);
            }
        }
        Call::ResizeList {
            list,
            name,
            max_entries,
        } => {
            request.set("PrefixListId", list);
            request.set("PrefixListName", name);
            request.set("MaxEntries", max_entries);
        }
        Call::RestoreList {
            list,
            previous,
            current,
        } => {
            request.set("PrefixListId", list);
            request.set("PreviousVersion", previous);
            request.set("CurrentVersion", current);
        }
        Call::DeleteList { list } => request.set("PrefixListId", list),
        Call::CreateRoute {
            table,
            destination,
            target,
        }
        | Call::ReplaceRoute {
            table,
            destination,
            target,
        } => {
            route(&mut request, table, destination);
            request.target(target);
        }
        Call::DeleteRoute { table, destination } => route(&mut request, table, destination),
        Call::Tag { resource, tags } => {
            request.set("ResourceId.1", resource);
            request.tags("", tags);
        }
        Call::Untag { resource, keys } => {
            request.set("ResourceId.1", resource);
            for (index, key) in (1..).zip(keys) {
                // A key without a value deletes the tag with any value.
                request.set(format!("Tag.{index}.Key"), key);
            }
        }
    }
    request
}

fn create_list(request: &mut Request, call: &Call) {
    let Call::CreateList {
        name,
        family,
        max_entries,
        entries,
        tags,
        client_token,
    } = call
    else {
        return;
    };
    request.set("PrefixListName", name);
    let family = match family {
        Family::Ipv4 => "IPv4",
        Family::Ipv6 => "IPv6",
    };
    request.set("AddressFamily", family);
    request.set("MaxEntries", max_entries);
    request.entries("Entry", entries);
    if !tags.is_empty() {
        request.set("TagSpecification.1.ResourceType", "prefix-list");
        request.tags("TagSpecification.1.", tags);
    }
    request.set("ClientToken", client_token);
}

fn route(request: &mut Request, table: &RouteTableId, destination: &RouteDestination) {
    request.set("RouteTableId", table);
    request.destination(destination);
}

/// The same request as a question for the permission: EC2 checks the permission and changes nothing.
pub(super) fn dry_run(call: &Call) -> Request {
    let mut request = change(call);
    request.effect = Effect::DryRun;
    request.set("DryRun", true);
    request
}

#[cfg(test)]
mod tests;
