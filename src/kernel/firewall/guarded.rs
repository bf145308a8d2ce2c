//! The iptables backend with chains of nf_tables beside iptables.
//!
//! Nothing of iptables comes after the table nat, rules of other programs behind ours may change a
//! packet's mark, and no rule of iptables matches the next hop. So the rules of the hooks with
//! [`Hook::is_beside_iptables`] lie in an nf_tables table beside iptables. Without nf_tables, and on
//! kernels that refuse the rules, the backend works without them. A flush of iptables leaves the table
//! in place: until the repair, no packet leaves a NAT without a translation, or a host on neither path.
//!
//! Where iptables translates, the table has a nat chain without rules. `nft flush ruleset` takes the
//! chains of iptables, and the kernel translates no flow, of any age, without a nat chain. A protected
//! table stays, and so do the translations of open flows.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use super::backend::FirewallBackend;
use super::error::FirewallError;
use super::iptables::IptablesBackend;
use super::nftables::{Nftables, Protection};
use crate::firewall::{
    BackendKind, Chain, DroppedTraffic, FwRule, Hook, ObservedFirewall, OwnedFirewall, PathTraffic,
    Piece, Ruleset, SavedRules, Variant, keeps_flows,
};
use crate::types::{Family, PerFamily};

/// The record of an iptables without rules of ours.
const NO_RULES: &[u8] = b"[{},{}]";

/// True once the kernel has refused the rules of the table.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// True once the kernel has refused the nat chain of the table (`inet` has nat since Linux 5.2).
static NAT_REFUSED: AtomicBool = AtomicBool::new(false);

/// True once the kernel has refused the resets of ended connections.
static RESETS_REFUSED: AtomicBool = AtomicBool::new(false);

/// iptables, and the table beside it.
pub(super) struct Guarded {
    rules: IptablesBackend,
    table: Nftables,
    has_nf_tables: OnceCell<bool>,
    /// The families that iptables refuses for now.
    left: PerFamily<bool>,
    /// The rules of the last policy with the family, which stay in the table while iptables refuses
    /// the family: nothing leaves untranslated.
    known: PerFamily<Vec<(Hook, FwRule)>>,
}

impl Guarded {
    pub(super) fn new(rules: IptablesBackend) -> Self {
        Guarded {
            rules,
            table: Nftables::beside_iptables(),
            has_nf_tables: OnceCell::new(),
            left: PerFamily::default(),
            known: PerFamily::default(),
        }
    }

    /// Remembers the rules of the families in use.
    fn learn(&mut self, ruleset: &Ruleset) {
        for family in Family::ALL {
            if !*self.left.get(family) {
                *self.known.get_mut(family) = beside(ruleset, family);
            }
        }
    }

    fn has_nf_tables(&self) -> bool {
        *self.has_nf_tables.get_or_init(Nftables::exists)
    }

    /// The rules of the table; `None` without such rules or without a place for them.
    fn last(&self, ruleset: &Ruleset) -> Option<Ruleset> {
        let mut chains: BTreeMap<Hook, Vec<FwRule>> = BTreeMap::new();
        for family in Family::ALL {
            let rules = if *self.left.get(family) {
                self.known.get(family).clone()
            } else {
                beside(ruleset, family)
            };
            for (hook, rule) in rules {
                chains.entry(hook).or_default().push(rule);
            }
        }
        if !chains.is_empty() && translates(ruleset) && !NAT_REFUSED.load(Ordering::Relaxed) {
            chains.insert(Hook::PostroutingNat, Vec::new());
        }
        if RESETS_REFUSED.load(Ordering::Relaxed) {
            chains.remove(&Hook::ForwardEnded);
        }
        let chains = chains.into_iter();
        let last = Ruleset {
            chains: chains.map(|(hook, rules)| Chain { hook, rules }).collect(),
        };
        (self.is_usable() && !last.chains.is_empty()).then_some(last)
    }

    fn is_usable(&self) -> bool {
        !REFUSED.load(Ordering::Relaxed) && self.has_nf_tables()
    }

    /// The rules that lie in iptables.
    fn within(&self, ruleset: &Ruleset) -> Ruleset {
        let mut within = ruleset.clone();
        if self.is_usable() {
            within
                .chains
                .retain(|chain| !chain.hook.is_beside_iptables());
        }
        within
    }

    fn table(&mut self) -> Result<ObservedFirewall, FirewallError> {
        if self.has_nf_tables() {
            self.table.observe()
        } else {
            Ok(ObservedFirewall::Absent)
        }
    }

    fn install(&mut self, last: &Ruleset) -> Result<(), FirewallError> {
        match self.table.replace(last) {
            Err(FirewallError::Refused { .. }) if last.chains.iter().any(resets) => {
                RESETS_REFUSED.store(true, Ordering::Relaxed);
                let mut rest = last.clone();
                rest.chains.retain(|chain| !resets(chain));
                self.install(&rest)
            }
            Err(FirewallError::Refused { .. }) if last.chains.iter().any(keeps_flows) => {
                NAT_REFUSED.store(true, Ordering::Relaxed);
                let mut rest = last.clone();
                rest.chains.retain(|chain| !keeps_flows(chain));
                self.install(&rest)
            }
            Err(FirewallError::Refused { .. }) => {
                // The translation needs no rule of the table.
                REFUSED.store(true, Ordering::Relaxed);
                Ok(())
            }
            other => other,
        }
    }

    /// Changes the rules of iptables, and then the table to `wanted`. A table with other rules goes
    /// first, since its addresses may be the earlier ones: no rule drops a right translation. The
    /// `marks` stay, since the policies of IPsec refuse packets without them. A table with the same drops
    /// and other marks is replaced as a whole: nothing leaves untranslated meanwhile, and pinned flows keep
    /// their marks.
    fn change(
        &mut self,
        wanted: &[String],
        [whole, marks]: [&Ruleset; 2],
        rules: impl FnOnce(&mut IptablesBackend) -> Result<(), FirewallError>,
        table: impl FnOnce(&mut Self) -> Result<(), FirewallError>,
    ) -> Result<(), FirewallError> {
        let now = match self.table()? {
            ObservedFirewall::Owned(owned) => owned,
            _ => OwnedFirewall {
                text: Vec::new(),
                snapshot: SavedRules::default(),
            },
        };
        if now.text == wanted {
            return rules(&mut self.rules);
        }
        if !wanted.is_empty() && now.text.get(1..) == wanted.get(1..) {
            // Only the line of the table differs, by its flags: the table stays as long as it can.
            rules(&mut self.rules)?;
            return table(self);
        }
        let first = if drops(&now.text) == drops(wanted) {
            whole
        } else {
            marks
        };
        let mut kept = false;
        if !now.text.is_empty() {
            kept = !first.chains.is_empty() && self.table.replace(first).is_ok();
            if !kept {
                self.table.remove()?;
            }
        }
        if let Err(error) = rules(&mut self.rules) {
            if !now.text.is_empty() {
                self.table.restore(&now.snapshot)?;
            }
            return Err(error);
        }
        if kept && first == whole {
            return Ok(());
        }
        table(self)
    }
}

impl FirewallBackend for Guarded {
    fn kind(&self) -> BackendKind {
        BackendKind::Iptables
    }

    fn description(&self) -> String {
        let rules = self.rules.description();
        if self.is_usable() {
            rules
        } else {
            format!("{rules}; without a guard after the translation, which needs nf_tables")
        }
    }

    fn variant(&self) -> Variant {
        self.rules.variant()
    }

    fn certainly_holds_ours(&mut self, found: &ObservedFirewall) -> bool {
        self.rules.certainly_holds_ours(found)
    }

    fn observe(&mut self) -> Result<ObservedFirewall, FirewallError> {
        use ObservedFirewall::{Absent, Foreign, Owned, Unavailable, Unreadable};
        let rules = self.rules.observe()?;
        if matches!(rules, Foreign(_) | Unreadable(_)) {
            return Ok(rules);
        }
        let (rules, table) = match (rules, self.table()?) {
            (Owned(rules), Owned(table)) => (Some(rules), Some(table)),
            (Owned(rules), Absent | Unavailable(_)) => (Some(rules), None),
            (Owned(_), other) => return Ok(other),
            (_, Owned(table)) => (None, Some(table)),
            (other, _) => return Ok(other),
        };
        let record = (
            rules.as_ref().map(|owned| &owned.snapshot.0),
            table.as_ref().map(|owned| &owned.snapshot.0),
        );
        let snapshot = serde_json::to_vec(&record).map_err(not_a_record)?;
        let texts = [rules, table].into_iter().flatten();
        Ok(ObservedFirewall::Owned(OwnedFirewall {
            text: texts.flat_map(|owned| owned.text).collect(),
            snapshot: SavedRules(snapshot),
        }))
    }

    fn render(&self, ruleset: &Ruleset) -> Result<Vec<String>, FirewallError> {
        let mut text = self.rules.render(&self.within(ruleset))?;
        if let Some(last) = self.last(ruleset) {
            text.extend(self.table.render(&last)?);
        }
        Ok(text)
    }

    fn traffic(&mut self) -> Result<Option<PathTraffic>, FirewallError> {
        let mut sum = self.rules.traffic()?;
        if let Some(dropped) = self.dropped()? {
            sum.get_or_insert_default().dropped = dropped;
        }
        Ok(sum)
    }

    fn dropped(&mut self) -> Result<Option<DroppedTraffic>, FirewallError> {
        if self.has_nf_tables() {
            self.table.dropped()
        } else {
            Ok(None)
        }
    }

    fn replace(&mut self, ruleset: &Ruleset) -> Result<(), FirewallError> {
        self.learn(ruleset);
        let last = self.last(ruleset);
        let wanted = match &last {
            Some(last) => self.table.render(last)?,
            None => Vec::new(),
        };
        let within = self.within(ruleset);
        let mut marks = last.clone().unwrap_or_default();
        marks
            .chains
            .retain(|chain| chain.hook.is_of_switch() || keeps_flows(chain));
        self.change(
            &wanted,
            [&last.clone().unwrap_or_default(), &marks],
            |rules| rules.replace(&within),
            |this| last.map_or(Ok(()), |last| this.install(&last)),
        )
    }

    fn restore(&mut self, snapshot: &SavedRules) -> Result<(), FirewallError> {
        let (rules, table): (Option<Vec<u8>>, Option<Vec<u8>>) =
            serde_json::from_slice(&snapshot.0).map_err(not_a_record)?;
        let rules = SavedRules(rules.unwrap_or_else(|| NO_RULES.to_vec()));
        // The text of the record is unknown, so the table is written in any case.
        self.change(
            &["the record".to_owned()],
            [&Ruleset::default(); 2],
            |backend| backend.restore(&rules),
            |this| table.map_or(Ok(()), |record| this.table.restore(&SavedRules(record))),
        )
    }

    fn remove(&mut self) -> Result<(), FirewallError> {
        let nothing = Ruleset::default();
        self.change(&[], [&nothing; 2], IptablesBackend::remove, |_| Ok(()))
    }

    fn rehearse(&mut self, ruleset: &Ruleset) -> Result<(), FirewallError> {
        self.learn(ruleset);
        self.rules.rehearse(&self.within(ruleset))
    }

    fn has_own_place_for_last(&self) -> bool {
        true
    }

    fn marks_forwarded(&self) -> bool {
        self.is_usable()
    }

    fn protect(&mut self, protection: &Protection) {
        self.table.protect(protection);
    }

    fn leave(&mut self, families: PerFamily<bool>) {
        self.left = families;
        self.rules.leave(families);
    }
}

/// The lines of the chain that drops packets with a wrong address.
fn drops(text: &[String]) -> Vec<&String> {
    let mut lines = text.iter();
    let is_chain = |line: &&String| line.starts_with("  chain ");
    let begin = lines.find(|line| line.starts_with("  chain last "));
    let rules = lines.take_while(|line| !is_chain(line) && !line.starts_with("  set "));
    begin.into_iter().chain(rules).collect()
}

/// True for the chain of resets.
fn resets(chain: &Chain) -> bool {
    chain.hook == Hook::ForwardEnded
}

/// True if iptables translates.
fn translates(ruleset: &Ruleset) -> bool {
    let mut chains = ruleset.chains.iter();
    chains.any(|chain| chain.hook == Hook::PostroutingNat && !chain.rules.is_empty())
}

/// The rules of a family that lie in the table. A rule of both families becomes one of each.
fn beside(ruleset: &Ruleset, family: Family) -> Vec<(Hook, FwRule)> {
    let others = Family::ALL.into_iter().filter(|other| *other != family);
    let of_family = ruleset.without(&others.map(|other| (other, Piece::All)).collect());
    let chains = of_family.chains.into_iter();
    let chains = chains.filter(|chain| chain.hook.is_beside_iptables());
    let rules = chains.flat_map(|chain| {
        let rules = chain.rules.into_iter();
        rules.map(move |rule| (chain.hook, rule))
    });
    let only = |rule| FwRule {
        family: Some(family),
        ..rule
    };
    rules.map(|(hook, rule)| (hook, only(rule))).collect()
}

fn not_a_record(error: serde_json::Error) -> FirewallError {
    FirewallError::Refused {
        backend: BackendKind::Iptables,
        operation: "record or restore our rules".to_owned(),
        reason: format!("not a record of the iptables backend: {error}"),
        errno: None,
    }
}
