//! The usual tools: `ip -batch`, alone and with `nft -f`, and BIRD 2 with static routes.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::samples::{Rows, milliseconds, timed};
use super::subject::Subject;
use super::{Res, arena, documents, raw};

/// The time after which BIRD has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The installed rivals.
#[derive(Debug)]
pub struct Rivals {
    bird: bool,
}

impl Rivals {
    /// Finds the installed rivals.
    pub fn find() -> Rivals {
        let bird = Command::new("bird")
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success());
        if !bird {
            println!("BIRD 2 is not installed (apt-get install bird2): its column says n/a");
        }
        Rivals { bird }
    }

    /// The whole life of each.
    pub fn live(&self, subject: &Subject, rows: &mut Rows) -> Res<()> {
        ip(subject, rows, "ip -batch", None)?;
        arena::settle(subject.size());
        ip(subject, rows, "ip and nft", Some(subject.ruleset()))?;
        arena::settle(subject.size());
        if self.bird {
            bird(subject, rows)?;
        }
        Ok(())
    }
}

fn gateway(prefix: &IpNet) -> &'static str {
    match prefix {
        IpNet::V4(_) => arena::GATEWAY4,
        IpNet::V6(_) => arena::GATEWAY6,
    }
}

/// The life of a script with `ip`; with `nft` too if there is a ruleset, as a pass installs one.
fn ip(subject: &Subject, rows: &mut Rows, name: &'static str, rules: Option<&str>) -> Res<()> {
    let table = subject.table();
    let file = subject.directory().join("ip.batch");
    let path = file.to_string_lossy().into_owned();
    let lines = |verb: &str, prefixes: &[IpNet]| {
        prefixes.iter().fold(String::new(), |mut text, prefix| {
            let via = gateway(prefix);
            let _ = writeln!(
                text,
                "route {verb} {prefix} via {via} dev eth0 table {table} proto 83"
            );
            text
        })
    };
    let prefixes = documents::prefixes(subject.size());
    let ruleset = subject.directory().join("rules.nft");
    std::fs::write(&ruleset, rules.unwrap_or_default())?;
    let ruleset = ruleset.to_string_lossy().into_owned();
    let has_changed = |operation| rules.is_some() && operation != "one more";
    let mut run = |operation, verb: &str, prefixes: &[IpNet]| -> Res<()> {
        std::fs::write(&file, lines(verb, prefixes))?;
        let (done, took) = timed(|| -> Res<()> {
            if has_changed(operation) {
                arena::command("nft", &["-f", &ruleset])?;
            }
            arena::command("ip", &["-batch", &path])
        });
        rows.push(name, operation, took);
        done
    };
    run("first", "add", &prefixes)?;
    // A script does not compare, and replaces every route again.
    run("no-op", "replace", &prefixes)?;
    run("one more", "replace", &[documents::another(subject.size())])?;
    let table = table.to_string();
    let (done, took) = timed(|| -> Res<()> {
        arena::command("ip", &["-4", "route", "flush", "table", &table])?;
        arena::command("ip", &["-6", "route", "flush", "table", &table])?;
        match rules {
            Some(_) => arena::command("nft", &["delete", "table", "inet", "trailblazer"]),
            None => Ok(()),
        }
    });
    rows.push(name, "removal", took);
    done
}

fn bird(subject: &Subject, rows: &mut Rows) -> Res<()> {
    const NAME: &str = "BIRD 2";
    let mut bird = Bird::start(subject)?;
    let size = subject.size();
    let prefixes = documents::prefixes(size);
    rows.push(NAME, "first", bird.bring(&prefixes, size)?);
    rows.push(NAME, "no-op", bird.bring(&prefixes, size)?);
    let mut more = prefixes;
    more.push(documents::another(size));
    rows.push(NAME, "one more", bird.bring(&more, size + 1)?);
    rows.push(NAME, "removal", bird.bring(&[], 0)?);
    bird.stop()
}

struct Bird {
    child: Child,
    config: PathBuf,
    socket: String,
    table: u32,
}

impl Bird {
    /// Starts BIRD without routes, and waits for an answer.
    fn start(subject: &Subject) -> Res<Bird> {
        let directory = subject.directory();
        let config = directory.join("bird.conf");
        let socket = directory.join("bird.ctl").to_string_lossy().into_owned();
        let table = subject.table();
        std::fs::write(&config, text(table, &[]))?;
        let child = Command::new("bird")
            .args(["-f", "-s", &socket, "-c"])
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let bird = Bird {
            child,
            config,
            socket,
            table,
        };
        let started = Instant::now();
        while bird.tell("show status").is_err() {
            if started.elapsed() > PATIENCE {
                return Err("BIRD doesn't answer".into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(bird)
    }

    fn tell(&self, what: &str) -> Res<()> {
        arena::command("birdc", &["-s", &self.socket, what])
    }

    /// Milliseconds from `birdc configure` until the table holds so many routes.
    fn bring(&mut self, prefixes: &[IpNet], count: usize) -> Res<f64> {
        std::fs::write(&self.config, text(self.table, prefixes))?;
        let socket = raw::socket()?;
        let started = Instant::now();
        self.tell("configure")?;
        // Polling slows BIRD down: longer pauses for many routes.
        let pause = Duration::from_micros(500 + count as u64 / 10);
        while raw::dump(&socket, self.table)? != count {
            if started.elapsed() > PATIENCE {
                return Err("BIRD doesn't get there".into());
            }
            std::thread::sleep(pause);
        }
        Ok(milliseconds(started.elapsed()))
    }

    fn stop(mut self) -> Res<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

fn text(table: u32, prefixes: &[IpNet]) -> String {
    let mut text = format!(
        "router id 10.0.1.11;\nprotocol device {{}}\n\
         protocol kernel {{ kernel table {table}; scan time 3600; ipv4 {{ import none; export all; }}; }}\n\
         protocol kernel {{ kernel table {table}; scan time 3600; ipv6 {{ import none; export all; }}; }}\n"
    );
    for ipv6 in [false, true] {
        let family = if ipv6 { "ipv6" } else { "ipv4" };
        let _ = writeln!(text, "protocol static {{ {family};");
        for prefix in prefixes {
            if matches!(prefix, IpNet::V6(_)) == ipv6 {
                let _ = writeln!(text, "route {prefix} via {};", gateway(prefix));
            }
        }
        text.push_str("}\n");
    }
    text
}
