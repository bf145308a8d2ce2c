//! Every key of the config file with the reader of its value: one statement for each key.

use std::time::Duration;

use super::reader::Reader;
use super::texts::{
    absolute_path, address, interface, listener, narrow_prefix, prefix, region, service, source,
};
use super::units::{bare_percent, bare_size, percent, size};
use super::values::{
    all_or_auto, auto_or, boolean, integer, mask, nat_bypass, price, table, text, time,
    unknown_word, with_unit, word,
};
use super::{AutoOr, Config, Role, validate};
use crate::types::{BackendKind, Family};
use crate::words::Words as _;

const PREFIXES: &str = "a list of prefixes such as [\"203.0.113.0/24\", \"2001:db8::/32\"]";
const INTERFACE: &str = "the name of an interface such as \"eth1\", or \"auto\"";
const FAMILIES: &str = "a list of \"ipv4\" and \"ipv6\"";

/// Reads every key into the settings; problems stay in the reader.
pub(super) fn read(reader: &mut Reader<'_>, config: &mut Config) {
    reader.value("role", "\"host\" or \"nat\"", &mut config.role, |value| {
        word::<Role>(value).map(Some)
    });
    read_source(reader, config);
    read_select(reader, config);
    read_guard(reader, config);
    read_paths(reader, config);
    read_nat(reader, config);
    read_kernel(reader, config);
    read_agent(reader, config);
}

fn read_source(reader: &mut Reader<'_>, config: &mut Config) {
    let settings = &mut config.source;
    reader.collect(
        "source.url",
        "a URL or path, or a list of them",
        true,
        &mut settings.urls,
        text(|url| source(url, false)),
    );
    let second = Duration::from_secs(1);
    time(reader, "source.refresh", &mut settings.refresh, second);
    let millisecond = Duration::from_millis(1);
    time(reader, "source.timeout", &mut settings.timeout, millisecond);
    reader.value(
        "source.max_bytes",
        "a size such as \"64MiB\"",
        &mut settings.max_bytes,
        with_unit(size, bare_size),
    );
    reader.value(
        "source.state_dir",
        "an absolute path such as \"/var/lib/trailblazer\"",
        &mut settings.state_dir,
        text(absolute_path),
    );
    reader.value(
        "source.path",
        "\"auto\", \"egress\" or \"bypass\"",
        &mut settings.path,
        word,
    );
}

fn read_select(reader: &mut Reader<'_>, config: &mut Config) {
    let select = &mut config.select;
    reader.collect(
        "select.services",
        "a list such as [\"S3\"]",
        false,
        &mut select.services,
        text(service),
    );
    reader.collect(
        "select.regions",
        "a list such as [\"auto\"] or [\"us-east-1\", \"eu-west-1\"]",
        false,
        &mut select.regions,
        auto_or(region),
    );
    reader.collect(
        "select.families",
        FAMILIES,
        false,
        &mut select.families,
        word::<Family>,
    );
    reader.collect(
        "select.include",
        PREFIXES,
        false,
        &mut select.include,
        text(narrow_prefix),
    );
    reader.collect(
        "select.exclude",
        PREFIXES,
        false,
        &mut select.exclude,
        text(prefix),
    );
}

fn read_guard(reader: &mut Reader<'_>, config: &mut Config) {
    let guard = &mut config.guard;
    reader.value(
        "guard.max_loss",
        "a share such as \"20%\"",
        &mut guard.max_loss,
        with_unit(percent, bare_percent),
    );
    reader.value(
        "guard.max_prefixes",
        "a whole number such as 5000",
        &mut guard.max_prefixes,
        integer(1, 10_000_000, ""),
    );
    time(
        reader,
        "guard.accept_after",
        &mut guard.accept_after,
        Duration::ZERO,
    );
    time(
        reader,
        "guard.hold_down",
        &mut guard.hold_down,
        Duration::ZERO,
    );
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
    reader.value(
        "bypass.interface",
        INTERFACE,
        &mut config.bypass.interface,
        auto_or(interface),
    );
    reader.value(
        "bypass.onlink",
        "true or false",
        &mut config.bypass.onlink,
        boolean,
    );
    table(reader, "bypass.table", &mut config.bypass.table);
    reader.collect(
        "egress.gateways",
        "a list of addresses such as [\"10.0.1.10\"]",
        false,
        &mut config.egress.gateways,
        text(address),
    );
    reader.value(
        "egress.onlink",
        "true or false",
        &mut config.egress.onlink,
        boolean,
    );
    table(reader, "egress.table", &mut config.egress.table);
    reader.value(
        "egress.when_down",
        "\"unreachable\" or \"bypass\"",
        &mut config.egress.when_down,
        word,
    );
    reader.collect(
        "egress.close",
        FAMILIES,
        false,
        &mut config.egress.close,
        word::<Family>,
    );
    reader.collect(
        "vpc.cidrs",
        "a list such as [\"auto\"] or [\"10.0.0.0/16\"]",
        false,
        &mut config.vpc_cidrs,
        auto_or(narrow_prefix),
    );
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
    reader.value(
        "nat.egress_interface",
        INTERFACE,
        &mut nat.egress_interface,
        auto_or(interface),
    );
    reader.collect(
        "nat.egress_addresses",
        "a list of addresses such as [\"10.0.0.20\"]",
        false,
        &mut nat.egress_addresses,
        text(address),
    );
    nat.egress_addresses.sort();
    nat_bypass(reader, &mut nat.bypass);
}

fn read_kernel(reader: &mut Reader<'_>, config: &mut Config) {
    let kernel = &mut config.kernel;
    reader.value(
        "kernel.protocol",
        "a whole number such as 83",
        &mut kernel.protocol.0,
        integer(
            1,
            u64::from(u8::MAX),
            ": the kernel stores the protocol in one byte, and 0 means none",
        ),
    );
    reader.value(
        "kernel.priority",
        "a whole number such as 30000",
        &mut kernel.priority.0,
        integer(
            1,
            u64::from(validate::LAST_PRIORITY),
            ": 100 numbers from there on are for our rules, and the kernel's rule for the main \
             table is at 32766",
        ),
    );
    mask(reader, "kernel.marks.path", &mut kernel.path_mask.0);
    mask(reader, "kernel.marks.gateway", &mut kernel.gateway_mask);
    reader.collect(
        "kernel.manage",
        "a list of sysctls such as [\"ip_forward\"]",
        false,
        &mut kernel.manage,
        word,
    );
}

fn read_agent(reader: &mut Reader<'_>, config: &mut Config) {
    let agent = &mut config.agent;
    reader.value(
        "agent.socket",
        "an absolute path such as \"/run/trailblazer/control.sock\"",
        &mut agent.socket,
        text(absolute_path),
    );
    reader.value(
        "agent.metrics",
        "an address with a port such as \"127.0.0.1:9683\", or \"\" for none",
        &mut agent.metrics,
        text(listener),
    );
    time(
        reader,
        "agent.resync",
        &mut agent.resync,
        Duration::from_secs(1),
    );
    let second = Duration::from_secs(1);
    time(reader, "agent.stale.warn", &mut agent.stale_warn, second);
    time(reader, "agent.stale.alarm", &mut agent.stale_alarm, second);
    reader.value(
        "agent.nat_price_per_gb",
        "a price in dollars such as 0.045",
        &mut agent.nat_price_per_gb,
        price,
    );
    reader.value(
        "agent.event_buffer",
        "a size such as \"8MiB\"",
        &mut agent.event_buffer,
        with_unit(size, bare_size),
    );
}
