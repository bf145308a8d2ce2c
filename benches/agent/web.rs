//! A source over TLS on loopback: the memory of a TLS fetch belongs to the agent's rest.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{Res, arena};
use lab::raw_http::{Server, answer};

/// The system's authorities, which a real agent reads too (Debian's and Ubuntu's place).
const SYSTEM: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A server of one document, with conditional requests.
pub struct Web {
    server: Server,
    /// The document, with its number.
    document: Arc<Mutex<(u64, String)>>,
    authorities: PathBuf,
}

impl Web {
    /// Serves in the namespace of this thread.
    pub fn start(name: &str, document: String) -> Res<Web> {
        let mut params = CertificateParams::new(vec![])?;
        params
            .distinguished_name
            .push(DnType::CommonName, "the benchmark");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let certificate =
            CertificateParams::new(vec!["127.0.0.1".to_owned()])?.signed_by(&key, &authority)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )?;
        let document = Arc::new(Mutex::new((1, document)));
        let served = Arc::clone(&document);
        let server = Server::start_tls(Arc::new(config), move |_, request| {
            let (number, body) = &*locked(&served);
            let tag = format!("\"{number}\"");
            let etag = format!("ETag: {tag}");
            if request.header("if-none-match") == Some(tag.as_str()) {
                answer("304 Not Modified", &[&etag], b"")
            } else {
                answer("200 OK", &[&etag], body.as_bytes())
            }
        });
        let authorities = PathBuf::from(arena::DIRECTORY).join(format!("{name}.pem"));
        let system = std::fs::read_to_string(SYSTEM).unwrap_or_default();
        std::fs::write(&authorities, format!("{system}\n{}", authority.pem()))?;
        Ok(Web {
            server,
            document,
            authorities,
        })
    }

    /// The document's URL.
    pub fn url(&self) -> String {
        self.server.url("/ip-ranges.json")
    }

    /// The certificate authority of the server.
    pub fn authorities(&self) -> String {
        self.authorities.display().to_string()
    }

    /// Another document from now on.
    pub fn publish(&self, document: String) {
        let mut served = locked(&self.document);
        *served = (served.0 + 1, document);
    }

    /// The number of requests so far.
    pub fn asked(&self) -> usize {
        self.server.seen().len()
    }
}

/// A lock of a value that stays valid if a holder panics.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
