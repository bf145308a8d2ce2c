//! The preferred source and the metrics of a route on the wire.

use crate::kernel::wire::{WireError, each_attribute, put, put_address, put_text, put_u32};
use crate::objects::{MetricKind, MetricValue, RouteMetric, RouteOptions};

pub(super) const RTA_PREFSRC: u16 = 7;
pub(super) const RTA_METRICS: u16 = 8;

/// Writes the options. A delete leaves them out, since it would only match a route with the same
/// options.
pub(super) fn put_options(buffer: &mut Vec<u8>, options: &RouteOptions) {
    if let Some(source) = options.source {
        put_address(buffer, RTA_PREFSRC, source);
    }
    if options.metrics.is_empty() {
        return;
    }
    let mut metrics = Vec::new();
    for metric in &options.metrics {
        match &metric.value {
            MetricValue::Number(number) => put_u32(&mut metrics, metric.kind.0, *number),
            MetricValue::Name(name) => put_text(&mut metrics, metric.kind.0, name),
        }
    }
    put(buffer, RTA_METRICS, &metrics);
}

/// Reads the metrics, sorted by number as the kernel sends them.
pub(super) fn decode_metrics(payload: &[u8]) -> Result<Vec<RouteMetric>, WireError> {
    let mut metrics = Vec::new();
    for attribute in each_attribute(payload) {
        let attribute = attribute?;
        let kind = MetricKind(attribute.kind);
        let value = if kind == MetricKind::CONGESTION_CONTROL {
            MetricValue::Name(attribute.text())
        } else {
            MetricValue::Number(attribute.u32()?)
        };
        metrics.push(RouteMetric { kind, value });
    }
    metrics.sort();
    Ok(metrics)
}

#[cfg(test)]
mod tests {
    use super::super::{Write, decode, encode};
    use super::*;
    use crate::objects::{Route, RouteKey, RouteTarget, Via};
    use crate::types::{IfIndex, Metric, Protocol, Realm, TableId};

    fn metric(kind: u16, number: u32) -> RouteMetric {
        RouteMetric {
            kind: MetricKind(kind),
            value: MetricValue::Number(number),
        }
    }

    fn storage(dst: &str, source: &str) -> Route {
        let options = RouteOptions {
            source: Some(source.parse().unwrap()),
            metrics: vec![
                metric(1, 1 << 2),
                metric(2, 1500),
                metric(8, 1460),
                metric(11, 30),
                RouteMetric {
                    kind: MetricKind::CONGESTION_CONTROL,
                    value: MetricValue::Name("reno".to_owned()),
                },
                metric(40, 1),
            ],
        };
        Route {
            key: RouteKey {
                table: TableId(1083),
                dst: dst.parse().unwrap(),
                tos: 0,
                metric: Metric(1024),
            },
            target: RouteTarget::Via(Via {
                gateway: Some("fe80::1".parse().unwrap()),
                device: IfIndex(2),
                onlink: false,
            }),
            realm: Realm(0),
            options: options.shared(),
            protocol: Protocol(83),
        }
    }

    #[test]
    fn options_read_back_as_written_and_a_delete_has_none() {
        for (dst, source) in [
            ("52.216.0.0/15", "10.0.1.77"),
            ("2600:1fa0:8000::/39", "2600:1f18:1::77"),
        ] {
            let route = storage(dst, source);
            let mut buffer = Vec::new();
            encode(Write::Replace, &route, &mut buffer);
            let read = decode(&buffer).unwrap().unwrap().into_route();
            assert_eq!(read, route);
            let mut buffer = Vec::new();
            encode(Write::Delete, &route, &mut buffer);
            let read = decode(&buffer).unwrap().unwrap().into_route();
            assert_eq!(read.options, None);
        }
    }
}
