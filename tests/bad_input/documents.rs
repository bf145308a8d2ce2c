//! Documents that the guard rejects, from a real HTTP server.

use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::site::{ROWS, Row, Site, TOKEN, assert_verdict, document, rows_and};
use lab::raw_http::{Act, Server, answer, ok, redirect};

type Reply = Box<dyn Fn() -> Vec<Act> + Send>;

/// An HTTP server in the site's namespace with changeable answers.
struct Mirror {
    server: Server,
    reply: Arc<Mutex<Reply>>,
}

impl Mirror {
    fn start(site: &mut Site) -> Mirror {
        let reply: Arc<Mutex<Reply>> = Arc::new(Mutex::new(Box::new(|| ok(b""))));
        let served = Arc::clone(&reply);
        let server = site.bare.ns.in_thread(|| {
            Server::start(move |_, request| match request.path.as_str() {
                "/ip-ranges.json" => (served.lock().unwrap())(),
                path => panic!("nobody should ask for {path}"),
            })
        });
        let file = format!("{:?}", site.path("ip-ranges.json"));
        let url = format!("{:?}", server.url("/ip-ranges.json"));
        site.edit(&file, &url);
        Mirror { server, reply }
    }

    fn answers(&self, reply: impl Fn() -> Vec<Act> + Send + 'static) {
        *self.reply.lock().unwrap() = Box::new(reply);
    }
}

struct Case {
    name: &'static str,
    reply: fn() -> Vec<Act>,
    guard: &'static str,
    says: &'static str,
}

fn newer(rows: &[Row]) -> String {
    document(TOKEN + 100, rows)
}

/// Answers that are no usable document.
const REJECTED: &[Case] = &[
    Case {
        name: "404",
        reply: || answer("404 Not Found", &[], b"gone"),
        guard: "document",
        says: "the server answered 404 Not Found",
    },
    Case {
        name: "403 with a document in it",
        reply: || answer("403 Forbidden", &[], newer(&ROWS).as_bytes()),
        guard: "document",
        says: "the server answered 403 Forbidden",
    },
    Case {
        name: "204",
        reply: || answer("204 No Content", &[], b""),
        guard: "document",
        says: "the server answered 204 No Content",
    },
    Case {
        name: "500, retried",
        reply: || answer("500 Internal Server Error", &[], b"oops"),
        guard: "document",
        says: "(the last of 3 tries)",
    },
    Case {
        name: "redirected elsewhere",
        reply: || redirect("ftp://127.0.0.1/ip-ranges.json"),
        guard: "document",
        says: "redirect",
    },
    Case {
        name: "empty",
        reply: || ok(b""),
        guard: "document",
        says: "empty document",
    },
    Case {
        name: "cut by the connection",
        reply: || {
            let text = newer(&ROWS);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len());
            let half = &text[..text.len() / 2];
            vec![Act::Send([head.as_bytes(), half.as_bytes()].concat())]
        },
        guard: "document",
        says: "the answer broke off",
    },
    Case {
        name: "cut by the publisher",
        reply: || ok(&newer(&ROWS).as_bytes()[..200]),
        guard: "document",
        says: "truncated",
    },
    Case {
        name: "garbage behind it",
        reply: || ok((newer(&ROWS) + "}]").as_bytes()),
        guard: "document",
        says: "extra text follows the end of the document",
    },
    Case {
        name: "a login page",
        reply: || ok(b"<html><body>Log in to the guest network</body></html>"),
        guard: "document",
        says: "web page",
    },
    Case {
        name: "JSON of another kind",
        reply: || ok(br#"{"message": "rate limit exceeded"}"#),
        guard: "document",
        says: "prefixes",
    },
    Case {
        name: "no prefixes",
        reply: || ok(br#"{"syncToken": "1700000100", "createDate": "x", "ipv6_prefixes": []}"#),
        guard: "document",
        says: "prefixes",
    },
    Case {
        name: "a selected prefix that is none",
        reply: || ok(newer(&rows_and(&[("52.220.0.0", "us-east-1", "S3")])).as_bytes()),
        guard: "bad-row",
        says: "52.220.0.0",
    },
    Case {
        name: "host bits in a selected prefix",
        reply: || ok(newer(&rows_and(&[("52.220.0.1/15", "us-east-1", "S3")])).as_bytes()),
        guard: "bad-row",
        says: "52.220.0.1/15",
    },
    Case {
        name: "over max_bytes",
        reply: || ok(&vec![b' '; 20_000]),
        guard: "document",
        says: "larger than 10240 bytes",
    },
];

/// Answers that need an earlier document in force for comparison.
const REJECTED_BESIDE_ANOTHER: &[Case] = &[
    Case {
        name: "an older token",
        reply: || ok(document(TOKEN - 1, &ROWS[1..]).as_bytes()),
        guard: "older-token",
        says: "is older than the one in force",
    },
    Case {
        name: "the same token with other rows",
        reply: || ok(document(TOKEN, &ROWS[1..]).as_bytes()),
        guard: "same-token",
        says: "with other rows",
    },
];

#[test]
fn bad_documents_are_rejected_and_the_good_one_stays() {
    lab::isolated(|| {
        let mut site = Site::new();
        site.config.push_str("source.max_bytes = \"10KiB\"\n");
        let mirror = Mirror::start(&mut site);
        mirror.answers(|| ok(document(TOKEN, &ROWS).as_bytes()));
        site.reconcile(&[], 0);
        for case in REJECTED.iter().chain(REJECTED_BESIDE_ANOTHER) {
            println!("{}", case.name);
            mirror.answers(case.reply);
            let before = site.before();
            let report = site.reconcile(&[], 0);
            assert_eq!(report["outcome"], "in_sync", "{}", case.name);
            assert_eq!(report["sync_token"], TOKEN, "{}", case.name);
            assert_verdict(&report, case.guard, "reject", case.says);
            assert_verdict(&report, case.guard, "reject", "stays in force");
            assert_eq!(
                report["verdicts"].as_array().unwrap().len(),
                1,
                "{report:#}"
            );
            site.assert_as(&before);
            assert_eq!(site.journal_end()["verdicts"], report["verdicts"]);
        }
        assert!(!mirror.server.seen().is_empty());
    });
}

#[test]
fn bad_first_documents_fail_the_pass() {
    lab::isolated(|| {
        let mut site = Site::new();
        site.config.push_str("source.max_bytes = \"10KiB\"\n");
        let mirror = Mirror::start(&mut site);
        // The egress path needs no document and is in force from the first pass on.
        mirror.answers(|| ok(b""));
        let report = site.reconcile(&[], 1);
        assert_eq!(report["outcome"], "failed");
        assert_eq!(site.bypass(), Vec::<String>::new());
        let routes = site.bare.ns.ip("route show table 1084");
        assert!(routes.contains("default via 10.0.1.10") || routes.contains("default nhid"));
        for case in REJECTED {
            println!("{}", case.name);
            mirror.answers(case.reply);
            let report = site
                .refuses(&[], 1, &["no document: ", case.says])
                .expect("a report");
            assert_verdict(&report, case.guard, "reject", "no document is in force");
            assert_eq!(report["sync_token"], Value::Null);
            assert_eq!(site.journal_end()["outcome"], "failed");
        }
        let names: Vec<_> = crate::site::state_files(&site.state_dir())
            .into_keys()
            .map(|path| path.file_name().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["numbers.json"]);
    });
}

/// Silence is not an answer: noted, and the last known good stays (0).
#[test]
fn silent_source_is_noted_and_the_last_known_good_stays() {
    lab::isolated(|| {
        let mut site = Site::new();
        site.install();
        let file = format!("{:?}", site.path("ip-ranges.json"));
        let absent = format!("{:?}", site.path("absent.json"));
        site.edit(&file, &absent);
        let dir = format!("{:?}", site.path(""));
        for (url, says) in [
            (absent.as_str(), "check the path"),
            (dir.as_str(), "it is a directory"),
            // Nobody listens there; two retries.
            ("\"http://127.0.0.1:9/ip-ranges.json\"", "cannot connect"),
        ] {
            let config = site.config.clone();
            site.edit(&absent, url);
            let before = site.before();
            let report = site.reconcile(&[], 0);
            assert_eq!(report["outcome"], "in_sync");
            assert_verdict(&report, "source", "note", says);
            assert_verdict(&report, "source", "note", "stays in force");
            site.assert_as(&before);
            // Nothing in force and nothing to be had.
            let nowhere = site.path("nowhere");
            let report = site.run(&["--dry-run", "--state-dir", nowhere.to_str().unwrap()]);
            let report = report.expect_code(1);
            assert!(report.stderr.contains(says), "{report}");
            assert!(!nowhere.exists());
            site.config = config;
        }
    });
}

/// A bad row outside the selection causes a note, and the document is accepted.
#[test]
fn bad_row_outside_the_selection_is_only_noted() {
    lab::isolated(|| {
        let site = Site::new();
        site.install();
        let rows = rows_and(&[
            ("52.220.0.1/15", "ap-southeast-1", "EC2"),
            ("16.182.0.0/16", "us-east-1", "S3"),
        ]);
        site.publish(newer(&rows));
        let report = site.reconcile(&[], 0);
        assert_eq!(report["outcome"], "changed");
        assert_verdict(&report, "bad-row-outside", "note", "52.220.0.1/15");
        assert!(site.bypass().contains(&"16.182.0.0/16".to_owned()));
    });
}
