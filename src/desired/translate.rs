//! The translation of the NAT role, and the rules that drop untranslated packets.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    DesiredState, EgressPath, Inputs,
    addresses::{self, CLOSED, Resolved, resolve},
    bypass_match::{ask, beside, differs, is_substitute},
    chains::Chains,
    counting, disjoint,
    fault::Fault,
    gateway,
    last::{Elsewhere, Last},
    masquerade, mss, pins_nat, shares, special,
};
use crate::config::{AutoOr, NatBypass};
use crate::degraded::Part;
use crate::firewall::{BackendKind, FwRule, Match, Statement};
use crate::objects::{BypassPath, Via};
use crate::ownership::Numbers;
use crate::types::{Family, IfIndex};

/// The translation of one family.
struct Translation<'a> {
    family: Family,
    /// The matches for the bypass path, one list for each alternative.
    bypass: Vec<Vec<Match>>,
    bypass_verdict: Statement,
    /// The interface of the egress path; `None` while unknown.
    out: Option<&'a str>,
    /// The egress addresses. The egress path is closed without any, and without an interface.
    addresses: &'a [IpAddr],
    /// The address of each slot of source hosts; with one address all the same.
    owners: Vec<IpAddr>,
    /// The sources' own networks, the VPC and the exempt destinations: not translated.
    home: Vec<IpNet>,
    exempt: Vec<IpNet>,
    /// Interfaces on which untranslated packets are dropped.
    guarded_devices: Vec<String>,
    /// Destinations exempt from that drop.
    guarded: Vec<IpNet>,
}

/// Adds the translation of one family. What cannot be translated does not leave.
pub(super) fn translate(
    inputs: &Inputs,
    family: Family,
    sources: &[IpNet],
    state: &mut DesiredState,
    chains: &mut Chains,
) {
    if addresses::configured(inputs, family).next().is_none() {
        return count_only(inputs, family, sources, state, chains);
    }
    let usable = addresses::egress(inputs, family, state);
    let mut addresses: Vec<IpAddr> = usable.iter().map(|usable| usable.own).collect();
    addresses.dedup();
    let owners = addresses::owners(inputs, family, &usable, state);
    let out = egress_device(inputs, family)
        .inspect_err(|fault| {
            let missing = fault.degrades(Part::Translation, family, CLOSED);
            state.degraded.push(missing);
        })
        .ok();
    let out_name = out.map(|out| inputs.facts.device_name(out));
    if let Some(out) = out {
        addresses::examine_interface(inputs.facts, family, &addresses, out, state);
    }
    // The routes of the path outlast a lost address of the settings for a moment.
    let before = state.paths.get(family).bypass.clone();
    let bypass_verdict = bypass_verdict(inputs, family, state);
    let bypass = state.paths.get(family).bypass.clone();
    let numbers = Numbers::of(inputs.config);
    let mut asks = bypass.as_ref().map_or_else(Vec::new, |bypass| {
        ask(inputs, &numbers, family, bypass, out, state)
    });
    let hops: Vec<Via> = bypass.iter().flat_map(BypassPath::vias).collect();
    if bypass_verdict == Statement::Masquerade {
        let note = |via: &Via| masquerade::note(inputs.facts, family, *via, &addresses);
        state.notes.extend(hops.iter().filter_map(note));
    }
    let guarded = private(inputs, family, sources);
    let open = out_name.as_deref().filter(|_| !addresses.is_empty());
    if let Some(name) = open {
        let paths = counting::of_nat(sources, &asks, name, &guarded);
        pins_nat::count(inputs, family, (out, &guarded), paths, state, chains);
    }
    if let Some(bypass) = &bypass {
        asks.extend(beside(inputs, family, bypass, out, &asks, state));
    }
    let outer = hops.iter().map(|via| via.device).chain(out);
    let clamp = mss::clamp(inputs, family, &sorted(outer), &guarded);
    chains.forward.extend(clamp);
    // Untranslated packets are dropped on each interface where all leaving packets are translated.
    let mut guarded_devices: Vec<String> = open.map(str::to_owned).into_iter().collect();
    if bypass_verdict != Statement::Accept {
        let others = hops.iter().filter(|via| Some(via.device) != out);
        guarded_devices.extend(others.map(|via| inputs.facts.device_name(via.device)));
        guarded_devices.dedup();
    }
    let translation = Translation {
        family,
        bypass: asks,
        bypass_verdict,
        out: out_name.as_deref(),
        addresses: &addresses,
        owners,
        home: home(inputs, family, sources),
        exempt: disjoint(exempt(inputs, family).collect()),
        guarded_devices,
        guarded,
    };
    for source in sources {
        translation.add(*source, chains);
    }
    chains.last.extend(translation.last(inputs, state, sources));
    let elsewhere = translation.elsewhere(inputs, &before, out, state, sources);
    chains.last.extend(elsewhere);
    let paths = state.paths.get_mut(family);
    paths.egress = EgressPath::Main;
    paths.leaves_by = out.filter(|_| !addresses.is_empty());
    paths.egress_addresses = addresses;
    paths.exempt = exempt(inputs, family).collect();
}

fn sorted(devices: impl Iterator<Item = IfIndex>) -> Vec<IfIndex> {
    let mut devices: Vec<IfIndex> = devices.collect();
    devices.sort();
    devices.dedup();
    devices
}

/// Steers and counts packets of a family without egress addresses.
fn count_only(
    inputs: &Inputs,
    family: Family,
    sources: &[IpNet],
    state: &mut DesiredState,
    chains: &mut Chains,
) {
    state.notes.push(format!(
        "{family}: no egress address: forwarded {family} traffic is routed by path but not translated"
    ));
    // Without translation the addresses are equal on both paths: count only if the routing
    // decisions differ.
    if let Some(bypass) = &state.paths.get(family).bypass
        && let Ok(out) = egress_device(inputs, family)
        && let Some(asks) = differs(inputs, family, bypass, Some(out))
    {
        let out = inputs.facts.device_name(out);
        let private = private(inputs, family, sources);
        let matches = counting::of_nat(sources, &asks, &out, &private);
        chains.counting.add(inputs.config, family, matches, None);
    }
}

/// Drops new flows from `source` that would leave untranslated: through `out`, or through any
/// interface while the egress interface is unknown. Flows translated before go on.
pub(super) fn close(
    family: Family,
    source: IpNet,
    out: Option<&str>,
    exempt: &[IpNet],
    chains: &mut Chains,
) {
    for flow in [Match::NewFlow, Match::NotTracked] {
        let mut matches = vec![Match::Source(source), Match::SourceNotLocal];
        matches.extend(out.map(|out| Match::OutputInterface(out.to_owned())));
        matches.extend([flow, Match::DestinationNoneOf(exempt.to_vec())]);
        chains.guard.push(FwRule {
            family: Some(family),
            matches,
            verdict: Statement::Drop,
        });
    }
}

impl Translation<'_> {
    /// Adds the rules for one source network.
    fn add(&self, source: IpNet, chains: &mut Chains) {
        let rule = |matches, verdict| FwRule {
            family: Some(self.family),
            matches,
            verdict,
        };
        // The VPC's CIDR contains this host's own addresses too. The host's own traffic is neither
        // translated nor guarded: conntrack never tracks neighbour discovery.
        let from = vec![Match::Source(source), Match::SourceNotLocal];
        let leaving = |device: &str| {
            let mut matches = from.clone();
            matches.push(Match::OutputInterface(device.to_owned()));
            matches
        };
        let bypass = self.bypass.iter();
        let bypass = bypass.map(|bypass| {
            let mut matches = [from.as_slice(), bypass].concat();
            if !self.exempt.is_empty() {
                matches.push(Match::DestinationNoneOf(self.exempt.clone()));
            }
            matches
        });
        let bypass: Vec<Vec<Match>> = bypass.collect();
        let verdict = |verdict: &Statement| -> Vec<FwRule> {
            let all = bypass.iter().cloned();
            all.map(|matches| rule(matches, verdict.clone())).collect()
        };
        chains.nat.extend(verdict(&self.bypass_verdict));
        let untranslated = self.bypass_verdict == Statement::Accept;
        if untranslated {
            chains.guard.extend(verdict(&Statement::Accept));
            chains.last.extend(verdict(&Statement::Accept));
        }
        for device in &self.guarded_devices {
            let mut matches = leaving(device);
            matches.push(Match::NotTracked);
            matches.push(Match::DestinationNoneOf(self.guarded.clone()));
            chains.guard.push(rule(matches, Statement::Drop));
        }
        match self.out.filter(|_| !self.addresses.is_empty()) {
            Some(out) => self.share_out(source, out, chains),
            None => {
                if !untranslated {
                    chains.guard.extend(verdict(&Statement::Accept));
                }
                close(self.family, source, self.out, &self.guarded, chains);
            }
        }
    }

    /// The drop of untranslated packets on the other interfaces to the internet, behind the drops that
    /// count. `bypass` is the path as routed before a lost address of the settings.
    fn elsewhere(
        &self,
        inputs: &Inputs,
        bypass: &Option<BypassPath>,
        out: Option<IfIndex>,
        state: &DesiredState,
        sources: &[IpNet],
    ) -> Vec<FwRule> {
        let by_substitute = self.bypass.iter().flatten().any(is_substitute);
        let bypass_too = self.bypass_verdict != Statement::Accept || by_substitute;
        let bypass_name = Some(&inputs.config.bypass.interface).filter(|_| bypass_too);
        let names = bypass_name
            .into_iter()
            .chain([&inputs.config.nat.egress_interface]);
        let named = names.filter_map(|name| match name {
            AutoOr::Set(name) => Some(name.clone()),
            AutoOr::Auto => None,
        });
        let elsewhere = Elsewhere {
            family: self.family,
            named: named.collect(),
            bypass: bypass.iter().flat_map(BypassPath::vias).collect(),
            bypass_too,
            out,
            addresses: addresses::of_settings(inputs),
            closed: !self.addresses.iter().any(|own| inputs.facts.is_own(*own)),
            incoming: &state.paths.get(self.family).inputs,
            sources,
            private: &self.guarded,
        };
        elsewhere.rules(inputs.facts)
    }

    /// The rules after all translation; none without a translation.
    fn last(&self, inputs: &Inputs, state: &DesiredState, sources: &[IpNet]) -> Vec<FwRule> {
        let Some(out) = self.out.filter(|_| !self.addresses.is_empty()) else {
            return Vec::new();
        };
        let leaves = Match::OutputInterface(out.to_owned());
        let lists = |condition: &Match| matches!(condition, Match::DestinationAnyOf(_));
        let listed = |ask: &Vec<Match>| ask.contains(&leaves) && ask.iter().any(lists);
        let tolerated = match &self.bypass_verdict {
            _ if inputs.backend == BackendKind::Nftables => Some(Vec::new()),
            _ if !self.bypass.iter().any(listed) => Some(Vec::new()),
            Statement::Snat(address) => Some(vec![*address]),
            _ => None,
        };
        let mut of_sources = state.paths.get(self.family).inputs.iter();
        let last = Last {
            family: self.family,
            path: inputs.config.kernel.path_mask,
            sources,
            out,
            one_interface: of_sources.any(|input| input.device == out),
            egress: self.addresses,
            tolerated,
            private: &self.guarded,
            beside_iptables: !inputs.backend.matches_next_hop(),
        };
        last.rules()
    }

    /// Translates a source's packets on the egress path to the egress addresses.
    fn share_out(&self, source: IpNet, out: &str, chains: &mut Chains) {
        for (address, slots) in shares::slots_of(&self.owners) {
            let mut matches = vec![
                Match::Source(source),
                Match::SourceNotLocal,
                Match::OutputInterface(out.to_owned()),
                Match::DestinationNoneOf(self.home.clone()),
            ];
            if self.addresses.len() > 1 {
                matches.push(Match::SourceSlots {
                    slots,
                    of: u32::try_from(self.owners.len()).unwrap_or(u32::MAX),
                    seed: shares::SEED,
                });
            }
            chains.nat.push(FwRule {
                family: Some(self.family),
                matches,
                verdict: Statement::SnatRandomly(address),
            });
        }
    }
}

/// The verdict for packets on the bypass path. If the host lacks the configured address, answers
/// would never arrive, so the family's bypass path is left out.
fn bypass_verdict(inputs: &Inputs, family: Family, state: &mut DesiredState) -> Statement {
    let addresses = match &inputs.config.nat.bypass {
        NatBypass::Masquerade => return Statement::Masquerade,
        NatBypass::None => return Statement::Accept,
        NatBypass::Addresses(addresses) => addresses,
    };
    let Some(address) = addresses.iter().find(|a| Family::of(**a) == family) else {
        return Statement::Masquerade;
    };
    match resolve(inputs, "[nat] bypass", *address) {
        Resolved::Here(own) => Statement::Snat(own),
        Resolved::Later(_, fault) | Resolved::Unknown(fault) => {
            let consequence = format!("{family} storage traffic takes the egress path");
            state
                .degraded
                .push(fault.degrades(Part::Bypass, family, &consequence));
            state.routes.retain(|route| route.key.family() != family);
            state.paths.get_mut(family).bypass = None;
            *state.frozen.get_mut(family) = false;
            Statement::Masquerade
        }
    }
}

/// The destinations of `[nat] exempt`.
fn exempt(inputs: &Inputs, family: Family) -> impl Iterator<Item = IpNet> {
    let exempt = inputs.config.nat.exempt.iter().copied();
    exempt.filter(move |net| Family::of_net(net) == family)
}

/// The sources' own networks and the VPC.
fn home(inputs: &Inputs, family: Family, sources: &[IpNet]) -> Vec<IpNet> {
    let vpc = inputs.vpc_cidrs.iter();
    let vpc = vpc.filter(|cidr| Family::of_net(cidr) == family);
    let exempt = exempt(inputs, family);
    disjoint(sources.iter().chain(vpc).copied().chain(exempt).collect())
}

/// The interface of a family's egress path.
fn egress_device(inputs: &Inputs, family: Family) -> Result<IfIndex, Fault> {
    if let AutoOr::Set(name) = &inputs.config.nat.egress_interface {
        return gateway::interface(inputs.facts, "[nat] egress_interface", name);
    }
    let default = inputs.facts.used_default(family);
    let device = default.and_then(|route| route.device);
    device.ok_or(Fault::NoEgressInterface)
}

/// Destinations that neither path applies to: private space, the sources' own networks and the VPC.
pub(super) fn private(inputs: &Inputs, family: Family, sources: &[IpNet]) -> Vec<IpNet> {
    let mut private = special::thrown(family, inputs.vpc_cidrs);
    private.extend(sources);
    private.extend(exempt(inputs, family));
    disjoint(private)
}
