//! The other roles leave the client of EC2 alone: its code, the chain of credentials and the reader of
//! XML stay on the disk, since the kernel reads pages of a program at their first use. gdb stops at each of
//! their functions; `make test-long` installs gdb, and without gdb the test says so and checks nothing.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lab::*;
use regex::Regex;

const PROGRAM: &str = env!("CARGO_BIN_EXE_trailblazer");

/// The functions of the vpc role, of the crates that the role alone uses, and of TLS: a child process
/// fetches documents.
const OF_THE_ROLE: &str = r"^<*&?(mut )?(trailblazer::vpc::|reqsign_|quick_xml::|rustls::)";

/// The names of the program's functions by address.
fn functions(demangled: bool) -> BTreeMap<String, Vec<String>> {
    let mut nm = Command::new("nm");
    if demangled {
        nm.arg("--demangle");
    }
    let output = nm.arg(PROGRAM).output().expect("nm is there: make deps");
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let mut words = line.splitn(3, ' ');
        let (address, kind, name) = (words.next(), words.next(), words.next());
        if let (Some(address), Some("t" | "T"), Some(name)) = (address, kind, name) {
            let names = found.entry(address.to_owned()).or_default();
            names.push(name.to_owned());
        }
    }
    found
}

/// The linker's names of the functions of the role.
fn of_the_role() -> Vec<String> {
    let (linked, readable) = (functions(false), functions(true));
    let pattern = Regex::new(OF_THE_ROLE).unwrap();
    let wanted = |names: &&Vec<String>| names.iter().any(|name| pattern.is_match(name));
    let addresses = readable.iter().filter(|(_, names)| wanted(names));
    addresses
        .map(|(address, _)| linked[address][0].clone())
        .collect()
}

/// gdb, which starts the program and stops at each of these functions.
fn gdb(directory: &Path, functions: &[String], words: &[&str], log: &Path) -> Command {
    let mut script = String::from(
        "set pagination off\nset confirm off\nset breakpoint pending off\nset print thread-events off\n\
         handle SIGTERM nostop noprint pass\nhandle SIGCHLD nostop noprint pass\n",
    );
    for name in functions {
        script.push_str(&format!("break '{name}'\n"));
    }
    script.push_str("run\necho stopped\\n\nbacktrace 3\n");
    let file = directory.join("script");
    std::fs::write(&file, script).unwrap();
    let log = File::create(log).unwrap();
    let mut command = Command::new("gdb");
    command.args(["-nx", "-batch", "-x"]).arg(file);
    command.args(["--args", PROGRAM]).args(words);
    command.arg("-c").arg(directory.join("c.toml"));
    command.stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log);
    command
}

fn has_gdb() -> bool {
    if Command::new("gdb").arg("--version").output().is_ok() {
        return true;
    }
    let asked = std::env::var_os("TRAILBLAZER_LONG").is_some();
    assert!(
        !asked,
        "packaging/dev/install-deps.sh instructions installs gdb"
    );
    // libtest captures `eprintln!` of a passing test, but not a write to standard error.
    let line = "NOT TESTED without gdb: the other roles leave the client of EC2 alone\n";
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    false
}

/// The process that gdb has started.
fn inferior(gdb: &Child) -> Option<String> {
    let pid = gdb.id();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next().map(str::to_owned)
}

fn config(directory: &Path, role: &str, more: &str) {
    let path = directory.display();
    let document = serde_json::json!({
        "syncToken": "1700000000", "createDate": "2023-11-14-22-13-20",
        "prefixes": [{
            "ip_prefix": "52.216.0.0/15", "region": "us-east-1", "service": "S3",
            "network_border_group": "us-east-1"
        }],
        "ipv6_prefixes": []
    });
    std::fs::write(directory.join("ip-ranges.json"), document.to_string()).unwrap();
    let text = format!(
        "role = \"{role}\"\n[source]\nurl = \"{path}/ip-ranges.json\"\nstate_dir = \"{path}/state\"\n\
         [select]\nregions = [\"us-east-1\"]\nfamilies = [\"ipv4\"]\n[vpc]\nmetadata = \"off\"\n\
         [agent]\nsocket = \"{path}/control.sock\"\n{more}"
    );
    std::fs::write(directory.join("c.toml"), text).unwrap();
}

#[test]
fn host_agent_runs_no_function_of_the_client_of_ec2() {
    isolated(|| {
        if !has_gdb() {
            return;
        }
        let functions = of_the_role();
        assert!(functions.len() > 1500, "{}", functions.len());
        let bare = Bare::new();
        let directory = scratch().join("unused");
        std::fs::create_dir_all(&directory).unwrap();
        let log = directory.join("log");
        let said = || std::fs::read_to_string(&log).unwrap_or_default();

        // The vpc role stops at once.
        let vpc = "[vpc_plane]\nregion = \"us-east-1\"\ntables = [\"rtb-0123456789abcdef0\"]\n\
                   target.ipv4 = \"igw-0123456789abcdef0\"\n";
        config(&directory, "vpc", vpc);
        let mut command = gdb(&directory, &functions, &["reconcile", "--dry-run"], &log);
        bare.ns.spawn(&mut command).wait().unwrap();
        let text = said();
        assert!(text.contains("stopped\n#0 "), "{text}");

        config(&directory, "host", "[egress]\ngateways = [\"10.0.1.10\"]\n");
        let mut command = gdb(&directory, &functions, &["agent"], &log);
        let mut running = bare.ns.spawn(&mut command);
        let file = directory.join("c.toml");
        let status = [PROGRAM, "status", "-c", file.to_str().unwrap()];
        wait_until(
            Duration::from_secs(60),
            Duration::from_millis(100),
            || (bare.ns.exec(&status).code == Some(0)).then_some(()),
            || format!("in force: {}\n{}", bare.ns.exec(&status), said()),
        );
        let agent = inferior(&running).expect("the agent");
        bare.ns.run(&["kill", "-TERM", &agent]);
        running.wait().unwrap();
        let text = said();
        let set = text.matches("Breakpoint ").count();
        assert_eq!(set, functions.len(), "{text}");
        assert!(text.contains("exited normally"), "{text}");
        println!("none of {set} functions of the vpc role ran in the agent of a host");
    });
}
