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
        Container, DeploymentConfiguration, DeploymentController, DeploymentControllerType, SchedulingStrategy,
        Service, Task as EcsTask,
    },
};
use jiff::{SignedDuration, Timestamp};
use worker_drain_plan::{
    RevisionId, TaskId,
    observation::{Failure, FailureKind, FleetView, HoldState, Life, Revision, Task},
};

use super::{LONGEST_HOLD_MINUTES, Target, identity::identity};
use crate::fleet::FleetLook;

/// How every deployment of the ECS service scheduler is called, and what such a deployment starts tasks by.
const DEPLOYMENT: &str = "ecs-svc/";
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
    desired: u32,
    minimum_healthy_percent: u32,
    maximum_percent: u32,
    current: RevisionId,
    revisions: BTreeMap<RevisionId, Revision>,
}

impl ServiceFacts {
    /// Whether the service itself lists this deployment.
    pub(super) fn lists(&self, revision: &RevisionId) -> bool {
        self.revisions.contains_key(revision)
    }

    /// When the current deployment was made.
    pub(super) fn current_since(&self) -> Option<Timestamp> {
        self.revisions.get(&self.current).and_then(|revision| revision.created_at)
    }
}

/// Reads the service. Errors: there is none, or it is of a kind whose tasks cannot be held.
pub(super) fn service(target: &Target, answer: &DescribeServicesOutput) -> Result<ServiceFacts, Failure> {
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
        desired: count(service.desired_count()),
        minimum_healthy_percent: count(minimum),
        maximum_percent: count(maximum),
        current: RevisionId::from(current),
        revisions: revisions.collect(),
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
    /// Those that ECS says it knows no more.
    pub(super) missing: BTreeSet<TaskId>,
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

/// Puts one look together. `described` holds nothing but this service's tasks.
///
/// A task that ECS knows no more has no revision that could be read: its revision is the empty name.
pub(super) fn look(
    target: &Target,
    service: ServiceFacts,
    described: &Described,
    holds: &BTreeMap<TaskId, HoldState>,
) -> FleetLook {
    let ServiceFacts { desired, minimum_healthy_percent, maximum_percent, current, mut revisions, .. } = service;
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
        tasks.insert(id.clone(), Task { revision, life, started_at, hold });
    }
    for id in &described.missing {
        let task =
            Task { revision: RevisionId::default(), life: Life::Missing, started_at: None, hold: HoldState::Unread };
        tasks.insert(id.clone(), task);
    }
    let view = FleetView {
        name: target.label(),
        desired,
        minimum_healthy_percent,
        maximum_percent,
        current,
        revisions,
        tasks,
        longest_hold: SignedDuration::from_mins(i64::from(LONGEST_HOLD_MINUTES)),
    };
    FleetLook { view, identities }
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
        format!("ECS did not tell all of {}: {what}. It will be asked again", target.label()),
    )
}

/// The name at the end of an ARN, or the name itself: what follows the last `/`.
pub(super) fn last_part(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

pub(super) fn timestamp(time: &DateTime) -> Option<Timestamp> {
    let nanos = i32::try_from(time.subsec_nanos()).ok()?;
    Timestamp::new(time.secs(), nanos).ok()
}

fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use aws_sdk_ecs::types::{Deployment, Failure as EcsFailure, ProtectedTask};
    use rstest::rstest;

    use super::*;

    const CLUSTER: &str = "arn:aws:ecs:eu-west-1:123456789012:cluster/media";

    fn target() -> Target {
        Target {
            cluster: "media".into(),
            service: "transcoder".into(),
            region: "eu-west-1".into(),
            role_arn: None,
            profile: None,
            endpoint: None,
        }
    }

    fn arn(number: u32) -> String {
        format!("arn:aws:ecs:eu-west-1:123456789012:task/media/{number:032x}")
    }

    fn deployment(id: &str, status: &str, definition: &str) -> Deployment {
        Deployment::builder()
            .id(id)
            .status(status)
            .task_definition(format!("arn:aws:ecs:eu-west-1:123456789012:task-definition/{definition}"))
            .created_at(DateTime::from_secs(1_700_000_000))
            .build()
    }

    fn a_service() -> aws_sdk_ecs::types::builders::ServiceBuilder {
        Service::builder()
            .service_name("transcoder")
            .cluster_arn(CLUSTER)
            .status("ACTIVE")
            .desired_count(3)
            .deployments(deployment("ecs-svc/2", "PRIMARY", "transcoder:42"))
            .deployments(deployment("ecs-svc/1", "ACTIVE", "transcoder:42"))
    }

    fn answer(service: Service) -> DescribeServicesOutput {
        DescribeServicesOutput::builder().services(service).build()
    }

    fn facts() -> ServiceFacts {
        service(&target(), &answer(a_service().build())).unwrap()
    }

    fn a_task(number: u32) -> aws_sdk_ecs::types::builders::TaskBuilder {
        EcsTask::builder()
            .task_arn(arn(number))
            .group("service:transcoder")
            .started_by("ecs-svc/1")
            .desired_status("RUNNING")
            .last_status("RUNNING")
            .task_definition_arn("arn:aws:ecs:eu-west-1:123456789012:task-definition/transcoder:41")
            .started_at(DateTime::from_secs_and_nanos(1_700_000_100, 5_000_000))
    }

    fn asked(numbers: &[u32]) -> BTreeSet<TaskId> {
        numbers.iter().map(|number| TaskId::from(arn(*number))).collect()
    }

    #[test]
    fn the_current_revision_is_the_primary_deployment_whatever_its_task_definition() {
        let facts = facts();
        assert_eq!(facts.current, RevisionId::from("ecs-svc/2"));
        assert_eq!(facts.revisions.len(), 2, "two revisions may share a task definition");
        assert_eq!(facts.revisions[&"ecs-svc/1".into()].label, "transcoder:42");
        assert_eq!(facts.revisions[&"ecs-svc/1".into()].created_at, Timestamp::from_second(1_700_000_000).ok());
        assert_eq!((facts.desired, facts.minimum_healthy_percent, facts.maximum_percent), (3, 100, 200));
    }

    #[test]
    fn the_services_own_limits_are_read() {
        let limits = DeploymentConfiguration::builder().minimum_healthy_percent(50).maximum_percent(150).build();
        let facts = service(&target(), &answer(a_service().deployment_configuration(limits).build())).unwrap();
        assert_eq!((facts.minimum_healthy_percent, facts.maximum_percent), (50, 150));
    }

    #[rstest]
    #[case::inactive(a_service().status("INACTIVE").build(), FailureKind::NotFound, "fleet.ecs.service")]
    #[case::code_deploy(
        a_service().deployment_controller(controller(DeploymentControllerType::CodeDeploy)).build(),
        FailureKind::Invalid, "CODE_DEPLOY"
    )]
    #[case::external(
        a_service().deployment_controller(controller(DeploymentControllerType::External)).build(),
        FailureKind::Invalid, "EXTERNAL"
    )]
    #[case::daemon(
        a_service().scheduling_strategy(SchedulingStrategy::Daemon).build(), FailureKind::Invalid, "DAEMON"
    )]
    #[case::no_primary(
        Service::builder().status("ACTIVE").deployments(deployment("ecs-svc/1", "ACTIVE", "t:1")).build(),
        FailureKind::Unreachable, "no PRIMARY"
    )]
    fn a_service_that_does_not_fit_is_told(#[case] of: Service, #[case] kind: FailureKind, #[case] says: &str) {
        let failure = service(&target(), &answer(of)).unwrap_err();
        assert_eq!(failure.kind, kind, "{failure:?}");
        assert!(failure.message.contains(says) && failure.message.contains("transcoder"), "{failure:?}");
    }

    fn controller(kind: DeploymentControllerType) -> DeploymentController {
        DeploymentController::builder().r#type(kind).build().unwrap()
    }

    #[rstest]
    #[case(Some("MISSING"), FailureKind::NotFound)]
    #[case(Some("SOMETHING_NEW"), FailureKind::Unreachable)]
    #[case(None, FailureKind::NotFound)]
    fn a_service_that_is_not_answered_is_told(#[case] reason: Option<&str>, #[case] kind: FailureKind) {
        let failure = reason.map(|reason| EcsFailure::builder().arn("transcoder").reason(reason).build());
        let answer = DescribeServicesOutput::builder().set_failures(failure.map(|failure| vec![failure])).build();
        assert_eq!(service(&target(), &answer).unwrap_err().kind, kind);
    }

    #[test]
    fn only_missing_is_missing() {
        let gone = |reason: &str| {
            let failure = EcsFailure::builder().arn(arn(2)).reason(reason).build();
            DescribeTasksOutput::builder().tasks(a_task(1).build()).failures(failure).build()
        };
        let read = described(&target(), &asked(&[1, 2]), &[gone("MISSING")]).unwrap();
        assert_eq!(read.missing, asked(&[2]));
        assert_eq!(read.tasks.into_keys().collect::<BTreeSet<_>>(), asked(&[1]));
        let failure = described(&target(), &asked(&[1, 2]), &[gone("INTERNAL")]).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unreachable);
        assert!(failure.message.contains("INTERNAL"), "{failure:?}");
    }

    #[test]
    fn an_answer_that_leaves_a_task_out_is_not_passed_off_as_whole() {
        let answer = DescribeTasksOutput::builder().tasks(a_task(1).build()).build();
        let failure = described(&target(), &asked(&[1, 2]), &[answer]).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unreachable);
        assert!(failure.message.contains("left out task"), "{failure:?}");
    }

    #[rstest]
    #[case("arn:aws:ecs:eu-west-1:123456789012:task/media/0af3", true)]
    #[case("arn:aws:ecs:eu-west-1:123456789012:task/0af3", true)]
    #[case("arn:aws:ecs:eu-west-1:123456789012:task/staging/0af3", false)]
    #[case("arn:aws:ecs:us-east-1:123456789012:task/media/0af3", false)]
    #[case("arn:aws:ecs:eu-west-1:210987654321:task/media/0af3", false)]
    #[case("0af3", false)]
    fn a_task_of_another_place_is_told_by_its_arn(#[case] task: &str, #[case] here: bool) {
        assert_eq!(is_of_cluster(CLUSTER, &TaskId::from(task)), here);
    }

    #[rstest]
    #[case(a_task(1), true)]
    #[case(a_task(1).group("service:transcoder-2"), false)]
    #[case(a_task(1).group("family:transcoder"), false)]
    #[case(a_task(1).started_by("a person"), false)]
    #[case(a_task(1).set_started_by(None), false)]
    fn a_task_is_ours_if_a_deployment_of_the_service_started_it(
        #[case] task: aws_sdk_ecs::types::builders::TaskBuilder,
        #[case] ours: bool,
    ) {
        assert_eq!(is_ours(&facts(), &task.build()), ours);
    }

    #[rstest]
    #[case("RUNNING", "PROVISIONING", Life::Starting)]
    #[case("RUNNING", "PENDING", Life::Starting)]
    #[case("RUNNING", "ACTIVATING", Life::Starting)]
    #[case("RUNNING", "RUNNING", Life::Running)]
    #[case("STOPPED", "RUNNING", Life::Stopping)]
    #[case("STOPPED", "PENDING", Life::Stopping)]
    #[case("STOPPED", "DEACTIVATING", Life::Stopping)]
    #[case("RUNNING", "STOPPING", Life::Stopping)]
    #[case("STOPPED", "DEPROVISIONING", Life::Stopping)]
    #[case("STOPPED", "STOPPED", Life::Stopped { reason: "Scaling activity".into(), exit_code: Some(137) })]
    #[case("RUNNING", "A_NEW_STATE", Life::Starting)]
    fn life_follows_the_decision_and_then_the_state(#[case] desired: &str, #[case] last: &str, #[case] expected: Life) {
        let container = |code: i32| Container::builder().exit_code(code).build();
        let task = a_task(1).desired_status(desired).last_status(last).stopped_reason("Scaling activity");
        let task = task.containers(container(0)).containers(container(137)).containers(container(255)).build();
        assert_eq!(life(&task), expected);
    }

    #[test]
    fn a_hold_that_was_not_told_is_unread() {
        let of = |number: u32, enabled: bool, until: Option<i64>| {
            let until = until.map(DateTime::from_secs);
            let task = ProtectedTask::builder().task_arn(arn(number)).protection_enabled(enabled);
            task.set_expiration_date(until).build()
        };
        let answer = GetTaskProtectionOutput::builder()
            .protected_tasks(of(1, true, Some(1_700_007_200)))
            .protected_tasks(of(2, false, None))
            .protected_tasks(of(3, true, None))
            .failures(EcsFailure::builder().arn(arn(4)).reason("TASK_NOT_VALID").build())
            .build();
        let tasks = (1..=5).map(|number| (arn(number).into(), a_task(number).build())).collect();
        let look = look(&target(), facts(), &Described { tasks, ..Described::default() }, &holds([&answer]));
        let hold = |number: u32| look.view.tasks[&TaskId::from(arn(number))].hold;
        assert_eq!(hold(1), HoldState::Until(Timestamp::from_second(1_700_007_200).unwrap()));
        assert_eq!(hold(2), HoldState::Free);
        for number in 3..=5 {
            assert_eq!(hold(number), HoldState::Unread);
        }
    }

    #[test]
    fn a_look_tells_of_every_task_and_every_revision_that_one_names() {
        let running = a_task(1).started_by("ecs-svc/0").build();
        let ended = a_task(2).last_status("STOPPED").stopped_reason("bye").build();
        let described =
            Described { tasks: [(arn(1).into(), running), (arn(2).into(), ended)].into(), missing: asked(&[3]) };
        let look = look(&target(), facts(), &described, &BTreeMap::new());
        assert_eq!(look.view.name, "media/transcoder");
        assert_eq!(look.view.longest_hold, SignedDuration::from_hours(48));
        let revision = &look.view.revisions[&"ecs-svc/0".into()];
        assert_eq!((revision.label.as_str(), revision.created_at), ("transcoder:41", None));
        let task = |number: u32| &look.view.tasks[&TaskId::from(arn(number))];
        assert_eq!(task(1).started_at, "2023-11-14T22:15:00.005Z".parse().ok());
        assert_eq!(task(2).life, Life::Stopped { reason: "bye".into(), exit_code: None });
        assert_eq!(task(3).life, Life::Missing);
        assert_eq!(look.identities.into_keys().collect::<BTreeSet<_>>(), asked(&[1]), "only those that have not ended");
    }
}
