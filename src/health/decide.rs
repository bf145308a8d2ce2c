//! The ways in use.
//!
//! A gateway that is down leaves as soon as another gateway is not, except while a gateway in use is in
//! doubt: NATs that die together would else be left one by one, each time with open flows ended. The
//! last gateway stays, whatever the probes say. The bypass path leaves only while a gateway is not down.

use std::time::Duration;

use super::watch::{Change, Decision, Stuck, Watch};
use super::way::Way;
use super::{Health, WayId};
use crate::types::Family;

impl Watch {
    /// Decides which ways are in use, and whose open flows are to be ended.
    pub fn decide(&mut self, now: Duration) -> Decision {
        let mut changes = Vec::new();
        for family in Family::ALL {
            self.raise(family, now);
            // Without any gateway the first way that answers again changes something, and nothing else.
            if self.has_gateway(family) {
                self.sort_out(family, now, &mut changes);
            } else {
                self.bring_back(family, &mut changes);
            }
        }
        let out = self.ways.iter().filter(|(_, way)| !way.in_use);
        Decision {
            health: Health::without(out.clone().map(|(id, _)| *id))
                .rolled_back(out.filter(|(_, way)| way.rolled_back).map(|(id, _)| *id)),
            changes,
            end: self.stuck(now),
        }
    }

    /// A change of this host's own has touched the way. A probe goes out at once, and until `until` one
    /// failed round ends the use of the way.
    pub fn settle(&mut self, way: WayId, until: Duration, now: Duration) {
        if let Some(found) = self.ways.get_mut(&way) {
            found.settles_until = Some(until);
            self.idle.insert(way, now);
        }
    }

    /// Ways that answer again and whose hold is over are up; a bypass path at once that answers while no
    /// gateway does. Where no gateway is, one that loses probes is better than none.
    fn raise(&mut self, family: Family, now: Duration) {
        let at_once = !self.has_gateway(family);
        let terms = self.terms;
        let ways = self.ways.iter_mut();
        for (id, way) in ways.filter(|(id, _)| id.family() == family) {
            let alone = way.alone && *id == WayId::Bypass(family);
            let over = way.held_until(&terms).is_some_and(|end| end <= now);
            let again = way.answers_again(&terms) && (alone || over);
            if again || (at_once && way.serves_again(&terms)) {
                way.rise(!over, now, &terms);
            }
        }
    }

    /// The bypass path comes back, whatever the gateways do.
    fn bring_back(&mut self, family: Family, changes: &mut Vec<Change>) {
        let ways = self.ways.iter_mut();
        let back =
            ways.filter(|(id, way)| **id == WayId::Bypass(family) && !way.is_down() && !way.in_use);
        for (id, way) in back {
            (way.in_use, way.ending) = (true, false);
            changes.push(Change {
                way: *id,
                in_use: true,
                why: way.why,
            });
        }
    }

    fn sort_out(&mut self, family: Family, now: Duration, changes: &mut Vec<Change>) {
        let verdict_time = self.verdict_time();
        let doubtful = |id: &WayId, way: &Way| {
            matches!(id, WayId::Gateway(_)) && way.in_use && way.is_suspect()
        };
        let mut ways = self.ways.iter();
        let doubt = ways.any(|(id, way)| {
            id.family() == family
                && doubtful(id, way)
                && now.saturating_sub(way.since) < verdict_time
        });
        let ways = self.ways.iter_mut();
        for (id, way) in ways.filter(|(id, _)| id.family() == family) {
            let waits = doubt && now.saturating_sub(way.since) < verdict_time;
            let in_use = !way.is_down() || (way.in_use && waits);
            if in_use != way.in_use {
                way.in_use = in_use;
                (way.ending, way.opening) = (!in_use, !in_use);
                changes.push(Change {
                    way: *id,
                    in_use,
                    why: way.why,
                });
            }
        }
    }

    /// Ways out of use whose flows stand still. The NAT may refuse new flows only: while packets come back,
    /// only connections that are being opened stand still for certain.
    fn stuck(&mut self, now: Duration) -> Vec<(WayId, Stuck)> {
        let well = Family::ALL.map(|family| self.has_gateway(family).then_some(family));
        let mut end = Vec::new();
        for (id, way) in &mut self.ways {
            let elsewhere = well.contains(&Some(id.family()));
            if way.ending && elsewhere && !way.carries(now) {
                (way.ending, way.opening) = (false, false);
                end.push((*id, Stuck::All));
            } else if way.opening && elsewhere {
                way.opening = false;
                end.push((*id, Stuck::Opening));
            }
        }
        end
    }
}
