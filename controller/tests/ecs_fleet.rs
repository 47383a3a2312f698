//! The ECS fleet against the emulator's API: what is seen, what is held, and what is said when something is in the way.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use ecs_emulator::{
    Config, Emulator,
    model::{BlockedRenewal, BlockedRule, CallFault, ContainerDefinition, CreateService, Faults, UpdateService},
};
use futures::future::join_all;
use jiff::SignedDuration;
use serde_json::Map;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use worker_drain::{
    clock::SystemClock,
    fleet::{
        Fleet, FleetLook,
        ecs::{EcsFleet, EcsSettings, Limiters, Operation, Timeouts},
    },
};
use worker_drain_plan::{
    Outcome, TaskId,
    observation::{Failure, FailureKind, HoldState, Life},
};

/// A bound for what should take seconds; a busy machine may need much longer.
const PATIENCE: Duration = Duration::from_mins(2);
const TWO_HOURS: SignedDuration = SignedDuration::from_hours(2);

/// An emulator with one service, and the fleet that looks at it.
struct Stage {
    emulator: Emulator,
    fleet: EcsFleet,
    limiters: Limiters,
    _logs: TempDir,
}

fn settings() -> EcsSettings {
    EcsSettings { cluster: "media".to_owned(), service: "transcoder".to_owned(), ..EcsSettings::default() }
}

async fn connect(endpoint: &str, settings: EcsSettings, limiters: &Limiters) -> EcsFleet {
    let config = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .endpoint_url(endpoint)
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new("AKIDEXAMPLE", "secret", None, None, "test"))
        .load()
        .await;
    EcsFleet::with_config(settings, &config, limiters, Arc::new(SystemClock)).unwrap()
}

impl Stage {
    /// A service of `desired` tasks, whose containers are only pretended.
    async fn with(desired: u32) -> Self {
        let logs = tempfile::tempdir().unwrap();
        let mut config = Config::fast(logs.path());
        config.knobs.blocked_renewal = BlockedRenewal::Allow;
        let emulator = Emulator::start(config).await.unwrap();
        let now = emulator.now();
        emulator.with_world(|world| {
            world.create_cluster("media", now).unwrap();
            let containers = vec![ContainerDefinition::new("worker", &[])];
            world.register_task_definition("worker", containers, Map::new(), now).unwrap();
            let request = CreateService {
                cluster: "media".to_owned(),
                name: "transcoder".to_owned(),
                task_definition: "worker".to_owned(),
                desired,
                ..CreateService::default()
            };
            world.create_service(&request, now).unwrap();
        });
        let limiters = Limiters::default();
        let fleet = connect(emulator.endpoint(), settings(), &limiters).await;
        Self { emulator, fleet, limiters, _logs: logs }
    }

    /// A new deployment of the same task definition.
    fn deploy(&self) {
        let request = UpdateService {
            cluster: "media".to_owned(),
            service: "transcoder".to_owned(),
            force_new_deployment: true,
            ..UpdateService::default()
        };
        let now = self.emulator.now();
        self.emulator.with_world(|world| world.update_service(&request, now).unwrap());
    }

    fn fail(&self, operation: &str, error: &str, times: Option<u32>) {
        let fault = CallFault {
            error: Some(error.to_owned()),
            message: "for a test".to_owned(),
            times,
            after_effect: false,
            delay: Duration::ZERO,
        };
        self.emulator.set_faults(Faults { fail: [(operation.to_owned(), fault)].into(), ..Faults::default() });
    }

    /// Ends a task as a person might.
    fn stop_task(&self, task: &TaskId) {
        let now = self.emulator.now();
        self.emulator.with_world(|world| world.stop_task("media", task.as_str(), "", now).unwrap());
    }

    /// A task of the same cluster that no service owns.
    fn standalone(&self) -> TaskId {
        let now = self.emulator.now();
        self.emulator.with_world(|world| {
            let task = world.run_task("media", "worker", now).unwrap();
            TaskId::from(world.knobs().task_arn("media", task.id))
        })
    }

    async fn look(&self) -> FleetLook {
        self.fleet.observe(&BTreeSet::new()).await.unwrap()
    }

    async fn failure(&self) -> Failure {
        self.fleet.observe(&BTreeSet::new()).await.unwrap_err()
    }

    /// Looks until what is seen fits.
    async fn look_until(&self, what: &str, tracked: &BTreeSet<TaskId>, fits: impl Fn(&FleetLook) -> bool) -> FleetLook {
        let found = timeout(PATIENCE, async {
            loop {
                let look = self.fleet.observe(tracked).await.unwrap();
                if fits(&look) {
                    return look;
                }
                sleep(Duration::from_millis(100)).await;
            }
        });
        found.await.unwrap_or_else(|_| panic!("never: {what}"))
    }

    /// All of the service's tasks, once so many run.
    async fn running(&self, count: usize) -> Vec<TaskId> {
        let all_run = |look: &FleetLook| {
            look.view.tasks.len() == count && look.view.tasks.values().all(|task| task.life == Life::Running)
        };
        let look = self.look_until("the tasks run", &BTreeSet::new(), all_run).await;
        look.view.tasks.into_keys().collect()
    }

    async fn hold(&self, tasks: &[TaskId]) -> Vec<Outcome> {
        let holds: Vec<_> = tasks.iter().map(|task| (task.clone(), TWO_HOURS)).collect();
        self.fleet.hold(&holds).await
    }
}

fn refused(reason: &str) -> Outcome {
    Outcome::Refused { reason: reason.to_owned() }
}

fn is_held(look: &FleetLook, task: &TaskId) -> bool {
    matches!(look.view.tasks.get(task).map(|task| task.hold), Some(HoldState::Until(_)))
}

#[tokio::test]
async fn a_rollout_is_seen_with_its_holds_and_identities() {
    let stage = Stage::with(2).await;
    let old = stage.running(2).await;
    let asked_at = stage.emulator.now().timestamp();
    assert_eq!(stage.hold(&old).await, [Outcome::Done, Outcome::Done]);
    let before = stage.look().await;
    let limits = (before.view.desired, before.view.minimum_healthy_percent, before.view.maximum_percent);
    assert_eq!((before.view.name.as_str(), limits), ("media/transcoder", (2, 100, 200)));
    let HoldState::Until(until) = before.view.tasks[&old[0]].hold else { panic!("{before:?}") };
    let lasting = until.duration_since(asked_at);
    // Times travel as fractions of a second, so to the millisecond it cannot be told.
    assert!(lasting > SignedDuration::from_mins(119) && lasting < SignedDuration::from_mins(125), "{lasting:#}");

    stage.deploy();
    let four_run = |look: &FleetLook| look.view.tasks.values().filter(|task| task.life == Life::Running).count() == 4;
    let look = stage.look_until("new tasks run beside the old ones", &BTreeSet::new(), four_run).await;
    assert_ne!(look.view.current, before.view.current);
    assert_eq!(look.view.revisions[&look.view.current].label, "worker:1");
    for (id, task) in &look.view.tasks {
        assert_eq!(task.revision == before.view.current, old.contains(id), "old is who was there before");
        assert_eq!(is_held(&look, id), old.contains(id));
        assert!(task.started_at.is_some());
        let identity = &look.identities[id];
        assert_eq!(identity.containers[0].name, "worker");
        assert!(identity.containers[0].runtime_id.is_some());
        assert!(!identity.host_names.is_empty() && !identity.addresses.is_empty(), "{identity:?}");
    }
    stage.emulator.stop().await;
}

#[tokio::test]
async fn a_released_task_is_followed_by_name_until_it_is_forgotten() {
    let stage = Stage::with(1).await;
    let old = stage.running(1).await;
    let tracked: BTreeSet<TaskId> = old.iter().cloned().collect();
    stage.hold(&old).await;
    stage.deploy();
    stage.look_until("a new task runs", &tracked, |look| look.view.tasks.len() == 2).await;
    assert_eq!(stage.fleet.release(&old).await, [Outcome::Done]);
    let has_ended = |look: &FleetLook| matches!(look.view.tasks[&old[0]].life, Life::Stopped { .. });
    let look = stage.look_until("the old task ends", &tracked, has_ended).await;
    let Life::Stopped { reason, .. } = &look.view.tasks[&old[0]].life else { panic!("{look:?}") };
    assert!(reason.contains(look.view.tasks[&old[0]].revision.as_str()), "{reason}");
    assert!(!look.identities.contains_key(&old[0]), "it owns no name any more");
    assert!(!stage.look().await.view.tasks.contains_key(&old[0]), "nobody tracks it: history");

    // ECS forgets a task after a while.
    stage.emulator.change_knobs(|knobs| knobs.stopped_retention = Duration::from_millis(100));
    let young = stage.running(1).await.remove(0);
    stage.stop_task(&young);
    let tracked = BTreeSet::from([young.clone()]);
    let is_missing = |look: &FleetLook| look.view.tasks[&young].life == Life::Missing;
    let look = stage.look_until("ECS knows it no more", &tracked, is_missing).await;
    assert!(!look.identities.contains_key(&young));
    stage.emulator.stop().await;
}

/// ECS's answers may be older than one another. A task of the newest deployment must not be taken for an old one because
/// the service was read too early: its consumers would be cancelled.
#[tokio::test]
async fn a_new_task_is_never_taken_for_an_old_one_by_stale_answers() {
    let stage = Stage::with(2).await;
    let old = stage.running(2).await;
    stage.hold(&old).await;
    stage.emulator.set_faults(Faults { stale_reads: Duration::from_secs(3), ..Faults::default() });
    stage.deploy();
    let newest = stage.emulator.with_world(|world| {
        world.service("media", "transcoder").unwrap().primary().unwrap().id.to_string().as_str().into()
    });
    let settled = timeout(PATIENCE, async {
        loop {
            if let Ok(look) = stage.fleet.observe(&BTreeSet::new()).await {
                let new: Vec<_> = look.view.tasks.values().filter(|task| task.revision == newest).collect();
                assert!(new.is_empty() || look.view.current == newest, "{look:#?}");
                if new.iter().filter(|task| task.life == Life::Running).count() == 2 {
                    return;
                }
            }
        }
    });
    settled.await.unwrap();
    stage.emulator.stop().await;
}

#[tokio::test]
async fn a_blocked_hold_is_refused_for_that_task_only() {
    let stage = Stage::with(2).await;
    stage.emulator.change_knobs(|knobs| knobs.blocked_rule = BlockedRule::Always);
    let old = stage.running(2).await;
    stage.hold(&old).await;
    stage.deploy();
    let new = stage.running(4).await.into_iter().find(|task| !old.contains(task)).unwrap();
    let outcomes = stage.hold(&[old[0].clone(), new.clone(), old[1].clone()]).await;
    assert_eq!(outcomes, [Outcome::Done, refused("DEPLOYMENT_BLOCKED"), Outcome::Done]);
    assert!(!is_held(&stage.look().await, &new));
    stage.emulator.stop().await;
}

#[tokio::test]
async fn tasks_that_cannot_be_held_do_not_spoil_the_batch() {
    let stage = Stage::with(1).await;
    let ours = stage.running(1).await;
    let standalone = stage.standalone();
    let unknown = TaskId::from(ours[0].as_str().replace(ours[0].short(), &"0".repeat(32)));
    let tasks = [standalone.clone(), ours[0].clone(), unknown];
    assert_eq!(stage.hold(&tasks).await, [refused("TASK_NOT_VALID"), Outcome::Done, refused("MISSING")]);
    assert!(!stage.look().await.view.tasks.contains_key(&standalone), "it is no task of the service");

    stage.emulator.set_faults(Faults { empty_protection_answers: true, ..Faults::default() });
    assert_eq!(stage.fleet.release(&ours).await, [refused("ECS left the task out of its answer")]);
    assert_eq!(stage.look().await.view.tasks[&ours[0]].hold, HoldState::Unread, "an empty answer frees nobody");
    stage.emulator.stop().await;
}

#[tokio::test]
async fn a_task_of_another_service_or_account_is_not_taken_for_ours() {
    let stage = Stage::with(1).await;
    let ours = stage.running(1).await;
    let elsewhere = TaskId::from(ours[0].as_str().replace(":123456789012:", ":210987654321:"));
    for (task, says) in
        [(elsewhere, "arn:aws:ecs:us-east-1:123456789012:cluster/media"), (stage.standalone(), "belongs to")]
    {
        let failure = stage.fleet.observe(&BTreeSet::from([task])).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Invalid);
        assert!(failure.message.contains(says), "{failure:?}");
    }
    stage.emulator.stop().await;
}

#[tokio::test]
async fn two_hundred_and_fifty_tasks_take_few_calls() {
    let stage = Stage::with(250).await;
    let tasks = stage.running(250).await;
    let before = stage.fleet.calls().by_operation();
    assert_eq!(stage.hold(&tasks).await, vec![Outcome::Done; 250]);
    let look = stage.look().await;
    assert!(tasks.iter().all(|task| is_held(&look, task)));
    let made = |operation| stage.fleet.calls().of(operation) - before.get(&operation).copied().unwrap_or(0);
    assert_eq!(made(Operation::UpdateTaskProtection), 25);
    assert_eq!(made(Operation::DescribeServices), 1);
    assert_eq!(made(Operation::ListTasks), 4, "three pages of running tasks, one of stopped ones");
    assert_eq!(made(Operation::DescribeTasks), 3);
    assert_eq!(made(Operation::GetTaskProtection), 3);
    stage.emulator.stop().await;
}

#[tokio::test]
async fn tasks_that_ended_long_ago_are_not_read_again() {
    let stage = Stage::with(100).await;
    let tasks = stage.running(100).await;
    stage.stop_task(&tasks[0]);
    let replaced = |look: &FleetLook| look.view.tasks.len() == 100 && !look.view.tasks.contains_key(&tasks[0]);
    stage.look_until("it is replaced", &BTreeSet::new(), replaced).await;
    stage.look().await;
    let described = stage.fleet.calls().of(Operation::DescribeTasks);
    stage.look().await;
    assert_eq!(
        stage.fleet.calls().of(Operation::DescribeTasks),
        described + 1,
        "a hundred in one call, not 101 in two"
    );
    stage.emulator.stop().await;
}

#[tokio::test]
async fn throttling_slows_down_and_then_is_told() {
    let stage = Stage::with(1).await;
    stage.running(1).await;
    let limiter = stage.limiters.of("", "us-east-1");
    let full = limiter.rate_milli(Operation::DescribeServices);
    stage.fail("DescribeServices", "ThrottlingException", Some(1));
    let before = stage.fleet.calls().of(Operation::DescribeServices);
    stage.look().await;
    assert_eq!(stage.fleet.calls().of(Operation::DescribeServices), before + 2, "it was tried again");
    assert!(limiter.rate_milli(Operation::DescribeServices) < full, "the bucket of all drains shrank");

    stage.fail("ListTasks", "ThrottlingException", None);
    let timeouts = Timeouts { operation: Duration::from_secs(1), ..Timeouts::default() };
    let hasty = EcsSettings { timeouts, ..settings() };
    let hasty = connect(stage.emulator.endpoint(), hasty, &stage.limiters).await;
    let failure = hasty.observe(&BTreeSet::new()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Throttled);
    assert!(failure.message.contains("ListTasks for media/transcoder"), "{failure:?}");
    stage.emulator.stop().await;
}

#[tokio::test]
async fn drains_that_share_an_account_slow_down_together_and_none_fails() {
    let stage = Stage::with(1).await;
    let tasks = stage.running(1).await;
    // Far less than the account's limit: somebody else uses it up.
    stage.emulator.set_faults(Faults { throttle: Some(5), ..Faults::default() });
    let (endpoint, nobody) = (stage.emulator.endpoint(), BTreeSet::new());
    let drains = join_all((0..5).map(|_| connect(endpoint, settings(), &stage.limiters))).await;
    let looks = timeout(PATIENCE, join_all(drains.iter().map(|drain| drain.observe(&nobody)))).await.unwrap();
    for look in looks {
        assert!(look.unwrap().view.tasks.contains_key(&tasks[0]));
    }
    stage.emulator.stop().await;
}

#[tokio::test]
async fn errors_of_ecs_itself_are_tried_again_and_then_told() {
    let stage = Stage::with(1).await;
    let tasks = stage.running(1).await;
    stage.fail("*", "ServerException", Some(2));
    stage.look().await;
    stage.fail("GetTaskProtection", "ServerException", None);
    let failure = stage.failure().await;
    assert_eq!(failure.kind, FailureKind::Unreachable, "a look without holds is no look");
    assert!(failure.message.contains("GetTaskProtection") && failure.message.contains("HTTP 500"), "{failure:?}");

    stage.fail("UpdateTaskProtection", "ServerException", Some(1));
    assert_eq!(stage.hold(&tasks).await, [Outcome::Done], "a hold is tried again, too");
    stage.fail("UpdateTaskProtection", "ServerException", None);
    let outcomes = stage.hold(&tasks).await;
    assert!(matches!(&outcomes[..], [Outcome::Failed(failure)] if failure.kind == FailureKind::Unreachable));
    stage.emulator.stop().await;
}

#[tokio::test]
async fn a_batch_that_fails_does_not_keep_the_others_from_being_held() {
    let stage = Stage::with(30).await;
    let tasks = stage.running(30).await;
    stage.fail("UpdateTaskProtection", "AccessDeniedException", Some(1));
    let outcomes = stage.hold(&tasks).await;
    let denied = |outcome: &Outcome| matches!(outcome, Outcome::Failed(failure) if failure.kind == FailureKind::Denied);
    assert!(outcomes[..10].iter().all(denied), "{outcomes:?}");
    assert_eq!(outcomes[10..], vec![Outcome::Done; 20]);
    stage.emulator.stop().await;
}

#[tokio::test]
async fn a_batch_that_is_refused_whole_is_tried_one_by_one() {
    let stage = Stage::with(3).await;
    let tasks = stage.running(3).await;
    stage.fail("UpdateTaskProtection", "InvalidParameterException", Some(2));
    let outcomes = stage.hold(&tasks).await;
    assert!(matches!(&outcomes[0], Outcome::Failed(failure) if failure.kind == FailureKind::Invalid), "{outcomes:?}");
    assert_eq!(outcomes[1..], [Outcome::Done, Outcome::Done]);
    stage.emulator.stop().await;
}

#[tokio::test]
async fn what_is_not_allowed_is_named() {
    let stage = Stage::with(1).await;
    stage.running(1).await;
    stage.fail("GetTaskProtection", "AccessDeniedException", None);
    let denied = stage.failure().await;
    assert_eq!(denied.kind, FailureKind::Denied);
    assert!(denied.message.contains("Grant ecs:GetTaskProtection"), "{denied:?}");
    stage.fail("*", "ExpiredTokenException", None);
    let expired = stage.failure().await;
    assert_eq!(expired.kind, FailureKind::Denied);
    assert!(expired.message.contains("media/transcoder have expired"), "{expired:?}");
    stage.emulator.stop().await;
}

#[tokio::test]
async fn what_does_not_exist_is_named() {
    let stage = Stage::with(1).await;
    let look = async |settings: EcsSettings| {
        connect(stage.emulator.endpoint(), settings, &stage.limiters).await.observe(&BTreeSet::new()).await
    };
    let failure = look(EcsSettings { cluster: "nowhere".to_owned(), ..settings() }).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::NotFound);
    assert!(failure.message.contains("no ECS cluster nowhere in Region us-east-1"), "{failure:?}");

    let failure = look(EcsSettings { service: "nobody".to_owned(), ..settings() }).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::NotFound);
    assert!(failure.message.contains("no active ECS service nobody in cluster media"), "{failure:?}");

    let by_arn = EcsSettings {
        cluster: "arn:aws:ecs:us-east-1:123456789012:cluster/media".to_owned(),
        service: "arn:aws:ecs:us-east-1:123456789012:service/media/transcoder".to_owned(),
        ..settings()
    };
    assert_eq!(look(by_arn).await.unwrap().view.name, "media/transcoder");
    stage.emulator.stop().await;
}

#[tokio::test]
async fn nobody_listens_there() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let fleet = connect(&endpoint, settings(), &Limiters::default()).await;
    let failure = timeout(PATIENCE, fleet.observe(&BTreeSet::new())).await.unwrap().unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unreachable);
    assert!(failure.message.contains(&endpoint) && failure.message.contains("refused"), "{failure:?}");
}

#[tokio::test]
async fn somebody_listens_there_and_says_nothing() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let timeouts = Timeouts {
        connect: Duration::from_secs(1),
        attempt: Duration::from_millis(200),
        operation: Duration::from_secs(30),
    };
    let fleet = connect(&endpoint, EcsSettings { timeouts, ..settings() }, &Limiters::default()).await;
    let failure = timeout(PATIENCE, fleet.observe(&BTreeSet::new())).await.unwrap().unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unreachable, "{failure:?}");
    assert!(fleet.calls().total() >= 2, "it was tried again");
}

/// What [`nothing_is_found_in_an_empty_environment`] prints when it is the process that looks.
const SAYS: &str = "the look said: ";

/// Set in a process that is to look and to say what came of it: a test cannot set the environment, which is the whole
/// process's.
const LOOK: &str = "TEST_LOOK";

#[tokio::test]
async fn nothing_is_found_in_an_empty_environment() {
    if std::env::var_os(LOOK).is_none() {
        let nothing = in_environment(&[]).await;
        assert!(nothing.contains("Invalid") && nothing.contains("no AWS Region"), "{nothing}");
        return;
    }
    let role_arn = std::env::var("TEST_ROLE").ok();
    let profile = std::env::var("TEST_PROFILE").ok();
    let settings = EcsSettings { role_arn, profile, ..settings() };
    let look = match EcsFleet::connect(settings, &Limiters::default(), Arc::new(SystemClock)).await {
        Ok(fleet) => fleet.observe(&BTreeSet::new()).await.map(|look| look.view.name),
        Err(failure) => Err(failure),
    };
    println!("\n{SAYS}{look:?}");
}

/// What a fleet says that finds its configuration in this environment and no other.
async fn in_environment(variables: &[(&str, &str)]) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "nothing_is_found_in_an_empty_environment", "--nocapture"])
        .env_clear()
        .env(LOOK, "1")
        .env("HOME", "/nonexistent")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(variables.iter().copied())
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || child.output().unwrap());
    let text = String::from_utf8(timeout(PATIENCE, output).await.unwrap().unwrap().stdout).unwrap();
    text.lines().find_map(|line| line.strip_prefix(SAYS)).unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[tokio::test]
async fn the_configuration_is_found_as_the_aws_command_line_finds_it() {
    let stage = Stage::with(1).await;
    let keys = [("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let region = ("AWS_REGION", "us-east-1");
    let endpoint = ("AWS_ENDPOINT_URL_ECS", stage.emulator.endpoint());
    let for_all = ("AWS_ENDPOINT_URL", stage.emulator.endpoint());
    let seen = r#"Ok("media/transcoder")"#;
    assert_eq!(in_environment(&[keys[0], keys[1], region, endpoint]).await, seen);
    assert_eq!(in_environment(&[keys[0], keys[1], region, for_all]).await, seen);

    let folder = tempfile::tempdir().unwrap();
    let (shared, secret) = (folder.path().join("config"), folder.path().join("credentials"));
    std::fs::write(&shared, format!("[profile prod]\nregion = us-east-1\nendpoint_url = {}\n", endpoint.1)).unwrap();
    std::fs::write(&secret, "[prod]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = secret\n").unwrap();
    let files =
        [("AWS_CONFIG_FILE", shared.to_str().unwrap()), ("AWS_SHARED_CREDENTIALS_FILE", secret.to_str().unwrap())];
    assert_eq!(in_environment(&[files[0], files[1], ("TEST_PROFILE", "prod")]).await, seen);
    assert_eq!(in_environment(&[files[0], files[1], ("AWS_PROFILE", "prod")]).await, seen);

    let none = in_environment(&[region, endpoint]).await;
    assert!(none.contains("Denied") && none.contains("no AWS credentials for media/transcoder"), "{none}");
    let wrong = in_environment(&[region, endpoint, files[0], files[1], ("TEST_PROFILE", "staging")]).await;
    assert!(wrong.contains("Denied") && wrong.contains("staging"), "{wrong}");
    let nowhere = in_environment(&[keys[0], keys[1], endpoint]).await;
    assert!(nowhere.contains("Invalid") && nowhere.contains("no AWS Region"), "{nowhere}");
    stage.emulator.stop().await;
}

#[tokio::test]
async fn a_role_that_cannot_be_assumed_is_named() {
    let stage = Stage::with(1).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let role = "arn:aws:iam::123456789012:role/drain";
    let with_sts_at = async |endpoint: &str| {
        let variables = [
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_REGION", "us-east-1"),
            ("TEST_ROLE", role),
            ("AWS_ENDPOINT_URL_ECS", stage.emulator.endpoint()),
            ("AWS_ENDPOINT_URL_STS", endpoint),
        ];
        in_environment(&variables).await
    };
    // The emulator is no STS, so it refuses.
    let refused = with_sts_at(stage.emulator.endpoint()).await;
    assert!(refused.contains("Denied") && refused.contains(role), "{refused}");
    let unreachable = with_sts_at(&nobody).await;
    assert!(unreachable.contains("Unreachable") && unreachable.contains("credentials"), "{unreachable}");
    stage.emulator.stop().await;
}
