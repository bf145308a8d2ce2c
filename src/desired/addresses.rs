//! The egress and bypass addresses of the NAT role on this host.

use std::net::IpAddr;

use crate::degraded::Part;
use crate::desired::{DesiredState, Inputs, fault::Fault, special};
use crate::types::Family;

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

/// Finds the host's address for a configured one, which may be an Elastic IP.
pub(super) fn resolve(inputs: &Inputs, key: &'static str, address: IpAddr) -> Resolved {
    let facts = inputs.facts;
    if facts.is_own(address) {
        return Resolved::Here(address);
    }
    let instance = facts.instance.as_ref();
    let private = instance.and_then(|instance| instance.public_addresses.get(&address));
    if let Some(private) = private.filter(|private| facts.is_own(**private)) {
        return Resolved::Here(*private);
    }
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
    match private {
        Some(private) => Resolved::Later(*private, fault),
        None if near => Resolved::Later(address, fault),
        None => Resolved::Unknown(fault),
    }
}

/// The addresses to translate to, sorted: those present on the host, else those to come. Empty if
/// packets must not leave. Each missing address is named.
pub(super) fn egress(inputs: &Inputs, family: Family, state: &mut DesiredState) -> Vec<IpAddr> {
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
                here.push(own);
            }
            Resolved::Later(own, fault) => {
                later.push(own);
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
    addresses.sort();
    addresses.dedup();
    addresses
}

pub(super) fn configured(inputs: &Inputs, family: Family) -> impl Iterator<Item = IpAddr> {
    let addresses = inputs.config.nat.egress_addresses.iter().copied();
    addresses.filter(move |address| Family::of(*address) == family)
}
