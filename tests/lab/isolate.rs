//! Runs a test (or the demo) inside a user, network, mount and pid namespace of its own.
//!
//! The outer process starts its own binary again, filtered to the one test, under `unshare`.
//! Everything that the inner process makes (namespaces, mounts, servers, background processes)
//! dies with the pid namespace, however the test ends: there is nothing to clean up and nothing
//! of the machine to break. A private tmpfs on `/run` keeps `/run/netns` and
//! `/run/xtables.lock` apart, so that labs run side by side.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// Set in the inner process: the name of the test that it runs.
const INSIDE: &str = "TRAILBLAZER_LAB_INSIDE";

/// A test that isn't over by then is killed with everything that it started.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// The first process of the pid namespace: private `/run`, loopback up, then the real program.
/// The shell stays as pid 1, since a pid 1 ignores the signals that should end it
/// (pid_namespaces(7)), an abort among them.
const PREPARE: &str = "mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/netns /run/lab \
    && ip link set lo up && ip netns add probe && ip netns del probe || exit 97; \"$@\"; exit $?";

/// Whether this process is the inner one.
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs `body` in a process and namespaces of its own, and fails the test as it fails there.
///
/// Call it as the only statement of a `#[test]` function: the name of the test is taken from
/// the closure's type, `crate::module::test::{{closure}}`.
///
/// # Panics
/// When the body panicked, when it never ran, when it took longer than [`DEADLINE`], or when
/// this system doesn't let us make namespaces; then with what to install or to permit.
#[track_caller]
pub fn isolated<F: FnOnce()>(body: F) {
    let path = std::any::type_name::<F>();
    let path = path.strip_suffix("::{{closure}}").unwrap_or(path);
    let name = path.split_once("::").map_or(path, |(_crate, name)| name);
    isolated_named(name, DEADLINE, body);
}

/// Like [`isolated`], with the test's full name and a deadline of its own.
#[track_caller]
pub fn isolated_named(name: &str, deadline: Duration, body: impl FnOnce()) {
    isolated_by(wrapper, name, deadline, body);
}

/// Like [`isolated`], with the machine's own users (as root, or through sudo) and a deadline of its
/// own: for tests whose programs become other users, as services do.
#[track_caller]
pub fn isolated_as_root<F: FnOnce()>(deadline: Duration, body: F) {
    let path = std::any::type_name::<F>();
    let path = path.strip_suffix("::{{closure}}").unwrap_or(path);
    let name = path.split_once("::").map_or(path, |(_crate, name)| name);
    isolated_by(wrapper_as_root, name, deadline, body);
}

#[track_caller]
fn isolated_by(
    wrapper: fn() -> Result<Wrapper, String>,
    name: &str,
    deadline: Duration,
    body: impl FnOnce(),
) {
    let finished = format!("lab: {name} ran to its end");
    if inside() {
        body();
        println!("{finished}");
        return;
    }
    run_inside(wrapper(), name, deadline, &[], &finished);
}

/// Whether this is the test of that name inside its namespaces, which goes on. Outside it is run
/// there, behind the words of `before` (`env PATH=…`, `setpriv …`), and is over when this returns.
///
/// # Panics
/// As [`isolated`].
#[track_caller]
pub fn is_isolated(name: &str, before: &[&str]) -> bool {
    let inside = inside();
    if !inside {
        run_inside(wrapper(), name, DEADLINE, before, "1 passed");
    }
    inside
}

/// Has this test binary run one test alone inside, behind the words of `before`. It must succeed,
/// and print what shows that it ran.
#[track_caller]
fn run_inside(
    wrapper: Result<Wrapper, String>,
    name: &str,
    deadline: Duration,
    before: &[&str],
    shows: &str,
) {
    let wrapper = match wrapper {
        Ok(wrapper) => wrapper,
        Err(why) => panic!("{why}"),
    };
    let own = own_binary();
    let mut words: Vec<&OsStr> = before.iter().map(OsStr::new).collect();
    words.extend([
        own.as_os_str(),
        OsStr::new(name),
        OsStr::new("--exact"),
        OsStr::new("--nocapture"),
        OsStr::new("--include-ignored"),
        OsStr::new("--test-threads=1"),
    ]);
    let mut command = wrapper.command(name, deadline, &words);
    let started = Instant::now();
    let (status, output) = run(&mut command, deadline);
    // libtest captures this and shows it only when the test fails.
    println!("{output}");
    match status {
        None => panic!(
            "{name} was not over after {} s and was killed (output above)",
            deadline.as_secs()
        ),
        Some(status) if !status.success() => panic!(
            "{name} failed inside its namespaces, {status}, after {} ms (output above)",
            started.elapsed().as_millis()
        ),
        // A filter that matches no test succeeds too: never take that for a pass.
        Some(_) if !output.contains(shows) => panic!(
            "no test named `{name}` ran inside the namespaces: call lab::isolated directly from \
             the #[test] function, or lab::isolated_named with the test's full name"
        ),
        Some(_) => {}
    }
}

/// For programs that aren't tests: starts this program again inside namespaces, with the same
/// arguments and the same terminal, and returns its exit code; `None` when we are inside already.
///
/// # Errors
/// What to install or to permit, when this system doesn't let us make namespaces.
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

/// This program's file.
fn own_binary() -> std::path::PathBuf {
    std::env::current_exe().expect("the kernel knows the file of a running program")
}

/// How this system lets us make namespaces.
#[derive(Debug, Clone, Copy)]
enum Wrapper {
    /// In a user namespace of our own, as root or as anybody.
    User,
    /// As root without a user namespace (containers with CAP_SYS_ADMIN but no user namespaces).
    Root,
    /// Through a sudo that asks for no password.
    Sudo,
}

impl Wrapper {
    /// The command that runs `words` inside fresh namespaces, with [`INSIDE`] set to `name`.
    fn command(self, name: &str, deadline: Duration, words: &[&OsStr]) -> Command {
        let mut command = match self {
            Wrapper::User | Wrapper::Root => {
                // A killed test takes its namespaces along, instead of leaving them to run.
                let mut command = Command::new("setpriv");
                command.args(["--pdeathsig", "KILL", "unshare"]);
                command
            }
            Wrapper::Sudo => {
                let mut command = Command::new("sudo");
                // We may not kill what belongs to root: let root do it, a little later than we would.
                let limit = (deadline.as_secs() + 2).to_string();
                command.args(["-n", "timeout", "--signal=KILL", &limit, "env"]);
                // sudo forgets the environment: hand over what the tests speak of.
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
            // One after the other: the files of a network namespace that begins before its user
            // namespace has a root belong to the machine's (/proc/net/ip_tables_names).
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

/// Debian leaves `ip`, `nft` and `iptables` out of a user's PATH.
fn path_with_sbin() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/local/sbin:/usr/sbin:/sbin")
}

/// The way that works here; found out once a process, by trying.
///
/// # Errors
/// What was tried, what it said, and what to install or to permit.
fn wrapper() -> Result<Wrapper, String> {
    static WRAPPER: OnceLock<Result<Wrapper, String>> = OnceLock::new();
    WRAPPER.get_or_init(find_wrapper).clone()
}

/// The way that works here without a user namespace.
fn wrapper_as_root() -> Result<Wrapper, String> {
    match rustix::process::geteuid().is_root() {
        true => try_wrappers(&[Wrapper::Root]),
        false => try_wrappers(&[Wrapper::Sudo]),
    }
}

fn find_wrapper() -> Result<Wrapper, String> {
    match rustix::process::geteuid().is_root() {
        true => try_wrappers(&[Wrapper::User, Wrapper::Root]),
        false => try_wrappers(&[Wrapper::User, Wrapper::Sudo]),
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
        "the lab needs network namespaces of its own and this system gives it none. Tried:\n\
         {tried}{}",
        advice()
    ))
}

/// What stands in the way, as far as one can see.
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

/// Runs a command with its output collected; `None` when it had to be killed.
fn run(command: &mut Command, deadline: Duration) -> (Option<ExitStatus>, String) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the probe has started the same command before");
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
        // --kill-child takes pid 1 of the namespace along, and the kernel the rest.
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
            let _what_came_so_far = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
