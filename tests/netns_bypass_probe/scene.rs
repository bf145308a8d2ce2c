//! A machine with an agent, and a router that drops its storage traffic on the bypass path.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::packets::*;
use lab::*;

/// The servers of the probes are those of the lab; all times are the defaults.
pub fn targets() -> String {
    format!(
        "[probe]\ntargets = [\"{PARTNER}:{PORT}\", \"[{PARTNER6}]:{PORT}\"]\n\
         bypass_targets = [\"{S3}:{PORT}\", \"[{S3_6}]:{PORT}\"]\n"
    )
}

/// A connection whose client waits for longer than any test: only the machine ends it.
struct StuckFlow(JoinHandle<(ErrorKind, Instant)>);

impl StuckFlow {
    fn open(from: &Ns, to: IpAddr) -> StuckFlow {
        let to = SocketAddr::new(to, PORT);
        let stream = from
            .in_thread(|| TcpStream::connect_timeout(&to, PATIENCE))
            .unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let thread = std::thread::spawn(move || {
            let mut reader = BufReader::new(&stream);
            loop {
                let mut line = String::new();
                let sent = (&stream).write_all(b"echo 1\n");
                match sent.and_then(|()| reader.read_line(&mut line)) {
                    Ok(0) => return (ErrorKind::UnexpectedEof, Instant::now()),
                    Ok(_) => std::thread::sleep(Duration::from_millis(20)),
                    Err(error) => return (error.kind(), Instant::now()),
                }
            }
        });
        StuckFlow(thread)
    }

    /// The end of the connection.
    fn wait(self) -> (ErrorKind, Instant) {
        self.0.join().unwrap()
    }
}

/// The source that a server sees, for a client with more patience than any fail-over.
pub fn ask_patiently(from: &Ns, to: IpAddr) -> Result<IpAddr, ErrorKind> {
    let patience = Duration::from_secs(30);
    let ask = || {
        let stream = TcpStream::connect_timeout(&SocketAddr::new(to, PORT), patience)?;
        stream.set_read_timeout(Some(patience))?;
        (&stream).write_all(b"who\n")?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line)?;
        let seen = line.trim().parse();
        seen.map_err(|_| std::io::Error::from(ErrorKind::InvalidData))
    };
    let seen = from.in_thread(ask);
    seen.map_err(|error: std::io::Error| error.kind())
}

/// A machine with an agent whose settings are in force.
pub struct Scene<'a> {
    pub lab: &'a Lab,
    pub machine: Machine<'a>,
    pub agent: Agent,
    /// The sources that storage sees on the bypass path and on the egress path, both families.
    pub bypass: [IpAddr; 2],
    pub egress: [IpAddr; 2],
}

impl Scene<'_> {
    /// The sources that storage sees; `None` without an answer.
    pub fn storage(&self) -> [Option<IpAddr>; 2] {
        [S3, S3_6].map(|server| self.lab.who("host1", server).ok())
    }

    /// Waits for the source of new storage flows of both families.
    #[track_caller]
    pub fn wait_for(&self, sources: [IpAddr; 2]) {
        eventually("storage answers by the other path", || {
            self.storage() == sources.map(Some)
        });
    }

    /// The time until new storage flows of both families are answered; each try is short.
    fn answers_after(&self, began: Instant) -> Duration {
        let answers = |server: &IpAddr| {
            let server = SocketAddr::new(*server, PORT);
            self.lab.ns("host1").in_thread(|| {
                TcpStream::connect_timeout(&server, Duration::from_millis(200)).is_ok()
            })
        };
        eventually("new storage flows are answered", || {
            [S3, S3_6].iter().all(answers)
        });
        began.elapsed()
    }

    pub fn heal(&self) {
        self.lab.ns("vpc").nft("delete table inet broken");
    }

    /// The state of the bypass path by its probes, IPv4.
    pub fn state(&self) -> Option<String> {
        let status = self.agent.status()?;
        let mut gateways = status["gateways"].as_array()?.iter();
        let found = gateways.find(|it| it["path"] == "bypass" && it["family"] == "ipv4")?;
        Some(found["health"]["state"].as_str()?.to_owned())
    }

    /// Waits until probes have an answer of the bypass path of both families.
    pub fn wait_probed(&self) {
        self.agent
            .wait_for("an answered probe of the bypass path", |status| {
                let gateways = status["gateways"].as_array();
                let mut bypass = gateways
                    .into_iter()
                    .flatten()
                    .filter(|it| it["path"] == "bypass");
                bypass.clone().count() == 2 && bypass.all(|it| it["health"]["latency_us"].is_u64())
            });
    }

    /// The bypass path of the sources `own` dies and heals.
    pub fn survives(&self, own: &[IpAddr]) {
        self.wait_probed();
        self.wait_for(self.bypass);
        // The trial of the first installation is over.
        std::thread::sleep(Duration::from_secs(6));
        let long = |to| self.lab.long_flow("host1", to);
        let stuck = [S3, S3_6].map(|to| StuckFlow::open(self.lab.ns("host1"), to));
        let partners = [PARTNER, PARTNER6].map(long);
        let began = Instant::now();
        break_bypass(self.lab, own);
        let took = self.answers_after(began);
        self.wait_for(self.egress);
        for flow in stuck {
            let (end, at) = flow.wait();
            println!(
                "a flow of the bypass path ended {:?} after the break: {end:?}",
                at.duration_since(began)
            );
            assert!(
                matches!(
                    end,
                    ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
                ),
                "{end:?}\n{}",
                self.agent.log()
            );
        }
        println!(
            "storage by the egress path after {took:?}, flows ended after {:?}",
            began.elapsed()
        );
        assert_eq!(self.state().as_deref(), Some("down"));
        self.agent.wait_for("the reason in the status", |status| {
            let reason = status["reason"].as_str().unwrap_or_default();
            status["state"] == "degraded" && reason.contains("bypass path is down")
        });
        self.agent.wait_for("both families out of use", |status| {
            let gateways = status["gateways"].as_array().into_iter().flatten();
            let mut bypass = gateways.filter(|it| it["path"] == "bypass");
            bypass.all(|it| it["in_use"] == false && it["reserve"] == true)
        });
        // A pass beside the agent leads nobody back.
        let report = self
            .machine
            .run(&["reconcile", "-o", "json"])
            .expect_code(1)
            .json();
        assert_eq!(report["outcome"], "in_sync", "{report:#}");
        assert_eq!(self.storage(), self.egress.map(Some));
        for server in [S3, S3_6] {
            let explained = self
                .machine
                .run(&["explain", &server.to_string()])
                .ok()
                .stdout;
            assert!(explained.contains("egress path"), "{explained}");
            assert!(explained.contains("kernel agrees"), "{explained}");
            assert!(explained.contains("bypass path is down"), "{explained}");
        }
        let check = self.machine.run(&["check"]).stdout;
        assert!(check.contains("fail  bypass"), "{check}");
        let diverted = [S3, S3_6].map(long);

        self.heal();
        self.wait_for(self.bypass);
        self.agent.wait_in_force();
        for flow in diverted.into_iter().chain(partners) {
            flow.assert_alive();
        }
        let leaks = self.lab.leaks();
        assert_eq!((leaks.partner4, leaks.partner6), (0, 0), "{leaks:?}");
    }

    /// The number of passes that changed the kernel, from here on.
    pub fn assert_calm(&self, time: Duration) {
        let passes = || self.agent.status().unwrap()["passes"].clone();
        let before = passes();
        std::thread::sleep(time);
        assert_eq!(passes(), before);
    }
}

/// The router drops packets to storage from the sources of the bypass path alone.
pub fn break_bypass(lab: &Lab, own: &[IpAddr]) {
    let drops: String = own
        .iter()
        .map(|own| {
            let family = if own.is_ipv4() { "ip" } else { "ip6" };
            format!("oifname \"s3\" {family} saddr {own} drop; ")
        })
        .collect();
    lab.ns("vpc").nft(&format!(
        "table inet broken {{ chain forward {{ type filter hook forward priority -310; policy accept; {drops} }}; }}"
    ));
}
