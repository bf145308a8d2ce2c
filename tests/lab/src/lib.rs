//! The lab: a small VPC in network namespaces, with all services around Trailblazer.
//!
//! ```ignore
//! #[test]
//! fn hosts_reach_s3() {
//!     lab::isolated(|| {
//!         let lab = lab::Lab::new();
//!         assert_eq!(lab.who("host1", lab::S3), Ok(lab::HOST1_PUBLIC));
//!     });
//! }
//! ```
//!
//! `isolated` runs the test in namespaces of its own, `addresses` lists names and addresses,
//! `server`, `http` and `imds` hold the servers, `traffic` the clients, and `snapshot` compares
//! foreign state before and after. `Bare` is a single namespace with a few links, for tests of
//! the kernel's tables alone. `raw_http` serves arbitrary bytes on loopback, `data` and `replay`
//! read real documents, and `root` unpacks a Debian root.
//!
//! The crate depends on nothing of the product's, so that the product's unit tests can use the
//! lab too.

// A lab is expensive to build: no implicit default.
#![allow(clippy::new_without_default)]

mod addresses;
mod agent;
mod bare;
mod container;
pub mod data;
mod gateway;
mod http;
mod imds;
mod isolate;
pub mod keyring;
mod nats;
mod ns;
mod program;
pub mod raw_http;
pub mod replay;
pub mod root;
mod server;
mod settle;
pub mod shell;
mod silent;
mod snapshot;
mod topology;
mod traffic;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use ipnet::IpNet;

pub use addresses::*;
pub use agent::{Agent, SOON, eventually, wait_until};
pub use bare::Bare;
pub use http::{Delivery, Mirror, MirrorMode, Reply, Request};
pub use imds::{Imds, ImdsMode};
pub use isolate::{
    DEADLINE, Isolation, again_without_privilege, enter, inside, isolated, name_around, test_name,
};
pub use nats::NATS;
pub use ns::{Ns, Output};
pub use program::{
    IMDS_ENDPOINT, binary, faketime, repository, scratch, trailblazer, trailblazer_command,
    write_config,
};
pub use server::{Contact, Server};
pub use silent::SilentDisk;
pub use snapshot::Snapshot;
pub use topology::{dhcp_routes, mac};
pub use traffic::{LongFlow, LongFlowReport, Observation, PATIENCE, Stream, StreamReport};

/// A whole lab with all servers running. A process can hold only one lab, because the namespaces
/// have fixed names.
#[derive(Debug)]
pub struct Lab {
    /// How the NAT instances are connected.
    pub layout: NatLayout,
    /// The addresses of `nat1`.
    pub nat1: NatAddresses,
    /// The addresses of `nat2`.
    pub nat2: NatAddresses,
    /// Storage: answers on every address of the served prefixes (TCP; UDP on the constants).
    pub s3: Server,
    /// The partner: accepts the egress addresses of `nat1` and `nat2` only.
    pub partner: Server,
    /// The operator's machine in the internet.
    pub outside: Server,
    /// The machine in the peered network.
    pub peer: Server,
    pub host1: Server,
    pub host2: Server,
    /// The VPC's resolver, a UDP echo.
    pub resolver: Server,
    /// The mirror of `ip-ranges.json`.
    pub mirror: Mirror,
    /// The metadata service.
    pub imds: Imds,
    namespaces: BTreeMap<&'static str, Ns>,
}

/// Packets on a wrong wire, counted at the internet gateway since the lab began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leaks {
    /// IPv4 packets to the partner from another address than an egress address.
    pub partner4: u64,
    /// IPv6 packets to the partner from another address than an egress address.
    pub partner6: u64,
    /// IPv4 packets to S3 from an egress address; correct for unselected regions.
    pub s3_egress4: u64,
    /// IPv6 packets to S3 from an egress address; correct for unselected regions.
    pub s3_egress6: u64,
    /// Packets with a private source and without translation: dropped, as AWS does.
    pub unmapped: u64,
}

impl Lab {
    /// A lab with a private and a public interface on each NAT instance.
    pub fn new() -> Lab {
        Lab::with(NatLayout::TwoInterfaces)
    }

    /// A lab with another layout of the NAT instances.
    ///
    /// # Panics
    /// Outside `isolated`: the lab must not touch the machine's own network.
    pub fn with(layout: NatLayout) -> Lab {
        assert!(
            inside(),
            "build a lab inside lab::isolated or after lab::enter"
        );
        let namespaces = topology::build(layout);
        let (nat1, nat2) = (layout.addresses(1), layout.addresses(2));
        let ns = |name: &str| &namespaces[name];
        let udp = [S3, S3_6, S3_SECOND, S3_SECOND6, S3_ELSEWHERE];
        let lab = Lab {
            layout,
            nat1,
            nat2,
            s3: Server::start(ns("s3"), PORT, &udp),
            partner: Server::start(ns("partner"), PORT, &[PARTNER, PARTNER6]),
            outside: Server::start(ns("outside"), PORT, &[OPERATOR, OPERATOR6]),
            peer: Server::start(ns("peer"), PORT, &[PEER, PEER6]),
            host1: Server::start(ns("host1"), PORT, &[HOST1, HOST1_6]),
            host2: Server::start(ns("host2"), PORT, &[HOST2, HOST2_6]),
            resolver: Server::start(ns("vpc"), DNS_PORT, &[RESOLVER, RESOLVER6, RESOLVER_IN_VPC]),
            mirror: Mirror::start(ns("outside"), &[MIRROR, MIRROR6]),
            imds: Imds::start(ns("vpc")),
            namespaces,
        };
        lab.set_egress(&[
            nat1.egress_public,
            nat1.egress6,
            nat2.egress_public,
            nat2.egress6,
        ]);
        lab.imds.fill(layout);
        lab
    }

    /// A namespace: `vpc`, `host1`, `host2`, `nat1`, `nat2`, `s3`, `partner`, `outside`, `peer`.
    #[track_caller]
    pub fn ns(&self, name: &str) -> &Ns {
        let known = || topology::NAMESPACES.join(", ");
        self.namespaces
            .get(name)
            .unwrap_or_else(|| panic!("no namespace `{name}` in the lab; there are {}", known()))
    }

    /// The addresses of a NAT instance.
    #[track_caller]
    pub fn nat(&self, name: &str) -> NatAddresses {
        match nats::number_of(name) {
            Some(number) => self.layout.addresses(number),
            None => panic!("no NAT instance `{name}`; there are {}", NATS.join(", ")),
        }
    }

    /// The source address of `from` seen by the server at `address`; see `Ns::who`.
    ///
    /// # Errors
    /// The kind of the failure.
    pub fn who(&self, from: &str, address: IpAddr) -> Result<IpAddr, ErrorKind> {
        self.ns(from).who(address)
    }

    /// A steady stream of new connections in the background; see `Stream`.
    pub fn stream(&self, from: &str, targets: &[IpAddr], per_second: u32) -> Stream {
        Stream::start(self.ns(from), targets, per_second)
    }

    /// A long-lived connection.
    ///
    /// # Panics
    /// If the connection cannot be opened.
    #[track_caller]
    pub fn long_flow(&self, from: &str, to: IpAddr) -> LongFlow {
        LongFlow::open(self.ns(from), to)
            .unwrap_or_else(|kind| panic!("cannot open a flow from {from} to {to}: {kind:?}"))
    }

    /// Sets the egress addresses (as seen by partners): from now on the partner accepts no other
    /// address, and the gateway counts packets from other addresses.
    pub fn set_egress(&self, addresses: &[IpAddr]) {
        self.partner.accept_only(addresses.iter().copied());
        let mut script = String::from("flush set inet igw egress4\nflush set inet igw egress6\n");
        for address in addresses {
            let set = if address.is_ipv4() {
                "egress4"
            } else {
                "egress6"
            };
            script.push_str(&format!("add element inet igw {set} {{ {address} }}\n"));
        }
        self.ns("vpc").nft(&script);
    }

    /// Packets on a wrong wire so far.
    pub fn leaks(&self) -> Leaks {
        let vpc = self.ns("vpc");
        let listing = vpc.exec(&["nft", "-j", "list", "counters", "table", "inet", "igw"]);
        let listing = listing.ok().json();
        let packets = |name: &str| {
            let objects = listing["nftables"]
                .as_array()
                .expect("nft -j lists an array");
            let found = objects
                .iter()
                .find(|object| object["counter"]["name"] == name);
            let packets = found.and_then(|object| object["counter"]["packets"].as_u64());
            packets.unwrap_or_else(|| panic!("the gateway has no counter {name}: {listing}"))
        };
        Leaks {
            partner4: packets("leak4"),
            partner6: packets("leak6"),
            s3_egress4: packets("s3_egress4"),
            s3_egress6: packets("s3_egress6"),
            unmapped: packets("unmapped"),
        }
    }

    /// Sets all leak counters to zero.
    pub fn reset_leaks(&self) {
        self.ns("vpc")
            .run(&["nft", "reset", "counters", "table", "inet", "igw"]);
    }

    /// Lets the S3 server answer on every address of more prefixes, and the router lead there.
    pub fn serve_s3<P: std::fmt::Display>(&self, prefixes: impl IntoIterator<Item = P>) {
        let (mut local, mut routes) = (String::new(), String::new());
        for prefix in prefixes {
            let prefix = prefix.to_string();
            // `replace` instead of `add`: the lab may serve a prefix of the document already.
            local.push_str(&format!("route replace local {prefix} dev lo\n"));
            let route = topology::router_route(&prefix, "s3");
            routes.push_str(&route.replacen("route add", "route replace", 1));
            routes.push('\n');
        }
        self.ns("s3").ip_batch(&local);
        self.ns("vpc").ip_batch(&routes);
    }

    /// Translation by plain nftables on a NAT instance, for tests with Trailblazer on the hosts:
    /// packets from the subnet to destinations outside the VPC get the egress address; the
    /// instance's own traffic does not.
    pub fn plain_nat(&self, name: &str) {
        let NatAddresses {
            private,
            private6,
            egress,
            egress6,
            second,
            second6,
            ..
        } = self.nat(name);
        let link = match self.layout {
            NatLayout::OneInterface => PRIVATE_LINK,
            NatLayout::TwoInterfaces | NatLayout::BulkInterface => PUBLIC_LINK,
        };
        self.ns(name).nft(&format!(
            "table inet natbox {{
               chain post {{
                 type nat hook postrouting priority srcnat;
                 ip saddr {{ {private}, {second} }} return
                 ip6 saddr {{ {private6}, {second6} }} return
                 oifname {link} ip saddr {SUBNET4} ip daddr != {VPC4} snat ip to {egress}
                 oifname {link} ip6 saddr {SUBNET6} ip6 daddr != {VPC6} snat ip6 to {egress6}
               }}
             }}"
        ));
    }

    /// Like `plain_nat`, and drops packets of unknown flows. A NAT needs the drop if flows change
    /// their gateway midway: otherwise packets outside any conntrack entry would leave
    /// untranslated.
    pub fn guarded_nat(&self, name: &str) {
        self.plain_nat(name);
        self.ns(name).nft(
            "table inet natguard {
               chain forward { type filter hook forward priority filter; ct state invalid drop; }
             }",
        );
    }

    /// Points a host's main defaults, both families, at a NAT instance: the usual setup without
    /// Trailblazer on the host (the hosts of nat-role tests).
    pub fn default_via(&self, host: &str, nat: &str) {
        let nat = self.nat(nat);
        self.ns(host).ip_batch(&format!(
            "route add default via {} dev {PRIVATE_LINK} metric 100\n\
             route add default via {} dev {PRIVATE_LINK} metric 100\n",
            nat.private, nat.private6
        ));
    }

    /// Removes the defaults of `default_via`.
    pub fn no_default_via(&self, host: &str, nat: &str) {
        let nat = self.nat(nat);
        self.ns(host).ip_batch(&format!(
            "route del default via {} dev {PRIVATE_LINK} metric 100\n\
             route del default via {} dev {PRIVATE_LINK} metric 100\n",
            nat.private, nat.private6
        ));
    }

    /// The private IPv4 and IPv6 addresses of `host1` or `host2`.
    #[track_caller]
    pub fn host_addresses(&self, host: &str) -> (IpAddr, IpAddr) {
        match host {
            "host1" => (HOST1, HOST1_6),
            "host2" => (HOST2, HOST2_6),
            other => panic!("no host `{other}`; there are host1 and host2"),
        }
    }

    /// Flaps a host's link, then restores the IPv6 address and the main defaults like a DHCP client
    /// and router advertisements. Trailblazer's routes stay lost.
    pub fn flap_host(&self, host: &str) {
        let (address, address6) = self.host_addresses(host);
        let ns = self.ns(host);
        ns.flap(PRIVATE_LINK);
        let [default4, default6] = dhcp_routes(address);
        ns.ip_batch(&format!(
            "addr replace {address6}/64 dev {PRIVATE_LINK} nodad\n{default4}\n{default6}\n"
        ));
    }

    /// Writes a config for a namespace and returns the path. `$MIRROR` in the text becomes the
    /// mirror's URL and `$STATE` a state directory of the namespace; both vanish with the lab.
    pub fn config(&self, ns: &str, text: &str) -> String {
        let text = text.replace("$MIRROR", &self.mirror.url());
        write_config(ns, &text)
    }

    /// Runs the built binary in a namespace.
    pub fn trailblazer(&self, ns: &str, arguments: &[&str]) -> Output {
        trailblazer(self.ns(ns), arguments)
    }
}

/// The first host address of a prefix (the address itself for a single address).
pub fn address_in(prefix: &str) -> IpAddr {
    let net: IpNet = prefix
        .parse()
        .unwrap_or_else(|_| panic!("`{prefix}` is not a prefix"));
    net.hosts().next().unwrap_or(net.network())
}

/// Gives the whole lab its own resolver configuration.
pub fn set_resolv_conf(text: &str) {
    let own = scratch().join("resolv.conf");
    std::fs::write(&own, text).expect("the scratch directory is writable");
    let system = Path::new("/etc/resolv.conf");
    // On many systems a link into /run, and the lab has a private, empty /run.
    if let Ok(target) = std::fs::read_link(system)
        && !system.exists()
    {
        let target = Path::new("/etc").join(target);
        std::fs::create_dir_all(target.parent().expect("a file has a directory"))
            .expect("/run is ours");
        std::fs::write(&target, text).expect("/run is ours");
        return;
    }
    let status = Command::new("mount")
        .arg("--bind")
        .arg(&own)
        .arg(system)
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "cannot bind /etc/resolv.conf"
    );
}
