//! Network namespaces of a contender: a sender, a NAT in the nat role, and the internet.
//!
//! ```text
//! host  sender (10.0.1.11) ── far (router 10.0.1.1, gateway 10.0.1.10, partner, storage)
//! nat   sender (10.0.1.11) ── nat (10.0.1.10) ── pub (10.0.0.0/24) and bulk (10.0.2.0/24) ── far
//! ```

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::contenders::Role;
use super::probes::Target;
use super::{Res, arena};

/// The destination of all partners' packets, and of storage. The first prefixes of the document.
pub const PARTNER: [&str; 2] = ["93.184.216.34", "2606:2800:220:1::34"];
/// As above.
pub const STORAGE: [&str; 2] = ["44.0.0.10", "2600:1f00::10"];

/// Datagrams to this port or a higher one, with this content, which the far end drops as they come in.
pub const DROPPED_PORT: u16 = 9999;
/// As above.
pub const DROPPED: &[u8] = b"8 octets";
/// The length of such a datagram, header included.
const DROPPED_LENGTH: usize = 8 + DROPPED.len();

/// See the module.
#[derive(Debug)]
pub struct Scene {
    sender: Space,
    /// The namespace with the contender's rules.
    subject: Space,
    far: Space,
    /// The factor by which the operations are fewer, where each takes long.
    pub slowness: usize,
    /// The rules serve IPv4 alone.
    pub only_ipv4: bool,
}

impl Scene {
    /// The namespaces, without any rules.
    pub fn new(name: &str, role: Role) -> Res<Scene> {
        let (sender, far) = (format!("{name}-s"), format!("{name}-f"));
        let sender = Space::new(&sender)?;
        let far = Space::new(&far)?;
        far.batch(&format!(
            "addr add {}/32 dev lo\naddr add {}/32 dev lo\n\
             addr add {}/128 dev lo nodad\naddr add {}/128 dev lo nodad\n",
            PARTNER[0], STORAGE[0], PARTNER[1], STORAGE[1]
        ))?;
        let subject = match role {
            Role::Host => {
                link(&sender, "priv", &far, "priv")?;
                far.addresses("priv", &["10.0.1.1/24", "10.0.1.10/24"])?;
                far.addresses(
                    "priv",
                    &["2600:1f18:1000:1::1/64", "2600:1f18:1000:1::10/64"],
                )?;
                Space::open(&sender.name)?
            }
            Role::Nat => Scene::nat(&format!("{name}-n"), &sender, &far)?,
        };
        sender.addresses("priv", &["10.0.1.11/24", "2600:1f18:1000:1::11/64"])?;
        let next = match role {
            Role::Host => ["10.0.1.1", "2600:1f18:1000:1::1"],
            Role::Nat => ["10.0.1.10", "2600:1f18:1000:1::10"],
        };
        for next in next {
            sender.batch(&format!("route add default via {next} dev priv\n"))?;
        }
        far.drop_datagrams(if role == Role::Host {
            &["priv"]
        } else {
            &["pub", "bulk"]
        })?;
        Ok(Scene {
            sender,
            subject,
            far,
            slowness: 1,
            only_ipv4: false,
        })
    }

    fn nat(name: &str, sender: &Space, far: &Space) -> Res<Space> {
        let nat = Space::new(name)?;
        link(sender, "priv", &nat, "priv")?;
        nat.addresses("priv", &["10.0.1.10/24", "2600:1f18:1000:1::10/64"])?;
        for (device, net) in [("pub", 0), ("bulk", 2)] {
            link(&nat, device, far, device)?;
            let v6 = |last: &str| format!("2600:1f18:1000:{}::{last}/64", 10 + net);
            nat.addresses(device, &[&format!("10.0.{net}.10/24"), &v6("10")])?;
            far.addresses(device, &[&format!("10.0.{net}.1/24"), &v6("1")])?;
        }
        for (metric, net) in [(100, 0), (200, 2)] {
            let device = if net == 0 { "pub" } else { "bulk" };
            nat.batch(&format!(
                "route add default via 10.0.{net}.1 dev {device} metric {metric}\n\
                 route add default via 2600:1f18:1000:{}::1 dev {device} metric {metric}\n",
                10 + net
            ))?;
        }
        // The way back to sources that nobody translates.
        far.batch(
            "route add 10.0.1.0/24 via 10.0.0.10 dev pub\n\
             route add 2600:1f18:1000:1::/64 via 2600:1f18:1000:10::10 dev pub\n",
        )?;
        nat.enter()?;
        for forwarding in ["ipv4/conf/all/forwarding", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{forwarding}"), "1")?;
        }
        Ok(nat)
    }

    /// True if the rules serve the family of the destination.
    pub fn serves(&self, target: Target) -> bool {
        !(self.only_ipv4 && target.is_ipv6())
    }

    /// Moves the thread to the sender.
    pub fn at_sender(&self) -> Res<()> {
        self.sender.enter()
    }

    /// Moves the thread to the other end.
    pub fn at_far_end(&self) -> Res<()> {
        self.far.enter()
    }

    /// Moves the thread to the place of the rules.
    pub fn at_subject(&self) -> Res<()> {
        self.subject.enter()
    }

    /// Empties the table of flows.
    pub fn forget_flows(&self) -> Res<()> {
        self.subject.enter()?;
        arena::command("conntrack", &["-F"])
    }
}

fn link(one: &Space, name: &str, other: &Space, there: &str) -> Res<()> {
    arena::ip_batch(&format!(
        "link add {name} netns {} type veth peer name {there} netns {}\n",
        one.name, other.name
    ))?;
    one.batch(&format!("link set {name} up\n"))?;
    other.batch(&format!("link set {there} up\n"))
}

/// A network namespace.
#[derive(Debug)]
struct Space {
    name: String,
    file: File,
}

impl Space {
    fn new(name: &str) -> Res<Space> {
        arena::command("ip", &["netns", "add", name])?;
        let space = Space::open(name)?;
        space.enter()?;
        for (setting, value) in [
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/all/disable_ipv6", "0"),
        ] {
            std::fs::write(format!("/proc/sys/net/{setting}"), value)?;
        }
        space.batch("link set lo up\n")?;
        Ok(space)
    }

    fn open(name: &str) -> Res<Space> {
        Ok(Space {
            name: name.to_owned(),
            file: File::open(format!("/run/netns/{name}"))?,
        })
    }

    fn enter(&self) -> Res<()> {
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(())
    }

    fn batch(&self, lines: &str) -> Res<()> {
        self.enter()?;
        arena::ip_batch(lines)
    }

    fn addresses(&self, device: &str, addresses: &[&str]) -> Res<()> {
        let line = |address: &&str| {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            format!("addr add {address} dev {device}{nodad}\n")
        };
        self.batch(&addresses.iter().map(line).collect::<String>())
    }

    /// The far end of datagrams costs next to nothing, so that the figure is the sender's path.
    fn drop_datagrams(&self, devices: &[&str]) -> Res<()> {
        self.enter()?;
        let chain = |device: &&str| {
            format!(
                "add chain netdev far {device} {{ type filter hook ingress device {device} priority 0; }}\n\
                 add rule netdev far {device} udp dport >= {DROPPED_PORT} udp length {DROPPED_LENGTH} drop\n"
            )
        };
        let chains: String = devices.iter().map(chain).collect();
        nft(&format!("add table netdev far\n{chains}"))
    }
}

/// Feeds commands to `nft` in the namespace of the thread.
pub fn nft(commands: &str) -> Res<()> {
    let path = format!("{}/commands.nft", arena::DIRECTORY);
    std::fs::write(&path, commands)?;
    arena::command("nft", &["-f", &path])
}

/// Runs a program in the namespace of the thread; returns the exit code and the last line.
pub fn code_of(program: &str, arguments: &[&str]) -> Res<(Option<i32>, String)> {
    let output = Command::new(program).args(arguments).output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let last = said.trim().lines().last().unwrap_or_default().to_owned();
    Ok((output.status.code(), last))
}
