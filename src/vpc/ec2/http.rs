//! The way to EC2 over HTTPS, with signed requests.

use std::env;
use std::fmt::Write as _;

use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Request, Uri};
use reqsign_core::OsEnv;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use sha2::{Digest as _, Sha256};

use super::credentials::Credentials;
use super::endpoint::{self, EndpointChoice, EndpointFault};
use super::settings::Ec2Settings;
use super::transport::{HttpAnswer, Transport, TransportError};
use crate::source::web::{Web, WebError, WebSettings};

/// The content of a request.
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// EC2's API over HTTP.
pub(super) struct HttpTransport {
    web: Web,
    uri: Uri,
    credentials: Credentials,
}

impl HttpTransport {
    /// The endpoint of the settings, of AWS's variables or of the region, with AWS's credentials.
    ///
    /// # Errors
    /// [`EndpointFault`]
    pub(super) fn from_environment(settings: &Ec2Settings) -> Result<HttpTransport, EndpointFault> {
        let variables = EndpointChoice::from_variables(|name| env::var(name).ok());
        let own = settings.endpoint.clone();
        let choice = EndpointChoice {
            url: own.url.or(variables.url),
            dual_stack: own.dual_stack || variables.dual_stack,
            fips: own.fips || variables.fips,
        };
        HttpTransport::new(settings, &choice, OsEnv)
    }

    fn new(
        settings: &Ec2Settings,
        choice: &EndpointChoice,
        variables: impl reqsign_core::Env,
    ) -> Result<HttpTransport, EndpointFault> {
        let url = endpoint::resolve(&settings.region, choice)?;
        let web = WebSettings {
            connect_timeout: settings.connect_timeout,
            proxies: settings.proxies,
            max_bytes: settings.max_bytes,
        };
        Ok(HttpTransport {
            uri: url
                .as_str()
                .parse()
                .map_err(|_| EndpointFault::Url(url.to_string()))?,
            web: Web::new(web.clone()),
            credentials: Credentials::new(&settings.region, Web::new(web), variables),
        })
    }

    fn request(&self, body: &str) -> Request<()> {
        let mut hash = String::with_capacity(64);
        for byte in Sha256::digest(body.as_bytes()) {
            // Writing to a String can't fail.
            let _ = write!(hash, "{byte:02x}");
        }
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(FORM));
        if let Ok(hash) = HeaderValue::from_str(&hash) {
            headers.insert("x-amz-content-sha256", hash);
        }
        request
    }
}

impl Transport for HttpTransport {
    async fn send(&self, body: String) -> Result<HttpAnswer, TransportError> {
        let (mut parts, ()) = self.request(&body).into_parts();
        let signed = self.credentials.sign(&mut parts).await;
        let credential = signed.map_err(TransportError::Credentials)?;
        let sent = self.web.send(Request::from_parts(parts, Bytes::from(body)));
        let answer = sent.await.map_err(|error| match error {
            WebError::NotSent(reason) => TransportError::Unreachable(reason),
            WebError::Setup(reason) => TransportError::Setup(reason),
            WebError::Broken(reason) => TransportError::Broken(reason),
        })?;
        let mut body = answer.body.to_vec();
        if !(200..300).contains(&answer.status) {
            // An answer about a wrong signature repeats the headers of the request, the session token
            // among them.
            let token = credential.session_token.as_deref().unwrap_or_default();
            body = without(&body, &[&credential.secret_access_key, token]);
        }
        Ok(HttpAnswer {
            status: answer.status,
            request_id: text(&answer.headers, "x-amzn-requestid"),
            date: text(&answer.headers, "date")
                .and_then(|date| jiff::fmt::rfc2822::parse(&date).ok())
                .map(|date| date.timestamp()),
            body,
        })
    }

    async fn renew(&self) -> bool {
        self.credentials.forget().await
    }
}

/// Forbids core dumps of this process, which would hold the secret key. The limit of the size
/// (`RLIMIT_CORE`) has no effect on dumps that go to a program (core(5)).
pub fn forbid_core_dumps() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!("core dumps of this process cannot be forbidden: {error}");
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    Some(value.to_owned())
}

/// A shorter text is no secret, and may be a part of EC2's words: AWS's secret keys have 40 characters.
const SHORTEST_SECRET: usize = 12;

/// The text without the secrets. Bytes that are not UTF-8 become replacement characters, which the
/// reader of the answer refuses anyway.
fn without(body: &[u8], secrets: &[&str]) -> Vec<u8> {
    let mut text = String::from_utf8_lossy(body).into_owned();
    for secret in secrets.iter().filter(|it| it.len() >= SHORTEST_SECRET) {
        text = text.replace(*secret, "…");
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests;
