//! The vpc role: the agent and the timer against the double of EC2, over HTTP.

use std::time::Duration;

use cloud::{Cloud, Keys, Serve, Server, Signature, Way, sample};

use crate::image::{Package, TOKEN};
use crate::life::isolated_life;
use crate::machine::{Image, Machine};
use crate::packets::{FIRST, document};
use lab::*;

const AGENT: &str = "trailblazer-vpc-agent.service";
const PASS: &str = "trailblazer-vpc.service";
const CONFIG: &str = "/etc/trailblazer/vpc.toml";
const KEY_FILE: &str = "/etc/trailblazer/aws-credentials";
const ACCESS: &str = "AKIDTRAILBLAZER00001";
const SECRET: &str = "wJalrXUtnFEMIbPxRfiCYsecretOfTheTests001";
const STATE: &str = "/var/lib/private/trailblazer-vpc";

/// A lab with a mirror, and an account of EC2 on the loopback address of `host1`.
struct Scene {
    lab: Lab,
    cloud: Cloud,
    server: Server,
}

impl Scene {
    fn new() -> Scene {
        let lab = Lab::new();
        lab.mirror.set_document(document(TOKEN, FIRST));
        let cloud = sample::account();
        let settings = Serve {
            signature: Signature::Verified(Keys {
                access: ACCESS.to_owned(),
                secret: SECRET.to_owned(),
                token: None,
            }),
            ..Serve::default()
        };
        let served = || cloud::serve(&cloud, settings);
        let server = lab.ns("host1").in_thread(served).unwrap();
        Scene { lab, cloud, server }
    }

    fn settings(&self) -> String {
        format!(
            "role = \"vpc\"\n[source]\nurl = \"{}\"\nrefresh = \"1s\"\n\
             [select]\nregions = [\"us-east-1\"]\n\
             [vpc_plane]\nregion = \"us-east-1\"\nendpoint = \"{}\"\ntables = [\"{}\"]\n\
             writes_per_second = 100\ntarget.ipv4 = \"{}\"\ntarget.ipv6 = \"{}\"\n",
            self.lab.mirror.url(),
            self.server.url(),
            sample::TABLE,
            sample::IGW,
            sample::EIGW,
        )
    }

    /// An image with the package, the config, and a key that only root can read.
    fn image(&self, name: &str) -> Image {
        let image = Image::new(name);
        image.install(&Package::find());
        image.write(CONFIG, &self.settings());
        image.write(
            KEY_FILE,
            &format!("[default]\naws_access_key_id = {ACCESS}\naws_secret_access_key = {SECRET}\n"),
        );
        image.chroot(&format!("chmod 600 {KEY_FILE}"));
        for unit in [AGENT, PASS] {
            image.write(&drop_in(unit), &lines_of_the_unit(&image, unit));
        }
        image
    }

    fn is_in_force(&self) -> bool {
        let to = |target: &str| Way::Target(target.to_owned());
        self.cloud.target_of(sample::TABLE, S3) == to(sample::IGW)
            && self.cloud.target_of(sample::TABLE, S3_6) == to(sample::EIGW)
    }

    /// Somebody deletes the route to our IPv4 list, which comes back.
    #[track_caller]
    fn route_comes_back(&self, by: &str, log: impl Fn() -> String) {
        let list = self.cloud.lists_named("trailblazer-s3-ipv4").remove(0);
        self.cloud.drop_route(sample::TABLE, &list);
        assert!(!self.is_in_force());
        wait_until(
            Duration::from_secs(60),
            Duration::from_millis(50),
            || self.is_in_force().then_some(()),
            || format!("{by} restores the route:\n{}", log()),
        );
    }
}

fn drop_in(unit: &str) -> String {
    format!("/etc/systemd/system/{unit}.d/key.conf")
}

/// The drop-in that the unit's own comment has for an access key.
fn lines_of_the_unit(image: &Image, unit: &str) -> String {
    let text = image.read(&format!("/usr/lib/systemd/system/{unit}"));
    let lines = text.lines().filter_map(|line| line.strip_prefix("#   "));
    let lines: Vec<&str> = lines.collect();
    assert!(lines[1].starts_with("LoadCredential="), "{text}");
    lines.join("\n") + "\n"
}

/// Waits until the agent reports everything in force from another process than `before`.
#[track_caller]
fn wait_in_force(machine: &Machine, before: u64) -> u64 {
    let status = format!("trailblazer status -c {CONFIG}");
    wait_until(
        Duration::from_secs(60),
        Duration::from_millis(50),
        || {
            let pid = machine.number(AGENT, "MainPID");
            let active = machine.property(AGENT, "ActiveState") == "active";
            (active && pid != before && machine.run(&status).code == Some(0)).then_some(pid)
        },
        || {
            let (said, journal) = (machine.run(&status), machine.journal(AGENT));
            format!("the agent has everything in force: {said}\n{journal}")
        },
    )
}

/// The process runs without any capability, as a user that systemd made up, and writes its own
/// directories only.
#[track_caller]
fn assert_without_rights(machine: &Machine, pid: u64) {
    for set in ["CapInh", "CapEff", "CapPrm", "CapBnd", "CapAmb"] {
        let value = machine.process_status(pid, set);
        assert_eq!(u64::from_str_radix(&value, 16), Ok(0), "{set}");
    }
    assert_eq!(machine.process_status(pid, "NoNewPrivs"), "1");
    // SECCOMP_MODE_FILTER (proc(5)).
    assert_eq!(machine.process_status(pid, "Seccomp"), "2");
    let users = machine.process_status(pid, "Uid");
    let user: u32 = users.split(' ').next().unwrap().parse().unwrap();
    // Dynamic users (systemd.exec(5)).
    assert!((61184..=65519).contains(&user), "{users}");
    let limits = machine.ok(&format!("grep '^Max core' /proc/{pid}/limits"));
    assert_eq!(limits.split_whitespace().nth(4), Some("0"), "{limits}");
    let may_write = |path: &str| {
        let script = format!(
            "nsenter --target {pid} --mount --wd=/ setpriv --reuid {user} --clear-groups \
             sh -c 'touch {path}/probe && rm {path}/probe'"
        );
        machine.run(&script).code == Some(0)
    };
    for path in ["/usr", "/etc", "/var", "/run", "/var/lib/trailblazer"] {
        assert!(!may_write(path), "{path} is writable");
    }
    assert!(may_write("/var/lib/trailblazer-vpc"), "the state dir");
    assert!(may_write("/run/trailblazer-vpc"), "the runtime dir");
}

/// The secret is in no journal and in no file of ours.
#[track_caller]
fn assert_secret_is_kept(machine: &Machine) {
    let found = machine.run(&format!(
        "journalctl --no-pager -b -o export | grep -c {SECRET}; grep -rl {SECRET} {STATE} /run/trailblazer-vpc"
    ));
    assert_eq!(found.stdout.trim(), "0", "{found}");
    assert!(machine.ok(&format!("ls {STATE}")).contains("journal"));
}

#[track_caller]
fn reload(machine: &Machine) {
    let pid = machine.number(AGENT, "MainPID");
    let good = machine.image.read(CONFIG);
    machine
        .image
        .write(CONFIG, &format!("{good}\nnonsense = 1\n"));
    machine.ok(&format!("systemctl reload {AGENT}"));
    eventually("a line about the mistake", || {
        machine.journal(AGENT).contains("nonsense")
    });
    machine.image.write(CONFIG, &good);
    machine.ok(&format!("systemctl reload {AGENT}"));
    eventually("a line about the new settings", || {
        machine.journal(AGENT).contains("new config accepted")
    });
    assert_eq!(wait_in_force(machine, 0), pid, "it was no restart");
}

/// Each end of the process: systemd starts another one, and nothing changes in EC2.
#[track_caller]
fn restarts(scene: &Scene, machine: &Machine) {
    let writes = scene.cloud.writes();
    let mut pid = machine.number(AGENT, "MainPID");
    // STOP: the process misses the watchdog.
    for signal in ["KILL", "ABRT", "STOP"] {
        machine.ok(&format!("kill -{signal} {pid}"));
        pid = wait_in_force(machine, pid);
    }
    assert!(machine.number(AGENT, "NRestarts") >= 3);
    let journal = machine.journal(AGENT);
    assert!(journal.contains("Watchdog timeout"), "{journal}");
    assert!(journal.contains("code=killed, status=6/ABRT"), "{journal}");
    assert_eq!(scene.cloud.writes(), writes, "{journal}");
}

#[test]
#[ignore = "boots a machine: make test-boot"]
fn agent_of_a_vpc_works_from_boot_to_purge() {
    isolated_life(|| {
        let scene = Scene::new();
        let image = scene.image("vpc-agent");
        image.write(
            &format!("/etc/systemd/system/{AGENT}.d/test.conf"),
            "[Service]\nWatchdogSec=3\n",
        );
        image.chroot("systemctl enable trailblazer-vpc-agent");
        let machine = Machine::boot(&image, scene.lab.ns("host1"));
        let pid = wait_in_force(&machine, 0);
        assert!(scene.is_in_force());
        assert_eq!(machine.number(AGENT, "NRestarts"), 0);
        let journal = machine.journal(AGENT);
        let at = |what: &str| journal.find(what).unwrap_or(usize::MAX);
        assert!(at("pass start: ") < at("Started "), "{journal}");
        let line = machine.property(AGENT, "StatusText");
        assert!(line.starts_with("in force: "), "{line}");
        assert_without_rights(&machine, pid);
        scene.route_comes_back("the agent", || machine.journal(AGENT));
        wait_in_force(&machine, 0);
        reload(&machine);
        restarts(&scene, &machine);

        let pid = machine.number(AGENT, "MainPID");
        machine.install(&Package::find().next().0);
        wait_in_force(&machine, pid);
        machine.ok(&format!("systemctl stop {AGENT}"));
        assert_eq!(machine.property(AGENT, "Result"), "success");
        assert!(scene.is_in_force(), "a stop leaves everything in place");
        machine.ok(&format!("systemctl start {AGENT}"));
        wait_in_force(&machine, 0);
        assert_secret_is_kept(&machine);

        machine.ok("dpkg --remove trailblazer");
        assert!(scene.is_in_force(), "the tables serve other machines");
        let processes = machine.run("grep -lxE 'trailblazer|exe' /proc/[0-9]*/comm");
        assert_eq!(processes.stdout, "");
        machine.ok("dpkg --purge trailblazer");
        let left = machine.run(&format!("ls -d {STATE} {CONFIG} /run/trailblazer-vpc"));
        assert_eq!(left.stdout, "");
        assert_eq!(scene.cloud.violations(), Vec::<String>::new());
        machine.shutdown();
    });
}

/// The timer's passes, and an agent that takes over their state.
#[test]
#[ignore = "boots a machine: make test-boot"]
fn timer_of_a_vpc_works_and_an_agent_takes_over() {
    isolated_life(|| {
        let scene = Scene::new();
        let image = scene.image("vpc-timer");
        // Every second instead of every five minutes, so that the test sees the timer work.
        image.write(
            "/etc/systemd/system/trailblazer-vpc.timer.d/test.conf",
            "[Timer]\nOnCalendar=*:*:0/1\nRandomizedDelaySec=0\nAccuracySec=100ms\n",
        );
        image.chroot("systemctl enable trailblazer-vpc.timer");
        let machine = Machine::boot(&image, scene.lab.ns("host1"));
        let log = || machine.journal(PASS);
        wait_until(
            Duration::from_secs(60),
            Duration::from_millis(50),
            || log().contains("Finished ").then_some(()),
            || format!("the timer's first pass:\n{}", log()),
        );
        scene.route_comes_back("the timer", log);
        let journal = log();
        assert!(!journal.contains("Failed "), "{journal}");
        // The commands find the state of the unit by the role alone.
        let history = machine.ok(&format!("trailblazer history -c {CONFIG}"));
        assert!(history.contains("changed"), "{history}");
        let with_key = format!("AWS_SHARED_CREDENTIALS_FILE={KEY_FILE}");
        let status = format!("{with_key} trailblazer status -c {CONFIG}");
        eventually("a pass on time", || {
            machine.run(&status).stdout.contains("IN SYNC")
        });
        let page = machine.run(&status).stdout;
        assert!(
            page.contains("trailblazer-vpc.timer runs the passes"),
            "{page}"
        );

        machine.ok("systemctl disable --now trailblazer-vpc.timer");
        let writes = scene.cloud.writes();
        machine.ok(&format!("systemctl enable --now {AGENT}"));
        wait_in_force(&machine, 0);
        assert_eq!(scene.cloud.writes(), writes);
        let after = machine.ok(&format!("trailblazer history -c {CONFIG}"));
        assert!(after.lines().count() >= history.lines().count(), "{after}");
        assert_secret_is_kept(&machine);
        machine.shutdown();
    });
}
