//! The fetch in a process of its own.
//!
//! The agent lives for months and asks once in minutes. What a fetch over TLS touches (the code
//! of TLS, the system's root certificates, tables of the ciphers: over 8 MiB resident) would stay
//! with it for all that time; a child takes it along when it ends. It also reads what strangers send:
//! an answer that ends the child ends no agent.
//!
//! The child is this same program. It gets one line of JSON on standard input, which is kept open:
//! its end says that nobody waits any more. It answers with one line of JSON on standard output,
//! followed by the document.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{
    Failure, FetchSettings, Fetched, SourceError, SourceFailure, Validators, any_is_remote, fetch,
    redacted,
};

/// This program, also after a new one was installed in its place (proc(5), `/proc/pid/exe`): the
/// two sides always speak the same format.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Bound of a request or answer without its document, in bytes: addresses, validators and texts of
/// errors, of which a server can make up a part.
const MAX_LINE: u64 = 1 << 20;

/// A child that has answered has nothing left to do.
const TO_END: Duration = Duration::from_secs(1);

/// Who asks the sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asker {
    /// This process.
    This,
    /// This program, started once more with these arguments for each fetch.
    Child {
        /// They lead to [`serve`].
        arguments: Vec<String>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    urls: Vec<String>,
    settings: FetchSettings,
    previous: Option<Validators>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    fetched: Result<Fetched, SourceError>,
    /// Of the document that follows, in bytes; 0 where none does.
    size: u64,
}

impl Asker {
    /// [`fetch`], by whoever asks.
    ///
    /// # Errors
    /// As [`fetch`], and a child that broke off. One that can't be started is no reason to go without
    /// the document: this process asks then.
    pub async fn fetch(
        &self,
        urls: &[String],
        settings: &FetchSettings,
        previous: Option<&Validators>,
    ) -> Result<Fetched, SourceError> {
        let arguments = match self {
            // A file is read here as well as there.
            Asker::Child { arguments } if any_is_remote(urls) => arguments,
            _ => return fetch(urls, settings, previous).await,
        };
        let request = Request {
            urls: urls.to_vec(),
            settings: settings.clone(),
            previous: previous.cloned(),
        };
        let child = match start(arguments) {
            Ok(child) => child,
            Err(error) => {
                tracing::warn!(
                    "cannot start the process that fetches the document ({THIS_PROGRAM}: {error}); the agent fetches it itself: look for what forbids it, a limit of tasks or a security module"
                );
                return fetch(urls, settings, previous).await;
            }
        };
        ask(child, &request).await.unwrap_or_else(|error| {
            let url = urls.first().map(|url| redacted(url)).unwrap_or_default();
            Err(SourceError::Failed(vec![SourceFailure {
                url,
                tries: 1,
                cause: Failure::Child(error.to_string()),
            }]))
        })
    }
}

fn start(arguments: &[String]) -> io::Result<Child> {
    Command::new(THIS_PROGRAM)
        .arg0("trailblazer")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

async fn ask(mut child: Child, request: &Request) -> io::Result<Result<Fetched, SourceError>> {
    let line = line_of(request)?;
    let (Some(mut to_child), Some(from_child)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("it has no pipes"));
    };
    let answer = async {
        to_child.write_all(&line).await?;
        read_answer(BufReader::new(from_child), request.settings.max_bytes).await
    };
    let answer = timeout(patience(request), answer)
        .await
        .unwrap_or_else(|_elapsed| Err(io::Error::new(io::ErrorKind::TimedOut, "it hangs")));
    // Kept open until here: its end is what tells the child to give up.
    drop(to_child);
    match answer {
        Ok(answer) => {
            // Nothing more is expected of it, but a zombie would be left.
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

/// Longer than a child that runs at all can take: it bounds each try and each wait by itself.
fn patience(request: &Request) -> Duration {
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
    let Answer { mut fetched, size } = read_line(&mut from).await?;
    if let Ok(Fetched::Document { bytes, .. }) = &mut fetched {
        if size == 0 || size > max_bytes {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("its document has {size} bytes, where 1 to {max_bytes} are allowed"),
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
            "it ended within its first line",
        ));
    }
    Ok(serde_json::from_slice(&line)?)
}

/// The child's side: one request, one answer. Whoever asked may be gone at any moment, which is no
/// error of this side.
///
/// # Errors
/// Those of the two pipes, and of a request that isn't one.
pub async fn serve(
    from: impl AsyncReadExt + Unpin,
    to: impl AsyncWriteExt + Unpin,
) -> io::Result<()> {
    match answer(from, to).await {
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
) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let request: Request = read_line(&mut from).await?;
    let mut fetched = tokio::select! {
        fetched = fetch(&request.urls, &request.settings, request.previous.as_ref()) => fetched,
        // Nothing more is ever sent: this ends when whoever asked ends or gives up.
        _ = from.read_u8() => return Ok(()),
    };
    let document = match &mut fetched {
        Ok(Fetched::Document { bytes, .. }) => std::mem::take(bytes),
        Ok(Fetched::NotModified { .. }) | Err(_) => Vec::new(),
    };
    let size = document.len() as u64;
    to.write_all(&line_of(&Answer { fetched, size })?).await?;
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

    /// What the child answers when it is asked for these.
    async fn served(urls: &[&str]) -> io::Result<Result<Fetched, SourceError>> {
        let request = Request {
            urls: urls.iter().map(|&url| url.to_owned()).collect(),
            settings: settings(),
            previous: None,
        };
        let line = line_of(&request)?;
        let (mut to_child, from_parent) = tokio::io::duplex(1 << 16);
        let (to_parent, from_child) = tokio::io::duplex(1 << 16);
        to_child.write_all(&line).await?;
        serve(from_parent, to_parent).await?;
        drop(to_child);
        read_answer(BufReader::new(from_child), request.settings.max_bytes).await
    }

    #[tokio::test]
    async fn a_document_arrives_whole() {
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

    /// Texts are what a human gets to read: none may change on the way.
    #[tokio::test]
    async fn a_failure_arrives_as_it_is() {
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
    async fn an_answer_that_breaks_off_is_none() {
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
    async fn nobody_waits_any_more() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let request = Request {
            urls: vec![format!("http://{}/", listener.local_addr().unwrap())],
            settings: FetchSettings {
                timeout: Duration::from_secs(3600),
                ..settings()
            },
            previous: None,
        };
        let line = serde_json::to_string(&request).unwrap() + "\n";
        let mut answer = Vec::new();
        // The listener never answers; the end of the request's pipe ends the wait.
        serve(line.as_bytes(), &mut answer).await.unwrap();
        assert!(answer.is_empty());
        // Killed before the question was out, and before the answer was in.
        serve(&line.as_bytes()[..9], &mut answer).await.unwrap();
        let (to_parent, from_child) = tokio::io::duplex(1);
        drop(from_child);
        let request = line.replace("http://", "ftp://");
        let (mut to_child, from_parent) = tokio::io::duplex(1 << 16);
        to_child.write_all(request.as_bytes()).await.unwrap();
        serve(from_parent, to_parent).await.unwrap();
        // A question that is none is an error.
        serve(&b"what?\n"[..], &mut answer).await.unwrap_err();
    }
}
