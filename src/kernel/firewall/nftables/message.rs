//! Messages of a transaction, and the values shared by several messages.

use super::uapi::*;
use crate::kernel::wire::{Attributes, NFGEN_LEN};

pub(super) const TABLE: &str = "trailblazer";
/// The table beside iptables, with the chain after all translation.
pub(super) const GUARD_TABLE: &str = "trailblazer-guard";
/// The mark of ownership, as `nft list` shows it.
pub(super) const COMMENT: &str = "trailblazer: managed, do not edit";

/// The flags of a protected table, see `protection`.
pub(super) const PROTECTED: u32 = NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RuleState {
    /// The payload of `NFTA_RULE_EXPRESSIONS`, counters at zero.
    pub(super) expressions: Vec<u8>,
    pub(super) userdata: Vec<u8>,
}

/// A message of a transaction, before the numbering.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) body: Vec<u8>,
    /// The operation in words, for the report of a refusal.
    pub(super) what: String,
}

/// `struct nfgenmsg` of a family.
pub(super) fn nfgen(family: u8) -> [u8; NFGEN_LEN] {
    [family, 0, 0, 0]
}

pub(super) fn message(kind: u16, flags: u16, attributes: Attributes, what: String) -> Message {
    let mut body = nfgen(NFPROTO_INET).to_vec();
    body.extend(attributes.into_bytes());
    Message {
        kind,
        flags,
        body,
        what,
    }
}

/// User data with one comment in the layout of libnftnl: type, length, text, NUL.
pub(super) fn comment_userdata(comment: &str) -> Vec<u8> {
    #[allow(clippy::expect_used)]
    let length = u8::try_from(comment.len() + 1).expect("our comment is a short constant");
    let mut userdata = vec![UDATA_TABLE_COMMENT, length];
    userdata.extend_from_slice(comment.as_bytes());
    userdata.push(0);
    userdata
}

/// The comment, if the user data consists of exactly one comment.
pub(super) fn userdata_comment(userdata: &[u8], kind: u8) -> Option<String> {
    match userdata {
        [found, length, text @ ..] if *found == kind && usize::from(*length) == text.len() => {
            let text = text.strip_suffix(&[0])?;
            String::from_utf8(text.to_vec()).ok()
        }
        _ => None,
    }
}

pub(super) fn delete_table(name: &str) -> Message {
    let attributes = Attributes::new().put_text(NFTA_TABLE_NAME, name);
    let what = format!("delete table inet {name}");
    message(msg::DELTABLE, 0, attributes, what)
}
