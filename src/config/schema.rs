//! Every key of the config file and how its value is read: one statement a key.

use std::collections::BTreeSet;
use std::time::Duration;

use super::document::Document;
use super::fields::{self, all_or_auto, mask, replace, table, time};
use super::units::{bare_percent, bare_size, percent, size};
use super::values::{
    absolute_path, address, auto_or, integer, interface, listener, narrow_prefix, prefix, price,
    region, service, source, text, unknown_word, with_unit, word,
};
use super::{AutoOr, Config, Role, validate};
use crate::types::{BackendKind, Family, PathMask, Priority, Protocol};
use crate::words::Words as _;

const PREFIXES: &str = "a list of prefixes such as [\"203.0.113.0/24\", \"2001:db8::/32\"]";
const INTERFACE: &str = "the name of an interface such as \"eth1\", or \"auto\"";
const FAMILIES: &str = "a list of \"ipv4\" and \"ipv6\"";

/// Reads every key into the settings; what is wrong stays in the document.
pub(super) fn read(document: &mut Document<'_>, config: &mut Config) {
    let mut role = config.role;
    document.value("role", "\"host\" or \"nat\"", &mut role, |value| {
        word::<Role>(value).map(Some)
    });
    config.role = role;
    read_source(document, config);
    read_select(document, config);
    read_guard(document, config);
    read_paths(document, config);
    read_nat(document, config);
    read_kernel(document, config);
    read_agent(document, config);
}

fn read_source(document: &mut Document<'_>, config: &mut Config) {
    let settings = &mut config.source;
    let urls = document.list(
        "source.url",
        "a URL or path, or a list of them",
        true,
        text(|url| source(url, false)),
    );
    replace(&mut settings.urls, urls);
    let second = Duration::from_secs(1);
    time(document, "source.refresh", &mut settings.refresh, second);
    let millisecond = Duration::from_millis(1);
    time(
        document,
        "source.timeout",
        &mut settings.timeout,
        millisecond,
    );
    document.value(
        "source.max_bytes",
        "a size such as \"64MiB\"",
        &mut settings.max_bytes,
        with_unit(size, bare_size),
    );
    document.value(
        "source.state_dir",
        "an absolute path such as \"/var/lib/trailblazer\"",
        &mut settings.state_dir,
        text(absolute_path),
    );
    document.value(
        "source.path",
        "\"auto\", \"egress\" or \"bypass\"",
        &mut settings.path,
        word,
    );
}

fn read_select(document: &mut Document<'_>, config: &mut Config) {
    let select = &mut config.select;
    let services = document.list(
        "select.services",
        "a list such as [\"S3\"]",
        false,
        text(service),
    );
    replace(&mut select.services, services);
    let regions = document.list(
        "select.regions",
        "a list such as [\"auto\"] or [\"us-east-1\", \"eu-west-1\"]",
        false,
        auto_or(region),
    );
    replace(&mut select.regions, regions);
    if let Some(families) = document.list("select.families", FAMILIES, false, word) {
        select.families = families.into_iter().collect();
    }
    let include = document.list("select.include", PREFIXES, false, text(narrow_prefix));
    replace(&mut select.include, include);
    let exclude = document.list("select.exclude", PREFIXES, false, text(prefix));
    replace(&mut select.exclude, exclude);
}

fn read_guard(document: &mut Document<'_>, config: &mut Config) {
    let guard = &mut config.guard;
    document.value(
        "guard.max_loss",
        "a share such as \"20%\"",
        &mut guard.max_loss,
        with_unit(percent, bare_percent),
    );
    let mut prefixes = guard.max_prefixes as u64;
    document.value(
        "guard.max_prefixes",
        "a whole number such as 5000",
        &mut prefixes,
        integer(1, 10_000_000, ""),
    );
    // At most ten million: fits usize everywhere.
    guard.max_prefixes = prefixes as usize;
    time(
        document,
        "guard.accept_after",
        &mut guard.accept_after,
        Duration::ZERO,
    );
    time(
        document,
        "guard.hold_down",
        &mut guard.hold_down,
        Duration::ZERO,
    );
}

fn read_paths(document: &mut Document<'_>, config: &mut Config) {
    let gateways = document.list(
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
                "{first} and {address} are of the same family: at most one of each, since \
                 the bypass path has one router"
            );
            document.problem("bypass.gateway", message);
        }
        *slot = AutoOr::Set(address);
    }
    document.value(
        "bypass.interface",
        INTERFACE,
        &mut config.bypass.interface,
        auto_or(interface),
    );
    table(document, "bypass.table", &mut config.bypass.table);
    let gateways = document.list(
        "egress.gateways",
        "a list of addresses such as [\"10.0.1.10\"]",
        false,
        text(address),
    );
    replace(&mut config.egress.gateways, gateways);
    table(document, "egress.table", &mut config.egress.table);
    document.value(
        "egress.when_down",
        "\"unreachable\" or \"bypass\"",
        &mut config.egress.when_down,
        word,
    );
    if let Some(close) = document.list("egress.close", FAMILIES, false, word) {
        config.egress.close = close.into_iter().collect();
    }
    let cidrs = document.list(
        "vpc.cidrs",
        "a list such as [\"auto\"] or [\"10.0.0.0/16\"]",
        false,
        auto_or(narrow_prefix),
    );
    replace(&mut config.vpc_cidrs, cidrs);
}

fn read_nat(document: &mut Document<'_>, config: &mut Config) {
    let nat = &mut config.nat;
    document.value(
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
    let sources = document.list(
        "nat.sources",
        "\"auto\" or a list of prefixes such as [\"10.0.0.0/16\"]",
        true,
        auto_or(prefix),
    );
    if let Some(sources) = sources {
        nat.sources = all_or_auto(document, "nat.sources", sources);
    }
    document.value(
        "nat.egress_interface",
        INTERFACE,
        &mut nat.egress_interface,
        auto_or(interface),
    );
    let addresses = document.list(
        "nat.egress_addresses",
        "a list of addresses such as [\"10.0.0.20\"]",
        false,
        text(address),
    );
    replace(&mut nat.egress_addresses, addresses);
    nat.egress_addresses.sort();
    fields::nat_bypass(document, &mut nat.bypass);
}

fn read_kernel(document: &mut Document<'_>, config: &mut Config) {
    let kernel = &mut config.kernel;
    let mut protocol = u64::from(kernel.protocol.0);
    document.value(
        "kernel.protocol",
        "a whole number such as 83",
        &mut protocol,
        integer(
            1,
            u64::from(u8::MAX),
            ": the kernel stores it in one byte, 0 means none",
        ),
    );
    kernel.protocol = Protocol(protocol as u8);
    let mut priority = u64::from(kernel.priority.0);
    document.value(
        "kernel.priority",
        "a whole number such as 30000",
        &mut priority,
        integer(
            1,
            u64::from(validate::LAST_PRIORITY),
            ": the rules take 100 numbers from there on, all before the kernel's own rule for \
             the main table at 32766",
        ),
    );
    kernel.priority = Priority(priority as u32);
    let mut path = u64::from(kernel.path_mask.0);
    mask(document, "kernel.marks.path", &mut path);
    kernel.path_mask = PathMask(path as u32);
    let mut gateway = u64::from(kernel.gateway_mask);
    mask(document, "kernel.marks.gateway", &mut gateway);
    kernel.gateway_mask = gateway as u32;
    let manage = document.list(
        "kernel.manage",
        "a list of sysctls such as [\"ip_forward\"]",
        false,
        word,
    );
    if let Some(manage) = manage {
        kernel.manage = manage.into_iter().collect::<BTreeSet<_>>();
    }
}

fn read_agent(document: &mut Document<'_>, config: &mut Config) {
    let agent = &mut config.agent;
    document.value(
        "agent.socket",
        "an absolute path such as \"/run/trailblazer/control.sock\"",
        &mut agent.socket,
        text(absolute_path),
    );
    document.value(
        "agent.metrics",
        "an address with a port such as \"127.0.0.1:9683\", or \"\" for none",
        &mut agent.metrics,
        text(listener),
    );
    time(
        document,
        "agent.resync",
        &mut agent.resync,
        Duration::from_secs(1),
    );
    let second = Duration::from_secs(1);
    time(document, "agent.stale.warn", &mut agent.stale_warn, second);
    time(
        document,
        "agent.stale.alarm",
        &mut agent.stale_alarm,
        second,
    );
    document.value(
        "agent.nat_price_per_gb",
        "a price in dollars such as 0.045",
        &mut agent.nat_price_per_gb,
        price,
    );
    document.value(
        "agent.event_buffer",
        "a size such as \"8MiB\"",
        &mut agent.event_buffer,
        with_unit(size, bare_size),
    );
}
