//! One probe of a way out: a TCP connection with the way's mark.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpSocket;

use crate::health::Answer;
use crate::types::Mark;

/// Connects to the server with the mark, from this address or one of the kernel's choice, and closes the connection by a reset: no side keeps a
/// `TIME_WAIT` entry. Both an accepted and a refused connection are answers.
pub async fn probe(
    server: SocketAddr,
    from: Option<IpAddr>,
    mark: Mark,
    limit: Duration,
) -> Answer {
    let socket = match marked(server, from, mark) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::debug!("no probe of {server}: {error}");
            return Answer::Untried;
        }
    };
    let began = Instant::now();
    let answered = tokio::time::timeout(limit, socket.connect(server)).await;
    match answered {
        Ok(Ok(_reset_by_drop)) => Answer::Reached(began.elapsed()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Answer::Reached(began.elapsed())
        }
        // Without an address of the family, or without the privilege, nothing left this host.
        Ok(Err(error))
            if matches!(
                error.kind(),
                io::ErrorKind::AddrNotAvailable | io::ErrorKind::PermissionDenied
            ) =>
        {
            Answer::Untried
        }
        Ok(Err(_)) | Err(_) => Answer::Failed,
    }
}

fn marked(server: SocketAddr, from: Option<IpAddr>, mark: Mark) -> io::Result<TcpSocket> {
    let socket = Socket::new(
        Domain::for_address(server),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_mark(mark.value)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_nonblocking(true)?;
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    socket.bind(&SocketAddr::new(from.unwrap_or(any), 0).into())?;
    Ok(TcpSocket::from_std_stream(socket.into()))
}
