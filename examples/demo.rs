//! `make demo`: a small VPC in network namespaces, and what Trailblazer changes in it.
//!
//! Everything that is printed comes from the real binary, the kernel's routing decision and the
//! servers' own view of who connected. It ends with exit code 1 when a flow doesn't go as promised.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{ErrorKind, IsTerminal};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Instant;

use lab::*;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/ip-ranges.json");

fn main() -> ExitCode {
    match lab::enter("demo") {
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
        Ok(Some(code)) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Ok(None) => demo(),
    }
}

fn demo() -> ExitCode {
    let started = Instant::now();
    let screen = Screen::new();
    let lab = Lab::new();
    let document = std::fs::read(DOCUMENT)
        .unwrap_or_else(|error| panic!("cannot read the sample {DOCUMENT}: {error}"));
    lab.serve_s3(s3_prefixes(&document));
    lab.mirror.set_document(document);
    lab.plain_nat("nat1");
    let up = started.elapsed();

    screen.title("A small VPC in network namespaces");
    println!(
        "  host1 {HOST1} ──┬── VPC router {ROUTER} ── internet: S3, a partner, an operator
                    └── nat1 {} ── egress address {}

  The partner accepts connections from {} and {} only.
  ip-ranges.json is served at {} (up after {} ms)",
        lab.nat1.private,
        lab.nat1.egress_public,
        lab.nat1.egress_public,
        lab.nat1.egress6,
        lab.mirror.url(),
        up.as_millis()
    );

    screen.title("Before: host1 as the VPC leaves it, everything directly");
    let direct = flows(&lab);
    screen.table(&direct);
    println!("  The partner resets every connection: it sees the host's own address.");

    screen.title("Before: the usual remedy, everything through the NAT");
    lab.default_via("host1", "nat1");
    screen.table(&flows(&lab));
    lab.no_default_via("host1", "nat1");
    println!(
        "  The partner is content, but every byte to S3 goes through the NAT and is paid for,\n  \
         and an operator can't reach the host any more: replies leave from another address."
    );

    let config = config(&lab);
    let path = lab.config("host1", &config);
    screen.title("The config");
    let shown = std::fs::read_to_string(&path).expect("we have just written it");
    print!("{}", indented(&shown));

    for (arguments, expected, what) in [
        (
            vec!["reconcile", "--dry-run", "-c", path.as_str()],
            2,
            "What would change",
        ),
        (vec!["reconcile", "-c", path.as_str()], 0, "Do it"),
    ] {
        if !screen.run(&lab, what, &arguments, expected) {
            return ExitCode::FAILURE;
        }
    }

    screen.title("After: S3 directly, everything else from the egress address");
    let after = flows(&lab);
    screen.table(&after);
    let promised = as_promised(&lab, &after);

    for (arguments, what) in [
        (
            vec!["reconcile", "-c", path.as_str()],
            "Once more: nothing to do",
        ),
        (vec!["flush", "-c", path.as_str()], "Take it all away again"),
    ] {
        if !screen.run(&lab, what, &arguments, 0) {
            return ExitCode::FAILURE;
        }
    }
    let end = flows(&lab);
    screen.table(&end);
    let restored = end == direct;

    println!();
    println!(
        "  {} S3 around the NAT, everything else from the egress address, inbound as before",
        screen.verdict(promised)
    );
    println!(
        "  {} after flush every flow is as it was",
        screen.verdict(restored)
    );
    println!("  {:.1} s in all", started.elapsed().as_secs_f64());
    if promised && restored {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn config(lab: &Lab) -> String {
    format!(
        "role = \"host\"\n\
         [source]\n\
         url = \"$MIRROR\"\n\
         state_dir = \"$STATE\"\n\
         [egress]\n\
         gateways = [\"{}\", \"{}\"]\n",
        lab.nat1.private, lab.nat1.private6
    )
}

/// Every S3 prefix of the document, of whatever region: S3 answers on all of them.
fn s3_prefixes(document: &[u8]) -> Vec<String> {
    let document: serde_json::Value =
        serde_json::from_slice(document).unwrap_or_else(|error| panic!("{DOCUMENT}: {error}"));
    let rows = |list: &str, key: &str| {
        let rows = document[list].as_array().cloned().unwrap_or_default();
        let storage = rows.into_iter().filter(|row| row["service"] == "S3");
        let prefixes = storage.filter_map(|row| row[key].as_str().map(str::to_owned));
        prefixes.collect::<Vec<_>>()
    };
    let mut all = rows("prefixes", "ip_prefix");
    all.extend(rows("ipv6_prefixes", "ipv6_prefix"));
    all
}

/// One line of the flow table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Flow {
    what: &'static str,
    address: IpAddr,
    path: String,
    seen: Result<IpAddr, ErrorKind>,
}

/// Opens each flow and writes down which way the kernel sends it and who the server saw.
fn flows(lab: &Lab) -> Vec<Flow> {
    let host1 = lab.ns("host1");
    let outgoing = [
        ("S3 us-east-1", S3),
        ("S3 us-east-1", S3_6),
        ("S3 eu-west-1", S3_ELSEWHERE),
        ("partner", PARTNER),
        ("partner", PARTNER6),
        ("peered network", PEER),
        ("peered network", PEER6),
    ];
    let mut flows: Vec<Flow> = outgoing
        .into_iter()
        .map(|(what, address)| Flow {
            what,
            address,
            path: path(lab, address),
            seen: host1.who(address),
        })
        .collect();
    flows.push(Flow {
        what: "VPC resolver",
        address: RESOLVER,
        path: path(lab, RESOLVER),
        seen: host1.who_udp(SocketAddr::new(RESOLVER, DNS_PORT)),
    });
    for (what, address) in [
        ("operator → host1", HOST1_PUBLIC),
        ("operator → host1", HOST1_6),
    ] {
        flows.push(Flow {
            what,
            address,
            path: "inbound".to_owned(),
            seen: lab.who("outside", address),
        });
    }
    flows
}

/// The next hop that the kernel names for a new connection of host1.
fn path(lab: &Lab, address: IpAddr) -> String {
    let host1 = lab.ns("host1");
    let answer = host1.exec(&["ip", "-j", "route", "get", &address.to_string()]);
    if answer.code != Some(0) {
        return answer.stderr.trim().replace("RTNETLINK answers: ", "");
    }
    let answer = answer.json();
    let gateway = answer[0]["gateway"]
        .as_str()
        .and_then(|text| text.parse().ok());
    match gateway {
        Some(ROUTER | ROUTER6) => "VPC router".to_owned(),
        Some(gateway) if [lab.nat1.private, lab.nat1.private6].contains(&gateway) => {
            "NAT instance".to_owned()
        }
        Some(gateway) => format!("via {gateway}"),
        None => "on the link".to_owned(),
    }
}

/// Whether each flow goes as the README promises.
fn as_promised(lab: &Lab, flows: &[Flow]) -> bool {
    flows.iter().all(|flow| {
        let direct = |own: IpAddr| flow.seen == Ok(own);
        let ipv4 = flow.address.is_ipv4();
        match flow.what {
            "S3 us-east-1" => direct(if ipv4 { HOST1_PUBLIC } else { HOST1_6 }),
            "S3 eu-west-1" | "partner" => direct(if ipv4 {
                lab.nat1.egress_public
            } else {
                lab.nat1.egress6
            }),
            "peered network" | "VPC resolver" => direct(if ipv4 { HOST1 } else { HOST1_6 }),
            _ => direct(if ipv4 { OPERATOR } else { OPERATOR6 }),
        }
    })
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// Where things are printed, with or without colours.
struct Screen {
    colour: bool,
}

impl Screen {
    fn new() -> Screen {
        Screen {
            colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn title(&self, text: &str) {
        println!("\n{}", self.paint("1", &format!("── {text}")));
    }

    fn verdict(&self, good: bool) -> String {
        if good {
            self.paint("32", "✓")
        } else {
            self.paint("31", "✗ NOT:")
        }
    }

    /// Runs the binary on host1 and shows what it says; false, with its errors, when its exit
    /// code isn't the promised one.
    fn run(&self, lab: &Lab, what: &str, arguments: &[&str], expected: i32) -> bool {
        self.title(what);
        println!(
            "{}",
            self.paint("2", &format!("  $ trailblazer {}", arguments.join(" ")))
        );
        let started = Instant::now();
        let output = lab.trailblazer("host1", arguments);
        let took = started.elapsed();
        print!("{}", indented(&output.stdout));
        if output.code == Some(expected) {
            let note = format!("  exit code {expected}, {} ms", took.as_millis());
            println!("{}", self.paint("2", &note));
            return true;
        }
        print!("{}", indented(&output.stderr));
        println!(
            "  {} exit code {expected}, but {:?}",
            self.verdict(false),
            output.code
        );
        false
    }

    fn table(&self, flows: &[Flow]) {
        let heading = format!(
            "  {:<18} {:<22} {:<14} {}",
            "flow", "destination", "path", "source seen by the server"
        );
        println!("{}", self.paint("2", &heading));
        for flow in flows {
            let (seen, code) = match &flow.seen {
                Ok(address) => (address.to_string(), "0"),
                Err(ErrorKind::ConnectionReset) if flow.what == "partner" => {
                    ("refused: not an egress address".to_owned(), "31")
                }
                Err(kind) => (format!("fails: {kind}"), "31"),
            };
            println!(
                "  {:<18} {:<22} {:<14} {}",
                flow.what,
                flow.address.to_string(),
                flow.path,
                self.paint(code, &seen)
            );
        }
    }
}
