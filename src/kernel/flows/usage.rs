//! The use of conntrack's table and of the ports of translated flows.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::conntrack::{Conntrack, TableUse};
use super::ends::Ends;
use super::entry::Tracked;
use super::error::FlowError;
use super::filter::Filter;

/// Counters of [`Busiest`]: a destination with more than one in 2,048 of all translated flows is
/// never missed.
const COUNTERS: usize = 2048;

/// The ports in use from one address of this host to one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortUse {
    pub address: IpAddr,
    pub destination: SocketAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// At least this many flows, and at most one in 2,048 of all translated flows more.
    pub flows: u64,
}

/// Reads the counters of conntrack's table.
///
/// # Errors
/// [`FlowError::Unavailable`] without conntrack over netlink; else the kernel's refusal.
pub fn table_use() -> Result<TableUse, FlowError> {
    Conntrack::open()?.table_use()
}

/// The pairs of a translated source address and a destination with the most flows, at most `most`.
/// Memory doesn't grow with the table.
///
/// # Errors
/// As [`table_use`].
pub fn busiest_ports(most: usize) -> Result<Vec<PortUse>, FlowError> {
    let mut busiest = Busiest::default();
    Conntrack::open()?.each_listed(Filter::source_translated(), |flow| {
        busiest.extend(pair(flow));
    })?;
    Ok(busiest.into_top(most))
}

/// The source address and port of a TCP connection of this host as the other side sees them:
/// conntrack's entry expects the replies there. `None` if conntrack doesn't know the connection.
///
/// # Errors
/// As [`table_use`].
pub fn source_seen(local: SocketAddr, peer: SocketAddr) -> Result<Option<SocketAddr>, FlowError> {
    let ends = Ends {
        source: local,
        target: peer,
    };
    let found = Conntrack::open()?.find(ends)?;
    let found = found.filter(|flow| flow.original == ends);
    Ok(found.map(|flow| flow.reply.target))
}

type Pair = (IpAddr, SocketAddr, u8);

/// The pair of a translated flow. Flows without ports (ICMP) share no port space.
fn pair(flow: &Tracked) -> Option<Pair> {
    let address = flow.reply.target.ip();
    let translated = address != flow.original.source.ip();
    let with_ports = flow.reply.source.port() != 0;
    (translated && with_ports).then_some((address, flow.reply.source, flow.protocol))
}

/// The most frequent pairs of a stream, in bounded memory (Misra and Gries, 1982).
#[derive(Debug, Default)]
struct Busiest {
    counters: BTreeMap<Pair, u64>,
}

impl Busiest {
    fn extend(&mut self, pair: Option<Pair>) {
        let Some(pair) = pair else {
            return;
        };
        if let Some(count) = self.counters.get_mut(&pair) {
            *count += 1;
        } else if self.counters.len() < COUNTERS {
            self.counters.insert(pair, 1);
        } else {
            self.counters.retain(|_, count| {
                *count -= 1;
                *count > 0
            });
        }
    }

    fn into_top(self, most: usize) -> Vec<PortUse> {
        let mut found: Vec<(Pair, u64)> = self.counters.into_iter().collect();
        found.sort_by_key(|(pair, flows)| (std::cmp::Reverse(*flows), *pair));
        found.truncate(most);
        let port_use = |((address, destination, protocol), flows)| PortUse {
            address,
            destination,
            protocol,
            flows,
        };
        found.into_iter().map(port_use).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(last: u32) -> Pair {
        let address = IpAddr::from([10, 0, 0, 20]);
        let target = SocketAddr::new(IpAddr::from(last.to_be_bytes()), 443);
        (address, target, 6)
    }

    #[test]
    fn busy_destination_is_found_among_many_quiet_ones_in_bounded_memory() {
        let mut busiest = Busiest::default();
        for index in 0..100_000 {
            busiest.extend(Some(to(index + 10)));
            if index % 5 == 0 {
                busiest.extend(Some(to(1)));
            }
            assert!(busiest.counters.len() <= COUNTERS);
        }
        let top = busiest.into_top(3);
        assert_eq!(top[0].destination, to(1).1);
        // 20,000 flows, less at most one in 2,048 of 120,000.
        assert!((19_900..=20_000).contains(&top[0].flows), "{top:?}");
    }

    #[test]
    fn few_pairs_are_counted_exactly() {
        let mut busiest = Busiest::default();
        for (index, count) in [(1, 3), (2, 7), (3, 5)] {
            for _ in 0..count {
                busiest.extend(Some(to(index)));
            }
        }
        let top: Vec<u64> = busiest.into_top(2).iter().map(|it| it.flows).collect();
        assert_eq!(top, [7, 5]);
    }
}
