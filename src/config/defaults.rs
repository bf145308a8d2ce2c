//! The settings of an empty config file, each with its reason.

use std::path::PathBuf;
use std::time::Duration;

use super::{
    AgentConfig, AutoOr, BypassConfig, Config, EgressConfig, FetchPath, GuardConfig, KernelConfig,
    NatBypass, NatConfig, SelectConfig, SourceConfig, WhenDown,
};
use crate::types::{Family, PathMask, PerFamily, Priority, Protocol, Service, TableId};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

impl Default for Config {
    fn default() -> Config {
        Config {
            role: None,
            source: SourceConfig {
                urls: vec!["https://ip-ranges.amazonaws.com/ip-ranges.json".to_owned()],
                // AWS publishes a few times a week; a conditional request costs nothing.
                refresh: 5 * MINUTE,
                timeout: Duration::from_secs(10),
                // The document of 2026 is 2.6 MB; the cap is for what isn't that document.
                max_bytes: 64 << 20,
                state_dir: PathBuf::from("/var/lib/trailblazer"),
                path: FetchPath::Auto,
            },
            select: SelectConfig {
                services: vec![Service::from("S3")],
                regions: vec![AutoOr::Auto],
                families: Family::ALL.into_iter().collect(),
                include: Vec::new(),
                exclude: Vec::new(),
            },
            guard: GuardConfig {
                max_loss: 20.0,
                max_prefixes: 5_000,
                accept_after: DAY,
                hold_down: DAY,
            },
            bypass: BypassConfig {
                gateway: PerFamily {
                    ipv4: AutoOr::Auto,
                    ipv6: AutoOr::Auto,
                },
                interface: AutoOr::Auto,
                // Above 255, which is all that `rtm_table` and old tools can say.
                table: TableId(1083),
            },
            egress: EgressConfig {
                gateways: Vec::new(),
                table: TableId(1084),
                when_down: WhenDown::Unreachable,
                close: Default::default(),
            },
            nat: NatConfig {
                backend: AutoOr::Auto,
                sources: AutoOr::Auto,
                egress_interface: AutoOr::Auto,
                egress_addresses: Vec::new(),
                bypass: NatBypass::Masquerade,
            },
            vpc_cidrs: vec![AutoOr::Auto],
            kernel: KernelConfig {
                // Not registered in linux/rtnetlink.h (RTPROT_*) nor in iproute2's
                // rt_protos; S is 0x53, which is 83.
                protocol: Protocol(83),
                // After the rules of multi-interface hosts (10000 and up), before main (32766).
                priority: Priority(30_000),
                // Bits that kube-proxy (0xc000), Cilium (0x0f00), the AWS VPC CNI (0x80),
                // Tailscale (0xff0000) and Calico (0xffff0000) leave free.
                path_mask: PathMask(0x3000),
                gateway_mask: 0x0070,
                manage: Default::default(),
            },
            agent: AgentConfig {
                socket: PathBuf::from("/run/trailblazer/control.sock"),
                metrics: None,
                resync: 10 * MINUTE,
                stale_warn: DAY,
                stale_alarm: 7 * DAY,
                // AWS's price of a GB through a NAT gateway in us-east-1
                // (aws.amazon.com/vpc/pricing).
                nat_price_per_gb: 0.045,
                // A flush of 16,000 routes is 16,000 notifications of some 500 bytes of socket
                // memory each (skb and its overhead, net/netlink/af_netlink.c).
                event_buffer: 8 << 20,
            },
        }
    }
}
