//! A mark that decides the path: in a network namespace where only marked packets reach the server.

use std::process::Command;

use trailblazer::source::{Failure, fetch};

use super::{body, failure, settings, tls};
use lab::isolated;
use lab::raw_http::{Server, ok, redirect};

/// Packets to the server's port need the mark. The local table's own rule moves back, behind the
/// new rule.
const SETUP: &str = r#"
for family in -4 -6; do
    ip $family rule add pref 10 fwmark 0/0x40 ipproto tcp dport 8083 prohibit
    ip $family rule add pref 100 lookup local
    ip $family rule del pref 0
done
"#;

#[test]
fn marked_fetch_takes_the_marked_route() {
    isolated(|| {
        let status = Command::new("sh").args(["-ec", SETUP]).status();
        assert!(status.unwrap().success());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(with_and_without());
    });
}

async fn with_and_without() {
    let mut settings = settings();
    settings.retries = 0;
    let mut marked = settings.clone();
    marked.mark = Some(0x40);
    let large = b"0123456789abcdef".repeat(50_000);
    for host in ["127.0.0.1", "[::1]"] {
        let content = large.clone();
        let server = Server::start_at(&format!("{host}:8083"), move |_, request| {
            match request.path.as_str() {
                "/moved" => redirect("/"),
                _ => ok(&content),
            }
        });
        let url = server.url("/moved");
        let unmarked = failure(fetch(std::slice::from_ref(&url), &settings, None).await);
        assert!(matches!(unmarked.cause, Failure::Connect(_)), "{unmarked}");
        assert!(
            unmarked.to_string().contains("Permission denied"),
            "{unmarked}"
        );
        assert!(server.seen().is_empty());

        let fetched = fetch(std::slice::from_ref(&url), &marked, None).await;
        assert_eq!(body(fetched.unwrap()), large);
        let seen = server.seen();
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[1].header("host"), Some(&*format!("{host}:8083")));

        let nobody = format!("http://{host}:1/");
        let refused = failure(fetch(&[nobody], &marked, None).await).to_string();
        assert!(
            refused.contains("Connection refused") && refused.contains("marked 0x40"),
            "{refused}"
        );
    }

    // TLS works through the marked connection.
    let authority = tls::authority("ours");
    let roots = tls::roots_file(&authority.pem());
    let config = tls::server_config(&authority, "127.0.0.1", false);
    let server = Server::start_tls_at("127.0.0.1:8083", config, |_, _| ok(b"marked TLS"));
    let fetched = |mark| tls::fetch_trusting(roots.path(), &server.url("/"), mark);
    assert!(fetched(None).contains("Permission denied"));
    let text = fetched(Some(0x40));
    assert!(text.contains("RESULT ok marked TLS"), "{text}");
    drop(server);
    let config = tls::server_config(&tls::authority("unknown"), "127.0.0.1", false);
    let server = Server::start_tls_at("127.0.0.1:8083", config, |_, _| ok(b"never"));
    let text = tls::fetch_trusting(roots.path(), &server.url("/"), Some(0x40));
    assert!(
        text.contains("TLS failed") && !text.contains("tries"),
        "{text}"
    );
}
