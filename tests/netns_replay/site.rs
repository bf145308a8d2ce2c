//! A machine under load: documents, passes, agents, and the line of figures at the end.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::documents::{Space, changing, versions};
use crate::packets::*;
use crate::subject::Subject;
use crate::traffic::{Load, Seen, TO_STORAGE, watch_strays};
use lab::*;

/// The pause between two versions: ten a second.
pub const PACE: Duration = Duration::from_millis(100);

/// The settings of a replay that stay.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub scene: &'static str,
    pub pin: bool,
    pub by_agent: bool,
    /// Further sections of the first settings.
    pub more: &'static str,
}

/// A machine whose documents, settings and processes change under load.
pub struct Site<'a> {
    pub subject: Subject,
    pub lab: &'a Lab,
    pub machine: Machine<'a>,
    pub versions: &'a [Space],
    pub agent: Option<Agent>,
    kind: Kind,
    token: u64,
    random: u64,
}

impl Site<'_> {
    /// Other settings from the next pass, reload or start on; see [`Subject::settings`].
    pub fn configure(&mut self, way: usize, more: &str) {
        let settings = self.subject.settings(self.lab, way, self.kind.pin, more);
        self.machine.configure(&settings);
    }

    /// Publishes a version for the next pass or fetch.
    pub fn publish(&mut self, number: usize) {
        let texts: Vec<String> = self.versions[number]
            .iter()
            .map(ToString::to_string)
            .collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        if self.kind.by_agent {
            self.token += 1;
            self.lab.mirror.set_document(document(self.token, &texts));
        } else {
            self.machine.publish(&texts);
        }
    }

    pub fn pass(&self) {
        self.subject.pass(&self.machine);
    }

    /// Starts the agent; systemd does the same after a kill.
    pub fn start(&mut self) {
        self.agent = Some(self.machine.agent());
    }

    pub fn kill(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.kill();
        }
    }

    /// Waits until the last published version is in force.
    pub fn wait_in_force(&self) {
        let token = self.token;
        self.agent
            .as_ref()
            .unwrap()
            .wait_for("the last version", |status| {
                let shown = &status["document"]["sync_token"];
                let shown = shown.as_u64().or_else(|| shown.as_str()?.parse().ok());
                status["state"] == "in_force" && shown == Some(token)
            });
    }

    /// A random moment before `end` (xorshift).
    pub fn moment(&mut self, end: Duration) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        end.mul_f64((self.random % 1000) as f64 / 1000.0)
    }

    /// The versions after the first, forward, and back and forward again for more `rounds`.
    pub fn order(&self, rounds: usize) -> Vec<usize> {
        let last = self.versions.len() - 1;
        let round = |number: usize| -> Vec<usize> {
            if number.is_multiple_of(2) {
                (1..=last).collect()
            } else {
                (0..last).rev().collect()
            }
        };
        (0..rounds).flat_map(round).collect()
    }
}

/// Sleeps until the moment of a version.
pub fn paced(began: Instant, number: usize) {
    let due = began + PACE * u32::try_from(number).unwrap();
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
}

/// Runs `body` on a machine under load and prints a line of figures; `None` without the data. The
/// body returns a note for the line.
pub fn replay(
    subject: Subject,
    kind: Kind,
    body: impl FnOnce(&mut Site) -> String,
) -> Option<Seen> {
    let versions = versions()?;
    let lab = subject.lab();
    watch_strays(&lab);
    lab.serve_s3(versions.iter().flatten().collect::<BTreeSet<_>>());
    let mut site = Site {
        subject,
        lab: &lab,
        machine: subject.machine(&lab),
        versions: &versions,
        agent: None,
        kind,
        token: 1_795_021_600,
        random: 0x9e37_79b9_7f4a_7c15,
    };
    if kind.by_agent {
        let source = format!("url = \"{}\"\nrefresh = \"1s\"", lab.mirror.url());
        site.machine.ask(&source);
    }
    site.configure(0, kind.more);
    site.publish(0);
    if kind.by_agent {
        site.start();
        site.wait_in_force();
    } else {
        site.pass();
    }
    // The same flows for each subject: as many IPv4 addresses as it has families for.
    let storage = match subject.families() {
        [_] => changing(&versions, true, TO_STORAGE / 2),
        _ => {
            let ipv6 = changing(&versions, false, 32);
            let ipv4 = changing(&versions, true, TO_STORAGE / 2 - ipv6.len());
            [ipv4, ipv6].concat()
        }
    };
    let addresses = storage.len();
    count_from_now(&lab);
    let load = Load::start(&lab, subject.ends(storage));
    let note = body(&mut site);
    // A change of IPv6's tables ends the routes that sockets keep.
    lab.ns("host1").ip_batch(
        "route replace 2600:9999::/32 via fe80::1 dev priv proto static\n\
         route del 2600:9999::/32\n",
    );
    let took = load.elapsed();
    let seen = load.stop(&lab);
    tell(subject, kind, &note, took, addresses, &seen);
    site.kill();
    Some(seen)
}

/// Prints past libtest, which captures the output of passing tests.
fn tell(subject: Subject, kind: Kind, note: &str, took: Duration, addresses: usize, seen: &Seen) {
    let line = format!(
        "replay: {}, {}: {note}; {:.1} s; {} flows ({addresses} addresses of storage), {} \
         connections ({} first packets sent again), {} datagram sockets ({} lost): broken {}, hung {}, failed {}, \
         changed {}, wrong {}, private {}, stray {}",
        subject.name,
        kind.scene,
        took.as_secs_f64(),
        seen.flows,
        seen.connections,
        seen.repeated,
        seen.talks,
        seen.lost,
        seen.broken,
        seen.hung,
        seen.failed,
        seen.changed,
        seen.wrong,
        seen.private,
        seen.stray
    );
    let _closed = writeln!(std::io::stderr(), "{line}");
}

/// Puts a copy of the binary in the place of the binary, or takes it away: an upgrade.
pub fn exchange_binary(number: usize) {
    let binary = binary();
    let run = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
    if !number.is_multiple_of(2) {
        run(Command::new("umount").arg(&binary));
        return;
    }
    let copy = scratch().join("trailblazer-copy");
    if !copy.exists() {
        std::fs::copy(&binary, &copy).unwrap();
    }
    run(Command::new("mount").arg("--bind").arg(&copy).arg(&binary));
}
