//! Redirects from a server elsewhere to this host itself: in a network namespace, where a server can
//! have an address that is not of loopback.

use std::process::Command;

use trailblazer::source::{Failure, fetch};

use super::{body, failure, settings};
use lab::raw_http::{Server, ok, redirect};
use lab::{isolated, scratch};

/// An address of a server elsewhere, and an address of the link.
const SETUP: &str = "
ip address add 198.51.100.9/32 dev lo
ip address add 169.254.9.9/32 dev lo
mount --bind \"$1\" /etc/hosts
";

const HOSTS: &str = "
127.0.0.1 inside.example
169.254.9.9 link.example
198.51.100.9 elsewhere.example
127.0.0.1 mirror.example
";

#[test]
fn redirects_from_elsewhere_to_this_host_are_refused_by_address_and_by_name() {
    isolated(|| {
        let hosts = scratch().join("hosts");
        std::fs::write(&hosts, HOSTS).unwrap();
        let mut command = Command::new("sh");
        let status = command.args(["-ec", SETUP, "sh"]).arg(&hosts).status();
        assert!(status.unwrap().success());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(each_redirect());
    });
}

async fn each_redirect() {
    let inner = Server::start_at("127.0.0.1:8081", |_, _| ok(b"inner"));
    let link = Server::start_at("169.254.9.9:8081", |_, _| ok(b"link"));
    let outer = Server::start_at("198.51.100.9:8080", |_, request| {
        match request.path.as_str() {
            "/document" => ok(b"document"),
            path => redirect(&format!("http://{}", &path[1..])),
        }
    });
    for target in [
        "127.0.0.1:8081/x",
        "169.254.9.9:8081/x",
        "[::ffff:127.0.0.1]:8081/x",
        "[64:ff9b::127.0.0.1]:8081/x",
        "inside.example:8081/x",
        "link.example:8081/x",
    ] {
        let url = outer.url(&format!("/{target}"));
        let refused = failure(fetch(&[url], &settings(), None).await);
        assert!(matches!(refused.cause, Failure::Redirect(_)), "{refused}");
        let text = refused.to_string();
        assert!(text.contains("an address of this host"), "{text}");
        assert_eq!(refused.tries, 1, "{text}");
    }
    assert!(inner.seen().is_empty());
    assert!(link.seen().is_empty());

    // A name of a server elsewhere, and a mirror on this host that names itself.
    let named = outer.url("/elsewhere.example:8080/document");
    let fetched = fetch(&[named], &settings(), None).await;
    assert_eq!(body(fetched.unwrap()), b"document");
    let own = Server::start_at("127.0.0.1:8082", |_, request| match request.path.as_str() {
        "/" => redirect("/document"),
        _ => ok(b"own"),
    });
    let named = "http://mirror.example:8082/".to_owned();
    let fetched = fetch(&[named], &settings(), None).await;
    assert_eq!(body(fetched.unwrap()), b"own");
    assert_eq!(own.seen().len(), 2);
}
