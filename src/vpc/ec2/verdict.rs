//! The judgement of one try: a usable answer, or a failure and whether another try is allowed.

use jiff::Timestamp;

use super::decode::DecodeFault;
use super::error::{Ec2Error, ErrorAnswer, ErrorKind};
use super::request::{Effect, Request};
use super::transport::{HttpAnswer, TransportError};
use super::xml::{self, Element};

/// The permission for another try after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// No: another try fails too.
    Never,
    /// Yes: EC2 has done nothing.
    Later,
    /// Yes: EC2 asks for another try, although it doesn't say that nothing happened. A second change
    /// is harmless: entries are compare-and-set, and EC2 refuses a second equal route.
    LaterUnsure,
    /// Only for a request that does no harm twice: no answer says if EC2 carried out the call.
    IfHarmless,
    /// Once, with new credentials.
    WithNewCredentials,
}

/// The failure of one try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub error: Ec2Error,
    pub again: Again,
}

impl Failure {
    /// True if the request may be sent again as it is.
    pub(super) fn allows_retry(&self, effect: Effect) -> bool {
        match self.again {
            Again::Later | Again::LaterUnsure => true,
            Again::IfHarmless => effect != Effect::Change,
            Again::Never | Again::WithNewCredentials => false,
        }
    }

    /// The error for the caller after the last try. The outcome of a change without a clear answer is
    /// unknown, also for a change with a client token: the last request may have been carried out.
    pub(super) fn into_final(self, effect: Effect, tries: u32) -> Ec2Error {
        let mut error = self.error;
        if tries > 1 {
            error.message = format!("{} (the last of {tries} tries)", error.message);
        }
        let is_unsure = matches!(self.again, Again::IfHarmless | Again::LaterUnsure);
        if is_unsure && matches!(effect, Effect::Change | Effect::Repeatable) {
            error.kind = ErrorKind::OutcomeUnknown;
            error.message = format!(
                "{}; EC2 may have carried out the call: the next pass reads the state first",
                error.message
            );
        }
        error
    }
}

/// Judges the outcome of one try and decodes the answer. `now` is this host's clock.
pub(super) fn judge<T>(
    request: &Request,
    outcome: Result<HttpAnswer, TransportError>,
    now: Timestamp,
    decode: impl Fn(&Element) -> Result<T, DecodeFault>,
) -> Result<T, Failure> {
    let answer = outcome.map_err(|error| not_answered(request, error))?;
    let ahead_s = answer.date.map(|date| now.as_second() - date.as_second());
    let is_success = (200..300).contains(&answer.status);
    let root = xml::parse(&answer.body);
    if let Some(refusal) = root.as_ref().ok().and_then(ErrorAnswer::read) {
        return Err(refused(request, refusal, &answer, ahead_s));
    }
    let fault = match root {
        Ok(root) if is_success => match decode(&root) {
            Ok(value) => return Ok(value),
            Err(fault @ (DecodeFault::NoDryRun | DecodeFault::Failed)) => {
                return Err(contradiction(request, &answer, &fault));
            }
            Err(fault) => fault.to_string(),
        },
        Ok(root) => format!("the answer is a document {:?}", root.name),
        Err(fault) => fault.to_string(),
    };
    Err(unreadable(request, &answer, &fault))
}

fn not_answered(request: &Request, error: TransportError) -> Failure {
    let (kind, again) = match &error {
        TransportError::Unreachable(_) => (ErrorKind::Unavailable, Again::Later),
        TransportError::Setup(_) => (ErrorKind::Unavailable, Again::Never),
        TransportError::Credentials(_) => (ErrorKind::Credentials, Again::Never),
        TransportError::Broken(_) => (ErrorKind::Unavailable, Again::IfHarmless),
    };
    Failure {
        error: Ec2Error::without_answer(request.action, kind, error.to_string()),
        again,
    }
}

fn refused(
    request: &Request,
    mut refusal: ErrorAnswer,
    answer: &HttpAnswer,
    ahead_s: Option<i64>,
) -> Failure {
    refusal.request_id = refusal.request_id.or_else(|| answer.request_id.clone());
    let error = refusal.into_error(request.action, ahead_s);
    let again = match (&error.kind, answer.status) {
        (ErrorKind::Throttled, _) => Again::Later,
        (ErrorKind::Unavailable, _) | (ErrorKind::Other, 500..) => Again::LaterUnsure,
        (ErrorKind::Expired, _) => Again::WithNewCredentials,
        _ => Again::Never,
    };
    Failure { error, again }
}

/// A readable answer that contradicts the request: another try would lead to the same.
fn contradiction(request: &Request, answer: &HttpAnswer, fault: &DecodeFault) -> Failure {
    let kind = ErrorKind::Other;
    let mut error = Ec2Error::without_answer(request.action, kind, fault.to_string());
    error.request_id = answer.request_id.as_deref().map(Box::from);
    Failure {
        error,
        again: Again::Never,
    }
}

/// An answer that is neither a usable document nor an error of EC2.
fn unreadable(request: &Request, answer: &HttpAnswer, fault: &str) -> Failure {
    let status = answer.status;
    let (kind, again, advice) = match status {
        429 => (
            ErrorKind::Throttled,
            Again::Later,
            "a later pass tries again",
        ),
        503 => (
            ErrorKind::Unavailable,
            Again::LaterUnsure,
            "a later pass tries again",
        ),
        200..300 | 500.. => (
            ErrorKind::Unavailable,
            Again::IfHarmless,
            "if this lasts, look for a proxy between this host and EC2",
        ),
        _ => (
            ErrorKind::Unavailable,
            Again::Never,
            "check the endpoint and the proxy between this host and EC2",
        ),
    };
    let message = format!("the answer with HTTP status {status} is not EC2's: {fault}: {advice}");
    let mut error = Ec2Error::without_answer(request.action, kind, message);
    error.request_id = answer.request_id.as_deref().map(Box::from);
    Failure { error, again }
}

#[cfg(test)]
mod tests;
