//! The rules for flows that the agent has ended, since their way is down. One mark stands for all of them.

use super::Pins;
use crate::firewall::{FwRule, Match, Statement};

impl Pins {
    fn of_ended(&self, matches: Vec<Match>, verdict: Statement) -> Vec<FwRule> {
        let ended = Match::FlowMark(self.marks.ended_flow());
        let rule = FwRule {
            family: Some(self.family),
            matches: std::iter::once(ended).chain(matches).collect(),
            verdict,
        };
        self.ends_flows.then_some(rule).into_iter().collect()
    }

    /// The resets of forwarded connections.
    pub(in crate::desired) fn resets(&self) -> Vec<FwRule> {
        self.of_ended(Vec::new(), Statement::Reset)
    }

    /// A SYN begins the flow anew: without a mark, the SYN takes the path of a new flow.
    pub(super) fn begun_anew(&self) -> Vec<FwRule> {
        let syn = vec![Match::OriginalDirection, Match::TcpSyn];
        self.of_ended(syn, Statement::SetFlowMark(self.marks.clear()))
    }

    /// The drop of answers to the SYN that took the way that is down. With such an answer a connection
    /// would be open at the client, whose next packet would take another way: the NAT there doesn't know
    /// the connection, and the server resets it.
    pub(in crate::desired) fn late_answers(&self) -> Vec<FwRule> {
        self.of_ended(vec![Match::ReplyDirection, Match::TcpSyn], Statement::Drop)
    }
}
