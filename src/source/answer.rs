//! The answers of sources, and the validators of the next request.

use serde::{Deserialize, Serialize};

/// Validators make the next request conditional (RFC 9110, section 13).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validators {
    /// The document's URL after redirects. Validators are sent to the same URL only: another server
    /// may use the same `ETag` for another document. The URL can contain credentials: print the
    /// URL through [`super::redacted`].
    pub url: String,
    pub etag: Option<String>,
    pub last_modified: Option<String>,
}

/// The answer of the first source with an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fetched {
    /// The document of the validators is still current.
    NotModified {
        /// The source, as configured but without credentials.
        url: String,
    },
    /// A complete document: decoded, not empty, within the size limit.
    Document {
        /// The decoded body; [`super::child`] transfers the body after the other fields.
        #[serde(skip)]
        bytes: Vec<u8>,
        /// The source, as configured but without credentials.
        url: String,
        /// The last URL of a chain of redirects, without credentials.
        redirected: Option<String>,
        /// For the next request; `None` for files, and where the server sent none.
        validators: Option<Validators>,
    },
}

pub(super) enum Content {
    NotModified,
    Document {
        bytes: Vec<u8>,
        validators: Option<Validators>,
    },
}
