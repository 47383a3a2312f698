//! One look at the service: which calls, in which order, and why in that order.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::PoisonError,
};

use aws_sdk_ecs::types::DesiredStatus;
use futures::{StreamExt as _, TryStreamExt as _, future::try_join, stream};
use jiff::{SignedDuration, Timestamp};
use worker_drain_plan::{
    RevisionId, TaskId,
    observation::{Failure, FailureKind, HoldState, Life},
};

use super::{
    AT_ONCE, EcsFleet, Operation,
    view::{self, Described, ServiceFacts},
};
use crate::fleet::FleetObservation;

/// `DescribeTasks`, `GetTaskProtection`, and a page of `ListTasks` take this many tasks (API reference).
const BATCH: usize = 100;
/// A list that does not end within so many pages is not a list: two hundred thousand tasks.
const PAGES: usize = 2000;
/// For so long after a task's creation, a deployment that the service does not list may be too new to be listed; after
/// that it must be an old one that is listed no more.
const LISTED_WITHIN: SignedDuration = SignedDuration::from_mins(2);

/// Looks at the service.
///
/// The order matters. The service is read first, for the name that tasks are listed by. RUNNING tasks are listed before
/// STOPPED ones, so that a task which changes over in between is in both lists and not in none. And if a task comes from
/// a deployment that the service did not list, the service is read again: that deployment may have begun after the first
/// reading, and its tasks would be taken for old ones.
///
/// Tasks that have ended are left out unless they are tracked. ECS lists them for about an hour, and they are history: a
/// task that nobody tracked was never held, cancelled or waited for.
pub(super) async fn observe(fleet: &EcsFleet, tracked: &BTreeSet<TaskId>) -> Result<FleetObservation, Failure> {
    let target = &fleet.caller.target;
    let service = read_service(fleet).await?;
    belong_here(fleet, &service, tracked)?;
    let running = list(fleet, &service, DesiredStatus::Running).await?;
    let stopped = list(fleet, &service, DesiredStatus::Stopped).await?;
    let described = describe(fleet, &wanted(fleet, &running, &stopped, tracked)).await?;
    let ours = sort_out(fleet, &service, described, &running, tracked)?;
    let unlisted = unlisted(&service, &ours);
    let (holds, service) = try_join(read_holds(fleet, &ours), async {
        if unlisted.is_empty() { Ok(service) } else { read_service(fleet).await }
    })
    .await?;
    not_too_new(fleet, &service, &unlisted)?;
    Ok(view::join(target, service, &ours, &holds))
}

pub(super) async fn read_service(fleet: &EcsFleet) -> Result<ServiceFacts, Failure> {
    let target = &fleet.caller.target;
    let answer = fleet
        .caller
        .call(Operation::DescribeServices, || {
            fleet.client.describe_services().cluster(&target.cluster).services(&target.service).send()
        })
        .await?;
    view::service(target, &answer)
}

/// Memory of another account, Region or cluster must not be acted on here, and ECS would refuse it less clearly.
fn belong_here(fleet: &EcsFleet, service: &ServiceFacts, tracked: &BTreeSet<TaskId>) -> Result<(), Failure> {
    match tracked.iter().find(|task| !view::is_of_cluster(&service.cluster_arn, task)) {
        None => Ok(()),
        Some(task) => Err(foreign(fleet, task, &format!("its ARN is not of {}: {task}", service.cluster_arn))),
    }
}

async fn list(fleet: &EcsFleet, service: &ServiceFacts, status: DesiredStatus) -> Result<BTreeSet<TaskId>, Failure> {
    let mut all = BTreeSet::new();
    let mut token: Option<String> = None;
    for _ in 0..PAGES {
        let page = fleet
            .caller
            .call(Operation::ListTasks, || {
                fleet
                    .client
                    .list_tasks()
                    .cluster(&fleet.caller.target.cluster)
                    .service_name(&service.service)
                    .desired_status(status.clone())
                    .set_next_token(token.clone())
                    .send()
            })
            .await?;
        all.extend(page.task_arns().iter().map(TaskId::from));
        match page.next_token().filter(|token| !token.is_empty()) {
            None => return Ok(all),
            next => token = next.map(ToOwned::to_owned),
        }
    }
    Err(view::half(&fleet.caller.target, "its list of tasks does not end"))
}

/// Which tasks are read: all but the ended ones that nobody tracks and that were read once.
fn wanted(
    fleet: &EcsFleet,
    running: &BTreeSet<TaskId>,
    stopped: &BTreeSet<TaskId>,
    tracked: &BTreeSet<TaskId>,
) -> BTreeSet<TaskId> {
    let mut history = fleet.history.lock().unwrap_or_else(PoisonError::into_inner);
    history.retain(|task| stopped.contains(task));
    let fresh = stopped.iter().filter(|task| !history.contains(*task));
    running.iter().chain(fresh).chain(tracked).cloned().collect()
}

async fn describe(fleet: &EcsFleet, tasks: &BTreeSet<TaskId>) -> Result<Described, Failure> {
    let calls = batches(tasks.iter()).into_iter().map(|batch| async move {
        let ask = || {
            let request = fleet.client.describe_tasks().cluster(&fleet.caller.target.cluster);
            request.set_tasks(Some(batch.clone())).send()
        };
        fleet.caller.call(Operation::DescribeTasks, ask).await
    });
    view::described(&fleet.caller.target, tasks, &all(calls.collect()).await?)
}

/// Keeps this service's tasks; of the ended and vanished ones, only those that are tracked.
fn sort_out(
    fleet: &EcsFleet,
    service: &ServiceFacts,
    described: Described,
    running: &BTreeSet<TaskId>,
    tracked: &BTreeSet<TaskId>,
) -> Result<Described, Failure> {
    let Described { tasks, missing } = described;
    if let Some(task) = missing.intersection(running).next() {
        let what = format!("it lists task {} as running, and does not know it", task.short());
        return Err(view::half(&fleet.caller.target, &what));
    }
    let mut history = fleet.history.lock().unwrap_or_else(PoisonError::into_inner);
    let mut ours = Described { tasks: BTreeMap::new(), missing: missing.intersection(tracked).cloned().collect() };
    for (id, task) in tasks {
        let is_tracked = tracked.contains(&id);
        if !view::is_ours(service, &task) {
            if is_tracked {
                return Err(foreign(fleet, &id, &format!("it belongs to {:?}", task.group().unwrap_or_default())));
            }
        } else if is_tracked || !view::has_ended(&view::life(&task)) {
            ours.tasks.insert(id, task);
        } else {
            history.insert(id);
        }
    }
    Ok(ours)
}

async fn read_holds(fleet: &EcsFleet, ours: &Described) -> Result<BTreeMap<TaskId, HoldState>, Failure> {
    let alive = ours.tasks.iter().filter(|(_, task)| !view::has_ended(&view::life(task))).map(|(id, _)| id);
    let calls = batches(alive).into_iter().map(|batch| async move {
        let ask = || {
            let request = fleet.client.get_task_protection().cluster(&fleet.caller.target.cluster);
            request.set_tasks(Some(batch.clone())).send()
        };
        fleet.caller.call(Operation::GetTaskProtection, ask).await
    });
    Ok(view::holds(&all(calls.collect()).await?))
}

/// Makes these calls, a few at a time; the first failure is the failure of all.
async fn all<T>(calls: Vec<impl Future<Output = Result<T, Failure>>>) -> Result<Vec<T>, Failure> {
    stream::iter(calls).buffered(AT_ONCE).try_collect().await
}

/// Deployments that the service does not list and that have tasks which are meant to run, with the creation of the
/// youngest of these. (A deployment whose tasks are all stopping may be gone from the list before they are.)
fn unlisted(service: &ServiceFacts, ours: &Described) -> BTreeMap<RevisionId, Option<Timestamp>> {
    let mut unlisted = BTreeMap::new();
    for task in ours.tasks.values() {
        let revision = RevisionId::from(task.started_by().unwrap_or_default());
        if !service.lists(&revision) && matches!(view::life(task), Life::Starting | Life::Running) {
            let youngest: &mut Option<Timestamp> = unlisted.entry(revision).or_default();
            *youngest = (*youngest).max(task.created_at().and_then(view::timestamp));
        }
    }
    unlisted
}

/// A task of a deployment that is not listed, even on the second reading, counts as old. Unless it is younger than the
/// current deployment and altogether so young that the service's own answer may be the stale one.
fn not_too_new(
    fleet: &EcsFleet,
    service: &ServiceFacts,
    unlisted: &BTreeMap<RevisionId, Option<Timestamp>>,
) -> Result<(), Failure> {
    let now = fleet.clock.now();
    let may_be_newer = |created: Option<Timestamp>| {
        created.is_some_and(|at| service.current_since().is_none_or(|since| at > since))
            && created.is_some_and(|at| now.duration_since(at) < LISTED_WITHIN)
    };
    match unlisted.iter().find(|(revision, created)| !service.lists(revision) && may_be_newer(**created)) {
        None => Ok(()),
        Some((revision, _)) => {
            let what = format!("a new task is of deployment {revision}, which the service does not list yet");
            Err(view::half(&fleet.caller.target, &what))
        }
    }
}

fn foreign(fleet: &EcsFleet, task: &TaskId, why: &str) -> Failure {
    Failure::new(
        FailureKind::Invalid,
        format!(
            "task {} is remembered as one of {}, but {why}. Was this drain pointed at another service, or is this the \
             state of another account? Point it back until its tasks have ended, or make a new drain",
            task.short(),
            fleet.caller.target.label()
        ),
    )
}

fn batches<'a>(tasks: impl Iterator<Item = &'a TaskId>) -> Vec<Vec<String>> {
    let all: Vec<String> = tasks.map(|task| task.as_str().to_owned()).collect();
    all.chunks(BATCH).map(<[String]>::to_vec).collect()
}
