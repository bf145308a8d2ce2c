//! The egress and bypass addresses of the NAT role on this host.

use std::net::IpAddr;

use crate::degraded::Part;
use crate::desired::{DesiredState, Inputs, fault::Fault, shares, special};
use crate::facts::HostFacts;
use crate::types::{Family, IfIndex};

/// The consequence of a missing translation.
pub(super) const CLOSED: &str = "forwarded packets that would leave untranslated are dropped";

/// An address of the settings on this host.
pub(super) enum Resolved {
    /// This address of the host stands for the configured one.
    Here(IpAddr),
    /// The host can receive the address later: the address lies in a connected or private network,
    /// as the address of a standby instance does.
    Later(IpAddr, Fault),
    /// An address of another network, such as an Elastic IP, without a known private address.
    Unknown(Fault),
}

/// The place of an address of the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// This address of the host stands for the configured one.
    Here(IpAddr),
    /// The host can receive this address later.
    Later(IpAddr),
    /// An address of another network without a known private address.
    Unknown,
}

/// Looks for an address of the settings, which may be an Elastic IP, on the host.
pub fn presence(facts: &HostFacts, address: IpAddr) -> Presence {
    if facts.is_own(address) {
        return Presence::Here(address);
    }
    let instance = facts.instance.as_ref();
    let private = instance.and_then(|instance| instance.public_addresses.get(&address));
    match private {
        Some(private) if facts.is_own(*private) => Presence::Here(*private),
        Some(private) => Presence::Later(*private),
        None if special::is_near(&facts.own_networks(), address) => Presence::Later(address),
        None => Presence::Unknown,
    }
}

/// Finds the host's address for a configured one, which may be an Elastic IP.
pub(super) fn resolve(inputs: &Inputs, key: &'static str, address: IpAddr) -> Resolved {
    let facts = inputs.facts;
    let presence = presence(facts, address);
    if let Presence::Here(own) = presence {
        return Resolved::Here(own);
    }
    let instance = facts.instance.as_ref();
    let private = instance.and_then(|instance| instance.public_addresses.get(&address));
    let near = special::is_near(&facts.own_networks(), address);
    let hint = match (private, instance) {
        (Some(private), _) => {
            format!(" (the metadata service maps it to {private}, which no interface has)")
        }
        // The service is not asked about such an address.
        (None, _) if near => String::new(),
        (None, Some(_)) => " (nor does the metadata service list it for this instance)".to_owned(),
        (None, None) => " (the metadata service did not answer)".to_owned(),
    };
    let fault = Fault::NotOurAddress { key, address, hint };
    match presence {
        Presence::Here(own) => Resolved::Here(own),
        Presence::Later(own) => Resolved::Later(own, fault),
        Presence::Unknown => Resolved::Unknown(fault),
    }
}

/// An address of the settings, and the address of this host that packets are translated to.
pub(super) struct Usable {
    pub(super) configured: IpAddr,
    pub(super) own: IpAddr,
}

/// The addresses to translate to, sorted: those present on the host, else those to come. Empty if
/// packets must not leave. Each missing address is named.
pub(super) fn egress(inputs: &Inputs, family: Family, state: &mut DesiredState) -> Vec<Usable> {
    const KEY: &str = "[nat] egress_addresses";
    let (mut here, mut later) = (Vec::new(), Vec::new());
    let mut faults = Vec::new();
    for address in configured(inputs, family) {
        match resolve(inputs, KEY, address) {
            Resolved::Here(own) => {
                if own != address {
                    state
                        .notes
                        .push(format!("{KEY}: {address} is {own} on this host"));
                }
                here.push(Usable {
                    configured: address,
                    own,
                });
            }
            Resolved::Later(own, fault) => {
                later.push(Usable {
                    configured: address,
                    own,
                });
                faults.push(fault);
            }
            Resolved::Unknown(fault) => faults.push(fault),
        }
    }
    let (mut addresses, consequence) = if !here.is_empty() {
        (here, "the other egress addresses are used")
    } else if !later.is_empty() {
        (
            later,
            "packets are translated to it all the same, and answers arrive once an interface has it",
        )
    } else {
        (Vec::new(), CLOSED)
    };
    state.degraded.extend(
        faults
            .iter()
            .map(|fault| fault.degrades(Part::Translation, family, consequence)),
    );
    addresses.sort_by_key(|usable| (usable.own, usable.configured));
    addresses
}

/// Names a lost carrier of `out`, the interface of the egress path, and notes the egress addresses on
/// another interface.
pub(super) fn examine_interface(
    facts: &HostFacts,
    family: Family,
    addresses: &[IpAddr],
    out: IfIndex,
    state: &mut DesiredState,
) {
    if facts.link(out).is_some_and(|link| !link.carrier) {
        let device = facts.device_name(out);
        let fault = Fault::NoCarrier { device };
        let lost = fault.degrades(Part::Egress, family, "packets to partners are lost");
        state.degraded.push(lost);
    }
    let on_out = |address: &IpAddr| {
        let mut own = facts.addresses.iter();
        own.any(|own| own.net.addr() == *address && own.link == out)
    };
    let here = addresses.iter().filter(|address| facts.is_own(**address));
    for address in here.filter(|address| !on_out(address)) {
        let out = facts.device_name(out);
        state.notes.push(format!(
            "[nat] egress_addresses: {address} is not on {out}, the interface of the egress path; the network may drop packets from {address}"
        ));
    }
}

/// The host's addresses for the egress addresses of both families, present or to come.
pub(super) fn of_settings(inputs: &Inputs) -> Vec<IpAddr> {
    let configured = inputs.config.nat.egress_addresses.iter();
    let own = configured.filter_map(|address| match presence(inputs.facts, *address) {
        Presence::Here(own) | Presence::Later(own) => Some(own),
        Presence::Unknown => None,
    });
    own.collect()
}

pub(super) fn configured(inputs: &Inputs, family: Family) -> impl Iterator<Item = IpAddr> {
    let addresses = inputs.config.nat.egress_addresses.iter().copied();
    addresses.filter(move |address| Family::of(*address) == family)
}

/// The address of each slot of source hosts. The slots of an address that is missing for the moment
/// are lent to the others, and return with the address.
pub(super) fn owners(
    inputs: &Inputs,
    family: Family,
    usable: &[Usable],
    state: &mut DesiredState,
) -> Vec<IpAddr> {
    let slots = shares::slots(inputs.backend);
    let configured: Vec<IpAddr> = configured(inputs, family).collect();
    let dealt = shares::deal(inputs.shares.0.get(family), &configured, slots);
    let here: Vec<IpAddr> = usable.iter().map(|usable| usable.configured).collect();
    let lent = shares::deal(&dealt, &here, slots);
    if configured.len() > 1 {
        *state.shares.0.get_mut(family) = dealt;
    }
    let own = |owner: &IpAddr| {
        let mut usable = usable.iter();
        let found = usable.find(|usable| usable.configured == *owner);
        found.map(|usable| usable.own)
    };
    lent.iter().filter_map(own).collect()
}
