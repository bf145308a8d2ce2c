//! `docs/aws.md`: the commands by AWS's own models, and the IAM policies against the commands.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::tools::*;

const PACKER: &str = "packaging/ami/iam/packer.json";
const OPERATOR: &str = "packaging/ami/iam/operator.json";

fn statements(path: &str) -> Vec<Value> {
    let policy: Value = serde_json::from_str(&read(path)).unwrap();
    assert_eq!(policy["Version"], "2012-10-17", "{path}");
    policy["Statement"].as_array().unwrap().clone()
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|one| one.as_str().unwrap())
        .collect()
}

/// All actions of a policy; none twice.
fn allowed(path: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for statement in statements(path) {
        assert_eq!(statement["Effect"], "Allow", "{path}");
        for action in strings(&statement["Action"]) {
            assert!(found.insert(action.to_owned()), "{path}: {action} twice");
        }
    }
    found
}

/// The API calls of the page's commands; each command must get as far as a call.
fn calls() -> BTreeSet<String> {
    let commands = ask(&["commands", "docs/aws.md"]);
    let commands = commands.as_array().unwrap();
    assert!(
        commands.len() > 20,
        "the page's commands are found: {}",
        commands.len()
    );
    let mut calls = BTreeSet::new();
    for command in commands {
        let made = strings(&command["calls"]);
        assert!(
            made.len() == 1,
            "docs/aws.md:{}: {}\n{}",
            command["line"],
            command["words"],
            command["said"].as_str().unwrap()
        );
        calls.insert(made[0].to_owned());
    }
    calls
}

#[test]
#[ignore = "needs the image tools: make test-images"]
fn operator_policy_permits_exactly_the_commands_of_the_page() {
    let mut calls = calls();
    // RunInstances with `--tag-specifications` requires CreateTags too.
    calls.insert("ec2:CreateTags".to_owned());
    assert_eq!(allowed(OPERATOR), calls);
}

#[test]
#[ignore = "needs the image tools: make test-images"]
fn every_policy_action_exists_in_iam() {
    let known = ask(&["actions"]);
    for path in [PACKER, OPERATOR] {
        for statement in statements(path) {
            for action in strings(&statement["Action"]) {
                let name = action.strip_prefix("ec2:").expect("an action of EC2");
                let keys = known
                    .get(name)
                    .unwrap_or_else(|| panic!("{path}: no action {action}"));
                let Some(condition) = statement.get("Condition") else {
                    let why = "only looking is free of conditions";
                    assert!(name.starts_with("Describe"), "{path}: {action}: {why}");
                    continue;
                };
                for key in condition["StringEquals"].as_object().unwrap().keys() {
                    // A condition on a key that the action lacks never holds. The region is a key
                    // of every action.
                    let key = match key.split_once('/') {
                        Some((key, _tag)) => format!("{key}/${{TagKey}}"),
                        None => key.clone(),
                    };
                    let has = strings(keys).contains(&key.as_str());
                    assert!(
                        has || key == "aws:RequestedRegion",
                        "{path}: {action}: {key}"
                    );
                }
            }
        }
    }
}

#[test]
#[ignore = "needs the image tools: make test-images"]
fn packer_policy_terminates_only_tagged_instances() {
    let policy = statements(PACKER);
    let ends = policy
        .iter()
        .find(|statement| strings(&statement["Action"]).contains(&"ec2:TerminateInstances"))
        .unwrap();
    let tag = &ends["Condition"]["StringEquals"]["aws:ResourceTag/Component"];
    let template = ask(&["hcl", "packaging/ami/trailblazer.pkr.hcl"]);
    let given =
        &template["source"][0]["\"amazon-ebs\""]["\"trailblazer\""]["run_tags"]["Component"];
    assert_eq!(given, format!("\"{}\"", tag.as_str().unwrap()).as_str());
}

/// The page says why the agent needs no IAM role; the reason must stay true.
#[test]
fn agent_needs_no_credentials() {
    let source = read("src/source/imds.rs");
    let code = source.split("#[cfg(test)]").next().unwrap();
    assert!(
        code.contains("\"instance-id\""),
        "the paths are still in this file"
    );
    for path in ["iam/", "security-credentials", "identity-credentials"] {
        assert!(!code.contains(path), "{path} in src/source/imds.rs");
    }
    let manifest = read("Cargo.toml");
    assert!(
        !manifest.contains("aws-sdk") && !manifest.contains("aws-sig"),
        "no client of AWS's API"
    );
}
