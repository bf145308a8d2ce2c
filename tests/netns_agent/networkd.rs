//! The real systemd-networkd on the host's interface. By default (`ManageForeignRoutes`,
//! `ManageForeignRoutingPolicyRules`) networkd deletes every foreign route and rule whenever it
//! configures a link.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::scene::*;
use lab::*;

/// An administrator's settings, with a rule and a route of a separate table.
const NETWORK: &str = "\
[Match]
Name=priv
[Network]
Address=10.0.1.11/24
Address=2600:1f18:1000:1::11/64
IPv6AcceptRA=no
IPv6DuplicateAddressDetection=0
LLDP=no
[Route]
Gateway=10.0.1.1
Metric=512
[Route]
Gateway=fe80::1
Metric=512
[RoutingPolicyRule]
From=10.0.1.99
Priority=12000
Table=77
[Route]
Type=blackhole
Destination=10.99.0.0/16
Table=77
";
const DAEMON: &str = "\
[Network]
ManageForeignRoutes=yes
ManageForeignRoutingPolicyRules=yes
";

/// A running networkd in the namespace of `host1`, ended when dropped.
struct Networkd(Child);

impl Networkd {
    /// Starts networkd and waits until the link is configured.
    fn start(lab: &Lab) -> Networkd {
        // An old state file could come from an earlier networkd.
        let _absent = std::fs::remove_dir_all("/run/systemd/netif/links");
        let daemon = ["/lib/systemd", "/usr/lib/systemd"]
            .map(|place| format!("{place}/systemd-networkd"))
            .into_iter()
            .find(|path| Path::new(path).exists())
            .expect("systemd-networkd is installed (package systemd; make deps)");
        // networkd drops root for a user that the lab's user namespace lacks, so the user's name
        // means root here. The machine's own settings of networkd are hidden. With a read-only /sys
        // networkd would assume a container, whose links need no waiting, and configure links
        // before having read their routes; so /sys is writable.
        let script = format!(
            "mount --bind /run/lab/passwd /etc/passwd
             [ ! -d /etc/systemd ] || mount -t tmpfs tmpfs /etc/systemd
             mount -o remount,bind,rw /sys
             exec env -i {daemon}"
        );
        // `ip netns exec` gives the process a mount namespace with the /sys of its network
        // namespace.
        let mut command = Command::new("ip");
        command.args(["netns", "exec", "host1", "sh", "-ec", &script]);
        let log = scratch().join("networkd.log");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let networkd = Networkd(lab.ns("host1").spawn(&mut command));
        eventually("networkd has configured the link", || {
            link_state(lab).contains("ADMIN_STATE=configured")
        });
        networkd
    }

    /// Ends networkd and starts it again, as `systemctl restart` does.
    fn restart(mut self, lab: &Lab) -> Networkd {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap();
        Networkd::start(lab)
    }
}

impl Drop for Networkd {
    fn drop(&mut self) {
        // Both fail only if networkd has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// networkd's state of the link.
fn link_state(lab: &Lab) -> String {
    let index = lab.ns("host1").ip_json("link show dev priv")[0]["ifindex"].clone();
    std::fs::read_to_string(format!("/run/systemd/netif/links/{index}")).unwrap_or_default()
}

/// Parts of a running system that networkd needs.
fn prepare(lab: &Lab) {
    let write = |path: &str, text: &str| {
        let path = Path::new(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("/run/systemd/network/00-lab.network", NETWORK);
    write("/run/systemd/networkd.conf.d/lab.conf", DAEMON);
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let others = users
        .lines()
        .filter(|line| !line.starts_with("systemd-network:"));
    let users: String = others.flat_map(|line| [line, "\n"]).collect();
    write(
        "/run/lab/passwd",
        &format!("{users}systemd-network:x:0:0::/:/usr/sbin/nologin\n"),
    );
    // udev has seen the link: nobody else says so here.
    let index = lab.ns("host1").ip_json("link show dev priv")[0]["ifindex"].clone();
    write(&format!("/run/udev/data/n{index}"), "I:1\n");
    // From here on the link is networkd's.
    lab.ns("host1")
        .ip_batch("addr flush dev priv\nlink set priv down\nlink set priv up\n");
}

fn beside_networkd(body: impl FnOnce(&Scene, Networkd)) {
    let setting = Setting {
        // networkd would delete the administrator's objects too.
        administrator: false,
        prepare: |lab| {
            prepare(lab);
            drop(Networkd::start(lab));
        },
        ..Setting::default()
    };
    in_force(setting, |scene| {
        let story = scene.story();
        let mut networkd = None;
        // networkd deletes foreign objects at its start too.
        scene.gap(|| networkd = Some(Networkd::start(scene.lab)));
        // networkd leaves rules of unknown kinds (goto, nop).
        let deleted = [
            "add rule ipv4 30010",
            "add rule ipv4 30020",
            "add rule ipv4 30030",
            "add rule ipv6 30010",
            "add rule ipv6 30020",
            "add rule ipv6 30030",
            "add route 52.216.0.0/15 table 1083",
            "add route 2600:1fa0:8000::/39 table 1083",
            "add route 0.0.0.0/0 table 1084",
            "add route ::/0 table 1084",
            "add route 10.0.0.0/8 table 1084",
        ];
        scene.told(&story, &deleted.map(str::to_owned));
        body(scene, networkd.unwrap());
    });
}

#[test]
fn objects_deleted_by_a_networkd_restart_are_restored() {
    isolated(|| {
        beside_networkd(|scene, networkd| {
            let mut networkd = Some(networkd);
            for _ in 0..2 {
                let before = mended(&scene.agent.status().unwrap(), "rule");
                scene.gap(|| networkd = networkd.take().map(|it| it.restart(scene.lab)));
                scene
                    .agent
                    .wait_for("its rules were deleted and put back", |status| {
                        mended(status, "rule") >= before + 6
                    });
            }
        });
    });
}

#[test]
fn objects_return_after_a_flap_under_networkd() {
    isolated(|| {
        beside_networkd(|scene, networkd| {
            let ours = scene.ours();
            for _ in 0..3 {
                // If the link is up again before networkd has looked, networkd now and then omits
                // its own default: no fault of the agent's.
                scene.ip("link set priv down");
                eventually("networkd has seen it go", || {
                    link_state(scene.lab).contains("OPER_STATE=off")
                });
                scene.ip("link set priv up");
                eventually("networkd has put back its defaults", || {
                    FAMILIES.iter().all(|family| {
                        let listing =
                            scene.ip(&format!("{family} route show default proto static"));
                        !listing.is_empty()
                    })
                });
                scene.back_as(&ours, || scene.ours());
                // Addresses and defaults are networkd's to put back.
                eventually("partners are reached again", || {
                    let reached = |partner: &_| {
                        let egress = egress_of_nat1(scene.lab, *partner);
                        scene.lab.who("host1", *partner) == Ok(egress)
                    };
                    [PARTNER, PARTNER6].iter().all(reached)
                });
            }
            drop(networkd);
        });
    });
}
