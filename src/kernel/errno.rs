//! The kernel's refusals, and the class of a refusal that decides about the next step.

use std::fmt;

// Numbers of asm-generic/errno-base.h and errno.h; rustix names the same ones.
use rustix::io::Errno;

/// A request that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelError {
    /// The errno, positive.
    pub errno: i32,
    /// The kernel's own explanation (extended ack), if any.
    pub message: Option<String>,
}

/// The meaning of a refusal for the pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The object of a delete is already gone: success.
    Gone,
    /// The object of an add already exists, because another program was faster; observe again.
    Exists,
    /// The device or its addresses changed during the pass; observe again.
    LinkChanged,
    /// A shortage that may pass; observe again.
    Transient,
    /// A lack of privilege, which no second attempt can help.
    Permission,
    /// A feature that the kernel lacks; no second attempt can help.
    Unsupported,
    Other,
}

impl KernelError {
    /// An error with the kernel's explanation, empty if there was none.
    pub fn new(errno: i32, text: String) -> Self {
        let message = (!text.is_empty()).then_some(text);
        KernelError { errno, message }
    }

    /// An error without an explanation.
    pub fn from_errno(errno: i32) -> Self {
        KernelError {
            errno,
            message: None,
        }
    }

    /// The class of the refusal. For a delete (`deleting`), ENOENT and similar mean success.
    pub fn class(&self, deleting: bool) -> ErrorClass {
        match Errno::from_raw_os_error(self.errno) {
            Errno::SRCH | Errno::NOENT | Errno::ADDRNOTAVAIL if deleting => ErrorClass::Gone,
            Errno::NODEV | Errno::NXIO if deleting => ErrorClass::Gone,
            Errno::EXIST => ErrorClass::Exists,
            Errno::NODEV | Errno::NETDOWN | Errno::NETUNREACH | Errno::HOSTUNREACH => {
                ErrorClass::LinkChanged
            }
            // IPv6 routes and nexthop objects answer EINVAL for a gateway that is no longer
            // on-link ("Nexthop has invalid gateway"). Both families do so for a route through a
            // deleted nexthop object, on a delete too ("Nexthop id does not exist").
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

    /// Advice for the user, empty for the classes without any.
    pub fn advice(&self) -> &'static str {
        match self.class(false) {
            ErrorClass::Permission => "; run as root or with CAP_NET_ADMIN",
            ErrorClass::LinkChanged => {
                "; check that the interface is up and the gateway is on-link"
            }
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
