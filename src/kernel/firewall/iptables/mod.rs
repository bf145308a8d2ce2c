//! The second backend: iptables and ip6tables, whichever variant is installed.
//!
//! Written through `iptables-restore --noflush`, one process a family with all tables in its
//! input, each table one transaction; read through `iptables-save`. Built-in chains are never
//! emptied: all that we have in them is one jump each. Families and tables are transactions of
//! their own; when a later one fails, the earlier ones are put back.

use std::cell::OnceCell;
use std::time::Duration;

pub use self::model::PREFIX as CHAIN_PREFIX;
use self::model::{Own, command};
use self::read::Reading;
use self::save::Saved;
use self::tool::{Missing, Version, io, refused};
use super::backend::FirewallBackend;
use super::error::FirewallError;
use super::nftables;
use crate::firewall::{
    BackendKind, ObservedFirewall, OwnedFirewall, PathTraffic, Ruleset, Snapshot, Variant,
};
use crate::types::{Family, PerFamily};

mod conditions;
mod model;
mod read;
mod render;
mod rule;
mod save;
mod script;
mod tool;

/// How long `-restore` waits for the xtables lock, in seconds: a big foreign restore holds it for
/// some seconds, and a pass must end.
pub const LOCK_WAIT_S: u32 = 5;

/// The first version whose `iptables-restore` knows `--wait` (its release notes).
const WAITING_RESTORE: (u32, u32, u32) = (1, 6, 2);

/// The iptables backend.
#[derive(Debug)]
pub struct IptablesBackend {
    tools: PerFamily<&'static str>,
    wait: u32,
    version: OnceCell<Result<Version, Missing>>,
    variants_checked: bool,
    notes: Vec<String>,
}

impl IptablesBackend {
    /// The `iptables` in PATH, looked for when first needed: asking its version takes two
    /// processes, which a pass with nftables can do without. What is wrong, [`observe`] says.
    ///
    /// [`observe`]: FirewallBackend::observe
    pub fn detect() -> IptablesBackend {
        Self::with_tools("iptables", "ip6tables", LOCK_WAIT_S)
    }

    /// With these programs (`iptables-legacy` and `ip6tables-legacy`, say) and what belongs to
    /// them (`iptables-legacy-save`, `iptables-legacy-restore`); `wait` is in seconds.
    pub fn with_tools(ipv4: &'static str, ipv6: &'static str, wait: u32) -> IptablesBackend {
        IptablesBackend {
            tools: PerFamily { ipv4, ipv6 },
            wait,
            version: OnceCell::new(),
            variants_checked: false,
            notes: Vec::new(),
        }
    }

    fn version(&self) -> &Result<Version, Missing> {
        self.version.get_or_init(|| tool::probe(self.tools.ipv4))
    }

    /// Remarks of the tools at the last reading, such as that the other variant has tables too.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Our jumps that don't come first in their built-in chain, described. Rules of others before
    /// ours may accept or translate a packet that we then never see.
    ///
    /// This is a remark for `check`, not drift: kube-proxy and Docker insist on the first place
    /// too, and two programs that both repair would push each other down for ever.
    pub fn jumps_behind_others(&mut self) -> Result<Vec<String>, FirewallError> {
        let mut behind = Vec::new();
        for family in Family::ALL {
            let Reading::Read(saved) = self.read(family)? else {
                continue;
            };
            for (table, own) in &saved.own.0 {
                for jump in own.jumps.iter().filter(|jump| jump.position > 1) {
                    behind.push(format!(
                        "{family}: in {} of table {table} our jump is rule {}, after those of others",
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

    /// Brings both families to their goal, or leaves both as they were.
    fn apply(&mut self, operation: &str, goal: &PerFamily<Own>) -> Result<(), FirewallError> {
        let removing = Family::ALL.iter().all(|f| goal.get(*f).is_empty());
        let mut before = PerFamily::<Saved>::default();
        for family in Family::ALL {
            *before.get_mut(family) = match self.read(family)? {
                Reading::Read(saved) => saved,
                Reading::Absent(_) if goal.get(family).is_empty() => Saved::default(),
                Reading::Absent(why) | Reading::Unreadable(why) => {
                    return Err(refused(operation, why));
                }
            };
            let foreign = &before.get(family).foreign;
            if !removing && !foreign.is_empty() {
                return Err(refused(
                    operation,
                    format!("{family}: conflict: {}", foreign.join("; ")),
                ));
            }
        }
        for family in Family::ALL {
            let input = script::script(before.get(family), goal.get(family));
            if let Err(error) = self.feed(operation, family, &input) {
                return Err(self.put_back(&before, error));
            }
        }
        let mut held = Vec::new();
        for family in Family::ALL {
            for reference in &before.get(family).references {
                let table = goal.get(family).0.get(&reference.table);
                if !table.is_some_and(|own| own.chains.contains_key(&reference.target)) {
                    held.push(format!(
                        "{} -t {} {}",
                        command(family),
                        reference.table,
                        reference.rule
                    ));
                }
            }
        }
        if held.is_empty() {
            return Ok(());
        }
        Err(refused(
            operation,
            format!(
                "all of ours is gone but for empty chains that rules of others lead to: delete `{}`, then run again",
                held.join("`, `")
            ),
        ))
    }

    fn feed(&mut self, operation: &str, family: Family, input: &str) -> Result<(), FirewallError> {
        if input.is_empty() {
            return Ok(());
        }
        self.check_variants(operation)?;
        let program = format!("{}-restore", self.tools.get(family));
        let operation = format!("{operation} with {program}");
        let wait = self.wait.to_string();
        // It waits anew for each table.
        let tables = u32::try_from(input.matches("COMMIT\n").count()).unwrap_or(u32::MAX);
        let extra = Duration::from_secs(u64::from(self.wait.saturating_mul(tables)));
        let output = tool::run(&program, &["--noflush", "--wait", &wait], input, extra)
            .map_err(|source| io(&operation, source))?;
        if output.status.success() {
            Ok(())
        } else {
            Err(tool::restore_failure(operation, &output, input, self.wait))
        }
    }

    /// Before the first write: the three programs must speak to the same rules, or we would read
    /// one set and write the other.
    fn check_variants(&mut self, operation: &str) -> Result<(), FirewallError> {
        if self.variants_checked {
            return Ok(());
        }
        let Ok(version) = self.version().clone() else {
            return Ok(());
        };
        if version.number < WAITING_RESTORE {
            return Err(refused(
                operation,
                format!(
                    "{} {version}: its restore can't wait for the lock; install iptables 1.6.2 or newer",
                    self.tools.ipv4
                ),
            ));
        }
        for part in ["save", "restore"] {
            let program = format!("{}-{part}", self.tools.ipv4);
            let output = tool::run(&program, &["--version"], "", Duration::ZERO)
                .map_err(|source| io(&format!("{operation}: ask {program} what it is"), source))?;
            let other = Version::parse(&String::from_utf8_lossy(&output.stdout));
            if let Some(other) = other.filter(|other| other.variant != version.variant) {
                return Err(refused(
                    operation,
                    format!(
                        "{} is {version} but {program} is {other}: make them one (update-alternatives)",
                        self.tools.ipv4
                    ),
                ));
            }
        }
        self.variants_checked = true;
        Ok(())
    }

    /// After a failure half-way: what was there before, from a fresh reading.
    fn put_back(&mut self, before: &PerFamily<Saved>, error: FirewallError) -> FirewallError {
        let mut failures = Vec::new();
        for family in Family::ALL {
            let now = match self.read(family) {
                Ok(Reading::Read(saved)) => saved,
                Ok(Reading::Absent(_)) => continue,
                Ok(Reading::Unreadable(why)) => {
                    failures.push(why);
                    continue;
                }
                Err(failure) => {
                    failures.push(failure.to_string());
                    continue;
                }
            };
            let input = script::script(&now, &before.get(family).own);
            if let Err(failure) = self.feed("put back what was there", family, &input) {
                failures.push(failure.to_string());
            }
        }
        if failures.is_empty() {
            return error;
        }
        refused(
            "replace our rules",
            format!(
                "{error}; then putting back what was there failed too: {}",
                failures.join("; ")
            ),
        )
    }
}

/// True if this nf_tables table may hold chains of ours: the nft variant keeps one table for each
/// family and name (`NFPROTO_IPV4` 2 and `NFPROTO_IPV6` 10, linux/netfilter.h).
pub fn table_is_ours(family: u8, table: &str) -> bool {
    [2, 10].contains(&family) && ["nat", "mangle", "filter"].contains(&table)
}

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
        for family in Family::ALL {
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
            refused(
                "keep what was read for a rollback",
                format!("it can't be written as JSON: {error}"),
            )
        })?;
        Ok(ObservedFirewall::Owned(OwnedFirewall {
            text: text(&own),
            snapshot: Snapshot(snapshot),
        }))
    }

    fn render(&self, ruleset: &Ruleset) -> Result<Vec<String>, FirewallError> {
        Ok(text(&rendered(ruleset)?))
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
        let goal = rendered(ruleset)?;
        self.apply("replace our rules", &goal)
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), FirewallError> {
        let (ipv4, ipv6) = serde_json::from_slice(&snapshot.0).map_err(|error| {
            refused(
                "restore our earlier rules",
                format!("the snapshot isn't one of this backend: {error}"),
            )
        })?;
        self.apply("restore our earlier rules", &PerFamily { ipv4, ipv6 })
    }

    fn remove(&mut self) -> Result<(), FirewallError> {
        self.apply("remove our rules", &PerFamily::default())
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
