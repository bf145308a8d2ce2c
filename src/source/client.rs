//! The set-up of HTTP clients: trusted authorities, proxies, and no redirects.

use std::error::Error as _;
use std::time::Duration;

use reqwest::{Client, Url, redirect};

use super::error::Failure;
use super::tls;

/// The name and version of this program.
pub(super) const USER_AGENT: &str = concat!("trailblazer/", env!("CARGO_PKG_VERSION"));

/// The settings of a client.
pub(super) struct ClientSettings<'a> {
    pub(super) user_agent: &'a str,
    pub(super) connect_timeout: Duration,
    /// The unix socket of a relay below the client; a relay excludes proxies.
    pub(super) relay: Option<&'a str>,
    /// Honour the proxies of the environment.
    pub(super) proxies: bool,
}

/// Builds the client for a URL and for others with the same scheme.
pub(super) fn build(url: &Url, settings: &ClientSettings<'_>) -> Result<Client, Failure> {
    let mut builder = Client::builder()
        .user_agent(settings.user_agent)
        .connect_timeout(settings.connect_timeout)
        // The caller follows redirects, or refuses them.
        .redirect(redirect::Policy::none());
    if url.scheme() != "https" {
        // Without root certificates, an https URL in this client fails instead of passing
        // unverified.
        builder = builder.tls_certs_only([]);
    }
    if let Some(socket) = settings.relay {
        builder = builder.unix_socket(socket);
    }
    if settings.relay.is_some() || !settings.proxies {
        builder = builder.no_proxy();
    }
    builder
        .build()
        .map_err(|error| match tls::fault_of_variables() {
            Some(fault) if url.scheme() == "https" => Failure::NoAuthorities(format!(
                "{fault}: correct the variable, or remove it to trust the system's list"
            )),
            None if url.scheme() == "https" => Failure::NoAuthorities(format!(
                "{}: install the package ca-certificates, or name a PEM file in SSL_CERT_FILE",
                chain(&error)
            )),
            _ => Failure::Client(chain(&error)),
        })
}

/// The causes of an error, without the first line: the first line repeats the URL with its
/// credentials.
pub(super) fn chain(error: &reqwest::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Several layers repeat the text of the layer below.
        if !text.starts_with("client error") && parts.last() != Some(&text) {
            parts.push(text);
        }
        cause = error.source();
    }
    if parts.is_empty() {
        return "no further reason given".to_owned();
    }
    parts.join(": ")
}
