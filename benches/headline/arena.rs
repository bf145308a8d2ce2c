//! Namespaces of the model: customers' site, S3, the VPC's router, a NAT, and the servers.
//!
//! ```text
//! server 1 … N ── br0 10.0.0.1 ─ router ─┬─ site 93.184.216.34
//!                  │                │    └─ S3 52.216.10.10
//!            priv 10.0.0.10         │
//!                 NAT ── pub 198.51.100.5 (egress address), shaped both ways
//!                     └─ bulk 203.0.113.10, not shaped
//! ```

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

#[path = "../passes/programs.rs"]
mod programs;

use super::Res;
use super::model::{QUEUE, SITE_RATE};
pub use programs::{ip_batch, output};

/// The VPC's router, next hop of the bypass path.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The NAT, next hop of the egress path.
pub const NAT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
/// The fixed address that customers allow.
pub const EGRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 5);
/// The NAT's first address, for storage without a bulk interface.
pub const NAT_FIRST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 4);
/// The address of the NAT's bulk interface.
pub const BULK: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// A customer's site.
pub const SITE: Ipv4Addr = Ipv4Addr::new(93, 184, 216, 34);
/// S3, in a prefix of the sample document.
pub const S3: Ipv4Addr = Ipv4Addr::new(52, 216, 10, 10);

/// A directory on the lab's private tmpfs.
pub const DIRECTORY: &str = "/run/headline";

/// Neighbour discovery of hundreds of servers on one bridge would disturb the figures.
const WITHOUT_IPV6: [&str; 2] = [
    "ipv6/conf/all/disable_ipv6=1",
    "ipv6/conf/default/disable_ipv6=1",
];

/// The longest wait of a packet in the queue of the site's link, in milliseconds.
const SITE_QUEUE: u32 = 1000;

/// A network namespace.
#[derive(Debug)]
pub struct Space(File);

impl Space {
    fn open(name: &str) -> Res<Space> {
        let path = format!("/run/netns/{name}");
        let file = File::open(&path).map_err(|error| format!("{path}: {error}"))?;
        Ok(Space(file))
    }

    /// A second handle.
    pub fn share(&self) -> Res<Space> {
        Ok(Space(self.0.try_clone()?))
    }

    /// Moves the thread into the namespace; later sockets and processes of the thread belong there.
    pub fn enter(&self) -> std::io::Result<()> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(())
    }

    /// Feeds lines to `ip -batch` in the namespace.
    pub fn ip(&self, lines: &str) -> Res<()> {
        self.enter()?;
        ip_batch(lines)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Arena {
    pub router: Space,
    pub nat: Space,
    pub site: Space,
    pub s3: Space,
    pub servers: Vec<Space>,
}

/// The packets of the shaped uplink since its start, both directions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Uplink {
    pub packets: u64,
    pub bytes: u64,
    pub drops: u64,
}

impl Uplink {
    /// The difference to an earlier reading.
    pub fn since(self, earlier: Uplink) -> Uplink {
        Uplink {
            packets: self.packets - earlier.packets,
            bytes: self.bytes - earlier.bytes,
            drops: self.drops - earlier.drops,
        }
    }
}

/// The address of a server, counted from 0.
pub fn address(server: usize) -> Ipv4Addr {
    let [third, fourth] = [server / 200 + 1, server % 200 + 1].map(|part| part as u8);
    Ipv4Addr::new(10, 0, third, fourth)
}

/// The link-layer address of an address in the VPC.
fn link_address(of: Ipv4Addr) -> String {
    let octets = of.octets().map(|octet| format!(":{octet:02x}")).concat();
    format!("02:00{octets}")
}

/// A permanent neighbour: the kernel has one table of 1024 other neighbours for all namespaces of a
/// machine (`gc_thresh3`), and 250 servers would fill the table.
fn neighbour(address: Ipv4Addr, device: &str) -> String {
    let mac = link_address(address);
    format!("neigh add {address} lladdr {mac} dev {device} nud permanent\n")
}

impl Arena {
    /// All namespaces and links; every server sends everything to the NAT.
    pub fn new(servers: usize, uplink: f64) -> Res<Arena> {
        std::fs::create_dir_all(DIRECTORY)?;
        raise_file_limit()?;
        let names: Vec<String> = (0..servers).map(|number| format!("h{number}")).collect();
        let fixed = ["router", "nat", "site", "s3"].map(str::to_owned);
        let add = |name: &String| format!("netns add {name}\n");
        ip_batch(&fixed.iter().chain(&names).map(add).collect::<String>())?;
        let arena = Arena {
            router: Space::open("router")?,
            nat: Space::open("nat")?,
            site: Space::open("site")?,
            s3: Space::open("s3")?,
            servers: names
                .iter()
                .map(|name| Space::open(name))
                .collect::<Res<_>>()?,
        };
        for space in [&arena.router, &arena.nat, &arena.site, &arena.s3] {
            space.enter()?;
            sysctls(&[
                "ipv4/conf/all/forwarding=1",
                "ipv4/conf/all/send_redirects=0",
            ])?;
            sysctls(&WITHOUT_IPV6)?;
        }
        for space in &arena.servers {
            space.enter()?;
            sysctls(&WITHOUT_IPV6)?;
        }
        arena.core()?;
        arena.shape(uplink)?;
        arena.hosts(&names)?;
        Ok(arena)
    }

    fn core(&self) -> Res<()> {
        let mac = link_address(NAT);
        ip_batch(&format!(
            "link add priv address {mac} netns nat type veth peer name nat netns router\n"
        ))?;
        ip_batch(
            "link add pub netns nat type veth peer name uplink netns router\n\
            link add bulk netns nat type veth peer name bulk netns router\n\
            link add eth0 netns site type veth peer name site netns router\n\
            link add eth0 netns s3 type veth peer name s3 netns router\n",
        )?;
        self.router.ip(&format!(
            "link add br0 address {} type bridge\nlink set br0 up\nlink set nat master br0 up\n\
             addr add {ROUTER}/16 dev br0\nlink set uplink up\naddr add 198.51.100.1/24 dev uplink\n\
             link set bulk up\naddr add 203.0.113.1/24 dev bulk\n\
             link set site up\naddr add 192.0.2.1/30 dev site\n\
             link set s3 up\naddr add 192.0.2.5/30 dev s3\n\
             route add {SITE}/32 via 192.0.2.2\nroute add {S3}/32 via 192.0.2.6\n",
            link_address(ROUTER)
        ))?;
        sysctls(&["ipv4/conf/br0/send_redirects=0"])?;
        for (space, address, service, router) in [
            (&self.site, "192.0.2.2/30", SITE, "192.0.2.1"),
            (&self.s3, "192.0.2.6/30", S3, "192.0.2.5"),
        ] {
            space.ip(&format!(
                "link set lo up\nlink set eth0 up\naddr add {address} dev eth0\n\
                 addr add {service}/32 dev lo\nroute add default via {router}\n"
            ))?;
        }
        self.nat.ip(&format!(
            "link set lo up\nlink set priv up\nlink set pub up\nlink set bulk up\n\
             addr add {NAT}/16 dev priv\naddr add {NAT_FIRST}/24 dev pub\naddr add {EGRESS}/24 dev pub\n\
             addr add {BULK}/24 dev bulk\nroute add default via 198.51.100.1 dev pub metric 100\n\
             route add default via 203.0.113.1 dev bulk metric 200\n"
        ))?;
        sysctls(&["ipv4/conf/priv/send_redirects=0"])
    }

    /// Shapes the uplink in both directions, with a queue of [`QUEUE`] milliseconds. The site's link
    /// has a larger rate: a load generator that was held up would otherwise send a burst of all that
    /// is due, and a drop of the uplink would show the machine and not the NAT.
    fn shape(&self, uplink: f64) -> Res<()> {
        for (space, device, rate, queue) in [
            (&self.nat, "pub", uplink, QUEUE),
            (&self.router, "uplink", uplink, QUEUE),
            (&self.site, "eth0", uplink * SITE_RATE, SITE_QUEUE),
        ] {
            space.enter()?;
            let words = format!(
                "qdisc add dev {device} root tbf rate {rate:.0}bit burst 3028 latency {queue}ms"
            );
            programs::command("tc", &words.split(' ').collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn hosts(&self, names: &[String]) -> Res<()> {
        let link = |(number, name): (usize, &String)| {
            let mac = link_address(address(number));
            format!(
                "link add priv address {mac} netns {name} type veth peer name {name} netns router\n"
            )
        };
        ip_batch(&names.iter().enumerate().map(link).collect::<String>())?;
        let port = |name: &String| format!("link set {name} master br0 up\n");
        self.router
            .ip(&names.iter().map(port).collect::<String>())?;
        let all = (0..self.servers.len()).map(address);
        for (space, device) in [(&self.router, "br0"), (&self.nat, "priv")] {
            let lines = all.clone().map(|server| neighbour(server, device));
            space.ip(&lines.collect::<String>())?;
        }
        let neighbours = [ROUTER, NAT].map(|other| neighbour(other, "priv")).concat();
        for (number, space) in self.servers.iter().enumerate() {
            space.ip(&format!(
                "link set lo up\nlink set priv up\naddr add {}/16 dev priv\n\
                 route add default via {NAT} dev priv\n{neighbours}",
                address(number)
            ))?;
        }
        Ok(())
    }

    /// A reader of the uplink's counters, for any thread.
    pub fn meter(&self) -> Res<Meter> {
        Ok(Meter([
            (self.nat.share()?, "pub"),
            (self.router.share()?, "uplink"),
        ]))
    }
}

/// See [`Arena::meter`].
#[derive(Debug)]
pub struct Meter([(Space, &'static str); 2]);

impl Meter {
    /// Reads the counters of both directions of the uplink.
    ///
    /// # Errors
    /// A message if `tc` has no answer.
    pub fn read(&self) -> Result<Uplink, String> {
        let mut sum = Uplink::default();
        for (space, device) in &self.0 {
            space
                .enter()
                .map_err(|error| format!("no way to {device}: {error}"))?;
            let text = output("tc", &["-s", "-j", "qdisc", "show", "dev", device]);
            let text = text.map_err(|error| error.to_string())?;
            let all: serde_json::Value =
                serde_json::from_str(&text).map_err(|error| format!("tc -j: {error}: {text}"))?;
            let count = |key: &str| {
                let found = all[0][key].as_u64();
                found.ok_or_else(|| format!("`tc` shows no {key} of {device}: {text}"))
            };
            sum.packets += count("packets")?;
            sum.bytes += count("bytes")?;
            sum.drops += count("drops")?;
        }
        Ok(sum)
    }
}

/// Writes settings below `/proc/sys/net` of the thread's namespace.
fn sysctls(settings: &[&str]) -> Res<()> {
    for setting in settings {
        let (key, value) = setting.split_once('=').unwrap_or((setting, "1"));
        let path = format!("/proc/sys/net/{key}");
        std::fs::write(&path, value).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(())
}

/// A server has two connections, each with two ends in this process.
fn raise_file_limit() -> Res<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    Ok(setrlimit(Resource::Nofile, limit)?)
}
