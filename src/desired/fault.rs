//! Parts that cannot be had on this host, and the texts for them.

use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

use crate::degraded::{Degradation, Part};
use crate::types::Family;

/// A contradiction between a setting and the host. The part concerned is left out, and the rest of
/// the desired state goes in.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Fault {
    /// No connected network contains the gateway.
    #[error(
        "{key}: gateway {gateway} is not on-link: no connected network of this host{device} holds it"
    )]
    NotOnLink {
        key: &'static str,
        gateway: IpAddr,
        /// ` on NAME` where an interface is set.
        device: String,
    },
    /// The host has no address of the family yet, for example before DHCP has answered.
    #[error(
        "{key}: gateway {gateway} is not on-link: this host has no {} address yet",
        Family::of(*gateway)
    )]
    NoAddressYet { key: &'static str, gateway: IpAddr },
    /// The interfaces that could hold the gateway have IPv6 switched off.
    #[error(
        "{key}: gateway {gateway} is not on-link: IPv6 is switched off on {devices} (disable_ipv6=1)"
    )]
    Ipv6Disabled {
        key: &'static str,
        gateway: IpAddr,
        devices: String,
    },
    #[error("{key}: {gateway} is out of reach: {device} is down")]
    LinkDown {
        key: &'static str,
        gateway: IpAddr,
        device: String,
    },
    /// The interface of a NAT's egress path.
    #[error("{device}, the interface of the egress path, has no carrier")]
    NoCarrier { device: String },
    /// The link is up, and the route of the connected network is gone.
    #[error(
        "{key}: {gateway} is out of reach: the main table has no route to {network} on {device}, although {device} has an address there"
    )]
    NoConnectedRoute {
        key: &'static str,
        gateway: IpAddr,
        network: IpNet,
        device: String,
    },
    #[error(
        "{key}: gateway {gateway} is an address of this host itself: nothing sent there leaves"
    )]
    OwnGateway { key: &'static str, gateway: IpAddr },
    /// The named interface does not exist.
    #[error("{key}: this host has no interface {name}; it has: {present}")]
    NoInterface {
        key: &'static str,
        name: String,
        present: String,
    },
    /// `onlink` is set, and neither a setting nor a default route shows the link.
    #[error(
        "{key}: the interface of onlink gateway {gateway} is not known: the main table has no default route, and several interfaces have addresses"
    )]
    OnlinkWithoutLink { key: &'static str, gateway: IpAddr },
    /// An IPv6 link-local gateway is ambiguous without an interface.
    #[error("{key}: link-local gateway {gateway} needs an interface")]
    LinkLocalNeedsInterface { key: &'static str, gateway: IpAddr },
    /// `auto` found the NAT instance.
    #[error(
        "[bypass] gateway: auto finds {gateway}, which is an egress gateway: the bypass would silently go through the NAT"
    )]
    BypassIsEgress { gateway: IpAddr },
    /// The family has no router, although the host has addresses of the family.
    #[error(
        "skipped: no default route in the main table and no [bypass] gateway; storage traffic over {family} gets no bypass"
    )]
    NoBypassGateway { family: Family },
    /// The document and the settings leave no prefix of the family.
    #[error("no {family} prefix is in force, so no {family} storage traffic takes the bypass path")]
    NoPrefixes { family: Family },
    #[error("{key}: {address} is no address of this host{hint}")]
    NotOurAddress {
        key: &'static str,
        address: IpAddr,
        /// The answer of the metadata service.
        hint: String,
    },
    /// `sources = "auto"` without an answer.
    #[error(
        "[nat] sources: auto needs the VPC's CIDRs, and neither the metadata service nor [vpc] cidrs gives any"
    )]
    NoSources,
    #[error(
        "[nat] egress_interface: auto needs a default route in the main table, and there is none"
    )]
    NoEgressInterface,
    /// More incoming interfaces than reserved priorities.
    #[error("[nat] sources are reached through {count} interfaces; at most {most} are supported")]
    TooManyInputs { count: usize, most: usize },
    /// The rules list the administrator's routes beside the bypass path.
    #[error("more than {most} routes of the main table leave by {device} beside a default route")]
    TooManyRoutes { most: usize, device: String },
}

impl Fault {
    /// True if the only fault is that no connected network holds the gateway.
    pub fn is_off_link(&self) -> bool {
        matches!(
            self,
            Fault::NotOnLink { .. }
                | Fault::NoAddressYet { .. }
                | Fault::Ipv6Disabled { .. }
                | Fault::LinkDown { .. }
                | Fault::NoConnectedRoute { .. }
        )
    }

    /// The remedy, in one clause.
    fn advice(&self) -> &'static str {
        match self {
            Fault::NotOnLink { .. } => "check the address, or the interface's own",
            Fault::NoAddressYet { .. } => "check DHCP, or the addresses of the interfaces",
            Fault::Ipv6Disabled { .. } => {
                "switch IPv6 on for the interface, or remove the IPv6 gateway"
            }
            Fault::LinkDown { .. } => "bring the link up",
            Fault::NoCarrier { .. } => "plug the interface in, or bring its peer up",
            Fault::NoConnectedRoute { .. } => "restore the route of the connected network",
            Fault::OwnGateway { .. } => {
                "write the router's address, and on the NAT instance itself set role = \"nat\""
            }
            Fault::NoInterface { .. } => "correct the name, or create the interface",
            Fault::OnlinkWithoutLink {
                key: "[bypass] gateway",
                ..
            } => "add a default route, or set [bypass] interface",
            Fault::OnlinkWithoutLink { .. } => "add a default route",
            Fault::LinkLocalNeedsInterface { .. } => "set [bypass] interface",
            Fault::BypassIsEgress { .. } => {
                "set [bypass] gateway to the VPC router (the first address of the subnet)"
            }
            Fault::NoBypassGateway { .. } => {
                "set [bypass] gateway, or remove the family from [select] families"
            }
            Fault::NoPrefixes { .. } => {
                "check [select], or remove the family from [select] families"
            }
            Fault::NotOurAddress { .. } => {
                "assign it to an interface, or name the private address behind it"
            }
            Fault::NoSources => "set sources, for example [\"10.0.0.0/16\"]",
            Fault::NoEgressInterface => "set egress_interface",
            Fault::TooManyInputs { .. } => "set sources to fewer networks",
            Fault::TooManyRoutes { .. } => "replace these routes by fewer, wider ones",
        }
    }

    /// The fault as a degradation, with its consequence for the traffic.
    pub fn degrades(
        &self,
        part: Part,
        family: impl Into<Option<Family>>,
        consequence: &str,
    ) -> Degradation {
        let reason = if consequence.is_empty() {
            self.to_string()
        } else {
            format!("{self}; {consequence}")
        };
        Degradation::new(part, family, reason).with_advice(self.advice())
    }
}
