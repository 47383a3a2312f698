//! Somebody else at a service that is being drained: an autoscaler that gives queues back to the workers of old tasks, and an
//! application that holds a task after it was let go.

use std::time::Duration;

use ecs_emulator::model::{Health, LastStatus, Protection, TaskId, Time};
use serde_json::{Value, json};
use test_support::{Jobs, Redis, SampleApp, wait_until};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout},
    time::{Instant, timeout},
};

use crate::stage::{PATIENCE, Stage};

/// A run under way, and all that it has said so far.
struct Run {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    said: Vec<String>,
}

impl Run {
    fn begin(stage: &Stage, redis: &Redis) -> Self {
        let command = ["run", "--wait-for-rollout", "-o", "json"];
        let mut child = stage.begin(&command, "media", "transcoder", &redis.url());
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, said: Vec::new() }
    }

    /// Hears one thing that it says, if it says any so soon.
    async fn hear(&mut self, at_most: Duration) {
        if let Ok(line) = timeout(at_most, self.lines.next_line()).await {
            self.said.push(line.unwrap().unwrap_or_else(|| panic!("it has ended: {:#?}", self.said)));
        }
    }

    /// Hears all that it says for so long.
    async fn hear_all(&mut self, lasting: Duration) {
        let end = Instant::now() + lasting;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            self.hear(left).await;
        }
    }

    async fn until_said(&mut self, what: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.has_said(what) {
            assert!(Instant::now() < end, "{what} is not said: {:#?}", self.said);
            self.hear(Duration::from_secs(1)).await;
        }
    }

    fn has_said(&self, what: &str) -> bool {
        self.said.iter().any(|line| line.contains(what))
    }

    /// How it ended.
    async fn end(mut self) -> (Option<i32>, Value) {
        while let Some(line) = self.lines.next_line().await.unwrap() {
            self.said.push(line);
        }
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it ends in time").unwrap();
        (status.code(), serde_json::from_str(self.said.last().unwrap()).unwrap())
    }
}

/// The task that has run for longest.
fn oldest(stage: &Stage) -> TaskId {
    stage.emulator.with_world(|world| {
        let running = world.state().tasks.values().filter(|task| task.last == LastStatus::Running);
        running.min_by_key(|task| task.created_at).unwrap().id
    })
}

fn is_held(stage: &Stage, task: TaskId) -> bool {
    stage.emulator.with_world(|world| {
        let now: Time = world.now();
        world.state().tasks.get(&task).is_some_and(|task| task.is_protected(now))
    })
}

/// Celery's own control API, as an autoscaler uses it, against an old worker in mid-drain.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_an_autoscaler_feeds_is_told_of_and_not_fought_in_a_loop() {
    let redis = Redis::start().await;
    let app = SampleApp::new(redis.url());
    let stage = Stage::with_workers(&app, 1, 100, Duration::from_secs(15)).await;
    let jobs = app.submit(Jobs::with_ids(["long"]).until_told()).await;
    app.journal().wait_started(&jobs, 1).await;
    let node = [app.journal().records()["long"].node.clone()];

    let mut run = Run::begin(&stage, &redis);
    wait_until("the task is held", PATIENCE, async || stage.held() == 1).await;
    stage.deploy();
    run.until_said("\"Busy\"").await;
    let is_left = "it is told to stop again in";
    let fought = async {
        while !run.has_said(is_left) {
            // Meanwhile two observations see that it takes no jobs.
            run.hear_all(Duration::from_secs(6)).await;
            app.ask("add_consumer", &node, json!({"queue": "celery"})).await;
        }
    };
    timeout(PATIENCE, fought).await.expect("it is not fought in a loop");
    for times in ["1 time", "2 times", "3 times"] {
        let told = format!(
            "ForeignConsumer: {} took jobs from celery again after that was cancelled and read back ({times})",
            node[0]
        );
        assert!(run.has_said(&told), "{told}: {:#?}", run.said);
    }
    app.tell(&jobs);
    let (code, end) = run.end().await;
    assert_eq!((code, &end["outcome"]), (Some(0), &"Drained".into()), "{end}");
    let tally = app.journal().tally(&jobs);
    assert!(tally.unfinished.is_empty() && tally.run_twice.is_empty(), "{tally:?}");
}

/// ECS does not stop the old task yet, because the new one is not healthy for it. Meanwhile the application holds it.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_its_application_holds_after_it_was_let_go_is_told_of_and_let_go_on_another_proof() {
    let redis = Redis::start().await;
    let app = SampleApp::new(redis.url());
    let mut stage = Stage::with_workers(&app, 1, 100, Duration::from_secs(15)).await;
    // A new task that is held leaves no room for a hold on the old one: ECS grants no more than tasks are desired.
    stage.drain = "{}\n  hold: {mode: OnRollout}";
    wait_until("the task runs", PATIENCE, async || {
        stage.emulator.with_world(|world| world.state().tasks.values().any(|task| task.last == LastStatus::Running))
    })
    .await;
    let old = oldest(&stage);
    stage.emulator.change_knobs(|knobs| knobs.healthy_after = Duration::from_hours(1));

    let mut run = Run::begin(&stage, &redis);
    run.hear(PATIENCE).await;
    stage.deploy();
    run.until_said("\"Permitted\"").await;
    // Longer than anybody may take it for one of ours that came late.
    run.hear_all(Duration::from_secs(28)).await;
    assert!(!is_held(&stage, old));
    let now = stage.emulator.now();
    stage.emulator.with_world(|world| {
        let task = old.to_string();
        let answer = world.update_task_protection("media", &[&task], Protection::On(Some(60)), now).unwrap();
        assert!(answer.failures.is_empty(), "{answer:?}");
    });
    run.until_said("ForeignHold: somebody else held ").await;
    wait_until("it is let go again", PATIENCE, async || !is_held(&stage, old)).await;

    stage.emulator.with_world(|world| {
        for task in world.state().tasks.keys().copied().collect::<Vec<_>>() {
            world.set_health(task, Health::Healthy, now);
        }
    });
    let (code, end) = run.end().await;
    assert_eq!((code, &end["outcome"]), (Some(0), &"Drained".into()), "{end}");
}
