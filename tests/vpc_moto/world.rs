//! A server of moto, and commands of the vpc role against it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A Python with moto's server; `None` with a message on standard error. `make test-long` needs it.
fn python() -> Option<PathBuf> {
    let tools = repository().join("target/tools/vpc");
    if tools.join(".complete").exists() {
        return Some(tools.join("venv/bin/python"));
    }
    let asked = std::env::var_os("TRAILBLAZER_LONG").is_some();
    assert!(!asked, "packaging/dev/vpc-tools.sh fetches moto");
    // libtest captures `eprintln!` of a passing test, but not a write to standard error.
    let line = "NOT TESTED against moto: moto is missing; packaging/dev/vpc-tools.sh fetches it\n";
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    None
}

/// A running server with one account. It ends when it is dropped.
pub struct Moto {
    server: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    url: String,
    account: Value,
    directory: TempDir,
}

impl Moto {
    /// Starts a server; `None` without moto.
    pub fn start() -> Option<Moto> {
        let mut server = Command::new(python()?)
            .arg(repository().join("tests/vpc_moto/moto_server.py"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", "/nonexistent")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to = server.stdin.take().unwrap();
        let from = BufReader::new(server.stdout.take().unwrap());
        let mut moto = Moto {
            server,
            to,
            from,
            url: String::new(),
            account: Value::Null,
            directory: tempfile::tempdir().unwrap(),
        };
        moto.url = moto.answer()["url"].as_str().unwrap().to_owned();
        Some(moto)
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    fn ask(&mut self, words: &Value) -> Value {
        writeln!(self.to, "{words}").unwrap();
        self.answer()
    }

    /// A fresh account, a fresh state directory, and a config in this mode.
    pub fn anew(&mut self, mode: &str) {
        self.account = self.ask(&json!({"do": "make"}));
        self.directory = tempfile::tempdir().unwrap();
        let path = self.directory.path().display();
        let text = format!(
            "role = \"vpc\"\n[source]\nurl = \"{path}/ip-ranges.json\"\nstate_dir = \"{path}/state\"\n\
             [select]\nregions = [\"us-east-1\"]\n\
             [guard]\nhold_down = \"0s\"\nmax_loss = \"100%\"\nmax_gain = \"100000%\"\n\
             [vpc_plane]\nmode = \"{mode}\"\nregion = \"us-east-1\"\nendpoint = \"{}\"\n\
             tables = [\"tag:trailblazer=bypass\"]\nfloor = 1\nwrites_per_second = 100\n\
             target.ipv4 = \"{}\"\n",
            self.url,
            self.word("igw"),
        );
        std::fs::write(self.directory.path().join("c.toml"), text).unwrap();
    }

    /// A value of the account.
    pub fn word(&self, name: &str) -> &str {
        self.account[name].as_str().unwrap()
    }

    /// Gives the user this policy and no other.
    pub fn allow(&mut self, policy: &Value) {
        self.ask(&json!({"do": "allow", "policy": policy}));
    }

    /// The routes of the table and the lists, in the operator's view.
    pub fn look(&mut self) -> Value {
        self.ask(&json!({"do": "look"}))
    }

    /// The destinations of the routes to the internet gateway, sorted.
    pub fn routes(&mut self) -> Vec<String> {
        let seen = self.look();
        let routes = seen["routes"].as_object().unwrap().iter();
        let to = routes.filter(|(_, target)| *target == self.word("igw"));
        to.map(|(destination, _)| destination.clone()).collect()
    }

    /// Puts a document with this number of prefixes of S3 at the source; they never aggregate.
    pub fn publish(&self, token: u64, prefixes: usize) {
        let rows = (0..prefixes).map(|n| {
            json!({
                "ip_prefix": format!("52.{}.{}.0/24", n / 128, n % 128 * 2),
                "region": "us-east-1", "service": "S3", "network_border_group": "us-east-1"
            })
        });
        let text = json!({
            "syncToken": token.to_string(), "createDate": "2023-11-14-22-13-20",
            "prefixes": rows.collect::<Vec<_>>(), "ipv6_prefixes": []
        });
        let path = self.directory.path().join("ip-ranges.json");
        std::fs::write(path, text.to_string()).unwrap();
    }

    /// Runs a command with the user's keys.
    pub fn run(&self, words: &[&str]) -> Output {
        self.run_with_secret(self.word("secret"), words)
    }

    /// The same with another secret key.
    pub fn run_with_secret(&self, secret: &str, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_trailblazer"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("AWS_ACCESS_KEY_ID", self.word("access"))
            .env("AWS_SECRET_ACCESS_KEY", secret)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .args(words)
            .arg("-c")
            .arg(self.directory.path().join("c.toml"))
            .output()
            .unwrap()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // A server that has ended is no fault.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Both outputs.
pub fn text(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    format!("{out}{}", String::from_utf8_lossy(&output.stderr))
}

/// The actions of a policy file.
pub fn actions(policy: &str) -> Vec<String> {
    let path = repository().join(format!("packaging/aws/iam/{policy}.json"));
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let statements = file["Statement"].as_array().unwrap().iter();
    let words = statements.flat_map(|statement| match &statement["Action"] {
        Value::Array(actions) => actions.clone(),
        one => vec![one.clone()],
    });
    let mut actions: Vec<String> = words.map(|it| it.as_str().unwrap().to_owned()).collect();
    actions.sort();
    actions.dedup();
    actions
}

/// A policy with these actions. moto compares actions alone: each resource is `*`, and a condition is
/// never met.
pub fn policy(actions: &[String]) -> Value {
    json!({
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]
    })
}
