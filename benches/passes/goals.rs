//! Routes and goals for the pure stages.

use ipnet::IpNet;
use trailblazer::objects::{Route, RouteKey, RouteTarget, Via};
use trailblazer::ownership::Numbers;
use trailblazer::plan::Goal;
use trailblazer::types::{IfIndex, Metric, Realm};

/// A bypass route for each prefix, sorted.
pub fn routes(prefixes: &[IpNet], numbers: &Numbers) -> Vec<Route> {
    let mut routes: Vec<Route> = prefixes
        .iter()
        .map(|prefix| Route {
            key: RouteKey {
                table: numbers.bypass_table,
                dst: *prefix,
                tos: 0,
                metric: Metric(0),
            },
            target: RouteTarget::Via(Via {
                gateway: None,
                device: IfIndex(2),
                onlink: false,
            }),
            realm: Realm(0),
            options: None,
            protocol: numbers.protocol,
        })
        .collect();
    routes.sort();
    routes
}

/// The goal with these routes and nothing else.
pub fn goal(routes: Vec<Route>) -> Goal {
    let mut goal = Goal::nothing();
    goal.routes = routes;
    goal.refuse_conflicts = true;
    goal
}
