//! Fetches a document over HTTP(S): conditional, bounded in time and size, with retries after
//! transient failures.

use std::sync::OnceLock;

use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, LAST_MODIFIED, LOCATION, RETRY_AFTER,
};
use reqwest::{Client, Response, StatusCode, Url};

use super::answer::{Content, Validators};
use super::client::{self, ClientSettings, chain};
use super::coding;
use super::error::Failure;
use super::locator::{is_local, redacted, resolves_locally};
use super::marked::Relay;
use super::proxy::Proxy;
use super::retry;
use super::settings::{FetchSettings, MAX_REDIRECTS};
use super::tls;

/// The HTTP clients of one fetch, built at the first use: reading the system's root certificates
/// takes longer than a whole pass without changes, and files and plain HTTP need no certificates.
pub(super) struct Clients<'a> {
    settings: &'a FetchSettings,
    plain: OnceLock<Client>,
    tls: OnceLock<Client>,
}

impl<'a> Clients<'a> {
    pub(super) fn new(settings: &'a FetchSettings) -> Self {
        Clients {
            settings,
            plain: OnceLock::new(),
            tls: OnceLock::new(),
        }
    }

    /// The client for a URL, with the marked connection below the client if a mark is set.
    async fn of(&self, url: &Url) -> Result<(Client, Option<Relay>), Failure> {
        if let Some(mark) = self.settings.mark {
            let relay = Relay::connect(url, mark, self.settings.connect_timeout).await?;
            let client = self.build(url, Some(&relay))?;
            return Ok((client, Some(relay)));
        }
        let cell = if url.scheme() == "https" {
            &self.tls
        } else {
            &self.plain
        };
        if let Some(client) = cell.get() {
            return Ok((client.clone(), None));
        }
        let client = self.build(url, None)?;
        Ok((cell.get_or_init(|| client).clone(), None))
    }

    fn build(&self, url: &Url, relay: Option<&Relay>) -> Result<Client, Failure> {
        let settings = ClientSettings {
            user_agent: &self.settings.user_agent,
            connect_timeout: self.settings.connect_timeout,
            relay: relay.map(|relay| relay.socket.as_str()),
            proxies: self.settings.proxies,
        };
        client::build(url, &settings)
    }
}

/// Fetches one URL, with retries after transient failures. Returns the number of tries, and the
/// target of the last redirect.
pub(super) async fn fetch(
    clients: &Clients<'_>,
    url: &Url,
    proxy: Option<&Proxy>,
    previous: Option<&Validators>,
) -> (u32, Option<Url>, Result<Content, Failure>) {
    let mut visited = Vec::new();
    let (tries, outcome) = with_retries(clients, url, proxy, previous, &mut visited).await;
    let last = visited.into_iter().skip(1).last();
    (tries, last, outcome)
}

async fn with_retries(
    clients: &Clients<'_>,
    url: &Url,
    proxy: Option<&Proxy>,
    previous: Option<&Validators>,
    visited: &mut Vec<Url>,
) -> (u32, Result<Content, Failure>) {
    let settings = clients.settings;
    let mut tries = 0;
    loop {
        tries += 1;
        let one_try = one_try(clients, url, previous, proxy.is_some(), visited);
        let failure = match tokio::time::timeout(settings.timeout, one_try).await {
            Ok(Ok(answer)) => return (tries, Ok(answer)),
            Ok(Err(failure)) => failure,
            Err(_elapsed) => Failure::Timeout(settings.timeout),
        };
        if let (Some(proxy), Failure::Connect(_)) = (proxy, &failure)
            && let Some(refusal) = proxy.refusal(url, settings.connect_timeout).await
        {
            return (tries, Err(Failure::Proxy(refusal)));
        }
        let retry_after = match &failure {
            Failure::Timeout(_) | Failure::Connect(_) if !settings.retry_silence => {
                return (tries, Err(failure));
            }
            Failure::Timeout(_) | Failure::Connect(_) | Failure::Broken(_) => None,
            Failure::Unavailable { retry_after, .. } => *retry_after,
            _ => return (tries, Err(failure)),
        };
        if tries > settings.retries {
            return (tries, Err(failure));
        }
        let Some(wait) = retry::wait(tries, retry_after, settings.backoff_base, settings.max_wait)
        else {
            return (tries, Err(failure));
        };
        tracing::info!(
            url = redacted(url.as_str()),
            tries,
            wait_ms = wait.as_millis() as u64,
            "fetch failed, trying again: {failure}"
        );
        tokio::time::sleep(wait).await;
    }
}

/// One request and its redirects. reqwest could follow redirects too, but would send the
/// validators to other servers, and reports a loop only as "too many redirects". Behind a proxy no
/// name is resolved here: the proxy resolves the names.
async fn one_try(
    clients: &Clients<'_>,
    start: &Url,
    previous: Option<&Validators>,
    through_proxy: bool,
    visited: &mut Vec<Url>,
) -> Result<Content, Failure> {
    *visited = vec![start.clone()];
    let mut url = start.clone();
    loop {
        // The relay must live until the body is read.
        let (client, _relay) = clients.of(&url).await?;
        let mut request = client.get(url.clone()).header(ACCEPT_ENCODING, "gzip");
        let mut conditional = false;
        if let Some(known) = previous.filter(|known| known.url == url.as_str()) {
            if let Some(etag) = &known.etag {
                request = request.header(IF_NONE_MATCH, etag);
                conditional = true;
            }
            if let Some(date) = &known.last_modified {
                request = request.header(IF_MODIFIED_SINCE, date);
                conditional = true;
            }
        }
        let response = request.send().await.map_err(|error| {
            if error.is_builder() {
                // The only cause: a stored validator with an illegal header value.
                return Failure::BadUrl(format!("the request cannot be made: {}", chain(&error)));
            }
            transport(clients.settings, &error)
        })?;
        let status = response.status();
        match status {
            StatusCode::OK => return document(clients.settings, response, &url).await,
            StatusCode::NOT_MODIFIED if conditional => return Ok(Content::NotModified),
            StatusCode::NOT_MODIFIED => return Err(Failure::UnaskedNotModified),
            StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT => {
                let to = redirect_target(&url, visited, &response)?;
                refuse_local(&to, visited, !through_proxy).await?;
                url = to;
                visited.push(url.clone());
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                return Err(unavailable(&response));
            }
            _ if status.is_server_error() => return Err(unavailable(&response)),
            _ => return Err(Failure::Status(status)),
        }
    }
}

fn redirect_target(from: &Url, visited: &[Url], response: &Response) -> Result<Url, Failure> {
    let location = header(response.headers(), LOCATION).ok_or_else(|| {
        Failure::Redirect(format!(
            "the server answered {} without a Location header",
            response.status()
        ))
    })?;
    let mut to = from.join(&location).map_err(|error| {
        Failure::Redirect(format!("the server redirects to an invalid URL ({error})"))
    })?;
    to.set_fragment(None);
    let shown = redacted(to.as_str());
    match (from.scheme(), to.scheme()) {
        ("https", "http") => {
            return Err(Failure::Redirect(format!(
                "the server redirects from https to http ({shown}), which is refused: anyone on the network path could replace the document"
            )));
        }
        (_, "http" | "https") => {}
        (_, other) => {
            return Err(Failure::Redirect(format!(
                "the server redirects to the scheme {other:?}, which is refused"
            )));
        }
    }
    if visited.contains(&to) {
        return Err(Failure::Redirect(format!(
            "the server redirects in a loop, back to {shown}"
        )));
    }
    if visited.len() > MAX_REDIRECTS {
        return Err(Failure::Redirect(format!(
            "the server redirects more than {MAX_REDIRECTS} times, last to {shown}"
        )));
    }
    Ok(to)
}

/// Refuses a redirect of a server elsewhere to this host itself or to its link, also by the name: a
/// public source could otherwise ask the metadata service, or a service for this host alone, in our
/// name.
async fn refuse_local(to: &Url, visited: &[Url], resolve: bool) -> Result<(), Failure> {
    let same_host = |from: &Url| from.host_str() == to.host_str();
    let from_here = visited.iter().any(is_local) || visited.iter().any(same_host);
    if from_here || !(is_local(to) || resolve && resolves_locally(to).await) {
        return Ok(());
    }
    Err(Failure::Redirect(format!(
        "the server redirects to {}, an address of this host or of its link, which is refused",
        redacted(to.as_str())
    )))
}

fn unavailable(response: &Response) -> Failure {
    Failure::Unavailable {
        status: response.status(),
        retry_after: header(response.headers(), RETRY_AFTER)
            .and_then(|value| retry::parse_retry_after(&value, jiff::Timestamp::now())),
    }
}

/// Reads the body, at most `max_bytes` before and after decoding.
async fn document(
    settings: &FetchSettings,
    mut response: Response,
    url: &Url,
) -> Result<Content, Failure> {
    let limit = settings.max_bytes;
    let codings = response.headers().get_all(CONTENT_ENCODING);
    coding::check(codings.iter().map(|value| value.to_str().unwrap_or("?")))?;
    let announced = response.content_length();
    if announced.is_some_and(|length| length > limit) {
        return Err(Failure::TooLarge { limit, announced });
    }
    let validators = Validators {
        url: url.as_str().to_owned(),
        etag: header(response.headers(), ETAG),
        last_modified: header(response.headers(), LAST_MODIFIED),
    };
    let mut bytes = Vec::with_capacity(announced.and_then(|n| n.try_into().ok()).unwrap_or(0));
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| transport(settings, &error))?
    {
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(Failure::TooLarge {
                limit,
                announced: None,
            });
        }
        bytes.extend_from_slice(&chunk);
    }
    let bytes = coding::decode(bytes, limit)?;
    if bytes.is_empty() {
        return Err(Failure::Empty);
    }
    let usable = validators.etag.is_some() || validators.last_modified.is_some();
    Ok(Content::Document {
        bytes,
        validators: usable.then_some(validators),
    })
}

fn transport(settings: &FetchSettings, error: &reqwest::Error) -> Failure {
    if error.is_connect() {
        return if let Some(reason) = tls::reason(error) {
            Failure::Tls(reason)
        } else if error.is_timeout() {
            Failure::Connect(format!("no answer within {:?}", settings.connect_timeout))
        } else {
            Failure::Connect(chain(error))
        };
    }
    Failure::Broken(chain(error))
}

fn header(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned)
}
