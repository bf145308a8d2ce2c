//! Requests of any method to any server, for the clients of APIs. The set-up of TLS, of proxies and of
//! their errors is the one of documents.

use std::sync::OnceLock;
use std::time::Duration;

use hyper::body::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Client, Request, Response, Url};

use super::client::{self, ClientSettings};
use super::error::Failure;
use super::locator::{is_local, redacted};
use super::proxy::Proxy;
use super::tls;

/// The settings of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSettings {
    /// For the connect part: name lookup, TCP, TLS.
    pub connect_timeout: Duration,
    /// Honour `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, except for this host and its
    /// link: the metadata service is behind no proxy.
    pub proxies: bool,
    /// The largest body, in bytes.
    pub max_bytes: u64,
}

/// An answer: any HTTP status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebAnswer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// The reason for a request without an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebError {
    /// Nothing was sent.
    #[error("{0}")]
    NotSent(String),
    /// Nothing was sent, and nothing will be until somebody changes a setting or a certificate.
    #[error("{0}")]
    Setup(String),
    /// The request left; the answer is incomplete, or is larger than the bound.
    #[error("{0}")]
    Broken(String),
}

/// An HTTP client. The connections stay open for further requests.
#[derive(Debug)]
pub struct Web {
    settings: WebSettings,
    tls: OnceLock<Client>,
    plain: OnceLock<Client>,
    local: OnceLock<Client>,
}

impl Web {
    /// A client without connections. Certificates are read at the first request that needs them.
    pub fn new(settings: WebSettings) -> Web {
        Web {
            settings,
            tls: OnceLock::new(),
            plain: OnceLock::new(),
            local: OnceLock::new(),
        }
    }

    /// Sends a request. Redirects are answers: a signed request is for one server.
    ///
    /// # Errors
    /// [`WebError`]
    pub async fn send(&self, request: hyper::Request<Bytes>) -> Result<WebAnswer, WebError> {
        let request = Request::try_from(request)
            .map_err(|_| WebError::Setup("the request has no usable URL".to_owned()))?;
        let url = request.url().clone();
        let client = self
            .client(&url)
            .map_err(|failure| WebError::Setup(format!("{}: {failure}", redacted(url.as_str()))))?;
        match client.execute(request).await {
            Ok(response) => self.read(response, &url).await,
            Err(error) => Err(self.explain(&error, &url).await),
        }
    }

    fn client(&self, url: &Url) -> Result<Client, Failure> {
        let proxies = self.proxies(url);
        let cell = match url.scheme() {
            "https" => &self.tls,
            _ if proxies => &self.plain,
            _ => &self.local,
        };
        if let Some(client) = cell.get() {
            return Ok(client.clone());
        }
        let settings = ClientSettings {
            user_agent: client::USER_AGENT,
            connect_timeout: self.settings.connect_timeout,
            relay: None,
            proxies,
        };
        let client = client::build(url, &settings)?;
        Ok(cell.get_or_init(|| client).clone())
    }

    fn proxies(&self, url: &Url) -> bool {
        self.settings.proxies && !(url.scheme() == "http" && is_local(url))
    }

    async fn read(&self, mut response: Response, url: &Url) -> Result<WebAnswer, WebError> {
        let limit = self.settings.max_bytes;
        let too_large = || {
            WebError::Broken(format!(
                "{}: the answer is larger than {limit} bytes and is ignored",
                redacted(url.as_str())
            ))
        };
        let announced = response.content_length();
        if announced.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) => return Err(broken(&error, url)),
            };
            if (body.len() + chunk.len()) as u64 > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(WebAnswer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: body.into(),
        })
    }

    /// The reason for a request without an answer, with the proxy's part in it.
    async fn explain(&self, error: &reqwest::Error, url: &Url) -> WebError {
        if !error.is_connect() {
            return broken(error, url);
        }
        let limit = self.settings.connect_timeout;
        let proxy = self.proxies(url).then(|| Proxy::of(url)).flatten();
        let mut place = redacted(url.as_str());
        if let Some(proxy) = proxy {
            place = format!("{place} through the proxy {}", proxy.shown());
            if let Some(refusal) = proxy.refusal(url, limit).await {
                return WebError::NotSent(format!("{place}: {refusal}"));
            }
        }
        if let Some(reason) = tls::reason(error) {
            return WebError::Setup(format!("{place}: TLS failed: {reason}"));
        }
        let reason = if error.is_timeout() {
            format!("no answer within {limit:?}")
        } else {
            client::chain(error)
        };
        WebError::NotSent(format!(
            "{place}: cannot connect: {reason}: check the name, the address and the route to the server"
        ))
    }
}

fn broken(error: &reqwest::Error, url: &Url) -> WebError {
    WebError::Broken(format!(
        "{}: the answer broke off or is not HTTP: {}",
        redacted(url.as_str()),
        client::chain(error)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_of_this_host_are_behind_no_proxy() {
        let web = |proxies| {
            Web::new(WebSettings {
                connect_timeout: Duration::from_secs(1),
                proxies,
                max_bytes: 1,
            })
        };
        for (url, is_proxied) in [
            ("http://169.254.169.254/latest/api/token", false),
            ("http://[fd00:ec2::254]/", false),
            ("http://169.254.170.2/v2/credentials", false),
            ("http://127.0.0.1:51679/", false),
            ("https://ec2.eu-central-1.amazonaws.com/", true),
            ("http://ec2.example/", true),
        ] {
            let url = Url::parse(url).unwrap();
            assert_eq!(web(true).proxies(&url), is_proxied, "{url}");
            assert!(!web(false).proxies(&url));
        }
    }
}
