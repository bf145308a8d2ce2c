//! User data, the DaemonSet, the container image and the public CI: by the schemas of their
//! readers, and against the packaged units whose settings they repeat.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::configs::{PLACE, of_fleet, of_user_data};
use crate::tools::*;

const UNIT: &str = "systemd/trailblazer.service";

/// The value of a setting of the agent's unit.
#[track_caller]
fn unit(key: &str) -> String {
    let text = read(UNIT);
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value
        .unwrap_or_else(|| panic!("no {key} in {UNIT}"))
        .to_owned()
}

fn against_cloud_init(path: &str) -> (bool, String) {
    let schema = cloud_init().join("schema-cloud-config-v1.json");
    try_tool(
        "check-jsonschema",
        &["--schemafile", schema.to_str().unwrap(), path],
    )
}

#[test]
#[ignore = "needs the image tools: make test-images"]
fn user_data_is_valid_for_cloud_init() {
    assert_eq!(unit("ConditionPathExists"), PLACE);
    for path in files("packaging/ami/cloud-init", ".yaml") {
        // cloud-init recognises its config by this first line.
        assert!(read(&path).starts_with("#cloud-config\n"), "{path}");
        let (valid, said) = against_cloud_init(&path);
        assert!(valid, "{path}:\n{said}");

        let directory = tempfile::tempdir().unwrap();
        let wrong = directory.path().join("wrong.yaml");
        let text = read(&path).replace("permissions:", "permission:");
        std::fs::write(&wrong, text).unwrap();
        let (valid, _) = against_cloud_init(wrong.to_str().unwrap());
        assert!(!valid, "the schema notices a slip in {path}");
    }
}

/// systemd's plan of a boot with the agent enabled, the image's drop-in, cloud-init's own units,
/// and the extra line.
fn boot(more: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let units = directory.path();
    for entry in std::fs::read_dir(cloud_init()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "service") {
            std::fs::copy(&path, units.join(path.file_name().unwrap())).unwrap();
        }
    }
    let own = units.join("trailblazer.service");
    std::fs::copy(repository().join(UNIT), &own).unwrap();
    let wanted_by = read(UNIT);
    for target in wanted_by
        .lines()
        .filter_map(|line| line.strip_prefix("WantedBy="))
    {
        let wants = units.join(format!("{target}.wants"));
        std::fs::create_dir(&wants).unwrap();
        std::os::unix::fs::symlink(&own, wants.join("trailblazer.service")).unwrap();
    }
    let drop_in = units.join("trailblazer.service.d");
    std::fs::create_dir(&drop_in).unwrap();
    let text = read("packaging/ami/files/cloud-init.conf");
    std::fs::write(drop_in.join("cloud-init.conf"), format!("{text}{more}\n")).unwrap();
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "trailblazer.service"])
        .args([
            "cloud-config.service",
            "cloud-final.service",
            "network-online.target",
        ])
        .env("SYSTEMD_UNIT_PATH", format!("{}:", units.display()))
        .output()
        .expect("systemd-analyze of systemd must be there");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("trailblazer.service"),
        "systemd has seen the unit: {said}"
    );
    said
}

#[test]
#[ignore = "needs the image tools: make test-images"]
fn agent_starts_after_cloud_init_wrote_its_config() {
    let text = read("packaging/ami/files/cloud-init.conf");
    assert!(
        text.contains("\nAfter=cloud-init.service cloud-init-network.service"),
        "{text}"
    );
    let names = ["cloud-init.service", "cloud-init-network.service"];
    let network_stage: Vec<_> = names
        .iter()
        .filter(|name| cloud_init().join(name).exists())
        .collect();
    assert!(
        !network_stage.is_empty(),
        "the stage has one of these names"
    );

    let said = boot("");
    assert!(!said.contains("ordering cycle"), "{said}");
    // The stage of runcmd waits for the network, which waits for the agent.
    let said = boot("After=cloud-final.service");
    assert!(
        said.contains("ordering cycle"),
        "systemd would notice: {said}"
    );
}

#[test]
#[ignore = "needs the image tools: make test-images"]
fn forwarding_is_on_before_the_agent_starts() {
    let data = ask(&["yaml", "packaging/ami/cloud-init/nat.yaml"]);
    // bootcmd belongs to the stage that the drop-in waits for; runcmd would be too late.
    let forwarding = json!(["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"]);
    assert!(data[0]["bootcmd"].as_array().unwrap().contains(&forwarding));
    // `manage` would need the drop-in that opens the sandbox, which the image lacks.
    assert!(!of_user_data("packaging/ami/cloud-init/nat.yaml").contains("manage"));
}

#[test]
#[ignore = "needs the image tools: make test-images"]
fn daemonset_is_valid_for_kubernetes() {
    let file = "packaging/kubernetes/daemonset.yaml";
    for version in ["1.29", "1.37"] {
        let said = tool("kubernetes-validate", &["--strict", "-k", version, file]);
        for kind in ["namespace", "configmap", "daemonset"] {
            assert!(
                said.contains(&format!("passed for resource {kind}/")),
                "{said}"
            );
        }
    }
}

#[test]
#[ignore = "needs the image tools: make test-images"]
fn vpc_cronjob_is_valid_for_kubernetes() {
    let file = "packaging/kubernetes/vpc-cronjob.yaml";
    for version in ["1.29", "1.37"] {
        let said = tool("kubernetes-validate", &["--strict", "-k", version, file]);
        assert_eq!(said.matches(" passed for resource ").count(), 5, "{said}");
    }
}

#[test]
#[ignore = "needs the image tools: make test-images"]
fn daemonset_has_the_sandbox_of_the_unit() {
    let set = of_fleet("DaemonSet");
    let pod = &set["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(pod["containers"].as_array().unwrap().len(), 1);
    assert_eq!(pod["hostNetwork"], true);
    assert_eq!(pod["priorityClassName"], "system-node-critical");
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(
        set["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"],
        "10%"
    );
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert_eq!(grace.to_string(), unit("TimeoutStopSec"));
    // A hook with a flush would remove each node's paths at each update.
    assert_eq!(container["lifecycle"], Value::Null);

    let context = &container["securityContext"];
    let capability = unit("CapabilityBoundingSet");
    let added = context["capabilities"]["add"][0].as_str().unwrap();
    assert_eq!(format!("CAP_{added}"), capability);
    assert_eq!(
        context["capabilities"],
        json!({"drop": ["ALL"], "add": [added]})
    );
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["readOnlyRootFilesystem"], true);
    assert_eq!(context["privileged"], false);

    let limit = container["resources"]["limits"]["memory"].as_str().unwrap();
    assert_eq!(limit.trim_end_matches('i'), unit("MemoryMax"));

    let mounts = container["volumeMounts"].as_array().unwrap();
    let mounted: BTreeSet<&str> = mounts
        .iter()
        .map(|mount| mount["mountPath"].as_str().unwrap())
        .collect();
    let state = format!("/var/lib/{}", unit("StateDirectory"));
    let run = format!("/run/{}", unit("RuntimeDirectory"));
    let config = Path::new(PLACE).parent().unwrap().to_str().unwrap();
    assert_eq!(
        mounted,
        BTreeSet::from([state.as_str(), run.as_str(), config])
    );

    let version = format!("trailblazer:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(container["image"], version.as_str());
}

#[test]
#[ignore = "needs the image tools: make test-images"]
fn daemonset_probes_use_the_configured_address() {
    let map = of_fleet("ConfigMap");
    let config = map["data"]["trailblazer.toml"].as_str().unwrap();
    let set = of_fleet("DaemonSet");
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
        let get = &container[probe]["httpGet"];
        let address = format!("{}:{}", get["host"].as_str().unwrap(), get["port"]);
        assert!(
            config.contains(&format!("metrics = \"{address}\"")),
            "{address}: {config}"
        );
        assert_eq!(get["path"], path);
    }
    let liveness = &container["livenessProbe"];
    let patience = liveness["periodSeconds"].as_u64().unwrap()
        * liveness["failureThreshold"].as_u64().unwrap();
    assert_eq!(patience.to_string(), unit("WatchdogSec"));
}

#[test]
fn image_has_the_environment_of_the_unit() {
    let line = format!("ENV {}", unit("Environment"));
    let image = read("packaging/container/Containerfile");
    assert!(image.lines().any(|it| it == line), "{line}\n{image}");
}

#[test]
#[ignore = "needs the image tools: make test-images"]
fn containerfile_passes_hadolint_and_copies_all_cargo_inputs() {
    let file = "packaging/container/Containerfile";
    tool("hadolint", &["--no-color", file]);
    let text = read(file);
    let (builder, _) = text.split_once("\nFROM debian:").expect("two stages");
    let directory = tempfile::tempdir().unwrap();
    for line in builder
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "))
    {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (to, from) = words.split_last().unwrap();
        let to = directory.path().join(to);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        for path in from {
            let mut copy = Command::new("cp");
            copy.arg("-r").arg(repository().join(path)).arg(&to);
            assert!(copy.status().unwrap().success(), "COPY {path}");
        }
    }
    // cargo requires every target in Cargo.toml to exist before a build; the missing target makes
    // cargo stop without building anything.
    let output = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--offline", "--bin", "no-such-binary"])
        .current_dir(directory.path())
        .env("CARGO_TARGET_DIR", directory.path().join("target"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("no bin target named `no-such-binary`"),
        "{said}"
    );

    // Files excluded by the ignore file cannot be copied.
    let ignore = read("packaging/container/Containerfile.dockerignore");
    for line in text.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words[0].starts_with("--from") {
            continue;
        }
        for path in &words[..words.len() - 1] {
            assert!(repository().join(path).exists(), "{path}");
            let admitted = ignore
                .lines()
                .filter_map(|line| line.strip_prefix('!'))
                .any(|root| *path == root || path.starts_with(&format!("{root}/")));
            assert!(admitted, "{path} is ignored");
        }
    }
}

#[test]
#[ignore = "needs the image tools: make test-images"]
fn forms_and_dependency_bot_match_their_schemas() {
    let forms = files(".github/ISSUE_TEMPLATE", ".yml");
    assert_eq!(forms.len(), 3, "{forms:?}");
    for form in &forms {
        let schema = if form.ends_with("/config.yml") {
            "vendor.github-issue-config"
        } else {
            "vendor.github-issue-forms"
        };
        tool("check-jsonschema", &["--builtin-schema", schema, form]);
    }
    let bot = ".github/dependabot.yml";
    tool(
        "check-jsonschema",
        &["--builtin-schema", "vendor.dependabot", bot],
    );
}

#[test]
#[ignore = "needs the image tools: make test-images"]
fn workflow_passes_actionlint() {
    for workflow in files(".github/workflows", ".yml") {
        for schema in [
            "vendor.github-workflows",
            "custom.github-workflows-require-timeout",
        ] {
            tool("check-jsonschema", &["--builtin-schema", schema, &workflow]);
        }
        let parsed = ask(&["yaml", &workflow])[0].clone();
        assert_eq!(
            parsed["permissions"],
            json!({"contents": "read"}),
            "{workflow}"
        );
        for (name, job) in parsed["jobs"].as_object().unwrap() {
            let more = job.get("permissions");
            assert!(
                more.is_none() || name == "release",
                "{workflow}: {name} may {more:?}"
            );
            for step in job["steps"].as_array().unwrap() {
                if let Some(action) = step["uses"].as_str() {
                    // A tag can be moved to other code; a commit cannot.
                    let commit = action.split_once('@').map_or("", |(_, commit)| commit);
                    let whole =
                        commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
                    assert!(whole, "{workflow}: {action}");
                }
                if let Some(script) = step["run"].as_str() {
                    shell(&workflow, script);
                    if let Some(target) = script.trim().strip_prefix("make ") {
                        let line = format!("\n{target}:");
                        assert!(read("Makefile").contains(&line), "no `make {target}`");
                    }
                }
            }
        }
    }
}

/// A step's script, as passed to bash by the runner.
#[track_caller]
fn shell(workflow: &str, script: &str) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("step.sh");
    std::fs::write(&path, format!("#!/bin/bash\nset -e\n{script}")).unwrap();
    let (sound, said) = try_tool("shellcheck", &["--norc", path.to_str().unwrap()]);
    assert!(sound, "{workflow}: {said}");
}
