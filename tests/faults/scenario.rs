//! The scenarios of the fault tests: settings and documents before and after.

use std::net::IpAddr;

use trailblazer::config::Role;

use lab::Ns;

/// Settings and document of one pass.
#[derive(Debug, Clone, Copy)]
pub struct Stage {
    /// The config without `[source]`, `[vpc]`, `role` and `[guard]`.
    pub config: &'static str,
    /// The S3 prefixes of the document.
    pub prefixes: &'static [&'static str],
}

/// A pass between two states.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub role: Role,
    /// The state before; `None` for an untouched host.
    pub before: Option<Stage>,
    pub after: Stage,
    /// The least number of steps in the plan, since a scenario without its steps would show
    /// nothing.
    pub steps: usize,
}

const HOST4: &str = "
    [select]
    families = [\"ipv4\"]
    [egress]
    gateways = [\"10.0.1.10\"]";
const HOST6: &str = "
    [select]
    families = [\"ipv6\"]
    [egress]
    gateways = [\"2600:1f18:1000:1::10\"]";
const BOTH: &str = "
    [egress]
    gateways = [\"10.0.1.10\", \"2600:1f18:1000:1::10\"]";
const GATEWAYS: &str = "
    [egress]
    spread = \"flow\"
    gateways = [\"10.0.1.10\", \"10.0.1.20\", \"2600:1f18:1000:1::10\", \"2600:1f18:1000:1::20\"]";
const OTHER_GATEWAYS: &str = "
    [egress]
    gateways = [\"10.0.1.10\", \"10.0.1.30\", \"10.0.1.40\", \"2600:1f18:1000:1::30\", \"2600:1f18:1000:1::20\"]";
const NAT: &str = "
    [nat]
    sources = [\"10.0.2.0/24\", \"2600:1f18:1000:2::/64\"]
    egress_addresses = [\"10.0.1.11\", \"2600:1f18:1000:1::11\"]";
const NAT4: &str = "
    [nat]
    sources = [\"10.0.2.0/24\"]
    egress_addresses = [\"10.0.1.11\"]";
const NAT_IPTABLES: &str = "
    [nat]
    backend = \"iptables\"
    sources = [\"10.0.2.0/24\"]
    egress_addresses = [\"10.0.1.11\"]";

const FEW: &[&str] = &["3.5.0.0/19", "52.216.0.0/15", "2600:1ff0:8000::/39"];
const OTHERS: &[&str] = &[
    "3.5.0.0/19",
    "54.231.0.0/16",
    "16.182.0.0/16",
    "18.34.232.0/21",
    "2600:1ff9:8000::/40",
    "2a05:d07a:8000::/40",
];

/// Somebody else's firewall.
pub const CORP: &str = "table inet corp { chain post { type nat hook postrouting priority 100; \
    ip daddr 10.99.0.0/16 masquerade; }; }";

/// Every kind of change, both roles, both families.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "first-ipv4",
        role: Role::Host,
        before: None,
        after: Stage {
            config: HOST4,
            prefixes: FEW,
        },
        steps: 16,
    },
    Scenario {
        name: "first-ipv6",
        role: Role::Host,
        before: None,
        after: Stage {
            config: HOST6,
            prefixes: FEW,
        },
        steps: 12,
    },
    Scenario {
        name: "document-change",
        role: Role::Host,
        before: Some(Stage {
            config: BOTH,
            prefixes: FEW,
        }),
        after: Stage {
            config: BOTH,
            prefixes: OTHERS,
        },
        steps: 7,
    },
    Scenario {
        name: "gateways-replaced",
        role: Role::Host,
        before: Some(Stage {
            config: BOTH,
            prefixes: FEW,
        }),
        after: Stage {
            config: "
                [bypass]
                gateway = [\"10.0.1.2\", \"2600:1f18:1000:1::2\"]
                [egress]
                gateways = [\"10.0.1.20\", \"2600:1f18:1000:1::20\"]",
            prefixes: FEW,
        },
        steps: 5,
    },
    Scenario {
        name: "one-gateway-to-several",
        role: Role::Host,
        before: Some(Stage {
            config: BOTH,
            prefixes: FEW,
        }),
        after: Stage {
            config: GATEWAYS,
            prefixes: FEW,
        },
        steps: 2,
    },
    Scenario {
        name: "gateways-change",
        role: Role::Host,
        before: Some(Stage {
            config: GATEWAYS,
            prefixes: FEW,
        }),
        after: Stage {
            config: OTHER_GATEWAYS,
            prefixes: FEW,
        },
        steps: 2,
    },
    Scenario {
        name: "several-gateways-to-one",
        role: Role::Host,
        before: Some(Stage {
            config: GATEWAYS,
            prefixes: FEW,
        }),
        after: Stage {
            config: BOTH,
            prefixes: FEW,
        },
        steps: 2,
    },
    Scenario {
        name: "several-gateways-removed",
        role: Role::Host,
        before: Some(Stage {
            config: GATEWAYS,
            prefixes: FEW,
        }),
        after: Stage {
            config: "",
            prefixes: FEW,
        },
        steps: 16,
    },
    Scenario {
        name: "other-family",
        role: Role::Host,
        before: Some(Stage {
            config: HOST4,
            prefixes: FEW,
        }),
        after: Stage {
            config: "
                [select]
                families = [\"ipv6\"]",
            prefixes: FEW,
        },
        steps: 18,
    },
    Scenario {
        name: "nat-removed",
        role: Role::Nat,
        before: Some(Stage {
            config: NAT4,
            prefixes: FEW,
        }),
        after: Stage {
            config: "
                [select]
                families = [\"ipv6\"]
                [nat]
                sources = [\"10.0.2.0/24\"]
                egress_addresses = [\"10.0.1.11\"]",
            prefixes: FEW,
        },
        steps: 7,
    },
    Scenario {
        name: "other-numbers",
        role: Role::Host,
        before: Some(Stage {
            config: HOST6,
            prefixes: FEW,
        }),
        after: Stage {
            config: "
                [select]
                families = [\"ipv6\"]
                [bypass]
                table = 2083
                [egress]
                table = 2084
                gateways = [\"2600:1f18:1000:1::10\"]
                [kernel]
                protocol = 84
                priority = 20000",
            prefixes: FEW,
        },
        steps: 20,
    },
    Scenario {
        name: "nat-first",
        role: Role::Nat,
        before: None,
        after: Stage {
            config: NAT,
            prefixes: FEW,
        },
        steps: 12,
    },
    Scenario {
        name: "nat-document-change",
        role: Role::Nat,
        before: Some(Stage {
            config: NAT,
            prefixes: FEW,
        }),
        after: Stage {
            config: NAT,
            prefixes: OTHERS,
        },
        steps: 8,
    },
];

/// Before the pass, both egress defaults use groups of nexthop objects, as earlier versions
/// installed.
pub const UPGRADES: &[Scenario] = &[Scenario {
    name: UPGRADE,
    role: Role::Host,
    before: Some(Stage {
        config: GATEWAYS,
        prefixes: FEW,
    }),
    after: Stage {
        config: GATEWAYS,
        prefixes: FEW,
    },
    steps: 8,
}];
pub const UPGRADE: &str = "upgrade-from-nexthop-objects";

/// Scenarios with iptables; smaller, since each iptables step costs several processes.
pub const IPTABLES: &[Scenario] = &[
    Scenario {
        name: "iptables-first",
        role: Role::Nat,
        before: None,
        after: Stage {
            config: NAT_IPTABLES,
            prefixes: &["3.5.0.0/19"],
        },
        steps: 6,
    },
    Scenario {
        name: "nftables-to-iptables",
        role: Role::Nat,
        before: Some(Stage {
            config: NAT4,
            prefixes: &["3.5.0.0/19"],
        }),
        after: Stage {
            config: NAT_IPTABLES,
            prefixes: &["3.5.0.0/19"],
        },
        steps: 2,
    },
];

impl Scenario {
    /// Two more prefixes beside so many that a pass asks for the changed routes alone.
    pub fn two_more_beside_many() -> Scenario {
        let prefixes = |count: u32| -> &'static [&'static str] {
            let list = (0..count).map(|number| {
                // Every second /24: nothing aggregates.
                let bits = (44 << 24) + (number << 9);
                let prefix = format!("{}/24", std::net::Ipv4Addr::from_bits(bits));
                &*Box::leak(prefix.into_boxed_str())
            });
            Box::leak(list.collect())
        };
        let stage = |prefixes| Stage {
            config: HOST4,
            prefixes,
        };
        Scenario {
            name: "two-more-beside-many",
            role: Role::Host,
            before: Some(stage(prefixes(300))),
            after: stage(prefixes(302)),
            steps: 2,
        }
    }

    /// Returns the scenario `name`.
    pub fn named(name: &str) -> Scenario {
        *ALL.iter()
            .chain(IPTABLES)
            .chain(UPGRADES)
            .find(|scenario| scenario.name == name)
            .unwrap_or_else(|| panic!("no scenario `{name}`"))
    }

    /// Stage 0 is before the pass, stage 1 after.
    pub fn stage(&self, number: usize) -> Stage {
        match number {
            0 => self.before.expect("asked for only where there is one"),
            _ => self.after,
        }
    }

    /// One address in each storage prefix of either document.
    pub fn storage(&self) -> Vec<IpAddr> {
        let before = self.before.map_or(&[] as &[&str], |stage| stage.prefixes);
        let mut all: Vec<IpAddr> = before
            .iter()
            .chain(self.after.prefixes)
            .map(|prefix| lab::address_in(prefix))
            .collect();
        all.sort();
        all.dedup();
        all
    }

    /// Turns the egress defaults of the earlier stage into the nexthop objects of an earlier
    /// version. The IPv6 objects are `onlink`, so that a rollback produces the same legs as a pass
    /// of this version.
    pub fn age(&self, ns: &Ns) {
        if self.name != UPGRADE {
            return;
        }
        let mut batch = String::new();
        for (group, gateways, onlink) in [
            (108_400, ["10.0.1.10", "10.0.1.20"], ""),
            (
                108_450,
                ["2600:1f18:1000:1::10", "2600:1f18:1000:1::20"],
                "onlink",
            ),
        ] {
            for (id, gateway) in (group + 1..).zip(gateways) {
                batch +=
                    &format!("nexthop replace id {id} via {gateway} dev eth0 {onlink} proto 83\n");
            }
            let members = format!("{}/{}", group + 1, group + 2);
            batch += &format!("nexthop replace id {group} group {members} proto 83\n");
        }
        batch += "route replace default nhid 108400 table 1084 proto 83\n";
        ns.ip_batch(&batch);
        let default = "route replace default nhid 108450 table 1084 proto 83\n";
        ns.feed(&["ip", "-6", "-batch", "-"], default);
    }

    /// Adds foreign objects, some of them in our tables and our priority range.
    pub fn add_foreign(&self, ns: &Ns) {
        ns.ip_batch(
            "route add unreachable 10.77.0.0/16 table 77\n\
             route add throw 192.0.2.0/24 table 1083 proto static\n\
             route add blackhole 198.51.100.0/24 table 1084 proto static\n\
             rule add pref 5000 from 10.99.0.0/16 lookup 77\n\
             rule add pref 30005 from 10.98.0.0/16 lookup 77 protocol static\n\
             rule add pref 30010 lookup main suppress_prefixlength 1 protocol static\n\
             nexthop add id 7 blackhole proto static\n",
        );
        ns.feed(
            &["ip", "-6", "-batch", "-"],
            "route add unreachable fd77::/16 table 77\n\
             route add throw 2001:db8:77::/48 table 1083 proto static\n\
             rule add pref 5000 from fd99::/16 lookup 77\n",
        );
        ns.nft(CORP);
        if self.after.config.contains("iptables") {
            // iptables leaves its base chains behind; created here, the chains are part of the
            // earlier state.
            for rule in [
                "-t mangle -A PREROUTING -s 10.99.0.0/16 -j ACCEPT",
                "-t mangle -A OUTPUT -s 10.99.0.0/16 -j ACCEPT",
                "-t mangle -A POSTROUTING -s 10.99.0.0/16 -j ACCEPT",
                "-t nat -A POSTROUTING -s 10.99.0.0/16 -j ACCEPT",
                "-t filter -A FORWARD -s 10.99.0.0/16 -j ACCEPT",
            ] {
                let words: Vec<&str> = ["iptables", "-w"]
                    .into_iter()
                    .chain(rule.split(' '))
                    .collect();
                ns.run(&words);
                let rule = rule.replace("10.99.0.0/16", "fd99::/16");
                let words: Vec<&str> = ["ip6tables", "-w"]
                    .into_iter()
                    .chain(rule.split(' '))
                    .collect();
                ns.run(&words);
            }
        }
    }
}
