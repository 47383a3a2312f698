//! What is made of ECS's answers.

use aws_sdk_ecs::types::{Deployment, Failure as EcsFailure, ProtectedTask};
use rstest::rstest;

use super::*;
use crate::aws::Reach;

const CLUSTER: &str = "arn:aws:ecs:eu-west-1:123456789012:cluster/media";

fn target() -> Target {
    Target {
        cluster: "media".into(),
        service: "transcoder".into(),
        reach: Reach { region: "eu-west-1".into(), role_arn: None, profile: None, endpoint: None },
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
    service(&target(), &answer(a_service().build()), true).unwrap()
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

/// What ECS may still take back is not in place; where it does not tell, it cannot take it back either.
#[rstest]
#[case(Some(DeploymentRolloutState::InProgress), true)]
#[case(Some(DeploymentRolloutState::Failed), true)]
#[case(Some(DeploymentRolloutState::Completed), false)]
#[case(None, false)]
fn the_current_deployment_is_in_place_when_it_is_completed(
    #[case] state: Option<DeploymentRolloutState>,
    #[case] expected: bool,
) {
    let primary = Deployment::builder().id("ecs-svc/2").status("PRIMARY").set_rollout_state(state).build();
    let answer = answer(a_service().set_deployments(Some(vec![primary])).build());
    assert_eq!(service(&target(), &answer, true).unwrap().is_rolling_out, expected);
}

#[test]
fn the_services_own_limits_are_read() {
    let limits = DeploymentConfiguration::builder().minimum_healthy_percent(50).maximum_percent(150).build();
    let facts = service(&target(), &answer(a_service().deployment_configuration(limits).build()), true).unwrap();
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
#[case::blue_green(with_strategy("BLUE_GREEN"), FailureKind::Invalid, "strategy BLUE_GREEN")]
#[case::one_that_is_not_known_yet(with_strategy("RAINBOW"), FailureKind::Invalid, "strategy RAINBOW")]
#[case::no_primary(
    Service::builder().status("ACTIVE").deployments(deployment("ecs-svc/1", "ACTIVE", "t:1")).build(),
    FailureKind::Unreachable, "no PRIMARY"
)]
fn a_service_that_does_not_fit_is_told(#[case] of: Service, #[case] kind: FailureKind, #[case] says: &str) {
    let failure = service(&target(), &answer(of), true).unwrap_err();
    assert_eq!(failure.kind, kind, "{failure:?}");
    assert!(failure.message.contains(says) && failure.message.contains("transcoder"), "{failure:?}");
}

fn with_strategy(strategy: &str) -> Service {
    let configuration = DeploymentConfiguration::builder().strategy(DeploymentStrategy::from(strategy)).build();
    a_service().deployment_configuration(configuration).build()
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
    assert_eq!(service(&target(), &answer, true).unwrap_err().kind, kind);
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
    let seen = join(
        &target(),
        facts(),
        &Described { tasks, ..Described::default() },
        &holds([&answer]),
        &Instances::default(),
    );
    let hold = |number: u32| seen.view.tasks[&TaskId::from(arn(number))].hold;
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
    let described = Described {
        tasks: [(arn(1).into(), running), (arn(2).into(), ended)].into(),
        missing: asked(&[3]),
        ..Described::default()
    };
    let seen = join(&target(), facts(), &described, &BTreeMap::new(), &Instances::default());
    assert_eq!(seen.view.name, "media/transcoder");
    assert_eq!(seen.view.longest_hold, SignedDuration::from_hours(48));
    let revision = &seen.view.revisions[&"ecs-svc/0".into()];
    assert_eq!((revision.label.as_str(), revision.created_at), ("transcoder:41", None));
    let task = |number: u32| &seen.view.tasks[&TaskId::from(arn(number))];
    assert_eq!(task(1).started_at, "2023-11-14T22:15:00.005Z".parse().ok());
    assert_eq!(task(2).life, Life::Stopped { reason: "bye".into(), exit_code: None });
    assert_eq!(task(3).life, Life::Missing);
    assert_eq!(seen.identities.into_keys().collect::<BTreeSet<_>>(), asked(&[1]), "only those that have not ended");
}

#[test]
fn a_task_that_cannot_be_placed_says_why() {
    for (group, by, part) in [
        ("service:transcoder", Some("batch"), "started by \"batch\""),
        ("service:transcoder", None, "started by \"\""),
        ("family:transcoder", Some("ecs-svc/2"), "its group is \"family:transcoder\""),
    ] {
        let task =
            EcsTask::builder().group(group).set_started_by(by.map(ToOwned::to_owned)).last_status("RUNNING").build();
        let unplaced = unplaced(&facts(), &task);
        assert_eq!(unplaced.life, Life::Running);
        assert!(unplaced.why.contains(part), "{}", unplaced.why);
    }
}
