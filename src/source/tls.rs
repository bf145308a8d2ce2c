//! The reason for a failed TLS handshake, and the certificates that this host trusts.

use std::env;
use std::error::Error as _;
use std::fs;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{CertificateError, Error as TlsError};

use crate::printable::{escaped, shortened};

/// The variables that replace the system's list of trusted authorities (rustls-native-certs).
const FILE: &str = "SSL_CERT_FILE";
const DIRECTORY: &str = "SSL_CERT_DIR";

/// The reason and advice, if TLS is the cause of a failure.
pub(super) fn reason(error: &reqwest::Error) -> Option<String> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(tls) = error.downcast_ref::<TlsError>() {
            return Some(explain(tls));
        }
        cause = match error.downcast_ref::<io::Error>() {
            // `source` of an io::Error skips the inner error, and hyper-rustls wraps the error of
            // tokio-rustls in another io::Error.
            Some(io) => match io.get_ref() {
                Some(inner) => Some(inner as _),
                // tokio-rustls reports every other TLS error as `InvalidData`.
                None if io.kind() == io::ErrorKind::InvalidData => return Some(io.to_string()),
                None => None,
            },
            None => error.source(),
        };
    }
    None
}

fn explain(error: &TlsError) -> String {
    use CertificateError as Bad;
    match error {
        TlsError::InvalidCertificate(bad) => match bad {
            Bad::NotValidForNameContext {
                expected,
                presented,
            } => {
                let names = match presented.as_slice() {
                    [] => "names no host".to_owned(),
                    names => format!("is for {}", shortened(&names.join(", "), 200)),
                };
                format!(
                    "the server's certificate {names}, not for {}: correct the host in the URL, or the certificate",
                    name(expected)
                )
            }
            Bad::NotValidForName => {
                "the server's certificate is for another name: correct the host in the URL, or the certificate".to_owned()
            }
            Bad::ExpiredContext { time, not_after } => format!(
                "the server's certificate expired at {}, and this host's clock says {}: renew the certificate, or set the clock",
                date(*not_after),
                date(*time)
            ),
            Bad::Expired => {
                "the server's certificate has expired by this host's clock: renew the certificate, or set the clock".to_owned()
            }
            Bad::NotValidYetContext { time, not_before } => format!(
                "the server's certificate is valid from {} on, and this host's clock says {}: set the clock",
                date(*not_before),
                date(*time)
            ),
            Bad::NotValidYet => {
                "the server's certificate is not valid yet by this host's clock: set the clock".to_owned()
            }
            Bad::UnknownIssuer => format!(
                "the issuer of the server's certificate is not an authority that this host trusts: add the issuer to the CA certificates{}; a proxy that reads TLS signs with an authority of its own",
                trusted()
            ),
            Bad::Revoked => "the server's certificate is revoked".to_owned(),
            other => format!("the server's certificate is refused: {other}: check the certificate"),
        },
        TlsError::InvalidMessage(_) => {
            "the server does not speak TLS on this port, perhaps plain HTTP: correct the port, or write http://".to_owned()
        }
        TlsError::AlertReceived(alert) => {
            format!("the server refused the TLS handshake ({alert:?}): check its TLS versions and host names")
        }
        other => format!("{other}: check the TLS settings of the server"),
    }
}

/// The place of the trusted authorities, as part of a sentence.
fn trusted() -> String {
    match env::var_os(FILE) {
        Some(file) => format!(
            " of {FILE} ({}, which replaces the system's list)",
            shown(Path::new(&file))
        ),
        None => " of the system (package ca-certificates)".to_owned(),
    }
}

fn name(name: &ServerName<'_>) -> String {
    name.to_str().into_owned()
}

fn shown(path: &Path) -> String {
    escaped(&path.to_string_lossy()).into_owned()
}

fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds)
        .map_or_else(|_| format!("second {seconds}"), |at| at.to_string())
}

/// The fault of the variables that name the trusted authorities, if there is one.
pub(super) fn fault_of_variables() -> Option<String> {
    let file = env::var_os(FILE).and_then(|file| {
        let path = Path::new(&file);
        let problem = match fs::read(path) {
            Ok(bytes) if !holds_certificate(&bytes) => "holds no PEM certificate".to_owned(),
            Ok(_) => return None,
            Err(error) => format!("cannot be read ({error})"),
        };
        Some(format!("{FILE} names {}, which {problem}", shown(path)))
    });
    let directory = env::var_os(DIRECTORY).and_then(|list| {
        env::split_paths(&list).find_map(|path| {
            let error = fs::read_dir(&path).err()?;
            let path = shown(&path);
            Some(format!(
                "{DIRECTORY} names {path}, which cannot be read ({error})"
            ))
        })
    });
    file.or(directory)
}

fn holds_certificate(bytes: &[u8]) -> bool {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    bytes.windows(BEGIN.len()).any(|window| window == BEGIN)
}
