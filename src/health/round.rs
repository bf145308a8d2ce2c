//! A round of probes: the same servers through several ways at the same moment, and its verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::WayId;
use super::tally::Tallies;

/// The number of a server in the list of its group.
pub type TargetId = usize;

/// The result of one probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The server accepted or refused the connection, after this time.
    Reached(Duration),
    /// No answer within the time limit, or an error from a router.
    Failed,
    /// The probe could not be sent: no address of the family, or a local fault. Proves nothing.
    Untried,
}

/// The verdict of a round about one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Most of the servers that answer at all answered through the way.
    Good,
    /// Most of the servers that answer at all answered through other ways only.
    Failed,
    /// No server answered through any way: an outage of theirs, or of all ways.
    Dark,
    /// No probe could be sent.
    Nothing,
}

/// A round under way.
#[derive(Debug, Clone)]
pub(super) struct Round {
    pub(super) begun: Duration,
    answers: BTreeMap<(WayId, TargetId), Option<Answer>>,
}

impl Round {
    pub(super) fn new(begun: Duration, probes: impl Iterator<Item = (WayId, TargetId)>) -> Round {
        Round {
            begun,
            answers: probes.map(|probe| (probe, None)).collect(),
        }
    }

    /// Takes an answer to a probe of this round; the first counts.
    pub(super) fn take(&mut self, way: WayId, target: TargetId, answer: Answer) {
        if let Some(place) = self.answers.get_mut(&(way, target)) {
            place.get_or_insert(answer);
        }
    }

    /// True if no answer is missing.
    pub(super) fn is_complete(&self) -> bool {
        self.answers.values().all(Option::is_some)
    }

    /// True for a probe of one server through one way.
    pub(super) fn is_single(&self) -> bool {
        self.answers.len() == 1
    }

    /// The verdict about each way of the round. A missing answer proves nothing.
    pub(super) fn verdicts(&self) -> BTreeMap<WayId, Verdict> {
        let reached = |answer: &Option<Answer>| matches!(answer, Some(Answer::Reached(_)));
        let answering = self.answers.iter().filter(|(_, answer)| reached(answer));
        let alive: BTreeSet<TargetId> = answering.map(|((_, target), _)| *target).collect();
        let ways: BTreeSet<WayId> = self.answers.keys().map(|(way, _)| *way).collect();
        let verdict = |way: WayId| {
            let own = self.answers.iter().filter(|((of, _), _)| *of == way);
            let tried: Vec<_> = own
                .filter(|(_, answer)| matches!(answer, Some(Answer::Reached(_) | Answer::Failed)))
                .collect();
            if tried.is_empty() {
                return Verdict::Nothing;
            }
            let comparable = tried
                .iter()
                .filter(|((_, target), _)| alive.contains(target));
            let all = comparable.clone().count();
            let good = comparable.filter(|(_, answer)| reached(answer)).count();
            match (good, all - good) {
                (0, 0) => Verdict::Dark,
                (good, bad) if bad > good => Verdict::Failed,
                _ => Verdict::Good,
            }
        };
        ways.into_iter().map(|way| (way, verdict(way))).collect()
    }

    /// The probes of each way. `lives` is true for a server that has answered lately through any way.
    pub(super) fn tallies(&self, lives: impl Fn(TargetId) -> bool) -> BTreeMap<WayId, Tallies> {
        let mut all: BTreeMap<WayId, Tallies> = BTreeMap::new();
        for ((way, target), answer) in &self.answers {
            let reached = matches!(answer, Some(Answer::Reached(_)));
            if !reached && *answer != Some(Answer::Failed) {
                continue;
            }
            let tallies = all.entry(*way).or_default();
            if lives(*target) {
                tallies.living.count(reached);
            }
            if self.answers_elsewhere(*way, *target) {
                tallies.compared.count(reached);
            }
        }
        all
    }

    /// True if a probe has no answer yet whose server has answered through another way.
    pub(super) fn hints_at_loss(&self) -> bool {
        let mut open = self.answers.iter().filter(|(_, answer)| answer.is_none());
        open.any(|((way, target), _)| self.answers_elsewhere(*way, *target))
    }

    fn answers_elsewhere(&self, way: WayId, target: TargetId) -> bool {
        let mut others = self.answers.iter();
        others.any(|((of, server), answer)| {
            *of != way && *server == target && matches!(answer, Some(Answer::Reached(_)))
        })
    }
}
