//! A container that does not pass SIGTERM on to its worker.

use std::time::Duration;

use e2e::{Setup, Stage};

use crate::common::KILLED;

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_worker_that_does_not_get_sigterm_is_told_to_be_killed() {
    let setup = Setup { passes_sigterm: false, stop_timeout: Duration::from_secs(2), ..Setup::default() };
    let stage = Stage::start(setup).await;
    let mut drain = stage.run(&["--wait-for-rollout"]);
    let old = stage.tasks();
    stage.until_held(&old).await;
    stage.deploy();

    assert_eq!(drain.ended().await, KILLED);
    assert!(old.iter().all(|task| stage.task(task.id).exit == Some(137)), "ECS kills what does not end");
    assert!(old.iter().all(|task| drain.said_of(task, "Permitted")), "they were drained");
    let rollout = drain.rollout_ended().expect("the rollout's end is told");
    assert_eq!(
        (&rollout["outcome"], &rollout["killed"], &rollout["endedUnpermitted"]),
        (&"Killed".into(), &2.into(), &0.into())
    );
    let said = drain.said();
    let end = said.iter().find(|event| event["event"] == "end").expect("the end is told");
    assert_eq!((&end["outcome"], &end["exitCode"], &end["killed"]), (&"Killed".into(), &5.into(), &2.into()));
    let names = |event: &&serde_json::Value| {
        let why = event["waitingFor"].as_str().unwrap_or_default();
        event["phase"] == "Stopped" && why.contains("exit code 137") && why.contains("may not pass SIGTERM on")
    };
    assert_eq!(said.iter().filter(names).count(), 2, "each of them is named, with what helps");
}
