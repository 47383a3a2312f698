//! One observation of the service: which calls, in which order, and why in that order.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
};

use aws_sdk_ecs::{
    operation::describe_services::DescribeServicesOutput,
    types::{DesiredStatus, ServiceField},
};
use futures::{StreamExt as _, TryStreamExt as _, future::try_join3, stream};
use jiff::{SignedDuration, Timestamp};
use worker_drain_plan::{
    RevisionId, TaskId,
    observation::{Failure, FailureKind, HoldState, Life},
};

use super::{
    belonging,
    call::AT_ONCE,
    connect::Connection,
    instances,
    operation::Operation,
    view::{self, Described, ServiceFacts},
};
use crate::{clock::Clock, fleet::FleetObservation, identity::FleetId};

/// `DescribeTasks`, `GetTaskProtection`, and a page of `ListTasks` take this many tasks (API reference).
const BATCH: usize = 100;
/// A list that does not end within so many pages is not a list: two hundred thousand tasks.
const PAGES: usize = 2000;
/// For so long after a task's creation, a deployment that the service does not list may be too new to be listed; after
/// that it must be an old one that is listed no more.
const LISTED_WITHIN: SignedDuration = SignedDuration::from_mins(2);

/// Observes the service.
///
/// The order matters. The service is read first, for the name that tasks are listed by. And if a task comes from
/// a deployment that the service did not list, the service is read again: that deployment may have begun after the first
/// reading, and its tasks would be taken for old ones.
///
/// Only tasks that ECS wants to run are listed (`desiredStatus=RUNNING`). One that is stopping or has ended is read by its
/// ARN if it is tracked, and is history otherwise: a task that nobody tracked was never held, cancelled or waited for. To
/// list them too (`desiredStatus=STOPPED`) would cost every observation a call of the scarcest bucket.
pub(super) async fn observe(
    connection: &Connection,
    id: &FleetId,
    clock: &dyn Clock,
    tracked: &BTreeSet<TaskId>,
) -> Result<FleetObservation, Failure> {
    let target = connection.target();
    let service = match read_own_service(connection, id).await {
        Err(gone) if gone.kind == FailureKind::NotFound => return deleted(connection, gone, tracked).await,
        read => read?,
    };
    belong_here(connection, &service, tracked)?;
    let running = list(connection, &service, DesiredStatus::Running).await?;
    let described = describe(connection, &running.union(tracked).cloned().collect()).await?;
    let ours = sort_out(connection, &service, described, &running, tracked)?;
    let unlisted = unlisted(&service, &ours);
    let service = async { if unlisted.is_empty() { Ok(service) } else { read_own_service(connection, id).await } };
    let instances = Box::pin(async { Ok(instances::read(connection, ours.tasks.values()).await) });
    let (holds, service, instances) = try_join3(read_holds(connection, &ours), service, instances).await?;
    not_too_new(connection, clock, &service, &unlisted)?;
    let mut seen = view::join(target, service.clone(), &ours, &holds, &instances);
    if seen.view.discrepancy().is_some_and(|sum| sum.counted > sum.shown) {
        let stopping = Box::pin(stopping(connection, &service, &seen.view.tasks.into_keys().collect())).await?;
        seen = view::join(target, service.stopping_too(stopping), &ours, &holds, &instances);
    }
    Ok(seen)
}

/// What is left of a service that ECS knows no more: those of `tracked`, which ECS shows for an hour after they have stopped
/// (API reference, `DescribeTasks`). Errors: `gone`, if there are none, or one of them lives: then the service was not deleted.
async fn deleted(
    connection: &Connection,
    gone: Failure,
    tracked: &BTreeSet<TaskId>,
) -> Result<FleetObservation, Failure> {
    if tracked.is_empty() {
        return Err(gone);
    }
    let ours = describe(connection, tracked).await?;
    if ours.tasks.values().any(|task| view::life(task).is_live()) {
        return Err(gone);
    }
    Ok(view::deleted(connection.target(), &ours))
}

/// How many of the service's tasks are being stopped, other than `known`: ECS may count them still. They are listed only where
/// its count needs it, because that costs calls of the scarcest bucket.
async fn stopping(connection: &Connection, service: &ServiceFacts, known: &BTreeSet<TaskId>) -> Result<usize, Failure> {
    let listed = list(connection, service, DesiredStatus::Stopped).await?;
    let others = listed.difference(known).cloned().collect();
    let described = describe(connection, &others).await?;
    Ok(described.tasks.values().filter(|task| view::life(task) == Life::Stopping).count())
}

/// Reads the service. Errors: also if it is another one than `id` says, whether it exists or not; if `id` says nothing yet,
/// it is the one that was read.
async fn read_own_service(connection: &Connection, id: &FleetId) -> Result<ServiceFacts, Failure> {
    let read = read_service(connection).await;
    if let Some(changed) = belonging::changed(connection, id) {
        return Err(changed.into());
    }
    let service = read?;
    if !service.service_arn.is_empty() {
        id.learn(&service.service_arn);
    }
    Ok(service)
}

pub(super) async fn read_service(connection: &Connection) -> Result<ServiceFacts, Failure> {
    let answer = match Box::pin(describe_service(connection, connection.reads_tags())).await {
        // Nothing but one number rests on the tags, and an account or a service of old may have none.
        Err(first) if connection.reads_tags() && matches!(first.kind, FailureKind::Denied | FailureKind::Invalid) => {
            let answer = Box::pin(describe_service(connection, false)).await.map_err(|_| first)?;
            connection.read_no_tags();
            answer
        }
        answer => answer?,
    };
    connection.note(view::named(&answer));
    view::service(connection.target(), &answer, connection.reads_tags())
}

async fn describe_service(connection: &Connection, with_tags: bool) -> Result<DescribeServicesOutput, Failure> {
    let target = connection.target();
    let fields = with_tags.then(|| vec![ServiceField::Tags]);
    let ask = || {
        let request = connection.client.describe_services().cluster(&target.cluster).services(&target.service);
        request.set_include(fields.clone()).send()
    };
    connection.caller.call(Operation::DescribeServices, ask).await
}

/// Memory of another account, Region or cluster must not be acted on here, and ECS would refuse it less clearly.
fn belong_here(connection: &Connection, service: &ServiceFacts, tracked: &BTreeSet<TaskId>) -> Result<(), Failure> {
    match tracked.iter().find(|task| !view::is_of_cluster(&service.cluster_arn, task)) {
        None => Ok(()),
        Some(task) => Err(foreign(connection, task, &format!("its ARN is not of {}: {task}", service.cluster_arn))),
    }
}

async fn list(
    connection: &Connection,
    service: &ServiceFacts,
    desired: DesiredStatus,
) -> Result<BTreeSet<TaskId>, Failure> {
    let mut all = BTreeSet::new();
    let mut token: Option<String> = None;
    for _ in 0..PAGES {
        let page = connection
            .caller
            .call(Operation::ListTasks, || {
                connection
                    .client
                    .list_tasks()
                    .cluster(&connection.target().cluster)
                    .service_name(&service.service)
                    .desired_status(desired.clone())
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
    Err(view::half(connection.target(), "its list of tasks does not end"))
}

async fn describe(connection: &Connection, tasks: &BTreeSet<TaskId>) -> Result<Described, Failure> {
    let calls = batches(tasks.iter()).into_iter().map(|batch| async move {
        let ask = || {
            let request = connection.client.describe_tasks().cluster(&connection.target().cluster);
            request.set_tasks(Some(batch.clone())).send()
        };
        connection.caller.call(Operation::DescribeTasks, ask).await
    });
    view::described(connection.target(), tasks, &all(calls.collect()).await?)
}

/// Keeps this service's tasks; of the ended and vanished ones, only those that are tracked. What ECS lists for the service and
/// is of none of its deployments is told, and never dropped.
fn sort_out(
    connection: &Connection,
    service: &ServiceFacts,
    described: Described,
    running: &BTreeSet<TaskId>,
    tracked: &BTreeSet<TaskId>,
) -> Result<Described, Failure> {
    let Described { tasks, missing, .. } = described;
    if let Some(task) = missing.intersection(running).next() {
        let what = format!("it lists task {} as running, and does not know it", task.short());
        return Err(view::half(connection.target(), &what));
    }
    let mut ours = Described { missing: missing.intersection(tracked).cloned().collect(), ..Described::default() };
    for (id, task) in tasks {
        let is_tracked = tracked.contains(&id);
        if !view::is_ours(service, &task) {
            if is_tracked {
                return Err(foreign(connection, &id, &format!("it belongs to {:?}", task.group().unwrap_or_default())));
            }
            if running.contains(&id) && !view::has_ended(&view::life(&task)) {
                ours.unplaced.insert(id, view::unplaced(service, &task));
            }
        } else if is_tracked || !view::has_ended(&view::life(&task)) {
            ours.tasks.insert(id, task);
        }
    }
    Ok(ours)
}

async fn read_holds(connection: &Connection, ours: &Described) -> Result<BTreeMap<TaskId, HoldState>, Failure> {
    let alive = ours.tasks.iter().filter(|(_, task)| !view::has_ended(&view::life(task))).map(|(id, _)| id);
    let calls = batches(alive).into_iter().map(|batch| async move {
        let ask = || {
            let request = connection.client.get_task_protection().cluster(&connection.target().cluster);
            request.set_tasks(Some(batch.clone())).send()
        };
        connection.caller.call(Operation::GetTaskProtection, ask).await
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
    connection: &Connection,
    clock: &dyn Clock,
    service: &ServiceFacts,
    unlisted: &BTreeMap<RevisionId, Option<Timestamp>>,
) -> Result<(), Failure> {
    let now = clock.now();
    let may_be_newer = |created: Option<Timestamp>| {
        created.is_some_and(|at| service.current_since().is_none_or(|since| at > since))
            && created.is_some_and(|at| now.duration_since(at) < LISTED_WITHIN)
    };
    match unlisted.iter().find(|(revision, created)| !service.lists(revision) && may_be_newer(**created)) {
        None => Ok(()),
        Some((revision, _)) => {
            let what = format!("a new task is of deployment {revision}, which the service does not list yet");
            Err(view::half(connection.target(), &what))
        }
    }
}

fn foreign(connection: &Connection, task: &TaskId, why: &str) -> Failure {
    Failure::new(
        FailureKind::Invalid,
        format!(
            "task {} is remembered as one of {}, but {why}. Was this drain pointed at another service, or is this the \
             state of another account? Point it back until its tasks have ended, or create another drain",
            task.short(),
            connection.target().label()
        ),
    )
}

fn batches<'a>(tasks: impl Iterator<Item = &'a TaskId>) -> Vec<Vec<String>> {
    let all: Vec<String> = tasks.map(|task| task.as_str().to_owned()).collect();
    all.chunks(BATCH).map(<[String]>::to_vec).collect()
}
