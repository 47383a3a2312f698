//! Tasks that ECS counts or lists for the service and that nobody can place: neither command ends well on them.

use std::process::Output;

use rstest::rstest;
use serde_json::Value;
use test_support::{Redis, wait_until};

use crate::{
    endings::{code, said},
    stage::{PATIENCE, Stage},
};

const RUN: &[&str] = &["run", "--grace", "1s", "-o", "json"];
const PLAN: &[&str] = &["plan", "-o", "json"];

async fn settled(tasks: usize) -> Stage {
    let stage = Stage::with(u32::try_from(tasks).unwrap()).await;
    let running = || {
        stage.emulator.with_world(|world| {
            let all = world.state();
            all.services[0].tasks.iter().filter(|id| all.tasks[*id].started_at.is_some()).count()
        })
    };
    wait_until("the tasks run", PATIENCE, || std::future::ready(running() == tasks)).await;
    stage
}

fn assert_not_done(output: &Output, words: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code(output), 1, "{stderr}");
    assert!(stderr.starts_with("error: transcoder: ") && stderr.contains(words), "{stderr}");
    let is_told = |line: &Value| match line["event"].as_str() {
        Some("plan") => line["unaccounted"]["counted"] == 3,
        _ => {
            (&line["type"], &line["status"], &line["reason"])
                == (&"Ready".into(), &"False".into(), &"Unaccounted".into())
        }
    };
    assert!(said(output).iter().any(is_told), "{}", String::from_utf8_lossy(&output.stdout));
}

#[rstest]
#[case::run(RUN)]
#[case::plan(PLAN)]
#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_whose_tasks_nobody_can_place_is_not_done(#[case] command: &[&str]) {
    let (stage, redis) = (settled(3).await, Redis::start().await);
    stage.emulator.with_world(|world| {
        let knobs = world.knobs().clone();
        world.set_knobs(ecs_emulator::model::Knobs { started_by: Some("nobody".to_owned()), ..knobs });
    });
    let output = stage.call(command, "media", "transcoder", &redis.url()).await;
    assert_not_done(&output, "3 tasks by the scheduler's own count, 0 placed, 3 tasks that cannot be placed");
}

#[rstest]
#[case::run(RUN)]
#[case::plan(PLAN)]
#[tokio::test(flavor = "multi_thread")]
async fn a_count_that_stays_different_is_not_done(#[case] command: &[&str]) {
    let (stage, redis) = (settled(2).await, Redis::start().await);
    stage.emulator.with_world(|world| {
        let knobs = world.knobs().clone();
        world.set_knobs(ecs_emulator::model::Knobs { running_count_off: 1, ..knobs });
    });
    let output = stage.call(command, "media", "transcoder", &redis.url()).await;
    assert_not_done(&output, "the scheduler counts 3 tasks and shows 2");
}
