//! Signature Version 4, from the side of the service ("Create a signed AWS API request").

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::answer::ApiError;
use crate::clock::{self, seconds};

/// The check of signatures.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Signature {
    /// No check.
    #[default]
    Unchecked,
    /// The header fields must be there and have their form.
    Form,
    /// The signature must be right for these credentials, and at most five minutes old or early.
    Verified(Keys),
}

/// The credentials that the service knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// The access key.
    pub access: String,
    /// The secret key.
    pub secret: String,
    /// The token of a session; `None` for long-lived keys.
    pub token: Option<String>,
}

/// The bounds of the client's clock, in seconds.
const SKEW: i64 = 300;

/// The parts of a request that are signed.
#[derive(Debug)]
pub(crate) struct Signed<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub query: &'a str,
    /// Header fields; names in lower case.
    pub headers: &'a BTreeMap<String, String>,
    pub body: &'a [u8],
}

/// The fields of an `Authorization` header.
struct Authorization<'a> {
    access: &'a str,
    date: &'a str,
    region: &'a str,
    names: Vec<&'a str>,
    signature: &'a str,
}

/// Checks a request that a region receives. `offset` seconds are added to the machine's clock.
pub(crate) fn check(
    signature: &Signature,
    signed: &Signed<'_>,
    region: &str,
    offset: i64,
) -> Result<(), ApiError> {
    if *signature == Signature::Unchecked {
        return Ok(());
    }
    let header = |name: &str| signed.headers.get(name).map(String::as_str);
    let Some(authorization) = header("authorization").and_then(parse) else {
        let text = "The request has no Authorization header of AWS4-HMAC-SHA256.";
        return Err(ApiError::misuse("AuthFailure", text));
    };
    let time = header("x-amz-date").unwrap_or_default();
    let dated = !authorization.date.is_empty() && time.starts_with(authorization.date);
    let names = ["host", "x-amz-date"];
    let names = names.iter().all(|name| authorization.names.contains(name));
    if !dated || !names || seconds(time).is_none() {
        let text = "The signature doesn't cover host and x-amz-date, or the dates differ.";
        return Err(ApiError::misuse("AuthFailure", text));
    }
    let hash = hex(&Sha256::digest(signed.body));
    if header("x-amz-content-sha256").is_some_and(|sent| sent != hash) {
        let text = "x-amz-content-sha256 is not the hash of the body.";
        return Err(ApiError::misuse("SignatureDoesNotMatch", text));
    }
    if authorization.region != region {
        let text = format!(
            "Credential should be scoped to a valid region, not '{}'.",
            authorization.region
        );
        return Err(ApiError::new("SignatureDoesNotMatch", text));
    }
    let Signature::Verified(keys) = signature else {
        return Ok(());
    };
    fresh(time, offset)?;
    let token = header("x-amz-security-token");
    if authorization.access != keys.access || token != keys.token.as_deref() {
        let text = "AWS was not able to validate the provided access credentials";
        return Err(ApiError::new("AuthFailure", text));
    }
    if authorization.signature != sign(signed, &authorization, time, &hash, &keys.secret) {
        let text = "The request signature we calculated does not match the signature you provided.";
        return Err(ApiError::new("SignatureDoesNotMatch", text));
    }
    Ok(())
}

/// Refuses a request whose time is more than five minutes away.
fn fresh(time: &str, offset: i64) -> Result<(), ApiError> {
    let now = clock::now() + offset;
    let sent = seconds(time).unwrap_or_default();
    if sent + SKEW < now {
        let text = format!("Request has expired. Timestamp date is {time}.");
        return Err(ApiError::new("RequestExpired", text));
    }
    if sent > now + SKEW {
        let text = format!("Signature not yet current: {time} is still later than the clock.");
        return Err(ApiError::new("SignatureDoesNotMatch", text));
    }
    Ok(())
}

/// Reads `AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…`.
fn parse(header: &str) -> Option<Authorization<'_>> {
    let fields = header.strip_prefix("AWS4-HMAC-SHA256 ")?;
    let fields: BTreeMap<&str, &str> = fields
        .split(',')
        .filter_map(|field| field.trim().split_once('='))
        .collect();
    let mut scope = fields.get("Credential")?.split('/');
    let (access, date, region) = (scope.next()?, scope.next()?, scope.next()?);
    let rest: Vec<&str> = scope.collect();
    let signature = *fields.get("Signature")?;
    let hex = signature.len() == 64 && signature.bytes().all(|b| b.is_ascii_hexdigit());
    (rest == ["ec2", "aws4_request"] && hex).then_some(Authorization {
        access,
        date,
        region,
        names: fields.get("SignedHeaders")?.split(';').collect(),
        signature,
    })
}

/// The signature of a request.
fn sign(
    signed: &Signed<'_>,
    authorization: &Authorization<'_>,
    time: &str,
    hash: &str,
    secret: &str,
) -> String {
    let mut canonical = format!("{}\n{}\n{}\n", signed.method, signed.path, signed.query);
    for name in &authorization.names {
        let value = signed.headers.get(*name).map_or("", String::as_str);
        let words: Vec<&str> = value.split_whitespace().collect();
        canonical.push_str(&format!("{name}:{}\n", words.join(" ")));
    }
    canonical.push_str(&format!("\n{}\n{hash}", authorization.names.join(";")));
    let scope = format!(
        "{}/{}/ec2/aws4_request",
        authorization.date, authorization.region
    );
    let digest = hex(&Sha256::digest(canonical.as_bytes()));
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{digest}");
    let mut key = format!("AWS4{secret}").into_bytes();
    for part in scope.split('/') {
        key = hmac(&key, part.as_bytes());
    }
    hex(&hmac(&key, text.as_bytes()))
}

/// HMAC with SHA-256 (RFC 2104).
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 64;
    let mut block = if key.len() > BLOCK {
        Sha256::digest(key).to_vec()
    } else {
        key.to_vec()
    };
    block.resize(BLOCK, 0);
    let pad = |with: u8| block.iter().map(|byte| byte ^ with).collect::<Vec<u8>>();
    let inner = Sha256::digest([pad(0x36), text.to_vec()].concat());
    Sha256::digest([pad(0x5c), inner.to_vec()].concat()).to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
