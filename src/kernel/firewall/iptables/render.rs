//! Renders the policy as iptables rules. Pure.
//!
//! *Accept* in our policy means: no later rule of our chain sees the packet. In the nat table the
//! verdict is ACCEPT, so that no later foreign rule translates the packet. In the other tables the
//! verdict is RETURN to the built-in chain: ACCEPT would skip the filter rules of the administrator.

use std::collections::BTreeMap;

use super::builder::Builder;
use super::conditions::{Nothing, checked, gather};
use super::model::{Own, count_comment, place};
use crate::firewall::{FwRule, Hook, Ruleset, Statement};
use crate::types::Family;

/// The rules of one family; the error names a part of the policy without an iptables equivalent.
pub fn render(ruleset: &Ruleset, family: Family) -> Result<Own, String> {
    let mut tables: BTreeMap<String, Builder> = BTreeMap::new();
    for chain in &ruleset.chains {
        let Some((table, builtin, name)) = place(chain.hook) else {
            continue;
        };
        let mut writer: Option<(String, usize)> = None;
        for rule in &chain.rules {
            let conditions = match gather(rule, chain.hook, family) {
                Ok(conditions) => conditions,
                Err(Nothing::NeverMatches) => continue,
                Err(Nothing::Inexpressible(what)) => return Err(what),
            };
            let verdict = verdict(rule, chain.hook)?;
            let builder = tables.entry(table.to_owned()).or_default();
            // The first rule creates the chain, so that a family without rules gets no chain.
            let current = writer.get_or_insert_with(|| {
                builder.open(name);
                builder.hook(builtin, name);
                (name.to_owned(), 0)
            });
            builder.rule(current, conditions, &verdict)?;
        }
    }
    let tables = tables.into_iter();
    Ok(Own(tables
        .map(|(name, builder)| (name, builder.finish()))
        .collect()))
}

fn verdict(rule: &FwRule, hook: Hook) -> Result<String, String> {
    let nat = hook == Hook::PostroutingNat;
    match &rule.verdict {
        Statement::Snat(_) | Statement::SnatRandomly(_) | Statement::Masquerade if !nat => Err(
            format!("source translation at {hook:?}: only the nat table translates"),
        ),
        Statement::Drop if nat => {
            // "The "nat" table is not intended for filtering" (iptables/iptables.c)
            Err("dropping in the nat table".to_owned())
        }
        // CONNMARK: ctmark = (ctmark & ~mask) ^ value (iptables-extensions(8)), which sets the masked
        // bits for a value inside the mask.
        Statement::SetFlowMark(mark) => match checked(*mark) {
            Ok(mark) => Ok(format!("-j CONNMARK --set-xmark {mark}")),
            Err(Nothing::Inexpressible(what)) => Err(what),
            Err(Nothing::NeverMatches) => Err(format!("mark {mark}")),
        },
        Statement::SetPacketMark(mark) => match checked(*mark) {
            Ok(mark) => Ok(format!("-j MARK --set-xmark {mark}")),
            Err(_) => Err(format!("packet mark {mark}")),
        },
        Statement::RestoreMark { mask } => Ok(format!(
            "-j CONNMARK --restore-mark --nfmask {mask:#x} --ctmask {mask:#x}"
        )),
        // The kernel never raises the size (`tcpmss_mangle_packet`, net/netfilter/xt_TCPMSS.c).
        Statement::ClampMss(size) => Ok(format!("-j TCPMSS --set-mss {size}")),
        Statement::Snat(address) => Ok(format!("-j SNAT --to-source {address}")),
        Statement::SnatRandomly(address) => {
            Ok(format!("-j SNAT --to-source {address} --random-fully"))
        }
        Statement::Masquerade => Ok("-j MASQUERADE".to_owned()),
        // Every rule of iptables counts; the comment tells the path.
        Statement::Count(path) => Ok(format!(
            "-m comment --comment \"{}\" -j RETURN",
            count_comment(*path, hook)
        )),
        Statement::CountWay(..) => Err("counting by the direction of a way".to_owned()),
        Statement::Reset => Err("a reset: only the table filter has them".to_owned()),
        Statement::Accept if nat => Ok("-j ACCEPT".to_owned()),
        Statement::Accept => Ok("-j RETURN".to_owned()),
        Statement::Drop | Statement::DropCounted(_) | Statement::DropTraced(..) => {
            Ok("-j DROP".to_owned())
        }
    }
}

#[cfg(test)]
mod tests;
