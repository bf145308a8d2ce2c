//! A machine without network, with network, with a fault, and mended again.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::Value;

use crate::packets::nat::{SOURCES, behind_nat1, bulk_interface, egress_line};
use crate::packets::*;
use crate::probe::{Probe, Sources};
use lab::*;

/// The role of the machine with the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Host,
    Nat,
}

/// A lab, and the machine with the product.
pub struct Scene<'a> {
    pub kind: Kind,
    pub firewall: Firewall,
    pub lab: &'a Lab,
    pub machine: Machine<'a>,
    pub sources: Sources,
}

/// The lab of a role.
pub fn lab_of(kind: Kind) -> Lab {
    match kind {
        Kind::Host => {
            let lab = Lab::new();
            lab.plain_nat("nat1");
            lab
        }
        Kind::Nat => {
            let lab = behind_nat1(NatLayout::BulkInterface);
            // The administrator's translation would hide the lack of ours.
            lab.ns("nat1").nft("delete table inet natbox");
            lab
        }
    }
}

impl<'a> Scene<'a> {
    pub fn new(lab: &'a Lab, kind: Kind, firewall: Firewall) -> Scene<'a> {
        let nat = &lab.nat1;
        let egress = [nat.egress_public, nat.egress6];
        let (name, bypass) = match kind {
            Kind::Host => ("host1", [HOST1_PUBLIC, HOST1_6]),
            Kind::Nat => ("nat1", [nat.second_public, nat.second6]),
        };
        let mut machine = Machine::new(lab, name, firewall, &settings(lab, kind, firewall));
        machine.tools = moody(firewall).or(machine.tools);
        // Strangers change the table in many of these scenes.
        machine.open_table();
        Scene {
            kind,
            firewall,
            lab,
            machine,
            sources: Sources {
                bypass,
                egress,
                more: egress,
            },
        }
    }

    pub fn ns(&self) -> &Ns {
        self.machine.ns()
    }

    /// Runs a shell script on the machine; the first failing command ends the script.
    #[track_caller]
    pub fn shell(&self, script: &str) -> String {
        self.ns().run(&["sh", "-ec", script])
    }

    pub fn probe(&self) -> Probe<'a> {
        Probe::start(self.lab, self.sources)
    }

    pub fn state_dir(&self) -> PathBuf {
        scratch().join(self.ns().name()).join("state")
    }

    /// The usual settings of the role.
    pub fn settings(&self) -> String {
        settings(self.lab, self.kind, self.firewall)
    }

    /// As before the network: no carrier, no address, no default route.
    pub fn network_down(&self) {
        for link in self.links() {
            self.ns()
                .ip_batch(&format!("link set {link} down\naddr flush dev {link}\n"));
        }
    }

    fn links(&self) -> &'static [&'static str] {
        match self.kind {
            Kind::Host => &[PRIVATE_LINK],
            // Without its uplink, a NAT would use the main table's second default.
            Kind::Nat => &[BULK_LINK, PUBLIC_LINK],
        }
    }

    /// Takes the carrier of an interface of the instance.
    pub fn unplug(&self, link: &str) {
        let vpc = self.lab.ns("vpc");
        vpc.ip(&format!("link set nat1-{link} down"));
    }

    /// Returns the carrier, and the addresses of the router that went with it.
    pub fn plug(&self, link: &str) {
        let nat = &self.lab.nat1;
        let neighbour = match link {
            BULK_LINK => nat.second6,
            _ => nat.egress6,
        };
        let net = ipnet::IpNet::new(neighbour, 64).unwrap().trunc();
        self.lab.ns("vpc").ip_batch(&format!(
            "link set nat1-{link} up\n\
             addr replace {ROUTER6}/64 dev nat1-{link} nodad\n\
             route replace {net} dev nat1-{link}\n"
        ));
    }

    /// The links come up; addresses and defaults follow later.
    pub fn links_up(&self) {
        for link in self.links() {
            self.ns().ip(&format!("link set {link} up"));
        }
    }

    /// DHCP answers: IPv4 addresses and defaults.
    pub fn dhcp(&self) {
        let nat = &self.lab.nat1;
        let lines = match self.kind {
            Kind::Host => {
                let [default, _] = dhcp_routes(HOST1);
                format!("addr add {HOST1}/24 dev priv\n{default}\n")
            }
            Kind::Nat => format!(
                "addr add {}/29 dev pub\naddr add {}/29 dev bulk\n\
                 route add default via {} dev pub proto dhcp metric 512\n\
                 route add default via {} dev bulk proto dhcp metric 522\n",
                nat.egress, nat.second, nat.gateway, nat.second_gateway
            ),
        };
        self.ns().ip_batch(&lines);
    }

    /// A router advertises: IPv6 addresses and defaults.
    pub fn advertise(&self) {
        let switch = format!("net/ipv6/conf/{}/disable_ipv6", self.links()[0]);
        if self.ns().read_sysctl(&switch).as_deref() == Some("1") {
            return;
        }
        let nat = &self.lab.nat1;
        let lines = match self.kind {
            Kind::Host => {
                let [_, default] = dhcp_routes(HOST1);
                format!("addr replace {HOST1_6}/64 dev priv nodad\n{default}\n")
            }
            Kind::Nat => format!(
                "addr replace {}/64 dev bulk nodad\naddr replace {}/64 dev pub nodad\n\
                 route add default via {ROUTER6} dev pub proto ra metric 512\n\
                 route add default via {ROUTER6} dev bulk proto ra metric 522\n",
                nat.second6, nat.egress6
            ),
        };
        self.ns().ip_batch(&lines);
    }

    pub fn network_up(&self) {
        self.links_up();
        self.dhcp();
        self.advertise();
    }

    /// One pass, whatever its end: the exit code and the report.
    pub fn pass(&self) -> (Option<i32>, Value) {
        let output = self.machine.run(&["reconcile", "-o", "json"]);
        let report = serde_json::from_str(&output.stdout).unwrap_or(Value::Null);
        (output.code, report)
    }

    /// Passes until one finds nothing wrong.
    #[track_caller]
    pub fn converges(&self, row: &str) {
        wait_until(
            SOON,
            std::time::Duration::from_millis(50),
            || (self.pass().0 == Some(0)).then_some(()),
            || format!("{row}: a pass with exit code 0, but {:#}", self.pass().1),
        );
    }

    /// Takes the product away, with its memory.
    #[track_caller]
    pub fn clean(&self) {
        self.machine.run(&["flush"]).ok();
        // A datagram from the port of an earlier one would be the same flow, on the path of that flow.
        self.ns().run(&["conntrack", "-F"]);
        let _missing = std::fs::remove_dir_all(self.state_dir());
    }
}

/// A file whose presence makes `ip6tables-restore` refuse every rule.
pub const REFUSING: &str = "refusing";

/// Programs of iptables that refuse rules on demand.
fn moody(firewall: Firewall) -> Option<PathBuf> {
    let variant = match firewall {
        Firewall::Nftables => return None,
        Firewall::Iptables => "nft",
        Firewall::IptablesLegacy => "legacy",
    };
    let directory = scratch().join("moody");
    std::fs::create_dir_all(&directory).unwrap();
    let flag = scratch().join(REFUSING);
    for family in ["ip", "ip6"] {
        for part in ["", "-save", "-restore"] {
            let refusal = match (family, part) {
                ("ip6", "-restore") => format!(
                    "case \"$*\" in *--version*) ;; *) [ ! -e {flag} ] || \
                     {{ cat >/dev/null; echo 'ip6tables-restore: no such match' >&2; exit 2; }};; esac\n",
                    flag = flag.display()
                ),
                _ => String::new(),
            };
            let file = directory.join(format!("{family}tables{part}"));
            let script = format!(
                "#!/bin/sh\n{refusal}exec /usr/sbin/{family}tables-{variant}{part} \"$@\"\n"
            );
            std::fs::write(&file, script).unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
        }
    }
    Some(directory)
}

/// Settings that ask no metadata service. The boot of a host with nftables asks, and waits for
/// nothing; elsewhere each pass without a network would take a second more.
const SILENT: &str = "[vpc]\nmetadata = \"off\"\n";

fn settings(lab: &Lab, kind: Kind, firewall: Firewall) -> String {
    match kind {
        Kind::Host => {
            let silent = if firewall == Firewall::Nftables {
                ""
            } else {
                SILENT
            };
            format!("{silent}[egress]\ngateways = [\"10.0.1.10\", \"2600:1f18:1000:1::10\"]\n")
        }
        Kind::Nat => {
            let rest = (bulk_interface(firewall).settings)(&lab.nat1);
            let rest = rest.replace("[bypass]\n", &format!("{SILENT}[bypass]\n"));
            format!("{SOURCES}{rest}")
        }
    }
}

/// The settings of a NAT with other egress addresses.
pub fn with_egress_addresses(scene: &Scene, more: &str) -> String {
    let right = egress_line(&scene.lab.nat1);
    let other = right.replace("]\n", &format!(", {more}]\n"));
    scene.settings().replace(&right, &other)
}

/// The names of the faults in a report or a status: degraded parts, "conflict", "failed".
pub fn named(value: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut names: Vec<String> = list(&value["degraded"])
        .iter()
        .filter_map(|one| one["part"].as_str().map(str::to_owned))
        .collect();
    if !list(&value["conflicts"]).is_empty() || !list(&value["drift"]["conflicts"]).is_empty() {
        names.push("conflict".to_owned());
    }
    let last = value["passes"].get(0).unwrap_or(value);
    if last["outcome"] == "failed" {
        names.push("failed".to_owned());
    }
    names
}
