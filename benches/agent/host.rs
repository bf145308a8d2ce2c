//! A host for each agent: a namespace, documents, a state directory.

use std::path::PathBuf;

use trailblazer::kernel::{Kernel, route};
use trailblazer::objects::Route;
use trailblazer::reconcile::Outcome;
use trailblazer::types::{Family, TableId};

use super::Res;
use super::arena::Ns;
use super::daemon::Daemon;
use super::subject::Subject;

/// The bypass table.
pub const BYPASS: TableId = TableId(1083);

/// See the module.
#[derive(Debug)]
pub struct Host {
    /// The namespace; [`Host::new`] moves the calling thread into it.
    pub ns: Ns,
    /// The documents and one-shot passes.
    pub subject: Subject,
    config: PathBuf,
    variables: Vec<(&'static str, String)>,
}

impl Host {
    /// A host with a document of `size` selected prefixes in the state directory, and nothing in
    /// the kernel, as after a boot.
    pub fn new(name: &str, size: usize, document: String) -> Res<Host> {
        let ns = Ns::create(name)?;
        ns.enter()?;
        let subject = Subject::with_documents(name, size, document, String::new())?;
        let directory = subject.directory();
        let mut text = std::fs::read_to_string(directory.join("trailblazer.toml"))?;
        // Agents side by side must not meet at the default's place.
        let socket = directory.join("control.sock");
        text.push_str(&format!("[agent]\nsocket = \"{}\"\n", socket.display()));
        let config = directory.join("agent.toml");
        std::fs::write(&config, text)?;
        subject.forget()?;
        subject.pass(Outcome::Changed)?;
        subject.remove()?;
        Ok(Host {
            ns,
            subject,
            config,
            variables: Vec::new(),
        })
    }

    /// Adds a variable to the environment of the agents.
    pub fn variable(&mut self, name: &'static str, value: String) {
        self.variables.push((name, value));
    }

    /// Sets the source URL.
    pub fn source(&self, url: &str) -> Res<()> {
        let file = self.subject.directory().join("ip-ranges.json");
        self.settings(&file.display().to_string(), url)
    }

    /// Replaces a part of the agents' settings.
    pub fn settings(&self, old: &str, new: &str) -> Res<()> {
        let text = std::fs::read_to_string(&self.config)?;
        if text.contains(old) {
            Ok(std::fs::write(&self.config, text.replace(old, new))?)
        } else {
            Err(format!("no {old} in {}", self.config.display()).into())
        }
    }

    /// Starts an agent.
    pub fn start(&self) -> Res<Daemon> {
        self.ns.enter()?;
        let directory = self.subject.directory();
        Daemon::start(
            &self.config,
            &directory.join("control.sock"),
            &directory.join("agent.log"),
            &self.variables,
        )
    }

    /// The routes of the bypass table.
    pub fn routes(&self) -> Res<Vec<Route>> {
        let mut kernel = Kernel::open()?;
        let mut routes = Vec::new();
        for family in Family::ALL {
            routes.extend(route::dump_table(kernel.socket(), family, BYPASS)?);
        }
        Ok(routes)
    }
}
