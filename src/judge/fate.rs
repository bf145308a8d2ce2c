//! The fate of a packet in a foreign chain.

use super::chain::{BaseChain, ChainPlace, Condition, Effect, NewSource, Packet, all_hold};
use super::marks::{MarkOf, MarkWrite, Marks, Write, Zone};
pub use super::stopping::StoppingChain;

/// Depth of jumps, as in the kernel (`NFT_JUMP_STACK_SIZE`, net/netfilter/nf_tables.h).
const DEEPEST: usize = 16;

/// Bound of the rules visited for one packet: chains of a cluster network call each other in
/// thousands, and an endless evaluation would stop the pass.
const MOST_STEPS: usize = 20_000;

/// The fate of a packet in a base chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    Passes,
    /// A rule with a condition outside our knowledge may accept the packet; otherwise the culprit
    /// stops it.
    MayStop(StoppingChain),
    Stopped(StoppingChain),
    Translated(NewSource, StoppingChain),
    /// A rule with a condition outside our knowledge may translate the packet.
    MayTranslate(NewSource, StoppingChain),
    /// The packet gets another destination.
    Diverted(StoppingChain),
    /// The packet gets another destination, unless a rule with a condition outside our knowledge has
    /// accepted the packet or ended the chain before.
    MayDivert(StoppingChain),
    /// The packet passes, and conntrack ignores the packet.
    Untracked(StoppingChain),
}

/// A packet behind a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    pub marks: Marks,
    /// The last rule that wrote the packet's mark, or perhaps did.
    pub marked_by: Option<StoppingChain>,
    /// A write of the packet's zone, with its rule; the inner `None` for an unknown zone.
    pub zone: Option<(Option<Zone>, StoppingChain)>,
}

struct Run<'a> {
    base: &'a BaseChain,
    /// With the marks after the rules so far.
    packet: Packet,
    marked_by: Option<StoppingChain>,
    zone: Option<(Option<Zone>, StoppingChain)>,
    /// Our chain leaves the packet alone, so that later rules see the packet.
    beyond_ours: bool,
    steps: usize,
    /// A rule with an unknown condition may have accepted the packet.
    perhaps_accepted: bool,
    /// The first rule with an unknown condition that may have translated the packet.
    perhaps_translated: Option<(NewSource, StoppingChain)>,
    /// The first rule that gives the packet another destination, behind a return with an unknown
    /// condition.
    perhaps_diverted: Option<StoppingChain>,
    /// The chain that told conntrack to ignore the packet.
    untracked: Option<StoppingChain>,
}

enum End {
    /// The last rule was reached, or a return.
    Through,
    Accepted,
    Stopped(StoppingChain),
    Translated(NewSource, StoppingChain),
    Diverted(StoppingChain),
    /// Our own chain is reached: later rules don't matter.
    Ours,
}

impl BaseChain {
    /// The fate of a packet in this chain alone.
    pub fn fate(&self, packet: &Packet) -> Fate {
        self.fate_with(packet, false)
    }

    /// The fate of a packet that our rules leave alone: later rules see the packet too.
    pub(super) fn fate_beyond_ours(&self, packet: &Packet) -> Fate {
        self.fate_with(packet, true)
    }

    fn fate_with(&self, packet: &Packet, beyond_ours: bool) -> Fate {
        if !self.families.contains(&packet.family()) {
            return Fate::Passes;
        }
        let (mut run, end) = self.walked(packet, beyond_ours);
        self.fate_of(end, &mut run)
    }

    /// The packet behind this chain.
    pub fn passage(&self, packet: &Packet) -> Passage {
        if !self.families.contains(&packet.family()) {
            return Passage {
                marks: packet.marks.clone(),
                marked_by: None,
                zone: None,
            };
        }
        let run = self.walked(packet, false).0;
        Passage {
            marks: run.packet.marks,
            marked_by: run.marked_by,
            zone: run.zone,
        }
    }

    fn walked(&self, packet: &Packet, beyond_ours: bool) -> (Run<'_>, End) {
        let mut run = Run {
            base: self,
            packet: packet.clone(),
            marked_by: None,
            zone: None,
            beyond_ours,
            steps: 0,
            perhaps_accepted: false,
            perhaps_translated: None,
            perhaps_diverted: None,
            untracked: None,
        };
        let end = run.chain(&self.name, 0, true);
        (run, end)
    }

    fn fate_of(&self, end: End, run: &mut Run<'_>) -> Fate {
        let stopped = match end {
            End::Translated(to, culprit) => return Fate::Translated(to, culprit),
            End::Diverted(culprit) if run.perhaps_accepted => return Fate::MayDivert(culprit),
            End::Diverted(culprit) => return Fate::Diverted(culprit),
            End::Stopped(culprit) => culprit,
            End::Through if self.drops => self.culprit(&self.name, "policy drop"),
            End::Accepted | End::Ours | End::Through => {
                if let Some((to, culprit)) = run.perhaps_translated.take() {
                    return Fate::MayTranslate(to, culprit);
                }
                if let Some(culprit) = run.perhaps_diverted.take() {
                    return Fate::MayDivert(culprit);
                }
                return run.untracked.take().map_or(Fate::Passes, Fate::Untracked);
            }
        };
        if run.perhaps_accepted {
            Fate::MayStop(stopped)
        } else {
            Fate::Stopped(stopped)
        }
    }

    fn culprit(&self, chain: &str, verdict: &'static str) -> StoppingChain {
        StoppingChain {
            table: self.table.clone(),
            chain: chain.to_owned(),
            rule: None,
            verdict,
        }
    }

    fn translator(&self, chain: &str, rule: usize, to: NewSource) -> StoppingChain {
        let verdict = match to {
            NewSource::OfInterface => "masquerade",
            NewSource::Address(_) | NewSource::Unknown => "snat",
        };
        StoppingChain {
            rule: Some(rule),
            ..self.culprit(chain, verdict)
        }
    }
}

impl Run<'_> {
    /// Walks a chain. Below a rule with an unknown condition (`certain` is false) only a possible
    /// acceptance is noted: nothing else certainly happens there.
    fn chain(&mut self, name: &str, depth: usize, certain: bool) -> End {
        let base = self.base;
        let Some(rules) = base.chains.get(name).filter(|_| depth <= DEEPEST) else {
            // An unread chain may do anything.
            self.perhaps_accepted = true;
            return End::Through;
        };
        let entered = certain;
        let mut certain = certain;
        for (place, rule) in rules.iter().enumerate() {
            let at = (name, place + 1);
            self.steps += 1;
            if self.steps > MOST_STEPS {
                self.perhaps_accepted = true;
                return End::Through;
            }
            let matched = rule.matches(&self.packet);
            let matches = match matched {
                Some(false) => continue,
                Some(true) => certain,
                None => false,
            };
            for write in &rule.writes {
                self.write(*write, at, matches);
            }
            if matched == Some(true) && entered && !certain && rule.effect == Effect::Divert {
                let culprit = self.base.culprit(name, "dnat");
                self.perhaps_diverted.get_or_insert(culprit);
            }
            match self.effect(&rule.effect, at, depth, matches) {
                Flow::Next => {
                    // A packet that perhaps left the chain perhaps sees no later rule.
                    certain &= matches || !matches!(rule.effect, Effect::Return | Effect::Goto(_));
                }
                Flow::Return => return End::Through,
                Flow::End(end) => return end,
            }
        }
        End::Through
    }

    fn write(&mut self, write: Write, at: (&str, usize), certain: bool) {
        let base = self.base;
        match write {
            Write::Mark(write) => self.write_mark(write, at, certain && !self.perhaps_accepted),
            Write::Untrack if certain => {
                self.untracked = Some(base.culprit(at.0, "notrack"));
            }
            Write::Untrack => {}
            Write::Zone(zone) => {
                let zone = zone.filter(|_| certain && !self.perhaps_accepted);
                self.zone = Some((zone, base.culprit(at.0, "ct zone")));
            }
        }
    }

    fn write_mark(&mut self, write: MarkWrite, (chain, rule): (&str, usize), certain: bool) {
        let marks = self.packet.marks.written(write, certain);
        if write.of == MarkOf::Packet && marks != self.packet.marks {
            self.marked_by = Some(StoppingChain {
                rule: Some(rule),
                ..self.base.culprit(chain, "mark")
            });
        }
        self.packet.marks = marks;
    }

    /// The effect of a rule, at `(chain, rule)`.
    fn effect(
        &mut self,
        effect: &Effect,
        (chain, rule): (&str, usize),
        depth: usize,
        certain: bool,
    ) -> Flow {
        let base = self.base;
        let stops = |verdict| End::Stopped(base.culprit(chain, verdict));
        let end = match effect {
            Effect::Continue => return Flow::Next,
            Effect::Return => return if certain { Flow::Return } else { Flow::Next },
            Effect::Accept => End::Accepted,
            Effect::Drop => stops("drop"),
            Effect::Reject => stops("reject"),
            Effect::Translate(to) if base.place == ChainPlace::Translation => {
                End::Translated(*to, base.translator(chain, rule, *to))
            }
            Effect::Translate(_) => return Flow::Next,
            Effect::Divert => End::Diverted(base.culprit(chain, "dnat")),
            Effect::Ours if base.place == ChainPlace::Translation && !self.beyond_ours => End::Ours,
            Effect::Ours => return Flow::Next,
            Effect::Jump(target) => match self.chain(target, depth + 1, certain) {
                End::Through => return Flow::Next,
                end => end,
            },
            Effect::Goto(target) => match self.chain(target, depth + 1, certain) {
                End::Through if certain => return Flow::Return,
                End::Through => return Flow::Next,
                end => end,
            },
            Effect::Map(elements) => return self.map(elements, (chain, rule), depth, certain),
        };
        if certain {
            return Flow::End(end);
        }
        self.perhaps_accepted |= matches!(end, End::Accepted);
        if let End::Translated(to, culprit) = end {
            self.perhaps_translated.get_or_insert((to, culprit));
        }
        Flow::Next
    }

    fn map(
        &mut self,
        elements: &[(Vec<Condition>, Effect)],
        at: (&str, usize),
        depth: usize,
        certain: bool,
    ) -> Flow {
        for (key, effect) in elements {
            match all_hold(key, &self.packet) {
                Some(false) => {}
                Some(true) => return self.effect(effect, at, depth, certain),
                None => {
                    // One of the elements, or none.
                    self.effect(effect, at, depth, false);
                }
            }
        }
        Flow::Next
    }
}

/// The step after a rule.
enum Flow {
    Next,
    Return,
    End(End),
}
