//! The network path of the fetch. The fetch uses the egress path, so a dead NAT instance would
//! block the very document that leads storage traffic around the NAT.

use std::time::Duration;

use super::progress::remarked;
use crate::config::{Config, FetchPath, Role};
use crate::kernel::privilege::has_net_admin;
use crate::notes::Notes;
use crate::source::child::Asker;
use crate::source::{FetchSettings, Fetched, SourceError, Validators, any_is_remote, redacted};

/// The timeout of a fetch on a host without a route to the internet: only a server nearby could
/// answer, and answers at once.
const WITHOUT_ROUTE: Duration = Duration::from_secs(2);

/// The means of a fetch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Means<'a> {
    pub asker: &'a Asker,
    /// No public address has a route, with or without our mark.
    pub no_route: bool,
    /// An operator waits for the answer.
    pub remarks: bool,
}

impl Means<'_> {
    fn settings(self, config: &Config, urls: &[String]) -> FetchSettings {
        let mut settings = FetchSettings::from_config(&config.source);
        if self.no_route && settings.needs_route(urls) {
            settings.timeout = settings.timeout.min(WITHOUT_ROUTE);
            settings.connect_timeout = settings.connect_timeout.min(WITHOUT_ROUTE);
            settings.retries = 0;
        }
        settings
    }

    async fn fetch(
        self,
        urls: &[String],
        settings: &FetchSettings,
        validators: Option<&Validators>,
    ) -> Result<Fetched, SourceError> {
        let fetching = self.asker.fetch(urls, settings, validators);
        if !self.remarks {
            return fetching.await;
        }
        let names: Vec<String> = urls.iter().map(|url| redacted(url)).collect();
        let path = if settings.mark.is_some() {
            " by the main table's default"
        } else {
            ""
        };
        let source = format!("{}{path}", names.join(", "));
        remarked(source, settings.longest(), fetching).await
    }
}

/// Fetches by the path of `[source] path`. Returns the answer and notes.
pub(super) async fn fetch_document(
    config: &Config,
    role: Role,
    means: Means<'_>,
    urls: &[String],
    validators: Option<&Validators>,
) -> (Result<Fetched, SourceError>, Notes) {
    let source = &config.source;
    let by_default = means.settings(config, urls);
    let fetch = async |settings: &FetchSettings| means.fetch(urls, settings, validators).await;
    if !wants_egress_path(config, role, urls) || source.path == FetchPath::Egress {
        return (fetch(&by_default).await, Notes::default());
    }
    // The mark of inbound flows leads past our rules to the default of the main table. No other
    // socket is exempt from the egress path.
    let past_the_egress = FetchSettings {
        mark: Some(config.kernel.path_mask.packet().value),
        ..by_default.clone()
    };
    if source.path == FetchPath::Bypass {
        return (fetch(&past_the_egress).await, Notes::default());
    }
    // A silent gateway gets one try, since each further try would wait for the whole timeout. A
    // server that answers with an error is asked again by the egress path.
    let one_try = FetchSettings {
        retry_silence: false,
        ..by_default
    };
    match fetch(&one_try).await {
        Err(error) if !error.is_answer() => match fetch(&past_the_egress).await {
            Ok(fetched) => {
                let note = format!(
                    "source: the egress path fails ({error}); fetched by the main table's default ([source] path = \"auto\")"
                );
                (Ok(fetched), Notes::from(note))
            }
            Err(_) => (Err(error), Notes::default()),
        },
        answer => (answer, Notes::default()),
    }
}

/// True if our rules send the fetch to the gateways and the process may mark its sockets.
fn wants_egress_path(config: &Config, role: Role, urls: &[String]) -> bool {
    let remote = any_is_remote(urls);
    let gateways = !config.egress.gateways.is_empty();
    role == Role::Host && gateways && remote && has_net_admin() != Some(false)
}
