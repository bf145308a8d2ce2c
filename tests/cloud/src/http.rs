//! The double behind HTTP on the loopback address.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::answer::{ApiError, Delivery, HttpAnswer};
use crate::clock;
use crate::cloud::Cloud;
use crate::signature::{self, Signature, Signed};

/// The longest body of a request.
const LONGEST_BODY: usize = 1 << 20;

/// The settings of a server.
#[derive(Debug, Clone, Default)]
pub struct Serve {
    /// The check of signatures.
    pub signature: Signature,
    /// True if a request needs the header `x-amz-content-sha256`. EC2 doesn't need it; some signers
    /// leave the body out of the signature without it.
    pub content_sha256: bool,
    /// Seconds by which the server's clock is ahead of the machine's.
    pub clock_offset: i64,
}

/// A server. It ends when it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// The address of the listening socket.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL for `AWS_ENDPOINT_URL_EC2`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until the process is killed.
    pub fn wait(mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic of the thread ends the wait too.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic was printed by the thread itself.
            let _ = thread.join();
        }
    }
}

/// Serves a double on a free port of 127.0.0.1.
///
/// # Errors
///
/// The socket or the thread could not be made.
pub fn serve(cloud: &Cloud, settings: Serve) -> io::Result<Server> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let bind = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let listener = runtime.block_on(bind)?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel();
    let (cloud, settings) = (cloud.clone(), Arc::new(settings));
    let thread = thread::Builder::new()
        .name("cloud".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, cloud, settings) => {}
                    _ = stopped => {}
                }
            });
            // Connections that hang end here.
            runtime.shutdown_timeout(Duration::from_millis(100));
        })?;
    Ok(Server {
        address,
        stop: Some(stop),
        thread: Some(thread),
    })
}

/// Accepts connections for ever.
async fn accept(listener: TcpListener, cloud: Cloud, settings: Arc<Serve>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let (cloud, settings) = (cloud.clone(), Arc::clone(&settings));
        tokio::spawn(async move {
            let service = service_fn(|request| respond(&cloud, &settings, request));
            let connection = hyper::server::conn::http1::Builder::new();
            // An error is a client that has gone, or a connection that is to be dropped.
            let _ = connection
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// The answer to a request, or an error that ends the connection.
fn respond(
    cloud: &Cloud,
    settings: &Arc<Serve>,
    request: hyper::Request<Incoming>,
) -> impl Future<Output = Result<hyper::Response<Reply>, io::Error>> + use<> {
    let (cloud, settings) = (cloud.clone(), Arc::clone(settings));
    let offset = settings.clock_offset;
    async move {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, LONGEST_BODY).collect().await;
        let body = body.map_err(io::Error::other)?.to_bytes();
        // A hook of a test may block: it runs the program under test.
        let answered =
            tokio::task::spawn_blocking(move || answer(&cloud, &settings, &head, &body)).await;
        deliver(answered.map_err(io::Error::other)?, offset).await
    }
}

/// Checks the head of a request, and passes the form to the double.
fn answer(
    cloud: &Cloud,
    settings: &Serve,
    head: &hyper::http::request::Parts,
    body: &Bytes,
) -> HttpAnswer {
    let headers: BTreeMap<String, String> = head
        .headers
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        })
        .collect();
    let signed = Signed {
        method: head.method.as_str(),
        path: head.uri.path(),
        query: head.uri.query().unwrap_or_default(),
        headers: &headers,
        body,
    };
    let form = headers.get("content-type").map_or("", String::as_str);
    let well_formed = head.method == hyper::Method::POST
        && head.uri.path() == "/"
        && form.starts_with("application/x-www-form-urlencoded");
    let hashed = headers.contains_key("x-amz-content-sha256");
    let verdict = if settings.content_sha256 && !hashed {
        let text = "The request has no header x-amz-content-sha256.";
        Err(ApiError::misuse("SignatureDoesNotMatch", text))
    } else if well_formed {
        let region = cloud.region();
        signature::check(&settings.signature, &signed, &region, settings.clock_offset)
    } else {
        let text = "The request is no POST of a form to the path /.";
        Err(ApiError::misuse("MalformedQueryString", text))
    };
    let form = String::from_utf8_lossy(body);
    match verdict {
        Ok(()) => cloud.answer(&form),
        Err(error) => cloud.refuse(&form, error),
    }
}

/// Sends an answer in its way, with the time of the server's clock.
async fn deliver(answer: HttpAnswer, offset: i64) -> Result<hyper::Response<Reply>, io::Error> {
    match answer.delivery {
        Delivery::Dropped => return Err(io::Error::other("dropped")),
        Delivery::Hangs => std::future::pending().await,
        Delivery::Slow(pause) => tokio::time::sleep(pause).await,
        Delivery::Whole | Delivery::Half => {}
    };
    let mut response = hyper::Response::builder().status(answer.status);
    response = response.header("Date", clock::http_date(clock::now() + offset));
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    let whole = answer.body.len();
    let mut bytes = Bytes::from(answer.body);
    let half = answer.delivery == Delivery::Half;
    if half {
        bytes.truncate(whole / 2);
    }
    let reply = Reply {
        bytes: Some(bytes),
        announced: whole as u64,
        half,
        pause: None,
    };
    response.body(reply).map_err(io::Error::other)
}

/// A body that may break off before the announced length.
struct Reply {
    bytes: Option<Bytes>,
    announced: u64,
    half: bool,
    /// The pause before the end of the connection, so that the half is sent.
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(bytes) = self.bytes.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if !self.half {
            return Poll::Ready(None);
        }
        let pause = self.pause.get_or_insert_with(|| {
            let pause = Duration::from_millis(50);
            Box::pin(tokio::time::sleep(pause))
        });
        let ended = pause.as_mut().poll(context);
        ended.map(|()| Some(Err(io::Error::other("half"))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.announced)
    }
}
