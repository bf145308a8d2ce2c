//! Checks of an installed package, the same for .deb and .rpm.

use crate::built::repository;
use lab::root::Root;

/// An administrator's config; the document comes from a file.
const CONFIG: &str = "\
role = \"host\"
[source]
url = \"/srv/ip-ranges.json\"
[select]
regions = [\"us-east-1\"]
[egress]
gateways = [\"10.0.1.10\"]
";

/// A VPC host's network, in the namespace of one [`Root::sh`].
const NETWORK: &str = "\
set -e
ip link set lo up
ip link add priv type veth peer name vpc
ip address add 10.0.1.11/24 dev priv
ip link set priv up
ip link set vpc up
ip route add default via 10.0.1.1
";

/// Runs a script in a fresh network namespace.
#[track_caller]
pub fn in_network(root: &Root, script: &str) -> String {
    let output = root.sh(&format!("{NETWORK}{script}"));
    assert_eq!(output.code, 0, "{script}\n{output}");
    output.stdout
}

/// Runs a script that must succeed.
#[track_caller]
pub fn must_sh(root: &Root, script: &str) -> String {
    let output = root.sh(script);
    assert_eq!(output.code, 0, "{script}\n{output}");
    output.stdout
}

/// Writes the config and the document for the steps below.
#[track_caller]
pub fn configure(root: &Root) {
    let document = repository().join("examples/ip-ranges.json");
    root.put(&document, "/srv/ip-ranges.json");
    must_sh(
        root,
        &format!("cat >/etc/trailblazer/trailblazer.toml <<'END'\n{CONFIG}END\n"),
    );
}

/// Commands that need no running system, without a config and with one.
#[track_caller]
pub fn every_command_works(root: &Root) {
    let version = must_sh(root, "trailblazer --version");
    // With the commit and its date in a clone, without in a source archive.
    let expected = concat!("trailblazer ", env!("CARGO_PKG_VERSION"));
    assert!(version.starts_with(expected), "{version}");

    let unconfigured = root.sh("trailblazer reconcile --dry-run");
    assert_eq!(unconfigured.code, 64, "{unconfigured}");

    configure(root);
    let check = in_network(root, "trailblazer check -o json");
    assert!(!check.contains("\"fail\""), "{check}");

    let plan = in_network(root, "trailblazer reconcile --dry-run || test $? = 2");
    // Columns are as wide as their content requires.
    let plan = plan.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "+ 52.216.0.0/15 via 10.0.1.1 dev priv",
        "+ default via 10.0.1.10 dev priv",
        "Nothing was changed.",
    ] {
        assert!(plan.contains(part), "{part}\n{plan}");
    }
    // As in an image build: the agent's user must be able to continue from the files.
    must_sh(root, "trailblazer reconcile --cache-only");
    let owners = must_sh(
        root,
        "stat -c '%U:%G %a %n' /var/lib/trailblazer/* /var/lib/trailblazer",
    );
    for line in owners.lines() {
        assert!(line.starts_with("trailblazer:trailblazer "), "{owners}");
    }
    assert!(owners.contains(" 750 /var/lib/trailblazer\n"), "{owners}");
}

/// The names of our tables and protocol, by the system's own `ip`; the pass runs as in the unit,
/// under the package's user with one capability.
#[track_caller]
pub fn ip_knows_our_names(root: &Root) {
    let said = in_network(
        root,
        "setpriv --reuid trailblazer --regid trailblazer --clear-groups --no-new-privs \
            --inh-caps -all,+net_admin --ambient-caps -all,+net_admin \
            --bounding-set -all,+net_admin trailblazer reconcile >/tmp/said
         ip route show table bypass proto trailblazer
         ip route show table egress proto trailblazer
         ip rule show
         trailblazer flush >>/tmp/said
         rm /tmp/said
         echo left: $(ip route show table all proto trailblazer; ip rule show | grep trailblazer)",
    );
    for part in [
        "52.216.0.0/15 via 10.0.1.1 dev priv",
        "default via 10.0.1.10 dev priv",
        "lookup bypass realms 83 proto trailblazer",
        "lookup egress proto trailblazer",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    assert!(said.ends_with("left:\n"), "{said}");
}
