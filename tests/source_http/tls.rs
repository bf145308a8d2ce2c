//! Certificates are checked against the file in `SSL_CERT_FILE`. The variable belongs to a process,
//! so each test fetches in a child process, the same test binary.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{fetch, settings};
use lab::raw_http::{Server, answer, ok, redirect};

/// Set by the test of marks, inside its namespace.
const CHILD_MARK: &str = "TRAILBLAZER_TEST_FETCH_MARK";
const CHILD_URL: &str = "TRAILBLAZER_TEST_FETCH_URL";

pub fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

pub fn server_config(
    authority: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
    expired: bool,
) -> Arc<rustls::ServerConfig> {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    if expired {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    }
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    Arc::new(config)
}

/// Fetches in a child process that trusts `roots`; returns the child's output.
pub fn fetch_trusting(roots: &Path, url: &str, mark: Option<u32>) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tls::child_fetches", "--ignored", "--nocapture"])
        .env("SSL_CERT_FILE", roots)
        .env_remove("SSL_CERT_DIR")
        .env(CHILD_URL, url)
        .envs(mark.map(|mark| (CHILD_MARK, mark.to_string())))
        .output()
        .expect("this test binary runs again");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains("RESULT "),
        "{output:?}"
    );
    text
}

pub fn roots_file(pem: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pem).unwrap();
    file
}

#[tokio::test]
#[ignore = "the child of the tests below; they run it"]
async fn child_fetches() {
    let url = std::env::var(CHILD_URL).expect("run by the tests below, with a URL");
    let mut settings = settings();
    settings.mark = std::env::var(CHILD_MARK)
        .ok()
        .map(|mark| mark.parse().unwrap());
    match fetch(&[url], &settings, None).await {
        Ok(fetched) => println!(
            "RESULT ok {}",
            String::from_utf8_lossy(&super::body(fetched))
        ),
        Err(error) => println!("RESULT error {error}"),
    }
}

#[test]
fn certificate_of_a_trusted_authority_is_accepted() {
    let authority = authority("ours");
    let server = Server::start_tls(server_config(&authority, "127.0.0.1", false), |_, _| {
        ok(b"over TLS")
    });
    let roots = roots_file(&authority.pem());
    let text = fetch_trusting(roots.path(), &server.url("/"), None);
    assert!(text.contains("RESULT ok over TLS"), "{text}");
}

#[test]
fn bad_certificates_are_refused_and_not_retried() {
    let (authority, unknown) = (authority("ours"), authority("unknown"));
    let roots = roots_file(&authority.pem());
    for (config, says) in [
        (
            server_config(&unknown, "127.0.0.1", false),
            &["the issuer of the server's certificate", "SSL_CERT_FILE ("][..],
        ),
        (
            server_config(&authority, "127.0.0.1", true),
            &["expired at 2021-01-01T00:00:00Z, and this host's clock says 20"],
        ),
        (
            server_config(&authority, "other.example", false),
            &["other.example", "not for 127.0.0.1"],
        ),
    ] {
        let server = Server::start_tls(config, |_, _| ok(b"never"));
        let text = fetch_trusting(roots.path(), &server.url("/"), None);
        assert!(
            text.contains("RESULT error") && text.contains("TLS failed"),
            "{text}"
        );
        for says in says {
            assert!(text.contains(says), "{says}: {text}");
        }
        assert!(!text.contains("tries"), "{text}");
        assert!(server.seen().is_empty());
    }
}

#[test]
fn server_without_tls_is_a_tls_error() {
    let authority = authority("ours");
    let roots = roots_file(&authority.pem());
    // nginx's answer to a ClientHello on a plain port.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 64]).unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            .unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let text = fetch_trusting(roots.path(), &url, None);
    assert!(text.contains("does not speak TLS on this port"), "{text}");
    answering.join().unwrap();
}

#[test]
fn missing_root_certificates_name_the_package() {
    let authority = authority("ours");
    let server = Server::start_tls(server_config(&authority, "127.0.0.1", false), |_, _| {
        ok(b"x")
    });
    let empty = roots_file("");
    let text_file = roots_file("a letter");
    for (roots, says) in [
        (
            Path::new("/nowhere/roots.pem"),
            "cannot be read (No such file",
        ),
        (Path::new("/"), "cannot be read (Is a directory"),
        (empty.path(), "holds no PEM certificate"),
        (text_file.path(), "holds no PEM certificate"),
    ] {
        let text = fetch_trusting(roots, &server.url("/"), None);
        let roots = format!("SSL_CERT_FILE names {}", roots.display());
        for says in ["RESULT error", &roots, says] {
            assert!(text.contains(says), "{says}: {text}");
        }
    }
    // A file or plain HTTP needs none.
    let plain = Server::start(|_, _| ok(b"plain"));
    let text = fetch_trusting(Path::new("/nowhere/roots.pem"), &plain.url("/"), None);
    assert!(text.contains("RESULT ok plain"), "{text}");
}

#[test]
fn redirects_may_upgrade_to_https_but_never_downgrade() {
    let authority = authority("ours");
    let roots = roots_file(&authority.pem());
    let plain = Server::start(|_, _| ok(b"forged"));
    let down = plain.url("/forged");
    let secure = Server::start_tls(
        server_config(&authority, "127.0.0.1", false),
        move |_, request| match request.path.as_str() {
            "/down" => redirect(&down),
            _ => answer("200 OK", &[], b"secure"),
        },
    );
    let text = fetch_trusting(roots.path(), &secure.url("/down"), None);
    assert!(text.contains("from https to http"), "{text}");
    assert!(plain.seen().is_empty());

    let up = secure.url("/up");
    let start = Server::start(move |_, _| redirect(&up));
    let text = fetch_trusting(roots.path(), &start.url("/"), None);
    assert!(text.contains("RESULT ok secure"), "{text}");
}
