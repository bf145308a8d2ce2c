//! Lists of sources, servers that ask for silence, and spellings of a sound document.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::site::{ROWS, Site, TOKEN, assert_verdict, document, rows_and};
use lab::raw_http::{Act, Server, answer, ok};

type Spelling<'s> = &'s dyn Fn(&[u8]) -> Vec<Act>;
type Pages = Arc<Mutex<BTreeMap<&'static str, Vec<Act>>>>;

/// A server with a page for each path, and the list of paths as the source.
fn serve(site: &mut Site, paths: &[&'static str]) -> (Server, Pages) {
    let pages = Pages::default();
    let served = Arc::clone(&pages);
    let server = site.bare.ns.in_thread(|| {
        Server::start(move |_, request| {
            let pages = served.lock().unwrap();
            let page = pages.get(request.path.as_str());
            page.cloned()
                .unwrap_or_else(|| answer("404 Not Found", &[], b""))
        })
    });
    let file = format!("{:?}", site.path("ip-ranges.json"));
    let urls: Vec<String> = paths.iter().map(|path| server.url(path)).collect();
    site.edit(&file, &format!("{urls:?}"));
    (server, pages)
}

fn set(pages: &Pages, path: &'static str, page: Vec<Act>) {
    pages.lock().unwrap().insert(path, page);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn notes(report: &Value) -> String {
    report["notes"].to_string()
}

#[test]
fn next_source_is_asked_until_one_has_a_usable_document() {
    lab::isolated(|| {
        let mut site = Site::new();
        let (server, pages) = serve(&mut site, &["/first", "/second", "/third"]);
        set(&pages, "/second", ok(document(TOKEN, &ROWS).as_bytes()));
        let report = site.reconcile(&[], 0);
        assert!(notes(&report).contains("404"), "{report:#}");
        let now = std::time::SystemTime::now();
        let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let bad_row = rows_and(&[("52.220.0.1/15", "us-east-1", "S3")]);
        set(&pages, "/portal", ok(b"<html>sign in</html>"));
        let mut token = TOKEN;
        for (name, page, says) in [
            ("a page", ok(b"<html>sign in</html>"), "web page"),
            ("an empty body", ok(b""), "empty document"),
            ("text", ok(b"OK"), "not JSON"),
            (
                "a redirect to a page",
                answer("302 Found", &["Location: /portal"], b""),
                "redirected to",
            ),
            ("a compressed page", ok(&gzip(b"<html>")), "web page"),
            ("no token", ok(b"{\"prefixes\": []}"), "syncToken"),
            (
                "a stopped mirror",
                ok(document(TOKEN - 1, &ROWS).as_bytes()),
                "older",
            ),
            (
                "a mirror that stopped in time",
                ok(document(TOKEN, &ROWS).as_bytes()),
                "",
            ),
            (
                "a damaged row",
                ok(document(now - 9000, &bad_row).as_bytes()),
                "host bits",
            ),
            (
                "a token of next year",
                ok(document(now + 31_000_000, &ROWS).as_bytes()),
                "ahead of this host's clock",
            ),
            ("an error", answer("403 Forbidden", &[], b""), "403"),
        ] {
            println!("{name}");
            token += 1;
            set(&pages, "/first", page);
            set(&pages, "/second", ok(document(token, &ROWS).as_bytes()));
            let report = site.reconcile(&[], 0);
            assert_eq!(report["sync_token"], token, "{name}: {report:#}");
            assert_eq!(report["verdicts"], serde_json::json!([]), "{name}");
            let notes = notes(&report);
            assert!(notes.contains(says), "{name}: {notes}");
            assert!(says.is_empty() || notes.contains("/first"), "{notes}");
        }
        // A recent document ends the search.
        server.seen();
        set(&pages, "/first", ok(document(now, &ROWS).as_bytes()));
        let asked = server.seen().len();
        assert_eq!(site.reconcile(&[], 0)["sync_token"], now);
        assert_eq!(server.seen().len(), asked + 1);
        // Without a usable document, every source is named.
        for path in ["/first", "/second", "/third"] {
            set(&pages, path, ok(format!("<p>{path}").as_bytes()));
        }
        let report = site.reconcile(&[], 0);
        let message = crate::site::verdict(&report, "document")["message"].to_string();
        assert_eq!(message.matches("web page").count(), 3, "{message}");
        for path in ["/first", "/second", "/third"] {
            assert!(message.contains(path), "{message}");
        }
        // A document that the guard rejects beats no document at all: the verdict has its reason.
        set(&pages, "/second", ok(document(TOKEN, &ROWS).as_bytes()));
        let report = site.reconcile(&[], 0);
        assert_verdict(&report, "older-token", "reject", "/second: sync token");
        assert!(notes(&report).contains("/first"), "{report:#}");
    });
}

#[test]
fn server_that_asks_for_silence_is_not_asked_again() {
    lab::isolated(|| {
        let mut site = Site::new();
        let (server, pages) = serve(&mut site, &["/only"]);
        set(&pages, "/only", ok(document(TOKEN, &ROWS).as_bytes()));
        site.reconcile(&[], 0);
        for status in ["503 Service Unavailable", "429 Too Many Requests"] {
            set(
                &pages,
                "/only",
                answer(status, &["Retry-After: 86400"], b""),
            );
            let file = site.state_dir().join("silences.json");
            // A dry run remembers nothing.
            site.run(&["--dry-run"]).expect_code(0);
            assert!(!file.exists());
            let report = site.reconcile(&[], 0);
            assert_verdict(&report, "document", "reject", "no request within 24 h");
            let asked = server.seen().len();
            for _ in 0..2 {
                let report = site.reconcile(&[], 0);
                assert_verdict(&report, "source", "note", "no request before 20");
                assert_eq!(server.seen().len(), asked, "the server was asked");
            }
            // The silence ends; so does one that a clock in the far future has stored.
            std::fs::remove_file(&file).unwrap();
            set(&pages, "/only", ok(document(TOKEN, &ROWS).as_bytes()));
            site.reconcile(&[], 0);
            assert_eq!(server.seen().len(), asked + 1);
        }
        // Another source of the list takes over at once.
        let only = server.url("/only");
        site.edit(
            &format!("[{only:?}]"),
            &format!("[{only:?}, {:?}]", server.url("/other")),
        );
        set(
            &pages,
            "/only",
            answer("503 Service Unavailable", &["Retry-After: 90000"], b""),
        );
        set(&pages, "/other", ok(document(TOKEN + 1, &ROWS).as_bytes()));
        for _ in 0..2 {
            let report = site.reconcile(&[], 0);
            assert_eq!(report["sync_token"], TOKEN + 1);
            assert_eq!(report["verdicts"], serde_json::json!([]));
        }
    });
}

#[test]
fn every_spelling_of_a_sound_document_is_read() {
    lab::isolated(|| {
        let mut site = Site::new();
        let (_server, pages) = serve(&mut site, &["/only"]);
        let encoded = |coding: &str, body: &[u8]| {
            let header = format!("Content-Encoding: {coding}");
            answer("200 OK", &[&header], body)
        };
        let mut token = TOKEN;
        let mut next = || {
            token += 1;
            (token, document(token, &ROWS).into_bytes())
        };
        let spell: [Spelling<'_>; 14] = [
            &|text| encoded("", text),
            &|text| encoded("identity", text),
            &|text| encoded("IDENTITY", text),
            &|text| encoded("gzip", &gzip(text)),
            &|text| encoded("GZip", &gzip(text)),
            &|text| encoded("x-gzip", &gzip(text)),
            &|text| encoded("gzip, identity", &gzip(text)),
            &|text| encoded("gzip, gzip", &gzip(&gzip(text))),
            // The header is wrong in one direction or the other.
            &|text| encoded("gzip", text),
            &|text| ok(&gzip(text)),
            &|text| ok(&[gzip(&text[..100]), gzip(&text[100..])].concat()),
            &|text| ok(&[b"\xef\xbb\xbf", text].concat()),
            &|text| ok(&gzip(&[b"\xef\xbb\xbf", text].concat())),
            &|text| {
                ok(String::from_utf8_lossy(text)
                    .replace("\"2023-11-14-22-13-20\"", "null")
                    .as_bytes())
            },
        ];
        for (number, spell) in spell.iter().enumerate() {
            let (token, text) = next();
            set(&pages, "/only", spell(&text));
            let report = site.reconcile(&[], 0);
            assert_eq!(report["sync_token"], token, "{number}: {report:#}");
        }
        // The same as files.
        let path = site.path("ranges.json.gz");
        for spell in [
            |text: &[u8]| gzip(text),
            |text: &[u8]| [b"\xef\xbb\xbf", text].concat(),
        ] {
            let (token, text) = next();
            std::fs::write(&path, spell(&text)).unwrap();
            let report = site.reconcile(&["--source", path.to_str().unwrap()], 0);
            assert_eq!(report["sync_token"], token, "{report:#}");
        }
    });
}
