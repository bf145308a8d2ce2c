//! Which way the fetch itself goes. It lies on the egress path, so a dead NAT would block the very
//! document that tells how to go around it.

use crate::config::{Config, FetchPath, Role};
use crate::kernel::privilege::has_net_admin;
use crate::notes::Notes;
use crate::source::child::Asker;
use crate::source::{FetchSettings, Fetched, SourceError, Validators, any_is_remote};

/// Fetches as `[source] path` says.
pub(super) async fn fetch_document(
    config: &Config,
    role: Role,
    asker: &Asker,
    validators: Option<&Validators>,
    notes: &mut Notes,
) -> Result<Fetched, SourceError> {
    let source = &config.source;
    let plain = FetchSettings::from_config(source);
    if !egress_is_steered(config, role) {
        return asker.fetch(&source.urls, &plain, validators).await;
    }
    // The mark of flows from outside leads past our rules to the main table's default. It is
    // the one exemption from the egress path, and for these sockets alone.
    let past_the_egress = FetchSettings {
        mark: Some(config.kernel.path_mask.inbound().value),
        ..plain.clone()
    };
    match source.path {
        FetchPath::Egress => asker.fetch(&source.urls, &plain, validators).await,
        FetchPath::Bypass => {
            asker
                .fetch(&source.urls, &past_the_egress, validators)
                .await
        }
        // One try where nobody answers: a dead gateway answers none, and each waits for the
        // whole timeout. A server in trouble has answered: it is asked again, this way.
        FetchPath::Auto => {
            let settings = FetchSettings {
                retry_silence: false,
                ..plain
            };
            match asker.fetch(&source.urls, &settings, validators).await {
                Err(error) if !error.is_answer() => {
                    let second = asker
                        .fetch(&source.urls, &past_the_egress, validators)
                        .await;
                    if second.is_ok() {
                        notes.push(format!(
                            "source: the egress path fails ({error}); fetched by the main table's default ([source] path = \"auto\")"
                        ));
                    }
                    second.map_err(|_| error)
                }
                answer => answer,
            }
        }
    }
}

/// Whether our rules send the fetch to the gateways at all, and we may mark it.
fn egress_is_steered(config: &Config, role: Role) -> bool {
    let remote = any_is_remote(&config.source.urls);
    let gateways = !config.egress.gateways.is_empty();
    role == Role::Host && gateways && remote && has_net_admin() != Some(false)
}
