//! A throw-away signing key of gpg.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::root::must;

/// A home directory of gpg with one key, removed when dropped.
#[derive(Debug)]
pub struct Keyring {
    home: PathBuf,
    /// The key.
    pub fingerprint: String,
}

impl Keyring {
    /// A key of a day.
    #[track_caller]
    pub fn fresh() -> Keyring {
        let mut keyring = Keyring::empty();
        must(keyring.gpg().args([
            "--passphrase",
            "",
            "--quick-generate-key",
            "Test <test@trailblazer.example>",
            "rsa2048",
            "sign",
            "1d",
        ]));
        let listed = must(keyring.gpg().args(["--with-colons", "--list-keys"]));
        let line = listed.lines().find(|line| line.starts_with("fpr:"));
        let fingerprint = line.and_then(|line| line.split(':').nth(9));
        fingerprint
            .expect("gpg lists the key")
            .clone_into(&mut keyring.fingerprint);
        keyring
    }

    /// A home directory without keys; the fingerprint is nobody's.
    #[track_caller]
    pub fn empty() -> Keyring {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // A short path: gpg's agent listens at a socket in the directory.
        let home = std::env::temp_dir().join(format!("tb-gpg-{}-{number}", std::process::id()));
        let mut builder = fs::DirBuilder::new();
        let made = builder.mode(0o700).create(&home);
        made.unwrap_or_else(|error| panic!("{}: {error}", home.display()));
        Keyring {
            home,
            fingerprint: "0".repeat(40),
        }
    }

    /// Lets a command use the keys.
    pub fn lend<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env("GNUPGHOME", &self.home)
    }

    /// gpg with the keys.
    pub fn gpg(&self) -> Command {
        let mut command = Command::new("gpg");
        self.lend(&mut command).args(["--batch", "--quiet"]);
        command
    }
}

impl Drop for Keyring {
    fn drop(&mut self) {
        // gpg has started an agent for this home directory alone.
        let mut end = Command::new("gpgconf");
        let _without_an_agent = self.lend(&mut end).args(["--kill", "gpg-agent"]).output();
        let _left_in_the_temporary_directory = fs::remove_dir_all(&self.home);
    }
}
