//! A VPC in the strict double of EC2, and a writer with a document.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use cloud::{Cloud, Delivery, Kind, Target};
use ipnet::IpNet;
use tempfile::TempDir;
use trailblazer::config::{Config, parse};
use trailblazer::reconcile::{Mode, Options};
use trailblazer::types::Region;
use trailblazer::vpc::apply::Waits;
use trailblazer::vpc::ec2::{Backoff, Ec2, Ec2Settings, HttpAnswer, Transport, TransportError};
use trailblazer::vpc::pass::{PassMemory, pass};
use trailblazer::vpc::report::VpcReport;
use trailblazer::vpc::session::resolved;

pub const REGION: &str = "us-east-1";
pub const VPC: &str = "vpc-0aaaaaaaaaaaaaaa1";
pub const TABLE: &str = "rtb-0aaaaaaaaaaaaaaa1";
pub const IGW: &str = "igw-0aaaaaaaaaaaaaaa1";
pub const EIGW: &str = "eigw-0aaaaaaaaaaaaaaa1";
pub const NAT: &str = "nat-0aaaaaaaaaaaaaaa1";

/// The double as a transport without sockets.
pub struct InProcess(pub Cloud);

impl Transport for InProcess {
    async fn send(&self, body: String) -> Result<HttpAnswer, TransportError> {
        let answer = self.0.answer(&body);
        let broken = || TransportError::Broken("the connection ended".to_owned());
        match answer.delivery {
            Delivery::Whole => {}
            Delivery::Slow(pause) => tokio::time::sleep(pause).await,
            Delivery::Half | Delivery::Dropped | Delivery::Hangs => return Err(broken()),
        }
        Ok(HttpAnswer {
            status: answer.status,
            request_id: None,
            date: None,
            body: answer.body.into_bytes(),
        })
    }
}

/// A VPC with a NAT as its default, an internet gateway, and one table.
pub fn vpc() -> Cloud {
    let cloud = Cloud::new();
    cloud.add_vpc(VPC, &["10.0.0.0/16", "2600:1f18:1::/56"]);
    cloud.add_table(TABLE, VPC);
    cloud.associate(TABLE, &["subnet-0aaaaaaaaaaaaaaa1"], false);
    cloud.set_target(IGW, Target::attached(Kind::InternetGateway, VPC));
    cloud.set_target(EIGW, Target::attached(Kind::EgressOnlyGateway, VPC));
    cloud.set_target(NAT, Target::attached(Kind::NatGateway, VPC));
    cloud.set_route(TABLE, "0.0.0.0/0", NAT);
    cloud
}

/// Runs passes.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(future)
}

/// A document of S3 in one region.
pub fn document(token: u64, prefixes: &[&str]) -> String {
    let prefixes: Vec<IpNet> = prefixes
        .iter()
        .map(|it| it.parse().expect("a prefix"))
        .collect();
    document_of(token, &prefixes)
}

/// A document of S3 in one region.
pub fn document_of(token: u64, prefixes: &[IpNet]) -> String {
    let row = |prefix: &IpNet| {
        let key = match prefix {
            IpNet::V4(_) => "ip_prefix",
            IpNet::V6(_) => "ipv6_prefix",
        };
        format!(
            "{{\"{key}\": \"{prefix}\", \"region\": \"{REGION}\", \"service\": \"S3\", \
             \"network_border_group\": \"{REGION}\"}}"
        )
    };
    let of = |v4: bool| {
        let rows = prefixes
            .iter()
            .filter(|it| matches!(it, IpNet::V4(_)) == v4);
        rows.map(row).collect::<Vec<_>>().join(", ")
    };
    let date = jiff::Timestamp::from_second(token as i64)
        .expect("a time")
        .strftime("%Y-%m-%d-%H-%M-%S");
    format!(
        "{{\"syncToken\": \"{token}\", \"createDate\": \"{date}\", \"prefixes\": [{}], \
         \"ipv6_prefixes\": [{}]}}",
        of(true),
        of(false)
    )
}

/// Prefixes that never aggregate: every second /24 of 52.0.0.0/8 and every second /48.
pub fn many(ipv4: usize, ipv6: usize) -> Vec<IpNet> {
    let v4 = (0..ipv4).map(|n| format!("52.{}.{}.0/24", n / 128, n % 128 * 2));
    let v6 = (0..ipv6).map(|n| format!("2600:1f60:{:x}::/48", n * 2));
    v4.chain(v6)
        .map(|text| text.parse().expect("a prefix"))
        .collect()
}

/// A writer: a state dir, a source and a config.
pub struct Writer {
    pub directory: TempDir,
    pub config: Config,
    pub cloud: Cloud,
    pub memory: PassMemory,
    pub options: Options,
}

impl Writer {
    /// A writer with more lines of config, for the region of the double.
    pub fn new(cloud: &Cloud, more: &str) -> Writer {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().display();
        let text = format!(
            "role = \"vpc\"\n[source]\nurl = \"{path}/ip-ranges.json\"\nstate_dir = \"{path}/state\"\n\
             [guard]\nhold_down = \"0s\"\nmax_loss = \"100%\"\nmax_gain = \"100000%\"\n\
             [vpc_plane]\nregion = \"{REGION}\"\ntables = [\"{TABLE}\"]\nfloor = 1\n\
             target.ipv4 = \"{IGW}\"\ntarget.ipv6 = \"{EIGW}\"\n{more}"
        );
        let config = parse(&text, "test").unwrap_or_else(|error| panic!("{error}"));
        Writer {
            config: resolved(&config, &Region::from(REGION)),
            directory,
            cloud: cloud.clone(),
            memory: PassMemory {
                waits: Waits {
                    first_look: Duration::from_millis(1),
                    longest_look: Duration::from_millis(1),
                    read_again: Duration::from_millis(1),
                    visible_after: Duration::from_secs(5),
                    known_after: Duration::from_secs(5),
                },
                ..PassMemory::default()
            },
            options: Options {
                sync: false,
                ..Options::default()
            },
        }
    }

    fn source(&self) -> PathBuf {
        self.directory.path().join("ip-ranges.json")
    }

    /// Puts a document at the source.
    pub fn publish(&self, document: &str) {
        std::fs::write(self.source(), document).expect("written");
    }

    /// A client over the double, with short waits and few tries.
    pub fn ec2(&self) -> Ec2 {
        self.ec2_over(InProcess(self.cloud.clone()))
    }

    /// A client over a transport, with short waits and few tries.
    pub fn ec2_over(&self, transport: impl Transport) -> Ec2 {
        let mut settings = Ec2Settings::new(Region::from(REGION));
        settings.backoff = Backoff {
            base: Duration::from_millis(1),
            cap: Duration::from_millis(5),
        };
        settings.retries = 3;
        settings.total = Duration::from_secs(3000);
        settings.changes_per_second = 1000.0;
        Ec2::over(transport, &settings)
    }

    /// A pass.
    pub async fn pass(&mut self) -> VpcReport {
        let ec2 = self.ec2();
        pass(&ec2, &self.config, &self.options, &mut self.memory).await
    }

    /// A dry run.
    pub async fn dry_run(&mut self) -> VpcReport {
        let before = self.options.mode;
        self.options.mode = Mode::DryRun;
        let report = self.pass().await;
        self.options.mode = before;
        report
    }
}

/// The first address of each prefix.
pub fn addresses(prefixes: &[IpNet]) -> Vec<IpAddr> {
    prefixes.iter().map(IpNet::addr).collect()
}

/// Our list of a family.
pub fn list(cloud: &Cloud, family: &str) -> Option<String> {
    let mut lists = cloud.lists_named(&format!("trailblazer-s3-{family}"));
    assert!(lists.len() <= 1, "{lists:?}");
    lists.pop()
}
