//! Since when fewer tasks than the floor are seen consuming.

use super::view::View;
use crate::{evidence::Evidence, memory::Memory, observation::Life};

/// Where the workers cannot be asked, what was known stays.
pub fn follow(view: &View<'_>, memory: &mut Memory) {
    if view.observation.workers.ok().is_none() {
        return;
    }
    let is_running = |id| view.fleet.tasks.get(id).is_some_and(|task| task.life == Life::Running);
    let takes_jobs = |id, seen: &Evidence<'_>| memory.tasks.get(id).is_some_and(|known| seen.takes_jobs(known));
    let consumes = view.evidence.iter().filter(|(id, seen)| is_running(id) && takes_jobs(id, seen));
    let is_short = u32::try_from(consumes.count()).unwrap_or(u32::MAX) < view.policy.floor(view.fleet);
    memory.short_since = is_short.then(|| memory.short_since.map_or(view.now, |since| since.min(view.now)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::testing::{Stage, at, consuming, idle};

    #[test]
    fn a_shortage_lasts_from_its_first_observation_to_the_first_without_it() {
        let mut stage = Stage::with_task("t", Life::Running);
        for (answer, expected) in [(idle(at(1)), Some(at(1))), (idle(at(2)), Some(at(1))), (consuming(at(3)), None)] {
            let now = answer.answered_at;
            stage.answers("t", "w@1", answer);
            let mut memory = stage.memory.clone();
            follow(&stage.view(now), &mut memory);
            stage.memory = memory;
            assert_eq!(stage.memory.short_since, expected, "at {now}");
        }
    }
}
