//! The queue gate, by the whole loop, on a real broker and real workers.

use serde_json::json;
use test_support::{Jobs, LONG, SampleApp, wait_until};
use worker_drain::{
    clock::SystemClock,
    reconcile::{Drain, Reconciliation},
    workers::celery::Celery,
};
use worker_drain_plan::{Action, Memory, QueueName, policy::Gate, report::Reason};

use super::{
    all_answer, jobs, known_tasks, look_until, open, settings,
    small_fleet::{InMemory, SmallFleet, drain},
    takes,
};
use crate::a_broker;

type SmallDrain = Drain<SmallFleet, Celery, InMemory, SystemClock>;

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
        let pass = drain.reconcile().await.expect("memory and fleet are there");
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

/// Looks until the gate is open, and asserts that all these jobs had begun by then: what waits in a worker is not acknowledged.
async fn opens_when_all_have_begun(drain: &SmallDrain, app: &SampleApp, jobs: &[String]) {
    wait_until("the gate is open", LONG * 2, async || {
        let pass = drain.reconcile().await.expect("memory and fleet are there");
        let gate = pass.plan.report.gate.expect("it is waited for");
        let tally = app.journal().tally(jobs);
        let is_open = gate.answer == Some(true);
        assert!(!is_open || tally.started.len() == jobs.len(), "it opened while a worker held some: {tally:?}");
        is_open
    })
    .await;
}

fn awaits(queues: &[&str], url: &str) -> SmallDrain {
    let mut drain = drain(SmallFleet::of(&[("one", "new")]), open(&settings(url)), Memory::default());
    let queues_empty = queues.iter().map(|queue| QueueName::from(*queue)).collect();
    drain.policy.drain.gate = Some(Gate { queues_empty, awaited: true });
    drain
}

/// The queue is empty, and the jobs wait in a worker that lists none of them; each runs for no time that a look would see.
#[tokio::test]
async fn the_gate_is_shut_while_rate_limited_jobs_wait_in_a_worker() {
    let broker = a_broker().await;
    let limits = json!({"task_annotations": {"sample.work": {"rate_limit": "20/m"}}});
    let app = SampleApp::new(broker.url()).settings(limits);
    let _worker = app.worker("worker@one").queues(["slow"]).concurrency(2).prefetch(4).start().await;
    let drain = awaits(&["slow"], &broker.url());
    all_answer(&drain.workers, &known_tasks(&["one"])).await;
    let jobs = app.submit(Jobs::with_ids(["a", "b", "c", "d"]).queue("slow").seconds(0.0, 0.0)).await;
    app.journal().wait_started(&jobs, 1).await;
    opens_when_all_have_begun(&drain, &app, &jobs).await;
}

/// On Redis both have one entry among what is not acknowledged, which goes with the first acknowledgement: here that of a worker which is
/// nobody's.
#[tokio::test]
async fn the_gate_is_shut_while_a_worker_has_what_another_one_has_acknowledged_from_another_queue() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url()).settings(json!({"task_queues": {
        "slow": {"exchange": "media", "exchange_type": "topic", "routing_key": "video.*"},
        "hd": {"exchange": "media", "exchange_type": "topic", "routing_key": "*.hd"},
    }}));
    let started = [("one", "slow"), ("elsewhere", "hd")]
        .map(|(name, queue)| app.worker(format!("worker@{name}")).queues([queue]).prefetch(2).spawn());
    let mut workers = Vec::new();
    for worker in started {
        workers.push(worker.ready().await);
    }
    let drain = awaits(&["slow"], &broker.url());
    let one = known_tasks(&["one"]);
    all_answer(&drain.workers, &one).await;
    let send =
        async |id: &str, key: &str| app.submit(Jobs::with_ids([id]).exchange("media", "topic", key).until_told()).await;
    let busy = [send("busy", "video.sd").await, send("busy elsewhere", "audio.hd").await].concat();
    app.journal().wait_started(&busy, 2).await;
    let both = send("both", "video.hd").await;
    // Fetched after the acknowledgement, it would be an entry again.
    look_until("it waits in the worker", &drain.workers, &one, |view| jobs(view, "one") == Some((1, 1))).await;
    app.tell([&"busy elsewhere".to_owned()]);
    app.journal().wait_started(&both, 1).await;

    wait_until("the gate counts what waits in the worker", LONG, async || {
        let pass = drain.reconcile().await.expect("memory and fleet are there");
        let gate = pass.plan.report.gate.expect("it is waited for");
        assert_eq!(gate.answer, Some(false), "{}", gate.message);
        gate.message.contains("slow has 0 ready and 2 not acknowledged")
    })
    .await;
    app.tell(busy.iter().chain(&both));
    opens_when_all_have_begun(&drain, &app, &busy).await;
    let runs = app.journal().records()["both"].starts.len();
    assert_eq!(runs, 2, "it opened when both had begun");
}
