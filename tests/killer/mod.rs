//! A process that ends without warning before a step of a pass; shared by the tests of faults and
//! of the egress path.

use rustix::process::{Signal, getpid, kill_process};
use trailblazer::apply::Interposer;
use trailblazer::kernel::errno::KernelError;
use trailblazer::plan::Step;

/// Kills its own process before a step.
pub struct Killer {
    /// The number of the step, from zero.
    pub at: usize,
}

impl Interposer for Killer {
    fn before(&mut self, index: usize, _step: &Step) -> Option<KernelError> {
        if index == self.at {
            kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
            // The signal is delivered on the way back from the system call.
            unreachable!("nobody survives SIGKILL");
        }
        None
    }
}
