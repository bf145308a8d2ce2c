use super::super::xml::parse;
use super::*;
use crate::vpc::objects::TargetKind;

fn document(action: &str, content: &str) -> Element {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\n    \
         <requestId>59dbff89-35bd-4eac-99ed-be587EXAMPLE</requestId>\n    {content}\n</{action}Response>"
    );
    parse(text.as_bytes()).unwrap()
}

const LISTS: &str = "DescribeManagedPrefixLists";

const OWN: &str = "<addressFamily>IPv4</addressFamily>
    <maxEntries>20</maxEntries>
    <ownerId>123456789012</ownerId>
    <prefixListArn>arn:aws:ec2:us-east-1:123456789012:prefix-list/pl-0123456789abcdef0</prefixListArn>
    <prefixListId>pl-0123456789abcdef0</prefixListId>
    <prefixListName>trailblazer-s3-ipv4</prefixListName>
    <state>modify-in-progress</state>
    <stateMessage>a &lt; b</stateMessage>
    <novelty><state>x</state></novelty>
    <tagSet>
        <item><key>trailblazer:owner</key><value>prod</value></item>
        <item><key>empty</key><value/></item>
    </tagSet>
    <version>3</version>";

const OF_AWS: &str = "<addressFamily>IPv4</addressFamily><ownerId>AWS</ownerId>
    <prefixListArn>arn:aws:ec2:us-east-1:aws:prefix-list/pl-63a5400a</prefixListArn>
    <prefixListId>pl-63a5400a</prefixListId>
    <prefixListName>com.amazonaws.us-east-1.s3</prefixListName>
    <state>create-complete</state>";

fn lists(content: &str) -> Result<Page<PrefixList>, DecodeFault> {
    page(
        &document(LISTS, content),
        LISTS,
        "prefixListSet",
        prefix_list,
    )
}

fn one_list(fields: &str) -> Result<PrefixList, DecodeFault> {
    let set = format!("<prefixListSet><item>{fields}</item></prefixListSet>");
    lists(&set).map(|mut page| page.items.remove(0))
}

#[test]
fn own_list_is_read_with_all_fields() {
    let list = one_list(OWN).unwrap();
    assert_eq!(list.id.as_str(), "pl-0123456789abcdef0");
    assert_eq!(list.name, "trailblazer-s3-ipv4");
    assert_eq!(list.family, Some(Family::Ipv4));
    assert_eq!(list.owner.as_str(), "123456789012");
    assert_eq!(list.state, ListState::InProgress);
    assert_eq!(list.state_message.as_deref(), Some("a < b"));
    assert_eq!(
        (list.max_entries, list.version),
        (Some(20), Some(ListVersion(3)))
    );
    assert_eq!(list.tags["trailblazer:owner"], "prod");
    assert_eq!(list.tags["empty"], "");
    assert!(!list.from_ipam);
    let resolver = "<ipamPrefixListResolverTargetId>iprt-1</ipamPrefixListResolverTargetId>";
    assert!(one_list(&format!("{OWN}{resolver}")).unwrap().from_ipam);
}

#[test]
fn list_of_aws_has_no_version_and_no_size() {
    let list = one_list(OF_AWS).unwrap();
    assert_eq!((list.max_entries, list.version), (None, None));
    assert_eq!(list.owner.as_str(), "AWS");
    let of_account = OF_AWS.replace("<ownerId>AWS<", "<ownerId>123456789012<");
    assert!(one_list(&of_account).is_err());
}

#[test]
fn absent_element_is_a_fault_and_never_an_empty_answer() {
    let empty = lists("<prefixListSet/>").unwrap();
    assert_eq!(empty.items, []);
    assert_eq!(empty.next, None);
    let fault = lists("").unwrap_err();
    assert!(fault.to_string().contains("prefixListSet"), "{fault}");
    for field in [
        "addressFamily",
        "maxEntries",
        "ownerId",
        "prefixListArn",
        "prefixListId",
        "prefixListName",
        "version",
    ] {
        let without = OWN.replace(field, "renamed");
        let fault = one_list(&without).unwrap_err();
        assert!(fault.to_string().contains(field), "{fault}");
    }
    let odd = one_list(&OWN.replace("<version>3", "<version>three")).unwrap_err();
    assert!(odd.to_string().contains("three"), "{odd}");
}

#[test]
fn every_half_answer_is_a_fault() {
    let whole = format!(
        "<?xml version=\"1.0\"?><{LISTS}Response><prefixListSet><item>{OWN}</item></prefixListSet></{LISTS}Response>"
    );
    assert!(parse(whole.as_bytes()).is_ok());
    for end in 0..whole.len() {
        assert!(parse(&whole.as_bytes()[..end]).is_err(), "{end}");
    }
}

#[test]
fn answer_to_another_action_is_a_fault() {
    let entries = document("GetManagedPrefixListEntries", "<prefixListSet/>");
    let fault = page(&entries, LISTS, "prefixListSet", prefix_list).unwrap_err();
    assert!(
        fault
            .to_string()
            .contains("GetManagedPrefixListEntriesResponse")
    );
}

#[test]
fn page_with_a_token_has_a_successor() {
    let action = "GetManagedPrefixListEntries";
    let document = document(
        action,
        "<entrySet>
           <item><cidr>52.216.0.0/15</cidr><description>S3 us-east-1</description></item>
           <item><cidr>2600:1ff8::/40</cidr></item>
         </entrySet><nextToken>abc==</nextToken>",
    );
    let found = page(&document, action, "entrySet", entry).unwrap();
    assert_eq!(found.next.as_deref(), Some("abc=="));
    assert_eq!(found.items.len(), 2);
    assert_eq!(found.items[0].description.as_deref(), Some("S3 us-east-1"));
    assert_eq!(found.items[1].cidr.to_string(), "2600:1ff8::/40");
    let odd = "<entrySet><item><cidr>52.216.0.0/99</cidr></item></entrySet>";
    let odd = self::document(action, odd);
    let fault = page(&odd, action, "entrySet", entry).unwrap_err();
    assert!(fault.to_string().contains("52.216.0.0/99"), "{fault}");
}

fn table(routes: &str) -> Result<RouteTable, DecodeFault> {
    let action = "DescribeRouteTables";
    let document = document(
        action,
        &format!(
            "<routeTableSet><item>
               <routeTableId>rtb-13ad487a</routeTableId><vpcId>vpc-11ad4878</vpcId>
               <ownerId>123456789012</ownerId>
               <routeSet>{routes}</routeSet>
               <associationSet>
                 <item><main>true</main></item>
                 <item><main>false</main><subnetId>subnet-1</subnetId>
                   <associationState><state>associated</state></associationState></item>
                 <item><main>false</main><subnetId>subnet-2</subnetId>
                   <associationState><state>disassociated</state></associationState></item>
               </associationSet>
               <propagatingVgwSet/><tagSet/>
             </item></routeTableSet>"
        ),
    );
    let page = page(&document, action, "routeTableSet", route_table);
    page.map(|mut page| page.items.remove(0))
}

fn route(fields: &str) -> VpcRoute {
    let route = format!("<item>{fields}<state>active</state><origin>CreateRoute</origin></item>");
    table(&route).unwrap().routes.remove(0)
}

#[test]
fn table_is_read_with_its_subnets() {
    let found = table(
        "<item><destinationCidrBlock>10.0.0.0/22</destinationCidrBlock>
           <gatewayId>local</gatewayId><state>active</state><origin>CreateRouteTable</origin></item>
         <item><destinationPrefixListId>pl-1</destinationPrefixListId>
           <gatewayId>igw-1</gatewayId><state>blackhole</state><origin>CreateRoute</origin></item>
         <item><destinationOfALaterVersion>x</destinationOfALaterVersion>
           <gatewayId>igw-1</gatewayId><state>active</state><origin>CreateRoute</origin></item>",
    )
    .unwrap();
    assert_eq!(found.id.as_str(), "rtb-13ad487a");
    assert!(found.is_main);
    assert_eq!(found.subnets, ["subnet-1"]);
    assert_eq!(
        found.routes.len(),
        2,
        "the third has an unknown destination"
    );
    let local = &found.routes[0];
    assert_eq!(local.target.as_ref().unwrap().kind, TargetKind::Local);
    assert_eq!(local.origin, RouteOrigin::CreateRouteTable);
    let ours = &found.routes[1];
    assert_eq!(
        ours.destination,
        RouteDestination::List(ListId::from("pl-1"))
    );
    assert_eq!(ours.state, RouteState::Blackhole);
}

#[test]
fn each_kind_of_target_is_read() {
    for (element, id, kind) in [
        ("gatewayId", "vgw-1", TargetKind::Gateway),
        ("gatewayId", "vpce-1", TargetKind::Endpoint),
        ("natGatewayId", "nat-1", TargetKind::NatGateway),
        (
            "egressOnlyInternetGatewayId",
            "eigw-1",
            TargetKind::EgressOnlyGateway,
        ),
        ("transitGatewayId", "tgw-1", TargetKind::TransitGateway),
        ("vpcPeeringConnectionId", "pcx-1", TargetKind::Peering),
        ("localGatewayId", "lgw-1", TargetKind::LocalGateway),
        ("carrierGatewayId", "cagw-1", TargetKind::CarrierGateway),
        (
            "coreNetworkArn",
            "arn:aws:networkmanager::1:core-network/c",
            TargetKind::CoreNetwork,
        ),
        (
            "odbNetworkArn",
            "arn:aws:odb:eu-west-1:1:odb-network/o",
            TargetKind::OdbNetwork,
        ),
    ] {
        let route = route(&format!(
            "<destinationIpv6CidrBlock>::/0</destinationIpv6CidrBlock><{element}>{id}</{element}>"
        ));
        let target = route.target.unwrap();
        assert_eq!((target.kind, target.id.as_str()), (kind, id));
    }
    let later =
        route("<destinationCidrBlock>0.0.0.0/0</destinationCidrBlock><ipAddress>1</ipAddress>");
    assert_eq!(later.target, None);
}

#[test]
fn instance_is_recognised_behind_its_interface() {
    let route = route(
        "<destinationCidrBlock>0.0.0.0/0</destinationCidrBlock><instanceId>i-1</instanceId>
         <networkInterfaceId>eni-1</networkInterfaceId>",
    );
    for target in ["i-1", "eni-1"] {
        assert!(route.leads_to(&RouteTarget::from_id(target).unwrap()));
    }
    for target in ["i-2", "eni-2", "igw-1"] {
        assert!(!route.leads_to(&RouteTarget::from_id(target).unwrap()));
    }
}

#[test]
fn route_without_a_state_is_a_fault() {
    let route = "<item><destinationCidrBlock>10.0.0.0/8</destinationCidrBlock></item>";
    assert!(table(route).unwrap_err().to_string().contains("state"));
}

#[test]
fn call_about_a_list_returns_the_list_and_other_calls_nothing() {
    let action = "ModifyManagedPrefixList";
    let done = document(action, &format!("<prefixList>{OWN}</prefixList>"));
    let list = performed(&done, action).unwrap().unwrap();
    assert_eq!(list.version, Some(ListVersion(3)));
    assert!(performed(&document(action, ""), action).is_err());
    for (content, is_done) in [
        ("<return>true</return>", true),
        ("", true),
        ("<return>false</return>", false),
    ] {
        let route = document("ReplaceRoute", content);
        assert_eq!(performed(&route, "ReplaceRoute").is_ok(), is_done);
    }
}
