//! The kernel's answer in words, and the class that decides what happens next.

use std::fmt;

/// A request that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelError {
    /// The errno, positive.
    pub errno: i32,
    /// The kernel's own explanation (extended ack), where it gave one.
    pub message: Option<String>,
}

/// What a refusal means for the pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// What should be deleted is gone already: success.
    Gone,
    /// What should be added is there already: somebody else was faster; look again.
    Exists,
    /// The device or its addresses changed under us; look again.
    LinkChanged,
    /// A shortage that may pass; look again.
    Transient,
    /// We may not; looking again doesn't help.
    Permission,
    /// The kernel doesn't know how; looking again doesn't help.
    Unsupported,
    /// Anything else.
    Other,
}

// Numbers of asm-generic/errno-base.h and errno.h; rustix names the same ones.
use rustix::io::Errno;

impl KernelError {
    /// An error with the kernel's own words, empty where it gave none.
    pub fn new(errno: i32, text: String) -> Self {
        let message = (!text.is_empty()).then_some(text);
        KernelError { errno, message }
    }

    /// An error without the kernel's own words.
    pub fn from_errno(errno: i32) -> Self {
        KernelError {
            errno,
            message: None,
        }
    }

    /// What it means; `deleting` since ENOENT and its like mean success there.
    pub fn class(&self, deleting: bool) -> ErrorClass {
        match Errno::from_raw_os_error(self.errno) {
            Errno::SRCH | Errno::NOENT | Errno::ADDRNOTAVAIL if deleting => ErrorClass::Gone,
            Errno::NODEV | Errno::NXIO if deleting => ErrorClass::Gone,
            Errno::EXIST => ErrorClass::Exists,
            Errno::NODEV | Errno::NETDOWN | Errno::NETUNREACH | Errno::HOSTUNREACH => {
                ErrorClass::LinkChanged
            }
            // EINVAL is what IPv6 and nexthop objects say of a gateway that is no longer on-link
            // ("Nexthop has invalid gateway"), and both families of a route through a nexthop
            // object that has gone, on a delete too ("Nexthop id does not exist").
            Errno::INVAL => ErrorClass::LinkChanged,
            Errno::NOENT | Errno::SRCH => ErrorClass::LinkChanged,
            Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::NOMEM | Errno::BUSY => {
                ErrorClass::Transient
            }
            Errno::PERM | Errno::ACCESS => ErrorClass::Permission,
            Errno::OPNOTSUPP | Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT => {
                ErrorClass::Unsupported
            }
            _ => ErrorClass::Other,
        }
    }

    /// What to do about it, for the classes where there is something.
    pub fn advice(&self) -> &'static str {
        match self.class(false) {
            ErrorClass::Permission => "; run as root or with CAP_NET_ADMIN",
            ErrorClass::LinkChanged => "; is the interface up and the gateway on its link?",
            ErrorClass::Unsupported => "; this kernel lacks the feature: see `trailblazer check`",
            _ => "",
        }
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::io::Error::from_raw_os_error(self.errno))?;
        if let Some(message) = &self.message {
            write!(f, ": kernel says: {message}")?;
        }
        Ok(())
    }
}

impl std::error::Error for KernelError {}
