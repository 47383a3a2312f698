//! A reconciliation of a drain whose spec, Region or credentials have come to lead to another service than the one that it
//! belongs to: nothing is done to either, and that is reported.

use std::time::Duration;

use worker_drain_plan::observation::Failure;

use super::{
    context::{Context, Entry},
    events::DrainEvent,
    failure_status::{self, FailureStatus},
    fencing::OrFailure,
    finalizer::{ABANDON, let_go},
    leftovers::{Leftovers, Work},
    metrics::Key,
    subject::{Next, Subject},
};
use crate::{
    clock::{Clock, SystemClock},
    fleet::ecs::FleetChanged,
    record::Record,
};

/// So often ECS is asked whether the first service is reached again.
const ASK_AGAIN: Duration = Duration::from_secs(15);

/// What becomes of a reconciliation whose fleet is not the drain's own; `None`: it is, as far as ECS has answered. Errors:
/// what the drain remembers could not be read, or its status not be written.
pub async fn instead(
    context: &Context,
    key: &Key,
    entry: &mut Entry,
    Subject { resource, record, fleet, .. }: &Subject,
) -> Result<Option<Next>, Failure> {
    let OrFailure::There(fleet) = fleet else { return Ok(None) };
    // Why it could not be read, the reconciliation finds out and reports.
    if let Err(failure) = fleet.arn().await {
        tracing::debug!(why = failure.message, "the service could not be read");
    }
    let Some(changed) = fleet.changed() else { return Ok(None) };
    // It cannot act, and is in nobody's way.
    context.ownership.forget(key);
    let leftovers = Leftovers::of(&record.load().await?);
    if resource.metadata.deletion_timestamp.is_some() && leftovers.work() == Work::Nothing {
        let_go(&context.client, resource).await?;
        let note = format!("nothing was to be given back to {}", changed.belongs_to);
        context.publish(resource, vec![DrainEvent::normal("Withdrawn", key.1.as_str(), note)]);
        return Ok(Some(Next::Gone));
    }
    let status = FailureStatus {
        reason: failure_status::FLEET_CHANGED,
        subject: key.1.clone(),
        message: message(&changed, &leftovers),
    };
    failure_status::report(context, entry, resource, &status).await?;
    context.metrics.drains().failure_status(key, failure_status::FLEET_CHANGED, Some(SystemClock.now()));
    Ok(Some(Next::After(ASK_AGAIN)))
}

/// What has changed, and what stands in the way of deleting the drain.
fn message(changed: &FleetChanged, leftovers: &Leftovers) -> String {
    let remembered = match leftovers.work() {
        Work::Nothing => return changed.to_string(),
        Work::Held => format!("holds of {}", leftovers.held()),
        Work::Taken => format!("queues taken from {}", leftovers.taken()),
    };
    format!(
        "{changed}. It remembers {remembered} in the first one: if it is deleted, it waits until it can give them back \
         there, or for the annotation {ABANDON}: \"true\""
    )
}

#[cfg(test)]
mod tests {
    use worker_drain_plan::{Memory, memory::TaskMemory};

    use super::*;

    #[test]
    fn the_message_names_both_services_and_the_ways_out() {
        let changed = FleetChanged {
            belongs_to: "arn:aws:ecs:eu-west-1:123456789012:service/media/transcoder".into(),
            leads_to: "arn:aws:ecs:us-east-1:123456789012:service/media/transcoder".into(),
        };
        let held = TaskMemory { held: true, ..TaskMemory::default() };
        let tasks = [("arn:aws:ecs:eu-west-1:123456789012:task/media/abc".into(), held)].into();
        let text = message(&changed, &Leftovers::of(&Memory { tasks, ..Memory::default() }));
        for part in
            [&*changed.belongs_to, &*changed.leads_to, "create another WorkerDrain", "holds of task abc", ABANDON]
        {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!message(&changed, &Leftovers::default()).contains(ABANDON), "nothing stands in the way");
    }
}
