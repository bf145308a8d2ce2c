//! Objects that a test puts into the double, and changes by other people.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::cloud::{Cloud, Inner};
use crate::log::{Call, Strayed, Version, Watch};
use crate::router::Way;
use crate::state::{Destination, Entry, Family, List, Origin, Route, Table, Target, Vpc};

/// The owner of a list that a test puts into the double.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// The caller's account.
    Caller,
    /// AWS: such a list has no version and no maximum in answers, and a weight in quotas.
    Aws,
    /// Another account that shares the list.
    Other(String),
    /// The caller's account, with an IPAM prefix list resolver as the writer of the entries.
    Resolver,
}

/// A list that a test puts into the double.
#[derive(Debug, Clone)]
pub struct NewList<'a> {
    /// The id, `pl-…`.
    pub id: &'a str,
    /// The name.
    pub name: &'a str,
    /// The family of the entries.
    pub family: Family,
    /// The owner.
    pub owner: Owner,
    /// The maximum of entries; the weight in quotas for a list of AWS.
    pub max_entries: u32,
    /// The entries.
    pub prefixes: Vec<IpNet>,
}

impl Cloud {
    /// Changes objects outside of any call.
    fn edit<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.lock();
        let result = change(&mut inner);
        inner.changed = true;
        inner.settle();
        result
    }

    /// Adds a VPC with its prefixes.
    pub fn add_vpc(&self, id: &str, cidrs: &[&str]) {
        let cidrs = cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect();
        self.edit(|inner| inner.state.vpcs.insert(id.to_owned(), Vpc { cidrs }));
    }

    /// Adds a route table with the local routes of its VPC.
    pub fn add_table(&self, id: &str, vpc: &str) {
        self.edit(|inner| {
            let cidrs = inner.state.vpcs.get(vpc).map(|vpc| vpc.cidrs.clone());
            let local = |cidr| Route {
                destination: Destination::Prefix(cidr),
                target: "local".to_owned(),
                origin: Origin::Table,
            };
            let table = Table {
                vpc: vpc.to_owned(),
                main: false,
                subnets: Vec::new(),
                routes: cidrs.unwrap_or_default().into_iter().map(local).collect(),
            };
            inner.state.tables.insert(id.to_owned(), table);
        });
    }

    /// Associates a table with subnets, or makes it the main table of its VPC.
    pub fn associate(&self, table: &str, subnets: &[&str], main: bool) {
        self.edit(|inner| {
            if let Some(table) = inner.state.tables.get_mut(table) {
                table.subnets = subnets.iter().map(|id| (*id).to_owned()).collect();
                table.main = main;
            }
        });
    }

    /// Adds a target of routes, or replaces it: with other VPCs or in another state.
    pub fn set_target(&self, id: &str, target: Target) {
        self.edit(|inner| inner.state.targets.insert(id.to_owned(), target));
    }

    /// Detaches a target from all VPCs.
    pub fn detach(&self, id: &str) {
        self.edit(|inner| {
            if let Some(target) = inner.state.targets.get_mut(id) {
                target.vpcs.clear();
            }
        });
    }

    /// Removes a target. Routes to it stay, as blackholes.
    pub fn remove_target(&self, id: &str) {
        self.edit(|inner| inner.state.targets.remove(id));
    }

    /// Adds a list, settled, with version 1.
    pub fn add_list(&self, new: &NewList<'_>) {
        self.edit(|inner| {
            let entry = |cidr: &IpNet| Entry {
                cidr: cidr.trunc(),
                description: None,
            };
            let entries: BTreeSet<Entry> = new.prefixes.iter().map(entry).collect();
            let resolver = new.owner == Owner::Resolver;
            let list = List {
                name: new.name.to_owned(),
                family: new.family,
                owner: match &new.owner {
                    Owner::Aws => "AWS".to_owned(),
                    Owner::Other(account) => account.clone(),
                    Owner::Caller | Owner::Resolver => inner.settings.account.clone(),
                },
                max_entries: new.max_entries,
                versions: vec![Arc::new(entries.into_iter().collect())],
                first: 1,
                state: "create-complete".to_owned(),
                message: None,
                change: None,
                resolver: resolver.then(|| format!("ipam-{}", new.id)),
            };
            inner.state.lists.insert(new.id.to_owned(), list);
        });
    }

    /// Somebody edits a list in the console: a new version at once, whatever is in progress.
    pub fn edit_list(&self, id: &str, add: &[IpNet], remove: &[IpNet]) {
        self.edit(|inner| {
            if let Some(list) = inner.state.lists.get_mut(id) {
                let mut entries: Vec<Entry> = list.entries().to_vec();
                entries.retain(|entry| !remove.contains(&entry.cidr));
                entries.extend(add.iter().map(|cidr| Entry {
                    cidr: *cidr,
                    description: None,
                }));
                list.versions.push(Arc::new(entries));
            }
        });
    }

    /// Somebody sets a route in the console, without any check. The destination is a prefix or a
    /// list.
    pub fn set_route(&self, table: &str, destination: &str, target: &str) {
        self.put_route(table, destination, target, Origin::Call);
    }

    /// A virtual private gateway propagates a route.
    pub fn propagate_route(&self, table: &str, destination: &str, target: &str) {
        self.put_route(table, destination, target, Origin::Propagated);
    }

    fn put_route(&self, table: &str, destination: &str, target: &str, origin: Origin) {
        let destination = read_destination(destination);
        self.edit(|inner| {
            if let Some(table) = inner.state.tables.get_mut(table) {
                table
                    .routes
                    .retain(|route| route.destination != destination);
                table.routes.push(Route {
                    destination,
                    target: target.to_owned(),
                    origin,
                });
            }
        });
    }

    /// Somebody deletes a route in the console.
    pub fn drop_route(&self, table: &str, destination: &str) {
        let destination = read_destination(destination);
        self.edit(|inner| {
            if let Some(table) = inner.state.tables.get_mut(table) {
                table
                    .routes
                    .retain(|route| route.destination != destination);
            }
        });
    }

    /// Somebody deletes a list, and its routes before it.
    pub fn drop_list(&self, id: &str) {
        let destination = read_destination(id);
        self.edit(|inner| {
            for table in inner.state.tables.values_mut() {
                table
                    .routes
                    .retain(|route| route.destination != destination);
            }
            inner.state.lists.remove(id);
        });
    }

    /// Another resource refers to a list, a security group for example. The resource takes lists of
    /// at most `most` entries.
    pub fn refer(&self, list: &str, resource: &str, most: u32) {
        self.edit(|inner| {
            let resources = inner.state.referrers.entry(list.to_owned()).or_default();
            resources.insert(resource.to_owned(), most);
        });
    }

    /// Sets a tag of a resource.
    pub fn set_tag(&self, resource: &str, key: &str, value: &str) {
        self.edit(|inner| {
            let tags = inner.state.tags.entry(resource.to_owned()).or_default();
            tags.insert(key.to_owned(), value.to_owned());
        });
    }
}

/// A prefix, or the id of a list.
fn read_destination(text: &str) -> Destination {
    match text.parse::<IpNet>() {
        Ok(prefix) => Destination::Prefix(prefix.trunc()),
        Err(_) => Destination::List(text.to_owned()),
    }
}

impl Cloud {
    /// The decision of the VPC's router for an address.
    pub fn target_of(&self, table: &str, address: IpAddr) -> Way {
        self.lock().state.way(table, address)
    }

    /// The routes of a table: destination and target, in EC2's order.
    pub fn routes(&self, table: &str) -> Vec<(String, String)> {
        let inner = self.lock();
        let routes = inner.state.tables.get(table).map(|table| &table.routes);
        let routes = routes.into_iter().flatten();
        routes
            .map(|route| {
                let destination = match &route.destination {
                    Destination::Prefix(prefix) => prefix.to_string(),
                    Destination::List(list) => list.clone(),
                };
                (destination, route.target.clone())
            })
            .collect()
    }

    /// The ids of the lists with a name.
    pub fn lists_named(&self, name: &str) -> Vec<String> {
        let inner = self.lock();
        let lists = inner.state.lists.iter();
        let named = lists.filter(|(_, list)| list.name == name);
        named.map(|(id, _)| id.clone()).collect()
    }

    /// The current entries of a list; none if it doesn't exist.
    pub fn entries(&self, list: &str) -> Vec<Entry> {
        let inner = self.lock();
        let list = inner.state.lists.get(list);
        list.map(|list| list.entries().to_vec()).unwrap_or_default()
    }

    /// The current prefixes of a list.
    pub fn prefixes(&self, list: &str) -> BTreeSet<IpNet> {
        let entries = self.entries(list);
        entries.into_iter().map(|entry| entry.cidr).collect()
    }

    /// `MaxEntries` of a list.
    pub fn max_entries(&self, list: &str) -> Option<u32> {
        let inner = self.lock();
        inner.state.lists.get(list).map(|list| list.max_entries)
    }

    /// The tags of a resource.
    pub fn tags(&self, resource: &str) -> std::collections::BTreeMap<String, String> {
        self.lock().state.tags_of(resource)
    }

    /// All versions that a list ever had, those included that EC2 keeps no more.
    pub fn versions(&self, list: &str) -> Vec<Version> {
        let inner = self.lock();
        inner
            .records
            .versions
            .get(list)
            .cloned()
            .unwrap_or_default()
    }

    /// The prefixes of `keep` that a version from the number `since` on doesn't have.
    pub fn lost(&self, list: &str, since: i64, keep: &BTreeSet<IpNet>) -> Vec<(i64, IpNet)> {
        let versions = self.versions(list).into_iter();
        let versions = versions.filter(|version| version.number >= since);
        versions
            .flat_map(|version| {
                let missing = keep.difference(&version.prefixes).copied();
                let missing: Vec<IpNet> = missing.collect();
                missing
                    .into_iter()
                    .map(move |prefix| (version.number, prefix))
            })
            .collect()
    }

    /// Watches addresses: after each change from now on, each must lead to the target by the
    /// table. [`Cloud::strayed`] has the breaches.
    pub fn watch(&self, table: &str, addresses: impl IntoIterator<Item = IpAddr>, target: &str) {
        let watch = Watch {
            table: table.to_owned(),
            addresses: addresses.into_iter().collect(),
            target: target.to_owned(),
        };
        self.edit(|inner| inner.records.watches.push(watch));
    }

    /// Ends all watches, and forgets what they found.
    pub fn unwatch(&self) {
        self.edit(|inner| {
            inner.records.watches.clear();
            inner.records.strayed.clear();
        });
    }

    /// The breaches of all watches.
    pub fn strayed(&self) -> Vec<Strayed> {
        self.lock().records.strayed.clone()
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().records.calls.clone()
    }

    /// The index of the next call.
    pub fn next_call(&self) -> usize {
        self.lock().calls()
    }

    /// The number of reading calls, whatever their answer.
    pub fn reads(&self) -> usize {
        let inner = self.lock();
        let calls = inner.records.calls.iter();
        calls.filter(|call| !call.mutating).count()
    }

    /// The number of changing calls, dry runs excluded, whatever their answer.
    pub fn writes(&self) -> usize {
        let inner = self.lock();
        let calls = inner.records.calls.iter();
        calls.filter(|call| call.mutating && !call.dry_run).count()
    }

    /// Forgets the calls that were logged. Indexes go on.
    pub fn clear_calls(&self) {
        self.lock().records.calls.clear();
    }

    /// The requests that no correct client sends: unknown parameters, wrong types, missing
    /// members, combinations that the reference excludes. A test of a client expects none.
    pub fn violations(&self) -> Vec<String> {
        self.lock().records.violations.clone()
    }
}
