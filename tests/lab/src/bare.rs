//! One namespace with a few links and no neighbours: for tests of the kernel's own tables.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Ns, inside, settle, topology};

/// A namespace with links `eth0`, `eth1`, … up and with carrier. `ethN` has 10.0.(N+1).11/24 and
/// 2600:1f18:1000:(N+1)::11/64; the main table has an IPv4 and an IPv6 default via `eth0` (10.0.1.1
/// and fe80::1), like a host of the lab. Both gateways have permanent neighbour entries: no machine
/// answers for them, and the silence of a gateway is a degradation. Any number can exist; dropping
/// the value removes the namespace.
#[derive(Debug)]
pub struct Bare {
    /// The namespace to work in.
    pub ns: Ns,
    names: [String; 2],
}

impl Bare {
    pub fn new() -> Bare {
        Bare::with_links(1)
    }

    /// A namespace with so many links.
    ///
    /// # Panics
    /// Outside `isolated`.
    pub fn with_links(links: usize) -> Bare {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        assert!(inside(), "make a bare namespace inside lab::isolated");
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let names = [format!("bare{number}"), format!("far{number}")];
        topology::feed_ip(&format!("netns add {}\nnetns add {}\n", names[0], names[1]));
        let (ns, far) = (Ns::open(&names[0]), Ns::open(&names[1]));
        for ns in [&ns, &far] {
            ns.sysctl(&topology::sysctls(false));
        }
        let (mut near_lines, mut far_lines) = (String::from("link set lo up\n"), String::new());
        for link in 0..links {
            let subnet = link + 1;
            near_lines.push_str(&format!(
                "link add eth{link} index {} type veth peer name eth{link} \
                 address 02:00:00:00:00:{subnet:02x} netns {}\n\
                 link set eth{link} up\n\
                 addr add 10.0.{subnet}.11/24 dev eth{link}\n\
                 addr add 2600:1f18:1000:{subnet:x}::11/64 dev eth{link} nodad\n",
                topology::near_index(link),
                names[1]
            ));
            far_lines.push_str(&format!("link set eth{link} up\n"));
        }
        near_lines.push_str(
            "route add default via 10.0.1.1 dev eth0 proto dhcp src 10.0.1.11 metric 512\n\
             route add default via fe80::1 dev eth0 proto ra metric 512\n\
             neigh add 10.0.1.1 lladdr 02:00:00:00:00:01 dev eth0\n\
             neigh add fe80::1 lladdr 02:00:00:00:00:01 dev eth0\n",
        );
        ns.ip_batch(&near_lines);
        far.ip_batch(&far_lines);
        settle::wait_until_settled(&ns);
        Bare { ns, names }
    }

    /// The namespace at the other end of the links: without addresses until a test adds some.
    pub fn far(&self) -> Ns {
        Ns::open(&self.names[1])
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // Open handles keep the namespaces alive until they close too.
        let lines = format!("netns del {}\nnetns del {}\n", self.names[0], self.names[1]);
        if !std::thread::panicking() {
            topology::feed_ip(&lines);
        }
    }
}
