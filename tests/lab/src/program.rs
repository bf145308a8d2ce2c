//! The built binary and its configs, inside the lab.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{IMDS, Ns, Output};

/// A directory on the private tmpfs of the isolated process.
pub fn scratch() -> PathBuf {
    let directory = PathBuf::from("/run/lab");
    std::fs::create_dir_all(&directory).expect("/run is our own tmpfs inside lab::isolated");
    directory
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let repository = own.ancestors().nth(2);
    repository.expect("the lab lies in tests/lab").to_owned()
}

/// The built binary. Cargo puts tests, benches and examples into `target/<profile>/<directory>`
/// and the binary beside that directory.
pub fn binary() -> PathBuf {
    let own = std::env::current_exe().expect("the kernel knows the file of a running program");
    let profile = own.parent().and_then(Path::parent);
    profile.expect("target/<profile>").join("trailblazer")
}

/// Writes a config and returns the path; `$STATE` in the text becomes a state directory. The real
/// default below `/var/lib` belongs to the machine: the config of every test names another.
pub fn write_config(name: &str, text: &str) -> String {
    let directory = scratch().join(name);
    std::fs::create_dir_all(&directory).expect("the scratch directory is writable");
    let path = directory.join("trailblazer.toml");
    let text = text.replace("$STATE", &directory.join("state").to_string_lossy());
    // By rename, because a running agent may read the file.
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).expect("the scratch directory is writable");
    std::fs::rename(&beside, &path).expect("the scratch directory is writable");
    path.to_string_lossy().into_owned()
}

/// Runs the built binary in a namespace, to its end.
pub fn trailblazer(ns: &Ns, arguments: &[&str]) -> Output {
    ns.exec_command(&mut trailblazer_command(arguments))
}

/// AWS's variable with the endpoint of the metadata service.
pub const IMDS_ENDPOINT: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";

/// The command of the built binary: no input, no colours, and none of the caller's variables with
/// an influence on the result (a proxy outside the lab, another metadata endpoint). The lab is no
/// EC2 instance, so a variable permits questions to the lab's metadata service.
pub fn trailblazer_command(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command
        .args(arguments)
        .stdin(Stdio::null())
        .env("NO_COLOR", "1");
    for (key, _) in std::env::vars_os() {
        let name = key.to_string_lossy().to_ascii_lowercase();
        if name.ends_with("_proxy") || name.starts_with("aws_") || name == "rust_log" {
            command.env_remove(&key);
        }
    }
    command.env(IMDS_ENDPOINT, format!("http://{IMDS}"));
    command
}

/// A library of libfaketime for `LD_PRELOAD`: falsifies the wall clock.
pub fn faketime(name: &str) -> PathBuf {
    let mut found = ["/usr/lib", "/usr/lib64"]
        .iter()
        .flat_map(|directory| std::fs::read_dir(directory).into_iter().flatten())
        .flatten()
        .map(|entry| entry.path())
        .flat_map(|path| [path.join("faketime"), path])
        .map(|path| path.join(name))
        .filter(|path| path.is_file());
    found
        .next()
        .unwrap_or_else(|| panic!("no {name}: make deps"))
}
