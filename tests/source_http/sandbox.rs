//! The sandbox of the fetch child, tried from inside: this binary enters the sandbox in a process
//! of its own and reports each attempt.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, socket};
use trailblazer::source::{fetch, sandbox};

use super::settings;
use super::tls::{authority, roots_file, server_config};
use lab::raw_http::{Act, Server, ok};

const CHILD_DIR: &str = "TRAILBLAZER_TEST_SANDBOX_DIR";
const CHILD_URLS: &str = "TRAILBLAZER_TEST_SANDBOX_URLS";

#[tokio::test]
#[ignore = "the child of the test below; the test runs it"]
async fn child_tries_everything() {
    let dir = std::env::var(CHILD_DIR).expect("run by the test below, with a directory");
    let dir = Path::new(&dir);
    sandbox::enter(None);
    let attempts = [
        (
            "netlink",
            socket(AddressFamily::NETLINK, SocketType::RAW, None).is_ok(),
        ),
        (
            "packet",
            socket(AddressFamily::PACKET, SocketType::RAW, None).is_ok(),
        ),
        (
            "read a file of root",
            std::fs::read(dir.join("secret")).is_ok(),
        ),
        (
            "write to a file for all",
            std::fs::write(dir.join("open"), "x").is_ok(),
        ),
        ("make a file", std::fs::write(dir.join("new"), "x").is_ok()),
        ("run a program", Command::new("/bin/true").status().is_ok()),
    ];
    for (attempt, succeeds) in attempts {
        println!("ATTEMPT {attempt}: {succeeds}");
    }
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    for line in status.lines() {
        println!("STATUS {line}");
    }
    for url in std::env::var(CHILD_URLS).unwrap().split(' ') {
        let fetched = fetch(&[url.to_owned()], &settings(), None).await;
        println!("FETCHED {url}: {}", fetched.is_ok());
    }
}

/// Needs root: the test shows what the sandbox takes away from root.
#[test]
fn fetch_child_can_fetch_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, mode| {
        let path = dir.path().join(name);
        std::fs::write(&path, "content").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    file("secret", 0o600);
    file("open", 0o666);
    let authority = authority("ours");
    let roots = roots_file(&authority.pem());
    std::fs::set_permissions(roots.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let plain = Server::start(|_, _| ok(b"plain"));
    let secure = Server::start_tls(server_config(&authority, "localhost", false), |_, _| {
        ok(b"x")
    });
    let urls = [&plain, &secure].map(|server| server.url("/").replace("127.0.0.1", "localhost"));
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "sandbox::child_tries_everything",
            "--ignored",
            "--nocapture",
        ])
        .args(["--test-threads", "1"])
        .env("SSL_CERT_FILE", roots.path())
        .env(CHILD_DIR, dir.path())
        .env(CHILD_URLS, urls.join(" "))
        .output()
        .expect("this test binary runs again");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    let status = |key: &str| {
        let mut lines = text.lines();
        let found = lines.find_map(|line| line.strip_prefix(&format!("STATUS {key}:\t")));
        found.unwrap_or_else(|| panic!("no {key}")).to_owned()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status(set), "0000000000000000", "{set}");
    }
    assert_eq!(status("NoNewPrivs"), "1");
    assert_eq!(status("Uid"), "65534\t65534\t65534\t65534");
    assert_eq!(status("Groups").trim(), "");
    assert_eq!(status("Seccomp"), "2");
    for attempt in ["netlink", "packet", "read a file of root", "run a program"] {
        assert!(
            text.contains(&format!("ATTEMPT {attempt}: false")),
            "{attempt}"
        );
    }
    if std::fs::read_to_string("/sys/kernel/security/lsm").is_ok_and(|all| all.contains("landlock"))
    {
        for attempt in ["write to a file for all", "make a file"] {
            assert!(
                text.contains(&format!("ATTEMPT {attempt}: false")),
                "{attempt}"
            );
        }
    }
    for url in urls {
        assert!(text.contains(&format!("FETCHED {url}: true")), "{url}");
    }
}

/// The child of the real program, while a server keeps it waiting.
#[test]
fn fetch_child_of_the_program_runs_confined_with_a_bare_environment() {
    let server = Server::start(|_, _| vec![Act::Sleep(Duration::from_secs(20))]);
    let request = serde_json::json!({
        "urls": [server.url("/")],
        "settings": settings(),
        "previous": null,
    });
    let mut child = Command::new(env!("CARGO_BIN_EXE_trailblazer"))
        .arg("fetch-for-agent")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to_child = child.stdin.take().unwrap();
    writeln!(to_child, "{request}").unwrap();
    let started = Instant::now();
    while server.seen().is_empty() {
        assert!(started.elapsed() < Duration::from_secs(10), "no request");
        std::thread::sleep(Duration::from_millis(20));
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    drop(to_child);
    child.wait().unwrap();
    for line in [
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Uid:\t65534",
        "Seccomp:\t2",
    ] {
        assert!(status.contains(line), "{line}: {status}");
    }
}
