//! A host behind several NATs, one of which dies.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use lab::*;

use crate::clients::{Attempt, Flow, Newcomers};
use crate::death::Death;
use crate::packets::*;

/// The longest time of a new connection until its answer, with the default settings: the verdict comes three
/// seconds after the death. Linux repeats a SYN after 1, 2, 3 and 4 seconds (`tcp_syn_linear_timeouts`, since
/// 6.5), so the repetition that takes the other NAT leaves after four seconds; the rest is for a busy machine.
pub const NEW_WITHIN: Duration = Duration::from_millis(4_500);
/// The longest time from the death until the client knows of the end of a flow that stands still: five
/// seconds, and one for a busy machine.
pub const ENDED_WITHIN: Duration = Duration::from_secs(6);

/// The NATs, and the way in which hosts share them.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    pub nats: usize,
    pub spread: &'static str,
    pub firewall: Firewall,
}

impl Setup {
    /// The settings of the host. The servers of the probes are those of the lab; the rest of `[probe]` are
    /// the defaults.
    fn settings(self, lab: &Lab, probe: &str) -> String {
        let nats = NATS[..self.nats].iter().map(|name| lab.nat(name));
        let gateways: Vec<String> = nats
            .flat_map(|nat| [nat.private, nat.private6])
            .map(|gateway| format!("\"{gateway}\""))
            .collect();
        let mirror = |address: IpAddr| std::net::SocketAddr::new(address, 80);
        format!(
            "[egress]\nspread = \"{}\"\ngateways = [{}]\n\
             [kernel.marks]\ngateway = \"0x3c00\"\n\
             [probe]\ntargets = [\"{PARTNER}:{PORT}\", \"{OPERATOR}:{PORT}\", \"{}\",\
             \"[{PARTNER6}]:{PORT}\", \"[{OPERATOR6}]:{PORT}\", \"{}\"]\n{probe}",
            self.spread,
            gateways.join(", "),
            mirror(MIRROR),
            mirror(MIRROR6)
        )
    }

    /// The lab, and a host with these settings.
    pub fn build(self, probe: &str, body: impl FnOnce(&Lab, &Machine)) {
        let lab = Lab::with_nats(self.nats);
        // Both families by ports: connections to one server take several NATs.
        lab.ns("host1").sysctl(&[
            ("net/ipv4/fib_multipath_hash_policy", "1"),
            ("net/ipv6/fib_multipath_hash_policy", "1"),
        ]);
        let settings = self.settings(&lab, probe);
        let machine = Machine::new(&lab, "host1", self.firewall, &settings);
        body(&lab, &machine);
    }
}

/// The name of the NAT with this egress address.
pub fn nat_of(lab: &Lab, seen: IpAddr) -> Option<&'static str> {
    NATS.into_iter().find(|name| {
        let nat = lab.nat(name);
        nat.egress_public == seen || nat.egress6 == seen
    })
}

/// The events after a death, as clients see them.
#[derive(Debug, Default)]
pub struct Seen {
    /// The flows of the NAT that died.
    pub stuck: usize,
    /// Those that ended, by the slowest.
    pub ended: usize,
    pub last_end: Duration,
    /// Flows of living NATs: all, and the broken ones.
    pub living: usize,
    pub broken: usize,
    /// New connections: all, failed, and the slowest.
    pub new: usize,
    pub failed: usize,
    pub slowest: Duration,
    /// The begin of the last connection that failed, or took more than a second.
    pub impaired: Duration,
    /// Changes of the use of a gateway, by the log.
    pub changes: usize,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "flows of the dead NAT {} of {} ended, the last at {:.1?}; broken of living NATs {} of {}; \
             new connections: {} of {} failed, slowest {:.1?}, the last impaired began at {:.1?}; {} changes",
            self.ended,
            self.stuck,
            self.last_end,
            self.broken,
            self.living,
            self.failed,
            self.new,
            self.slowest,
            self.impaired,
            self.changes
        )
    }
}

/// Opens three flows to each target through each NAT in use, as far as some tries find one.
fn open_flows(lab: &Lab, spread: &str, nats: usize) -> Vec<Flow> {
    let mut flows: Vec<Flow> = Vec::new();
    for target in [PARTNER, PARTNER6] {
        let of_target = |flow: &&Flow| flow.seen.is_ipv4() == target.is_ipv4();
        let (all, tries) = match spread {
            "flow" => (nats * 3, nats * 12),
            _ => (3, 3),
        };
        for _ in 0..tries {
            let flow = Flow::open(lab.ns("host1"), target).expect("all NATs live");
            let same = flows.iter().filter(|other| other.seen == flow.seen);
            if same.count() < 3 {
                flows.push(flow);
            }
            if flows.iter().filter(of_target).count() == all {
                break;
            }
        }
    }
    flows
}

/// Lets one NAT die, and watches what clients notice.
/// `None` if this kernel has no such death.
pub fn suffer(lab: &Lab, machine: &Machine, setup: Setup, death: Death) -> Option<Seen> {
    let agent = machine.agent();
    agent.wait_in_force();
    let before = agent.log().len();
    // A gateway that has died before the start of the agent is found down at once: all live now.
    wait_until_probed(&agent, setup.nats);
    let flows = open_flows(lab, setup.spread, setup.nats);
    let victim = nat_of(lab, flows[0].seen).expect("the source is a NAT's");
    let newcomers = Newcomers::start(lab.ns("host1"), &[PARTNER, PARTNER6]);
    thread::sleep(Duration::from_secs(1));
    count_from_now(lab);
    let (stuck, living): (Vec<Flow>, Vec<Flow>) = flows
        .into_iter()
        .partition(|flow| nat_of(lab, flow.seen) == Some(victim));

    let Some(wound) = death.strike(lab.ns(victim)) else {
        println!("not run: {death:?}: the kernel has no queue for packets (nfnetlink_queue)");
        newcomers.stop();
        return None;
    };
    let died = Instant::now();
    let stops = death.stops_flows();
    while died.elapsed() < ENDED_WITHIN
        && !(stops && stuck.iter().all(|flow| flow.ended(died).is_some()))
    {
        thread::sleep(Duration::from_millis(50));
    }
    // The flows of living NATs have had time to break, and connections to be late.
    thread::sleep(Duration::from_secs(2));
    let ends: Vec<_> = stuck.iter().filter_map(|flow| flow.ended(died)).collect();
    let broken = living.iter().filter(|flow| !flow.is_alive()).count();
    // A connection that was open at the death is a flow that stands still.
    let mut attempts = newcomers.stop();
    attempts.retain(|attempt| attempt.begun >= died);
    let late =
        |attempt: &&Attempt| attempt.seen.is_err() || attempt.took > Duration::from_millis(900);
    let log = agent.log();
    let changes = log[before..].matches("new flows take another way").count()
        + log[before..].matches("is in use again").count();
    let seen = Seen {
        stuck: stuck.len(),
        ended: ends.len(),
        last_end: ends.iter().map(|(at, _)| *at).max().unwrap_or_default(),
        living: living.len(),
        broken,
        new: attempts.len(),
        failed: attempts
            .iter()
            .filter(|attempt| attempt.seen.is_err())
            .count(),
        slowest: attempts
            .iter()
            .map(|attempt| attempt.took)
            .max()
            .unwrap_or_default(),
        impaired: attempts
            .iter()
            .filter(late)
            .map(|attempt| attempt.begun - died)
            .max()
            .unwrap_or_default(),
        changes,
    };
    println!("{setup:?} {death:?}: {seen}");
    let kinds: BTreeSet<String> = ends.iter().map(|(_, kind)| format!("{kind:?}")).collect();
    assert!(
        kinds.iter().all(|kind| kind == "ConnectionAborted"),
        "the agent ends flows, nobody else: {kinds:?}, {seen}\n{}",
        agent.log()
    );
    let leaks = lab.leaks();
    assert_eq!((leaks.partner4, leaks.partner6), (0, 0), "{leaks:?}");
    drop((stuck, living));
    agent.stop();
    drop(wound);
    death.heal(lab, victim);
    Some(seen)
}

/// Waits until each gateway of each family has answered a probe.
fn wait_until_probed(agent: &Agent, nats: usize) {
    agent.wait_for("an answer through each gateway", |status| {
        let gateways = status["gateways"].as_array().into_iter().flatten();
        let up = gateways
            .filter(|it| it["path"] == "egress" && it["health"]["state"] == "up")
            .filter(|it| !it["health"]["latency_us"].is_null());
        up.count() >= 2 * nats
    });
}
