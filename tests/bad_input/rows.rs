//! A table of bad inputs, each with its verdict: an exit code, words of the message, and for the
//! config the place. No row hangs, crashes, prints a back trace or floods the terminal.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::site::{BINARY, ROWS, Site, TOKEN, document};

/// Turns the content of a file into a damaged one.
type Damage = fn(&[u8]) -> Vec<u8>;

/// The longest run. A fetch that fails is tried for seconds.
const LIMIT: Duration = Duration::from_secs(20);

/// Runs a command and returns its exit code and its messages, which must be fit for people.
#[track_caller]
pub fn verdict(site: &Site, command: &mut Command, row: &str) -> (i32, String) {
    let started = Instant::now();
    let output = site.bare.ns.in_thread(|| command.output().unwrap());
    let took = started.elapsed();
    assert!(took < LIMIT, "{row}: took {took:?}");
    let code = output.status.code();
    let code = code.unwrap_or_else(|| panic!("{row}: signal {:?}", output.status.signal()));
    let text = String::from_utf8(output.stderr).unwrap_or_else(|error| panic!("{row}: {error}"));
    for bad in ["panicked", "RUST_BACKTRACE", "Err(", "Some(", "unwrap"] {
        assert!(!text.contains(bad), "{row}: {text}");
    }
    assert!(text.len() < 6000, "{row}: {} bytes of messages", text.len());
    let controls = |c: char| c.is_control() && c != '\n' && c != '\t';
    assert!(!text.contains(controls), "{row}: {text:?}");
    (code, text)
}

/// Rows of `text → word ¦ word`; `⏎` stands for a new line.
fn rows(table: &str) -> Vec<(String, Vec<&str>)> {
    let lines = table.lines().filter(|line| line.contains(" → "));
    let rows = lines.map(|line| {
        let (text, words) = line.split_once(" → ").unwrap();
        (text.replace('⏎', "\n"), words.split(" ¦ ").collect())
    });
    rows.collect()
}

pub fn assert_words(row: &str, text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{row}: lacks {word:?}:\n{text}");
    }
}

#[test]
fn every_bad_setting_is_refused_with_its_place() {
    lab::isolated(|| {
        let mut site = Site::new();
        let good = site.config.clone();
        let table = rows(include_str!("rows/config.txt"));
        assert!(table.len() >= 250, "{} rows", table.len());
        for (number, (row, words)) in table.iter().enumerate() {
            let key = row.split('=').next().unwrap_or("").trim();
            let others = good
                .lines()
                .filter(|line| line.split(" =").next() != Some(key));
            let text: Vec<&str> = others.collect();
            site.config = format!("{}\n{row}\n", text.join("\n"));
            let (code, text) = verdict(&site, &mut site.command(&["--dry-run"]), row);
            assert_eq!(code, 64, "{row}: {text}");
            assert_words(row, &text, words);
            let place = text.split("trailblazer.toml:").nth(1);
            let place = place.unwrap_or_else(|| panic!("{row}: no place: {text}"));
            let mut numbers = place.split(':').take(2).map(str::parse::<usize>);
            assert!(numbers.all(|number| number.is_ok()), "{row}: {text}");
            assert!(text.contains('^'), "{row}: no caret: {text}");
            assert!(!site.state_dir().exists(), "{row}: a state dir was made");
            // `check` says the same of every tenth.
            if number % 10 == 0 {
                let mut check = Command::new(BINARY);
                check
                    .arg("check")
                    .arg("-c")
                    .arg(site.path("trailblazer.toml"));
                let (code, text) = verdict(&site, &mut check, row);
                assert_eq!(code, 64, "check: {row}: {text}");
                assert_words(row, &text, words);
            }
        }
    });
}

#[test]
fn every_wrong_command_line_is_refused() {
    lab::isolated(|| {
        let site = Site::new();
        let table = rows(include_str!("rows/command_lines.txt"));
        assert!(table.len() >= 50, "{} rows", table.len());
        for (row, words) in &table {
            let mut command = Command::new(BINARY);
            command.args(row.split_whitespace().map(|word| word.trim_matches('"')));
            let (code, text) = verdict(&site, &mut command, row);
            assert_eq!(code, 64, "{row}: {text}");
            assert_words(row, &text, words);
        }
    });
}

#[test]
fn every_bad_document_is_refused_and_named() {
    lab::isolated(|| {
        let site = Site::new();
        let good = document(TOKEN, &ROWS);
        let path = site.path("ip-ranges.json");
        let table = rows(include_str!("rows/documents.txt"));
        assert!(table.len() >= 50, "{} rows", table.len());
        for (row, words) in &table {
            // `from ⇒ to` edits the good document; other text is the whole document.
            let text = match row.split_once(" ⇒ ") {
                Some((from, to)) => {
                    assert!(good.contains(from), "{from} is not in {good}");
                    good.replacen(from, to, 1)
                }
                None => row.clone(),
            };
            site.publish(&text);
            let (code, text) = verdict(&site, &mut site.command(&["--dry-run"]), row);
            assert_eq!(code, 1, "{row}: {text}");
            assert_words(row, &text, words);
            assert!(
                text.contains(path.to_str().unwrap()),
                "{row}: no source: {text}"
            );
        }
    });
}

#[test]
fn damaged_state_files_never_crash_and_are_named() {
    lab::isolated(|| {
        let site = Site::new();
        site.install();
        let files = crate::site::state_files(&site.state_dir());
        let damages: [(&str, Damage); 9] = [
            ("empty", |_| Vec::new()),
            ("one byte", |_| vec![b'{']),
            ("zeros", |bytes| vec![0; bytes.len()]),
            ("cut in half", |bytes| bytes[..bytes.len() / 2].to_vec()),
            ("last byte lost", |bytes| bytes[..bytes.len() - 1].to_vec()),
            ("one bit", |bytes| {
                let mut bytes = bytes.to_vec();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                bytes
            }),
            ("twice", |bytes| [bytes, bytes].concat()),
            ("another text", |_| b"<html>\x1b[31mred</html>\n".to_vec()),
            ("a deep list", |_| vec![b'['; 100_000]),
        ];
        let mut tried = 0;
        for (path, (_, content)) in &files {
            for (name, damage) in damages {
                let row = format!("{}: {name}", path.display());
                std::fs::write(path, damage(content)).unwrap();
                let (code, text) = verdict(&site, &mut site.command(&["--dry-run"]), &row);
                // Adopted routes wait for the operator (3), other files are replaced.
                assert!([0, 1, 2, 3].contains(&code), "{row}: {code}: {text}");
                std::fs::write(path, content).unwrap();
                tried += 1;
            }
        }
        assert!(tried >= 27, "{tried} rows");
        site.reconcile(&[], 0);
    });
}

#[test]
fn odd_environments_change_no_result() {
    lab::isolated(|| {
        let site = Site::new();
        site.install();
        let variables = [
            "HTTPS_PROXY",
            "HTTP_PROXY",
            "ALL_PROXY",
            "NO_PROXY",
            "SSL_CERT_FILE",
            "TZ",
            "LANG",
            "TRAILBLAZER_LOG",
            "JOURNAL_STREAM",
            "NOTIFY_SOCKET",
            "COLUMNS",
        ];
        let values = ["", "\u{1b}[31m", "/nowhere", "-1", "99999999999999999999"];
        for variable in variables {
            for value in values {
                let row = format!("{variable}={value:?}");
                let mut command = site.command(&[]);
                command.env(variable, value);
                let (code, text) = verdict(&site, &mut command, &row);
                assert_eq!(code, 0, "{row}: {text}");
            }
        }
    });
}
