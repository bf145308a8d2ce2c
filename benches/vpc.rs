//! A pass of the vpc role with nothing to do, beside its reads alone: `cargo bench --bench vpc`.
//!
//! S3 of all regions (626 entries) in two lists and one table of the double of EC2, over HTTP on the
//! loopback address: once as fast as the double answers, which shows the pass's own work, and once with a
//! pause before each answer as on the way to EC2, where the bound counts. Prints medians and PASS or FAIL;
//! exits 1 on a FAIL. Reads alone and passes take turns, since machines and their noise differ.

use std::error::Error;
use std::fmt::Write as _;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use cloud::{Cloud, Kind, Serve, Target, serve};
use trailblazer::config::{Config, parse};
use trailblazer::reconcile::{Asking, Options, Outcome, Watched};
use trailblazer::types::Region;
use trailblazer::vpc::ec2::Ec2;
use trailblazer::vpc::observe::{EntryCache, observe};
use trailblazer::vpc::pass::{PassMemory, pass};
use trailblazer::vpc::session::{Session, resolved};

type Res<T> = Result<T, Box<dyn Error>>;

/// The largest ratio of a pass in sync to its reads.
const BOUND: f64 = 1.2;
/// The pause of an answer on the way to EC2: a tenth of the 300 ms that a call takes there.
const PAUSE: Duration = Duration::from_millis(30);
/// S3 of all regions: prefixes of IPv4 and IPv6.
const ENTRIES: (usize, usize) = (175, 451);
/// Rows of other services, so that the document has the size of AWS's.
const OTHER_ROWS: usize = 13_000;
const VPC: &str = "vpc-0aaaaaaaaaaaaaaa1";
const TABLE: &str = "rtb-0aaaaaaaaaaaaaaa1";
const IGW: &str = "igw-0aaaaaaaaaaaaaaa1";
const EIGW: &str = "eigw-0aaaaaaaaaaaaaaa1";
const REGION: &str = "us-east-1";

fn main() -> ExitCode {
    if std::env::var_os("AWS_ACCESS_KEY_ID").is_none() {
        return with_credentials();
    }
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the benchmark could not be carried out: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Starts this program again with credentials, which the client takes from the environment.
fn with_credentials() -> ExitCode {
    let program = std::env::current_exe();
    let status = program.and_then(|program| {
        Command::new(program)
            .args(std::env::args_os().skip(1))
            .env("AWS_ACCESS_KEY_ID", "AKIDBENCH00000000001")
            .env("AWS_SECRET_ACCESS_KEY", "of-the-bench")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("NO_PROXY", "127.0.0.1")
            .status()
    });
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn account() -> Cloud {
    let cloud = Cloud::new();
    cloud.configure(|settings| settings.routes_per_table = 1000);
    cloud.add_vpc(VPC, &["10.0.0.0/16", "2600:1f18:1::/56"]);
    cloud.add_table(TABLE, VPC);
    cloud.set_target(IGW, Target::attached(Kind::InternetGateway, VPC));
    cloud.set_target(EIGW, Target::attached(Kind::EgressOnlyGateway, VPC));
    cloud
}

/// A document whose prefixes of S3 never aggregate.
fn document() -> String {
    let (mut v4, mut v6) = (String::new(), String::new());
    let mut row = |key: &str, prefix: String, service: &str| {
        let rows = if key == "ip_prefix" { &mut v4 } else { &mut v6 };
        if !rows.is_empty() {
            rows.push(',');
        }
        // Writing to a String can't fail.
        let _ = write!(
            rows,
            "\n    {{\"{key}\": \"{prefix}\", \"region\": \"{REGION}\", \"service\": \"{service}\", \
             \"network_border_group\": \"{REGION}\"}}"
        );
    };
    for n in 0..ENTRIES.0 {
        row(
            "ip_prefix",
            format!("52.{}.{}.0/24", n / 128, n % 128 * 2),
            "S3",
        );
    }
    for n in 0..ENTRIES.1 {
        row("ipv6_prefix", format!("2600:1f60:{:x}::/48", n * 2), "S3");
    }
    for n in 0..OTHER_ROWS {
        let prefix = format!("18.{}.{}.0/24", n / 256, n % 256);
        row("ip_prefix", prefix, "EC2");
    }
    format!(
        "{{\"syncToken\": \"1700000000\", \"createDate\": \"2023-11-14-22-13-20\",\n  \"prefixes\": \
         [{v4}],\n  \"ipv6_prefixes\": [{v6}]}}\n"
    )
}

/// Wall times of interleaved rounds, in seconds.
#[derive(Default)]
struct Times {
    reads: Vec<f64>,
    passes: Vec<f64>,
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

/// One kind of a pass in sync.
struct Subject {
    name: &'static str,
    /// True for an agent, which knows documents and entries.
    is_agent: bool,
}

impl Subject {
    async fn measure(&self, ec2: &Ec2, config: &Config, rounds: usize) -> Res<(Times, u64)> {
        let plane = &config.vpc_plane;
        let mut options = Options::default();
        if self.is_agent {
            options.asking = Asking::Nobody;
            options.watched = Some(Watched::default());
        }
        let (mut memory, mut cache) = (PassMemory::default(), EntryCache::default());
        let (mut times, mut requests) = (Times::default(), 0);
        // The first round warms memory and connections, and does not count.
        for round in 0..=rounds {
            if !self.is_agent {
                (memory, cache) = (PassMemory::default(), EntryCache::default());
            }
            let started = Instant::now();
            observe(ec2, plane, &mut cache).await?;
            let reads = started.elapsed();
            let before = ec2.sent();
            let started = Instant::now();
            let report = pass(ec2, config, &options, &mut memory).await;
            let whole = started.elapsed();
            let sent = ec2.sent().since(before);
            if report.outcome != Outcome::InSync || sent.changes > 0 {
                return Err(format!("not in sync: {:?} {:?}", report.outcome, report.error).into());
            }
            requests = sent.reads;
            if round > 0 {
                times.reads.push(reads.as_secs_f64());
                times.passes.push(whole.as_secs_f64());
            }
        }
        Ok((times, requests))
    }
}

fn run() -> Res<bool> {
    let cloud = account();
    let server = serve(&cloud, Serve::default())?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().display();
    let document = document();
    std::fs::write(directory.path().join("ip-ranges.json"), &document)?;
    let text = format!(
        "role = \"vpc\"\n[source]\nurl = \"{path}/ip-ranges.json\"\nstate_dir = \"{path}/state\"\n\
         [vpc_plane]\nregion = \"{REGION}\"\ntables = [\"{TABLE}\"]\nquota = 1000\n\
         endpoint = \"{}\"\ntarget.ipv4 = \"{IGW}\"\ntarget.ipv6 = \"{EIGW}\"\n",
        server.url()
    );
    let config = resolved(&parse(&text, "bench")?, &Region::from(REGION));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let subjects = [
        Subject {
            name: "single pass",
            is_agent: false,
        },
        Subject {
            name: "agent's pass",
            is_agent: true,
        },
    ];
    println!(
        "{} entries, a document of {:.1} MB; medians",
        ENTRIES.0 + ENTRIES.1,
        document.len() as f64 / 1e6
    );
    let mut holds = true;
    runtime.block_on(async {
        let ec2 = Session::open(&config).await?.ec2;
        let mut memory = PassMemory::default();
        let first = pass(&ec2, &config, &Options::default(), &mut memory).await;
        if first.outcome != Outcome::Changed {
            return Err(format!("the first pass failed: {:?}", first.error).into());
        }
        for (pause, rounds) in [(Duration::ZERO, 51), (PAUSE, 11)] {
            cloud.before_call(move |_, _, _| std::thread::sleep(pause));
            for subject in &subjects {
                let (mut times, requests) = subject.measure(&ec2, &config, rounds).await?;
                let (reads, whole) = (median(&mut times.reads), median(&mut times.passes));
                let ratio = whole / reads;
                let is_good = ratio <= BOUND;
                holds &= is_good || pause.is_zero();
                println!(
                    "{:<13} {requests} reads, {:>2} ms a call before the answer: reads {:>7.2} ms, pass \
                     {:>7.2} ms, ratio {ratio:.2} {}",
                    subject.name,
                    pause.as_millis(),
                    reads * 1e3,
                    whole * 1e3,
                    match (pause.is_zero(), is_good) {
                        (true, _) => "",
                        (false, true) => "PASS",
                        (false, false) => "FAIL",
                    }
                );
            }
        }
        Ok::<(), Box<dyn Error>>(())
    })?;
    Ok(holds)
}
