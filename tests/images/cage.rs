//! The DaemonSet's permissions, applied here, are enough for the agent.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use crate::configs::of_fleet;
use crate::tools::*;
use lab::{Agent, Bare, Ns};

/// The status of a path of the agent's own server, asked as the kubelet does.
fn probe(ns: &Ns, get: &serde_json::Value) -> String {
    let host = get["host"].as_str().unwrap();
    let address = format!("{host}:{}", get["port"]);
    let path = get["path"].as_str().unwrap();
    let answer = ns.in_thread(|| {
        let mut stream = TcpStream::connect(&address)?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    });
    let answer = answer.unwrap_or_else(|error| panic!("{address}{path}: {error}"));
    answer.split_whitespace().nth(1).unwrap().to_owned()
}

/// The agent as a container runtime would start it: root, only the added capabilities, no new
/// privileges, and a read-only root file system except for the volumes.
fn caged(command: &mut Command, container: &serde_json::Value, log: &std::path::Path) {
    let context = &container["securityContext"];
    assert_eq!(context["runAsUser"], 0);
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["readOnlyRootFilesystem"], true);
    assert_eq!(context["capabilities"]["drop"][0], "ALL");
    let mut capabilities = "-all".to_owned();
    for added in context["capabilities"]["add"].as_array().unwrap() {
        capabilities += &format!(",+{}", added.as_str().unwrap().to_lowercase());
    }
    let mut outer = Command::new("unshare");
    outer
        .args(["--mount", "sh", "-c"])
        .arg("mount -o remount,bind,ro / && exec \"$@\"")
        .args(["sh", "setpriv", "--no-new-privs"])
        .arg(format!("--bounding-set={capabilities}"))
        .arg("--inh-caps=-all")
        .arg(command.get_program())
        .args(command.get_args())
        .args(["--region", "us-east-1", "--source"])
        .arg(repository().join("examples/ip-ranges.json"))
        .arg("--state-dir")
        .arg(lab::scratch().join("state"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(log).unwrap());
    *command = outer;
}

#[test]
#[ignore = "needs the image tools: make test-images"]
fn root_with_one_capability_suffices() {
    lab::isolated(|| {
        let set = of_fleet("DaemonSet");
        let container = &set["spec"]["template"]["spec"]["containers"][0];
        let map = of_fleet("ConfigMap");
        let config = map["data"]["trailblazer.toml"].as_str().unwrap();
        let bare = Bare::new();
        bare.ns.ip("addr add 10.0.0.11/24 dev eth0");

        let config = lab::write_config("fleet", config);
        let log = lab::scratch().join("log");
        let agent = Agent::start_with(&bare.ns, &config, &log, |command| {
            caged(command, container, &log);
        });
        agent.wait_in_force();

        let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
        let net_admin = "CapEff:\t0000000000001000\n";
        assert!(status.contains(net_admin), "{status}");
        assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");
        let mounts = std::fs::read_to_string(format!("/proc/{}/mounts", agent.pid())).unwrap();
        let root = mounts
            .lines()
            .rfind(|line| line.split(' ').nth(1) == Some("/"));
        let options = root.unwrap().split(' ').nth(3).unwrap();
        assert!(options.split(',').any(|option| option == "ro"), "{options}");

        for name in ["livenessProbe", "readinessProbe"] {
            let get = &container[name]["httpGet"];
            assert_eq!(probe(&bare.ns, get), "200", "{name}");
        }

        // A pod that ends leaves the node's routes in place, so no hook is needed.
        let before = bare.ns.ip("route show table 1083");
        assert!(before.contains("52.216.0.0/15"), "{before}");
        let (ended, _) = agent.stop();
        assert!(ended.success(), "{ended}");
        assert_eq!(bare.ns.ip("route show table 1083"), before);
    });
}
