//! NAT role: flows that keep the interface and the gateway of their first packet.
//!
//! Conntrack keeps the translation of a flow. Where the paths differ in nothing else, no flow needs a
//! pin. Where they differ in the interface or the gateway, a new prefix would send an open flow out by
//! the other path, with the address of the first one, and the network drops such packets.

use ipnet::IpNet;

use super::chains::Chains;
use super::counting::PathMatches;
use super::pins::Pins;
use super::{DesiredState, Inputs};
use crate::objects::BypassPath;
use crate::ownership::Numbers;
use crate::types::{Family, IfIndex};

/// Counts the traffic of a family by path, and pins the flows if the paths differ. `out` is the
/// interface of the egress path, `private` are destinations of neither path.
pub(super) fn count(
    inputs: &Inputs,
    family: Family,
    (out, private): (Option<IfIndex>, &[IpNet]),
    paths: PathMatches,
    state: &mut DesiredState,
    chains: &mut Chains,
) {
    let pins = pins(inputs, family, (out, private), state, chains);
    let pins = pins.as_ref();
    chains.counting.add(inputs.config, family, paths, pins);
}

fn pins(
    inputs: &Inputs,
    family: Family,
    (out, private): (Option<IfIndex>, &[IpNet]),
    state: &mut DesiredState,
    chains: &mut Chains,
) -> Option<Pins> {
    if !inputs.config.pins() || inputs.unfiltered.get(family).is_some() {
        return None;
    }
    let bypass = state.paths.get(family).bypass.as_ref()?;
    let egress = inputs.facts.default_path(family, out)?;
    let hops = |path: &BypassPath| -> Vec<_> {
        let vias = path.vias();
        vias.map(|via| via.hop()).collect()
    };
    if hops(bypass) == hops(&egress) {
        return None;
    }
    if let Some(reason) = inputs.no_switch.get(family) {
        state.notes.push(format!(
            "{family}: open flows do not keep their path when prefixes change: {reason}"
        ));
        return None;
    }
    let pins = Pins::of_nat(inputs, family, private);
    let numbers = Numbers::of(inputs.config);
    pins.complete_nat(&numbers, Some(&egress), state);
    // Before the marks of packets without any: see `switch`.
    chains.mark.extend(pins.forwarded());
    Some(pins)
}
