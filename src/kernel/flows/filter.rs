//! Filters of a conntrack listing that the kernel applies itself.

use super::entry::{CTA_MARK, CTA_STATUS, SEEN_REPLY, Tracked};
use super::request::CTA_MARK_MASK;
use crate::kernel::wire::Attributes;
use crate::types::Mark;

// linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_common.h.
/// Compared since Linux 5.18; older kernels ignore the attribute.
const CTA_STATUS_MASK: u16 = 26;
const SRC_NAT: u32 = 1 << 4;

/// The flows of interest. Kernels differ in the filters that they know, so the reader compares
/// again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filter {
    /// Bits of the flow's mark.
    pub(super) mark: Option<Mark>,
    status: Option<(u32, u32)>,
}

impl Filter {
    /// Flows with a mark.
    pub(super) fn marked(mark: Mark) -> Filter {
        Filter {
            mark: Some(mark),
            status: None,
        }
    }

    pub(super) fn translated(mark: Mark) -> Filter {
        Filter {
            mark: Some(mark),
            status: Some((SRC_NAT, SRC_NAT)),
        }
    }

    /// Flows with a translated source, whoever translates.
    pub(super) fn source_translated() -> Filter {
        Filter {
            mark: None,
            status: Some((SRC_NAT, SRC_NAT)),
        }
    }

    /// Flows without an answer and without a translated source.
    pub(super) fn unanswered_untranslated() -> Filter {
        Filter {
            mark: None,
            status: Some((0, SEEN_REPLY | SRC_NAT)),
        }
    }

    pub(super) fn attributes(&self) -> Attributes {
        let mut list = Attributes::new();
        if let Some(mark) = self.mark {
            list = list
                .put_be32(CTA_MARK, mark.value)
                .put_be32(CTA_MARK_MASK, mark.mask);
        }
        if let Some((value, mask)) = self.status {
            list = list
                .put_be32(CTA_STATUS, value)
                .put_be32(CTA_STATUS_MASK, mask);
        }
        list
    }

    /// True if a listed flow passes the filter. The status needs no comparison: every choice of
    /// flows compares the answer and the translation by themselves.
    pub(super) fn accepts(&self, flow: &Tracked) -> bool {
        self.mark
            .is_none_or(|mark| flow.mark & mark.mask == mark.value)
    }
}
