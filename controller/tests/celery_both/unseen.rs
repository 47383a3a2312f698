//! Jobs that Celery's lists do not show, and workers that nobody named: the whole loop, on a real broker and real workers. What
//! is permitted too early here is a job killed with exit code 0.

use std::time::Duration;

use serde_json::json;
use test_support::{CeleryWorker, Jobs, LONG, SampleApp, Signal, python_with_celery, repository, wait_until};
use worker_drain::{
    api::render::render,
    clock::{Clock as _, SystemClock},
    workers::celery::{Celery, CelerySettings},
};
use worker_drain_plan::{Memory, report::TaskPhase};

use super::{
    all_answer, known_tasks, open, settings,
    small_fleet::{InMemory, SmallFleet, drain},
    tasks,
};
use crate::{a_broker, cut_connections};

type Drain = worker_drain::reconcile::Drain<SmallFleet, Celery, InMemory, SystemClock>;

/// Lets the old task `one` be drained; the new one serves beside it.
fn drain_one(celery: Celery) -> Drain {
    drain(SmallFleet::of(&[("one", "old"), ("two", "new")]), celery, Memory::default())
}

/// Reconciles until the old task is released, and asserts that all these jobs have ended then.
async fn is_released_after(drain: &Drain, app: &SampleApp, jobs: &[String]) {
    wait_until("the old task is permitted to stop", LONG * 2, async || {
        let pass = drain.reconcile().await.expect("memory and fleet are there");
        for task in &pass.plan.report.tasks {
            println!("{} {}: {}", task.task, task.phase, task.waiting_for); // shown where it fails
        }
        let is_released = drain.fleet.released() == ["one"];
        let tally = app.journal().tally(jobs);
        assert!(!is_released || tally.finished.len() == jobs.len(), "it was released with jobs in it: {tally:?}");
        is_released
    })
    .await;
}

/// Reconciles, through a lost connection, until the old task is released; then no job runs in its workers, and they begin none when
/// they are told to end.
async fn is_released_holding_none(drain: &Drain, app: &SampleApp, jobs: &[String], workers: &mut [CeleryWorker]) {
    wait_until("the old task is permitted to stop", LONG * 2, async || {
        let _ = drain.reconcile().await;
        drain.fleet.released() == ["one"]
    })
    .await;
    let begun = app.journal().tally(jobs);
    assert_eq!(begun.started, begun.finished, "released with a job that ran");
    for worker in workers {
        worker.process().signal(Signal::TERM);
        worker.process().ended(LONG).await;
    }
    assert_eq!(app.journal().tally(jobs).started, begun.started, "one of them held another when it was released");
}

/// Reconciles until what the old task waits for has some of these words in it. It is never released.
async fn is_held_because(drain: &Drain, words: &[&str]) {
    wait_until(&format!("it is held because {words:?}"), LONG, async || {
        let pass = drain.reconcile().await.expect("memory and fleet are there");
        assert!(drain.fleet.released().is_empty(), "{:?}", pass.plan.report.tasks);
        let task = pass.plan.report.tasks.iter().find(|task| task.task.as_str() == "one");
        task.is_some_and(|task| {
            task.phase == TaskPhase::Unknown && words.iter().any(|words| task.waiting_for.contains(words))
        })
    })
    .await;
}

/// The worker of the old task, which takes jobs from `slow`, and that of the new one; both have answered.
async fn old_and_new(app: &SampleApp) -> ([CeleryWorker; 2], Celery) {
    let (one, two) = (
        app.worker("worker@one").queues(["slow"]).concurrency(2).prefetch(4).spawn(),
        app.worker("worker@two").queues(["elsewhere"]).spawn(),
    );
    let workers = [one.ready().await, two.ready().await];
    let celery = open(&settings(app.broker()));
    all_answer(&celery, &known_tasks(&["one", "two"])).await;
    (workers, celery)
}

/// Rate-limited jobs wait in a bucket of the worker that none of its lists shows (facts of Celery 5.3 to 5.7).
#[tokio::test]
async fn a_task_is_not_idle_while_a_rate_limited_job_may_wait_in_it() {
    let broker = a_broker().await;
    let limits = json!({"task_annotations": {"sample.work": {"rate_limit": "20/m"}}});
    let app = SampleApp::new(broker.url()).settings(limits);
    let (_workers, celery) = old_and_new(&app).await;
    let jobs = app.submit(Jobs::with_ids(["a", "b", "c", "d"]).queue("slow").seconds(0.1, 0.1)).await;
    app.journal().wait_started(&jobs, 1).await;
    is_released_after(&drain_one(celery), &app, &jobs).await;
}

/// After a reconnect such a pool's jobs are in none of its lists until each begins.
#[tokio::test]
async fn a_task_is_not_idle_between_the_jobs_that_its_pool_kept_through_a_reconnect() {
    for pool in ["threads", "gevent"] {
        let broker = a_broker().await;
        let app = SampleApp::new(broker.url());
        let (one, two) = (
            app.worker("worker@one").queues(["slow"]).pool(pool).prefetch(4).spawn(),
            app.worker("worker@two").queues(["elsewhere"]).spawn(),
        );
        let (mut one, _two) = (one.ready().await, two.ready().await);
        let celery = open(&settings(&broker.url()));
        all_answer(&celery, &known_tasks(&["one", "two"])).await;
        let jobs = app.submit(Jobs::with_ids(["a", "b", "c", "d"]).queue("slow").seconds(2.5, 2.5)).await;
        app.journal().wait_started(&jobs, 1).await;
        let drain = drain_one(celery);
        wait_until("its queue is cancelled", LONG, async || {
            let pass = drain.reconcile().await.unwrap();
            pass.plan.report.tasks.iter().any(|task| task.phase == TaskPhase::Busy)
        })
        .await;
        cut_connections(&broker).await;
        // What the pool keeps the broker delivers again, to whoever takes it: here to nobody.
        println!("{pool}");
        is_released_holding_none(&drain, &app, &jobs, std::slice::from_mut(&mut one)).await;
    }
}

/// A strategy of its own, as that of celery-batches, keeps jobs for any length of time.
#[tokio::test]
async fn a_task_with_a_strategy_of_its_own_is_never_taken_for_idle() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url()).variable("SAMPLE_HOARD", "3");
    let (one, two) =
        (app.worker("worker@one").queues(["slow"]).spawn(), app.worker("worker@two").queues(["x"]).spawn());
    let _workers = (one.ready().await, two.ready().await);
    let celery = open(&settings(&broker.url()));
    all_answer(&celery, &known_tasks(&["one", "two"])).await;
    let jobs = app.submit(Jobs::with_ids(["a"]).queue("slow").seconds(0.1, 0.1)).await;
    let drain = drain_one(celery);
    is_held_because(&drain, &["sample.work are kept by a strategy of their own"]).await;
    app.journal().wait_finished(&jobs).await;
    is_held_because(&drain, &["celery-worker-drain"]).await;
}

/// With the package, without it, and with a strategy of its own: the status says of each what its word is worth.
#[tokio::test]
async fn the_status_tells_how_strong_the_evidence_of_each_worker_is() {
    let broker = a_broker().await;
    let package = repository().join("contrib/celery").display().to_string();
    let with = SampleApp::new(broker.url()).settings(json!({"include": ["celery_worker_drain"]}));
    let with = with.variable("PYTHONPATH", package);
    let without = SampleApp::new(broker.url());
    let hoarding = SampleApp::new(broker.url()).variable("SAMPLE_HOARD", "3");
    let (one, two, three) = (
        with.worker("worker@one").queues(["slow"]).spawn(),
        without.worker("worker@two").queues(["x"]).spawn(),
        hoarding.worker("worker@three").queues(["y"]).spawn(),
    );
    let _workers = (one.ready().await, two.ready().await, three.ready().await);
    let fleet = SmallFleet::of(&[("one", "new"), ("two", "new"), ("three", "new"), ("four", "new")]);
    let drain = drain(fleet, open(&settings(&broker.url())), Memory::default());
    wait_until("each says what it can", LONG, async || {
        let report = drain.reconcile().await.expect("memory and fleet are there").plan.report;
        let status = render(None, &report, None, SystemClock.now());
        let told = |task: &str| {
            let task = status.tasks.iter().find(|told| told.task == task).expect("it is one of them");
            let told = task.evidence.iter().map(|of| (of.node.clone(), of.strength.clone(), of.message.clone()));
            told.collect::<Vec<_>>()
        };
        let plain = |node: &str, strength: &str| vec![(node.to_owned(), strength.to_owned(), None)];
        println!("{:?}", status.tasks); // shown where it fails
        told("one") == plain("worker@one", "Account")
            && told("two") == plain("worker@two", "Lists")
            && told("three").iter().any(|(_, strength, why)| {
                strength == "Incomplete"
                    && why.as_ref().is_some_and(|why| why.contains("sample.work are kept by a strategy"))
            })
            && told("four").is_empty()
    })
    .await;
}

/// `heavy@{taskId}` names one of a task's two workers.
#[tokio::test]
async fn a_worker_that_the_names_forget_is_its_tasks_all_the_same() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url());
    let started = [("heavy@one", "slow"), ("light@one", "quick"), ("heavy@two", "x")]
        .map(|(name, queue)| app.worker(name).queues([queue]).spawn());
    let mut workers = Vec::new();
    for worker in started {
        workers.push(worker.ready().await);
    }
    let settings = CelerySettings { node_names: vec!["heavy@{taskId}".into()], ..settings(&broker.url()) };
    let celery = open(&settings);
    let jobs = app.submit(Jobs::with_ids(["a"]).queue("quick").seconds(4.0, 4.0)).await;
    app.journal().wait_started(&jobs, 1).await;
    is_released_after(&drain_one(celery), &app, &jobs).await;
}

/// `celery control rate_limit` sets a limit while workers run. Jobs that wait when it is taken away go on waiting.
#[tokio::test]
async fn a_rate_limit_that_is_set_or_taken_away_while_the_worker_runs_is_waited_for() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url());
    let (_workers, celery) = old_and_new(&app).await;
    let limit = async |rate: &str| {
        let arguments = json!({"task_name": "sample.work", "rate_limit": rate});
        let answer = app.ask("rate_limit", &["worker@one".into()], arguments).await;
        assert!(answer["worker@one"]["ok"].is_string(), "{answer:?}");
    };
    limit("12/m").await;
    let jobs = app.submit(Jobs::with_ids(["a", "b", "c", "d"]).queue("slow").seconds(0.1, 0.1)).await;
    app.journal().wait_started(&jobs, 1).await;
    let drain = drain_one(celery);
    wait_until("nothing shows what it holds", LONG, async || {
        let pass = drain.reconcile().await.unwrap();
        pass.plan.report.tasks.iter().any(|task| task.waiting_for.contains("rate-limited"))
    })
    .await;
    limit("0").await;
    is_released_after(&drain, &app, &jobs).await;
}

/// One that has not answered yet may run a job: a worker of the solo pool answers between jobs only.
#[tokio::test]
async fn a_task_of_two_workers_is_not_idle_by_the_word_of_one() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url());
    let (prefork, solo, other) = (
        app.worker("quick@one").queues(["quick"]).spawn(),
        app.worker("deep@one").queues(["deep"]).pool("solo").spawn(),
        app.worker("quick@two").queues(["x"]).spawn(),
    );
    let _workers = (prefork.ready().await, solo.ready().await, other.ready().await);
    let jobs = app.submit(Jobs::with_ids(["a"]).queue("deep").until_told()).await;
    app.journal().wait_started(&jobs, 1).await;
    let settings = CelerySettings { node_names: Vec::new(), ..settings(&broker.url()) };
    let mut drain = drain_one(open(&settings));
    drain.policy.drain.workers_per_task = Some(2);
    // Redis tells that it was there; over RabbitMQ nobody knows of it but the user.
    is_held_because(&drain, &["deep@one does not answer", "1 of its 2 workers is silent"]).await;
    app.tell(&jobs);
    is_released_after(&drain, &app, &jobs).await;
}

/// With a job that cannot be put into a reply, an older worker that is asked for what waits in it hears no request any more, and
/// takes no jobs (Celery 5.3 to 5.6 over Redis; celery#7601). It is not asked.
#[tokio::test]
async fn a_look_leaves_a_worker_as_it_was_whatever_jobs_wait_in_it() {
    for version in ["5.3", "5.6", "5.7"] {
        let broker = a_broker().await;
        let accepts = json!({"accept_content": ["json", "pickle"], "task_serializer": "json"});
        let app = SampleApp::new(broker.url()).settings(accepts).python(python_with_celery(version));
        // Celery starts no worker as root that takes pickled jobs, unless it is told to.
        let app = app.variable("C_FORCE_ROOT", "true");
        let _worker = app.worker("worker@one").queues(["slow"]).prefetch(4).start().await;
        let odd = app.submit(Jobs::with_ids(["a", "b"]).queue("slow").until_told().pickled()).await;
        app.journal().wait_started(&odd, 1).await;
        let celery = open(&CelerySettings { reply_bound: Duration::from_secs(2), ..settings(&broker.url()) });
        for _ in 0..3 {
            celery_observes(&celery).await;
        }
        app.tell(&odd);
        let later = app.submit(Jobs::with_ids(["c"]).queue("slow").seconds(0.1, 0.1)).await;
        app.journal().wait_finished(odd.iter().chain(&later)).await;
    }
}

async fn celery_observes(celery: &Celery) {
    use worker_drain::workers::Workers;
    celery.observe(&tasks(&["one"])).await.expect("the broker is there");
}

/// Two workers with the package in one task, with rate-limited jobs that a strategy of its own keeps for a while, through a lost
/// connection: the task is permitted to stop when its last job has ended, and nothing is lost.
#[tokio::test]
async fn a_task_whose_workers_account_for_every_job_is_drained_whatever_they_hold() {
    let broker = a_broker().await;
    let package = repository().join("contrib/celery");
    let app = SampleApp::new(broker.url())
        .settings(json!({
            "include": ["celery_worker_drain"], "task_annotations": {"sample.work": {"rate_limit": "30/m"}},
        }))
        .variable("PYTHONPATH", package.display().to_string())
        .variable("SAMPLE_HOARD", "2");
    let started = [("quick@one", "quick", "prefork"), ("deep@one", "deep", "threads"), ("quick@two", "x", "prefork")]
        .map(|(name, queue, pool)| app.worker(name).queues([queue]).pool(pool).prefetch(4).spawn());
    let mut workers = Vec::new();
    for worker in started {
        workers.push(worker.ready().await);
    }
    let jobs =
        ["quick", "deep"].map(|queue| Jobs::with_ids(["a", "b", "c"].map(|job| format!("{queue}-{job}"))).queue(queue));
    let [quick, deep] = jobs.map(|jobs| app.submit(jobs.seconds(1.5, 1.5)));
    let jobs = [quick.await, deep.await].concat();
    app.journal().wait_started(&jobs, 2).await;

    let mut drain = drain_one(open(&CelerySettings { node_names: Vec::new(), ..settings(&broker.url()) }));
    drain.policy.drain.workers_per_task = Some(2);
    drain.reconcile().await.unwrap();
    cut_connections(&broker).await;
    is_released_holding_none(&drain, &app, &jobs, &mut workers[..2]).await;
    let _heir = app.worker("worker@heir").queues(["quick", "deep"]).concurrency(4).start().await;
    app.journal().wait_finished(&jobs).await;
}
