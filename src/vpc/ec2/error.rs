//! The failures of calls, by the reaction that each needs.

use std::fmt;
use std::time::Duration;

use super::xml::Element;
use crate::printable::shortened;

/// The longest part of EC2's own message in ours.
const LONGEST_MESSAGE: usize = 400;

/// A difference of clocks from which the clock is the cause. EC2 accepts 15 minutes with a
/// signature's date (`RequestExpired`), and AWS's other services 5 minutes.
const SKEW: Duration = Duration::from_secs(240);

/// The class of a failure: the caller's reaction depends on the class alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorKind {
    /// The list has another version than the call names: observe, and plan anew.
    VersionMismatch,
    /// The object is in a state that forbids the call: observe, and plan anew.
    IncorrectState,
    /// The last change of the object is still going on: wait for it.
    InProgress,
    /// EC2 asked for fewer requests until the last try.
    Throttled,
    /// The credentials are valid, and lack a permission.
    Denied {
        /// The action as in policies, `ec2:…`.
        action: Box<str>,
        /// The statement of a policy that allows the action.
        grant: Box<str>,
    },
    /// An object of the call doesn't exist, or doesn't exist yet.
    NotFound,
    /// A quota of the account, of a table or of a list is used up.
    Quota,
    /// The object exists already.
    AlreadyExists,
    /// Temporary credentials have expired.
    Expired,
    /// The clock of this host is wrong, by EC2's clock.
    ClockSkew {
        /// Positive for a clock that is ahead of EC2's.
        ahead_s: i64,
    },
    /// There are no credentials, or EC2 refuses them.
    Credentials,
    /// The region is not enabled for the account, or is another one than the endpoint's.
    WrongRegion,
    /// EC2 was not reached, or gave no usable answer.
    Unavailable,
    /// The call changes something, and no answer says if it did. Observe before anything else.
    OutcomeUnknown,
    /// The time for the pass is over; the call had no effect.
    Deadline,
    Other,
}

/// The failure of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ec2Error {
    /// EC2's name of the action.
    pub call: &'static str,
    pub kind: ErrorKind,
    /// The reason and the advice, for people. Without secrets.
    pub message: String,
    /// EC2's error code.
    pub code: Option<Box<str>>,
    /// EC2's number of the request, for AWS's support.
    pub request_id: Option<Box<str>>,
}

impl fmt::Display for Ec2Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.message)?;
        let code = self.code.as_ref().map(|code| format!("code {code}"));
        let request = self.request_id.as_ref().map(|id| format!("request {id}"));
        let parts: Vec<String> = code.into_iter().chain(request).collect();
        if parts.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", parts.join(", "))
    }
}

impl std::error::Error for Ec2Error {}

impl Ec2Error {
    /// A failure without an answer of EC2.
    pub(in crate::vpc) fn without_answer(
        call: &'static str,
        kind: ErrorKind,
        message: impl Into<String>,
    ) -> Ec2Error {
        Ec2Error {
            call,
            kind,
            message: message.into(),
            code: None,
            request_id: None,
        }
    }
}

/// An error answer of EC2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ErrorAnswer {
    pub code: String,
    pub message: String,
    pub request_id: Option<String>,
}

impl ErrorAnswer {
    /// Reads the document of an error; `None` for another document. EC2 sends a `Response` with
    /// `Errors`; the signature check of other services and moto send an `ErrorResponse`.
    pub(super) fn read(root: &Element) -> Option<ErrorAnswer> {
        if !matches!(root.name.as_str(), "Response" | "ErrorResponse") {
            return None;
        }
        let error = root.child("Errors").unwrap_or(root).child("Error")?;
        let code = error.text_of("Code")?;
        let code = code
            .strip_prefix("Client.")
            .or_else(|| code.strip_prefix("Server."))
            .unwrap_or(code);
        let request_id = root
            .text_of("RequestID")
            .or_else(|| root.text_of("RequestId"));
        Some(ErrorAnswer {
            code: shortened(code, LONGEST_MESSAGE),
            message: error.text_of("Message").unwrap_or_default().to_owned(),
            request_id: request_id.map(|id| shortened(id, LONGEST_MESSAGE)),
        })
    }

    /// True if EC2 asks for fewer requests (the list of botocore's retry handler, and
    /// `RequestLimitExceeded` of EC2's own page).
    fn is_throttled(&self) -> bool {
        self.code.starts_with("Throttl")
            || matches!(
                self.code.as_str(),
                "RequestLimitExceeded"
                    | "RequestThrottled"
                    | "RequestThrottledException"
                    | "TooManyRequestsException"
                    | "BandwidthLimitExceeded"
                    | "EC2ThrottledException"
                    | "SlowDown"
            )
    }

    /// True if EC2 failed itself.
    fn is_fault_of_server(&self) -> bool {
        matches!(
            self.code.as_str(),
            "InternalError" | "InternalFailure" | "Unavailable" | "ServiceUnavailable"
        )
    }

    fn is_in_progress(&self) -> bool {
        match self.code.as_str() {
            "ConcurrentMutationLimitExceeded" | "ConcurrentTagAccess" => true,
            "IncorrectState" => self.message.contains("-in-progress"),
            _ => false,
        }
    }

    /// The class of the error. `ahead_s` is the difference of this host's clock to EC2's.
    pub(super) fn kind(&self, call: &str, ahead_s: Option<i64>) -> ErrorKind {
        let skew = ahead_s.filter(|ahead| ahead.unsigned_abs() > SKEW.as_secs());
        if self.is_throttled() {
            return ErrorKind::Throttled;
        }
        if self.is_fault_of_server() {
            return ErrorKind::Unavailable;
        }
        if self.is_in_progress() {
            return ErrorKind::InProgress;
        }
        match (self.code.as_str(), skew) {
            ("PrefixListVersionMismatch", _) => ErrorKind::VersionMismatch,
            ("IncorrectState", _) => ErrorKind::IncorrectState,
            ("UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException", _) => {
                self.denied(call)
            }
            (
                "RequestExpired"
                | "SignatureDoesNotMatch"
                | "InvalidSignatureException"
                | "AuthFailure"
                | "RequestTimeTooSkewed",
                Some(ahead_s),
            ) => ErrorKind::ClockSkew { ahead_s },
            ("RequestExpired" | "ExpiredToken" | "ExpiredTokenException", _) => ErrorKind::Expired,
            ("OptInRequired", _) => ErrorKind::WrongRegion,
            ("SignatureDoesNotMatch", _) if self.message.contains("valid region") => {
                ErrorKind::WrongRegion
            }
            (
                "AuthFailure"
                | "InvalidClientTokenId"
                | "UnrecognizedClientException"
                | "SignatureDoesNotMatch"
                | "InvalidSignatureException"
                | "IncompleteSignature"
                | "MissingAuthenticationToken",
                _,
            ) => ErrorKind::Credentials,
            (code, _) if code.ends_with("NotFound") => ErrorKind::NotFound,
            (code, _) if code.ends_with("AlreadyExists") || code.ends_with(".Duplicate") => {
                ErrorKind::AlreadyExists
            }
            (code, _)
                if code.ends_with("LimitExceeded")
                    || code.ends_with("MaxEntriesExceeded")
                    || code.ends_with("QuotaExceeded") =>
            {
                ErrorKind::Quota
            }
            _ => ErrorKind::Other,
        }
    }

    /// The missing permission: action and resource of the message, if EC2 names them. A list with tags
    /// needs two actions, and the message names the one that is missing.
    fn denied(&self, call: &str) -> ErrorKind {
        let action = word_after(&self.message, "not authorized to perform: ")
            .filter(|action| action.starts_with("ec2:"))
            .map_or_else(|| format!("ec2:{call}"), str::to_owned);
        let resource = word_after(&self.message, "on resource: ")
            .filter(|resource| resource.starts_with("arn:"))
            .unwrap_or("*");
        let resource = shortened(resource, LONGEST_MESSAGE);
        let action = shortened(&action, LONGEST_MESSAGE);
        let grant =
            format!(r#"{{"Effect": "Allow", "Action": "{action}", "Resource": "{resource}"}}"#);
        ErrorKind::Denied {
            action: action.into(),
            grant: grant.into(),
        }
    }

    /// EC2's message, fit for a line: without the encoded copy for `DecodeAuthorizationMessage`, and
    /// without the canonical request, which holds the session token.
    fn shown(&self) -> String {
        let mut text = self.message.as_str();
        for cut in [
            "Encoded authorization failure message",
            "The Canonical String",
            "The String-to-Sign",
            "\n",
        ] {
            text = text.split(cut).next().unwrap_or_default();
        }
        shortened(text.trim().trim_end_matches('.'), LONGEST_MESSAGE)
    }

    /// The error of a call.
    pub(super) fn into_error(self, call: &'static str, ahead_s: Option<i64>) -> Ec2Error {
        let kind = self.kind(call, ahead_s);
        let said = self.shown();
        let said = if said.is_empty() {
            "EC2 refuses the call without a reason".to_owned()
        } else {
            format!("EC2 answered: {said}")
        };
        let message = match advice(&kind, &self.message) {
            Some(advice) => format!("{said}: {advice}"),
            None => said,
        };
        Ec2Error {
            call,
            kind,
            message,
            code: Some(self.code.into()),
            request_id: self.request_id.map(String::into_boxed_str),
        }
    }
}

/// The advice for the operator, by class.
fn advice(kind: &ErrorKind, message: &str) -> Option<String> {
    let advice = match kind {
        ErrorKind::Denied { action, .. } if message.contains("explicit deny") => format!(
            "a policy denies {action} explicitly, and no permission outweighs a denial: remove the denial (it may be a policy of the organization)"
        ),
        ErrorKind::Denied { action, grant } => {
            format!("the permission {action} is missing; the statement of a policy that grants it: {grant}")
        }
        ErrorKind::VersionMismatch => {
            "somebody else changed the list: the next pass reads it again".to_owned()
        }
        ErrorKind::Quota => {
            "raise the quota in Service Quotas, or select fewer regions or services".to_owned()
        }
        ErrorKind::Expired => {
            "the credentials have expired: renew them at their source".to_owned()
        }
        ErrorKind::ClockSkew { ahead_s } => format!(
            "the clock of this host is {} EC2's clock: set the clock (timedatectl status)",
            difference(*ahead_s)
        ),
        ErrorKind::Credentials => {
            "check the access key and its secret; a key of another partition or a region that is not enabled for the account leads to the same answer".to_owned()
        }
        ErrorKind::WrongRegion => {
            "enable the region for the account, or correct the region in the configuration"
                .to_owned()
        }
        ErrorKind::Throttled => {
            "the account sends more requests than EC2 allows; a later pass tries again".to_owned()
        }
        _ => return None,
    };
    Some(advice)
}

/// `10 min ahead of`, `45 s behind`.
fn difference(ahead_s: i64) -> String {
    let size = match ahead_s.unsigned_abs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7_200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    };
    let direction = if ahead_s < 0 { "behind" } else { "ahead of" };
    format!("{size} {direction}")
}

fn word_after<'m>(message: &'m str, mark: &str) -> Option<&'m str> {
    let (_, rest) = message.split_once(mark)?;
    let word = rest.split_whitespace().next()?;
    Some(word.trim_end_matches(['.', ',', ';']))
}

#[cfg(test)]
mod tests;
