//! Configs and runs shared by these tests.

use std::path::{Path, PathBuf};

use lab::*;

/// The sample document of the repository.
pub fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/ip-ranges.json")
}

/// A config file with its state directory.
#[derive(Debug)]
pub struct Setup {
    /// The config file.
    pub config: String,
    /// The state dir.
    pub state: PathBuf,
}

impl Setup {
    /// Writes `text` below the common settings.
    pub fn new(name: &str, text: &str) -> Setup {
        let directory = scratch().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let state = directory.join("state");
        let config = directory.join("trailblazer.toml");
        let (role, rest) = text.split_once('\n').unwrap();
        let text = format!(
            "{role}\n[source]\nurl = \"{}\"\nstate_dir = \"{}\"\n{rest}\n",
            sample().display(),
            state.display()
        );
        std::fs::write(&config, text).unwrap();
        Setup {
            config: config.display().to_string(),
            state,
        }
    }

    /// The host role behind `nat1`, both families.
    pub fn host(name: &str, more: &str) -> Setup {
        Setup::new(
            name,
            &format!(
                "role = \"host\"\n\
                 [select]\nregions = [\"us-east-1\"]\n\
                 exclude = [\"52.216.128.0/24\"]\ninclude = [\"198.18.5.0/24\"]\n\
                 [egress]\ngateways = [\"10.0.1.10\", \"2600:1f18:1000:1::a\"]\n{more}"
            ),
        )
    }

    /// The nat role on a machine with `priv` and `pub`.
    pub fn nat(name: &str, nat: &NatAddresses, more: &str) -> Setup {
        let (out, out6) = (nat.egress, nat.egress6);
        let (second, second6) = (nat.second, nat.second6);
        Setup::new(
            name,
            &format!(
                "role = \"nat\"\n\
                 [select]\nregions = [\"us-east-1\"]\n\
                 [nat]\nsources = [\"{VPC4}\", \"{VPC6}\"]\n\
                 egress_addresses = [\"{out}\", \"{out6}\"]\n\
                 bypass = [\"{second}\", \"{second6}\"]\n{more}"
            ),
        )
    }

    /// Runs a command with this config.
    pub fn run(&self, ns: &Ns, words: &[&str]) -> Output {
        let mut all = words.to_vec();
        all.extend(["-c", &self.config]);
        trailblazer(ns, &all)
    }

    /// Runs a command that must exit with `code`, and parses the JSON.
    #[track_caller]
    pub fn json(&self, ns: &Ns, words: &[&str], code: i32) -> serde_json::Value {
        let mut all = words.to_vec();
        all.extend(["-o", "json"]);
        self.run(ns, &all).expect_code(code).json()
    }
}

/// Runs the built binary as nobody, without any capability.
pub fn as_nobody(ns: &Ns, words: &[&str]) -> Output {
    let binary = binary().display().to_string();
    let mut all = vec!["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"];
    all.push(&binary);
    all.extend(words);
    ns.exec(&all)
}
