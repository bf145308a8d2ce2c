//! A small account with which most tests start.

use crate::cloud::Cloud;
use crate::state::{Family, Kind, Target};
use crate::world::{NewList, Owner};

/// The VPC, 10.0.0.0/16 and 2600:1f18::/56.
pub const VPC: &str = "vpc-0aaaaaaaaaaaaaaa1";
/// The route table of the VPC, with the NAT gateway as its IPv4 default.
pub const TABLE: &str = "rtb-0aaaaaaaaaaaaaaa1";
/// The internet gateway.
pub const IGW: &str = "igw-0aaaaaaaaaaaaaaa1";
/// The egress-only internet gateway.
pub const EIGW: &str = "eigw-0aaaaaaaaaaaaaaa1";
/// The NAT gateway.
pub const NAT: &str = "nat-0aaaaaaaaaaaaaaa1";
/// AWS's own list of S3 in the region.
pub const AWS_LIST: &str = "pl-63a5400a";

/// A VPC with one route table, three gateways, and AWS's own list of S3.
pub fn account() -> Cloud {
    let cloud = Cloud::new();
    cloud.add_vpc(VPC, &["10.0.0.0/16", "2600:1f18::/56"]);
    cloud.add_table(TABLE, VPC);
    cloud.set_target(IGW, Target::attached(Kind::InternetGateway, VPC));
    cloud.set_target(EIGW, Target::attached(Kind::EgressOnlyGateway, VPC));
    cloud.set_target(NAT, Target::attached(Kind::NatGateway, VPC));
    cloud.set_route(TABLE, "0.0.0.0/0", NAT);
    cloud.add_list(&NewList {
        id: AWS_LIST,
        name: "com.amazonaws.us-east-1.s3",
        family: Family::Ipv4,
        owner: Owner::Aws,
        max_entries: 1,
        prefixes: "52.216.0.0/15".parse().into_iter().collect(),
    });
    cloud
}
