//! The CloudFormation template and the Terraform module: each config by the product's own parser; the
//! template by cfn-lint and in moto, the module by an HCL parser and by `terraform fmt`, where these tools are.
//! `make test-long` fetches them (`packaging/dev/vpc-tools.sh`).

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use trailblazer::config::{Config, Role, TableSelector};

const TEMPLATE: &str = "packaging/aws/cloudformation/trailblazer.yaml";
const MODULE: &str = "packaging/aws/terraform";
const POLICY: &str = "packaging/aws/iam/reconcile.json";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A program of the tools' venv; without it says so. A test that was asked for by name or by
/// `make test-long` fails instead.
fn tool(name: &str) -> Option<PathBuf> {
    let tool = repository().join("target/tools/vpc/venv/bin").join(name);
    let complete = repository().join("target/tools/vpc/.complete");
    if complete.exists() {
        return Some(tool);
    }
    let asked = std::env::var_os("TRAILBLAZER_LONG").is_some();
    assert!(!asked, "packaging/dev/vpc-tools.sh fetches {name}");
    println!("NOT TESTED: {name} is missing; packaging/dev/vpc-tools.sh fetches it");
    None
}

/// An answer of `ask.py`.
fn ask(words: &[&str]) -> Option<Value> {
    let output = Command::new(tool("python")?)
        .arg("tests/vpc_templates/ask.py")
        .args(words)
        .current_dir(repository())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ask.py {words:?}:\n{said}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// The values of the template's and the module's variables, as in a stack with the vpc role.
const VALUES: [(&str, &str); 20] = [
    ("AWS::Region", "us-east-1"),
    ("BulkAddress", "10.0.0.10"),
    ("BulkInterfaceName", "ens6"),
    ("BypassTableId", "rtb-0123456789abcdef0"),
    ("EgressAddress", "10.0.0.20"),
    ("EgressInterfaceName", "ens5"),
    ("InternetGatewayId", "igw-0123456789abcdef0"),
    ("ListId", "pl-0123456789abcdef0"),
    ("PublicSubnetGateway", "10.0.0.1"),
    ("Regions", r#"["us-east-1", "eu-west-1"]"#),
    ("VpcCidr", "10.0.0.0/16"),
    ("bulk_address", "10.0.0.10"),
    ("bulk_interface_name", "ens6"),
    ("egress_address", "10.0.0.20"),
    ("egress_interface_name", "ens5"),
    ("lists", r#"["pl-0123456789abcdef0"]"#),
    ("public_subnet_gateway", "10.0.0.1"),
    ("region", "us-east-1"),
    ("target", "igw-0123456789abcdef0"),
    ("vpc_cidr", "10.0.0.0/16"),
];

/// A text with every variable set; `regions` and `tables` are lists.
#[track_caller]
fn filled(text: &str) -> String {
    let mut text = text.to_owned();
    for (name, value) in VALUES {
        text = text.replace(&format!("${{{name}}}"), value);
    }
    text = text.replace("${regions}", r#"["us-east-1", "eu-west-1"]"#);
    text = text.replace("${tables}", r#"["rtb-0123456789abcdef0"]"#);
    assert!(!text.contains("${"), "a variable without a value: {text}");
    text
}

/// The file that user data writes to this path: the indented lines after `content: |`.
#[track_caller]
fn written(user_data: &str, path: &str) -> String {
    let start = format!("- path: {path}");
    let mut lines = user_data
        .lines()
        .skip_while(|line| line.trim() != start)
        .skip_while(|line| line.trim() != "content: |");
    let head = lines.next().unwrap_or_else(|| panic!("no {path}"));
    let indent = head.len() - head.trim_start().len() + 2;
    let inside = |line: &&str| line.trim().is_empty() || line.starts_with(&" ".repeat(indent));
    let block: Vec<&str> = lines
        .take_while(inside)
        .map(|line| line.get(indent..).unwrap_or_default())
        .collect();
    block.join("\n") + "\n"
}

#[track_caller]
fn parsed(text: &str, origin: &str) -> Config {
    trailblazer::config::parse(text, origin).unwrap_or_else(|error| panic!("{origin}: {error}"))
}

/// The NAT's two interfaces and addresses, as both templates set them.
#[track_caller]
fn is_nat_of_the_page(config: &Config) {
    assert_eq!(config.role, Some(Role::Nat));
    assert_eq!(config.nat.egress_addresses.len(), 1);
    let text = format!("{config:?}");
    for word in ["ens5", "ens6", "10.0.0.10", "10.0.0.20", "10.0.0.1"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[track_caller]
fn is_vpc_of_the_page(config: &Config) {
    assert!(config.vpc_role);
    let table = TableSelector::Id("rtb-0123456789abcdef0".to_owned());
    assert_eq!(config.vpc_plane.tables, [table]);
    assert_eq!(config.vpc_plane.lists, ["pl-0123456789abcdef0"]);
    assert_eq!(config.vpc_plane.families().count(), 1);
}

#[test]
fn configs_of_both_templates_are_valid() {
    let template = read(TEMPLATE);
    let user_data = |path: &str| filled(&written(&template, path));
    let nat = user_data("/etc/trailblazer/trailblazer.toml");
    is_nat_of_the_page(&parsed(&nat, TEMPLATE));
    let vpc = user_data("/etc/trailblazer/vpc.toml.new");
    is_vpc_of_the_page(&parsed(&vpc, TEMPLATE));
    let module = |name: &str| filled(&read(&format!("{MODULE}/{name}")));
    is_nat_of_the_page(&parsed(&module("nat.toml.tftpl"), MODULE));
    is_vpc_of_the_page(&parsed(&module("vpc.toml.tftpl"), MODULE));
}

/// The EC2 actions that a text names.
fn actions(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != ':');
    let actions = words.filter_map(|word| word.strip_prefix("ec2:"));
    let named = |action: &&str| action.starts_with(|c: char| c.is_ascii_uppercase());
    actions.filter(named).map(str::to_owned).collect()
}

#[test]
fn roles_of_both_templates_have_the_policy_of_the_steady_state() {
    let policy = actions(&read(POLICY));
    assert!(policy.len() > 5, "{policy:?}");
    assert_eq!(actions(&read(TEMPLATE)), policy);
    assert_eq!(actions(&read(&format!("{MODULE}/vpc.tf"))), policy);
}

#[test]
fn nat_forwards_and_the_list_is_ours_in_both_templates() {
    let template = read(TEMPLATE);
    assert_eq!(template.matches("SourceDestCheck: false").count(), 2);
    assert!(template.contains(r#"{Key: "trailblazer:owner", Value: trailblazer-s3}"#));
    assert!(template.contains("PrefixListName: trailblazer-s3-ipv4"));
    let nat = read(&format!("{MODULE}/nat.tf"));
    let check = nat.lines().filter(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words == ["source_dest_check", "=", "false"]
    });
    assert_eq!(check.count(), 2);
    let vpc = read(&format!("{MODULE}/vpc.tf"));
    assert!(vpc.contains(r#""trailblazer:owner" = "trailblazer-s3""#));
    assert!(vpc.contains("ignore_changes = [entry, max_entries, tags, tags_all]"));
}

#[test]
fn template_passes_cfn_lint() {
    let Some(lint) = tool("cfn-lint") else { return };
    let run = |file: &Path| Command::new(&lint).arg(file).output().unwrap();
    let output = run(&repository().join(TEMPLATE));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    // The check can fail.
    let directory = tempfile::tempdir().unwrap();
    let broken = directory.path().join("broken.yaml");
    let text = read(TEMPLATE).replace("SourceDestCheck: false", "SourceDestinationCheck: false");
    fs::write(&broken, text).unwrap();
    assert!(!run(&broken).status.success());
}

/// In moto, without the vpc role: moto has no prefix lists in stacks.
#[test]
fn stack_leads_the_private_subnet_to_the_egress_interface() {
    let Some(stack) = ask(&["stack"]) else { return };
    assert_eq!(stack["status"], "CREATE_COMPLETE");
    let routes = stack["private_routes"].as_array().unwrap();
    let default = |route: &&Value| route["DestinationCidrBlock"] == "0.0.0.0/0";
    let default = routes.iter().find(default).unwrap();
    assert_eq!(default["NetworkInterfaceId"], stack["egress_interface"]);
    let user_data = stack["user_data"].as_str().unwrap();
    assert!(user_data.starts_with("#cloud-config\n"), "{user_data}");
    let nat = written(user_data, "/etc/trailblazer/trailblazer.toml");
    is_nat_of_the_page(&parsed(&nat, "user data in moto"));
}

#[test]
fn module_is_hcl_with_the_resources_of_both_roles() {
    let Some(blocks) = ask(&["hcl"]) else { return };
    let resources = blocks["resource"].as_array().unwrap();
    let mut kinds = BTreeSet::new();
    for resource in resources {
        kinds.extend(resource.as_object().unwrap().keys().cloned());
    }
    for kind in [
        "aws_ec2_managed_prefix_list",
        "aws_eip",
        "aws_iam_role",
        "aws_instance",
        "aws_network_interface",
        "aws_route",
        "aws_route_table",
        "aws_security_group",
    ] {
        assert!(kinds.contains(&format!("\"{kind}\"")), "{kind}: {kinds:?}");
    }
}

#[test]
fn module_has_the_format_of_terraform() {
    let module = repository().join(MODULE);
    let fmt = Command::new("terraform")
        .args(["fmt", "-check", "-diff"])
        .arg(&module)
        .env_remove("TF_CLI_CONFIG_FILE")
        .output();
    match fmt {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{said}");
        }
        Err(error) => println!("NOT TESTED: terraform fmt: {error}"),
    }
}
