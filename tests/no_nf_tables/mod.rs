//! Passes on a kernel without nf_tables.

use trailblazer::config::{Role, parse};
use trailblazer::firewall::{
    BackendKind, ObservedFirewall, PathTraffic, Ruleset, SavedRules, Variant,
};
use trailblazer::kernel::Kernel;
use trailblazer::kernel::firewall::iptables::IptablesBackend;
use trailblazer::kernel::firewall::{FirewallBackend, FirewallError};
use trailblazer::reconcile::{Options, Report, one_shot};

/// A pass of a host with this config, in this thread and its network namespace.
pub fn pass(config: &str, iptables: IptablesBackend) -> Report {
    let config = parse(config, "this test").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let kernel = || Kernel::with_backends(Box::new(NoNfTables), Box::new(iptables));
    runtime.block_on(one_shot(
        &config,
        Role::Host,
        &Options::default(),
        kernel,
        None,
    ))
}

/// A kernel without nf_tables. The test's kernel has nf_tables and cannot lose it, so a fake
/// backend gives the same answers as the real one would.
struct NoNfTables;

impl FirewallBackend for NoNfTables {
    fn kind(&self) -> BackendKind {
        BackendKind::Nftables
    }
    fn description(&self) -> String {
        "nf_tables, absent".to_owned()
    }
    fn variant(&self) -> Variant {
        Variant::Nft
    }
    fn certainly_holds_ours(&mut self, _: &ObservedFirewall) -> bool {
        false
    }
    fn observe(&mut self) -> Result<ObservedFirewall, FirewallError> {
        Ok(ObservedFirewall::Unavailable(
            "this kernel has no nf_tables".to_owned(),
        ))
    }
    fn render(&self, _: &Ruleset) -> Result<Vec<String>, FirewallError> {
        panic!("nothing is rendered for a backend that isn't there")
    }
    fn traffic(&mut self) -> Result<Option<PathTraffic>, FirewallError> {
        Ok(None)
    }
    fn replace(&mut self, _: &Ruleset) -> Result<(), FirewallError> {
        panic!("nothing is written to a backend that isn't there")
    }
    fn restore(&mut self, _: &SavedRules) -> Result<(), FirewallError> {
        panic!("nothing is written to a backend that isn't there")
    }
    fn remove(&mut self) -> Result<(), FirewallError> {
        panic!("nothing is written to a backend that isn't there")
    }
}
