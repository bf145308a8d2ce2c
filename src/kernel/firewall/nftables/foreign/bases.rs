//! Base chains in the path of forwarded packets and of the host's own.

use std::collections::BTreeMap;

use super::TableKey;
use crate::judge::chain::{Age, BaseChain, ChainPlace, Origin};
use crate::kernel::firewall::nftables::message::{GUARD_TABLE, TABLE};
use crate::kernel::firewall::nftables::read::{body, list, text};
use crate::kernel::firewall::nftables::uapi::*;
use crate::kernel::wire::{Attribute, Attributes, DUMP, Wire, WireError, attributes, find};
use crate::types::Family;

// linux/netfilter.h, linux/netfilter/nf_tables.h.
const NFPROTO_NETDEV: u8 = 5;
const NF_INET_INGRESS: u32 = 5;
const NF_NETDEV_INGRESS: u32 = 0;
const NF_NETDEV_EGRESS: u32 = 1;
const NFTA_TABLE_HANDLE: u16 = 4;
const NFTA_HOOK_DEV: u16 = 3;
const NFTA_HOOK_DEVS: u16 = 4;

/// The base chains of interest, without rules.
pub(super) fn base_chains(wire: &mut Wire) -> Result<Vec<(TableKey, BaseChain)>, WireError> {
    let tables = tables(wire)?;
    let mut found = Vec::new();
    let mut counts: BTreeMap<TableKey, u64> = BTreeMap::new();
    let request = body(NFPROTO_UNSPEC, Attributes::new());
    wire.ask(msg::GETCHAIN, DUMP, &request, |frame| {
        let family = frame.body.first().copied().unwrap_or_default();
        let list = list(frame.body)?;
        let name = text(&list, NFTA_CHAIN_TABLE).unwrap_or_default();
        *counts.entry(TableKey { family, name }).or_default() += 1;
        let handle = handle(&list, NFTA_CHAIN_HANDLE);
        found.extend(base_chain(family, &list).map(|(key, base)| (key, base, handle)));
        Ok(())
    })?;
    // The kernel has switched off the chains of dormant tables.
    found.retain(|(key, ..)| tables.get(key).is_none_or(|table| !table.dormant));
    let mut aged = Vec::new();
    for (key, mut base, handle) in found {
        let table = tables.get(&key).and_then(|table| table.handle);
        if let (ChainPlace::Translation, Some(table), Some(handle)) = (base.place, table, handle) {
            let chains = counts.get(&key).copied().unwrap_or_default();
            let origin = if handle <= chains {
                Origin::First
            } else if handle <= chains + rules_in(wire, &key)? {
                Origin::Early
            } else {
                Origin::Late
            };
            base.age = Some(Age { table, origin });
        }
        aged.push((key, base));
    }
    Ok(aged)
}

/// The number of rules in a table.
fn rules_in(wire: &mut Wire, table: &TableKey) -> Result<u64, WireError> {
    let request = body(
        table.family,
        Attributes::new().put_text(NFTA_RULE_TABLE, &table.name),
    );
    let mut count = 0;
    wire.ask(msg::GETRULE, DUMP, &request, |frame| {
        // Old kernels ignore the filter by table.
        let same = text(&list(frame.body)?, NFTA_RULE_TABLE).as_deref() == Some(&table.name);
        count += u64::from(same);
        Ok(())
    })?;
    Ok(count)
}

fn handle(list: &[Attribute<'_>], kind: u16) -> Option<u64> {
    let bytes = find(list, kind)?.payload;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

struct ForeignTable {
    dormant: bool,
    handle: Option<u64>,
}

fn tables(wire: &mut Wire) -> Result<BTreeMap<TableKey, ForeignTable>, WireError> {
    let mut found = BTreeMap::new();
    let request = body(NFPROTO_UNSPEC, Attributes::new());
    wire.ask(msg::GETTABLE, DUMP, &request, |frame| {
        let family = frame.body.first().copied().unwrap_or_default();
        let list = list(frame.body)?;
        let flags = find(&list, NFTA_TABLE_FLAGS).and_then(|flags| flags.be32());
        let table = ForeignTable {
            dormant: flags.unwrap_or(0) & NFT_TABLE_F_DORMANT != 0,
            handle: handle(&list, NFTA_TABLE_HANDLE),
        };
        if let Some(name) = text(&list, NFTA_TABLE_NAME) {
            found.insert(TableKey { family, name }, table);
        }
        Ok(())
    })?;
    Ok(found)
}

fn base_chain(family: u8, list: &[Attribute<'_>]) -> Option<(TableKey, BaseChain)> {
    let hook = attributes(find(list, NFTA_CHAIN_HOOK)?.payload).ok()?;
    let number = find(&hook, NFTA_HOOK_HOOKNUM)?.be32()?;
    let priority = find(&hook, NFTA_HOOK_PRIORITY)?.be32()?.cast_signed();
    let kind = text(list, NFTA_CHAIN_TYPE)?;
    let (word, families) = match family {
        NFPROTO_INET => ("inet", Family::ALL.to_vec()),
        NFPROTO_IPV4 => ("ip", vec![Family::Ipv4]),
        NFPROTO_IPV6 => ("ip6", vec![Family::Ipv6]),
        NFPROTO_NETDEV => ("netdev", Family::ALL.to_vec()),
        _ => return None,
    };
    let place = if family == NFPROTO_NETDEV {
        match number {
            NF_NETDEV_INGRESS => ChainPlace::Ingress,
            NF_NETDEV_EGRESS => ChainPlace::Egress,
            _ => return None,
        }
    } else {
        match (number, kind.as_str()) {
            (NF_INET_POST_ROUTING, "nat") => ChainPlace::Translation,
            (NF_INET_PRE_ROUTING, "nat") => ChainPlace::Diversion,
            (NF_INET_LOCAL_OUT, "nat") => ChainPlace::OutputDiversion,
            (_, "nat") => return None,
            (NF_INET_PRE_ROUTING, _) => ChainPlace::Prerouting,
            (NF_INET_LOCAL_IN, _) => ChainPlace::Input,
            (NF_INET_FORWARD, _) => ChainPlace::Forward,
            (NF_INET_LOCAL_OUT, _) => ChainPlace::Output,
            (NF_INET_POST_ROUTING, _) => ChainPlace::Postrouting,
            (NF_INET_INGRESS, _) => ChainPlace::Ingress,
            _ => return None,
        }
    };
    let table = text(list, NFTA_CHAIN_TABLE)?;
    if family == NFPROTO_INET && [TABLE, GUARD_TABLE].contains(&table.as_str()) {
        return None;
    }
    let policy = find(list, NFTA_CHAIN_POLICY).and_then(|policy| policy.be32());
    let base = BaseChain {
        table: format!("table {word} {table}"),
        name: text(list, NFTA_CHAIN_NAME)?,
        place,
        families,
        priority,
        age: None,
        devices: devices(&hook),
        reroutes: kind == "route",
        drops: policy == Some(NF_DROP),
        chains: BTreeMap::new(),
    };
    let key = TableKey {
        family,
        name: table,
    };
    Some((key, base))
}

/// The interfaces of an ingress or egress hook.
fn devices(hook: &[Attribute<'_>]) -> Vec<String> {
    let mut found: Vec<String> = text(hook, NFTA_HOOK_DEV).into_iter().collect();
    if let Some(all) = find(hook, NFTA_HOOK_DEVS)
        && let Ok(all) = attributes(all.payload)
    {
        found.extend(all.iter().map(Attribute::text));
    }
    found
}
