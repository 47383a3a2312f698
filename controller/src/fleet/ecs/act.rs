//! Holding and releasing: `UpdateTaskProtection`, in batches of ten. An answer of 200 does not mean that a task is held:
//! each task of it is looked up, in `failures` and in `protectedTasks`.

use std::collections::BTreeMap;

use aws_sdk_ecs::operation::update_task_protection::UpdateTaskProtectionOutput;
use futures::{StreamExt as _, stream};
use jiff::SignedDuration;
use worker_drain_plan::{
    Outcome, TaskId,
    observation::{Failure, FailureKind},
};

use super::{call::AT_ONCE, connect::Connection, operation::Operation, target::last_part, view::LONGEST_HOLD_MINUTES};

/// `UpdateTaskProtection` takes this many tasks (API reference).
const BATCH: usize = 10;

/// Batches one after another that went unanswered, retries and all: the rest fails with them, so that a reconciliation does not wait
/// for an hour of timeouts. Nothing is lost; the next reconciliation asks again.
const GIVE_UP_AFTER: u32 = 3;

/// Tasks of one call, by their place in the request, and what is asked for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Batch {
    /// `None` releases.
    minutes: Option<i32>,
    places: Vec<usize>,
}

pub(super) async fn hold(connection: &Connection, holds: &[(TaskId, SignedDuration)]) -> Vec<Outcome> {
    let tasks: Vec<&TaskId> = holds.iter().map(|(task, _)| task).collect();
    let mut answers = Vec::new();
    // One after another, in the order that was asked for: when ECS grants only so many holds, the first ones get them.
    let mut unanswered = 0;
    for batch in batches_of_holds(holds) {
        let outcomes = match answers.last() {
            Some((_, Outcome::Failed(last))) if unanswered >= GIVE_UP_AFTER => read(&tasks, &batch, Err(last.clone())),
            _ => update(connection, &tasks, &batch).await,
        };
        unanswered = if outcomes.iter().any(|(_, outcome)| is_unanswered(outcome)) { unanswered + 1 } else { 0 };
        answers.extend(outcomes);
    }
    in_order(answers)
}

pub(super) async fn release(connection: &Connection, tasks: &[TaskId]) -> Vec<Outcome> {
    let tasks: Vec<&TaskId> = tasks.iter().collect();
    let places: Vec<usize> = (0..tasks.len()).collect();
    let batches: Vec<Batch> =
        places.chunks(BATCH).map(|places| Batch { minutes: None, places: places.to_vec() }).collect();
    let calls: Vec<_> = batches.iter().map(|batch| update(connection, &tasks, batch)).collect();
    let answers: Vec<_> = stream::iter(calls).buffered(AT_ONCE).collect().await;
    in_order(answers.concat())
}

fn is_unanswered(outcome: &Outcome) -> bool {
    let kinds = [FailureKind::Unreachable, FailureKind::Throttled];
    matches!(outcome, Outcome::Failed(failure) if kinds.contains(&failure.kind))
}

/// One call for one batch; the outcome of each task with its place.
///
/// ECS may refuse a whole batch for one task that it thinks invalid. Then each is asked for alone, so that one task does
/// not cost nine others their hold.
async fn update(connection: &Connection, tasks: &[&TaskId], batch: &Batch) -> Vec<(usize, Outcome)> {
    let answer = send(connection, tasks, batch).await;
    match answer {
        Err(failure) if batch.places.len() > 1 && concerns_one_task(&failure) => {
            let mut outcomes = Vec::new();
            for place in &batch.places {
                let alone = Batch { minutes: batch.minutes, places: vec![*place] };
                outcomes.extend(read(tasks, &alone, send(connection, tasks, &alone).await));
            }
            outcomes
        }
        answer => read(tasks, batch, answer),
    }
}

async fn send(
    connection: &Connection,
    tasks: &[&TaskId],
    batch: &Batch,
) -> Result<UpdateTaskProtectionOutput, Failure> {
    let names: Vec<String> = batch.places.iter().map(|place| tasks[*place].as_str().to_owned()).collect();
    let ask = || {
        connection
            .client
            .update_task_protection()
            .cluster(&connection.target().cluster)
            .set_tasks(Some(names.clone()))
            .protection_enabled(batch.minutes.is_some())
            .set_expires_in_minutes(batch.minutes)
            .send()
    };
    connection.caller.call(Operation::UpdateTaskProtection, ask).await
}

fn concerns_one_task(failure: &Failure) -> bool {
    // A cluster that does not exist is NotFound too, but then nothing but this call failed: asking ten times is cheap.
    matches!(failure.kind, FailureKind::Invalid | FailureKind::NotFound)
}

/// What one answer means for each task of its batch.
fn read(
    tasks: &[&TaskId],
    batch: &Batch,
    answer: Result<UpdateTaskProtectionOutput, Failure>,
) -> Vec<(usize, Outcome)> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(failure) => return batch.places.iter().map(|place| (*place, Outcome::Failed(failure.clone()))).collect(),
    };
    let mut refusals = BTreeMap::new();
    for failure in answer.failures() {
        let reason = failure.reason().or_else(|| failure.detail()).unwrap_or("no reason given");
        tracing::debug!(task = failure.arn(), reason, detail = failure.detail(), "ECS refused to change a hold");
        // Without a name it can only be meant for the one task that was asked for.
        let only = (batch.places.len() == 1).then(|| tasks[batch.places[0]].short());
        if let Some(task) = failure.arn().map(last_part).or(only) {
            refusals.insert(task, reason);
        }
    }
    let held: BTreeMap<&str, bool> = answer
        .protected_tasks()
        .iter()
        .filter_map(|task| Some((last_part(task.task_arn()?), task.protection_enabled())))
        .collect();
    let outcome = |task: &TaskId| match (refusals.get(task.short()), held.get(task.short())) {
        (Some(reason), _) => Outcome::Refused { reason: (*reason).to_owned() },
        (None, Some(held)) if *held == batch.minutes.is_some() => Outcome::Done,
        (None, Some(_)) if batch.minutes.is_some() => refused("ECS answered that the task is not held"),
        (None, Some(_)) => refused("ECS answered that the task is still held"),
        (None, None) => refused("ECS left the task out of its answer"),
    };
    batch.places.iter().map(|place| (*place, outcome(tasks[*place]))).collect()
}

fn refused(reason: &str) -> Outcome {
    Outcome::Refused { reason: reason.to_owned() }
}

/// Holds of equal length together, ten at a time; in the order of the request.
fn batches_of_holds(holds: &[(TaskId, SignedDuration)]) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for (place, (_, lasting)) in holds.iter().enumerate() {
        let minutes = Some(minutes(*lasting));
        let open = batches.iter_mut().find(|batch| batch.minutes == minutes && batch.places.len() < BATCH);
        match open {
            Some(batch) => batch.places.push(place),
            None => batches.push(Batch { minutes, places: vec![place] }),
        }
    }
    batches
}

/// Whole minutes, rounded up: a hold must not end before it was meant to. ECS grants from one minute to 48 hours.
fn minutes(lasting: SignedDuration) -> i32 {
    let seconds = lasting.as_secs().saturating_add(i64::from(lasting.subsec_nanos() > 0));
    let minutes = seconds.max(0).saturating_add(59) / 60;
    i32::try_from(minutes).unwrap_or(LONGEST_HOLD_MINUTES).clamp(1, LONGEST_HOLD_MINUTES)
}

fn in_order(mut outcomes: Vec<(usize, Outcome)>) -> Vec<Outcome> {
    outcomes.sort_by_key(|(place, _)| *place);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

#[cfg(test)]
mod tests {
    use aws_sdk_ecs::types::{Failure as EcsFailure, ProtectedTask};
    use rstest::rstest;

    use super::*;

    fn arn(number: usize) -> TaskId {
        TaskId::from(format!("arn:aws:ecs:eu-west-1:1:task/media/{number:032x}"))
    }

    fn protected(number: usize, enabled: bool) -> ProtectedTask {
        ProtectedTask::builder().task_arn(arn(number).as_str()).protection_enabled(enabled).build()
    }

    fn failed(number: usize, reason: &str) -> EcsFailure {
        EcsFailure::builder().arn(arn(number).as_str()).reason(reason).build()
    }

    fn reason(reason: &str) -> Outcome {
        Outcome::Refused { reason: reason.to_owned() }
    }

    #[rstest]
    #[case(SignedDuration::from_secs(-5), 1)]
    #[case(SignedDuration::ZERO, 1)]
    #[case(SignedDuration::from_secs(60), 1)]
    #[case(SignedDuration::from_secs(61), 2)]
    #[case(SignedDuration::from_millis(120_001), 3)]
    #[case(SignedDuration::from_hours(48), 2880)]
    #[case(SignedDuration::from_hours(49), 2880)]
    #[case(SignedDuration::MAX, 2880)]
    fn a_hold_is_whole_minutes_and_never_shorter_than_asked(#[case] lasting: SignedDuration, #[case] expected: i32) {
        assert_eq!(minutes(lasting), expected);
    }

    #[test]
    fn batches_hold_ten_of_equal_length_and_keep_the_order() {
        let (long, short) = (SignedDuration::from_hours(2), SignedDuration::from_mins(30));
        let holds: Vec<_> = (0..25).map(|number| (arn(number), if number % 5 == 4 { short } else { long })).collect();
        let batches = batches_of_holds(&holds);
        assert_eq!(batches.iter().map(|batch| batch.places.len()).collect::<Vec<_>>(), [10, 5, 10]);
        assert_eq!(batches.iter().map(|batch| batch.minutes).collect::<Vec<_>>(), [Some(120), Some(30), Some(120)]);
        assert_eq!(batches[0].places, [0, 1, 2, 3, 5, 6, 7, 8, 10, 11]);
        assert_eq!(batches[1].places, [4, 9, 14, 19, 24]);
        let mut all: Vec<usize> = batches.into_iter().flat_map(|batch| batch.places).collect();
        all.sort_unstable();
        assert_eq!(all, (0..25).collect::<Vec<_>>());
    }

    #[test]
    fn each_task_of_a_200_is_looked_up() {
        let ids: Vec<TaskId> = (0..4).map(arn).collect();
        let tasks: Vec<&TaskId> = ids.iter().collect();
        let answer = UpdateTaskProtectionOutput::builder()
            .protected_tasks(protected(2, false))
            .protected_tasks(protected(0, true))
            .failures(failed(1, "DEPLOYMENT_BLOCKED"))
            .build();
        let batch = Batch { minutes: Some(120), places: vec![0, 1, 2, 3] };
        assert_eq!(
            in_order(read(&tasks, &batch, Ok(answer))),
            [
                Outcome::Done,
                reason("DEPLOYMENT_BLOCKED"),
                reason("ECS answered that the task is not held"),
                reason("ECS left the task out of its answer"),
            ]
        );
    }

    #[test]
    fn a_release_that_is_answered_as_held_is_refused() {
        let ids = [arn(0), arn(1)];
        let tasks: Vec<&TaskId> = ids.iter().collect();
        let answer = UpdateTaskProtectionOutput::builder()
            .protected_tasks(protected(0, true))
            .protected_tasks(protected(1, false))
            .build();
        let batch = Batch { minutes: None, places: vec![0, 1] };
        let outcomes = in_order(read(&tasks, &batch, Ok(answer)));
        assert_eq!(outcomes, [reason("ECS answered that the task is still held"), Outcome::Done]);
    }

    #[test]
    fn an_empty_answer_refuses_everything() {
        let ids = [arn(0), arn(1)];
        let tasks: Vec<&TaskId> = ids.iter().collect();
        let batch = Batch { minutes: Some(5), places: vec![0, 1] };
        let outcomes = in_order(read(&tasks, &batch, Ok(UpdateTaskProtectionOutput::builder().build())));
        assert_eq!(outcomes, vec![reason("ECS left the task out of its answer"); 2]);
    }

    #[test]
    fn a_failure_without_a_name_is_the_only_tasks() {
        let ids = [arn(0)];
        let tasks: Vec<&TaskId> = ids.iter().collect();
        let nameless = EcsFailure::builder().reason("TASK_NOT_VALID").build();
        let answer = UpdateTaskProtectionOutput::builder().failures(nameless).build();
        let batch = Batch { minutes: Some(5), places: vec![0] };
        assert_eq!(in_order(read(&tasks, &batch, Ok(answer))), [reason("TASK_NOT_VALID")]);
    }

    #[test]
    fn a_call_that_fails_fails_each_of_its_tasks() {
        let ids = [arn(0), arn(1)];
        let tasks: Vec<&TaskId> = ids.iter().collect();
        let failure = Failure::new(FailureKind::Unreachable, "no route");
        let batch = Batch { minutes: Some(5), places: vec![1, 0] };
        let outcomes = in_order(read(&tasks, &batch, Err(failure.clone())));
        assert_eq!(outcomes, vec![Outcome::Failed(failure); 2]);
    }
}
