//! What ECS's answers mean: from the SDK's types to the plan's. Pure; a wrong or half answer is a failure here and never
//! a smaller fleet.
//!
//! Where the meanings come from: the Amazon ECS API reference (`Service`, `Deployment`, `Task`, `ProtectedTask`,
//! `Failure`) and, for a task's states, "Amazon ECS task lifecycle" in the developer guide.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ecs::{
    operation::{
        describe_services::DescribeServicesOutput, describe_tasks::DescribeTasksOutput,
        get_task_protection::GetTaskProtectionOutput,
    },
    primitives::DateTime,
    types::{
        AvailabilityZoneRebalancing, Container, Deployment, DeploymentConfiguration, DeploymentController,
        DeploymentControllerType, DeploymentRolloutState, DeploymentStrategy, SchedulingStrategy, Service,
        Task as EcsTask,
    },
};
use jiff::{SignedDuration, Timestamp};
use worker_drain_plan::{
    RevisionId, TaskId,
    observation::{Counted, Displaced, Failure, FailureKind, FleetView, HoldState, Life, Revision, Task, Unplaced},
};

use super::{
    alike::alike,
    connect::Named,
    identity::identity,
    instances::Instances,
    tags::{self, Written},
    target::{Target, last_part},
};
use crate::{fleet::FleetObservation, identity::Identity};

/// How every deployment of the ECS service scheduler is called, and what such a deployment starts tasks by.
const DEPLOYMENT: &str = "ecs-svc/";
/// The longest hold that ECS grants, in minutes: `expiresInMinutes` of `UpdateTaskProtection` goes up to 48 hours.
pub(super) const LONGEST_HOLD_MINUTES: i32 = 2880;
const LONGEST_HOLD: SignedDuration = SignedDuration::from_mins(LONGEST_HOLD_MINUTES as i64);
/// What ECS assumes where a service does not say (`DeploymentConfiguration`).
const DEFAULT_MINIMUM_PERCENT: i32 = 100;
const DEFAULT_MAXIMUM_PERCENT: i32 = 200;

/// What is needed of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServiceFacts {
    /// Its name, whether it was asked for by name or by ARN.
    pub(super) service: String,
    pub(super) service_arn: String,
    pub(super) cluster_arn: String,
    made_at: Option<Timestamp>,
    desired: u32,
    minimum_healthy_percent: u32,
    maximum_percent: u32,
    current: RevisionId,
    revisions: BTreeMap<RevisionId, Revision>,
    /// ECS says of the current deployment that it is not `COMPLETED`: it may still fail and be rolled back (`rolloutState`,
    /// `Deployment` in the API reference).
    is_rolling_out: bool,
    /// The scheduler moves tasks from Availability Zones with many to those with few.
    balances_zones: bool,
    /// `runningCount` and `pendingCount`.
    counted: Counted,
    /// The tag that says how many workers a task has. `None`: tags could not be read.
    tag: Option<Written>,
}

impl ServiceFacts {
    /// Whether the service itself lists this deployment.
    pub(super) fn lists(&self, revision: &RevisionId) -> bool {
        self.revisions.contains_key(revision)
    }

    /// The same, with so many tasks that are being stopped and may be counted still.
    pub(super) fn stopping_too(mut self, tasks: usize) -> Self {
        self.counted.stopping = u32::try_from(tasks).unwrap_or(u32::MAX);
        self
    }

    /// When the current deployment was made.
    pub(super) fn current_since(&self) -> Option<Timestamp> {
        self.revisions.get(&self.current).and_then(|revision| revision.created_at)
    }
}

/// What ECS calls the service that it was asked for. A failure names the ARN that was looked for, account and Region
/// included ("API failures messages" in the developer guide).
pub(super) fn named(answer: &DescribeServicesOutput) -> Named {
    match answer.services().first().and_then(Service::service_arn).filter(|arn| !arn.is_empty()) {
        Some(arn) => Named::Service(arn.to_owned()),
        None => Named::Missing(answer.failures().first().and_then(|failure| failure.arn()).map(ToOwned::to_owned)),
    }
}

/// Reads the service, with its tags or without. Errors: there is none, or it is of a kind whose tasks cannot be held.
pub(super) fn service(
    target: &Target,
    answer: &DescribeServicesOutput,
    has_tags: bool,
) -> Result<ServiceFacts, Failure> {
    let Some(service) = answer.services().first() else {
        return match answer.failures().first().and_then(|failure| failure.reason()) {
            Some("MISSING") | None => Err(target.no_service()),
            Some(reason) => Err(half(target, &format!("it failed to describe the service: {reason}"))),
        };
    };
    if service.status() == Some("INACTIVE") {
        return Err(target.no_service());
    }
    fits(target, service)?;
    let revisions = service.deployments().iter().filter_map(|deployment| {
        let revision = Revision {
            label: last_part(deployment.task_definition().unwrap_or_default()).to_owned(),
            created_at: deployment.created_at().and_then(timestamp),
        };
        Some((RevisionId::from(deployment.id()?), revision))
    });
    let primary = service.deployments().iter().find(|deployment| deployment.status() == Some("PRIMARY"));
    let is_rolling_out =
        primary.and_then(Deployment::rollout_state).is_some_and(|state| *state != DeploymentRolloutState::Completed);
    let current = primary
        .and_then(|deployment| deployment.id())
        .ok_or_else(|| half(target, "the service has no PRIMARY deployment at this moment"))?;
    let configuration = service.deployment_configuration();
    let minimum =
        configuration.and_then(DeploymentConfiguration::minimum_healthy_percent).unwrap_or(DEFAULT_MINIMUM_PERCENT);
    let maximum = configuration.and_then(DeploymentConfiguration::maximum_percent).unwrap_or(DEFAULT_MAXIMUM_PERCENT);
    Ok(ServiceFacts {
        service: service.service_name().unwrap_or_else(|| last_part(&target.service)).to_owned(),
        service_arn: service.service_arn().unwrap_or_default().to_owned(),
        cluster_arn: service.cluster_arn().unwrap_or_default().to_owned(),
        made_at: service.created_at().and_then(timestamp),
        desired: count(service.desired_count()),
        minimum_healthy_percent: count(minimum),
        maximum_percent: count(maximum),
        current: RevisionId::from(current),
        revisions: revisions.collect(),
        is_rolling_out,
        balances_zones: service.availability_zone_rebalancing() == Some(&AvailabilityZoneRebalancing::Enabled),
        counted: Counted {
            running: count(service.running_count()),
            starting: count(service.pending_count()),
            stopping: 0,
        },
        tag: has_tags.then(|| tags::written(service)),
    })
}

/// Only a replica service that ECS's own scheduler rolls out has deployments whose tasks can be held one by one.
fn fits(target: &Target, service: &Service) -> Result<(), Failure> {
    let controller = service.deployment_controller().map(DeploymentController::r#type);
    if let Some(other) = controller.filter(|kind| **kind != DeploymentControllerType::Ecs) {
        return Err(Failure::new(
            FailureKind::Invalid,
            format!(
                "{} is deployed by {}: its tasks belong to task sets, and the ECS service scheduler does not choose which \
                 of them stop. worker-drain needs a service with the deployment controller ECS",
                target.label(),
                other.as_str()
            ),
        ));
    }
    let strategy = service.deployment_configuration().and_then(DeploymentConfiguration::strategy);
    if let Some(other) = strategy.filter(|strategy| **strategy != DeploymentStrategy::Rolling) {
        return Err(Failure::new(
            FailureKind::Invalid,
            format!(
                "{} has the deployment strategy {}: old and new tasks run side by side for its bake time, and ECS wants the old \
                 ones back if it rolls back in it. When that time is over ECS does not tell, and it holds no more tasks than \
                 are desired, so one side's jobs could not be kept. Nothing is done. worker-drain needs the strategy ROLLING \
                 (`aws ecs update-service --deployment-configuration strategy=ROLLING`); its circuit breaker rolls back, too",
                target.label(),
                other.as_str()
            ),
        ));
    }
    if service.scheduling_strategy() == Some(&SchedulingStrategy::Daemon) {
        return Err(Failure::new(
            FailureKind::Invalid,
            format!(
                "{} has the scheduling strategy DAEMON: a deployment stops its task on each instance before it starts the \
                 next one there, so nothing can take over from it. worker-drain needs the strategy REPLICA",
                target.label()
            ),
        ));
    }
    Ok(())
}

/// Tasks that were asked for by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Described {
    pub(super) tasks: BTreeMap<TaskId, EcsTask>,
    /// Those that ECS no longer knows.
    pub(super) missing: BTreeSet<TaskId>,
    /// Those that ECS lists for the service although they name no deployment of it, with why they cannot be placed.
    pub(super) unplaced: BTreeMap<TaskId, Unplaced>,
}

/// Reads tasks. Errors: ECS left out one that it was asked for, or failed to read it for another reason than that it is
/// gone.
pub(super) fn described(
    target: &Target,
    asked: &BTreeSet<TaskId>,
    answers: &[DescribeTasksOutput],
) -> Result<Described, Failure> {
    let mut described = Described::default();
    for task in answers.iter().flat_map(DescribeTasksOutput::tasks) {
        if let Some(arn) = task.task_arn() {
            described.tasks.insert(TaskId::from(arn), task.clone());
        }
    }
    let reasons: BTreeMap<&str, &str> = answers
        .iter()
        .flat_map(DescribeTasksOutput::failures)
        .filter_map(|failure| Some((last_part(failure.arn()?), failure.reason().unwrap_or("no reason given"))))
        .collect();
    for task in asked.iter().filter(|task| !described.tasks.contains_key(*task)) {
        match reasons.get(task.short()) {
            Some(&"MISSING") => described.missing.insert(task.clone()),
            Some(reason) => {
                return Err(half(target, &format!("it failed to describe task {}: {reason}", task.short())));
            }
            None => return Err(half(target, &format!("it left out task {}, which it was asked for", task.short()))),
        };
    }
    Ok(described)
}

/// Whether a task's ARN is of this cluster. ARNs in the format of before 2018 name no cluster; then account and Region
/// must do ("Amazon Resource Names (ARNs) and IDs" in the developer guide).
pub(super) fn is_of_cluster(cluster_arn: &str, task: &TaskId) -> bool {
    let Some((place, cluster)) = cluster_arn.split_once(":cluster/") else { return true };
    let rest = task.as_str().strip_prefix(place).and_then(|rest| rest.strip_prefix(":task/"));
    rest.is_some_and(|rest| rest.split_once('/').is_none_or(|(its, _)| its == cluster))
}

/// Whether this task is one of the service's own, started by one of its deployments.
pub(super) fn is_ours(service: &ServiceFacts, task: &EcsTask) -> bool {
    let group = task.group().and_then(|group| group.strip_prefix("service:"));
    group == Some(service.service.as_str()) && task.started_by().is_some_and(|by| by.starts_with(DEPLOYMENT))
}

/// Why a task that ECS lists for the service cannot be placed, as an observation tells it.
pub(super) fn unplaced(service: &ServiceFacts, task: &EcsTask) -> Unplaced {
    let group = task.group().unwrap_or_default();
    let why = if group.strip_prefix("service:") == Some(service.service.as_str()) {
        format!(
            "it was started by {:?} and not by a deployment of the ECS service ({DEPLOYMENT}…), so its revision is not known",
            task.started_by().unwrap_or_default()
        )
    } else {
        format!("ECS lists it for the service {}, and its group is {group:?}", service.service)
    };
    let way_out =
        "look at it with `aws ecs describe-tasks`, and stop it when its jobs have ended: ECS starts another one";
    Unplaced { life: life(task), why: format!("{why}; {way_out}") }
}

/// Reads holds. A task that is not in the result could not be read.
pub(super) fn holds<'a>(answers: impl IntoIterator<Item = &'a GetTaskProtectionOutput>) -> BTreeMap<TaskId, HoldState> {
    let mut holds = BTreeMap::new();
    for protected in answers.into_iter().flat_map(GetTaskProtectionOutput::protected_tasks) {
        let hold = match (protected.protection_enabled(), protected.expiration_date().and_then(timestamp)) {
            (false, _) => HoldState::Free,
            (true, Some(until)) => HoldState::Until(until),
            (true, None) => HoldState::Unread,
        };
        if let Some(arn) = protected.task_arn() {
            holds.insert(TaskId::from(arn), hold);
        }
    }
    holds
}

/// Puts one observation together. `described` holds nothing but this service's tasks.
///
/// A task that ECS no longer knows has no revision that could be read: its revision is the empty name.
pub(super) fn join(
    target: &Target,
    service: ServiceFacts,
    described: &Described,
    holds: &BTreeMap<TaskId, HoldState>,
    instances: &Instances,
) -> FleetObservation {
    let ServiceFacts {
        made_at,
        desired,
        minimum_healthy_percent,
        maximum_percent,
        current,
        mut revisions,
        counted,
        balances_zones,
        tag,
        ..
    } = service;
    let (tasks, identities) = tasks(described, holds, instances, &mut revisions);
    let unread = tag.is_none().then(|| tags::UNREAD.to_owned());
    let remembered = tag.map(|tag| tags::remembered(tag, &revisions));
    let view = FleetView {
        name: target.label(),
        made_at,
        desired,
        minimum_healthy_percent,
        maximum_percent,
        current,
        revisions,
        tasks,
        longest_hold: LONGEST_HOLD,
        unplaced: described.unplaced.clone(),
        counted: Some(counted),
        balances_zones,
        unread: instances.unread.iter().cloned().chain(unread).collect(),
        is_rolling_out: service.is_rolling_out,
        is_deleted: false,
        remembered,
    };
    FleetObservation { view, identities }
}

/// What is left of a service that was deleted.
pub(super) fn deleted(target: &Target, described: &Described) -> FleetObservation {
    let mut revisions = BTreeMap::new();
    let (tasks, identities) = tasks(described, &BTreeMap::new(), &Instances::default(), &mut revisions);
    FleetObservation { view: FleetView::deleted(target.label(), revisions, tasks, LONGEST_HOLD), identities }
}

/// Reads tasks, with what each that has not ended is known by. Revisions of them that are not known yet are added.
fn tasks(
    described: &Described,
    holds: &BTreeMap<TaskId, HoldState>,
    instances: &Instances,
    revisions: &mut BTreeMap<RevisionId, Revision>,
) -> (BTreeMap<TaskId, Task>, BTreeMap<TaskId, Identity>) {
    let mut tasks = BTreeMap::new();
    let mut identities = BTreeMap::new();
    for (id, task) in &described.tasks {
        let revision = RevisionId::from(task.started_by().unwrap_or_default());
        revisions.entry(revision.clone()).or_insert_with(|| Revision {
            label: last_part(task.task_definition_arn().unwrap_or_default()).to_owned(),
            created_at: None,
        });
        let (life, started_at) = (life(task), task.started_at().and_then(timestamp));
        if !has_ended(&life) {
            identities.insert(id.clone(), identity(task));
        }
        let hold = holds.get(id).copied().unwrap_or(HoldState::Unread);
        let zone = task.availability_zone().map(ToOwned::to_owned);
        let (displaced, alike) = (instances.displaced(task), alike(task));
        tasks.insert(id.clone(), Task { revision, life, started_at, hold, displaced, zone, alike });
    }
    for id in &described.missing {
        let task = Task {
            revision: RevisionId::default(),
            life: Life::Missing,
            started_at: None,
            hold: HoldState::Unread,
            displaced: Displaced::No,
            zone: None,
            alike: Vec::new(),
        };
        tasks.insert(id.clone(), task);
    }
    (tasks, identities)
}

/// Where in its life a task is. `desiredStatus` turns to STOPPED at the moment of the decision, `lastStatus` follows.
pub(super) fn life(task: &EcsTask) -> Life {
    match (task.desired_status(), task.last_status()) {
        (_, Some("STOPPED" | "DELETED")) => {
            Life::Stopped { reason: task.stopped_reason().unwrap_or_default().to_owned(), exit_code: exit_code(task) }
        }
        (Some("STOPPED"), _) | (_, Some("DEACTIVATING" | "STOPPING" | "DEPROVISIONING")) => Life::Stopping,
        (_, Some("RUNNING")) => Life::Running,
        _ => Life::Starting,
    }
}

pub(super) fn has_ended(life: &Life) -> bool {
    matches!(life, Life::Stopped { .. } | Life::Missing)
}

/// What the worker's container exited with. ECS does not say which container is the worker's, so of several the one that
/// went worst speaks: killed (137) before failed before clean.
fn exit_code(task: &EcsTask) -> Option<i32> {
    const KILLED: i32 = 137;
    let codes = task.containers().iter().filter_map(Container::exit_code);
    codes.max_by_key(|code| (*code == KILLED, *code != 0))
}

/// An answer that is less than what was asked for. Asking again may help, so it counts as not having been reached.
pub(super) fn half(target: &Target, what: &str) -> Failure {
    Failure::new(
        FailureKind::Unreachable,
        format!("ECS answered incompletely about {}: {what}. It will be asked again", target.label()),
    )
}

pub(super) fn timestamp(time: &DateTime) -> Option<Timestamp> {
    let nanos = i32::try_from(time.subsec_nanos()).ok()?;
    Timestamp::new(time.secs(), nanos).ok()
}

fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests;
