//! The machine and the versions of a run.

use std::error::Error;

/// Runs a program with arguments, and returns its standard output.
pub type Run = fn(&str, &[&str]) -> Result<String, Box<dyn Error>>;

/// A description of the run's surroundings.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
    /// The load averages at the end of the run.
    pub load: String,
    /// The version of Trailblazer, with the commit in a clone.
    pub trailblazer: String,
    pub binary: String,
    pub iproute2: String,
}

impl Machine {
    /// Asks the machine, and the binary under test.
    ///
    /// # Errors
    /// If a program cannot be run.
    pub fn describe(output: Run, binary: &str) -> Result<Machine, Box<dyn Error>> {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpus = read("/proc/cpuinfo");
        let model = cpus.lines().find(|line| line.starts_with("model name"));
        let cpu = model
            .and_then(|line| line.split_once(':'))
            .map(|(_, name)| name.trim());
        let load = read("/proc/loadavg");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/version.sh");
        Ok(Machine {
            cpu: cpu.unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: load.split(' ').take(3).collect::<Vec<_>>().join(" "),
            trailblazer: output(script, &[])?.trim().to_owned(),
            binary: output(binary, &["--version"])?.trim().to_owned(),
            iproute2: output("ip", &["-V"])?.trim().to_owned(),
        })
    }
}
