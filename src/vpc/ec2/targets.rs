//! The targets of routes: existence, state, and the VPCs that each is attached to. For checks alone:
//! a pass learns of a missing target from the answer to its own call.

use super::decode::DecodeFault;
use super::request::{Effect, Request};
use super::xml::Element;
use super::{Ec2, Ec2Error};
use crate::vpc::objects::{RouteTarget, TargetKind, VpcId};

/// A target, as EC2 describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetPlace {
    /// EC2's word, such as `available`.
    pub state: String,
    pub vpcs: Vec<VpcId>,
}

/// The action that describes a kind of target.
struct Description {
    action: &'static str,
    /// The parameter with the id; `None` for a filter.
    id: Option<&'static str>,
    set: &'static str,
    read: fn(&Element) -> TargetPlace,
}

fn description(target: &RouteTarget) -> Option<Description> {
    let (action, id, set, read): (_, _, _, fn(&Element) -> TargetPlace) = match target.kind {
        TargetKind::Gateway if target.id.starts_with("igw-") => (
            "DescribeInternetGateways",
            Some("InternetGatewayId"),
            "internetGatewaySet",
            attached,
        ),
        TargetKind::EgressOnlyGateway => (
            "DescribeEgressOnlyInternetGateways",
            Some("EgressOnlyInternetGatewayId"),
            "egressOnlyInternetGatewaySet",
            attached,
        ),
        TargetKind::NatGateway => (
            "DescribeNatGateways",
            Some("NatGatewayId"),
            "natGatewaySet",
            inside,
        ),
        TargetKind::NetworkInterface => (
            "DescribeNetworkInterfaces",
            Some("NetworkInterfaceId"),
            "networkInterfaceSet",
            inside,
        ),
        TargetKind::Endpoint => (
            "DescribeVpcEndpoints",
            Some("VpcEndpointId"),
            "vpcEndpointSet",
            inside,
        ),
        TargetKind::Peering => (
            "DescribeVpcPeeringConnections",
            Some("VpcPeeringConnectionId"),
            "vpcPeeringConnectionSet",
            peering,
        ),
        TargetKind::TransitGateway => (
            "DescribeTransitGatewayVpcAttachments",
            None,
            "transitGatewayVpcAttachments",
            inside,
        ),
        _ => return None,
    };
    Some(Description {
        action,
        id,
        set,
        read,
    })
}

fn word(from: &Element, name: &str) -> String {
    from.text_of(name).unwrap_or_default().to_owned()
}

fn vpc(from: &Element) -> Option<VpcId> {
    from.text_of("vpcId").map(VpcId::from)
}

/// A gateway with attachments.
fn attached(from: &Element) -> TargetPlace {
    let attachments = from
        .child("attachmentSet")
        .into_iter()
        .flat_map(Element::items);
    let attachments: Vec<&Element> = attachments.collect();
    TargetPlace {
        state: attachments
            .first()
            .map(|it| word(it, "state"))
            .unwrap_or_default(),
        vpcs: attachments.into_iter().filter_map(vpc).collect(),
    }
}

/// An object inside of a VPC.
fn inside(from: &Element) -> TargetPlace {
    let state = from.text_of("state").or_else(|| from.text_of("status"));
    TargetPlace {
        state: state.unwrap_or_default().to_owned(),
        vpcs: vpc(from).into_iter().collect(),
    }
}

fn peering(from: &Element) -> TargetPlace {
    let sides = ["requesterVpcInfo", "accepterVpcInfo"];
    let sides = sides.into_iter().filter_map(|side| from.child(side));
    TargetPlace {
        state: from
            .child("status")
            .map(|it| word(it, "code"))
            .unwrap_or_default(),
        vpcs: sides.filter_map(vpc).collect(),
    }
}

impl Ec2 {
    /// Describes a target. `None` for a kind without such a call; no place for a transit gateway
    /// without attachments.
    ///
    /// # Errors
    /// [`Ec2Error`]; [`super::ErrorKind::NotFound`] for an unknown id.
    pub async fn describe_target(
        &self,
        target: &RouteTarget,
    ) -> Result<Option<Vec<TargetPlace>>, Ec2Error> {
        let Some(description) = description(target) else {
            return Ok(None);
        };
        let mut request = Request::new(description.action, Effect::Read);
        match description.id {
            Some(id) => request.set_all(id, [&target.id]),
            None => {
                let filter = ("transit-gateway-id".to_owned(), vec![target.id.clone()]);
                request.filters([filter]);
            }
        }
        let read = description.read;
        let places = self.pages(request, description.set, |from| {
            Ok::<_, DecodeFault>(read(from))
        });
        places.await.map(Some)
    }
}
