//! The metrics of gateways and egress addresses.

use std::collections::BTreeMap;

use super::encode::{Kind, Metric};

pub(super) const GATEWAY_UP: Metric = Metric {
    name: "trailblazer_gateway_up",
    kind: Kind::Gauge,
    labels: &["path", "address"],
    help: "1 for a gateway with a route, unless the kernel's neighbour table shows no answer on the link; else 0.",
    samples: |snapshot, out| {
        // A link-local address may be a gateway on several links.
        let mut up: BTreeMap<[&str; 2], bool> = BTreeMap::new();
        for gateway in &snapshot.gateways {
            let works = gateway.in_use && !gateway.is_silent();
            *up.entry([&gateway.path, &gateway.address]).or_default() |= works;
        }
        for (labels, works) in up {
            out.value(&labels, u8::from(works));
        }
    },
};

pub(super) const ADDRESS_PRESENT: Metric = Metric {
    name: "trailblazer_egress_address_present",
    kind: Kind::Gauge,
    labels: &["address"],
    help: "1 for an egress address of the settings that this NAT has, 0 for a missing or standby one. Absent in the host role.",
    samples: |snapshot, out| {
        for address in &snapshot.egress_addresses {
            out.value(&[&address.address], u8::from(address.state == "here"));
        }
    },
};
