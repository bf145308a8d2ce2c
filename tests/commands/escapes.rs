//! Text of strangers with terminal sequences, line feeds and reordering characters: documents,
//! names of interfaces, comments, tables, paths, servers, words of the command line. No output
//! holds such a character raw, and no line feed of a field begins a line.

use crate::setup::*;
use lab::*;

/// Colours the terminal, forges a line, reorders text, begins a sequence (C1), and deletes.
const EVIL: &str = "\u{1b}[31mX\nFORGED\u{202e}\u{9b}2J\u{7f}";

/// Without a line feed, for protocols that refuse one.
const EVIL_LINE: &str = "\u{1b}[31mX\u{202e}\u{9b}2J\u{7f}";

/// The kernel refuses white space in the name of an interface, and no other active character.
const EVIL_LINK: &str = "\u{1b}[31m\u{202e}\u{9b}";

/// The marks of painted text inside the program: a stranger's mark is no colour.
const MARK: &str = "\u{10fffe}1;31\u{10ffff}X";

/// Every key with text, and a key of the TOML file itself.
const KEYS: &[&str] = &[
    "role",
    "source.url",
    "source.refresh",
    "source.timeout",
    "source.max_bytes",
    "source.state_dir",
    "source.path",
    "select.services",
    "select.regions",
    "select.families",
    "select.include",
    "select.exclude",
    "guard.max_loss",
    "guard.max_gain",
    "guard.max_new_addresses",
    "guard.shortest_prefix.ipv4",
    "guard.canaries",
    "guard.max_prefixes",
    "guard.accept_after",
    "guard.hold_down",
    "bypass.gateway",
    "bypass.interface",
    "bypass.onlink",
    "bypass.table",
    "egress.gateways",
    "egress.table",
    "egress.when_down",
    "egress.close",
    "nat.backend",
    "nat.sources",
    "nat.egress_interface",
    "nat.egress_addresses",
    "nat.bypass",
    "nat.exempt",
    "nat.mss",
    "vpc.cidrs",
    "vpc.metadata",
    "kernel.protocol",
    "kernel.priority",
    "kernel.marks.path",
    "kernel.marks.gateway",
    "kernel.manage",
    "agent.socket",
    "agent.metrics",
    "agent.resync",
    "agent.stale.warn",
    "agent.nat_price_per_gb",
    "agent.event_buffer",
];

fn is_raw(c: char) -> bool {
    c != '\n' && (c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) || c > '\u{10fffd}')
}

#[track_caller]
fn is_clean(output: &Output) {
    for (stream, text) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        let raw = text.chars().find(|c| is_raw(*c));
        assert_eq!(raw, None, "{stream} of {}: {text:?}", output.command);
        let forged = text.lines().any(|line| line.starts_with("FORGED"));
        assert!(!forged, "{stream} of {}: {text}", output.command);
    }
}

/// Runs a command with both outputs. JSON keeps the meaning of each text, so escapes are JSON's.
#[track_caller]
fn both(setup: &Setup, ns: &Ns, words: &[&str]) {
    is_clean(&setup.run(ns, words));
    let json = setup.run(ns, &[words, &["-o", "json"]].concat());
    is_clean(&json);
    if !json.stdout.is_empty() {
        json.json();
    }
}

/// A document with such words in each field of text; `refused` adds a selected row without a
/// prefix.
fn evil_document(refused: bool) -> String {
    let text = std::fs::read_to_string(sample()).unwrap();
    let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
    document["createDate"] = EVIL.into();
    document[EVIL] = EVIL.into();
    let row = serde_json::json!({
        "ip_prefix": "52.216.0.0/16", "region": EVIL, "service": EVIL,
        "network_border_group": EVIL
    });
    let selected = serde_json::json!({
        "ip_prefix": EVIL, "region": "us-east-1", "service": "S3",
        "network_border_group": EVIL
    });
    let rows = document["prefixes"].as_array_mut().unwrap();
    rows.push(row);
    rows.extend(refused.then_some(selected));
    document.to_string()
}

#[test]
fn no_field_of_documents_kernel_and_command_lines_is_raw() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        let setup = Setup::host("s", "");
        // Another program's rules: a mark of ours in chains and with comments of any text, a table
        // that drops, and a policy rule before ours.
        let drop = format!(
            "add table inet strange\n\
             add chain inet strange c {{ type filter hook output priority 0; }}\n\
             add rule inet strange c ip daddr 52.216.0.0/15 drop comment \"{EVIL}\"\n"
        );
        let mark = ["-j", "MARK", "--set-mark", "0x30"];
        let comment = ["-m", "comment", "--comment", EVIL];
        let chain = EVIL_LINK;
        for arguments in [
            &["ip", "link", "add", EVIL_LINK, "type", "veth"][..],
            &[
                "ip", "link", "property", "add", "dev", "priv", "altname", EVIL_LINE,
            ],
            &["ip", "link", "set", "dev", "priv", "alias", EVIL],
            &["iptables", "-t", "mangle", "-N", chain],
            &[
                &["iptables", "-t", "mangle", "-A", chain][..],
                &comment,
                &mark,
            ]
            .concat(),
            &["iptables", "-t", "mangle", "-A", "OUTPUT", "-j", chain],
            &[
                &["iptables", "-A", "FORWARD"][..],
                &comment,
                &["-j", "DROP"],
            ]
            .concat(),
            &[
                "ip",
                "rule",
                "add",
                "priority",
                "100",
                "to",
                "52.216.0.0/15",
                "lookup",
                "main",
            ],
        ] {
            ns.run(arguments);
        }
        ns.nft(&drop);
        let [refused, source] = [true, false].map(|refused| {
            let document = scratch().join(format!("evil-{refused}.json"));
            std::fs::write(&document, evil_document(refused)).unwrap();
            document.display().to_string()
        });
        let missing = format!("/nowhere/{EVIL}");
        let url = format!("http://{MIRROR}/{EVIL_LINE}");
        for words in [
            &["reconcile", "--source", &refused][..],
            &["ranges", "--source", &refused],
            &["reconcile", "--source", &source],
            &["reconcile", "--dry-run", "--source", &missing],
            &["reconcile", "--dry-run", "--source", &url],
            &["reconcile", "--dry-run", "--source", MARK],
            &["check"],
            &["check", "--source", &missing],
            &["explain", "52.216.1.1"],
            &["ranges"],
            &["ranges", "--source", &source],
            &["status"],
            &["history"],
            &["history", "--state-dir", &missing],
            &["flush", "--dry-run"],
            &["kick"],
            &["drain", "10.0.1.10"],
            &["probe"],
            &["explain", EVIL],
            &["reconcile", "--region", EVIL],
            &["reconcile", "--service", EVIL],
            &["reconcile", "--role", EVIL],
            &["reconcile", &format!("--{EVIL}")],
            &["reconcile", "--accept", EVIL],
            &["history", "--since", EVIL],
            &["status", "-o", EVIL],
            &["status", "-c", &missing],
            &["agent", "--log", EVIL],
            &[EVIL],
            &[MARK],
        ] {
            both(&setup, ns, words);
        }
        // The word is shown, escaped.
        let refused = setup.run(ns, &["explain", EVIL]).expect_code(64);
        assert!(
            refused.stderr.contains(r"\u{1b}[31mX\nFORGED\u{202e}"),
            "{}",
            refused.stderr
        );
        let listed = setup.run(ns, &["explain", "52.216.1.1"]);
        assert!(
            listed.stdout.contains(r"\u{1b}[31mX\nFORGED"),
            "{}",
            listed.stdout
        );
        setup.run(ns, &["flush"]);
    });
}

#[test]
fn no_value_of_the_config_is_raw() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        let setup = Setup::host("s", "");
        let good = std::fs::read_to_string(&setup.config).unwrap();
        let quoted = r#""\u001b[31mX\nFORGED\u202e\u009b2J\u007f""#;
        let mut texts = Vec::new();
        for key in KEYS {
            for value in [
                quoted.to_owned(),
                format!("[{quoted}]"),
                format!("\"{EVIL}\""),
            ] {
                texts.push(format!("{key} = {value}\n"));
            }
        }
        texts.extend([
            format!("{quoted} = 1\n"),
            format!("[{quoted}]\n"),
            format!("{EVIL} = 1\n"),
            format!("# {EVIL}\n"),
            format!("source.url = \"https://{EVIL_LINE}/x\"\n"),
            format!("source.url = 5 # {EVIL_LINE}\n"),
            // Accepted values: a state dir and a socket with this name, an interface.
            format!(
                "source.state_dir = \"/run/lab/{}\"\n",
                quoted.trim_matches('"')
            ),
        ]);
        for text in texts {
            let config = format!("role = \"host\"\n{text}");
            std::fs::write(&setup.config, config).unwrap();
            for command in ["check", "status", "history", "reconcile"] {
                is_clean(&setup.run(ns, &[command]));
            }
        }
        std::fs::write(&setup.config, good).unwrap();
    });
}

#[test]
fn no_text_of_the_state_dir_is_raw() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        let setup = Setup::host("s", "");
        setup.run(ns, &["reconcile"]).expect_code(0);
        let record = serde_json::json!({
            "at": EVIL, "pass": 7, "event": "end", "pid": 1, "cause": EVIL, "outcome": EVIL,
            "verdicts": [{"level": EVIL, "guard": EVIL, "message": EVIL}], "verdicts_total": 1,
            "steps": [{"action": EVIL, "object": EVIL, "prefix": EVIL}], "steps_total": 9,
            "degraded": [{"part": "egress", "family": null, "reason": EVIL, "advice": EVIL}],
            "error": EVIL, "hold": EVIL
        });
        let journal = setup.state.join("journal.jsonl");
        let mut lines = std::fs::read_to_string(&journal).unwrap();
        let real: serde_json::Value = lines.lines().last().unwrap().parse().unwrap();
        // The same record with the keys of a real one, a record of another shape, and no record.
        let mut dressed = real.clone();
        for (key, value) in record.as_object().unwrap() {
            if key != "pass" && key != "event" && key != "pid" {
                dressed[key] = value.clone();
            }
        }
        lines.push_str(&format!("{dressed}\n{record}\n{EVIL}\n"));
        std::fs::write(&journal, &lines).unwrap();
        let history = setup.run(ns, &["history"]);
        assert!(
            history.stdout.contains(r"\u{1b}[31mX"),
            "{}",
            history.stdout
        );
        for words in [
            &["history"][..],
            &["history", "--all"],
            &["status"],
            &["check"],
        ] {
            both(&setup, ns, words);
        }
        // Each text of each file, one file at a time.
        let files = std::fs::read_dir(&setup.state).unwrap();
        for file in files {
            let path = file.unwrap().path();
            let before = std::fs::read(&path).unwrap();
            let Ok(mut value) = serde_json::from_slice::<serde_json::Value>(&before) else {
                std::fs::write(&path, EVIL).unwrap();
                both(&setup, ns, &["status"]);
                both(&setup, ns, &["reconcile", "--dry-run"]);
                std::fs::write(&path, before).unwrap();
                continue;
            };
            poison(&mut value);
            std::fs::write(&path, value.to_string()).unwrap();
            for words in [
                &["status"][..],
                &["reconcile", "--dry-run"],
                &["check"],
                &["ranges"],
            ] {
                both(&setup, ns, words);
            }
            std::fs::write(&path, before).unwrap();
        }
    });
}

/// Replaces every text of a value.
fn poison(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) => *text = EVIL.to_owned(),
        serde_json::Value::Array(list) => list.iter_mut().for_each(poison),
        serde_json::Value::Object(map) => map.values_mut().for_each(poison),
        _ => {}
    }
}

#[test]
fn no_answer_of_a_server_and_no_variable_is_raw() {
    lab::isolated(|| {
        let lab = Lab::new();
        let ns = lab.ns("host1");
        let setup = Setup::host("s", "");
        let web = |status: &str, headers: &[&str], body: &str| {
            let (status, headers, body) = (status.to_owned(), headers.to_vec(), body.to_owned());
            raw_http::answer(&status, &headers, body.as_bytes())
        };
        let server = ns.in_thread(|| {
            raw_http::Server::start(move |_, request| match request.path.as_str() {
                "/location" => raw_http::redirect(EVIL_LINE),
                "/away" => raw_http::redirect(&format!("http://{EVIL_LINE}/")),
                "/coding" => web("200 OK", &[&format!("Content-Encoding: {EVIL_LINE}")], "{}"),
                "/type" => web("200 OK", &[&format!("Content-Type: {EVIL_LINE}")], "<html>"),
                "/later" => web("429 X", &[&format!("Retry-After: {EVIL_LINE}")], ""),
                "/page" => raw_http::ok(format!("<html>{EVIL}</html>").as_bytes()),
                "/text" => raw_http::ok(EVIL.as_bytes()),
                "/token" => {
                    let token = serde_json::json!({"syncToken": EVIL, "prefixes": []});
                    raw_http::ok(token.to_string().as_bytes())
                }
                "/noise" => vec![raw_http::Act::Send(EVIL.as_bytes().to_vec())],
                _ => web(&format!("599 {EVIL_LINE}"), &[], EVIL),
            })
        });
        for path in [
            "/location",
            "/away",
            "/coding",
            "/type",
            "/later",
            "/page",
            "/text",
            "/token",
            "/noise",
            "/x",
        ] {
            let words = ["reconcile", "--dry-run", "--source", &server.url(path)];
            is_clean(&setup.run(ns, &words));
            assert!(server.seen().iter().any(|request| request.path == path));
        }
        for name in [
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "NO_PROXY",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "TRAILBLAZER_LOG",
            "NOTIFY_SOCKET",
            IMDS_ENDPOINT,
            "AWS_EC2_METADATA_DISABLED",
        ] {
            let url = "http://192.0.2.1/x";
            let words = [
                "reconcile",
                "--dry-run",
                "--source",
                url,
                "--region",
                "auto",
            ];
            let mut command = trailblazer_command(&[&words[..], &["-c", &setup.config]].concat());
            command.env(name, EVIL);
            is_clean(&ns.exec_command(&mut command));
        }
    });
}
