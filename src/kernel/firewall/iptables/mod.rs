//! The iptables backend: iptables and ip6tables, in the installed variant (nft or legacy).
//!
//! Rules are read with `iptables-save` and written with `iptables-restore --noflush`: one process
//! per family with all tables in the input, one transaction per table. Built-in chains keep all
//! foreign rules, and contain one jump to a chain of ours. If a later transaction fails, the
//! backend restores the earlier tables and families.

use std::cell::OnceCell;

pub use self::foreign::foreign_chains;
pub use self::marks::foreign_marks;
use self::model::Own;
pub use self::model::PREFIX as CHAIN_PREFIX;
use self::read::Reading;
pub use self::runs::LegacyRuns;
use self::tool::{Missing, Version, refused};
use super::backend::FirewallBackend;
use super::error::FirewallError;
use super::nftables;
use crate::firewall::{
    BackendKind, ObservedFirewall, OwnedFirewall, PathTraffic, Ruleset, SavedRules, Variant,
};
use crate::kernel::firewall::extras::{Extra, Extras};
use crate::types::{Family, PerFamily};

mod builder;
mod conditions;
mod foreign;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;
pub mod legacy;
mod marks;
mod model;
mod order;
mod read;
mod records;
mod render;
mod rule;
mod runs;
mod save;
mod script;
mod tool;
mod write;

/// Seconds for `-restore` to wait for the xtables lock, which a big foreign restore holds for some.
pub const LOCK_WAIT_S: u32 = 5;

/// The first version with `iptables-restore --wait` (release notes of iptables).
const WAITING_RESTORE: (u32, u32, u32) = (1, 6, 2);

/// The iptables backend.
#[derive(Debug)]
pub struct IptablesBackend {
    tools: PerFamily<&'static str>,
    wait: u32,
    version: OnceCell<Result<Version, Missing>>,
    variants_checked: bool,
    notes: Vec<String>,
    /// Families that are neither read nor written, see [`FirewallBackend::leave`].
    left: PerFamily<bool>,
}

impl IptablesBackend {
    /// A backend for the `iptables` in PATH. The search waits for the first use, since the version
    /// request starts two processes that a pass with nftables doesn't need.
    /// [`FirewallBackend::observe`] reports a missing or broken binary.
    pub fn detect() -> IptablesBackend {
        Self::with_tools("iptables", "ip6tables", LOCK_WAIT_S)
    }

    /// A backend for other programs, for example `iptables-legacy` and `ip6tables-legacy`, with
    /// their `-save` and `-restore`. `wait` is the waiting time for the lock in seconds.
    pub fn with_tools(ipv4: &'static str, ipv6: &'static str, wait: u32) -> IptablesBackend {
        IptablesBackend {
            tools: PerFamily { ipv4, ipv6 },
            wait,
            version: OnceCell::new(),
            variants_checked: false,
            notes: Vec::new(),
            left: PerFamily::default(),
        }
    }

    /// The families that are read and written.
    fn handled(&self) -> impl Iterator<Item = Family> + use<> {
        let left = self.left;
        Family::ALL
            .into_iter()
            .filter(move |family| !left.get(*family))
    }

    fn version(&self) -> &Result<Version, Missing> {
        self.version.get_or_init(|| tool::probe(self.tools.ipv4))
    }

    /// The warnings of the tools at the last reading, for example about tables of the other variant.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Describes each of our jumps behind foreign rules in a built-in chain. A foreign rule before
    /// our jump may accept or translate a packet, so that our rules never see the packet.
    ///
    /// `check` warns about the position, but a pass doesn't treat the position as drift: kube-proxy
    /// and Docker insert their jumps first too, and two programs in competition for the first place
    /// would repair without end.
    pub fn jumps_behind_others(&mut self) -> Result<Vec<String>, FirewallError> {
        let mut behind = Vec::new();
        for family in Family::ALL {
            let Reading::Read(saved) = self.read(family)? else {
                continue;
            };
            for (table, own) in &saved.own.0 {
                for jump in own.jumps.iter().filter(|jump| own.foreign_before(jump) > 0) {
                    behind.push(format!(
                        "{family}: Trailblazer's jump in chain {} of table {table} is rule {}, behind foreign rules",
                        jump.from, jump.position
                    ));
                }
            }
        }
        Ok(behind)
    }

    fn read(&mut self, family: Family) -> Result<Reading, FirewallError> {
        let tool = self.tools.get(family);
        match self.version() {
            Err(Missing::NoBinary) => Ok(Reading::Absent(read::no_binary(tool))),
            Err(Missing::Broken(why)) => Ok(Reading::Unreadable(why.clone())),
            Ok(_) => read::read(tool, family, &mut self.notes),
        }
    }
}

/// True for a table of iptables-nft: `NFPROTO_IPV4` 2, `NFPROTO_IPV6` 10 (linux/netfilter.h).
pub fn table_is_ours(family: u8, table: &str) -> bool {
    [2, 10].contains(&family) && ["nat", "mangle", "filter"].contains(&table)
}

static EXTRAS: Extras = Extras::new(&Extra::OF_IPTABLES);

impl FirewallBackend for IptablesBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Iptables
    }

    fn description(&self) -> String {
        match self.version() {
            Ok(version) => format!("iptables {version}"),
            Err(Missing::NoBinary) => "iptables (no binary in PATH)".to_owned(),
            Err(Missing::Broken(why)) => format!("iptables ({why})"),
        }
    }

    /// Without a usable binary there are no rules to announce or to read again.
    fn variant(&self) -> Variant {
        self.version()
            .as_ref()
            .map_or(Variant::Nft, |version| version.variant)
    }

    /// Chains of the nft variant can be found without the iptables binary.
    fn certainly_holds_ours(&mut self, found: &ObservedFirewall) -> bool {
        let hidden = matches!(
            found,
            ObservedFirewall::Unavailable(_) | ObservedFirewall::Unreadable(_)
        );
        hidden && nftables::holds_iptables_chains(CHAIN_PREFIX).unwrap_or(false)
    }

    fn observe(&mut self) -> Result<ObservedFirewall, FirewallError> {
        self.notes.clear();
        let mut own = PerFamily::<Own>::default();
        let mut foreign = Vec::new();
        let mut absent = Vec::new();
        for family in self.handled() {
            match self.read(family)? {
                Reading::Read(saved) => {
                    *own.get_mut(family) = saved.own;
                    let described = |chain| format!("{family}: {chain}");
                    foreign.extend(saved.foreign.into_iter().map(described));
                }
                Reading::Absent(why) => absent.push(why),
                Reading::Unreadable(why) => return Ok(ObservedFirewall::Unreadable(why)),
            }
        }
        if !foreign.is_empty() {
            return Ok(ObservedFirewall::Foreign(foreign.join("; ")));
        }
        if absent.len() == Family::ALL.len() {
            return Ok(ObservedFirewall::Unavailable(absent.swap_remove(0)));
        }
        if Family::ALL.iter().all(|f| own.get(*f).is_empty()) {
            return Ok(ObservedFirewall::Absent);
        }
        let snapshot = serde_json::to_vec(&(&own.ipv4, &own.ipv6)).map_err(|error| {
            refused("record the rules for a rollback", format!("JSON: {error}"))
        })?;
        Ok(ObservedFirewall::Owned(OwnedFirewall {
            text: text(&own),
            snapshot: SavedRules(snapshot),
        }))
    }

    fn render(&self, ruleset: &Ruleset) -> Result<Vec<String>, FirewallError> {
        Ok(text(&rendered(&EXTRAS.usable(ruleset))?))
    }

    fn traffic(&mut self) -> Result<Option<PathTraffic>, FirewallError> {
        let mut sum: Option<PathTraffic> = None;
        for family in Family::ALL {
            let counted = match self.read(family)? {
                Reading::Read(saved) => saved.own.traffic(),
                Reading::Absent(_) => None,
                Reading::Unreadable(why) => return Err(refused("read the counters", why)),
            };
            for (path, counted) in counted.into_iter().flatten() {
                *sum.get_or_insert_default().of_mut(path).get_mut(family) += counted;
            }
        }
        Ok(sum)
    }

    fn replace(&mut self, ruleset: &Ruleset) -> Result<(), FirewallError> {
        EXTRAS.install(ruleset, |ruleset| {
            self.apply("replace our rules", &rendered(ruleset)?)
        })
    }

    fn restore(&mut self, snapshot: &SavedRules) -> Result<(), FirewallError> {
        let (ipv4, ipv6) = serde_json::from_slice(&snapshot.0).map_err(|error| {
            refused(
                "restore our earlier rules",
                format!("not a snapshot of the iptables backend: {error}"),
            )
        })?;
        self.apply("restore our earlier rules", &PerFamily { ipv4, ipv6 })
    }

    fn remove(&mut self) -> Result<(), FirewallError> {
        self.apply("remove our rules", &PerFamily::default())
    }

    fn leave(&mut self, families: PerFamily<bool>) {
        self.left = families;
    }

    /// Lets `iptables-restore` parse the rules. The kernel is not asked.
    fn rehearse(&mut self, ruleset: &Ruleset) -> Result<(), FirewallError> {
        EXTRAS.install(ruleset, |ruleset| {
            let goal = rendered(ruleset)?;
            for family in self.handled() {
                if let Reading::Read(saved) = self.read(family)? {
                    let input = script::script(&saved, goal.get(family));
                    self.feed_with("check our rules", family, &input, &["--test"])?;
                }
            }
            Ok(())
        })
    }
}

fn rendered(ruleset: &Ruleset) -> Result<PerFamily<Own>, FirewallError> {
    let one = |family| {
        render::render(ruleset, family).map_err(|what| FirewallError::Inexpressible {
            backend: BackendKind::Iptables,
            what,
        })
    };
    Ok(PerFamily {
        ipv4: one(Family::Ipv4)?,
        ipv6: one(Family::Ipv6)?,
    })
}

fn text(own: &PerFamily<Own>) -> Vec<String> {
    Family::ALL
        .iter()
        .flat_map(|family| own.get(*family).text(*family))
        .collect()
}
