//! The load of a fleet's probes on servers and NATs: real agents in namespaces, three NATs, IPv4.

use std::net::IpAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use lab::*;

use crate::death::Death;
use crate::is_long;
use crate::packets::{FIRST, document};

const HOSTS: usize = 250;
const SETTLE: Duration = Duration::from_secs(12);
const MEASURED: Duration = Duration::from_secs(40);

/// The subnet of the hosts, beside that of the lab; 10.0.0.0/22 holds both.
const HOSTS4: &str = "10.0.2.0/23";

struct Host {
    agent: Agent,
}

fn address(number: usize) -> IpAddr {
    let (high, low) = (2 + number / 200, 1 + number % 200);
    [10, 0, high as u8, low as u8].into()
}

/// A neighbour for good. The kernel keeps at most 1,024 others (`gc_thresh3`), those of all namespaces
/// together.
fn neighbour(address: IpAddr) -> String {
    format!(
        "neigh replace {address} lladdr {} dev priv nud permanent\n",
        mac(address)
    )
}

/// Namespaces on the bridge of the lab.
fn add_hosts(lab: &Lab) -> Vec<Ns> {
    let (mut links, mut ports) = (String::new(), String::new());
    for number in 0..HOSTS {
        links.push_str(&format!(
            "netns add h{number}\n\
             link add priv index {} netns h{number} address {} type veth peer name h{number} netns vpc\n",
            500 + number,
            mac(address(number))
        ));
        ports.push_str(&format!("link set h{number} master priv up\n"));
    }
    feed(&links);
    lab.ns("vpc").ip_batch(&ports);
    let hosts: String = (0..HOSTS)
        .map(|number| neighbour(address(number)))
        .collect();
    let beside = format!("route add {HOSTS4} dev priv\n{hosts}");
    lab.ns("vpc").ip_batch(&beside);
    let mut gateways = neighbour(ROUTER);
    for nat in &NATS[..3] {
        let ns = lab.ns(nat);
        ns.ip_batch(&beside);
        gateways.push_str(&neighbour(lab.nat(nat).private));
        ns.nft(&format!(
            "table inet fleet {{
               counter opened {{ }}
               counter sent {{ }}
               chain count {{
                 type filter hook forward priority -400;
                 iifname priv counter name sent
                 iifname priv tcp flags & (syn | ack) == syn counter name opened
               }}
               chain post {{
                 type nat hook postrouting priority srcnat;
                 oifname pub ip saddr {HOSTS4} snat ip to {}
               }}
             }}",
            lab.nat(nat).egress
        ));
    }
    (0..HOSTS)
        .map(|number| {
            let ns = Ns::open(&format!("h{number}"));
            ns.ip_batch(&format!(
                "link set lo up\nlink set priv up\naddr add {}/22 dev priv\n\
                 route add default via {ROUTER} dev priv proto dhcp metric 512\n{gateways}",
                address(number)
            ));
            ns
        })
        .collect()
}

fn feed(lines: &str) {
    let file = scratch().join("fleet.ip");
    std::fs::write(&file, lines).unwrap();
    let status = std::process::Command::new("ip")
        .arg("-batch")
        .arg(&file)
        .status();
    assert!(status.unwrap().success());
}

fn start(ns: &Ns, number: usize, source: &Path, gateways: &str) -> Host {
    let config = write_config(
        ns.name(),
        &format!(
            "role = \"host\"\n[source]\nurl = \"{}\"\nstate_dir = \"$STATE\"\n\
             [agent]\nsocket = \"/run/lab/h{number}.sock\"\n\
             [select]\nregions = [\"us-east-1\"]\nfamilies = [\"ipv4\"]\n\
             [egress]\ngateways = [{gateways}]\n\
             [probe]\ntargets = [\"{PARTNER}:{PORT}\", \"{OPERATOR}:{PORT}\", \"{MIRROR}:80\"]\n",
            source.display()
        ),
    );
    let log = scratch().join(format!("h{number}.log"));
    Host {
        agent: Agent::start(ns, &config, &log),
    }
}

/// The counters of all NATs: connections that were opened, and packets of the hosts.
fn counted(lab: &Lab) -> Vec<[u64; 2]> {
    let one = |nat: &&str| {
        let words = ["nft", "-j", "list", "counters", "table", "inet", "fleet"];
        let listing = lab.ns(nat).exec(&words).ok().json();
        ["opened", "sent"].map(|name| {
            let mut objects = listing["nftables"].as_array().unwrap().iter();
            let found = objects.find(|object| object["counter"]["name"] == name);
            found.unwrap()["counter"]["packets"].as_u64().unwrap()
        })
    };
    NATS[..3].iter().map(one).collect()
}

/// CPU time of the agents in hundredths of a second, and their resident memory in KiB.
fn used(hosts: &[Host]) -> (u64, u64) {
    let of = |host: &Host| {
        let read = |file: &str| {
            std::fs::read_to_string(format!("/proc/{}/{file}", host.agent.pid())).unwrap()
        };
        let stat = read("stat");
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks: u64 = fields[11..13]
            .iter()
            .map(|it| it.parse::<u64>().unwrap())
            .sum();
        let status = read("status");
        let rss = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        let rss: u64 = rss.split_whitespace().next().unwrap().parse().unwrap();
        (ticks, rss)
    };
    hosts
        .iter()
        .map(of)
        .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

fn conntrack(lab: &Lab) -> Vec<String> {
    let count = |nat: &&str| {
        let all = lab.ns(nat).read_sysctl("net/netfilter/nf_conntrack_count");
        all.unwrap_or_default()
    };
    NATS[..3].iter().map(count).collect()
}

/// Prints the load for some time; returns connections a second and host.
fn measure(lab: &Lab, hosts: &[Host], what: &str, time: Duration) -> f64 {
    let (before, ticks) = (counted(lab), used(hosts).0);
    let begun = Instant::now();
    thread::sleep(time);
    let (after, (more, rss)) = (counted(lab), used(hosts));
    let seconds = begun.elapsed().as_secs_f64();
    let rate = |which: usize| -> Vec<f64> {
        let pairs = before.iter().zip(&after);
        pairs
            .map(|(one, two)| (two[which] - one[which]) as f64 / seconds)
            .collect()
    };
    let (opened, packets) = (rate(0), rate(1));
    let all: f64 = opened.iter().sum();
    println!(
        "{what}: {HOSTS} hosts, {all:.1} connections a second ({:.3} a host), by NAT {opened:.1?}; packets of hosts a second by NAT {packets:.1?}; \
         entries of conntrack by NAT {:?}; CPU {:.2} % of a core a host, {:.1} MiB a host",
        all / HOSTS as f64,
        conntrack(lab),
        (more - ticks) as f64 / seconds / HOSTS as f64,
        rss as f64 / 1024.0 / HOSTS as f64,
    );
    all / HOSTS as f64
}

#[test]
#[ignore = "250 agents: minutes of both cores (make test-long)"]
fn load_of_a_fleet() {
    assert!(is_long(), "TRAILBLAZER_LONG=1 runs this scene");
    Isolation::default()
        .deadline(Duration::from_secs(900))
        .run(|| {
            let lab = Lab::with_nats(3);
            let namespaces = add_hosts(&lab);
            let source = scratch().join("fleet-ip-ranges.json");
            let prefixes: Vec<&str> = FIRST
                .iter()
                .copied()
                .filter(|it| !it.contains(':'))
                .collect();
            std::fs::write(&source, document(1_795_021_512, &prefixes)).unwrap();
            let gateways: Vec<String> = NATS[..3]
                .iter()
                .map(|nat| format!("\"{}\"", lab.nat(nat).private))
                .collect();
            let gateways = gateways.join(", ");
            let begun = Instant::now();
            // One after the other: their first passes would keep the machine busy for minutes.
            let hosts: Vec<Host> = namespaces
                .iter()
                .enumerate()
                .map(|(number, ns)| {
                    let host = start(ns, number, &source, &gateways);
                    let limit = Duration::from_secs(60);
                    host.agent
                        .wait_for_within(limit, "in force", |status| status["state"] == "in_force");
                    host
                })
                .collect();
            println!("{HOSTS} agents in force after {:.1?}", begun.elapsed());
            thread::sleep(SETTLE);
            let well = measure(&lab, &hosts, "all well", MEASURED);
            let doubt = |host: &&Host| {
                let status = host.agent.status().unwrap_or_default();
                let mut gateways = status["gateways"].as_array().into_iter().flatten();
                gateways.any(|it| it["path"] == "egress" && it["health"]["state"] != "up")
            };
            let doubts = hosts.iter().step_by(25).filter(doubt).count();
            println!("hosts with a gateway in doubt: {doubts} of 10");
            // Three gateways, each with a probe in ten seconds.
            assert!((0.2..0.4).contains(&well), "{well}");
            let _wound = Death::HalfDead.strike(lab.ns("nat1")).unwrap();
            measure(
                &lab,
                &hosts,
                "the first seconds of a dead NAT",
                Duration::from_secs(15),
            );
            measure(&lab, &hosts, "a dead NAT", Duration::from_secs(15));
            let down = hosts
                .iter()
                .filter(|host| host.agent.log().contains("is down"));
            assert_eq!(down.count(), HOSTS);
        });
}
