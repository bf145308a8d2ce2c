//! Namespaces of the benchmark's own: nothing of the machine's is touched.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Command, ExitCode};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

#[path = "programs.rs"]
pub mod programs;

use super::Res;
pub use programs::{command, ip_batch};

/// Set in the environment of the program that runs in separate namespaces.
pub const INSIDE: &str = "TRAILBLAZER_BENCH_ISOLATED";

/// The gateways of the routes, and the NAT of the egress path.
pub const GATEWAY4: &str = "10.0.1.1";
/// As above.
pub const GATEWAY6: &str = "2600:1f18:1000:1::1";
/// The link address of all neighbours.
const NEIGHBOUR: &str = "02:00:00:00:00:01";
/// The NATs of the egress path.
const NATS: [&str; 2] = ["10.0.1.10", "2600:1f18:1000:1::10"];

/// A directory on a tmpfs, where `fsync` is free, so that the disk is not measured.
pub const DIRECTORY: &str = "/run/bench";

/// True if this process is already in separate namespaces.
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Restarts this program in fresh user, network, mount and process namespaces.
pub fn enter() -> ExitCode {
    enter_with("-Urnmpf")
}

/// Restarts this program in the namespaces of these flags of unshare(1).
pub fn enter_with(namespaces: &str) -> ExitCode {
    let started = std::env::current_exe().and_then(|own| {
        Command::new("unshare")
            .args([namespaces, "--kill-child", "--mount-proc"])
            .arg(own)
            .args(std::env::args_os().skip(1))
            .env(INSIDE, "1")
            .status()
    });
    match started {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cannot start again under `unshare` (install util-linux): {error}");
            ExitCode::FAILURE
        }
    }
}

/// A private `/run`, for `ip netns` and for our files.
pub fn prepare() -> Res<()> {
    command("mount", &["-t", "tmpfs", "tmpfs", "/run"])?;
    std::fs::create_dir_all(DIRECTORY)?;
    Ok(())
}

/// A network namespace with one link, to neighbours whose link addresses are known and who never answer.
#[derive(Debug)]
pub struct Ns(File);

impl Ns {
    /// Creates the namespace.
    pub fn create(name: &str) -> Res<Ns> {
        command("ip", &["netns", "add", name])?;
        let ns = Ns(File::open(format!("/run/netns/{name}"))?);
        ns.enter()?;
        std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0")?;
        ip_batch(&format!(
            "link set lo up\n\
             link add eth0 type veth peer name far0\n\
             link set far0 address {NEIGHBOUR}\n\
             link set eth0 up\n\
             link set far0 up\n\
             addr add 10.0.1.11/24 dev eth0\n\
             addr add 2600:1f18:1000:1::11/64 dev eth0 nodad\n\
             route add default via {GATEWAY4} dev eth0\n\
             route add default via {GATEWAY6} dev eth0\n"
        ))?;
        // A neighbour without an answer to ARP is a fault that an agent reports.
        let neighbours = [GATEWAY4, GATEWAY6].into_iter().chain(NATS);
        let entry =
            |address| format!("neigh add {address} lladdr {NEIGHBOUR} dev eth0 nud permanent\n");
        ip_batch(&neighbours.map(entry).collect::<String>())?;
        Ok(ns)
    }

    /// Moves this thread into the namespace, along with later processes and sockets.
    pub fn enter(&self) -> Res<()> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(())
    }
}

/// Waits until the kernel has freed the last contender's routes (after an RCU grace period), so
/// that no contender pays for another's routes.
pub fn settle(routes: usize) {
    std::thread::sleep(Duration::from_millis(10 + routes as u64 / 500));
}

/// A description of the machine.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "Linux {}, {cores} cores, load {}.",
        kernel.trim(),
        load.split(' ').take(3).collect::<Vec<_>>().join(" ")
    )
}
