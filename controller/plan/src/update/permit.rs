//! What became of permits: which took effect, which are void.

use jiff::{SignedDuration, Timestamp};

use super::view::View;
use crate::{
    actions::Ground,
    evidence::{Evidence, MAX_ANSWER_LAG},
    memory::{Memory, Permitted},
    observation::{HoldState, Life, Task},
};

/// A permit is void when the task is seen at work again: its worker restarted or was given work by somebody else, and the
/// scheduler has not stopped it. A deadline asks for no proof.
pub fn void(view: &View<'_>, memory: &mut Memory) {
    for (id, evidence) in &view.evidence {
        let (Some(seen), Some(task)) = (view.fleet.tasks.get(id), memory.tasks.get_mut(id)) else { continue };
        let is_running = seen.life == Life::Running;
        if is_running && evidence.is_at_work() && !task.permitted.as_ref().is_some_and(Permitted::by_deadline) {
            task.permitted = None;
        }
    }
}

/// Whether a permit that was about to be given took effect. It is given and then written down; between the two its reply
/// may be lost, or we may be killed.
pub fn confirm(view: &View<'_>, memory: &mut Memory) {
    let mut grounds: Vec<Ground> = Vec::new();
    for (id, evidence) in &view.evidence {
        let (Some(seen), Some(task)) = (view.fleet.tasks.get(id), memory.tasks.get_mut(id)) else { continue };
        let Some(permitting) = &task.permitting else { continue };
        match effect(seen, permitting, evidence, view.observed_at) {
            Effect::Seen if task.permitted.is_none() => {
                grounds.push(permitting.ground.clone());
                task.permitted = task.permitting.take();
            }
            Effect::Seen | Effect::None => task.permitting = None,
            Effect::Unknown => {}
        }
    }
    for ground in &grounds {
        memory.count_cut(ground);
    }
}

/// What is seen of a permit that was about to be given.
enum Effect {
    Seen,
    None,
    Unknown,
}

fn effect(task: &Task, permitting: &Permitted, evidence: &Evidence<'_>, observed_at: Timestamp) -> Effect {
    match (&task.life, task.hold) {
        (Life::Stopping | Life::Stopped { .. }, _) => Effect::Seen,
        // One on proof is given again if the proof is good still.
        (Life::Running, HoldState::Free) if permitting.by_deadline() => Effect::Seen,
        (Life::Running, _) if evidence.is_at_work() && !permitting.by_deadline() => Effect::None,
        // A hold that is seen may be older than the permit.
        (Life::Running, HoldState::Until(_)) if observed_at.duration_since(permitting.at) >= MAX_ANSWER_LAG => {
            Effect::None
        }
        (Life::Running | Life::Starting | Life::Missing, _) => Effect::Unknown,
    }
}

/// A task that stays after all was let go before: that counts until it is held again, as read back, or at work again. A
/// hold that is seen may be older than the release. What a deadline let go may have been at work all the time.
pub fn forget_released(view: &View<'_>, memory: &mut Memory) {
    for (id, evidence) in &view.evidence {
        let (Some(seen), Some(task)) = (view.fleet.tasks.get(id), memory.tasks.get_mut(id)) else { continue };
        let Some(released) = task.released.as_ref().filter(|_| seen.life == Life::Running) else { continue };
        let is_old = view.observed_at.duration_since(released.at) >= MAX_ANSWER_LAG;
        let is_held = matches!(seen.hold, HoldState::Until(_)) && is_old;
        if is_held || (evidence.is_at_work() && !released.by_deadline()) {
            task.released = None;
        }
    }
}

/// Drained and held by nothing: it may stop, whether we are the ones who released it or were killed meanwhile.
pub fn take_free_for_permitted(view: &View<'_>, memory: &mut Memory) {
    for (id, seen) in &view.fleet.tasks {
        let Some(task) = memory.tasks.get_mut(id) else { continue };
        let settles_in = view.evidence.get(id).map_or(SignedDuration::ZERO, Evidence::settles_in);
        let is_proven = task.idle.is_some_and(|run| run.proves(view.policy.drain.idle_for, settles_in));
        if seen.runs_unheld() && is_proven && task.permitted.is_none() {
            task.permitted = Some(Permitted { at: view.now, ground: Ground::Drained });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        memory::IdleRun,
        update::testing::{Stage, at, busy, idle},
    };

    fn permit(ground: Ground) -> Permitted {
        Permitted { at: at(0), ground }
    }

    const DEADLINE: Ground = Ground::Deadline { jobs: Some(2) };

    #[test]
    fn a_task_at_work_voids_its_permit_unless_a_deadline_gave_it() {
        for (ground, kept) in [(Ground::Drained, false), (DEADLINE, true)] {
            let mut stage = Stage::with_task("t", Life::Running);
            stage.answers("t", "w@1", busy(at(1)));
            stage.memory.tasks.entry("t".into()).or_default().permitted = Some(permit(ground));
            let mut memory = stage.memory.clone();
            void(&stage.view(at(1)), &mut memory);
            assert_eq!(memory.tasks[&"t".into()].permitted.is_some(), kept);
        }
    }

    #[test]
    fn a_permit_whose_reply_was_lost_is_known_by_its_effect_and_what_it_cut_is_counted() {
        let held = HoldState::Until(at(7200));
        for (life, hold, seconds, permitted, open) in [
            (Life::Stopping, HoldState::Free, 1, true, false),
            (Life::Running, HoldState::Free, 1, true, false),
            (Life::Running, held, 9, false, true),
            (Life::Running, held, 10, false, false),
        ] {
            let mut stage = Stage::with_task("t", life.clone());
            stage.task("t").hold = hold;
            stage.answers("t", "w@1", idle(at(seconds)));
            stage.memory.tasks.entry("t".into()).or_default().permitting = Some(permit(DEADLINE));
            let mut memory = stage.memory.clone();
            confirm(&stage.view(at(seconds)), &mut memory);
            let task = &memory.tasks[&"t".into()];
            assert_eq!((task.permitted.is_some(), task.permitting.is_some()), (permitted, open), "{life:?}, {hold:?}");
            assert_eq!(memory.cut.jobs, if permitted { 2 } else { 0 });
        }
    }

    #[test]
    fn whoever_was_let_go_and_stays_ends_by_that_permit_until_it_is_held_or_at_work_again() {
        let held = HoldState::Until(at(7200));
        for (ground, hold, answer, seconds, remembered, what) in [
            (Ground::Drained, HoldState::Free, idle(at(20)), 20, true, "nothing holds it and it has no work"),
            (Ground::Drained, held, idle(at(9)), 9, true, "a hold that may be older than the release"),
            (Ground::Drained, held, idle(at(10)), 10, false, "it is held again"),
            (Ground::Drained, HoldState::Free, busy(at(1)), 1, false, "it has work again"),
            (DEADLINE, HoldState::Free, busy(at(1)), 1, true, "it was at work when it was let go"),
            (DEADLINE, held, busy(at(10)), 10, false, "it is held again, with its work"),
        ] {
            let mut stage = Stage::with_task("t", Life::Running);
            stage.task("t").hold = hold;
            stage.answers("t", "w@1", answer);
            let task = stage.memory.tasks.entry("t".into()).or_default();
            (task.permitted, task.permitting) = (Some(permit(ground.clone())), Some(permit(ground)));
            task.stay();
            assert_eq!((&task.permitted, &task.permitting), (&None, &None), "it is void");
            let mut memory = stage.memory.clone();
            forget_released(&stage.view(at(seconds)), &mut memory);
            assert_eq!(memory.tasks[&"t".into()].let_go().is_some(), remembered, "{what}");
        }
    }

    #[test]
    fn what_is_drained_and_free_counts_as_permitted() {
        let mut stage = Stage::with_task("t", Life::Running);
        let run = IdleRun { first: at(0), last: at(5), observations: 2, begun: None, up_for: None };
        stage.memory.tasks.entry("t".into()).or_default().idle = Some(run);
        let mut memory = stage.memory.clone();
        take_free_for_permitted(&stage.view(at(5)), &mut memory);
        assert_eq!(memory.tasks[&"t".into()].permitted, Some(Permitted { at: at(5), ground: Ground::Drained }));
    }
}
