//! The agent's fetch process: one question, one answer, and nothing left afterwards.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::host::*;
use lab::*;

/// The child processes of `of`, zombies included: number, state as in proc(5), command line.
fn children(of: u32) -> Vec<(u32, String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        // The name in parentheses may hold blanks.
        let stat = read("stat");
        let Some((_, rest)) = stat.rsplit_once(')') else {
            continue;
        };
        let mut words = rest.split_whitespace();
        let (state, parent) = (words.next(), words.next());
        if parent == Some(of.to_string().as_str()) {
            let state = state.unwrap_or_default().to_owned();
            found.push((pid, state, read("cmdline").replace('\0', " ")));
        }
    }
    found
}

/// A host whose source accepts questions and stays silent for longer than any test waits.
fn asking() -> (Host, Agent, u32) {
    let mut host = Host::new();
    host.set("source.timeout", "\"1h\"");
    host.set("vpc.cidrs", "[\"10.0.0.0/16\", \"2600:1f18:1000::/56\"]");
    let agent = host.in_force();
    host.mirror.set_mode(MirrorMode::Silent);
    let pid = agent.pid();
    // Between fork and exec the child still has the agent's command line.
    let child = lab::wait_until(
        lab::SOON,
        std::time::Duration::from_millis(300),
        || {
            let asked = host.mirror.requests().len();
            std::thread::sleep(std::time::Duration::from_millis(300));
            let waits = host.mirror.requests().len() == asked;
            match children(pid).as_slice() {
                [(child, _, command)] if waits && command.contains("fetch-for-agent") => {
                    Some(*child)
                }
                _ => None,
            }
        },
        || "a question that isn't answered".to_owned(),
    );
    (host, agent, child)
}

#[test]
fn killed_fetch_child_falls_back_and_is_reaped() {
    isolated(|| {
        let (host, agent, child) = asking();
        host.mirror.set_mode(MirrorMode::Well);
        host.publish(TOKEN + 1, &[crate::packets::FIRST, &[NEW]].concat());
        kill_process(Pid::from_raw(child as i32).unwrap(), Signal::KILL).unwrap();
        agent.wait_for("the new document", |status| {
            status["document"]["sync_token"] == TOKEN + 1 && status["state"] == "in_force"
        });
        let log = agent.log();
        assert!(
            log.contains("broke off") && log.contains("signal: 9"),
            "{log}"
        );
        eventually("nobody is left of it", || {
            children(agent.pid())
                .iter()
                .all(|(pid, state, _)| *pid != child && state != "Z")
        });
    });
}

#[test]
fn fetch_child_ends_with_the_agent() {
    isolated(|| {
        for end in [(|agent: Agent| agent.kill()) as fn(Agent), |agent| {
            let (status, _) = agent.stop();
            assert!(status.success(), "{status}");
        }] {
            let (_host, agent, child) = asking();
            end(agent);
            eventually("the child has ended", || {
                let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
                stat.is_empty() || stat.contains(") Z ")
            });
        }
    });
}

/// A reload with other settings asks a new question; the agent drops the pending one.
#[test]
fn reload_ends_the_fetch_child_of_the_old_settings() {
    isolated(|| {
        let (mut host, agent, child) = asking();
        host.set("source.timeout", "\"500ms\"");
        host.mirror.set_mode(MirrorMode::Well);
        host.config();
        agent.signal(Signal::HUP);
        eventually("the old question is given up", || {
            children(agent.pid())
                .iter()
                .all(|(pid, _, _)| *pid != child)
        });
        let before = fetches(&agent.status().unwrap(), &["unchanged", "changed"]);
        agent.wait_for("an answer", |status| {
            fetches(status, &["unchanged", "changed"]) > before
        });
    });
}
