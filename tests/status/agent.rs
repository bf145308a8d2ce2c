//! A fake loop behind the real servers, on a separate thread.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};
use trailblazer::config::AnyRole;
use trailblazer::degraded::{Degradation, Part};
use trailblazer::objects::NeighbourState;
use trailblazer::status::control::*;
use trailblazer::status::snapshot::*;
use trailblazer::types::{Family, PerFamily, SyncToken};
use trailblazer::vpc::objects::ListVersion;
use trailblazer::vpc::summary::{ListSummary, RouteSummary, TableSummary};

/// The fake loop's answer to a question.
pub type Behaviour = Box<dyn Fn(&Request) -> Option<Reply> + Send>;

/// A fake agent, ended when dropped.
#[derive(Debug)]
pub struct FakeAgent {
    pub at: SocketAddr,
    /// The questions so far.
    pub asked: Arc<Mutex<Vec<Request>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeAgent {
    /// Starts an agent that answers every question with success, and status with `snapshot`.
    pub fn start(socket: &Path, snapshot: Snapshot) -> FakeAgent {
        FakeAgent::behaving(
            socket,
            Box::new(move |request| {
                Some(match request {
                    Request::Status => Reply::Status(Box::new(snapshot.clone())),
                    Request::Settings => Reply::Refused("a fake has none".to_owned()),
                    Request::Kick
                    | Request::Documents
                    | Request::Release { .. }
                    | Request::Drain { .. }
                    | Request::Undrain { .. }
                    | Request::Pause { .. } => Reply::Done,
                })
            }),
        )
    }

    /// A `None` of `behaviour` leaves the question without an answer.
    pub fn behaving(socket: &Path, behaviour: Behaviour) -> FakeAgent {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = oneshot::channel();
        let (ready, address) = std::sync::mpsc::channel();
        let socket = socket.to_owned();
        let log = Arc::clone(&asked);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let (to_loop, mut questions) = mpsc::channel(8);
                let _control = serve_socket(&socket, to_loop.clone()).unwrap();
                let any_port = "127.0.0.1:0".parse().unwrap();
                let metrics = serve_metrics(any_port, to_loop).unwrap();
                ready.send(metrics.at()).unwrap();
                let mut never = Vec::new();
                let answering = async {
                    while let Some(Asked { request, answer }) = questions.recv().await {
                        match behaviour(&request) {
                            // The client may be gone.
                            Some(reply) => drop(answer.send(reply)),
                            None => never.push(answer),
                        }
                        log.lock().unwrap().push(request);
                    }
                };
                tokio::select! {
                    () = answering => {}
                    _ = stopped => {}
                }
            });
        });
        let at = address.recv().expect("the fake agent has started");
        FakeAgent {
            at,
            asked,
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// A directory, and a path for a socket inside.
pub fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/control.sock");
    (directory, path)
}

/// The time of the filled snapshot: 2026-11-20 12:00:00 UTC.
pub const NOW: i64 = 1_795_176_000;

/// A missing part, absent from the filled snapshot.
pub fn missing_part() -> Degradation {
    let reason = "[bypass] gateway: gateway fe80::7 needs an interface";
    Degradation::new(Part::Bypass, Family::Ipv6, reason).with_advice("set [bypass] interface")
}

/// The status of a VPC, absent from the filled snapshot.
pub fn vpc_status() -> VpcStatus {
    VpcStatus {
        region: Some("us-east-1".to_owned()),
        lists: vec![ListSummary {
            family: Family::Ipv4,
            id: "pl-0123456789abcdef0".into(),
            name: "trailblazer-s3-ipv4".to_owned(),
            version: Some(ListVersion(3)),
            entries: 18,
            max_entries: Some(23),
            sync_token: Some(SyncToken(1_795_021_512)),
        }],
        tables: vec![TableSummary {
            id: "rtb-0123456789abcdef0".into(),
            vpc: "vpc-0123456789abcdef0".into(),
            routes: vec![RouteSummary {
                family: Family::Ipv4,
                target: Some("igw-0123456789abcdef0".to_owned()),
                active: true,
                routes: 1,
            }],
        }],
        holds: vec!["ipv6: the document selects no prefix".to_owned()],
        requests: RequestsStatus {
            reads: 40,
            changes: 4,
            throttled: 2,
        },
        failing_since: Some(1_763_640_000),
        failures: 3,
        next_pass_in_s: 120,
    }
}

/// A snapshot with every field filled but `vpc`.
pub fn filled() -> Snapshot {
    let mut latency = Histogram::new(&[0.05, 0.25, 1.0, 5.0]);
    for seconds in [0.04, 0.1, 0.2, 3.0, 7.5] {
        latency.observe(seconds);
    }
    let mut duration = Histogram::new(&[0.01, 0.1, 1.0]);
    for seconds in [0.0625, 0.0125, 0.5, 2.0] {
        duration.observe(seconds);
    }
    let count = |service: &str, region: &str, family, prefixes| GroupCount {
        service: service.to_owned(),
        region: region.to_owned(),
        family,
        prefixes,
    };
    let pass = |ago: i64, cause: &str, outcome: &str, steps, duration_ms| PassStatus {
        at: NOW - ago,
        cause: cause.to_owned(),
        outcome: outcome.to_owned(),
        steps,
        duration_ms,
        error: None,
    };
    let mut passes = vec![
        pass(20, "drift", "changed", 2, 31.4),
        pass(320, "timer", "in_sync", 0, 18.2),
        pass(620, "link", "failed", 0, 12_004.0),
        pass(86_420, "start", "changed", 31, 112.9),
    ];
    passes[2].error = Some("interface eth0 has no connected route to 10.0.1.10".to_owned());
    Snapshot {
        version: "0.1.0".to_owned(),
        pid: 4242,
        role: AnyRole::Host,
        state: State::InForce,
        reason: None,
        degraded: Vec::new(),
        conflicts: Vec::new(),
        started_at: NOW - 86_420,
        in_force_since: Some(NOW - 600),
        in_force_s: 86_350.5,
        uptime_s: 86_420.25,
        config: Some(ConfigStatus {
            file: "/etc/trailblazer/trailblazer.toml".to_owned(),
            digest: Some("5e".repeat(32)),
            loaded_at: NOW - 86_420,
            differs: Some(true),
            refused: Some(RefusedReload {
                line: Some(12),
                reason: "bypass.gatway: unknown key, did you mean \"gateway\"?".to_owned(),
                since: NOW - 180,
                last_at: NOW - 60,
                attempts: 2,
            }),
        }),
        document: Some(DocumentStatus {
            sync_token: SyncToken(1_795_021_512),
            create_date: "2026-11-18-17-05-12".to_owned(),
            age_s: 130,
            freshness: Freshness::Fresh,
        }),
        source: SourceStatus {
            next_fetch_in_s: 161,
            breaker: BreakerState::Closed,
            failures_in_a_row: 0,
            last_error: None,
            fetches: [("changed", 3), ("unchanged", 280), ("failed", 2)]
                .map(|(result, count)| (result.to_owned(), count))
                .into(),
            latency,
        },
        hold: Some(HoldStatus {
            guards: vec!["loss".to_owned()],
            sync_token: Some(SyncToken(1_795_150_000)),
            since: NOW - 3_600,
            until: NOW + 82_800,
            ends_by_itself: true,
            changes: vec![HeldChangeStatus {
                service: "S3".to_owned(),
                region: "us-east-1".to_owned(),
                family: Family::Ipv4,
                lost_percent: 53.3,
                lost_prefixes: 7,
                lost: vec!["52.216.0.0/15".parse().unwrap()],
                gained_percent: 0.4,
                gained_prefixes: 1,
                gained: vec!["18.34.0.0/19".parse().unwrap()],
            }],
        }),
        hold_down: vec![HoldDownStatus {
            prefix: "52.95.0.0/20".parse().unwrap(),
            until: NOW + 7_200,
        }],
        hold_down_total: 1,
        selection: vec![
            count("DYNAMODB", "us-east-1", Family::Ipv4, 7),
            count("S3", "us-east-1", Family::Ipv4, 6),
            count("S3", "us-east-1", Family::Ipv6, 2),
        ],
        routes: PerFamily { ipv4: 11, ipv6: 2 },
        gateways: vec![
            GatewayStatus {
                path: "egress".to_owned(),
                family: Family::Ipv4,
                address: "10.0.1.10".to_owned(),
                device: Some("eth0".to_owned()),
                in_use: true,
                reserve: false,
                neighbour: Some(NeighbourState::Reachable),
                health: Some(HealthStatus {
                    state: "up".to_owned(),
                    usable: true,
                    since_s: 3600,
                    why: "answers".to_owned(),
                    held_for_s: None,
                    latency_us: Some(1_234),
                    quality: QualityStatus {
                        probes: 100,
                        lost: 2,
                        p50_us: Some(1_500),
                        p99_us: Some(20_250),
                    },
                    traffic: Some(TrafficStatus {
                        out: Traffic {
                            packets: 70,
                            bytes: 7_000,
                        },
                        back: Traffic {
                            packets: 50,
                            bytes: 90_000,
                        },
                    }),
                }),
                drained: None,
                flows: Some(12),
                ended: Some(EndedStatus::default()),
            },
            GatewayStatus {
                path: "egress".to_owned(),
                family: Family::Ipv4,
                address: "10.0.1.11".to_owned(),
                device: Some("eth0".to_owned()),
                in_use: true,
                reserve: false,
                neighbour: Some(NeighbourState::Failed),
                health: Some(HealthStatus {
                    state: "down".to_owned(),
                    usable: false,
                    since_s: 5,
                    why: "3 rounds failed in a row: most servers answer through another way only"
                        .to_owned(),
                    held_for_s: None,
                    latency_us: None,
                    quality: QualityStatus::default(),
                    traffic: None,
                }),
                drained: None,
                flows: Some(1),
                ended: Some(EndedStatus {
                    forwarded: 0,
                    connections: 7,
                    begun_anew: 4,
                }),
            },
            GatewayStatus {
                path: "egress".to_owned(),
                family: Family::Ipv6,
                address: "fd00::10".to_owned(),
                device: None,
                in_use: false,
                reserve: false,
                neighbour: None,
                health: None,
                drained: None,
                flows: None,
                ended: None,
            },
            GatewayStatus {
                path: "egress".to_owned(),
                family: Family::Ipv4,
                address: "10.0.1.12".to_owned(),
                device: None,
                in_use: false,
                reserve: true,
                neighbour: Some(NeighbourState::Stale),
                health: None,
                drained: Some(DrainStatus {
                    since: NOW - 600,
                    since_s: 600,
                    by: "drain, pid 17".to_owned(),
                }),
                flows: Some(3),
                ended: None,
            },
        ],
        egress_addresses: [
            ("10.0.0.20", Some("10.0.0.20"), "here"),
            ("203.0.113.5", Some("10.0.0.21"), "standby"),
            ("203.0.113.6", None, "missing"),
        ]
        .map(|(address, own, state)| EgressAddressStatus {
            address: address.to_owned(),
            own: own.map(str::to_owned),
            state: state.to_owned(),
        })
        .into(),
        drift: DriftStatus {
            mended: [("route", 12), ("rule", 1)]
                .map(|(object, count)| (object.to_owned(), count))
                .into(),
            last_at: Some(NOW - 20),
            last_what: Some("route 3.5.0.0/19 in table 1083 had vanished".to_owned()),
            conflicts: vec![ConflictStatus {
                object: "route 52.216.0.0/15 in table 1083".to_owned(),
                by: "protocol bird (12)".to_owned(),
                repairs: 14,
                paused_for_s: 48,
            }],
            conflicts_total: 1,
            overruns: 1,
        },
        traffic: Some(PathTraffic {
            bypass: PerFamily {
                ipv4: Traffic {
                    packets: 912_345_678,
                    bytes: 1_234_567_890_123,
                },
                ipv6: Traffic {
                    packets: 4_321,
                    bytes: 5_432_100,
                },
            },
            egress: PerFamily {
                ipv4: Traffic {
                    packets: 1_234_567,
                    bytes: 987_654_321,
                },
                ipv6: Traffic::default(),
            },
            dropped: Default::default(),
        }),
        bypass_percent: Some(99.9),
        conntrack: Some(ConntrackStatus {
            entries: 221_000,
            limit: Some(262_144),
            percent: Some(84.3),
            insert_failed: 12,
            dropped: 3,
            early_dropped: 40,
            busiest: vec![
                PortUseStatus {
                    address: "10.0.0.20".to_owned(),
                    destination: "203.0.113.7:443".to_owned(),
                    protocol: "tcp".to_owned(),
                    ports: 58_060,
                    percent: 90.0,
                },
                PortUseStatus {
                    address: "10.0.0.20".to_owned(),
                    destination: "203.0.113.8:443".to_owned(),
                    protocol: "tcp".to_owned(),
                    ports: 12,
                    percent: 0.02,
                },
            ],
        }),
        pinned: Some(PinnedStatus {
            age_s: 4,
            flows: PerFamily {
                ipv4: Some(PathCounts {
                    bypass: FlowCount {
                        pinned: 120,
                        displaced: 3,
                    },
                    egress: FlowCount {
                        pinned: 40,
                        displaced: 1,
                    },
                }),
                ipv6: None,
            },
        }),
        saved_dollars: Some(55.5556),
        passes,
        pass_totals: PassTotals {
            outcomes: [("changed", 2), ("in_sync", 287), ("failed", 1)]
                .map(|(outcome, count)| (outcome.to_owned(), count))
                .into(),
            duration,
        },
        faults: [("ours".to_owned(), 1)].into(),
        firewall: Some("nftables (auto: the kernel has nf_tables)".to_owned()),
        vpc: None,
        notes: vec!["ipv6 has no egress gateway: partners see this host's own address".to_owned()],
    }
}
