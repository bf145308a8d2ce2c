//! Every key of the config file with the reader of its value: one row for each key.

use std::time::Duration;

use super::gateways::zone;
use super::locations::{absolute_path, own_directory, source};
use super::probe::target;
use super::reader::Reader;
use super::texts::{
    address, exemption, interface, listener, narrow_prefix, prefix, region, service,
};
use super::units::{bare_percent, bare_size, gain, percent, size};
use super::values::{
    all_or_auto, auto_or, auto_or_boolean, boolean, integer, mask, mss, nat_bypass, price, table,
    text, time, unknown_word, with_unit, word,
};
use super::{AnyRole, AutoOr, Config, gateways, validate, vpc_plane};
use crate::types::{BackendKind, Family};
use crate::words::Words as _;

const PREFIXES: &str = "a list of prefixes such as [\"203.0.113.0/24\", \"2001:db8::/32\"]";
const INTERFACE: &str = "the name of an interface such as \"eth1\", or \"auto\"";
const FAMILIES: &str = "a list of \"ipv4\" and \"ipv6\"";

const SECOND: Duration = Duration::from_secs(1);
const BOOLEAN: &str = "true or false";
const AUTO_OR_BOOLEAN: &str = "true, false or \"auto\"";

/// Reads keys by rows of `key => setting, kind(…)`. The kinds `value`, `each` (a list) and
/// `one_or_more` (a list or a value) have the expected form for messages and the reader of a value.
macro_rules! keys {
    ($reader:ident; $($key:literal => $setting:expr, $kind:ident($($rest:expr),*);)*) => {
        $(keys!(@$kind $reader, $key, &mut $setting, $($rest),*);)*
    };
    (@value $reader:ident, $key:literal, $setting:expr, $expected:expr, $read:expr) => {
        $reader.value($key, $expected, $setting, $read)
    };
    (@each $reader:ident, $key:literal, $setting:expr, $expected:expr, $read:expr) => {
        $reader.collect($key, $expected, false, $setting, $read)
    };
    (@one_or_more $reader:ident, $key:literal, $setting:expr, $expected:expr, $read:expr) => {
        $reader.collect($key, $expected, true, $setting, $read)
    };
    (@time $reader:ident, $key:literal, $setting:expr, $least:expr) => {
        time($reader, $key, $setting, $least)
    };
    (@table $reader:ident, $key:literal, $setting:expr,) => { table($reader, $key, $setting) };
    (@mask $reader:ident, $key:literal, $setting:expr,) => { mask($reader, $key, $setting) };
}

/// Reads every key into the settings; problems stay in the reader.
pub(super) fn read(reader: &mut Reader<'_>, config: &mut Config) {
    read_role(reader, config);
    read_document(reader, config);
    read_paths(reader, config);
    read_probe(reader, config);
    read_nat(reader, config);
    read_kernel(reader, config);
    read_agent(reader, config);
    vpc_plane::read(reader, config);
}

fn read_role(reader: &mut Reader<'_>, config: &mut Config) {
    let mut role = None;
    let words = "\"host\", \"nat\" or \"vpc\"";
    reader.value("role", words, &mut role, |value| {
        word::<AnyRole>(value).map(Some)
    });
    if let Some(role) = role {
        config.set_role(role);
    }
}

fn read_document(reader: &mut Reader<'_>, config: &mut Config) {
    let (source, select, guard) = (&mut config.source, &mut config.select, &mut config.guard);
    keys! { reader;
        "source.url" => source.urls,
            one_or_more("a URL or path, or a list of them", text(|url| self::source(url, false)));
        "source.refresh" => source.refresh, time(SECOND);
        "source.timeout" => source.timeout, time(Duration::from_millis(1));
        "source.max_bytes" => source.max_bytes,
            value("a size such as \"64MiB\"", with_unit(size, bare_size));
        "source.state_dir" => source.state_dir,
            value("an absolute path such as \"/var/lib/trailblazer\"", text(own_directory));
        "source.path" => source.path, value("\"auto\", \"egress\" or \"bypass\"", word);
        "select.services" => select.services, each("a list such as [\"S3\"]", text(service));
        "select.regions" => select.regions,
            each("a list such as [\"auto\"] or [\"us-east-1\", \"eu-west-1\"]", auto_or(region));
        "select.families" => select.families, each(FAMILIES, word::<Family>);
        "select.include" => select.include, each(PREFIXES, text(narrow_prefix));
        "select.exclude" => select.exclude, each(PREFIXES, text(prefix));
        "guard.max_loss" => guard.max_loss,
            value("a share such as \"20%\"", with_unit(percent, bare_percent));
        "guard.max_gain" => guard.max_gain,
            value("a share such as \"500%\"", with_unit(gain, bare_percent));
        "guard.max_new_addresses" => guard.max_new_addresses,
            value("a whole number such as 33554432", integer(1, 1 << 32, ""));
        "guard.shortest_prefix.ipv4" => guard.shortest_prefix.ipv4,
            value("the length of a prefix such as 10", integer(1, 32, ""));
        "guard.shortest_prefix.ipv6" => guard.shortest_prefix.ipv6,
            value("the length of a prefix such as 24", integer(1, 128, ""));
        "guard.canaries" => guard.canaries, each(PREFIXES, text(narrow_prefix));
        "guard.max_prefixes" => guard.max_prefixes,
            value("a whole number such as 5000", integer(1, 10_000_000, ""));
        "guard.accept_after" => guard.accept_after, time(Duration::ZERO);
        "guard.hold_down" => guard.hold_down, time(Duration::ZERO);
    }
}

fn read_paths(reader: &mut Reader<'_>, config: &mut Config) {
    let gateways = reader.list(
        "bypass.gateway",
        "\"auto\", an address, or a list with at most one address of each family",
        true,
        auto_or(address),
    );
    for gateway in gateways.into_iter().flatten() {
        let AutoOr::Set(address) = gateway else {
            continue;
        };
        let slot = config.bypass.gateway.get_mut(Family::of(address));
        if let AutoOr::Set(first) = slot {
            let message = format!(
                "{first} and {address} are of the same family: write at most one of each, since \
                 the bypass path has one router"
            );
            reader.problem("bypass.gateway", message);
        }
        *slot = AutoOr::Set(address);
    }
    let (bypass, egress) = (&mut config.bypass, &mut config.egress);
    gateways::read(reader, &mut egress.gateways);
    keys! { reader;
        "bypass.interface" => bypass.interface, value(INTERFACE, auto_or(interface));
        "bypass.onlink" => bypass.onlink, value(BOOLEAN, boolean);
        "bypass.table" => bypass.table, table();
        "egress.spread" => egress.spread, value("\"host\", \"flow\" or \"order\"", word);
        "egress.zone" => egress.zone,
            value("the name of an availability zone such as \"us-east-1a\", or \"auto\"", auto_or(zone));
        "egress.onlink" => egress.onlink, value(BOOLEAN, boolean);
        "egress.table" => egress.table, table();
        "egress.when_down" => egress.when_down, value("\"unreachable\" or \"bypass\"", word);
        "egress.close" => egress.close, each(FAMILIES, word::<Family>);
        "egress.enforce" => egress.enforce,
            value(AUTO_OR_BOOLEAN, auto_or_boolean);
        "egress.exempt" => egress.exempt,
            each("a list of interfaces, addresses and prefixes such as [\"tun0\", \"10.9.0.0/16\"]", text(exemption));
        "egress.pin" => egress.pin, value(BOOLEAN, boolean);
        "vpc.cidrs" => config.vpc_cidrs,
            each("a list such as [\"auto\"] or [\"10.0.0.0/16\"]", auto_or(narrow_prefix));
        "vpc.metadata" => config.metadata, value("\"auto\", \"on\" or \"off\"", word);
    }
}

fn read_probe(reader: &mut Reader<'_>, config: &mut Config) {
    const TARGETS: &str = "a list of servers such as [\"192.0.2.1:443\", \"partner.example:443\"]";
    const BYPASS: &str = "a list such as [\"auto\"] or [\"s3.eu-west-1.amazonaws.com:443\"]";
    const ROUNDS: &str = "a number of rounds such as 3";
    let probe = &mut config.probe;
    keys! { reader;
        "probe.enabled" => probe.enabled, value(BOOLEAN, boolean);
        "probe.targets" => probe.targets, each(TARGETS, text(target));
        "probe.bypass_targets" => probe.bypass_targets, each(BYPASS, auto_or(target));
        "probe.bypass_interval" => probe.bypass_interval, time(Duration::from_millis(500));
        "probe.settle" => probe.settle, time(SECOND);
        "probe.interval" => probe.interval, time(Duration::from_millis(500));
        "probe.suspect_interval" => probe.suspect_interval, time(Duration::from_millis(50));
        "probe.timeout" => probe.timeout, time(Duration::from_millis(50));
        "probe.fall" => probe.fall, value(ROUNDS, integer(1, 100, ""));
        "probe.rise" => probe.rise, value(ROUNDS, integer(1, 100, ""));
        "probe.hold" => probe.hold, time(SECOND);
        "probe.hold_limit" => probe.hold_limit, time(SECOND);
    }
}

fn read_nat(reader: &mut Reader<'_>, config: &mut Config) {
    let nat = &mut config.nat;
    reader.value(
        "nat.backend",
        "\"auto\", \"nftables\" or \"iptables\"",
        &mut nat.backend,
        text(|text| match BackendKind::from_word(text) {
            Some(backend) => Ok(AutoOr::Set(backend)),
            None if text == "auto" => Ok(AutoOr::Auto),
            None => {
                let words = BackendKind::ALL.map(BackendKind::as_str);
                Err(unknown_word(text, ["auto"].into_iter().chain(words)))
            }
        }),
    );
    let sources = reader.list(
        "nat.sources",
        "\"auto\" or a list of prefixes such as [\"10.0.0.0/16\"]",
        true,
        auto_or(prefix),
    );
    if let Some(sources) = sources {
        nat.sources = all_or_auto(reader, "nat.sources", sources);
    }
    keys! { reader;
        "nat.egress_interface" => nat.egress_interface, value(INTERFACE, auto_or(interface));
        "nat.egress_addresses" => nat.egress_addresses,
            each("a list of addresses such as [\"10.0.0.20\"]", text(address));
        "nat.exempt" => nat.exempt, each(PREFIXES, text(narrow_prefix));
        "nat.random_ports" => nat.random_ports, value(BOOLEAN, boolean);
    }
    nat.egress_addresses.sort();
    nat_bypass(reader, &mut nat.bypass);
    reader.value(
        "nat.mss",
        "\"auto\", \"off\", or a number of bytes such as 1460",
        &mut nat.mss,
        mss,
    );
}

fn read_kernel(reader: &mut Reader<'_>, config: &mut Config) {
    let kernel = &mut config.kernel;
    let protocol = ": the kernel stores the protocol in one byte, and 0 means none";
    let priority = ": 100 numbers from there on are for our rules, and the kernel's rule for the \
                    main table is at 32766";
    let last_priority = u64::from(validate::LAST_PRIORITY);
    keys! { reader;
        "kernel.protocol" => kernel.protocol.0,
            value("a whole number such as 83", integer(1, u64::from(u8::MAX), protocol));
        "kernel.priority" => kernel.priority.0,
            value("a whole number such as 30000", integer(1, last_priority, priority));
        "kernel.marks.path" => kernel.path_mask.0, mask();
        "kernel.marks.gateway" => kernel.gateway_mask, mask();
        "kernel.pin_tables" => kernel.pin_tables, table();
        "kernel.manage" => kernel.manage,
            each("a list of sysctls such as [\"ip_forward\"]", word);
        "kernel.protect_table" => kernel.protect_table, value(AUTO_OR_BOOLEAN, auto_or_boolean);
        "kernel.log_drops" => kernel.log_drops, value(BOOLEAN, boolean);
    }
}

fn read_agent(reader: &mut Reader<'_>, config: &mut Config) {
    let agent = &mut config.agent;
    keys! { reader;
        "agent.socket" => agent.socket,
            value("an absolute path such as \"/run/trailblazer/control.sock\"", text(absolute_path));
        "agent.metrics" => agent.metrics,
            value(
                "an address with a port such as \"127.0.0.1:9683\", or \"\" for none",
                text(listener)
            );
        "agent.resync" => agent.resync, time(SECOND);
        "agent.stale.warn" => agent.stale_warn, time(SECOND);
        "agent.stale.alarm" => agent.stale_alarm, time(SECOND);
        "agent.nat_price_per_gb" => agent.nat_price_per_gb,
            value("a price in dollars such as 0.045", price);
        "agent.event_buffer" => agent.event_buffer,
            value("a size such as \"8MiB\"", with_unit(size, bare_size));
    }
}
