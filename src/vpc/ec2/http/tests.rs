use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqsign_core::StaticEnv;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::super::Ec2;
use super::*;
use crate::types::Region;
use crate::vpc::objects::ListId;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYGEHEIM";
const TOKEN: &str = "SESSION-GEHEIM-0123456789";

/// A server that answers one request; returns its URL and the request.
async fn server(answer: String) -> (String, tokio::task::JoinHandle<String>) {
    servers(vec![answer]).await
}

/// A server with an answer for each connection; returns its URL and the last request.
async fn servers(answers: Vec<String>) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let mut request = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            request.clear();
            let mut buffer = [0; 4096];
            while !String::from_utf8_lossy(&request).contains("Action=") {
                let read = stream.read(&mut buffer).await.unwrap();
                request.extend_from_slice(&buffer[..read]);
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
        String::from_utf8(request).unwrap()
    });
    (url, task)
}

fn transport(url: &str) -> HttpTransport {
    let mut settings = Ec2Settings::new(Region::from("eu-central-1"));
    settings.proxies = false;
    settings.max_bytes = 10_000;
    let choice = EndpointChoice {
        url: Some(url.to_owned()),
        ..EndpointChoice::default()
    };
    let owned = |text: &str| text.to_owned();
    let variables = StaticEnv {
        home_dir: None,
        envs: HashMap::from([
            (owned("AWS_ACCESS_KEY_ID"), owned("AKIDEXAMPLE")),
            (owned("AWS_SECRET_ACCESS_KEY"), owned(SECRET)),
            (owned("AWS_SESSION_TOKEN"), owned(TOKEN)),
        ]),
    };
    HttpTransport::new(&settings, &choice, variables).unwrap()
}

fn http(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\nx-amzn-RequestId: r-7\r\n\
         Date: Sat, 01 Aug 2026 12:00:00 GMT\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn request_is_a_form_with_a_signed_body() {
    let (url, task) = server(http("200 OK", "<R/>")).await;
    let answer = transport(&url).send("Action=A".to_owned()).await.unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"<R/>"[..]));
    assert_eq!(answer.request_id.as_deref(), Some("r-7"));
    assert_eq!(answer.date.unwrap().to_string(), "2026-08-01T12:00:00Z");
    let request = task.await.unwrap().to_ascii_lowercase();
    assert!(request.starts_with("post / http/1.1\r\n"), "{request}");
    // `printf Action=A | sha256sum`
    let hash =
        "x-amz-content-sha256: e7fe3a930899e0f2fa547a852385ab2c61ce81c83d912a750d41b9f0219dbf69";
    for part in [
        hash,
        "content-type: application/x-www-form-urlencoded; charset=utf-8",
        "x-amz-security-token: ",
        "credential=akidexample/",
        "/eu-central-1/ec2/aws4_request",
        "signedheaders=content-type;host;x-amz-content-sha256;x-amz-date;x-amz-security-token",
        "user-agent: trailblazer/",
    ] {
        assert!(request.contains(part), "{part}: {request}");
    }
    assert!(!request.contains("unsigned-payload"), "{request}");
}

#[tokio::test]
async fn secrets_that_an_answer_repeats_are_removed() {
    let body = format!("<Message>x-amz-security-token:{TOKEN} {SECRET}</Message>");
    let (url, _task) = server(http("403 Forbidden", &body)).await;
    let answer = transport(&url).send("Action=A".to_owned()).await.unwrap();
    let text = String::from_utf8(answer.body).unwrap();
    assert!(!text.contains("GEHEIM"), "{text}");
    assert!(
        text.starts_with("<Message>x-amz-security-token:…"),
        "{text}"
    );
}

#[tokio::test]
async fn half_answers_large_answers_and_silence_differ_from_refused_connections() {
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n<R>".to_owned();
    let (url, _task) = server(half).await;
    let broken = transport(&url).send("Action=A".to_owned()).await;
    assert!(
        matches!(broken, Err(TransportError::Broken(_))),
        "{broken:?}"
    );

    let (url, _task) = server(http("200 OK", &"x".repeat(20_000))).await;
    let large = transport(&url).send("Action=A".to_owned()).await;
    let Err(TransportError::Broken(text)) = large else {
        panic!("{large:?}");
    };
    assert!(text.contains("larger than 10000 bytes"), "{text}");

    let (url, task) = server(String::new()).await;
    task.abort();
    let _ = task.await;
    let refused = transport(&url).send("Action=A".to_owned()).await;
    let Err(TransportError::Unreachable(text)) = refused else {
        panic!("{refused:?}");
    };
    assert!(text.contains("cannot connect"), "{text}");
}

#[tokio::test]
async fn answer_without_a_word_after_the_request_is_broken() {
    let (url, _task) = server(String::new()).await;
    let broken = transport(&url).send("Action=A".to_owned()).await;
    assert!(
        matches!(broken, Err(TransportError::Broken(_))),
        "{broken:?}"
    );
}

#[test]
fn short_text_in_place_of_a_secret_leaves_the_codes_of_an_answer_alone() {
    let body = b"<Code>UnauthorizedOperation</Code> wJalrXUtnFEMIbPxRfiCY";
    assert_eq!(without(body, &["a", "n", ""]), body);
    let rest = without(body, &["wJalrXUtnFEMIbPxRfiCY"]);
    assert_eq!(rest, "<Code>UnauthorizedOperation</Code> …".as_bytes());
}

#[test]
fn process_with_credentials_dumps_no_core() {
    forbid_core_dumps();
    let behaviour = rustix::process::dumpable_behavior().unwrap();
    assert_eq!(behaviour, DumpableBehavior::NotDumpable);
}

/// The lines of the log, in memory.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn secrets_appear_in_no_log_and_in_no_error() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let refusal = |code: &str| {
        format!(
            "<Response><Errors><Error><Code>{code}</Code><Message>x-amz-security-token:{TOKEN} {SECRET}\
             </Message></Error></Errors></Response>"
        )
    };
    let (url, _task) = servers(vec![
        http("503 Busy", &refusal("Unavailable")),
        http("500 Busy", &format!("<html>{TOKEN} {SECRET}")),
        http("403 Forbidden", &refusal("SignatureDoesNotMatch")),
    ])
    .await;
    let mut settings = Ec2Settings::new(Region::from("eu-central-1"));
    settings.backoff.base = Duration::from_millis(1);
    let client = Ec2::over(transport(&url), &settings);
    let list = ListId::from("pl-1");
    let error = client.list_entries(&list, None).await.unwrap_err();
    assert_eq!(error.code.as_deref(), Some("SignatureDoesNotMatch"));
    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("call failed, trying again"), "{log}");
    for text in [log, error.to_string(), format!("{error:?} {client:?}")] {
        assert!(!text.contains("GEHEIM"), "{text}");
    }
}
