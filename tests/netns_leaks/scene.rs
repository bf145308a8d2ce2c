//! A machine of each role, with senders behind it or on it, in each state of the product.

use std::path::PathBuf;

use serde_json::Value;
use trailblazer::kernel::firewall::iptables::IptablesBackend;

use crate::machines::{Backend, MASQUERADE, Phase, Role, SECOND, guest, network, parsed, settings};
use crate::no_nf_tables;
use crate::packets::*;
use crate::storm::{Sender, Storm};
use crate::wire;
use lab::*;

/// Rounds of the senders before and after a cause.
pub const WINDOW: usize = 5;

pub struct Scene<'a> {
    pub role: Role,
    pub backend: Backend,
    pub lab: &'a Lab,
    pub machine: Machine<'a>,
    pub agent: Option<Agent>,
    pub storms: Vec<Storm>,
}

impl<'a> Scene<'a> {
    pub fn new(lab: &'a Lab, role: Role, backend: Backend) -> Scene<'a> {
        let firewall = backend.firewall();
        let text = settings(lab, role, firewall, true);
        let machine = Machine::new(lab, role.machine(), firewall, &text);
        let client = if role.is_host() {
            parsed(["203.0.113.250", "2600:1f18:1000:99::250"])
        } else {
            parsed(["172.31.9.9", "fd09:9::9"])
        };
        let own = Sender {
            device: PRIVATE_LINK,
            own: [HOST1, HOST1_6],
            second: parsed(SECOND),
            foreign: client,
        };
        let mut storms = vec![Storm::new(lab.ns("host1"), own)];
        if role.is_host() {
            let inside = Sender {
                device: "eth0",
                own: parsed(["172.20.0.2", "fd20::2"]),
                second: parsed(["172.20.0.9", "fd20::9"]),
                foreign: parsed(["172.20.0.77", "fd20::77"]),
            };
            storms.push(Storm::new(&guest(lab.ns("host1")), inside));
        }
        let links: Vec<&str> = role.links().iter().map(|(_, far)| *far).collect();
        wire::watch(lab, role, &links);
        let scene = Scene {
            role,
            backend,
            lab,
            machine,
            agent: None,
            storms,
        };
        scene.masquerade();
        scene
    }

    pub fn ns(&self) -> &Ns {
        self.machine.ns()
    }

    /// Runs a shell script on the machine; the first failing command ends the script.
    #[track_caller]
    pub fn shell(&self, script: &str) -> String {
        self.ns().run(&["sh", "-ec", script])
    }

    /// The translation of the guest, which a flush of the firewall takes away.
    pub fn masquerade(&self) {
        if self.role.is_host() {
            self.ns()
                .nft("table inet containers { }; delete table inet containers;");
            self.ns().nft(MASQUERADE);
        }
    }

    pub fn state_dir(&self) -> PathBuf {
        scratch().join(self.ns().name()).join("state")
    }

    pub fn document(&self) -> PathBuf {
        scratch().join(format!("{}-ip-ranges.json", self.ns().name()))
    }

    pub fn enforce(&mut self, enforce: bool) {
        let firewall = self.backend.firewall();
        let text = settings(self.lab, self.role, firewall, enforce);
        self.machine.configure(&text);
    }

    /// The agents from now on have the table for themselves.
    pub fn protect(&mut self) {
        let firewall = self.backend.firewall();
        let text = settings(self.lab, self.role, firewall, true);
        let protected = format!("{text}[kernel]\nprotect_table = true\n");
        self.machine.configure(&protected);
    }

    #[track_caller]
    pub fn window(&self) {
        self.storms.iter().for_each(|storm| storm.window(WINDOW));
    }

    pub fn resume(&self) {
        self.storms.iter().for_each(Storm::resume);
    }

    pub fn pause(&self) {
        self.storms.iter().for_each(Storm::pause);
        // The last packets are under way.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }

    /// One pass, whatever its end. True without an error.
    pub fn pass(&self) -> (bool, String) {
        if self.backend == Backend::Alone {
            let report = self.pass_alone();
            return (report["error"] == Value::Null, report.to_string());
        }
        let output = self.machine.run(&["reconcile", "-o", "json"]);
        (output.code == Some(0), output.stdout)
    }

    fn pass_alone(&self) -> Value {
        let config = std::fs::read_to_string(self.machine.config()).unwrap();
        let pass = || no_nf_tables::pass(&config, IptablesBackend::detect()).to_json();
        self.ns().in_thread(pass)
    }

    /// Without the document that is in force.
    pub fn lose_document(&mut self) {
        self.take_away();
        std::fs::remove_file(self.document()).unwrap();
        let (done, report) = self.pass();
        assert!(!done, "{report}");
        self.machine.publish(FIRST);
    }

    /// Passes until one succeeds.
    #[track_caller]
    pub fn converge(&self) {
        let last = std::cell::RefCell::new(String::new());
        wait_until(
            SOON,
            std::time::Duration::from_millis(50),
            || {
                let (done, report) = self.pass();
                *last.borrow_mut() = report;
                done.then_some(())
            },
            || format!("a pass without an error, but {}", last.borrow()),
        );
    }

    /// Takes the product away, with its memory. The senders wait.
    #[track_caller]
    pub fn take_away(&mut self) {
        self.pause();
        drop(self.agent.take());
        if self.backend == Backend::Alone {
            self.shell(&format!(
                "{DELETE_RULES}\niptables -w -t mangle -F; iptables -w -t nat -F"
            ));
        } else {
            self.machine.run(&["flush"]).ok();
        }
        self.forget_flows();
        let _missing = std::fs::remove_dir_all(self.state_dir());
    }

    /// A datagram from the port of an earlier one would be the same flow, on the path of that flow.
    pub fn forget_flows(&self) {
        self.ns().run(&["conntrack", "-F"]);
    }

    /// The links exist, without an address.
    fn without_devices(&self) {
        for (link, _) in self.role.links() {
            self.ns().ip_batch(&format!(
                "link set {link} down\naddr flush dev {link}\nlink set {link} netns peer\n"
            ));
        }
    }

    fn devices_come(&self) {
        let name = self.ns().name();
        for (link, _) in self.role.links() {
            self.lab
                .ns("peer")
                .ip(&format!("link set {link} netns {name}"));
        }
        self.ns().ip_batch(&network(self.lab, self.role));
    }

    /// Brings the machine into a phase; the senders send from its begin.
    #[track_caller]
    pub fn enter(&mut self, phase: Phase) {
        match phase {
            Phase::Boot => {
                self.take_away();
                self.without_devices();
                self.machine.run(&["shut"]).ok();
                wire::forget(self.lab);
                self.resume();
                self.devices_come();
            }
            Phase::Absent => self.take_away(),
            Phase::OneShot | Phase::Open => self.converge(),
            Phase::Running => {
                if self.agent.is_none() {
                    self.agent = Some(self.machine.agent());
                }
                self.repaired(phase);
            }
            Phase::Dead => {
                if self.agent.is_none() {
                    self.converge();
                } else if let Some(agent) = self.agent.take() {
                    agent.wait_in_force();
                    agent.kill();
                }
            }
        }
    }

    /// The end of the repair that the phase brings.
    #[track_caller]
    pub fn repaired(&self, phase: Phase) {
        match phase {
            Phase::Boot | Phase::Absent => {}
            Phase::OneShot | Phase::Dead | Phase::Open => self.converge(),
            Phase::Running => {
                self.agent.as_ref().expect("an agent runs").wait_in_force();
            }
        }
    }
}

/// Deletes the rules in our range of priorities.
pub const DELETE_RULES: &str = r"
    for f in -4 -6; do
        ip $f rule | sed -n 's/^\(300[0-9][0-9]\):.*/rule del pref \1/p' | ip $f -force -batch - || true
    done";
