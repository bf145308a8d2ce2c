//! Installs as much of the policy as the kernel accepts.
//!
//! A kernel without one expression, an `ip6tables` that is not installed, or a program that refuses
//! a match must not cost the translation and the guard. After a refusal, each family by itself gets
//! the first accepted policy of these:
//!
//! 1. the whole policy of the family;
//! 2. the policy without one optional part (counters, segment limit, inbound marks);
//! 3. translation and guard, and each optional part that is accepted by itself;
//! 4. none, and the routes close the family's path (`desired::nat`).
//!
//! nf_tables checks a policy without a commit, so only the final policy is written. iptables has no
//! such check: each accepted policy is in force, and a refused one changes nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::backend::FirewallBackend;
use super::error::FirewallError;
use crate::firewall::{Piece, Pieces, Ruleset};
use crate::kernel::privilege::has_net_admin;
use crate::types::{Family, PerFamily};

/// Time after which the whole policy is tried again: a trial costs a few processes with iptables.
const AGAIN: Duration = Duration::from_secs(5);

/// The parts that the kernel refused, each with the kernel's words.
pub type Refusals = BTreeMap<(Family, Piece), String>;

/// A question to the kernel, or an attempt to install.
type Trial<'t> = &'t mut dyn FnMut(&Ruleset, PerFamily<bool>) -> Result<(), FirewallError>;

/// Remembers the refused parts of one backend, and tries them again from time to time.
#[derive(Debug, Default)]
pub(crate) struct Fallback {
    refused: Refusals,
    /// The refused parts of the last trial: the first guess of the next one.
    last: Refusals,
    since: Option<Instant>,
}

impl Fallback {
    /// The refused parts.
    pub(crate) fn refused(&self) -> &Refusals {
        &self.refused
    }

    /// The policy as text, without the parts that the backend cannot express or the kernel refuses.
    /// `present` is the text in the kernel: an equal text needs no question to the kernel.
    pub(crate) fn render(
        &mut self,
        backend: &mut dyn FirewallBackend,
        policy: &Ruleset,
        present: Option<&[String]>,
    ) -> Result<Vec<String>, FirewallError> {
        self.forget_in_time(backend);
        let whole = match backend.render(&self.usable(policy)) {
            Err(FirewallError::Inexpressible { .. }) => {
                let fixed = fixed(backend);
                self.search(policy, fixed, &mut |fewer, _| {
                    backend.render(fewer).map(drop)
                });
                self.leave_families(backend);
                return backend.render(&self.usable(policy));
            }
            other => other?,
        };
        let fully = backend.rehearses_fully();
        if present == Some(whole.as_slice())
            || !self.refused.is_empty()
            || !fully && present.is_none()
            || has_net_admin() == Some(false)
        {
            return Ok(whole);
        }
        match backend.rehearse(policy) {
            Err(error) if is_refusal(&error) => {}
            Err(_) => return Ok(whole),
            // The rehearsal tells the backend what the tool lacks.
            Ok(()) => return backend.render(&self.usable(policy)),
        }
        self.rehearse_all(backend, policy);
        let usable = backend.render(&self.usable(policy))?;
        if fully || present == Some(usable.as_slice()) {
            return Ok(usable);
        }
        // A check of the programs alone confirms an earlier refusal, and proves no new one.
        self.forget(backend);
        Ok(whole)
    }

    fn rehearse_all(&mut self, backend: &mut dyn FirewallBackend, policy: &Ruleset) {
        let fixed = fixed(backend);
        self.search(policy, fixed, &mut |fewer, left| {
            backend.leave(left);
            backend.rehearse(fewer)
        });
        self.leave_families(backend);
    }

    /// Installs the policy, or as much of it as the kernel accepts.
    ///
    /// # Errors
    /// Not even translation and guard are accepted, or the failure has another cause than the
    /// content of the policy.
    pub(crate) fn install(
        &mut self,
        backend: &mut dyn FirewallBackend,
        policy: &Ruleset,
    ) -> Result<(), FirewallError> {
        self.forget_in_time(backend);
        let usable = self.usable(policy);
        let error = match backend.replace(&usable) {
            Ok(()) => return Ok(()),
            Err(error) if !is_refusal(&error) => return Err(error),
            Err(error) => error,
        };
        if backend.rehearses_fully() {
            if backend.rehearse(&usable).is_ok() {
                // The content is accepted: the refusal had another reason.
                return Err(error);
            }
            self.rehearse_all(backend, policy);
            if !self.lacks_all() {
                backend.replace(&self.usable(policy))?;
            }
        } else {
            let fixed = fixed(backend);
            self.search(policy, fixed, &mut |fewer, left| {
                backend.leave(left);
                backend.replace(fewer)
            });
            self.leave_families(backend);
        }
        if self.lacks_all() || policy.families().is_empty() {
            return Err(error);
        }
        Ok(())
    }

    /// Tries the whole policy again at the next occasion.
    pub(crate) fn forget(&mut self, backend: &mut dyn FirewallBackend) {
        if self.refused.is_empty() {
            return;
        }
        self.last = std::mem::take(&mut self.refused);
        self.since = None;
        self.leave_families(backend);
    }

    fn forget_in_time(&mut self, backend: &mut dyn FirewallBackend) {
        if self.since.is_some_and(|since| since.elapsed() > AGAIN) {
            self.forget(backend);
        }
    }

    fn usable(&self, policy: &Ruleset) -> Ruleset {
        policy.without(&self.refused.keys().copied().collect())
    }

    fn lacks(&self, family: Family) -> bool {
        self.refused.contains_key(&(family, Piece::All))
    }

    fn lacks_all(&self) -> bool {
        Family::ALL.into_iter().all(|family| self.lacks(family))
    }

    fn leave_families(&self, backend: &mut dyn FirewallBackend) {
        backend.leave(PerFamily::from_fn(|family| self.lacks(family)));
    }

    /// Finds the largest policy of each family that `trial` accepts, and remembers the parts left
    /// out. A family without any rule counts as left out if the other one is refused. `fixed` are
    /// optional parts that no trial leaves out.
    fn search(&mut self, policy: &Ruleset, fixed: &[Piece], trial: Trial<'_>) {
        self.since = Some(Instant::now());
        let mut refused = Refusals::new();
        let families = policy.families();
        for family in &families {
            let others = Family::ALL.into_iter().filter(|other| other != family);
            let others: Pieces = others.map(|other| (other, Piece::All)).collect();
            let left = PerFamily::from_fn(|other| other != *family);
            let mut tries = |pieces: &[Piece]| {
                let of_family = pieces.iter().map(|piece| (*family, *piece));
                let fewer = policy.without(&others.iter().copied().chain(of_family).collect());
                trial(&fewer, left).map_err(|error| error.to_string())
            };
            let last = self.last.keys().filter(|(of, _)| of == family);
            let guess: Vec<Piece> = last.map(|(_, piece)| *piece).collect();
            let mut optional = policy.optional(*family);
            optional.retain(|piece| !fixed.contains(piece));
            let found = largest(&optional, &guess, &mut tries);
            refused.extend(
                found
                    .into_iter()
                    .map(|(piece, words)| ((*family, piece), words)),
            );
        }
        let lost = families
            .iter()
            .map(|family| refused.get(&(*family, Piece::All)));
        if let Some(lost) = lost.collect::<Option<Vec<&String>>>()
            && let Some(words) = lost.first().map(|words| (*words).clone())
        {
            let rest = Family::ALL.into_iter().filter(|f| !families.contains(f));
            refused.extend(rest.map(|family| ((family, Piece::All), words.clone())));
        }
        self.refused = refused;
    }
}

/// The optional parts outside of the policy that iptables checks.
fn fixed(backend: &dyn FirewallBackend) -> &'static [Piece] {
    if backend.has_own_place_for_last() && backend.marks_forwarded() {
        &[Piece::Ended, Piece::Last, Piece::Switch, Piece::Closed]
    } else if backend.has_own_place_for_last() {
        &[Piece::Ended, Piece::Last, Piece::Switch]
    } else {
        &[]
    }
}

/// True if a smaller policy may be accepted.
fn is_refusal(error: &FirewallError) -> bool {
    match error {
        FirewallError::Refused { .. } | FirewallError::Inexpressible { .. } => true,
        // A program that is not installed.
        FirewallError::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        FirewallError::Locked { .. }
        | FirewallError::Referenced { .. }
        | FirewallError::Protected { .. } => false,
    }
}

/// The parts to leave out of the policy of a family, each with the words of a refusal. `guess` is
/// tried before the other subsets.
fn largest(
    optional: &[Piece],
    guess: &[Piece],
    tries: &mut dyn FnMut(&[Piece]) -> Result<(), String>,
) -> BTreeMap<Piece, String> {
    let Err(words) = tries(&[]) else {
        return BTreeMap::new();
    };
    let named = |pieces: &[Piece]| -> BTreeMap<Piece, String> {
        let pieces = pieces.iter();
        pieces.map(|piece| (*piece, words.clone())).collect()
    };
    let known = !guess.is_empty() && guess.iter().all(|piece| optional.contains(piece));
    if known && tries(guess).is_ok() {
        return named(guess);
    }
    for piece in optional {
        if tries(&[*piece]).is_ok() {
            return named(&[*piece]);
        }
    }
    let mut left_out = optional.to_vec();
    if optional.is_empty() || tries(&left_out).is_err() {
        return named(&[Piece::All]);
    }
    let mut refused = BTreeMap::new();
    for piece in optional.iter().rev() {
        left_out.retain(|left| left != piece);
        if let Err(words) = tries(&left_out) {
            left_out.push(*piece);
            refused.insert(*piece, words);
        }
    }
    refused
}

#[cfg(test)]
mod tests;
