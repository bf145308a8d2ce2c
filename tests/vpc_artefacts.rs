//! The files of the vpc role: the IAM policies against the calls of the code, and the CronJob against
//! the sample config.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use trailblazer::types::{Family, PerFamily, SyncToken};
use trailblazer::vpc::objects::{
    Account, ListId, ListState, ListVersion, PrefixList, RouteTableId, RouteTarget, Tags,
};
use trailblazer::vpc::step::Step;

const POLICIES: &str = "packaging/aws/iam";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The statements of a policy.
#[track_caller]
fn statements(policy: &str) -> Vec<Value> {
    let path = format!("{POLICIES}/{policy}.json");
    let value: Value = serde_json::from_str(&read(&path)).unwrap();
    assert_eq!(value["Version"], "2012-10-17", "{path}");
    let statements = value["Statement"].as_array().unwrap().clone();
    assert!(
        statements.iter().all(|it| it["Effect"] == "Allow"),
        "{path}"
    );
    statements
}

/// A string or a list of strings.
fn strings(value: &Value) -> Vec<String> {
    let list = match value {
        Value::Array(list) => list.clone(),
        one => vec![one.clone()],
    };
    list.iter()
        .map(|one| one.as_str().unwrap().to_owned())
        .collect()
}

/// The actions of a policy without `ec2:`, each once.
#[track_caller]
fn actions(policy: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for action in statements(policy)
        .iter()
        .flat_map(|it| strings(&it["Action"]))
    {
        let name = action.strip_prefix("ec2:").expect("an action of EC2");
        assert!(found.insert(name.to_owned()), "{policy}: {action} twice");
    }
    found
}

/// The steps of this name, and the action of each one's call. A new kind of step does not compile here.
fn action_of(step: &Step) -> &'static str {
    match step {
        Step::CreateList { .. }
        | Step::ResizeList { .. }
        | Step::RaiseToken { .. }
        | Step::DropTokens { .. }
        | Step::ModifyEntries { .. }
        | Step::CreateRoute { .. }
        | Step::ReplaceRoute { .. }
        | Step::DeleteRoute { .. }
        | Step::TagTable { .. }
        | Step::UntagTable { .. }
        | Step::DeleteSpareRoute { .. }
        | Step::DeleteSpare { .. }
        | Step::DeleteList { .. } => {
            let lists = PerFamily {
                ipv4: Some(list()),
                ipv6: None,
            };
            step.call(&lists, "once").unwrap().action()
        }
    }
}

fn list() -> PrefixList {
    PrefixList {
        id: ListId("pl-0123456789abcdef0".to_owned()),
        arn: String::new(),
        name: "trailblazer-s3-ipv4".to_owned(),
        family: Some(Family::Ipv4),
        owner: Account("123456789012".to_owned()),
        state: ListState::Settled,
        state_message: None,
        max_entries: Some(20),
        version: Some(ListVersion(1)),
        tags: Tags::new(),
        from_ipam: false,
    }
}

fn steps() -> BTreeMap<&'static str, Step> {
    let family = Family::Ipv4;
    let table = RouteTableId("rtb-0123456789abcdef0".to_owned());
    let target = RouteTarget::from_id("igw-0123456789abcdef0").unwrap();
    let create_route = Step::CreateRoute {
        family,
        table: table.clone(),
        prefix: None,
        target: target.clone(),
    };
    let replace_route = Step::ReplaceRoute {
        family,
        table: table.clone(),
        prefix: None,
        from: "igw-1".to_owned(),
        target,
    };
    let create_list = Step::CreateList {
        family,
        name: "trailblazer-s3-ipv4".to_owned(),
        max_entries: 20,
        entries: Vec::new(),
        tags: Tags::new(),
    };
    let modify = Step::ModifyEntries {
        family,
        add: Vec::new(),
        remove: Vec::new(),
    };
    let raise = Step::RaiseToken {
        family,
        from: None,
        to: SyncToken(1),
    };
    let keys = Vec::new();
    let tag_table = Step::TagTable {
        table: table.clone(),
        tags: Tags::new(),
    };
    let untag_table = Step::UntagTable {
        table: table.clone(),
        keys: Vec::new(),
    };
    let delete_route = Step::DeleteRoute {
        family,
        table: table.clone(),
        prefix: None,
    };
    let spare = ListId("pl-0123456789abcdef1".to_owned());
    let delete_spare_route = Step::DeleteSpareRoute {
        family,
        table: table.clone(),
        list: spare.clone(),
    };
    let delete_spare = Step::DeleteSpare {
        family,
        list: spare,
    };
    BTreeMap::from([
        ("delete spare route", delete_spare_route),
        ("delete spare", delete_spare),
        ("create list", create_list),
        (
            "resize list",
            Step::ResizeList {
                family,
                from: 1,
                to: 2,
            },
        ),
        ("raise token", raise),
        ("drop tokens", Step::DropTokens { family, keys }),
        ("modify", modify),
        ("create route", create_route),
        ("replace route", replace_route),
        ("delete route", delete_route),
        ("tag table", tag_table),
        ("untag table", untag_table),
        ("delete list", Step::DeleteList { family }),
    ])
}

/// The actions of these steps.
fn changes(names: &[&str]) -> BTreeSet<String> {
    let steps = steps();
    let action = |name: &&str| action_of(&steps[*name]).to_owned();
    names.iter().map(action).collect()
}

/// All files of the role that may ask EC2, without the client itself.
fn sources() -> String {
    let mut files: Vec<PathBuf> = Vec::new();
    let mut directories = vec![
        repository().join("src/vpc"),
        repository().join("src/commands"),
    ];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let of_client = path.ends_with("src/vpc/ec2") || path.ends_with("src/vpc/ec2.rs");
            if path.is_dir() && !of_client {
                directories.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") && !of_client {
                files.push(path);
            }
        }
    }
    let texts = files.iter().map(|path| fs::read_to_string(path).unwrap());
    texts.collect()
}

/// The actions that read, as far as the role calls the client's method of each.
fn reads() -> BTreeSet<String> {
    let methods = [
        ("describe_lists", "DescribeManagedPrefixLists"),
        ("list_entries", "GetManagedPrefixListEntries"),
        ("list_associations", "GetManagedPrefixListAssociations"),
        ("describe_route_tables", "DescribeRouteTables"),
    ];
    let requests = read("src/vpc/ec2/request.rs");
    let known = requests.matches(", Effect::Read)").count();
    assert_eq!(known, methods.len(), "every reading call has a line here");
    let callers = sources();
    let mut found = BTreeSet::new();
    for (method, action) in methods {
        let request = format!("(\"{action}\", Effect::Read)");
        assert!(requests.contains(&request), "{request}");
        if callers.contains(&format!(".{method}(")) {
            found.insert(action.to_owned());
        }
    }
    found
}

#[test]
fn policies_have_exactly_the_actions_of_the_code() {
    let reads = reads();
    assert_eq!(actions("read"), reads);
    let with_reads = |names: &[&str]| &changes(names) | &reads;
    // A new list has the tags of its document from the call that creates it.
    let first = [
        "create list",
        "modify",
        "create route",
        "delete spare route",
        "delete spare",
    ];
    let mut install = with_reads(&first);
    install.insert("CreateTags".to_owned());
    assert_eq!(actions("install"), install);
    let steady = [
        "modify",
        "resize list",
        "raise token",
        "drop tokens",
        "create route",
        "replace route",
    ];
    assert_eq!(actions("reconcile"), with_reads(&steady));
    let flush = with_reads(&["delete route", "delete list"]);
    assert_eq!(actions("flush"), flush);
    // Together the policies have every step.
    let all = ["install", "reconcile", "flush"].map(actions);
    let all: BTreeSet<String> = all.into_iter().flatten().collect();
    let names: Vec<&str> = steps().keys().copied().collect();
    assert_eq!(all, with_reads(&names));
}

/// `mode = "routes"` has a policy of its own. It reads the lists of others for the quota of a table.
#[test]
fn policy_of_single_routes_has_the_actions_of_its_steps() {
    let steps = [
        "create route",
        "replace route",
        "delete route",
        "tag table",
        "untag table",
    ];
    assert_eq!(actions("routes"), &changes(&steps) | &reads());
}

/// `check` alone describes targets.
#[test]
fn policy_of_check_has_the_calls_that_describe_targets() {
    let code = read("src/vpc/ec2/targets.rs");
    let described = code
        .split('"')
        .filter(|word| word.starts_with("Describe") && word.chars().all(char::is_alphanumeric));
    let described: BTreeSet<String> = described.map(str::to_owned).collect();
    assert!(described.len() > 5, "{described:?}");
    assert_eq!(actions("check"), described);
}

/// No command makes or tries a call of another kind: `check` needs no further permission for its dry runs.
#[test]
fn no_command_calls_what_no_step_calls() {
    let callers = sources();
    let calls = read("src/vpc/calls.rs");
    let steps = read("src/vpc/step.rs");
    let kinds = callers.matches("Call::").count();
    assert!(kinds > 10, "calls are found: {kinds}");
    let kind = "Call::RestoreList";
    assert!(calls.contains(kind) && !steps.contains(kind), "{kind}");
    let uses = callers.matches(kind).count();
    assert_eq!(uses, calls.matches(kind).count(), "{kind} is in no policy");
}

/// Each change is confined: to a list by its id or by the owner's tag, or to tables by their tag.
#[test]
fn every_change_is_confined_to_own_objects() {
    for policy in ["install", "reconcile", "flush", "routes"] {
        for statement in statements(policy) {
            let names = strings(&statement["Action"]);
            let looks = |name: &String| {
                name.starts_with("ec2:Describe") || name.starts_with("ec2:GetManaged")
            };
            if names.iter().all(looks) {
                continue;
            }
            let whole = statement.to_string();
            let resources = strings(&statement["Resource"]);
            let one_list = |arn: &String| arn.contains(":prefix-list/pl-");
            let conditions = statement["Condition"].to_string();
            let confined = resources.iter().all(one_list)
                || conditions.contains("trailblazer")
                || conditions.contains("ec2:CreateAction");
            assert!(confined, "{policy}: {whole}");
            assert!(!resources.contains(&"*".to_owned()), "{policy}: {whole}");
        }
    }
}

/// The tag keys of the policies are those of the code.
#[test]
fn conditions_name_the_tags_of_the_code() {
    use trailblazer::vpc::ledger::HASH;
    use trailblazer::vpc::tags::{OWNER, TOKEN, of_token, outdated};
    let owner = format!("aws:ResourceTag/{OWNER}");
    for policy in ["install", "flush"] {
        assert!(
            statements(policy)
                .iter()
                .any(|it| it["Condition"]["StringEquals"][&owner] == "trailblazer-s3"),
            "{policy}"
        );
    }
    let mut tags = Tags::new();
    for token in 1..=20 {
        tags.extend(of_token(SyncToken(token)));
    }
    assert!(!outdated(&tags).is_empty());
    for (policy, hash) in [("reconcile", false), ("routes", true)] {
        let statements = statements(policy);
        let of_tags = |it: &&Value| strings(&it["Action"]).contains(&"ec2:CreateTags".to_owned());
        let tagging = statements.iter().find(of_tags).unwrap();
        let both = ["ec2:CreateTags", "ec2:DeleteTags"];
        assert_eq!(strings(&tagging["Action"]), both, "{policy}");
        let allowed = strings(&tagging["Condition"]["ForAllValues:StringLike"]["aws:TagKeys"]);
        let allows = |key: &str| {
            let fits = |pattern: &String| match pattern.strip_suffix('*') {
                Some(start) => key.starts_with(start),
                None => key == pattern,
            };
            allowed.iter().any(fits)
        };
        let keys = tags.keys().all(|key| allows(key));
        assert!(keys && allows(TOKEN), "{policy}: {allowed:?}");
        // Neither the owner of a list nor the tag that selects a table.
        assert!(
            !allows(OWNER) && !allows("trailblazer"),
            "{policy}: {allowed:?}"
        );
        assert_eq!(allows(HASH), hash, "{policy}: {allowed:?}");
    }
}

/// The config in a YAML file: the indented lines after `NAME: |`.
#[track_caller]
fn embedded(path: &str, name: &str) -> String {
    let text = read(path);
    let start = format!("{name}: |");
    let mut lines = text.lines().skip_while(|line| line.trim() != start);
    let head = lines.next().unwrap_or_else(|| panic!("{path}: {name}"));
    let indent = head.len() - head.trim_start().len() + 2;
    let inside = |line: &&str| line.trim().is_empty() || line.starts_with(&" ".repeat(indent));
    let block: Vec<&str> = lines
        .take_while(inside)
        .map(|line| line.get(indent..).unwrap_or_default())
        .collect();
    block.join("\n") + "\n"
}

#[test]
fn cronjob_has_a_valid_config_and_no_right() {
    let file = "packaging/kubernetes/vpc-cronjob.yaml";
    let config = trailblazer::config::parse(&embedded(file, "trailblazer.toml"), file);
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    assert!(config.vpc_role);
    let text = read(file);
    for line in [
        "pod-security.kubernetes.io/enforce: restricted",
        "drop: [ALL]",
        "runAsNonRoot: true",
        "readOnlyRootFilesystem: true",
        "concurrencyPolicy: Forbid",
    ] {
        assert!(text.contains(line), "{file}: {line}");
    }
    for word in ["add:", "hostNetwork", "hostPath", "privileged: true"] {
        assert!(!text.contains(word), "{file}: {word}");
    }
    let image = format!("image: trailblazer:{}\n", env!("CARGO_PKG_VERSION"));
    assert!(text.contains(&image), "{file}: {image}");
}
