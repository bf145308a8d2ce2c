//! Requests against AWS's service model.

use crate::world::{TABLE, account, code, ok};

/// Each breach of the contract has its code, and is held against the client.
#[test]
fn breaches_of_the_service_model_are_refused_and_counted() {
    let cases: [(&str, &[&str], &str); 10] = [
        ("DescribeManagedPrefixList", &[], "InvalidAction"),
        (
            "DescribeRouteTables",
            &["RouteTableIds.1=rtb-1"],
            "UnknownParameter",
        ),
        (
            "DescribeRouteTables",
            &["MaxResults=4"],
            "InvalidParameterValue",
        ),
        (
            "DescribeRouteTables",
            &["MaxResults=many"],
            "InvalidParameterValue",
        ),
        (
            "DescribeRouteTables",
            &["DryRun=yes"],
            "InvalidParameterValue",
        ),
        (
            "DescribeRouteTables",
            &["RouteTableId.2=rtb-1"],
            "InvalidParameterValue",
        ),
        ("GetManagedPrefixListEntries", &[], "MissingParameter"),
        (
            "ModifyManagedPrefixList",
            &["PrefixListId=pl-1", "AddEntry.1.Description=x"],
            "MissingParameter",
        ),
        (
            "DescribeRouteTables",
            &["Filter.1.Name=colour", "Filter.1.Value.1=red"],
            "InvalidParameterValue",
        ),
        (
            "DeleteRoute",
            &["RouteTableId=rtb-1", "RouteTableId=rtb-1"],
            "InvalidParameterCombination",
        ),
    ];
    let cloud = account();
    for (count, (action, parameters, wanted)) in cases.iter().enumerate() {
        assert_eq!(
            code(&cloud, action, parameters),
            *wanted,
            "{action} {parameters:?}"
        );
        assert_eq!(
            cloud.violations().len(),
            count + 1,
            "{:?}",
            cloud.violations()
        );
    }
    let other = cloud.answer("Action=DescribeVpcs&Version=2014-10-01");
    assert!(other.body.contains("NoSuchVersion"), "{}", other.body);
}

/// The hundred and first entry of one list member breaks the model's own bound.
#[test]
fn lists_longer_than_the_model_allows_are_refused() {
    let cloud = account();
    let entries = (1..=101).map(|n| format!("AddEntry.{n}.Cidr=10.{n}.0.0/16"));
    let mut parameters = vec![
        "PrefixListId=pl-1".to_owned(),
        "CurrentVersion=1".to_owned(),
    ];
    parameters.extend(entries);
    let parameters: Vec<&str> = parameters.iter().map(String::as_str).collect();
    let wanted = "InvalidParameterValue";
    assert_eq!(code(&cloud, "ModifyManagedPrefixList", &parameters), wanted);
}

#[test]
fn correct_requests_leave_no_violation_and_are_logged() {
    let cloud = account();
    ok(&cloud, "DescribeVpcs", &[]);
    let destination = "DestinationCidrBlock=203.0.113.0/24";
    let table = format!("RouteTableId={TABLE}");
    let target = format!("GatewayId={}", crate::world::IGW);
    ok(&cloud, "CreateRoute", &[&table, destination, &target]);
    assert_eq!(cloud.violations(), Vec::<String>::new());
    assert_eq!((cloud.reads(), cloud.writes()), (1, 1));
    let calls = cloud.calls();
    assert_eq!(calls[1].action, "CreateRoute");
    assert!(calls[1].mutating && calls[1].error.is_none());
}

#[test]
fn dry_runs_prove_permissions_and_change_nothing() {
    let cloud = account();
    let table = format!("RouteTableId={TABLE}");
    let parameters = [
        table.as_str(),
        "DestinationCidrBlock=203.0.113.0/24",
        "GatewayId=igw-0aaaaaaaaaaaaaaa1",
        "DryRun=true",
    ];
    let before = cloud.routes(TABLE);
    assert_eq!(code(&cloud, "CreateRoute", &parameters), "DryRunOperation");
    cloud.configure(|settings| {
        settings.denied.insert("CreateRoute".to_owned());
    });
    assert_eq!(
        code(&cloud, "CreateRoute", &parameters),
        "UnauthorizedOperation"
    );
    assert_eq!(cloud.routes(TABLE), before);
    assert_eq!(cloud.writes(), 0);
}

/// A page is as long as asked, the token leads through all pages, and serves no other request.
#[test]
fn pages_are_followed_by_tokens_of_the_same_request() {
    let cloud = account();
    for n in 0..7 {
        cloud.add_table(&format!("rtb-0bbbbbbbbbbbbbbb{n}"), crate::world::VPC);
    }
    let mut seen = 0;
    let mut token = String::new();
    loop {
        let mut parameters = vec!["MaxResults=5"];
        let next = format!("NextToken={token}");
        if !token.is_empty() {
            parameters.push(&next);
        }
        let page = ok(&cloud, "DescribeRouteTables", &parameters);
        seen += page.matches("<vpcId>").count();
        if !page.contains("<nextToken>") {
            break;
        }
        token = crate::world::text(&page, "nextToken");
    }
    assert_eq!(seen, 8);
    let next = format!("NextToken={token}");
    assert_eq!(code(&cloud, "DescribeVpcs", &[&next]), "InvalidNextToken");
}
