//! Runs a test (or the demo) inside user, network, mount and pid namespaces of its own.
//!
//! The outer process starts its own binary again under `unshare`, filtered to one test. All
//! namespaces, mounts, servers and background processes of the inner process die with the pid
//! namespace, however the test ends: nothing needs cleaning up, and no test can break the machine.
//! A private tmpfs on `/run` separates `/run/netns` and `/run/xtables.lock`, so that several
//! labs run in parallel.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// Set in the inner process: the name of the running test.
const INSIDE: &str = "TRAILBLAZER_LAB_INSIDE";

/// The default deadline: a test still running by then is killed with all its processes.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// The script of the pid namespace's first process: a private `/run`, loopback up, then the real
/// program. The shell stays as pid 1, because a pid 1 ignores the signals that should end it
/// (pid_namespaces(7)), an abort among them.
const PREPARE: &str = "mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/netns /run/lab \
    && ip link set lo up && ip netns add probe && ip netns del probe || exit 97; \"$@\"; exit $?";

/// True in the inner process.
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// The full name of the running test; for tests that start their own binary again.
///
/// # Panics
/// Outside the namespaces.
pub fn test_name() -> String {
    std::env::var(INSIDE).expect("called inside lab::isolated")
}

/// Runs `body` in a process and namespaces of its own, with the defaults of [`Isolation`].
///
/// # Panics
/// As [`Isolation::run`].
#[track_caller]
pub fn isolated<F: FnOnce()>(body: F) {
    Isolation::default().run(body);
}

/// The full name of the test function around a closure, read from the closure's type
/// (`crate::module::test::{{closure}}`).
pub fn name_around<F>(_closure: &F) -> &'static str {
    let path = std::any::type_name::<F>();
    let path = path.strip_suffix("::{{closure}}").unwrap_or(path);
    path.split_once("::").map_or(path, |(_crate, name)| name)
}

/// Settings of an isolated process.
#[derive(Debug, Clone)]
pub struct Isolation {
    deadline: Duration,
    as_root: bool,
    /// Words in front of the inner process's command: `env PATH=…`, `setpriv …`.
    wrapped_in: Vec<String>,
}

impl Default for Isolation {
    fn default() -> Isolation {
        Isolation {
            deadline: DEADLINE,
            as_root: false,
            wrapped_in: Vec::new(),
        }
    }
}

impl Isolation {
    /// Replaces the default deadline.
    pub fn deadline(mut self, deadline: Duration) -> Isolation {
        self.deadline = deadline;
        self
    }

    /// Keeps the machine's own users (as root, or through sudo) instead of a user namespace: for
    /// programs that become other users, as services do.
    pub fn as_root(mut self) -> Isolation {
        self.as_root = true;
        self
    }

    /// Drops all capabilities of the inner process.
    pub fn without_capabilities(self) -> Isolation {
        self.wrapped_in(["setpriv", "--bounding-set=-all", "--inh-caps=-all"])
    }

    /// Gives the inner process another `PATH`.
    pub fn path(self, path: &str) -> Isolation {
        self.wrapped_in(["env", &format!("PATH={path}")])
    }

    fn wrapped_in<const N: usize>(mut self, words: [&str; N]) -> Isolation {
        self.wrapped_in.extend(words.map(str::to_owned));
        self
    }

    /// Runs `body` in a process and namespaces of its own; a failure there fails the test here.
    /// The closure must stand directly in the `#[test]` function, because the test's name comes
    /// from the closure's type.
    ///
    /// # Panics
    /// If the body panics, never runs or exceeds the deadline; or if the system permits no
    /// namespaces: the message then names the missing package or setting.
    #[track_caller]
    pub fn run<F: FnOnce()>(&self, body: F) {
        self.run_named(name_around(&body), body);
    }

    /// Like [`Isolation::run`], with the test's full name: for helpers that wrap the closure.
    ///
    /// # Panics
    /// As [`Isolation::run`].
    #[track_caller]
    pub fn run_named(&self, name: &str, body: impl FnOnce()) {
        let finished = format!("lab: {name} ran to its end");
        if inside() {
            body();
            println!("{finished}");
            return;
        }
        self.run_inside(name, &finished);
    }

    /// Starts this test binary again in namespaces, for one test. A success counts only if the
    /// output contains `finished`.
    #[track_caller]
    fn run_inside(&self, name: &str, finished: &str) {
        let wrapper = if self.as_root {
            wrapper_as_root()
        } else {
            wrapper()
        };
        let wrapper = wrapper.unwrap_or_else(|error| panic!("{error}"));
        let own = own_binary();
        let mut words: Vec<&OsStr> = self.wrapped_in.iter().map(OsStr::new).collect();
        words.extend([
            own.as_os_str(),
            OsStr::new(name),
            OsStr::new("--exact"),
            OsStr::new("--nocapture"),
            OsStr::new("--include-ignored"),
            OsStr::new("--test-threads=1"),
        ]);
        let mut command = wrapper.command(name, self.deadline, &words);
        let started = Instant::now();
        let (status, output) = run(&mut command, self.deadline);
        // libtest captures this output and shows it only for a failed test.
        println!("{output}");
        match status {
            None => panic!(
                "{name} exceeded its deadline of {} s and was killed (output above)",
                self.deadline.as_secs()
            ),
            Some(status) if !status.success() => panic!(
                "{name} failed inside its namespaces, {status}, after {} ms (output above)",
                started.elapsed().as_millis()
            ),
            // libtest succeeds too if its filter matches no test: never count that as a pass.
            Some(_) if !output.contains(finished) => panic!(
                "no test named `{name}` ran inside the namespaces: call lab::isolated directly \
                 in the #[test] function, or Isolation::run_named with the test's full name"
            ),
            Some(_) => {}
        }
    }
}

/// Runs the present test once more, in a new user namespace: there even root has no privilege over
/// the network namespace. True in that second run; false in the first run, once the second one
/// has succeeded.
///
/// # Panics
/// If the second run fails.
#[track_caller]
pub fn again_without_privilege() -> bool {
    const AGAIN: &str = "TRAILBLAZER_LAB_AGAIN";
    if std::env::var_os(AGAIN).is_some() {
        return true;
    }
    let output = Command::new("unshare")
        .arg("--user")
        .arg(own_binary())
        .args([test_name().as_str(), "--exact", "--nocapture"])
        .env(AGAIN, "1")
        .output()
        .expect("unshare started this process already");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "the test failed without privileges:\n{text}"
    );
    false
}

/// Starts this program (no test: the demo) again inside namespaces, with the same arguments and
/// terminal, and returns the exit code; `None` in the inner process.
///
/// # Errors
/// If the system permits no namespaces; the text names the missing package or setting.
pub fn enter(program: &str) -> Result<Option<i32>, String> {
    if inside() {
        return Ok(None);
    }
    let wrapper = wrapper()?;
    let own = own_binary();
    let mut words: Vec<OsString> = vec![own.into()];
    words.extend(std::env::args_os().skip(1));
    let words: Vec<&OsStr> = words.iter().map(AsRef::as_ref).collect();
    let status = wrapper
        .command(program, DEADLINE, &words)
        .status()
        .map_err(|error| format!("cannot start unshare: {error}"))?;
    Ok(Some(status.code().unwrap_or(1)))
}

fn own_binary() -> std::path::PathBuf {
    std::env::current_exe().expect("the kernel knows the file of a running program")
}

/// A way to create namespaces.
#[derive(Debug, Clone, Copy)]
enum Wrapper {
    /// In a user namespace, as any user.
    User,
    /// As root without a user namespace (containers with CAP_SYS_ADMIN but no user namespaces).
    Root,
    /// Through a sudo without a password.
    Sudo,
}

impl Wrapper {
    /// The command that runs `words` inside fresh namespaces, with [`INSIDE`] set to `name`.
    fn command(self, name: &str, deadline: Duration, words: &[&OsStr]) -> Command {
        let mut command = match self {
            Wrapper::User | Wrapper::Root => {
                // Killing the outer test also kills the processes in the namespaces.
                let mut command = Command::new("setpriv");
                command.args(["--pdeathsig", "KILL", "unshare"]);
                command
            }
            Wrapper::Sudo => {
                let mut command = Command::new("sudo");
                // An ordinary user cannot kill root's processes: `timeout` runs as root and kills
                // them a little after our own deadline.
                let limit = (deadline.as_secs() + 2).to_string();
                command.args(["-n", "timeout", "--signal=KILL", &limit, "env"]);
                // sudo clears the environment: pass on the variables that tests read.
                for (key, value) in std::env::vars_os() {
                    let text = key.to_string_lossy().into_owned();
                    let ours = ["TRAILBLAZER", "RUST", "PROPTEST"];
                    if ours.iter().any(|start| text.starts_with(start)) {
                        let mut word = key;
                        word.push("=");
                        word.push(&value);
                        command.arg(word);
                    }
                }
                command.arg(format!("{INSIDE}={name}")).arg("unshare");
                command
            }
        };
        if matches!(self, Wrapper::User) {
            // Two calls of unshare, one after the other. If the network namespace started before
            // its user namespace had a root user, its files (/proc/net/ip_tables_names) would
            // belong to the machine's root user.
            command.args(["--user", "--map-root-user", "unshare"]);
        }
        command
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child"])
            .args(["--mount-proc", "sh", "-c", PREPARE, "sh"])
            .args(words)
            .env(INSIDE, name)
            .env("PATH", path_with_sbin());
        command
    }
}

/// Debian's PATH for users lacks the directories of `ip`, `nft` and `iptables`.
fn path_with_sbin() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/local/sbin:/usr/sbin:/sbin")
}

/// The first working way on this system; tried once a process.
///
/// # Errors
/// The attempts with their output, and advice.
fn wrapper() -> Result<Wrapper, String> {
    static WRAPPER: OnceLock<Result<Wrapper, String>> = OnceLock::new();
    WRAPPER.get_or_init(find_wrapper).clone()
}

/// The first working way without a user namespace.
fn wrapper_as_root() -> Result<Wrapper, String> {
    if rustix::process::geteuid().is_root() {
        try_wrappers(&[Wrapper::Root])
    } else {
        try_wrappers(&[Wrapper::Sudo])
    }
}

fn find_wrapper() -> Result<Wrapper, String> {
    if rustix::process::geteuid().is_root() {
        try_wrappers(&[Wrapper::User, Wrapper::Root])
    } else {
        try_wrappers(&[Wrapper::User, Wrapper::Sudo])
    }
}

fn try_wrappers(candidates: &[Wrapper]) -> Result<Wrapper, String> {
    let mut tried = String::new();
    for candidate in candidates {
        match candidate
            .command("probe", DEADLINE, &[OsStr::new("true")])
            .output()
        {
            Ok(output) if output.status.success() => return Ok(*candidate),
            Ok(output) => tried.push_str(&format!(
                "  {candidate:?}: {}, {}\n",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            )),
            Err(error) => tried.push_str(&format!("  {candidate:?}: {error}\n")),
        }
    }
    Err(format!(
        "the lab needs its own network namespaces, but this system permits none. Tried:\n\
         {tried}{}",
        advice()
    ))
}

/// The likely obstacles, and commands against them.
fn advice() -> String {
    let setting = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut advice = String::from("To do:\n");
    for (tool, package) in [
        ("unshare", "util-linux"),
        ("setpriv", "util-linux"),
        ("mount", "mount"),
        ("ip", "iproute2"),
        ("nft", "nftables"),
    ] {
        let found = path_with_sbin()
            .split(':')
            .any(|directory| Path::new(directory).join(tool).exists());
        if !found {
            advice.push_str(&format!(
                "  install {package} (`{tool}` is missing; or: make deps)\n"
            ));
        }
    }
    if setting("/proc/sys/kernel/unprivileged_userns_clone").trim() == "0" {
        advice.push_str("  sysctl -w kernel.unprivileged_userns_clone=1, or run as root\n");
    }
    if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").trim() == "1" {
        advice.push_str(
            "  sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or run as root\n",
        );
    }
    if setting("/proc/sys/user/max_user_namespaces").trim() == "0" {
        advice.push_str("  sysctl -w user.max_user_namespaces=10000, or run as root\n");
    }
    advice.push_str("  or run as root, or with a sudo that asks for no password\n");
    advice.push_str("  in a container: --privileged, or CAP_SYS_ADMIN, CAP_NET_ADMIN and no seccomp filter of unshare and mount\n");
    advice
}

/// Runs a command and collects its output; the status is `None` after the deadline killed it.
fn run(command: &mut Command, deadline: Duration) -> (Option<ExitStatus>, String) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the probe started the same command before");
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let started = Instant::now();
    let running = |child: &mut Child| {
        let status = child.try_wait();
        status.expect("our own child can be waited for").is_none()
    };
    while running(&mut child) && started.elapsed() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    let late = running(&mut child);
    if late {
        // --kill-child kills pid 1 of the namespace, and the kernel all its other processes.
        let _already_gone = child.kill();
    }
    let status = child.wait().expect("our own child can be waited for");
    let mut output = stdout.join().expect("the collecting thread doesn't panic");
    output.push_str(&stderr.join().expect("the collecting thread doesn't panic"));
    ((!late).then_some(status), output)
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _read_so_far = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
