//! The queue gate, by the whole loop, on a real broker and real workers.

use serde_json::json;
use test_support::{Jobs, LONG, SampleApp, wait_until};
use worker_drain::reconcile::Reconciliation;
use worker_drain_plan::{Action, Memory, policy::Gate, report::Reason};

use super::{
    all_answer, known_tasks, look_until, open, settings,
    small_fleet::{SmallFleet, drain},
    takes,
};
use crate::a_broker;

#[tokio::test]
async fn the_old_worker_takes_jobs_until_the_queue_is_empty_and_is_drained_then() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url()).settings(json!({"task_acks_late": true}));
    let workers = (
        app.worker("worker@one").queues(["slow", "fast"]).spawn(),
        app.worker("worker@two").queues(["slow", "fast"]).spawn(),
    );
    let (mut one, mut two) = (workers.0.ready().await, workers.1.ready().await);
    let celery = open(&settings(&broker.url()));
    let tasks = known_tasks(&["one", "two"]);
    all_answer(&celery, &tasks).await;
    let jobs = app.submit(Jobs::with_ids(["a", "b", "c", "d"]).queue("slow").until_told()).await;
    app.journal().wait_started(&jobs, 2).await;

    let mut drain = drain(SmallFleet::of(&[("one", "old"), ("two", "new")]), celery, Memory::default());
    drain.policy.drain.gate = Some(Gate { queues_empty: ["slow".into(), "fast".into()].into(), awaited: false });
    let is_shut = |pass: &Reconciliation| pass.plan.actions.iter().all(|action| matches!(action, Action::Hold { .. }));
    let passes_until = async |reason: Reason| {
        wait_until(&format!("the drain says {reason}"), LONG, async || {
            let pass = drain.reconcile().await.unwrap();
            assert!(is_shut(&pass), "{:?}", pass.plan.actions);
            pass.plan.report.drained.reason == reason
        })
        .await;
    };
    passes_until(Reason::QueuesNotEmpty).await;
    look_until("the old worker takes jobs", &drain.workers, &tasks, |view| takes(view, "one", &["fast", "slow"])).await;

    // Frozen, with jobs that are not acknowledged: on one broker they are counted, on the other nobody can tell.
    two.freeze();
    one.freeze();
    for _ in 0..3 {
        let pass = drain.reconcile().await.unwrap();
        let gate = pass.plan.report.gate.as_ref().expect("something waits for it");
        assert!(gate.answer != Some(true) && is_shut(&pass), "{gate:?}");
    }
    two.thaw();
    one.thaw();
    passes_until(Reason::QueuesNotEmpty).await;

    app.tell(&jobs);
    wait_until("the old task is permitted to stop", LONG * 2, async || {
        drain.reconcile().await.unwrap();
        drain.fleet.released() == ["one"]
    })
    .await;
    let tally = app.journal().tally(&jobs);
    assert!(tally.unfinished.is_empty() && tally.run_twice.is_empty(), "{tally:?}");
    look_until("only the new one takes jobs", &drain.workers, &tasks, |view| {
        takes(view, "one", &[]) && takes(view, "two", &["fast", "slow"])
    })
    .await;
}
