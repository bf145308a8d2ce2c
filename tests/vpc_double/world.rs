//! A small account, and requests to it.

use cloud::{Cloud, HttpAnswer};

pub use cloud::sample::{AWS_LIST, EIGW, IGW, NAT, TABLE, VPC, account};

/// Sends an action with parameters as `KEY=VALUE`.
pub fn send(cloud: &Cloud, action: &str, parameters: &[&str]) -> HttpAnswer {
    let mut body = format!("Action={action}&Version=2016-11-15");
    for parameter in parameters {
        body.push('&');
        body.push_str(&parameter.replace('/', "%2F").replace(' ', "+"));
    }
    cloud.answer(&body)
}

/// Sends an action that must succeed.
#[track_caller]
pub fn ok(cloud: &Cloud, action: &str, parameters: &[&str]) -> String {
    let answer = send(cloud, action, parameters);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

/// Sends an action that must fail, and returns the code.
#[track_caller]
pub fn code(cloud: &Cloud, action: &str, parameters: &[&str]) -> String {
    let answer = send(cloud, action, parameters);
    assert_ne!(answer.status, 200, "{}", answer.body);
    text(&answer.body, "Code")
}

/// The text of the first element of a name.
#[track_caller]
pub fn text(xml: &str, name: &str) -> String {
    let (_, rest) = xml
        .split_once(&format!("<{name}>"))
        .unwrap_or_else(|| panic!("no {name} in {xml}"));
    rest.split_once("</").unwrap().0.to_owned()
}

/// Creates a list of IPv4 prefixes, and returns the id.
#[track_caller]
pub fn list(cloud: &Cloud, max: u32, prefixes: &[&str]) -> String {
    let mut parameters = vec![
        "PrefixListName=trailblazer-s3-ipv4".to_owned(),
        "AddressFamily=IPv4".to_owned(),
        format!("MaxEntries={max}"),
    ];
    for (index, prefix) in prefixes.iter().enumerate() {
        parameters.push(format!("Entry.{}.Cidr={prefix}", index + 1));
    }
    let parameters: Vec<&str> = parameters.iter().map(String::as_str).collect();
    text(
        &ok(cloud, "CreateManagedPrefixList", &parameters),
        "prefixListId",
    )
}

/// The parameter that names a list.
pub fn id(list: &str) -> String {
    format!("PrefixListId={list}")
}

/// The state of a list, as described.
#[track_caller]
pub fn state(cloud: &Cloud, list: &str) -> String {
    let parameter = format!("PrefixListId.1={list}");
    text(
        &ok(cloud, "DescribeManagedPrefixLists", &[&parameter]),
        "state",
    )
}
