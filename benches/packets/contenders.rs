//! The rules whose price is measured.

use super::scene::{Scene, code_of, nft};
use super::{Res, arena, documents};

/// The binary under test, of the benchmark's own profile.
const BINARY: &str = env!("CARGO_BIN_EXE_trailblazer");

/// Published in 2023: not in the future of any clock.
const TOKEN: u64 = 1_700_000_000;

/// The number of prefixes of the bounds on packets.
pub const USUAL: usize = 441;
/// The fewest and the most prefixes with a bypass path, for the bound on growth.
pub const GROWTH: [usize; 2] = [21, 16_000];

/// A role of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Host,
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
    /// Trailblazer with a firewall and a number of prefixes.
    Ours(&'static str, usize),
}

/// One contender of a role.
#[derive(Debug, Clone, Copy)]
pub struct Contender {
    pub role: Role,
    pub rules: Rules,
}

impl Contender {
    /// All contenders, the path without rules first.
    pub fn all(role: Role) -> Vec<Contender> {
        let mut rules = vec![Rules::Nothing, Rules::Conntrack];
        rules.extend((role == Role::Nat).then_some(Rules::Masquerade));
        let sizes = [0, GROWTH[0], USUAL, GROWTH[1]];
        rules.extend(sizes.map(|size| Rules::Ours("nftables", size)));
        rules.push(Rules::Ours("iptables", USUAL));
        let contender = |rules| Contender { role, rules };
        rules.into_iter().map(contender).collect()
    }

    /// The name in the table.
    pub fn name(&self) -> String {
        match self.rules {
            Rules::Nothing => "no rules".to_owned(),
            Rules::Conntrack => "conntrack".to_owned(),
            Rules::Masquerade => "masquerade".to_owned(),
            Rules::Ours(firewall, size) => format!("{firewall} {size}"),
        }
    }

    /// The namespaces, with the rules.
    pub fn scene(&self) -> Res<Scene> {
        let name = format!("{}-{}", self.role.as_str(), self.name().replace(' ', "-"));
        let scene = Scene::new(&name, self.role)?;
        scene.at_subject()?;
        match self.rules {
            Rules::Nothing => {}
            Rules::Conntrack => nft(
                "table inet plain { chain first { type filter hook prerouting priority -150; ct state invalid accept; }; }\n",
            )?,
            Rules::Masquerade => nft(
                "table inet plain { chain last { type nat hook postrouting priority 100; oifname { pub, bulk } masquerade; }; }\n",
            )?,
            Rules::Ours(firewall, size) => self.install(&name, firewall, size)?,
        }
        Ok(scene)
    }

    fn install(&self, name: &str, firewall: &str, size: usize) -> Res<()> {
        let directory = format!("{}/{name}", arena::DIRECTORY);
        std::fs::create_dir_all(&directory)?;
        let prefixes = documents::prefixes(size.max(4));
        let mut document = documents::document(TOKEN, &prefixes);
        if size == 0 {
            document = document.replace(&format!("\"{}\"", documents::SERVICE), "\"EC2\"");
        }
        std::fs::write(format!("{directory}/ip-ranges.json"), document)?;
        let of_role = match self.role {
            Role::Host => {
                "[egress]\ngateways = [\"10.0.1.10\", \"2600:1f18:1000:1::10\"]\n".to_owned()
            }
            Role::Nat => "[bypass]\ninterface = \"bulk\"\n".to_owned(),
        };
        let nat = match self.role {
            Role::Host => String::new(),
            Role::Nat => "sources = [\"10.0.1.0/24\", \"2600:1f18:1000:1::/64\"]\n\
                 egress_addresses = [\"10.0.0.10\", \"2600:1f18:1000:10::10\"]\n\
                 egress_interface = \"pub\"\n"
                .to_owned(),
        };
        let config = format!(
            "role = \"{role}\"\n\
             [source]\nurl = \"{directory}/ip-ranges.json\"\nstate_dir = \"{directory}/state\"\n\
             [select]\nregions = [\"{region}\"]\nservices = [\"{service}\"]\n\
             [guard]\nmax_loss = \"100%\"\nmax_prefixes = 1000000\n\
             [vpc]\nmetadata = \"off\"\ncidrs = [\"10.0.0.0/16\", \"2600:1f18:1000::/56\"]\n\
             {of_role}[nat]\nbackend = \"{firewall}\"\n{nat}",
            role = self.role.as_str(),
            region = documents::REGION,
            service = documents::SERVICE,
        );
        let file = format!("{directory}/trailblazer.toml");
        std::fs::write(&file, config)?;
        let (code, said) = code_of(BINARY, &["reconcile", "-c", &file])?;
        // Without a prefix of the selection the bypass path is missing, and the pass says so.
        let degraded = size == 0 && code == Some(DEGRADED);
        if code == Some(0) || degraded {
            return Ok(());
        }
        Err(format!("{name}: trailblazer ended with {code:?}: {said}").into())
    }
}

/// The exit code of a pass with parts missing.
const DEGRADED: i32 = 1;
