//! The kernel for commands that may run beside an agent which has the firewall's table for itself
//! (`[kernel] protect_table`).

use std::path::Path;

use crate::kernel::firewall::nftables::Protection;
use crate::kernel::{Kernel, ObserveError};
use crate::status::control::{Reply, Request, ask};

/// Opens the kernel. The agent at `socket` is asked for its table only if this command changes the
/// table; the agent's next pass takes the table again.
pub(super) fn open(socket: &Path, by: &'static str) -> Result<Kernel, ObserveError> {
    let socket = socket.to_owned();
    let protection = Protection::asking(move || release(&socket, by));
    Ok(Kernel::open()?.protect(&protection))
}

fn release(socket: &Path, by: &str) -> Result<(), String> {
    let by = format!("{by}, pid {}", std::process::id());
    match ask(socket, Request::Release { by }) {
        Ok(Reply::Done) => Ok(()),
        Ok(Reply::Refused(why)) => Err(why),
        Ok(Reply::Status(_) | Reply::Settings(_)) => Err("unexpected reply".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
