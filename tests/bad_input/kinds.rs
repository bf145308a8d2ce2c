//! Bad bytes in place of a config file, a document, a state file or a word of the command line.
//! Each case has an exit code and words of the message; none hangs, floods the terminal or ends by a
//! signal.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::rows::{assert_words, verdict};
use crate::site::{BINARY, ROWS, Site, TOKEN, document, state_files};

/// Puts something at a path.
type Plant = fn(&Path);

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

fn link_to(target: &str, path: &Path) {
    std::os::unix::fs::symlink(target, path).unwrap();
}

/// Objects other than a readable file at the path of a file.
const OBSTACLES: [(&str, Plant); 6] = [
    ("a directory", |path| std::fs::create_dir(path).unwrap()),
    ("a circle of links", |path| {
        link_to(path.to_str().unwrap(), path)
    }),
    ("a dangling link", |path| link_to("/nowhere/at/all", path)),
    ("a pipe", fifo),
    ("an endless device", |path| link_to("/dev/zero", path)),
    ("an empty device", |path| link_to("/dev/null", path)),
];

fn clear(path: &Path) {
    if path.is_dir() && !path.is_symlink() {
        std::fs::remove_dir(path).unwrap();
    } else if path.symlink_metadata().is_ok() {
        std::fs::remove_file(path).unwrap();
    }
}

/// The damage of a state file.
enum Put {
    Bytes(Vec<u8>),
    Obstacle(Plant),
}

impl Put {
    fn at(&self, path: &Path) {
        clear(path);
        match self {
            Put::Bytes(bytes) => std::fs::write(path, bytes).unwrap(),
            Put::Obstacle(plant) => plant(path),
        }
    }
}

/// UTF-16 or UTF-32 of the text, with or without a byte order mark.
fn wide(text: &str, bytes: usize, big: bool, mark: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for c in mark.then_some('\u{feff}').into_iter().chain(text.chars()) {
        let all = u32::from(c).to_be_bytes();
        let mut unit = all[4 - bytes..].to_vec();
        if !big {
            unit.reverse();
        }
        out.extend(unit);
    }
    out
}

/// The same text in encodings that are not UTF-8.
fn encodings(text: &str) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for bytes in [2, 4] {
        for big in [false, true] {
            for mark in [false, true] {
                let name = format!("{bytes} bytes, big {big}, mark {mark}");
                all.push((name, wide(text, bytes, big, mark)));
            }
        }
    }
    all
}

fn check(site: &Site) -> Command {
    let mut command = Command::new(BINARY);
    command
        .args(["check", "-c"])
        .arg(site.path("trailblazer.toml"));
    command
}

fn repeated(part: &str, count: usize) -> String {
    part.repeat(count)
}

fn numbered(part: fn(usize) -> String, count: usize) -> String {
    (0..count).map(part).collect()
}

#[test]
fn bytes_that_are_no_config_are_refused_and_named() {
    lab::isolated(|| {
        let site = Site::new();
        let path = site.path("trailblazer.toml");
        let good = site.config.clone();
        let mut cases: Vec<(String, Vec<u8>, Vec<&str>)> = Vec::new();
        let mut case = |name: &str, bytes: Vec<u8>, words: &[&'static str]| {
            cases.push((name.to_owned(), bytes, words.to_vec()));
        };
        for (name, bytes) in encodings(&good) {
            case(&name, bytes, &["UTF-16 or UTF-32", "save it as UTF-8"]);
        }
        case(
            "Latin-1",
            [good.as_bytes(), b"# \xe9\n"].concat(),
            &["line 8", "UTF-8"],
        );
        case("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec(), &["UTF-8"]);
        case("a NUL", [good.as_bytes(), b"\0"].concat(), &["U+0000"]);
        case(
            "carriage returns",
            good.replace('\n', "\r").into(),
            &["U+000D"],
        );
        case("JSON", br#"{"role": "host"}"#.to_vec(), &["not a colon"]);
        case("YAML", b"role: host\n".to_vec(), &["not a colon"]);
        case(
            "HTML",
            b"<!DOCTYPE html>\n<html></html>\n".to_vec(),
            &["not valid TOML"],
        );
        case(
            "a shell script",
            b"#!/bin/sh\nexit 0\n".to_vec(),
            &["not valid TOML"],
        );
        case("nothing", Vec::new(), &["role: missing"]);
        case("a comment", b"# nothing\n".to_vec(), &["role: missing"]);
        case(
            "too much",
            repeated("# x\n", 300_000).into(),
            &["larger than 1 MiB"],
        );
        case(
            "nested lists",
            format!("{good}x = {}", repeated("[", 20_000)).into(),
            &["trailblazer.toml:8:", "nested too deeply"],
        );
        case(
            "nested tables",
            format!("{good}x = {}", repeated("{a = ", 5_000)).into(),
            &["nested too deeply"],
        );
        case(
            "a deep key",
            format!("{}b = 1", repeated("a.", 3_000)).into(),
            &["nested"],
        );
        case(
            "a word a line",
            repeated("x\n", 50_000).into(),
            &["not valid TOML"],
        );
        case(
            "one key a line",
            repeated("x = 1\n", 50_000).into(),
            &["second time"],
        );
        case(
            "unknown keys",
            numbered(|index| format!("k{index} = 1\n"), 20_000).into(),
            &["unknown key", "20000 problems in all", "not listed"],
        );
        case(
            "unknown tables",
            numbered(|index| format!("[t{index}]\n"), 20_000).into(),
            &["unknown table", "20000 problems"],
        );
        case(
            "a list of mistakes",
            format!(
                "{good}select.include = [{}]",
                repeated("\"10.0.0.1/8\",", 20_000)
            )
            .into(),
            &["select.include", "host bits", "20000 problems"],
        );
        case(
            "a long value",
            format!("role = \"{}\"", repeated("a", 100_000)).into(),
            &["role", "is not one of"],
        );
        case(
            "a long key",
            format!("{} = 1", repeated("a", 100_000)).into(),
            &["unknown key"],
        );
        case(
            "a long line",
            format!("x {}", repeated("=", 500_000)).into(),
            &["TOML"],
        );
        for (name, bytes, words) in cases {
            std::fs::write(&path, bytes).unwrap();
            let (code, text) = verdict(&site, &mut check(&site), &name);
            assert_eq!(code, 64, "{name}: {text}");
            assert_words(&name, &text, &words);
        }
        // Line ends of Windows and a byte order mark are no mistake.
        for text in [format!("\u{feff}{good}"), good.replace('\n', "\r\n")] {
            std::fs::write(&path, text).unwrap();
            let (code, text) = verdict(&site, &mut check(&site), "Windows");
            assert!([0, 1].contains(&code), "{text}");
        }
    });
}

#[test]
fn obstacles_in_place_of_the_config_are_named() {
    lab::isolated(|| {
        let site = Site::new();
        let path = site.path("trailblazer.toml");
        let verdicts = [
            (1, "name the file in this directory"),
            (1, "leads back to itself"),
            (64, "does not exist"),
            (1, "no writer has finished this pipe"),
            (64, "larger than 1 MiB"),
            (64, "role: missing"),
        ];
        for ((name, plant), (expected, word)) in OBSTACLES.iter().zip(verdicts) {
            clear(&path);
            plant(&path);
            let (code, text) = verdict(&site, &mut check(&site), name);
            assert_eq!(code, expected, "{name}: {text}");
            assert_words(name, &text, &[word, "trailblazer.toml"]);
        }
        clear(&path);
        // A pipe with a writer is a file like any other, also if the writer is slow.
        std::fs::write(site.path("c"), &site.config).unwrap();
        let script = format!(
            "{BINARY} check -c <(sleep 1; cat {})",
            site.path("c").display()
        );
        let (code, text) = verdict(&site, Command::new("bash").args(["-c", &script]), "bash");
        assert!(
            [0, 1].contains(&code) && !text.contains("config file"),
            "{text}"
        );
    });
}

#[test]
fn bytes_that_are_no_document_are_refused_and_named() {
    lab::isolated(|| {
        let site = Site::new();
        let path = site.path("ip-ranges.json");
        let good = document(TOKEN, &ROWS);
        let edit = |from: &str, to: &str| {
            assert!(good.contains(from));
            good.replacen(from, to, 1).into_bytes()
        };
        let first = |more: String| edit("{", &format!("{{{more},"));
        let mut cases: Vec<(&str, Vec<u8>, &str)> = vec![
            (
                "invalid UTF-8",
                [good.as_bytes(), b"\xff"].concat(),
                "not UTF-8",
            ),
            (
                "NULs behind",
                [good.as_bytes(), b"\0\0"].concat(),
                "extra text",
            ),
            ("xz", b"\xfd7zXZ\0\0\x04".to_vec(), "compressed with xz"),
            (
                "zstd",
                b"\x28\xb5\x2f\xfd\x04\x58".to_vec(),
                "compressed with zstd",
            ),
            (
                "zip",
                b"PK\x03\x04\x14\0\0\0".to_vec(),
                "compressed with zip",
            ),
            ("bzip2", b"BZh91AY&SY".to_vec(), "compressed with bzip2"),
            (
                "gzip, cut",
                b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x4b".to_vec(),
                "gzip",
            ),
            (
                "gzip, wrong",
                b"\x1f\x8b\x08\0xxxxxxxxxxxx".to_vec(),
                "gzip",
            ),
            (
                "HTML with a mark",
                b"\xef\xbb\xbf<html>".to_vec(),
                "web page",
            ),
            ("a mark alone", b"\xef\xbb\xbf".to_vec(), "empty"),
            (
                "10,000 lists",
                repeated("[", 10_000).into(),
                "not of the shape",
            ),
            (
                "10,000 objects",
                repeated("{\"a\":", 10_000).into(),
                "truncated",
            ),
            (
                "two tokens",
                first("\"syncToken\": \"1\"".into()),
                "duplicate field",
            ),
            (
                "two lists",
                first("\"prefixes\": []".into()),
                "duplicate field",
            ),
            (
                "two regions",
                edit("\"region\"", "\"region\": \"x\", \"region\""),
                "duplicate",
            ),
            (
                "a token of 10,000 digits",
                edit("1700000000", &repeated("9", 10_000)),
                "number",
            ),
            ("half a pair", edit("us-east-1", r"\ud800"), "not JSON"),
            ("an unknown escape", edit("us-east-1", r"\x"), "not JSON"),
            ("a control character", edit("us-east-1", "\t"), "not JSON"),
            ("a comment", format!("// {good}").into(), "not JSON"),
            ("single quotes", good.replace('"', "'").into(), "not JSON"),
            ("NaN", first("\"x\": NaN".into()), "not JSON"),
        ];
        for (_, bytes) in encodings(&good) {
            cases.push(("another encoding", bytes, "UTF-16"));
        }
        let size = good.len();
        for cut in (1..size).step_by(size / 40) {
            cases.push(("cut", good.as_bytes()[..cut].to_vec(), "truncated"));
        }
        for (name, bytes, word) in cases {
            site.publish(&bytes);
            let (code, text) = verdict(&site, &mut site.command(&["--dry-run"]), name);
            assert_eq!(code, 1, "{name}: {text}");
            assert_words(name, &text, &[word, path.to_str().unwrap()]);
        }
        // Fields that nobody reads may hold anything that is JSON.
        for (name, more) in [
            (
                "deep",
                format!("\"x\": {}{}", repeated("[", 10_000), repeated("]", 10_000)),
            ),
            ("a huge number", "\"x\": 1e999999".to_owned()),
            ("many digits", format!("\"x\": {}", repeated("9", 100_000))),
            (
                "a long text",
                format!("\"x\": \"{}\"", repeated("a", 5_000_000)),
            ),
        ] {
            site.publish(first(more));
            let (code, text) = verdict(&site, &mut site.command(&["--dry-run"]), name);
            assert_eq!(code, 2, "{name}: {text}");
        }
        for (name, plant) in OBSTACLES {
            clear(&path);
            plant(&path);
            let (code, text) = verdict(&site, &mut site.command(&["--dry-run"]), name);
            assert_eq!(code, 1, "{name}: {text}");
            assert_words(
                name,
                &text,
                &["cannot read the file", path.to_str().unwrap()],
            );
        }
    });
}

#[test]
fn obstacles_and_wrong_values_in_the_state_dir_never_stop_a_command() {
    lab::isolated(|| {
        let site = Site::new();
        site.install();
        let files = state_files(&site.state_dir());
        let numbers = |bytes: &[u8], with: &str| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let mut out = String::new();
            let mut before = ' ';
            for part in text.split_inclusive(|c: char| !c.is_ascii_digit()) {
                let digits = part.trim_end_matches(|c: char| !c.is_ascii_digit());
                let value = !digits.is_empty() && [':', ',', '['].contains(&before);
                out.push_str(if value { with } else { digits });
                out.push_str(&part[digits.len()..]);
                before = part.chars().last().unwrap_or(' ');
            }
            out.into_bytes()
        };
        let mut tried = 0;
        for (path, (_, content)) in &files {
            let mut damaged: Vec<(&str, Vec<u8>)> = ["null", "{}", "[]", "5", "\"x\"", "true"]
                .map(|text| (text, text.into()))
                .to_vec();
            for with in [
                "-1",
                "99999999999999999999999",
                "1e999",
                "\"x\"",
                "null",
                "[]",
            ] {
                damaged.push((with, numbers(content, with)));
            }
            let mut rows: Vec<(&str, Put)> = Vec::new();
            rows.extend(
                damaged
                    .into_iter()
                    .map(|(name, bytes)| (name, Put::Bytes(bytes))),
            );
            rows.extend(OBSTACLES.map(|(name, plant)| (name, Put::Obstacle(plant))));
            for (name, put) in rows {
                for words in [
                    &["status"][..],
                    &["history"],
                    &["check"],
                    &["flush", "--dry-run"],
                ] {
                    put.at(path);
                    let row = format!("{words:?} with {name} as {}", path.display());
                    let mut command = Command::new(BINARY);
                    command
                        .args(words)
                        .arg("-c")
                        .arg(site.path("trailblazer.toml"));
                    let (code, text) = verdict(&site, &mut command, &row);
                    assert!([0, 1, 2].contains(&code), "{row}: {code}: {text}");
                    tried += 1;
                }
                put.at(path);
                let row = format!("reconcile with {name} as {}", path.display());
                let (code, text) = verdict(&site, &mut site.command(&[]), &row);
                assert!([0, 1, 3].contains(&code), "{row}: {code}: {text}");
                clear(path);
                std::fs::write(path, content).unwrap();
            }
        }
        assert!(tried >= 200, "{tried}");
        site.reconcile(&[], 0);
    });
}

#[test]
fn obstacles_in_place_of_the_state_dir_are_named() {
    lab::isolated(|| {
        let site = Site::new();
        site.publish(document(TOKEN, &ROWS));
        let path = site.state_dir();
        let obstacles = OBSTACLES.into_iter().chain([
            (
                "a file",
                (|path| std::fs::write(path, "x").unwrap()) as Plant,
            ),
            ("a link to /proc", |path| link_to("/proc/sys", path)),
        ]);
        for (name, plant) in obstacles.filter(|(name, _)| *name != "a directory") {
            clear(&path);
            plant(&path);
            let (code, text) = verdict(&site, &mut site.command(&[]), name);
            // The egress and the bypass are in force all the same; what can't be stored is named.
            assert_eq!(code, 1, "{name}: {text}");
            assert_words(name, &text, &["degraded: state", "state_dir"]);
            assert!(site.way("52.216.0.9").contains("via 10.0.1.1"), "{name}");
        }
        clear(&path);
        let long = "a".repeat(300);
        let (code, text) = verdict(&site, &mut site.command(&["--state-dir", &long]), "long");
        assert_eq!(code, 1, "{text}");
        assert_words("long", &text, &["degraded: state", "shorten"]);
    });
}

#[test]
fn words_of_any_bytes_and_length_are_refused_in_a_few_lines() {
    lab::isolated(|| {
        let site = Site::new();
        let long = "a".repeat(100_000);
        let flag = format!("--{long}");
        let words: Vec<(Vec<&OsStr>, &str)> = vec![
            (vec![OsStr::from_bytes(b"\xff\xfe")], "unrecognized"),
            (
                vec!["reconcile".as_ref(), OsStr::from_bytes(b"--\xff")],
                "unexpected",
            ),
            (
                vec!["explain".as_ref(), OsStr::from_bytes(b"\xff")],
                "UTF-8",
            ),
            (vec![long.as_ref()], "unrecognized"),
            (
                vec!["explain".as_ref(), long.as_ref()],
                "neither an IP address",
            ),
            (vec!["reconcile".as_ref(), flag.as_ref()], "unexpected"),
            (
                vec![
                    "reconcile".as_ref(),
                    "--role=host".as_ref(),
                    "--region".as_ref(),
                    long.as_ref(),
                ],
                "--region",
            ),
            (
                vec!["reconcile".as_ref(), "\u{2013}dry-run".as_ref()],
                "typographic dash",
            ),
            (
                vec!["reconcile".as_ref(), "\u{2014}dry-run".as_ref()],
                "typographic dash",
            ),
            (
                vec!["history".as_ref(), "--since".as_ref(), long.as_ref()],
                "expected a span",
            ),
        ];
        for (arguments, word) in words {
            let row = format!("{:.60}", format!("{arguments:?}"));
            let (code, text) = verdict(&site, Command::new(BINARY).args(&arguments), &row);
            assert_eq!(code, 64, "{row}: {text}");
            assert_words(&row, &text, &[word]);
        }
    });
}

/// Every key with values of every wrong type. Some values are right for some keys.
#[test]
fn no_value_of_any_key_ends_in_a_crash_or_without_a_place() {
    lab::isolated(|| {
        let mut site = Site::new();
        site.publish(document(TOKEN, &ROWS));
        let values = [
            "true",
            "0",
            "-1",
            "1.5",
            "nan",
            "-inf",
            "99999999999999999999999",
            "0x7fffffff",
            "\"\"",
            "\" \"",
            "\"x\"",
            "\"-1\"",
            "\"٣\"",
            "\"“x”\"",
            "\"\\u0000\"",
            "\"\\u202e\"",
            "[]",
            "[[]]",
            "[1]",
            "[\"\"]",
            "[\"x\", 1]",
            "{}",
            "{ a = 1 }",
            "1979-05-27",
            "'''\n'''",
            "\"/\"",
            "\"::\"",
            "\"0.0.0.0/0\"",
            "\"999999999999999d\"",
        ];
        let keys = trailblazer::config::keys();
        assert!(keys.len() >= 45, "{} keys", keys.len());
        let good = site.config.clone();
        let (mut refused, mut all) = (0, 0);
        for key in &keys {
            let others = good
                .lines()
                .filter(|line| line.split(" =").next() != Some(key));
            let others: Vec<&str> = others.collect();
            for value in values {
                let row = format!("{key} = {value}");
                site.config = format!("{}\n{row}\n", others.join("\n"));
                std::fs::write(site.path("trailblazer.toml"), &site.config).unwrap();
                let mut command = Command::new(BINARY);
                command
                    .args(["ranges", "-c"])
                    .arg(site.path("trailblazer.toml"));
                let (code, text) = verdict(&site, &mut command, &row);
                all += 1;
                if code == 64 {
                    refused += 1;
                    assert_words(&row, &text, &["trailblazer.toml:", key, "^"]);
                } else {
                    assert!([0, 1, 3].contains(&code), "{row}: {code}: {text}");
                }
            }
        }
        assert!(refused * 10 > all * 9, "{refused} of {all} values refused");
    });
}
