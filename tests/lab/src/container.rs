//! A container behind a host: a namespace whose packets get the host's address.

use super::*;

impl Lab {
    /// Adds a container of `host1`.
    pub fn container(&self) -> Ns {
        let host1 = self.ns("host1");
        host1.run(&["ip", "netns", "add", "container"]);
        let container = Ns::open("container");
        host1.ip("link add c0 type veth peer name eth0 netns container");
        host1.sysctl(&[
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
        ]);
        host1.ip_batch(
            "addr add 172.20.0.1/24 dev c0\naddr add fd20::1/64 dev c0 nodad\nlink set c0 up\n",
        );
        // A forwarding host ignores the router's advertisements.
        host1.ip("-6 route replace default via fe80::1 dev priv proto ra metric 1024");
        container.ip_batch(
            "addr add 172.20.0.2/24 dev eth0\naddr add fd20::2/64 dev eth0 nodad\nlink set eth0 up\nlink set lo up\n\
             route add default via 172.20.0.1\nroute add default via fd20::1\n",
        );
        host1.nft(
            "table inet containers {
               chain post {
                 type nat hook postrouting priority srcnat;
                 ip saddr 172.20.0.0/24 masquerade
                 ip6 saddr fd20::/64 masquerade
               }
             }",
        );
        container
    }
}
