//! The lists and tables of a reading in short, for reports and status.

use serde::{Deserialize, Serialize};

use super::ledger::prefix_of;
use super::objects::{
    ListId, ListVersion, RouteDestination, RouteState, RouteTable, RouteTableId, RouteTarget,
    VpcId, VpcRoute,
};
use super::observed::ObservedPlane;
use crate::config::{PlaneMode, VpcPlaneConfig};
use crate::types::{Family, SyncToken};

/// One reading of the VPC in short.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PlaneSummary {
    /// Our lists.
    pub lists: Vec<ListSummary>,
    /// The tables of the settings.
    pub tables: Vec<TableSummary>,
}

/// Our list of one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListSummary {
    pub family: Family,
    pub id: ListId,
    pub name: String,
    pub version: Option<ListVersion>,
    pub entries: usize,
    /// The weight of the list in the quota of each route table.
    pub max_entries: Option<u32>,
    /// The newest document of the list's tags and entries.
    pub sync_token: Option<SyncToken>,
}

/// One route table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSummary {
    pub id: RouteTableId,
    pub vpc: VpcId,
    /// The routes to our lists, or the single routes.
    pub routes: Vec<RouteSummary>,
}

/// The routes of a table to the target of a family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSummary {
    pub family: Family,
    /// `None` for a target of a later version of EC2.
    pub target: Option<String>,
    /// False while the target is gone or detached.
    pub active: bool,
    /// The number of routes: 1 with a prefix list, one for each prefix with `mode = "routes"`.
    pub routes: usize,
}

impl RouteSummary {
    /// The route to a list.
    fn to_list(table: &RouteTable, list: &ListSummary) -> Option<RouteSummary> {
        let route = table.route_to(&RouteDestination::List(list.id.clone()))?;
        Some(RouteSummary {
            family: list.family,
            target: route.target.as_ref().map(|target| target.id.clone()),
            active: route.state == RouteState::Active,
            routes: 1,
        })
    }

    /// The single routes of a family to its target.
    fn single(table: &RouteTable, family: Family, target: &str) -> Option<RouteSummary> {
        let to = RouteTarget::from_id(target)?;
        let is_single = |route: &&VpcRoute| {
            prefix_of(route).is_some_and(|prefix| Family::of_net(&prefix) == family)
        };
        let routes = table.routes.iter().filter(is_single);
        let found: Vec<&VpcRoute> = routes.filter(|route| route.leads_to(&to)).collect();
        let active = found.iter().all(|route| route.state == RouteState::Active);
        (!found.is_empty()).then(|| RouteSummary {
            family,
            target: Some(target.to_owned()),
            active,
            routes: found.len(),
        })
    }
}

impl PlaneSummary {
    /// The summary of a reading.
    pub fn of(observed: &ObservedPlane, plane: &VpcPlaneConfig) -> PlaneSummary {
        let ours = Family::ALL
            .into_iter()
            .filter_map(|family| Some((family, observed.lists.get(family).ours()?)));
        let lists = ours.map(|(family, found)| ListSummary {
            family,
            id: found.list.id.clone(),
            name: found.list.name.clone(),
            version: found.list.version,
            entries: found.entries.len(),
            max_entries: found.list.max_entries,
            sync_token: found.token(),
        });
        let lists: Vec<ListSummary> = lists.collect();
        let tables = observed.tables.iter().map(|table| {
            let to_lists = lists.iter();
            let to_lists = to_lists.filter_map(|list| RouteSummary::to_list(table, list));
            let single = Family::ALL.into_iter().filter_map(|family| {
                let target = plane.target.get(family).as_deref()?;
                RouteSummary::single(table, family, target)
            });
            TableSummary {
                id: table.id.clone(),
                vpc: table.vpc.clone(),
                routes: match plane.mode {
                    PlaneMode::PrefixList => to_lists.collect(),
                    PlaneMode::Routes => single.collect(),
                },
            }
        });
        PlaneSummary {
            tables: tables.collect(),
            lists,
        }
    }

    /// The number of routes of a family, over all tables.
    pub fn routes(&self, family: Family) -> usize {
        let routes = self.tables.iter().flat_map(|table| &table.routes);
        let routes = routes.filter(|route| route.family == family);
        routes.map(|route| route.routes).sum()
    }
}
