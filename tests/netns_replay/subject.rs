//! The machines under the replay: role, layout and firewall, each with a series of settings.

use std::net::IpAddr;

use trailblazer::kernel::firewall::iptables::IptablesBackend;

use crate::no_nf_tables;
use crate::packets::nat::{SOURCES, behind_nat1};
use crate::packets::*;
use crate::traffic::Ends;
use lab::*;

/// The second address of a host, private and seen from outside.
const SECOND: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 1, 51)),
    IpAddr::V6(std::net::Ipv6Addr::new(
        0x2600, 0x1f18, 0x1000, 1, 0, 0, 0, 0x51,
    )),
];
const SECOND_PUBLIC: &str = "203.0.113.51";

/// Set in the process of a pass without nf_tables: the config.
const PASS: &str = "TRAILBLAZER_REPLAY_PASS";

/// A machine under the replay.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    pub name: &'static str,
    pub kind: Kind,
    pub firewall: Firewall,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One interface with one address.
    Host,
    /// One interface with two addresses; every second flow has the second one.
    HostWithTwoAddresses,
    /// A kernel without nf_tables: IPv4 only, and passes in a process of the test.
    HostWithoutNfTables,
    Nat(NatLayout),
}

impl Subject {
    pub fn is_nat(self) -> bool {
        matches!(self.kind, Kind::Nat(_))
    }

    /// True if the product's binary runs: an agent needs the real kernel.
    pub fn has_agents(self) -> bool {
        self.kind != Kind::HostWithoutNfTables
    }

    pub fn families(self) -> &'static [bool] {
        match self.kind {
            Kind::HostWithoutNfTables => &[true],
            _ => &[true, false],
        }
    }

    /// The network, as before the first pass.
    pub fn lab(self) -> Lab {
        match self.kind {
            Kind::Nat(layout) => {
                let lab = behind_nat1(layout);
                add_address(&lab);
                lab
            }
            _ => {
                let lab = Lab::new();
                lab.guarded_nat("nat1");
                lab.guarded_nat("nat2");
                if self.kind == Kind::HostWithTwoAddresses {
                    let [second4, second6] = SECOND;
                    lab.ns("host1").ip_batch(&format!(
                        "addr add {second4}/24 dev priv\naddr add {second6}/64 dev priv nodad\n"
                    ));
                    translate(&lab, second4, SECOND_PUBLIC);
                }
                lab
            }
        }
    }

    /// The machine with the first settings.
    pub fn machine(self, lab: &Lab) -> Machine<'_> {
        let name = if self.is_nat() { "nat1" } else { "host1" };
        Machine::new(lab, name, self.firewall, "")
    }

    /// The senders and the receivers of the load.
    pub fn ends(self, storage: Vec<IpAddr>) -> Ends {
        let partners = match self.kind {
            Kind::HostWithoutNfTables => vec![PARTNER],
            _ => vec![PARTNER, PARTNER6],
        };
        let sources = match self.kind {
            Kind::HostWithTwoAddresses => vec![None, Some(SECOND)],
            _ => vec![None],
        };
        Ends {
            sources,
            storage,
            partners,
        }
    }

    /// The settings after `[nat] backend`, with one of three ways out: the first and the second
    /// gateway (or egress address of a NAT), and both.
    pub fn settings(self, lab: &Lab, way: usize, pin: bool, more: &str) -> String {
        let ways = self.ways(lab, way);
        let list = |addresses: &[IpAddr]| {
            let quoted: Vec<String> = addresses.iter().map(|it| format!("\"{it}\"")).collect();
            format!("[{}]", quoted.join(", "))
        };
        let bypass = list(&[lab.nat1.second, lab.nat1.second6]);
        match self.kind {
            Kind::Nat(NatLayout::BulkInterface) => format!(
                "{SOURCES}egress_addresses = {}\n[bypass]\ninterface = \"bulk\"\n[egress]\npin = {pin}\n{more}",
                list(&ways)
            ),
            Kind::Nat(_) => format!(
                "{SOURCES}egress_addresses = {}\nbypass = {bypass}\n[egress]\npin = {pin}\n{more}",
                list(&ways)
            ),
            _ => format!(
                "{more}[egress]\nenforce = true\npin = {pin}\ngateways = {}\n",
                list(&ways)
            ),
        }
    }

    fn ways(self, lab: &Lab, way: usize) -> Vec<IpAddr> {
        let both = match self.kind {
            Kind::Nat(_) => [lab.nat1, third(lab)].map(|nat| [nat.egress, nat.egress6]),
            _ => [lab.nat1, lab.nat2].map(|nat| [nat.private, nat.private6]),
        };
        match way % 3 {
            2 => both.concat(),
            one => both[one].to_vec(),
        }
    }

    /// The address of new flows that a partner sees with one of the first two ways.
    pub fn seen(self, lab: &Lab, way: usize) -> IpAddr {
        let both = match self.kind {
            Kind::Nat(_) => [lab.nat1, third(lab)],
            _ => [lab.nat1, lab.nat2],
        };
        both[way].egress_public
    }

    /// One pass that must succeed.
    #[track_caller]
    pub fn pass(self, machine: &Machine) {
        if self.has_agents() {
            machine.reconcile();
            return;
        }
        let output = machine.ns().exec_command(&mut self.command(machine));
        drop(output.ok());
    }

    /// The process of one pass.
    pub fn command(self, machine: &Machine) -> std::process::Command {
        if self.has_agents() {
            return machine.command(&["reconcile"]);
        }
        let own = std::env::current_exe().expect("this test binary");
        let mut command = std::process::Command::new(own);
        command
            .args([&test_name(), "--exact", "--include-ignored", "--nocapture"])
            .arg("--test-threads=1")
            .env(PASS, machine.config())
            .stdin(std::process::Stdio::null());
        command
    }
}

/// In the process of a pass without nf_tables, runs the pass and returns true.
pub fn is_pass() -> bool {
    let Ok(path) = std::env::var(PASS) else {
        return false;
    };
    let config = std::fs::read_to_string(path).unwrap();
    let report = no_nf_tables::pass(&config, IptablesBackend::detect());
    assert_eq!(report.error, None, "{report:?}");
    true
}

/// The egress addresses of `nat1` after a change.
fn third(lab: &Lab) -> NatAddresses {
    let mut nat = lab.nat1;
    let six = |text: &str| -> IpAddr { text.parse().unwrap() };
    nat.egress_public = six("198.51.100.3");
    (nat.egress, nat.egress6) = match lab.layout {
        NatLayout::OneInterface => (six("10.0.1.17"), six("2600:1f18:1000:1::17")),
        _ => (nat.egress_public, six("2600:1f18:1000:a1::3")),
    };
    nat
}

/// Gives `nat1` the addresses of [`third`], and lets partners accept them.
fn add_address(lab: &Lab) {
    let nat = third(lab);
    let (link, length) = match lab.layout {
        NatLayout::OneInterface => (PRIVATE_LINK, 24),
        _ => (PUBLIC_LINK, 29),
    };
    // Without a preferred lifetime of zero the last address is IPv6's first choice.
    lab.ns("nat1").ip_batch(&format!(
        "addr add {}/{length} dev {link}\naddr add {}/64 dev {link} nodad preferred_lft 0\n",
        nat.egress, nat.egress6
    ));
    if lab.layout == NatLayout::OneInterface {
        translate(lab, nat.egress, &nat.egress_public.to_string());
    }
    let first = [lab.nat1.egress_public, lab.nat1.egress6];
    lab.set_egress(&[first, [nat.egress_public, nat.egress6]].concat());
}

/// One more address that the internet gateway translates.
fn translate(lab: &Lab, private: IpAddr, public: &str) {
    lab.ns("vpc").nft(&format!(
        "add element inet igw public {{ {private} : {public} }}
         add element inet igw private {{ {public} : {private} }}"
    ));
}
