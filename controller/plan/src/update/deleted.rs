//! A fleet that somebody deleted is looked at as what it was last: which of its tasks were old depends on it.

use std::borrow::Cow;

use crate::{
    memory::Memory,
    observation::{Observation, Seen},
};

/// The observation; if it is of a deleted fleet, with the revision that was current when it was last there.
pub fn as_it_was<'a>(observation: &'a Observation, memory: &Memory) -> Cow<'a, Observation> {
    let is_deleted = observation.fleet.ok().is_some_and(|fleet| fleet.is_deleted);
    let Some(known) = memory.current.as_ref().filter(|_| is_deleted) else { return Cow::Borrowed(observation) };
    let mut observation = observation.clone();
    if let Seen::Ok { value, .. } = &mut observation.fleet {
        value.current = known.revision.clone();
    }
    Cow::Owned(observation)
}
