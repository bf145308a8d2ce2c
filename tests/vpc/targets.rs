//! Descriptions of targets, for `check`.

use cloud::{Kind, Target};
use trailblazer::vpc::ec2::ErrorKind;
use trailblazer::vpc::objects::{RouteTarget, VpcId};

use crate::world::*;

fn target(id: &str) -> RouteTarget {
    RouteTarget::from_id(id).expect("a target")
}

#[test]
fn every_described_kind_tells_its_vpc() {
    let cloud = vpc();
    let kinds = [
        (IGW, Kind::InternetGateway),
        (EIGW, Kind::EgressOnlyGateway),
        (NAT, Kind::NatGateway),
        ("eni-0aaaaaaaaaaaaaaa1", Kind::Interface),
        ("vpce-0aaaaaaaaaaaaaaa1", Kind::Endpoint),
        ("pcx-0aaaaaaaaaaaaaaa1", Kind::Peering),
        ("tgw-0aaaaaaaaaaaaaaa1", Kind::TransitGateway),
    ];
    let writer = Writer::new(&cloud, "");
    let ec2 = writer.ec2();
    for (id, kind) in kinds {
        cloud.set_target(id, Target::attached(kind, VPC));
        let places = run(ec2.describe_target(&target(id))).unwrap().unwrap();
        let attached = places
            .iter()
            .any(|place| place.vpcs.contains(&VpcId::from(VPC)));
        assert!(attached, "{id}: {places:?}");
    }
    assert_eq!(cloud.violations(), Vec::<String>::new());
}

#[test]
fn detached_and_missing_targets_are_told() {
    let cloud = vpc();
    cloud.detach(IGW);
    cloud.remove_target(NAT);
    let ec2 = Writer::new(&cloud, "").ec2();
    let places = run(ec2.describe_target(&target(IGW))).unwrap().unwrap();
    assert!(
        places.iter().all(|place| place.vpcs.is_empty()),
        "{places:?}"
    );
    let error = run(ec2.describe_target(&target(NAT))).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    let other = run(ec2.describe_target(&target("lgw-0aaaaaaaaaaaaaaa1"))).unwrap();
    assert!(other.is_none());
}
