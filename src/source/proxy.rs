//! The proxy of a request, for messages: a failure behind a proxy otherwise looks like a failure of
//! the server.

use std::env;
use std::time::Duration;

use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use reqwest::Url;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::locator::redacted;
use crate::printable::{escaped, shortened};

/// The proxy that the environment sets for one URL, by the same rules as reqwest.
pub(super) struct Proxy {
    intercept: Intercept,
    variable: Option<&'static str>,
}

impl Proxy {
    /// The proxy of a URL, if the environment sets one.
    pub(super) fn of(url: &Url) -> Option<Proxy> {
        let target: hyper::Uri = url.as_str().parse().ok()?;
        let intercept = Matcher::from_env().intercept(&target)?;
        let variables = if url.scheme() == "https" {
            ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
        } else {
            ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
        };
        let is_set = |name: &&str| env::var_os(name).is_some_and(|value| !value.is_empty());
        Some(Proxy {
            intercept,
            variable: variables.into_iter().find(is_set),
        })
    }

    /// The proxy and the variable that sets it, without credentials.
    pub(super) fn shown(&self) -> String {
        let url = redacted(&self.intercept.uri().to_string());
        match self.variable {
            Some(variable) => format!("{url} ({variable})"),
            None => url,
        }
    }

    /// Repeats the request for a tunnel to find the proxy's answer, which reqwest drops. `None` if
    /// the proxy opens the tunnel, or if only another client could tell.
    pub(super) async fn refusal(&self, url: &Url, limit: Duration) -> Option<String> {
        if url.scheme() != "https" || self.intercept.uri().scheme_str() != Some("http") {
            return None;
        }
        match timeout(limit, self.status_line(url)).await {
            Ok(Ok(line)) => {
                let status = line.split_once(' ').map_or("", |(_, status)| status);
                let advice = match status.get(..3) {
                    Some(code) if code.starts_with('2') => return None,
                    Some("407") => {
                        "the proxy asks for a user and a password: write them into the variable, as http://USER:PASSWORD@HOST:PORT"
                    }
                    _ => "let the proxy reach the server, or name the server in NO_PROXY",
                };
                let shown = shortened(&escaped(line.trim()), 80);
                Some(format!(
                    "the proxy refuses the tunnel to the server with {shown:?}: {advice}"
                ))
            }
            Ok(Err(error)) => Some(format!(
                "the proxy does not answer ({error}): correct the variable, or name the server in NO_PROXY"
            )),
            Err(_elapsed) => Some(format!(
                "the proxy does not answer within {limit:?}: correct the variable, or name the server in NO_PROXY"
            )),
        }
    }

    async fn status_line(&self, url: &Url) -> std::io::Result<String> {
        let proxy = self.intercept.uri();
        let host = proxy.host().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        let mut stream = TcpStream::connect((address, proxy.port_u16().unwrap_or(80))).await?;
        let target = format!(
            "{}:{}",
            url.host_str().unwrap_or_default(),
            url.port_or_known_default().unwrap_or(443)
        );
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
        if let Some(credentials) = self.intercept.basic_auth() {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(credentials.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        stream.write_all(&request).await?;
        let mut line = Vec::new();
        let mut answer = BufReader::new(stream.take(1024));
        answer.read_until(b'\n', &mut line).await?;
        if line.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }
}
