//! The fetch in a child process.
//!
//! The agent runs for months and fetches once every few minutes. A fetch over TLS makes more than
//! 8 MiB resident (TLS code, the system's root certificates, cipher tables), and the memory would
//! stay with the agent; with a child, the memory ends with the fetch. The child also parses data
//! from strangers: an answer that crashes the child leaves the agent running.
//!
//! The child is the same program. The agent writes one line of JSON to the child's standard input
//! and keeps the pipe open: the end of the pipe tells the child to give up. The child answers with
//! one line of JSON on standard output, followed by the document.

use std::env;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::sandbox::{VARIABLES, without_ambient};
use super::{
    Failure, FetchSettings, Fetched, SourceError, SourceFailure, Validators, any_is_remote, fetch,
    redacted,
};

/// The running program, even after an upgrade has replaced the file (proc(5), `/proc/pid/exe`):
/// parent and child always use the same format.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Largest request or answer without the document, in bytes: addresses, validators and texts of
/// errors, of which a server can choose a part.
const MAX_LINE: u64 = 1 << 20;

/// The time for a child to exit after the answer.
const TO_END: Duration = Duration::from_secs(1);

/// The process that fetches from the sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asker {
    This,
    /// This program, started once more with these arguments for each fetch.
    Child {
        arguments: Vec<String>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct ChildRequest {
    urls: Vec<String>,
    settings: FetchSettings,
    previous: Option<Validators>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ChildAnswer {
    fetched: Result<Fetched, SourceError>,
    /// The size of the following document in bytes; 0 without a document.
    size: u64,
}

impl Asker {
    /// Runs [`fetch`] in the chosen process.
    ///
    /// # Errors
    /// As [`fetch`], and [`Failure::Child`]. If the child can't be started, this process fetches
    /// the document.
    pub async fn fetch(
        &self,
        urls: &[String],
        settings: &FetchSettings,
        previous: Option<&Validators>,
    ) -> Result<Fetched, SourceError> {
        let arguments = match self {
            // Files need no child.
            Asker::Child { arguments } if any_is_remote(urls) => arguments,
            _ => return fetch(urls, settings, previous).await,
        };
        let request = ChildRequest {
            urls: urls.to_vec(),
            settings: settings.clone(),
            previous: previous.cloned(),
        };
        let child = match start(arguments, settings) {
            Ok(child) => child,
            Err(error) => {
                tracing::warn!(
                    "cannot start the process that fetches the document ({THIS_PROGRAM}: {error}); the agent fetches the document in its own process: look for a limit of tasks or a security module"
                );
                return fetch(urls, settings, previous).await;
            }
        };
        ask(child, &request).await.unwrap_or_else(|error| {
            let url = urls.first().map(|url| redacted(url)).unwrap_or_default();
            Err(SourceError::Failed(vec![SourceFailure {
                url,
                proxy: None,
                redirected: None,
                tries: 1,
                cause: Failure::Child(error.to_string()),
            }]))
        })
    }
}

fn start(arguments: &[String], settings: &FetchSettings) -> io::Result<Child> {
    let kept = VARIABLES.into_iter();
    let kept = kept.filter_map(|name| Some((name, env::var_os(name)?)));
    let mut command = Command::new(THIS_PROGRAM);
    command
        .arg0("trailblazer")
        .args(arguments)
        .env_clear()
        .envs(kept)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    without_ambient(settings.mark.is_some(), || command.spawn())
}

async fn ask(mut child: Child, request: &ChildRequest) -> io::Result<Result<Fetched, SourceError>> {
    let line = line_of(request)?;
    let (Some(mut to_child), Some(from_child)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("the child has no pipes"));
    };
    let answer = async {
        to_child.write_all(&line).await?;
        read_answer(BufReader::new(from_child), request.settings.max_bytes).await
    };
    let answer = timeout(patience(request), answer)
        .await
        .unwrap_or_else(|_elapsed| Err(io::Error::new(io::ErrorKind::TimedOut, "the child hangs")));
    // Kept open so far: the end of the pipe tells the child to give up.
    drop(to_child);
    match answer {
        Ok(answer) => {
            // Without a wait, the child would stay as a zombie.
            if timeout(TO_END, child.wait()).await.is_err() {
                child.start_kill()?;
                child.wait().await?;
            }
            Ok(answer)
        }
        Err(error) => {
            child.start_kill()?;
            let status = child.wait().await?;
            Err(io::Error::new(error.kind(), format!("{error}; {status}")))
        }
    }
}

/// Longer than the child can need: the child bounds each try and each wait.
fn patience(request: &ChildRequest) -> Duration {
    let settings = &request.settings;
    let one_try = settings.timeout.saturating_add(settings.max_wait);
    let one_source = one_try.saturating_mul(settings.retries.saturating_add(1));
    let sources = u32::try_from(request.urls.len()).unwrap_or(u32::MAX);
    one_source
        .saturating_mul(sources)
        .saturating_add(Duration::from_secs(10))
}

async fn read_answer(
    mut from: impl AsyncBufReadExt + Unpin,
    max_bytes: u64,
) -> io::Result<Result<Fetched, SourceError>> {
    let ChildAnswer { mut fetched, size } = read_line(&mut from).await?;
    if let Ok(Fetched::Document { bytes, .. }) = &mut fetched {
        if size == 0 || size > max_bytes {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the document has {size} bytes, where 1 to {max_bytes} are allowed"),
            ));
        }
        bytes.resize(usize::try_from(size).map_err(io::Error::other)?, 0);
        from.read_exact(bytes).await?;
    }
    Ok(fetched)
}

fn line_of(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

async fn read_line<T: for<'de> Deserialize<'de>>(
    from: &mut (impl AsyncBufReadExt + Unpin),
) -> io::Result<T> {
    let mut line = Vec::new();
    from.take(MAX_LINE).read_until(b'\n', &mut line).await?;
    if line.last() != Some(&b'\n') {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the first line is incomplete",
        ));
    }
    Ok(serde_json::from_slice(&line)?)
}

/// The child's side: one request, one answer. `confine` runs between the request, which comes from
/// the agent, and the first byte from a stranger. The parent may end at any moment, which is no
/// error of the child.
///
/// # Errors
/// Errors of the two pipes, and an invalid request.
pub async fn serve(
    from: impl AsyncReadExt + Unpin,
    to: impl AsyncWriteExt + Unpin,
    confine: impl FnOnce(&FetchSettings),
) -> io::Result<()> {
    match answer(from, to, confine).await {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe
            ) =>
        {
            Ok(())
        }
        served => served,
    }
}

async fn answer(
    from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    confine: impl FnOnce(&FetchSettings),
) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let request: ChildRequest = read_line(&mut from).await?;
    confine(&request.settings);
    let mut fetched = tokio::select! {
        fetched = fetch(&request.urls, &request.settings, request.previous.as_ref()) => fetched,
        // The parent sends no further byte: the read returns when the parent ends or gives up.
        _ = from.read_u8() => return Ok(()),
    };
    let document = match &mut fetched {
        Ok(Fetched::Document { bytes, .. }) => std::mem::take(bytes),
        Ok(Fetched::NotModified { .. }) | Err(_) => Vec::new(),
    };
    let size = document.len() as u64;
    to.write_all(&line_of(&ChildAnswer { fetched, size })?)
        .await?;
    to.write_all(&document).await?;
    to.flush().await
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn settings() -> FetchSettings {
        FetchSettings {
            timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            max_bytes: 1000,
            retries: 0,
            retry_silence: false,
            backoff_base: Duration::ZERO,
            max_wait: Duration::ZERO,
            user_agent: "test".to_owned(),
            proxies: false,
            mark: None,
        }
    }

    /// The child's answer to a request for these URLs.
    async fn served(urls: &[&str]) -> io::Result<Result<Fetched, SourceError>> {
        let request = ChildRequest {
            urls: urls.iter().map(|&url| url.to_owned()).collect(),
            settings: settings(),
            previous: None,
        };
        let line = line_of(&request)?;
        let (mut to_child, from_parent) = tokio::io::duplex(1 << 16);
        let (to_parent, from_child) = tokio::io::duplex(1 << 16);
        to_child.write_all(&line).await?;
        serve(from_parent, to_parent, |_| {}).await?;
        drop(to_child);
        read_answer(BufReader::new(from_child), request.settings.max_bytes).await
    }

    #[tokio::test]
    async fn document_arrives_complete() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let content = b"line one\nline two, and no end of line";
        file.write_all(content).unwrap();
        let url = file.path().to_str().unwrap();
        let fetched = served(&[url]).await.unwrap().unwrap();
        let Fetched::Document { bytes, .. } = fetched else {
            panic!("{fetched:?}");
        };
        assert_eq!(bytes, content);
    }

    /// The texts are for people and must not change in transit.
    #[tokio::test]
    async fn failure_keeps_its_text_and_class() {
        let urls = ["/none", "ftp://example.com/", "http://127.0.0.1:1/x"];
        let here: Vec<String> = urls.map(str::to_owned).to_vec();
        let here = fetch(&here, &settings(), None).await.unwrap_err();
        let there = served(&urls).await.unwrap().unwrap_err();
        assert_eq!(there.to_string(), here.to_string());
        assert_eq!(there.is_answer(), here.is_answer());
        assert!(there.to_string().contains("none of 3 sources"), "{there}");
    }

    #[test]
    fn every_failure_survives_the_pipe() {
        use reqwest::StatusCode;
        let text = || "x".to_owned();
        let failures = [
            Failure::BadUrl(text()),
            Failure::Client(text()),
            Failure::NoAuthorities(text()),
            Failure::Proxy(text()),
            Failure::Unusable(text()),
            Failure::Quiet { until: text() },
            Failure::Timeout(Duration::from_millis(1500)),
            Failure::Connect(text()),
            Failure::Tls(text()),
            Failure::Broken(text()),
            Failure::Status(StatusCode::FORBIDDEN),
            Failure::Unavailable {
                status: StatusCode::TOO_MANY_REQUESTS,
                retry_after: Some(Duration::from_secs(7)),
            },
            Failure::Redirect(text()),
            Failure::UnaskedNotModified,
            Failure::Encoding(text()),
            Failure::TooLarge {
                limit: 1,
                announced: Some(2),
            },
            Failure::Empty,
            Failure::Child(text()),
            Failure::File {
                problem: text(),
                advice: "y".into(),
            },
        ];
        for failure in failures {
            let line = serde_json::to_vec(&failure).unwrap();
            let read: Failure = serde_json::from_slice(&line).unwrap();
            assert_eq!(format!("{read:?}"), format!("{failure:?}"));
        }
    }

    #[tokio::test]
    async fn incomplete_answer_is_an_error() {
        let head = r#"{"fetched":{"Ok":{"Document":{"url":"u","validators":null}}},"size":9}"#;
        for (sent, why) in [
            (String::new(), "first line"),
            (head.to_owned(), "first line"),
            (format!("{head}\n12345678"), "eof"),
            (head.replace('9', "0") + "\n", "0 bytes"),
            (head.replace('9', "1001") + "\n", "1001 bytes"),
            ("nonsense\n".to_owned(), "expected"),
        ] {
            let error = read_answer(sent.as_bytes(), 1000).await.unwrap_err();
            assert!(error.to_string().contains(why), "{sent}: {error}");
        }
    }

    #[tokio::test]
    async fn child_gives_up_when_the_parent_has_ended() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let request = ChildRequest {
            urls: vec![format!("http://{}/", listener.local_addr().unwrap())],
            settings: FetchSettings {
                timeout: Duration::from_secs(3600),
                ..settings()
            },
            previous: None,
        };
        let line = serde_json::to_string(&request).unwrap() + "\n";
        let mut answer = Vec::new();
        // The listener never answers; the end of the pipe ends the wait.
        serve(line.as_bytes(), &mut answer, |_| {}).await.unwrap();
        assert!(answer.is_empty());
        // The parent ends within the request, and before the answer.
        serve(&line.as_bytes()[..9], &mut answer, |_| {})
            .await
            .unwrap();
        let (to_parent, from_child) = tokio::io::duplex(1);
        drop(from_child);
        let request = line.replace("http://", "ftp://");
        let (mut to_child, from_parent) = tokio::io::duplex(1 << 16);
        to_child.write_all(request.as_bytes()).await.unwrap();
        serve(from_parent, to_parent, |_| {}).await.unwrap();
        // An invalid request is an error.
        serve(&b"what?\n"[..], &mut answer, |_| {})
            .await
            .unwrap_err();
    }
}
