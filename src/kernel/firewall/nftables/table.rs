//! Our table as a value.
//!
//! [`TableState`] is the desired or the present content of our table. The text of a plan, the
//! messages of a transaction and the record for a rollback all derive from the same value.

use super::counters::{self, CounterState};
use super::decode;
use super::message::{
    COMMENT, Message, PROTECTED, RuleState, TABLE, comment_userdata, message, nfgen,
    userdata_comment,
};
use super::uapi::*;
use crate::kernel::wire::{APPEND, Attributes, CREATE, Frame, WireError, find, frames};
use crate::kernel::wire::{NFGEN_LEN, attributes, push_message};

/// The limit of element bytes in a message: all share one attribute, and the length of an attribute
/// has 16 bits.
const ELEMENTS_A_MESSAGE: usize = 48 << 10;

/// The flags that a process may set.
const SETTABLE: u32 = NFT_TABLE_F_DORMANT | PROTECTED;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableState {
    /// `trailblazer`, except beside iptables and in checks without a commit.
    pub(super) name: String,
    pub(super) flags: u32,
    /// The port of the netlink socket that has the table for itself.
    pub(super) owner: Option<u32>,
    pub(super) userdata: Vec<u8>,
    /// The number of objects other than chains, sets and our counters: named objects and flow
    /// tables of other programs. We never create such objects, so the number suffices to show a
    /// foreign change.
    pub(super) further: u32,
    pub(super) counters: Vec<CounterState>,
    pub(super) chains: Vec<ChainState>,
    pub(super) sets: Vec<SetState>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ChainState {
    pub(super) name: String,
    /// Without the name of the table and the attributes that the kernel only reports.
    pub(super) attributes: Vec<u8>,
    pub(super) rules: Vec<RuleState>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SetState {
    pub(super) name: String,
    /// Without the name of the table and the attributes that the kernel only reports.
    pub(super) attributes: Vec<u8>,
    /// The payloads of `NFTA_LIST_ELEM`.
    pub(super) elements: Vec<Vec<u8>>,
}

impl Default for TableState {
    fn default() -> Self {
        TableState {
            name: TABLE.to_owned(),
            flags: 0,
            owner: None,
            userdata: Vec::new(),
            further: 0,
            counters: Vec::new(),
            chains: Vec::new(),
            sets: Vec::new(),
        }
    }
}

impl TableState {
    /// True if the table carries our mark of ownership.
    pub(super) fn is_ours(&self) -> bool {
        self.userdata == comment_userdata(COMMENT)
    }

    /// Describes a conflict with a foreign table of our name, and a remedy.
    pub(super) fn foreign(&self) -> String {
        let found = match userdata_comment(&self.userdata, UDATA_TABLE_COMMENT) {
            Some(comment) => format!("comment {comment:?}"),
            None => "no comment".to_owned(),
        };
        format!(
            "table inet {name} belongs to another program ({found}, expected {COMMENT:?}); \
             rename or remove the table (nft delete table inet {name})",
            name = self.name
        )
    }

    /// The messages to create the table, referenced objects first: rules refer to counters, chains
    /// and sets, and set elements may refer to chains.
    pub(super) fn messages(&self) -> Vec<Message> {
        let table = Attributes::new()
            .put_text(NFTA_TABLE_NAME, &self.name)
            .put_be32(NFTA_TABLE_FLAGS, self.flags & SETTABLE)
            .put(NFTA_TABLE_USERDATA, &self.userdata);
        let what = format!("add table inet {}", self.name);
        let mut messages = vec![message(msg::NEWTABLE, CREATE, table, what)];
        let counters = self.counters.iter();
        messages.extend(counters.map(|counter| counters::new(&self.name, counter)));
        for chain in &self.chains {
            let attributes = Attributes::new()
                .put_text(NFTA_CHAIN_TABLE, &self.name)
                .raw(&chain.attributes);
            let what = format!("add chain {}", chain.name);
            messages.push(message(msg::NEWCHAIN, CREATE, attributes, what));
        }
        for (set, id) in self.sets.iter().zip(1..) {
            let attributes = Attributes::new()
                .put_text(NFTA_SET_TABLE, &self.name)
                .raw(&set.attributes)
                .put_be32(NFTA_SET_ID, id);
            let what = format!("add set {}", set.name);
            messages.push(message(msg::NEWSET, CREATE, attributes, what));
        }
        for set in &self.sets {
            for elements in set.element_lists() {
                let attributes = Attributes::new()
                    .put_text(NFTA_SET_ELEM_LIST_TABLE, &self.name)
                    .put_text(NFTA_SET_ELEM_LIST_SET, &set.name)
                    .nest(NFTA_SET_ELEM_LIST_ELEMENTS, elements);
                let what = format!("add elements to set {}", set.name);
                messages.push(message(msg::NEWSETELEM, CREATE, attributes, what));
            }
        }
        for chain in &self.chains {
            for (rule, number) in chain.rules.iter().zip(1..) {
                messages.push(rule_message(&self.name, chain, rule, number));
            }
        }
        messages
    }

    /// A record for [`replay`].
    pub(super) fn record(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in self.messages() {
            push_message(&mut bytes, message.kind, message.flags, 0, &message.body);
        }
        bytes
    }
}

impl SetState {
    pub(super) fn is_anonymous(&self) -> bool {
        self.has(NFT_SET_ANONYMOUS)
    }

    /// True if rules add elements, which are no part of the policy.
    pub(super) fn is_dynamic(&self) -> bool {
        self.has(NFT_SET_EVAL)
    }

    fn has(&self, flag: u32) -> bool {
        attributes(&self.attributes)
            .ok()
            .and_then(|list| find(&list, NFTA_SET_FLAGS)?.be32())
            .is_some_and(|flags| flags & flag != 0)
    }

    /// The elements, split into one list per message.
    fn element_lists(&self) -> Vec<Attributes> {
        let mut lists: Vec<Attributes> = Vec::new();
        for element in &self.elements {
            let list = match lists.pop() {
                Some(list) if list.len() + element.len() < ELEMENTS_A_MESSAGE => list,
                full => {
                    lists.extend(full);
                    Attributes::new()
                }
            };
            lists.push(list.nest(NFTA_LIST_ELEM, Attributes::new().raw(element)));
        }
        lists
    }
}

fn rule_message(table: &str, chain: &ChainState, rule: &RuleState, number: usize) -> Message {
    let mut attributes = Attributes::new()
        .put_text(NFTA_RULE_TABLE, table)
        .put_text(NFTA_RULE_CHAIN, &chain.name)
        .nest(
            NFTA_RULE_EXPRESSIONS,
            Attributes::new().raw(&rule.expressions),
        );
    if !rule.userdata.is_empty() {
        attributes = attributes.put(NFTA_RULE_USERDATA, &rule.userdata);
    }
    let text = decode::rule(rule);
    let what = format!("add rule {number} of chain {}: {text}", chain.name);
    message(msg::NEWRULE, CREATE | APPEND, attributes, what)
}

/// The messages of a record. Refuses records that [`TableState::record`] can't have written.
pub(super) fn replay(name: &str, record: &[u8]) -> Result<Vec<Message>, WireError> {
    const FOREIGN: WireError = WireError::Malformed("not a record of the nftables backend");
    let known = |frame: &Frame<'_>| {
        let (family, list) = frame.body.split_at_checked(NFGEN_LEN).ok_or(FOREIGN)?;
        // The name of the table is attribute 1 in all messages below.
        let table = find(&attributes(list)?, NFTA_TABLE_NAME).map(|name| name.text());
        if family != nfgen(NFPROTO_INET) || table.as_deref() != Some(name) {
            return Err(FOREIGN);
        }
        match frame.kind {
            msg::NEWTABLE => Ok("table"),
            msg::NEWOBJ => Ok("counter"),
            msg::NEWCHAIN => Ok("chain"),
            msg::NEWSET => Ok("set"),
            msg::NEWSETELEM => Ok("elements"),
            msg::NEWRULE => Ok("rule"),
            _ => Err(FOREIGN),
        }
    };
    frames(record)?
        .iter()
        .enumerate()
        .map(|(index, frame)| {
            let object = known(frame)?;
            Ok(Message {
                kind: frame.kind,
                flags: frame.flags,
                body: frame.body.to_vec(),
                what: format!("restore the {object} in message {index} of the record"),
            })
        })
        .collect()
}
