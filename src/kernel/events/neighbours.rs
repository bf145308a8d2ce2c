//! Notifications of neighbours that the kernel has given up: an address on a link that answers no address
//! resolution. The kernel announces many changes of every neighbour; a filter drops the others.

use std::io;
use std::time::Duration;

use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{DONT_WAIT, ListenError, RECEIVE, cannot, filter, open};

/// `RTNLGRP_NEIGH` (linux/rtnetlink.h).
const GROUP: u32 = 3;

/// Listens to the notifications.
#[derive(Debug)]
pub struct GivenUp(Socket);

impl GivenUp {
    /// Opens the socket, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The system refuses a socket, the filter or the membership in the group.
    pub fn listen() -> Result<GivenUp, ListenError> {
        let socket = open(NETLINK_ROUTE, RECEIVE).map_err(cannot("open a neighbour socket"))?;
        // First the filter: no other notification is ever in the buffer.
        socket2::SockRef::from(&socket)
            .attach_filter(&filter::failed_neighbours())
            .map_err(cannot("filter neighbour notifications"))?;
        let joined = socket.add_membership(GROUP);
        joined.map_err(cannot("listen to neighbour notifications"))?;
        Ok(GivenUp(socket))
    }

    /// Waits for a notification, at most for this time; a signal may end the wait too. Returns true if one
    /// is there.
    pub fn wait(&self, time: Duration) -> bool {
        // A timeout out of range of the system call's is none.
        let time = Timespec::try_from(time).ok();
        let ready = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], time.as_ref());
        ready.is_ok_and(|ready| ready > 0)
    }

    /// Forgets the notifications so far: the caller is about to look at the neighbours.
    pub fn forget(&self) {
        let mut buffer = Vec::with_capacity(RECEIVE);
        loop {
            buffer.clear();
            match self.0.recv_from(&mut buffer, DONT_WAIT) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // None is left, or the kernel reports a full buffer: the caller looks in any case.
                Err(_) => return,
            }
        }
    }
}
