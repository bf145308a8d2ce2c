//! The attributes of a route beside its key and its next hops.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// The preferred source address and the metrics of a route. The kernel applies both to packets of
/// this host, so a bypass route without the options of the main default would change the source
/// address, the segment size or the initial window of storage traffic.
///
/// Invariant: `metrics` is sorted by number, as the kernel sends the metrics, so a comparison is
/// `==`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RouteOptions {
    /// `RTA_PREFSRC`.
    pub source: Option<IpAddr>,
    /// `RTA_METRICS`.
    pub metrics: Vec<RouteMetric>,
}

/// Options shared by all routes of one path; `None` for a route without any, which most routes
/// are: 16,000 routes then cost neither an allocation nor a comparison each.
pub type SharedOptions = Option<Arc<RouteOptions>>;

impl RouteOptions {
    /// The shared form.
    pub fn shared(self) -> SharedOptions {
        // By name: a further option must be looked at too.
        let RouteOptions { source, metrics } = &self;
        let is_default = source.is_none() && metrics.is_empty();
        (!is_default).then(|| Arc::new(self))
    }

    /// The same options without the preferred source.
    pub fn without_source(&self) -> SharedOptions {
        let options = RouteOptions {
            source: None,
            metrics: self.metrics.clone(),
        };
        options.shared()
    }

    /// The MTU of the route, if set.
    pub fn mtu(&self) -> Option<u32> {
        self.metrics.iter().find_map(|metric| match metric.value {
            MetricValue::Number(mtu) if metric.kind == MetricKind::MTU => Some(mtu),
            _ => None,
        })
    }

    fn locks(&self, kind: MetricKind) -> bool {
        self.metrics.iter().any(|metric| match metric.value {
            MetricValue::Number(bits) if metric.kind == MetricKind::LOCK => 1u32
                .checked_shl(u32::from(kind.0))
                .is_some_and(|bit| bits & bit != 0),
            _ => false,
        })
    }
}

/// The words of `ip route`: `src 10.0.1.77 mtu lock 1500 advmss 1460`.
impl fmt::Display for RouteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = Vec::new();
        if let Some(source) = self.source {
            words.push(format!("src {source}"));
        }
        for metric in &self.metrics {
            if metric.kind == MetricKind::LOCK {
                continue;
            }
            let lock = if self.locks(metric.kind) { "lock " } else { "" };
            words.push(format!("{} {lock}{}", metric.kind, metric.value));
        }
        f.write_str(&words.join(" "))
    }
}

/// One metric of a route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteMetric {
    pub kind: MetricKind,
    pub value: MetricValue,
}

/// The number of a metric (`RTAX_*`, linux/rtnetlink.h). A number of a newer kernel is carried
/// like any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetricKind(pub u16);

impl MetricKind {
    /// The bit `1 << number` of each locked metric: path MTU discovery must not change the value.
    pub const LOCK: MetricKind = MetricKind(1);
    /// The largest packet of the path (`RTAX_MTU`).
    pub const MTU: MetricKind = MetricKind(2);
    /// The only metric with a text as value: the name of the congestion control.
    pub const CONGESTION_CONTROL: MetricKind = MetricKind(16);

    /// The name in `ip route`; `None` for a metric unknown to this version.
    pub fn name(self) -> Option<&'static str> {
        const NAMES: [&str; 17] = [
            "lock",
            "mtu",
            "window",
            "rtt",
            "rttvar",
            "ssthresh",
            "cwnd",
            "advmss",
            "reordering",
            "hoplimit",
            "initcwnd",
            "features",
            "rto_min",
            "initrwnd",
            "quickack",
            "congctl",
            "fastopen_no_cookie",
        ];
        let place = usize::from(self.0).checked_sub(1)?;
        NAMES.get(place).copied()
    }
}

impl fmt::Display for MetricKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "metric{}", self.0),
        }
    }
}

/// The value of a metric, in the kernel's own unit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MetricValue {
    Number(u32),
    Name(String),
}

impl fmt::Display for MetricValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetricValue::Number(number) => write!(f, "{number}"),
            MetricValue::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(kind: u16, number: u32) -> RouteMetric {
        RouteMetric {
            kind: MetricKind(kind),
            value: MetricValue::Number(number),
        }
    }

    #[test]
    fn options_read_as_ip_route_prints_them() {
        let mut options = RouteOptions {
            source: Some([10, 0, 1, 77].into()),
            metrics: vec![
                metric(1, 1 << 2),
                metric(2, 1500),
                metric(8, 1460),
                metric(40, 7),
            ],
        };
        options.metrics.push(RouteMetric {
            kind: MetricKind::CONGESTION_CONTROL,
            value: MetricValue::Name("bbr".to_owned()),
        });
        assert_eq!(
            options.to_string(),
            "src 10.0.1.77 mtu lock 1500 advmss 1460 metric40 7 congctl bbr"
        );
        assert_eq!(RouteOptions::default().shared(), None);
    }
}
