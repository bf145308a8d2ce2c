//! The way of a request to EC2 and of the answer back. Tests put a double of EC2 in its place.

use std::future::Future;
use std::pin::Pin;

use jiff::Timestamp;

/// An answer of an HTTP server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpAnswer {
    pub status: u16,
    /// The header `x-amzn-requestid`.
    pub request_id: Option<String>,
    /// The header `Date`: the server's clock.
    pub date: Option<Timestamp>,
    pub body: Vec<u8>,
}

/// The reason for a request without an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// Nothing was sent, and a later try can succeed.
    #[error("{0}")]
    Unreachable(String),
    /// Nothing was sent, and no try can succeed before somebody changes a setting.
    #[error("{0}")]
    Setup(String),
    /// There are no credentials, so that nothing was sent.
    #[error("{0}")]
    Credentials(String),
    /// The request left, and no complete answer came back: EC2 may have carried out the call.
    #[error("{0}")]
    Broken(String),
}

/// A way to EC2's API.
pub trait Transport: Send + Sync + 'static {
    /// Sends the form parameters of a request. Any HTTP status is an answer.
    fn send(&self, body: String)
    -> impl Future<Output = Result<HttpAnswer, TransportError>> + Send;

    /// Forgets cached credentials, after EC2 has called them expired. Returns true if the next request
    /// may have other ones.
    fn renew(&self) -> impl Future<Output = bool> + Send {
        async { false }
    }
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A [`Transport`] behind a pointer.
pub(super) trait AnyTransport: Send + Sync {
    fn send_boxed(&self, body: String) -> Boxed<'_, Result<HttpAnswer, TransportError>>;

    fn renew_boxed(&self) -> Boxed<'_, bool>;
}

impl<T: Transport> AnyTransport for T {
    fn send_boxed(&self, body: String) -> Boxed<'_, Result<HttpAnswer, TransportError>> {
        Box::pin(self.send(body))
    }

    fn renew_boxed(&self) -> Boxed<'_, bool> {
        Box::pin(self.renew())
    }
}
