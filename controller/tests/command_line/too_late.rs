//! `update-service; run` where nothing was held and ECS may stop old tasks at once (`minimumHealthyPercent` under 100): those that
//! ended before the first look took their jobs with them, and no command ends well on that.

use std::{process::Output, time::Duration};

use ecs_emulator::model::{Health, LastStatus, Time};
use test_support::{Jobs, Redis, SampleApp, wait_until};
use tokio::time::timeout;

use crate::{
    endings::{code, said},
    stage::{PATIENCE, Stage},
};

/// Three workers of a service of its own, each of which runs a job until it is told to end.
struct Fleet {
    stage: Stage,
    app: SampleApp,
    jobs: Vec<String>,
    redis: Redis,
}

impl Fleet {
    async fn start(healthy_percent: u32, killed_after: Duration) -> Self {
        let redis = Redis::start().await;
        let app = SampleApp::new(redis.url());
        let stage = Stage::with_workers(&app, 3, healthy_percent, killed_after).await;
        let jobs = app.submit(Jobs::with_ids(["a", "b", "c"]).until_told()).await;
        app.journal().wait_started(&jobs, 3).await;
        let made = stage.emulator.now();
        let is_old = || stage.emulator.now() > made + Duration::from_secs(3);
        wait_until("the first deployment is old enough to be told from the second", PATIENCE, async || is_old()).await;
        Self { stage, app, jobs, redis }
    }

    /// How many of its tasks have ended that were there before this time.
    fn ended(&self, then: Time) -> usize {
        self.stage.emulator.with_world(|world| {
            let old = world.state().tasks.values().filter(|task| task.created_at < then);
            old.filter(|task| task.last == LastStatus::Stopped).count()
        })
    }

    /// Deploys, and waits until so many old tasks have ended.
    async fn deploy_and_lose(&self, lost: usize) {
        let then = self.stage.emulator.now();
        self.stage.deploy();
        wait_until("ECS has stopped what it may", PATIENCE, async || self.ended(then) == lost).await;
        assert!(self.app.journal().tally(&self.jobs).finished.is_empty(), "their jobs were cut");
    }

    /// From now on those that run count for ECS.
    fn has_healthy_tasks(&self) {
        let now = self.stage.emulator.now();
        self.stage.emulator.with_world(|world| {
            let running = world.state().tasks.values().filter(|task| task.last == LastStatus::Running);
            for task in running.map(|task| task.id).collect::<Vec<_>>() {
                world.set_health(task, Health::Healthy, now);
            }
        });
    }

    async fn call(&self, command: &[&str]) -> Output {
        self.stage.call(command, "media", "transcoder", &self.redis.url()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_ended_before_the_first_look_are_told_and_counted() {
    // An idle worker ends well within this, even on a busy machine.
    let fleet = Fleet::start(50, Duration::from_secs(15)).await;
    // ECS needs two of three, and none of the new ones counts for it yet: it stops one old task and no more.
    fleet.stage.emulator.change_knobs(|knobs| knobs.healthy_after = Duration::from_hours(1));
    fleet.deploy_and_lose(1).await;

    let note = "1 old task fewer than the 3 that are wanted had ended before worker-drain first saw this service: nothing held \
                them, and their jobs may be lost; let every task be held before a deployment begins";
    let plan = fleet.call(&["plan"]).await;
    let text = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(code(&plan) == 0 && text.contains(&format!("note: {note}")), "{text}");

    let run = fleet.stage.begin(&["run", "-o", "json"], "media", "transcoder", &fleet.redis.url());
    wait_until("those that are left are held", PATIENCE, async || fleet.stage.held() >= 2).await;
    fleet.has_healthy_tasks();
    fleet.app.tell(&fleet.jobs);
    let output = timeout(PATIENCE, run.wait_with_output()).await.expect("it ends in time").unwrap();
    let said = said(&output);
    assert!(said.iter().any(|line| line["event"] == "note" && line["message"] == note), "{said:?}");
    let end = said.last().unwrap();
    assert_eq!((code(&output), &end["outcome"]), (5, &"EndedUnpermitted".into()), "{end}");
    assert_eq!((&end["endedUnpermitted"], &end["tasksDrained"]), (&1.into(), &3.into()), "{end}");
    let tally = fleet.app.journal().tally(&fleet.jobs);
    assert_eq!((tally.finished.len(), tally.unfinished.len()), (2, 1), "those that were seen lost nothing: {tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_was_over_before_the_first_look_is_no_success() {
    let fleet = Fleet::start(0, Duration::from_secs(2)).await;
    fleet.deploy_and_lose(3).await;
    let output = fleet.call(&["run"]).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(code(&output), 5, "{text}");
    let told = "not all of it by our permit; 3 old tasks in 0s, 3 ended without our permit (3 before this service was first seen)";
    assert!(text.contains(told), "{text}");
}
