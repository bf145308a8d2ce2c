//! A backend that refuses policies with certain parts and passes everything else to nf_tables.

use serde_json::Value;
use trailblazer::config::{Role, parse};
use trailblazer::firewall::{
    BackendKind, ObservedFirewall, PathTraffic, Piece, Ruleset, SavedRules, Variant,
};
use trailblazer::kernel::Kernel;
use trailblazer::kernel::firewall::iptables::IptablesBackend;
use trailblazer::kernel::firewall::nftables::Nftables;
use trailblazer::kernel::firewall::{FirewallBackend, FirewallError};
use trailblazer::reconcile::{Options, one_shot};
use trailblazer::types::Family;

/// The words of a refusal.
pub const WORDS: &str = "Operation not supported (picky)";

pub struct Picky {
    real: Nftables,
    refused: Vec<(Family, Piece)>,
}

impl Picky {
    /// A pass with this backend; returns its report.
    pub fn pass(config: &str, refused: &[(Family, Piece)]) -> Value {
        let config = parse(&std::fs::read_to_string(config).unwrap(), config).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let kernel = || {
            let picky = Picky {
                real: Nftables::new(),
                refused: refused.to_vec(),
            };
            Kernel::with_backends(Box::new(picky), Box::new(IptablesBackend::detect()))
        };
        let options = Options::default();
        let pass = one_shot(&config, Role::Nat, &options, kernel, None);
        runtime.block_on(pass).to_json()
    }

    fn look(&self, ruleset: &Ruleset) -> Result<(), FirewallError> {
        let held = self
            .refused
            .iter()
            .any(|piece| ruleset.without(&[*piece].into()) != *ruleset);
        if held {
            return Err(FirewallError::Refused {
                backend: BackendKind::Nftables,
                operation: "replace".to_owned(),
                reason: WORDS.to_owned(),
                errno: Some(95),
            });
        }
        Ok(())
    }
}

impl FirewallBackend for Picky {
    fn kind(&self) -> BackendKind {
        self.real.kind()
    }
    fn description(&self) -> String {
        self.real.description()
    }
    fn marks_forwarded(&self) -> bool {
        self.real.marks_forwarded()
    }
    fn variant(&self) -> Variant {
        self.real.variant()
    }
    fn certainly_holds_ours(&mut self, found: &ObservedFirewall) -> bool {
        self.real.certainly_holds_ours(found)
    }
    fn observe(&mut self) -> Result<ObservedFirewall, FirewallError> {
        self.real.observe()
    }
    fn render(&self, ruleset: &Ruleset) -> Result<Vec<String>, FirewallError> {
        self.real.render(ruleset)
    }
    fn traffic(&mut self) -> Result<Option<PathTraffic>, FirewallError> {
        self.real.traffic()
    }
    fn replace(&mut self, ruleset: &Ruleset) -> Result<(), FirewallError> {
        self.look(ruleset)?;
        self.real.replace(ruleset)
    }
    fn restore(&mut self, snapshot: &SavedRules) -> Result<(), FirewallError> {
        self.real.restore(snapshot)
    }
    fn remove(&mut self) -> Result<(), FirewallError> {
        self.real.remove()
    }
    fn rehearse(&mut self, ruleset: &Ruleset) -> Result<(), FirewallError> {
        self.look(ruleset)?;
        self.real.rehearse(ruleset)
    }
    fn rehearses_fully(&self) -> bool {
        true
    }
}
