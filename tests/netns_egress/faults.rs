//! Faults of routes, rules, addresses and settings.

use crate::packets::Firewall;
use crate::scene::*;
use lab::*;

/// A fault: the way in, the way out, and the expected state between both.
pub struct Row {
    pub name: &'static str,
    pub kinds: &'static [Kind],
    /// The backends that the fault concerns.
    pub firewalls: &'static [Firewall],
    /// The settings with the fault.
    pub settings: fn(&Scene) -> String,
    /// The part of the fault that needs no network.
    pub early: fn(&Scene),
    /// The part that needs a network.
    pub late: fn(&Scene),
    pub mend: fn(&Scene),
    /// The state names one of these; empty for a fault that harms nothing.
    pub names: &'static [&'static str],
    /// Storage is reached by the bypass path, IPv4 and IPv6.
    pub storage: [bool; 2],
    /// A booting agent keeps the first document until the network is there.
    pub keeps_document: bool,
    /// The fault can be seen on a running agent.
    pub running: bool,
    /// The partner is reached, IPv4 and IPv6.
    pub partner: [bool; 2],
}

pub const BOTH: &[Kind] = &[Kind::Host, Kind::Nat];
const EACH: &[Firewall] = &[
    Firewall::Nftables,
    Firewall::Iptables,
    Firewall::IptablesLegacy,
];
const IPTABLES: &[Firewall] = &[Firewall::Iptables, Firewall::IptablesLegacy];
const HOST: &[Kind] = &[Kind::Host];
const NAT: &[Kind] = &[Kind::Nat];

/// A row without a fault.
pub const NONE: Row = Row {
    name: "no fault",
    kinds: BOTH,
    firewalls: &[Firewall::Nftables],
    settings: usual,
    early: |_| {},
    late: |_| {},
    mend: |_| {},
    names: &[],
    storage: [true; 2],
    keeps_document: true,
    running: true,
    partner: [true; 2],
};

pub fn usual(scene: &Scene) -> String {
    scene.settings()
}

/// The default of IPv6 leads to a gateway whose prefix is gone: the kernel refuses each new route.
fn lose_prefix(scene: &Scene) {
    scene.ns().ip_batch(&format!(
        "route replace default via {ROUTER6_GLOBAL} dev priv proto ra metric 512\n\
         route del {SUBNET6} dev priv proto kernel\n"
    ));
}

fn regain_prefix(scene: &Scene) {
    scene.ns().ip_batch(&format!(
        "route add {SUBNET6} dev priv proto kernel metric 256\n\
         route del default via {ROUTER6_GLOBAL} dev priv metric 512\n\
         route replace default via {ROUTER6} dev priv proto ra metric 512\n"
    ));
}

pub const ROWS: &[Row] = &[
    Row {
        firewalls: EACH,
        ..NONE
    },
    Row {
        name: "impossible bypass route",
        kinds: HOST,
        late: lose_prefix,
        mend: regain_prefix,
        names: &["bypass", "egress"],
        storage: [true, false],
        partner: [true, false],
        ..NONE
    },
    Row {
        name: "foreign route in the bypass table",
        early: |scene| {
            scene.shell("ip route replace blackhole 3.5.0.0/19 table 1083 proto 186");
        },
        mend: |scene| {
            scene.shell("ip route del blackhole 3.5.0.0/19 table 1083 proto 186");
        },
        names: &["conflict", "bypass"],
        ..NONE
    },
    Row {
        name: "foreign default in the egress table",
        kinds: HOST,
        early: |scene| {
            scene.shell("ip route add blackhole default table 1084 metric 5000 proto 186");
        },
        mend: |scene| {
            scene.shell("ip route del blackhole default table 1084 metric 5000 proto 186");
        },
        names: &["conflict", "egress"],
        ..NONE
    },
    Row {
        name: "foreign rule on a priority of ours",
        early: |scene| {
            scene.shell("ip rule add pref 30020 from 10.77.0.0/16 lookup main proto 186");
        },
        mend: |scene| {
            scene.shell("ip rule del pref 30020 from 10.77.0.0/16 lookup main proto 186");
        },
        ..NONE
    },
    Row {
        name: "NAT in another subnet",
        kinds: HOST,
        settings: |scene| scene.settings().replace("10.0.1.10", "10.0.2.10"),
        names: &["egress"],
        partner: [false, true],
        ..NONE
    },
    Row {
        name: "IPv6 switched off",
        kinds: HOST,
        early: |scene| {
            scene
                .ns()
                .sysctl(&[("net/ipv6/conf/priv/disable_ipv6", "1")])
        },
        mend: |scene| {
            scene
                .ns()
                .sysctl(&[("net/ipv6/conf/priv/disable_ipv6", "0")]);
            scene.advertise();
        },
        names: &["bypass", "egress"],
        storage: [true, false],
        partner: [true, false],
        ..NONE
    },
    Row {
        name: "blackhole of the administrator",
        early: |scene| {
            scene.shell(
                "ip route add blackhole 3.5.0.0/24; ip route add unreachable 16.182.255.0/24
                 ip -6 route add prohibit 2600:1fa0:8000:ff::/64",
            );
        },
        mend: |scene| {
            scene.shell(
                "ip route del blackhole 3.5.0.0/24; ip route del unreachable 16.182.255.0/24
                 ip -6 route del prohibit 2600:1fa0:8000:ff::/64",
            );
        },
        ..NONE
    },
    Row {
        name: "names outside UTF-8",
        early: |scene| {
            scene.shell(
                "name=$(printf '\\377\\3761')
                 ip link add \"$name\" type veth peer name odd9
                 ip link set dev \"$name\" alias \"$(printf 'caf\\351')\"
                 ip link property add dev \"$name\" altname \"$(printf 'long-\\377')\"",
            );
        },
        mend: |scene| {
            scene.shell("ip link del odd9");
        },
        ..NONE
    },
    Row {
        name: "default through a gateway of the other family",
        kinds: HOST,
        late: |scene| {
            scene.shell(
                "ip -4 route add default src 10.0.1.11 metric 100 via inet6 fe80::1 dev priv",
            );
        },
        mend: |scene| {
            scene.shell("ip -4 route del default metric 100");
        },
        ..NONE
    },
    Row {
        name: "newline in a comment of a foreign rule",
        firewalls: EACH,
        early: |scene| {
            let program = scene.firewall.program("ip");
            scene.shell(&format!(
                "{program} -w -A INPUT -p tcp --dport 9 -m comment --comment \"$(printf 'one\\ntwo')\" -j ACCEPT"
            ));
        },
        mend: |scene| {
            let program = scene.firewall.program("ip");
            scene.shell(&format!("{program} -w -F INPUT"));
        },
        ..NONE
    },
    Row {
        name: "foreign nftables table of our name",
        kinds: HOST,
        early: |scene| {
            scene.shell(
                "nft delete table inet trailblazer 2>/dev/null || :
                 nft add table inet trailblazer || :",
            );
        },
        mend: |scene| {
            scene.shell("nft delete table inet trailblazer");
        },
        names: &["inbound", "conflict"],
        ..NONE
    },
    Row {
        name: "one of two egress addresses missing",
        kinds: NAT,
        firewalls: EACH,
        settings: |scene| with_egress_addresses(scene, "\"198.51.100.4\""),
        names: &["translation"],
        ..NONE
    },
    Row {
        name: "bypass address of nobody",
        kinds: NAT,
        firewalls: EACH,
        settings: |scene| {
            let nobody = "bypass = [\"198.51.100.140\"]\n[vpc]\n";
            scene.settings().replace("[vpc]\n", nobody)
        },
        names: &["translation", "bypass"],
        storage: [false, true],
        ..NONE
    },
    Row {
        name: "foreign nftables table in the place of the translation",
        kinds: NAT,
        early: |scene| {
            scene.ns().nft(
                "table inet trailblazer
                 delete table inet trailblazer
                 table inet trailblazer { }",
            );
        },
        mend: |scene| {
            scene.shell("nft delete table inet trailblazer");
        },
        names: &["translation"],
        storage: [false; 2],
        partner: [false; 2],
        // The deletion of our table opens the egress path until the next pass.
        running: false,
        ..NONE
    },
    Row {
        name: "refused ip6tables of a NAT",
        kinds: NAT,
        firewalls: IPTABLES,
        early: |scene| refuse_ip6tables(scene, "nat"),
        mend: accept_ip6tables,
        names: &["translation"],
        storage: [true, false],
        partner: [true, false],
        ..NONE
    },
    Row {
        name: "refused ip6tables of a host",
        kinds: HOST,
        firewalls: IPTABLES,
        early: |scene| refuse_ip6tables(scene, "mangle"),
        mend: accept_ip6tables,
        names: &["inbound"],
        ..NONE
    },
    Row {
        name: "lost carrier of the bypass interface",
        kinds: NAT,
        late: |scene| scene.unplug(BULK_LINK),
        mend: |scene| scene.plug(BULK_LINK),
        names: &["bypass"],
        storage: [false; 2],
        ..NONE
    },
    Row {
        name: "lost carrier of the egress interface",
        kinds: NAT,
        late: |scene| scene.unplug(PUBLIC_LINK),
        mend: |scene| scene.plug(PUBLIC_LINK),
        names: &["egress", "translation"],
        partner: [false; 2],
        ..NONE
    },
];

/// A refused rule matters once the rules are missing.
fn refuse_ip6tables(scene: &Scene, table: &str) {
    std::fs::write(scratch().join(REFUSING), "").unwrap();
    let program = scene.firewall.program("ip6");
    scene.shell(&format!("{program} -w -t {table} -F"));
}

fn accept_ip6tables(_: &Scene) {
    std::fs::remove_file(scratch().join(REFUSING)).unwrap();
}
