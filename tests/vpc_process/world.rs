//! A VPC behind HTTP, a config, and processes with credentials in their environment.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cloud::{Cloud, Keys, Serve, Server, Signature, sample, serve};
use serde_json::Value;
use tempfile::TempDir;

pub use cloud::sample::{EIGW, IGW, TABLE};

pub const REGION: &str = "us-east-1";
pub const ACCESS: &str = "AKIDTRAILBLAZER00001";
pub const SECRET: &str = "wJalrXUtnFEMIbPxRfiCYsecretOfTheTests001";
pub const SESSION: &str = "IQoJb3JpZ2luX2VjEJvTokenOfTheTests002";
pub const TOKEN: u64 = 1_700_000_000;

/// Far longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The secrets that no output may hold.
pub const SECRETS: [&str; 3] = [SECRET, SESSION, "Credential="];

/// An account behind HTTP, and the files of a writer.
pub struct Scene {
    pub directory: TempDir,
    pub cloud: Cloud,
    pub server: Server,
}

impl Scene {
    /// An account whose server checks signatures, and a config with `more` at its end.
    pub fn new(more: &str) -> Scene {
        Scene::make(more, 0)
    }

    /// The same with a server whose clock is ahead by some seconds.
    pub fn with_clock(ahead: i64) -> Scene {
        Scene::make("", ahead)
    }

    fn make(more: &str, clock_offset: i64) -> Scene {
        let cloud = sample::account();
        let settings = Serve {
            signature: Signature::Verified(Keys {
                access: ACCESS.to_owned(),
                secret: SECRET.to_owned(),
                token: Some(SESSION.to_owned()),
            }),
            clock_offset,
            ..Serve::default()
        };
        let server = serve(&cloud, settings).unwrap();
        let scene = Scene {
            directory: tempfile::tempdir().unwrap(),
            cloud,
            server,
        };
        scene.configure(more);
        let prefixes = ["52.216.0.0/15", "54.231.0.0/16", "2600:1fa0::/40"];
        scene.publish(TOKEN, &prefixes);
        scene
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes the config, with `more` in `[vpc_plane]`.
    pub fn configure(&self, more: &str) {
        self.write_config(TABLE, more);
    }

    /// The same for another table.
    pub fn write_config(&self, table: &str, more: &str) {
        let path = self.directory.path().display();
        let text = format!(
            "role = \"vpc\"\n[source]\nurl = \"{path}/ip-ranges.json\"\nstate_dir = \"{path}/state\"\n\
             refresh = \"1s\"\n[agent]\nsocket = \"{path}/run/control.sock\"\nmetrics = \"{}\"\n\
             [guard]\nhold_down = \"0s\"\nmax_loss = \"100%\"\nmax_gain = \"100000%\"\n\
             [vpc]\nmetadata = \"off\"\n\
             [vpc_plane]\nregion = \"{REGION}\"\ntables = [\"{table}\"]\nfloor = 1\n\
             writes_per_second = 100\ntarget.ipv4 = \"{IGW}\"\ntarget.ipv6 = \"{EIGW}\"\n{more}\n",
            self.metrics()
        );
        std::fs::write(self.path("c.toml"), text).unwrap();
    }

    /// An address that no other scene has: the port of the server, on another address of the loopback
    /// network.
    pub fn metrics(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 2], self.server.address().port()))
    }

    /// Puts a document of S3 at the source.
    pub fn publish(&self, token: u64, prefixes: &[&str]) {
        let of = |v4: bool, key: &str| {
            let mine = prefixes.iter().filter(|it| it.contains('.') == v4);
            let rows = mine.map(|prefix| {
                format!(
                    "{{\"{key}\": \"{prefix}\", \"region\": \"{REGION}\", \"service\": \"S3\", \
                     \"network_border_group\": \"{REGION}\"}}"
                )
            });
            rows.collect::<Vec<_>>().join(", ")
        };
        let date = jiff::Timestamp::from_second(token as i64).unwrap();
        let text = format!(
            "{{\"syncToken\": \"{token}\", \"createDate\": \"{}\", \"prefixes\": [{}], \
             \"ipv6_prefixes\": [{}]}}",
            date.strftime("%Y-%m-%d-%H-%M-%S"),
            of(true, "ip_prefix"),
            of(false, "ipv6_prefix")
        );
        // At once: an agent may read at any moment.
        std::fs::write(self.path("new.json"), text).unwrap();
        std::fs::rename(self.path("new.json"), self.path("ip-ranges.json")).unwrap();
    }

    /// A command with credentials.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trailblazer"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("AWS_ACCESS_KEY_ID", ACCESS)
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .env("AWS_SESSION_TOKEN", SESSION)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_ENDPOINT_URL_EC2", self.server.url())
            .args(words)
            .arg("-c")
            .arg(self.path("c.toml"));
        command
    }

    /// Runs a command.
    pub fn run(&self, words: &[&str]) -> Output {
        finish(&mut self.command(words))
    }

    /// The status of the agent, as JSON.
    pub fn status(&self) -> Value {
        let output = self.run(&["status", "-o", "json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// Waits for a state of the agent.
    #[track_caller]
    pub fn wait_for_state(&self, agent: &Agent, state: &str) -> Value {
        let mut last = Value::Null;
        let came = eventually(|| {
            last = self.status();
            last["state"] == state || last["agent"] == "not_running" && !agent.is_alive()
        });
        let came = came && last["state"] == state;
        assert!(came, "no {state}: {last}\n{}", agent.log());
        last
    }

    /// The ids of our lists of a family.
    pub fn list(&self, family: &str) -> Option<String> {
        let mut lists = self.cloud.lists_named(&format!("trailblazer-s3-{family}"));
        assert!(lists.len() <= 1, "{lists:?}");
        lists.pop()
    }

    /// The entries of our IPv4 list.
    pub fn ipv4(&self) -> Vec<String> {
        let list = self.list("ipv4").unwrap_or_default();
        let prefixes = self.cloud.prefixes(&list);
        prefixes.iter().map(ToString::to_string).collect()
    }

    /// Asks the agent over HTTP. Returns the status and the body.
    pub fn get(&self, path: &str) -> (u16, String) {
        use std::io::{Read as _, Write as _};
        let mut stream = TcpStream::connect(self.metrics()).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, body.to_owned())
    }
}

/// Runs a command to its end, and looks for secrets in its output.
pub fn finish(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    refuse_secrets(&text(&output));
    output
}

/// Both outputs.
pub fn text(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    format!("{out}{}", String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
pub fn refuse_secrets(text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{text}");
    }
}

/// Waits until something is true.
pub fn eventually(mut is_true: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if is_true() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

/// A running agent. Killed when dropped.
pub struct Agent {
    child: Child,
    log: PathBuf,
    notified: Arc<Mutex<Vec<String>>>,
}

impl Agent {
    /// Starts an agent as systemd does.
    pub fn start(scene: &Scene) -> Agent {
        Agent::start_with(scene, |_| {})
    }

    /// The same with other variables.
    pub fn start_with(scene: &Scene, change: impl FnOnce(&mut Command)) -> Agent {
        let (log, socket) = (scene.path("agent.log"), scene.path("notify"));
        let _ = std::fs::remove_file(&socket);
        let notify = UnixDatagram::bind(&socket).unwrap();
        let notified: Arc<Mutex<Vec<String>>> = Arc::default();
        let into = Arc::clone(&notified);
        // The queue of a socket takes ten messages; then the agent waits.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = notify.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                into.lock().unwrap().push(text);
            }
        });
        let file = File::create(&log).unwrap();
        let mut command = scene.command(&["agent"]);
        command
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", "2000000")
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        change(&mut command);
        Agent {
            child: command.spawn().unwrap(),
            log,
            notified,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// False after the end of the process, which nobody has waited for.
    fn is_alive(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }

    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        refuse_secrets(&text);
        text
    }

    /// The notifications to systemd so far.
    pub fn notified(&self) -> Vec<String> {
        self.notified.lock().unwrap().clone()
    }

    /// The number of notifications with this text.
    pub fn notifications(&self, text: &str) -> usize {
        let all = self.notified();
        all.iter().filter(|it| it.contains(text)).count()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for the end, and returns the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let mut code = None;
        eventually(|| match self.child.try_wait().unwrap() {
            Some(status) => {
                code = Some(status.code());
                true
            }
            None => false,
        });
        code.flatten()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // An agent that has ended is no fault.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
