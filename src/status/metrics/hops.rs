//! The metrics of gateways and egress addresses.

use std::collections::BTreeMap;

use super::encode::{Kind, Metric, Samples};
use crate::status::snapshot::{GatewayStatus, HealthStatus, Snapshot, Traffic};

pub(super) const GATEWAY_UP: Metric = Metric {
    name: "trailblazer_gateway_up",
    kind: Kind::Gauge,
    labels: &["path", "address"],
    help: "1 for a gateway with a route or in reserve, unless the kernel's neighbour table shows no answer on the link; else 0.",
    samples: |snapshot, out| {
        // A link-local address may be a gateway on several links.
        let mut up: BTreeMap<[&str; 2], bool> = BTreeMap::new();
        for gateway in &snapshot.gateways {
            let works = (gateway.in_use || gateway.reserve) && !gateway.is_silent();
            *up.entry([&gateway.path, &gateway.address]).or_default() |= works;
        }
        for (labels, works) in up {
            out.value(&labels, u8::from(works));
        }
    },
};

pub(super) const GATEWAY_USABLE: Metric = Metric {
    name: "trailblazer_gateway_usable",
    kind: Kind::Gauge,
    labels: &["path", "address"],
    help: "1 for a gateway that new flows may take by the verdict of its probes, 0 for one that is down or held. Absent without probes.",
    samples: |snapshot, out| {
        for (labels, health) in probed(snapshot) {
            out.value(&labels, u8::from(health.usable));
        }
    },
};

pub(super) const PROBE_SECONDS: Metric = Metric {
    name: "trailblazer_gateway_probe_seconds",
    kind: Kind::Gauge,
    labels: &["path", "address"],
    help: "Duration of the last answered probe through a gateway. Absent without probes and without an answer.",
    samples: |snapshot, out| {
        for (labels, health) in probed(snapshot) {
            if let Some(micros) = health.latency_us {
                out.value(&labels, micros as f64 / 1e6);
            }
        }
    },
};

pub(super) const PROBE_LOSS: Metric = Metric {
    name: "trailblazer_gateway_probe_loss_ratio",
    kind: Kind::Gauge,
    labels: &["path", "address"],
    help: "Share of the last 100 probes through a gateway without an answer, from 0 to 1. Absent without probes.",
    samples: |snapshot, out| {
        for (labels, health) in probed(snapshot) {
            let quality = health.quality;
            if quality.probes > 0 {
                let loss = f64::from(quality.lost) / f64::from(quality.probes);
                out.value(&labels, loss);
            }
        }
    },
};

pub(super) const PROBE_PERCENTILES: Metric = Metric {
    name: "trailblazer_gateway_probe_percentile_seconds",
    kind: Kind::Gauge,
    // promtool keeps the label `quantile` for summaries.
    labels: &["path", "address", "percentile"],
    help: "Durations of the answers among the last 100 probes through a gateway, by percentile (50, 99). Absent without an answer.",
    samples: |snapshot, out| {
        for ([path, address], health) in probed(snapshot) {
            let quality = health.quality;
            for (percentile, micros) in [("50", quality.p50_us), ("99", quality.p99_us)] {
                if let Some(micros) = micros {
                    out.value(&[path, address, percentile], micros as f64 / 1e6);
                }
            }
        }
    },
};

pub(super) const PACKETS: Metric = Metric {
    name: "trailblazer_gateway_packets_total",
    kind: Kind::Counter,
    labels: &["path", "address", "direction"],
    help: "Packets of the flows through a gateway by direction: out, and back for the answers. Absent without counters of gateways.",
    samples: |snapshot, out| traffic(snapshot, out, |traffic| traffic.packets),
};

pub(super) const BYTES: Metric = Metric {
    name: "trailblazer_gateway_bytes_total",
    kind: Kind::Counter,
    labels: &["path", "address", "direction"],
    help: "Bytes at the IP layer of the flows through a gateway by direction: out, and back for the answers. Absent without counters of gateways.",
    samples: |snapshot, out| traffic(snapshot, out, |traffic| traffic.bytes),
};

fn traffic(snapshot: &Snapshot, out: &mut Samples<'_>, pick: fn(&Traffic) -> u64) {
    for ([path, address], health) in probed(snapshot) {
        if let Some(traffic) = health.traffic {
            out.value(&[path, address, "out"], pick(&traffic.out));
            out.value(&[path, address, "back"], pick(&traffic.back));
        }
    }
}

/// The probed gateways, each once: the routers of the bypass path share a verdict, and a link-local
/// address may be on several links.
fn probed(snapshot: &Snapshot) -> BTreeMap<[&str; 2], &HealthStatus> {
    let gateways = snapshot.gateways.iter();
    let probed = gateways.filter_map(|it| Some(([&*it.path, &*it.address], it.health.as_ref()?)));
    probed.collect()
}

pub(super) const GATEWAY_DRAINED: Metric = Metric {
    name: "trailblazer_gateway_drained",
    kind: Kind::Gauge,
    labels: &["address"],
    help: "1 for an egress gateway that an operator has drained (trailblazer drain), else 0.",
    samples: |snapshot, out| {
        for gateway in egress(snapshot) {
            out.value(&[&gateway.address], u8::from(gateway.drained.is_some()));
        }
    },
};

pub(super) const GATEWAY_FLOWS: Metric = Metric {
    name: "trailblazer_gateway_flows",
    kind: Kind::Gauge,
    labels: &["address"],
    help: "Open flows pinned to an egress gateway. Absent without pins.",
    samples: |snapshot, out| {
        for gateway in egress(snapshot) {
            if let Some(flows) = gateway.flows {
                out.value(&[&gateway.address], flows);
            }
        }
    },
};

pub(super) const FLOWS_ENDED: Metric = Metric {
    name: "trailblazer_flows_ended_total",
    kind: Kind::Counter,
    labels: &["path", "address", "kind"],
    help: "Flows that stood still on a gateway that went down, and were ended: connection (the socket was closed), forwarded (the next packet gets a reset) or begun_anew (the next packet takes another gateway). Absent without probes.",
    samples: |snapshot, out| {
        let gateways = snapshot.gateways.iter();
        let ended = gateways.filter_map(|it| Some(([&*it.path, &*it.address], it.ended?)));
        for ([path, address], ended) in ended.collect::<BTreeMap<[&str; 2], _>>() {
            out.value(&[path, address, "connection"], ended.connections);
            out.value(&[path, address, "forwarded"], ended.forwarded);
            out.value(&[path, address, "begun_anew"], ended.begun_anew);
        }
    },
};

/// The egress gateways, each once.
fn egress(snapshot: &Snapshot) -> impl Iterator<Item = &GatewayStatus> {
    let egress = snapshot.gateways.iter().filter(|it| it.path == "egress");
    let by_address: BTreeMap<&str, &GatewayStatus> =
        egress.map(|it| (it.address.as_str(), it)).collect();
    by_address.into_values()
}

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
