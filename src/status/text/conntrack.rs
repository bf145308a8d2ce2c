//! Conntrack on the page.

use std::fmt::Write as _;

use super::lines::Lines;
use crate::status::snapshot::{ConntrackStatus, PortUseStatus};

/// Shares in per cent from which the operator should act.
const CROWDED: f64 = 80.0;
/// Destinations with a smaller share of the ports are not named.
const NOTABLE: f64 = 1.0;

/// The lines of conntrack's table and of the busiest destinations.
pub(super) fn conntrack(table: &ConntrackStatus, lines: &mut Lines) {
    let mut text = match table.limit {
        Some(limit) => format!("{} of {limit} entries", table.entries),
        None => format!("{} entries", table.entries),
    };
    if let Some(percent) = table.percent {
        let _ = write!(text, " ({percent:.1} %)");
    }
    let _ = write!(
        text,
        "; since boot: insert failed {}, dropped {}, removed early {}",
        table.insert_failed, table.dropped, table.early_dropped
    );
    let full = table.percent.is_some_and(|percent| percent >= CROWDED);
    if full {
        text.push_str(
            "; raise net.netfilter.nf_conntrack_max ([kernel] manage = [\"conntrack_max\"])",
        );
    }
    lines.line(full, "conntrack", &text);
    let busiest = table.busiest.iter();
    for port_use in busiest.filter(|it| it.percent >= NOTABLE) {
        ports(port_use, lines);
    }
}

fn ports(port_use: &PortUseStatus, lines: &mut Lines) {
    let PortUseStatus {
        address,
        destination,
        protocol,
        ports,
        percent,
    } = port_use;
    let crowded = *percent >= CROWDED;
    let remedy = if crowded {
        "; add egress addresses"
    } else {
        ""
    };
    let text =
        format!("{address} to {destination} {protocol}: {ports} ports ({percent:.1} %){remedy}");
    lines.line(crowded, "ports", &text);
}
