//! Which way the fetch itself goes. It lies on the egress path, so a dead NAT would block the very
//! document that tells how to go around it.

use super::{Pass, has_net_admin};
use crate::config::{FetchPath, Role};
use crate::source::{FetchSettings, Fetched, SourceError, Validators, fetch};

impl Pass<'_> {
    /// Fetches as `[source] path` says.
    pub(super) async fn fetch(
        &mut self,
        validators: Option<&Validators>,
    ) -> Result<Fetched, SourceError> {
        let source = &self.config.source;
        let plain = FetchSettings::from_config(source);
        if !self.egress_is_steered() {
            return fetch(&source.urls, &plain, validators).await;
        }
        // The mark of flows from outside leads past our rules to the main table's default. It is
        // the one exemption from the egress path, and for these sockets alone.
        let past_the_egress = FetchSettings {
            mark: Some(self.config.kernel.path_mask.inbound().value),
            ..plain.clone()
        };
        match source.path {
            FetchPath::Egress => fetch(&source.urls, &plain, validators).await,
            FetchPath::Bypass => fetch(&source.urls, &past_the_egress, validators).await,
            // One try where nobody answers: a dead gateway answers none, and each waits for the
            // whole timeout. A server in trouble has answered: it is asked again, this way.
            FetchPath::Auto => match fetch(
                &source.urls,
                &FetchSettings {
                    retry_silence: false,
                    ..plain
                },
                validators,
            )
            .await
            {
                Err(error) if !error.is_answer() => {
                    let second = fetch(&source.urls, &past_the_egress, validators).await;
                    if second.is_ok() {
                        self.report.notes.push(format!(
                            "source: the egress path fails ({error}); fetched by the main table's default ([source] path = \"auto\")"
                        ));
                    }
                    second.map_err(|_| error)
                }
                answer => answer,
            },
        }
    }

    /// Whether our rules send the fetch to the gateways at all, and we may mark it.
    fn egress_is_steered(&self) -> bool {
        let remote = self
            .config
            .source
            .urls
            .iter()
            .any(|url| url.starts_with("http"));
        let gateways = !self.config.egress.gateways.is_empty();
        self.role == Role::Host && gateways && remote && has_net_admin()
    }
}
