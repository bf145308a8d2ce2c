//! The rules whose price is measured.

use super::Res;
use super::parts::{self, Part};
use super::rivals;
use super::scene::Scene;
use super::subject::{self, Served};

/// The number of prefixes of the bounds on packets.
pub const USUAL: usize = 441;
/// No prefix: all packets take the egress path.
pub const NONE: usize = 0;
/// The prefixes of a small region.
pub const FEW: usize = 21;
/// The most prefixes, for the bound on growth.
pub const MANY: usize = 16_000;
const SIZES: [usize; 4] = [NONE, FEW, USUAL, MANY];
/// The numbers of prefixes of programs with a rule of iptables for each.
const LINEAR: [usize; 2] = [USUAL, 7_904];

/// A role of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Packets of the host's own sockets.
    Host,
    /// Forwarded packets.
    Nat,
}

impl Role {
    /// Both roles.
    pub const ALL: [Role; 2] = [Role::Host, Role::Nat];

    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Host => "host",
            Role::Nat => "nat",
        }
    }

    /// The rules that such a machine has without us.
    pub fn alone(self) -> Rules {
        match self {
            Role::Host => Rules::Conntrack,
            Role::Nat => Rules::Masquerade,
        }
    }
}

/// A backend of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firewall {
    Nftables,
    Iptables,
}

impl Firewall {
    /// Both backends.
    pub const ALL: [Firewall; 2] = [Firewall::Nftables, Firewall::Iptables];

    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Firewall::Nftables => "nftables",
            Firewall::Iptables => "iptables",
        }
    }
}

/// The rules of a contender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// No rules: the kernel routes.
    Nothing,
    /// One rule that looks at the state of a flow, so that conntrack runs.
    Conntrack,
    /// Conntrack, and MASQUERADE on all interfaces to the internet.
    Masquerade,
    /// The rules of fck-nat: see `rivals`.
    FckNat,
    /// A rule of iptables for each of so many prefixes of a family.
    Linear(usize),
    /// Trailblazer with a firewall and a number of prefixes.
    Ours(Firewall, usize),
    /// Trailblazer at the usual number of prefixes without the first parts of `parts::of`.
    Without(Firewall, usize),
}

/// One contender of a role.
#[derive(Debug, Clone, Copy)]
pub struct Contender {
    pub role: Role,
    pub rules: Rules,
}

impl Contender {
    /// All contenders of a role, the path without rules first.
    pub fn all(role: Role) -> Vec<Contender> {
        let mut rules = vec![Rules::Nothing, Rules::Conntrack];
        if role == Role::Nat {
            rules.extend([Rules::Masquerade, Rules::FckNat]);
        }
        rules.extend(LINEAR.map(Rules::Linear));
        for firewall in Firewall::ALL {
            rules.extend(SIZES.map(|size| Rules::Ours(firewall, size)));
        }
        for firewall in Firewall::ALL {
            let parts = parts::of(role, firewall).len();
            rules.extend((1..=parts).map(|number| Rules::Without(firewall, number)));
        }
        let contender = |rules| Contender { role, rules };
        rules.into_iter().map(contender).collect()
    }

    /// The name in the table.
    pub fn name(&self) -> String {
        match self.rules {
            Rules::Nothing => "no rules".to_owned(),
            Rules::Conntrack => "conntrack alone".to_owned(),
            Rules::Masquerade => "MASQUERADE alone".to_owned(),
            Rules::FckNat => "fck-nat's rules".to_owned(),
            Rules::Linear(count) => format!("{count} rules of iptables"),
            Rules::Ours(firewall, size) => format!("ours, {}, {size}", firewall.as_str()),
            Rules::Without(firewall, parts) => {
                format!("ours, {}, without {parts} parts", firewall.as_str())
            }
        }
    }

    /// True for the contenders that show the price of a part alone.
    pub fn shows_a_part(&self) -> bool {
        matches!(self.rules, Rules::Without(..))
    }

    /// The namespaces, with the rules. The number tells the contenders apart.
    pub fn scene(&self, number: usize) -> Res<Scene> {
        let name = format!("{}{number}", self.role.as_str());
        let mut scene = Scene::new(&name, self.role)?;
        scene.at_subject()?;
        match self.rules {
            Rules::Nothing => {}
            Rules::Conntrack => rivals::conntrack()?,
            Rules::Masquerade => rivals::masquerade()?,
            Rules::FckNat => rivals::fck_nat()?,
            Rules::Linear(count) => {
                rivals::linear(self.role, count)?;
                scene.slowness = 1 + count / 100;
            }
            Rules::Ours(firewall, size) => {
                let served = subject::install(&name, self.role, firewall, size)?;
                scene.only_ipv4 = served == Served::Ipv4;
            }
            Rules::Without(firewall, count) => {
                subject::install(&name, self.role, firewall, USUAL)?;
                if self.role == Role::Host {
                    // Our rules switch conntrack on, and the last of them would switch it off.
                    rivals::conntrack()?;
                }
                let parts = parts::of(self.role, firewall);
                parts.iter().take(count).try_for_each(Part::remove)?;
            }
        }
        Ok(scene)
    }
}
