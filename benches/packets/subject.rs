//! The rules of the release binary.

use super::contenders::{Firewall, Role};
use super::scene::code_of;
use super::{Res, arena, documents};

/// The binary under test, of the benchmark's own profile.
const BINARY: &str = env!("CARGO_BIN_EXE_trailblazer");

/// Published in 2023: not in the future of any clock.
const TOKEN: u64 = 1_700_000_000;

/// The exit code of a pass with parts missing.
const DEGRADED: i32 = 1;

/// The families with rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    Both,
    Ipv4,
}

/// Carries out a pass in the namespace of the thread, with a number of prefixes in the selection. Returns
/// the families with rules; some kernels refuse those of IPv6 by iptables, where each prefix is a rule.
pub fn install(name: &str, role: Role, firewall: Firewall, size: usize) -> Res<Served> {
    let directory = format!("{}/{name}", arena::DIRECTORY);
    std::fs::create_dir_all(&directory)?;
    let prefixes = documents::prefixes(size.max(4));
    let mut document = documents::document(TOKEN, &prefixes);
    if size == 0 {
        document = document.replace(&format!("\"{}\"", documents::SERVICE), "\"EC2\"");
    }
    std::fs::write(format!("{directory}/ip-ranges.json"), document)?;
    let file = format!("{directory}/trailblazer.toml");
    std::fs::write(&file, config(&directory, role, firewall))?;
    let (code, said) = code_of(BINARY, &["reconcile", "-c", &file])?;
    // Without a prefix of the selection the bypass path is missing, and the pass says so.
    let degraded = code == Some(DEGRADED);
    if code == Some(0) || degraded && size == 0 {
        return Ok(Served::Both);
    }
    if degraded && firewall == Firewall::Iptables && said.contains("ip6tables-restore") {
        eprintln!(
            "{name}: {} with {size} prefixes serves IPv4 alone: {said}",
            firewall.as_str()
        );
        return Ok(Served::Ipv4);
    }
    Err(format!("{name}: trailblazer ended with {code:?}: {said}").into())
}

fn config(directory: &str, role: Role, firewall: Firewall) -> String {
    let (of_role, nat) = match role {
        Role::Host => (
            "[egress]\ngateways = [\"10.0.1.10\", \"2600:1f18:1000:1::10\"]\n",
            "",
        ),
        Role::Nat => (
            "[bypass]\ninterface = \"bulk\"\n",
            "sources = [\"10.0.1.0/24\", \"2600:1f18:1000:1::/64\"]\n\
             egress_addresses = [\"10.0.0.10\", \"2600:1f18:1000:10::10\"]\n\
             egress_interface = \"pub\"\n",
        ),
    };
    format!(
        "role = \"{role}\"\n\
         [source]\nurl = \"{directory}/ip-ranges.json\"\nstate_dir = \"{directory}/state\"\n\
         [select]\nregions = [\"{region}\"]\nservices = [\"{service}\"]\n\
         [guard]\nmax_loss = \"100%\"\nmax_prefixes = 1000000\n\
         [vpc]\nmetadata = \"off\"\ncidrs = [\"10.0.0.0/16\", \"2600:1f18:1000::/56\"]\n\
         {of_role}[nat]\nbackend = \"{firewall}\"\n{nat}",
        role = role.as_str(),
        firewall = firewall.as_str(),
        region = documents::REGION,
        service = documents::SERVICE,
    )
}
