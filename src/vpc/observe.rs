//! Reads the VPC: tables, our lists with their entries, and the other lists of the tables.

use std::collections::BTreeMap;

use super::ec2::{Ec2, ErrorKind, ListFilter, TableFilter};
use super::error::VpcError;
use super::objects::{
    Entry, ListId, ListState, ListVersion, PrefixList, RouteTable, RouteTableId, Tags,
};
use super::observed::{self, Found, ObservedList, ObservedPlane};
use crate::config::{PlaneMode, TableSelector, VpcPlaneConfig};
use crate::types::{Family, PerFamily};

/// Entries by list and version. EC2 never changes the entries of a version, so an agent reads the
/// entries of each version once.
#[derive(Debug, Default)]
pub struct EntryCache(BTreeMap<ListId, (ListVersion, Vec<Entry>)>);

impl EntryCache {
    async fn entries(&mut self, ec2: &Ec2, list: &PrefixList) -> Result<Vec<Entry>, VpcError> {
        let known = self.0.get(&list.id);
        if let (Some((version, entries)), Some(now)) = (known, list.version)
            && *version == now
        {
            return Ok(entries.clone());
        }
        let entries = ec2.list_entries(&list.id, list.version).await?;
        if let Some(version) = list.version {
            self.0.insert(list.id.clone(), (version, entries.clone()));
        }
        Ok(entries)
    }
}

/// The name of the call that reads entries.
const ENTRIES: &str = "GetManagedPrefixListEntries";
/// The readings in which a described list may be gone before its entries are read: two writers that start
/// at once make two lists, and delete one of them.
const VANISHING: usize = 3;

/// Reads everything that a plan depends on. A list that goes meanwhile is a reason for another reading.
///
/// # Errors
/// A call fails, or a setting matches no table.
pub async fn observe(
    ec2: &Ec2,
    plane: &VpcPlaneConfig,
    cache: &mut EntryCache,
) -> Result<ObservedPlane, VpcError> {
    for _ in 1..VANISHING {
        match read(ec2, plane, cache).await {
            Err(VpcError::Ec2(error))
                if error.call == ENTRIES && error.kind == ErrorKind::NotFound => {}
            other => return other,
        }
    }
    read(ec2, plane, cache).await
}

async fn read(
    ec2: &Ec2,
    plane: &VpcPlaneConfig,
    cache: &mut EntryCache,
) -> Result<ObservedPlane, VpcError> {
    let tables = read_tables(ec2, &plane.tables).await?;
    let mut described = match plane.mode {
        PlaneMode::PrefixList => read_own_lists(ec2, plane).await?,
        PlaneMode::Routes => Vec::new(),
    };
    let mut lists = PerFamily {
        ipv4: Found::Absent,
        ipv6: Found::Absent,
    };
    let mut spares = PerFamily::<Vec<PrefixList>>::default();
    for family in plane.families() {
        let chosen = observed::choose(&described, family, &plane.name, &plane.lists, &tables);
        *lists.get_mut(family) = match chosen {
            Ok(None) => Found::Absent,
            Ok(Some(list)) => {
                let (name, named) = (&plane.name, &plane.lists);
                let more = observed::spares(&described, list, name, named, &tables);
                *spares.get_mut(family) = more.cloned().collect();
                Found::Ours(Box::new(ObservedList {
                    list: list.clone(),
                    entries: cache.entries(ec2, list).await?,
                }))
            }
            Err(why) => Found::Conflict(why),
        };
    }
    let ours: Vec<ListId> = Family::ALL
        .into_iter()
        .filter_map(|family| Some(lists.get(family).ours()?.list.id.clone()))
        .collect();
    let mut others = BTreeMap::new();
    let mut unknown: Vec<ListId> = observed::lists_of(&tables).into_iter().collect();
    unknown.retain(|id| !ours.contains(id));
    let missing: Vec<ListId> = unknown
        .iter()
        .filter(|id| !described.iter().any(|list| list.id == **id))
        .cloned()
        .collect();
    if !missing.is_empty() {
        let filter = ListFilter {
            ids: missing,
            ..ListFilter::default()
        };
        described.extend(ec2.describe_lists(&filter).await?);
    }
    for list in described.iter().filter(|list| unknown.contains(&list.id)) {
        let entries = cache.entries(ec2, list).await?;
        let list = list.clone();
        others.insert(list.id.clone(), ObservedList { list, entries });
    }
    Ok(ObservedPlane {
        lists,
        spares,
        tables,
        others,
    })
}

/// The lists that may be ours.
async fn read_own_lists(ec2: &Ec2, plane: &VpcPlaneConfig) -> Result<Vec<PrefixList>, VpcError> {
    let families = plane.families();
    let filter = ListFilter {
        names: families
            .map(|family| observed::list_name(&plane.name, family))
            .collect(),
        ..ListFilter::default()
    };
    let mut lists = ec2.describe_lists(&filter).await?;
    if !plane.lists.is_empty() {
        let filter = ListFilter {
            ids: plane.lists.iter().map(|id| ListId(id.clone())).collect(),
            ..ListFilter::default()
        };
        let named = ec2.describe_lists(&filter).await?;
        lists.retain(|list| !named.iter().any(|it| it.id == list.id));
        lists.extend(named);
    }
    lists.retain(|list| list.state != ListState::Deleted);
    Ok(lists)
}

/// The tables of the settings, sorted by id.
async fn read_tables(ec2: &Ec2, selectors: &[TableSelector]) -> Result<Vec<RouteTable>, VpcError> {
    let ids = selectors.iter().filter_map(|selector| match selector {
        TableSelector::Id(id) => Some(RouteTableId(id.clone())),
        TableSelector::Tag { .. } => None,
    });
    let mut found = BTreeMap::new();
    let by_id = TableFilter {
        ids: ids.collect(),
        ..TableFilter::default()
    };
    if !by_id.ids.is_empty() {
        for table in ec2.describe_route_tables(&by_id).await? {
            found.insert(table.id.clone(), table);
        }
        let missing = by_id.ids.iter().find(|id| !found.contains_key(*id));
        if let Some(missing) = missing {
            return Err(VpcError::Tables(format!(
                "[vpc_plane] tables: EC2 describes no route table {missing}"
            )));
        }
    }
    for selector in selectors {
        let TableSelector::Tag { key, value } = selector else {
            continue;
        };
        let filter = TableFilter {
            tags: Tags::from([(key.clone(), value.clone())]),
            ..TableFilter::default()
        };
        let tables = ec2.describe_route_tables(&filter).await?;
        if tables.is_empty() {
            return Err(VpcError::Tables(format!(
                "[vpc_plane] tables: no route table of the region has the tag {key}={value}"
            )));
        }
        for table in tables {
            found.insert(table.id.clone(), table);
        }
    }
    let tables: Vec<RouteTable> = found.into_values().collect();
    let mut owners = tables.iter().map(|table| (&table.id, &table.owner));
    if let Some((first, owner)) = owners.next()
        && let Some((other, another)) = owners.find(|(_, it)| *it != owner)
    {
        return Err(VpcError::Tables(format!(
            "[vpc_plane] tables: {first} belongs to account {owner} and {other} to {another}: name \
             tables of one account"
        )));
    }
    Ok(tables)
}
