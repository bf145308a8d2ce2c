//! AWS's own SDK as the oracle of the double of EC2: boto3 drives the double over HTTP, and each
//! answer is compared with AWS's service model. `packaging/dev/cloud-tools.sh` installs boto3;
//! without boto3 the tests say so and check nothing.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cloud::{
    Cloud, Fault, Identity, Keys, Kind, Request, Serve, Server, Signature, Target, Wrong, sample,
};

/// A Python with boto3; `None` with a message on standard error.
fn python() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = root.join("target/tools/cloud/venv/bin/python");
    let program = if own.exists() {
        own
    } else {
        PathBuf::from("python3")
    };
    let import = Command::new(&program).args(["-c", "import boto3"]).output();
    if import.is_ok_and(|output| output.status.success()) {
        return Some(program);
    }
    assert!(
        std::env::var_os("TRAILBLAZER_LONG").is_none(),
        "make test-long installs boto3 by packaging/dev/cloud-tools.sh"
    );
    say("NOT TESTED against AWS's SDK: no boto3 here; run packaging/dev/cloud-tools.sh\n");
    None
}

/// libtest captures `eprintln!` of a passing test, but not a write to standard error.
fn say(line: &str) {
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Runs a script of `tests/cloud`, which must succeed.
fn run(python: &Path, script: &str, arguments: &[&str]) -> String {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cloud");
    let output: Output = Command::new(python)
        .arg(home.join(script))
        .args(arguments)
        // boto3 would read profiles and proxies of the machine.
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", "/nonexistent")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}:\n{text}{errors}");
    text
}

/// The faults that the oracle asks for by a filter, each before the same call is taken.
fn grant(cloud: &Cloud, request: &Request) {
    cloud.configure(|settings| {
        settings.identity = Identity::Valid;
        settings.denied.clear();
        settings.unknown_elements = false;
    });
    let denied = |cloud: &Cloud| {
        cloud.configure(|settings| {
            settings.denied.insert("DescribeVpcs".to_owned());
        });
    };
    let identity = |identity| cloud.configure(|settings| settings.identity = identity);
    // The call that waits for the hook has its index already.
    let fail = |wrong| cloud.fail(cloud.next_call() - 1, Fault::after(wrong));
    match request.get("Filter.1.Value.1") {
        Some("throttle") => cloud.throttle(1),
        Some("unavailable") => fail(Wrong::Unavailable),
        Some("denied") => denied(cloud),
        Some("expired") => identity(Identity::Expired),
        Some("unknown") => identity(Identity::Unknown),
        Some("dropped") => fail(Wrong::Dropped),
        Some("truncated") => fail(Wrong::Truncated),
        Some("half") => fail(Wrong::Half),
        Some("html") => fail(Wrong::Html(503)),
        Some("later") => cloud.configure(|settings| settings.unknown_elements = true),
        _ => {}
    }
}

/// The sample account with a target of each kind that is described.
fn account() -> Cloud {
    let cloud = sample::account();
    let interface = Target {
        other: Some("i-0aaaaaaaaaaaaaaa1".to_owned()),
        ..Target::attached(Kind::Interface, sample::VPC)
    };
    cloud.set_target("eni-0aaaaaaaaaaaaaaa1", interface);
    for (id, kind) in [
        ("pcx-0aaaaaaaaaaaaaaa1", Kind::Peering),
        ("tgw-0aaaaaaaaaaaaaaa1", Kind::TransitGateway),
        ("vpce-0aaaaaaaaaaaaaaa1", Kind::Endpoint),
    ] {
        cloud.set_target(id, Target::attached(kind, sample::VPC));
    }
    cloud
}

#[test]
fn boto3_drives_every_action_and_each_answer_is_as_in_awss_model() {
    let Some(python) = python() else {
        return;
    };
    let cloud = account();
    let (mut lose, mut throttle) = (true, 2);
    cloud.before_call(move |cloud, _, request| {
        grant(cloud, request);
        let twice = request.get("Filter.1.Value.1") == Some("throttle twice");
        if twice && throttle > 0 {
            throttle -= 1;
            cloud.throttle(1);
        }
        let creates = request.get("PrefixListName") == Some("lost");
        if creates && std::mem::take(&mut lose) {
            cloud.fail(cloud.next_call() - 1, Fault::after(Wrong::Dropped));
        }
    });
    let keys = Keys {
        access: "AKIDORACLE".to_owned(),
        secret: "oracle/secret+key".to_owned(),
        token: Some("oracle-session".to_owned()),
    };
    let settings = Serve {
        signature: Signature::Verified(keys),
        ..Serve::default()
    };
    let server = cloud::serve(&cloud, settings).unwrap();
    let url = server.url();
    let ids = [
        sample::TABLE,
        sample::VPC,
        sample::IGW,
        sample::EIGW,
        sample::NAT,
    ];
    let arguments = [&[url.as_str()], ids.as_slice()].concat();
    let text = run(&python, "oracle.py", &arguments);
    println!("{text}");
    // One combination of parameters is wrong on purpose.
    let violations = cloud.violations();
    assert_eq!(violations.len(), 1, "{violations:?}");
    assert_eq!(cloud.lists_named("lost").len(), 1);
    let creations = cloud.calls().into_iter();
    let creations = creations.filter(|call| call.action == "CreateManagedPrefixList");
    assert_eq!(creations.count(), 3, "boto3 sent the lost creation twice");
}

#[test]
fn the_table_of_parameters_is_that_of_awss_model() {
    let Some(python) = python() else {
        return;
    };
    let version = "import botocore; print(f'botocore=={botocore.__version__}')";
    let version = Command::new(&python)
        .args(["-c", version])
        .output()
        .unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let pinned = include_str!("../packaging/dev/cloud-requirements.txt");
    if !pinned.contains(&version) {
        say(&format!(
            "NOT TESTED: the table of parameters is of another version than {version}"
        ));
        return;
    }
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cloud/src/model.txt");
    run(&python, "model.py", &[table.to_str().unwrap()]);
}

/// The check of signatures tells a wrong key, a wrong secret and a wrong clock apart.
#[test]
fn wrong_keys_and_clocks_are_told_apart() {
    let Some(python) = python() else {
        return;
    };
    let keys = |access: &str, secret: &str| Keys {
        access: access.to_owned(),
        secret: secret.to_owned(),
        token: None,
    };
    let cases = [
        (keys("AKID", "secret"), 0, "ok"),
        (keys("OTHER", "secret"), 0, "AuthFailure"),
        (keys("AKID", "other"), 0, "SignatureDoesNotMatch"),
        (keys("AKID", "secret"), 600, "RequestExpired"),
        (keys("AKID", "secret"), -600, "SignatureDoesNotMatch"),
    ];
    let servers = cases.clone().map(|(known, clock_offset, _)| {
        let signature = Signature::Verified(known);
        let settings = Serve {
            signature,
            clock_offset,
            ..Serve::default()
        };
        cloud::serve(&sample::account(), settings).unwrap()
    });
    let urls = servers.each_ref().map(Server::url);
    let urls = urls.each_ref().map(String::as_str);
    let arguments = [&["AKID", "secret"], urls.as_slice()].concat();
    let text = run(&python, "signed.py", &arguments);
    let wanted = cases.map(|(_, _, wanted)| wanted);
    assert_eq!(text.lines().collect::<Vec<_>>(), wanted);
}
