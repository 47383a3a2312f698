//! Real Celery workers that answer by `contrib/celery/worker_drain_http.py`.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::json;
use test_support::{
    CeleryWorker, Jobs, LONG, RabbitMq, Redis, SampleApp, Signal, Sqs, free_port, python, python_with_celery,
    python_with_sqs,
};
use tokio::time::Instant;
use worker_drain::{
    tls::Pem,
    workers::{
        Workers as _,
        http::{Http, HttpSettings, Scheme},
    },
};
use worker_drain_plan::{
    Outcome, QueueName,
    observation::{Answer, Queue},
};

use crate::{TOKEN, ids, node, open, queues, settings, task, until};

/// A worker, and us.
struct Pair {
    app: SampleApp,
    worker: CeleryWorker,
    workers: Http,
}

const ADDRESS: &str = "127.0.0.1";

/// The sample app with the bootstep, at this port.
fn listening(app: SampleApp, port: u16) -> SampleApp {
    app.variable("SAMPLE_HTTP", "1")
        .variable("WORKER_DRAIN_HTTP_TOKEN", TOKEN)
        .variable("WORKER_DRAIN_HTTP_ADDRESS", ADDRESS)
        .variable("WORKER_DRAIN_HTTP_PORT", port.to_string())
}

async fn pair(app: SampleApp, pool: &str, concurrency: u32) -> Pair {
    let port = free_port();
    let app = listening(app, port);
    let worker = app.worker("worker@one").pool(pool).concurrency(concurrency).start().await;
    Pair { app, worker, workers: open(&settings(port)) }
}

async fn on_sqs(sqs: &Sqs, pool: &str, concurrency: u32) -> Pair {
    pair(SampleApp::new(sqs.url()).settings(Sqs::settings()).python(python_with_sqs()), pool, concurrency).await
}

impl Pair {
    async fn until(&self, what: &str, holds: impl Fn(&Answer) -> bool) -> Answer {
        until(&self.workers, ADDRESS, what, holds).await
    }

    async fn cancel(&self) {
        let cancel: [(_, Vec<QueueName>); 1] = [(node(), vec!["celery".into()])];
        assert_eq!(self.workers.cancel(&cancel).await, [Outcome::Done]);
    }

    async fn give_back(&self) {
        let queue = Queue::named("celery");
        assert_eq!(self.workers.give_back(&[(node(), vec![queue])]).await, [Outcome::Done]);
    }

    /// What it runs and holds, its cancel, its end of work, and its queue given back.
    async fn goes_through_a_drain(&self) {
        let jobs = self.app.submit(Jobs::new(4).until_told()).await;
        let busy = |answer: &Answer| !ids(answer.active.as_ref()).is_empty();
        let first = self.until("it runs a job", busy).await;
        assert_eq!(queues(&first).unwrap(), ["celery"]);
        let job = &first.active.as_ref().unwrap()[0];
        assert_eq!(job.name, "sample.work");
        assert!(job.started_at.is_some_and(|at| at <= first.answered_at), "{job:?}");
        self.cancel().await;
        // A worker of the solo pool does it when its job has ended.
        self.app.tell(&jobs);
        let idle = |answer: &Answer| drained(answer);
        let last = self.until("it takes no jobs and has none", idle).await;
        assert_eq!(last.instance, first.instance, "it is the same start of the worker");

        // What it had was done, and nothing of what came later.
        let done: Vec<String> = self.app.journal().tally(&jobs).finished.into_iter().collect();
        assert!(!done.is_empty());
        let later = self.app.submit(Jobs::new(2).prefix("later").seconds(0.0, 0.1)).await;
        for _ in 0..5 {
            let again = self.until("it answers", |_| true).await;
            assert!(drained(&again), "it took jobs after it was drained: {again:?}");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert!(self.app.journal().tally(&later).started.is_empty());
        self.give_back().await;
        self.until("it takes jobs again", |answer| queues(answer).is_some_and(|queues| queues == ["celery"])).await;
        self.app.journal().wait_finished(&later).await;
        self.app.journal().wait_finished(&jobs).await;
        let tally = self.app.journal().tally(jobs.iter().chain(&later));
        assert!(tally.unfinished.is_empty() && tally.run_twice.is_empty(), "{tally:?}");
    }
}

fn drained(answer: &Answer) -> bool {
    let none = |jobs: &Option<Vec<_>>| jobs.as_ref().is_some_and(Vec::is_empty);
    queues(answer).is_some_and(|queues| queues.is_empty()) && none(&answer.active) && none(&answer.reserved)
}

macro_rules! drains {
    ($($name:ident: $broker:ident, $pool:literal, $concurrency:literal;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            drains!(@ $broker, $pool, $concurrency);
        }
    )*};
    (@ redis, $pool:literal, $concurrency:literal) => {
        let redis = Redis::start().await;
        pair(SampleApp::new(redis.url()), $pool, $concurrency).await.goes_through_a_drain().await;
    };
    (@ rabbitmq, $pool:literal, $concurrency:literal) => {
        let rabbitmq = RabbitMq::start().await;
        pair(SampleApp::new(rabbitmq.url()), $pool, $concurrency).await.goes_through_a_drain().await;
    };
    (@ sqs, $pool:literal, $concurrency:literal) => {
        let sqs = Sqs::start().await;
        on_sqs(&sqs, $pool, $concurrency).await.goes_through_a_drain().await;
    };
}

drains! {
    prefork_on_redis: redis, "prefork", 2;
    threads_on_redis: redis, "threads", 2;
    gevent_on_redis: redis, "gevent", 2;
    solo_on_redis: redis, "solo", 1;
    prefork_on_rabbitmq: rabbitmq, "prefork", 2;
    prefork_on_sqs: sqs, "prefork", 2;
    threads_on_sqs: sqs, "threads", 2;
    gevent_on_sqs: sqs, "gevent", 2;
    solo_on_sqs: sqs, "solo", 1;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_wait_in_the_worker_or_for_their_time_are_told_apart() {
    let redis = Redis::start().await;
    let pair = pair(SampleApp::new(redis.url()), "prefork", 1).await;
    let waiting = pair.app.submit(Jobs::with_ids(["eta"]).countdown(3600.0)).await;
    let jobs = pair.app.submit(Jobs::new(2).until_told()).await;
    let all = |answer: &Answer| {
        let sizes = [&answer.active, &answer.reserved, &answer.scheduled].map(|jobs| jobs.as_ref().map(Vec::len));
        sizes == [Some(1); 3]
    };
    let answer = pair.until("one runs, one waits, one is scheduled", all).await;
    assert_eq!(ids(answer.scheduled.as_ref()), [waiting[0].as_str()].into());
    let mut here = ids(answer.active.as_ref());
    here.extend(ids(answer.reserved.as_ref()));
    assert_eq!(here, jobs.iter().map(String::as_str).collect());
    pair.app.tell(&jobs);
    pair.app.journal().wait_finished(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_held_back_by_a_rate_limit_is_work() {
    let redis = Redis::start().await;
    let limited = json!({"task_annotations": {"sample.work": {"rate_limit": "1/h"}}});
    let pair = pair(SampleApp::new(redis.url()).settings(limited), "prefork", 2).await;
    let jobs = pair.app.submit(Jobs::new(2).seconds(0.0, 0.0)).await;
    pair.app.journal().wait_started(&jobs, 1).await;
    // Celery's own `reserved` and `active` do not know of the second one.
    let held = |answer: &Answer| ids(answer.reserved.as_ref()).len() == 1 && ids(answer.active.as_ref()).is_empty();
    pair.until("the second job is told of", held).await;
}

/// Celery itself lists none of them any more: the pool is asked.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_a_thread_pool_has_are_told_after_a_lost_connection() {
    let (redis, port) = (Redis::start().await, free_port());
    let app = listening(SampleApp::new(redis.url()), port);
    let worker = app.worker("worker@one").pool("threads").prefetch(9).start().await;
    let pair = Pair { app, worker, workers: open(&settings(port)) };
    let jobs = pair.app.submit(Jobs::new(3).until_told()).await;
    let sizes = |answer: &Answer| [&answer.active, &answer.reserved].map(|jobs| jobs.as_ref().map(Vec::len));
    pair.until("it has all", |answer| sizes(answer) == [Some(1), Some(2)]).await;
    pair.cancel().await;
    pair.until("it takes no more", |answer| queues(answer).is_some_and(|queues| queues.is_empty())).await;
    redis.cut_connections();
    let lost = |answer: &Answer| answer.reserved.iter().flatten().any(|job| job.name == "unknown");
    let answer = pair.until("Celery has forgotten those that wait", lost).await;
    assert_eq!(sizes(&answer), [Some(1), Some(2)]);
    pair.app.tell(&jobs);
    pair.until("it is drained", drained).await;
    assert_eq!(pair.app.journal().tally(&jobs).finished.len(), 3, "it had them all the time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_and_a_queue_that_was_given_back_outlast_the_brokers_restart() {
    outlasts(python()).await;
}

/// Celery's own `add_consumer` does not, there (celery#10352).
#[tokio::test(flavor = "multi_thread")]
async fn they_outlast_it_with_an_older_celery_too() {
    outlasts(python_with_celery("5.5")).await;
}

async fn outlasts(python: PathBuf) {
    let mut redis = Redis::start().await;
    let pair = pair(SampleApp::new(redis.url()).python(python), "prefork", 1).await;
    let is = |wanted: &'static [&'static str]| move |answer: &Answer| queues(answer).is_some_and(|now| now == wanted);
    pair.until("it takes jobs", is(&["celery"])).await;
    pair.cancel().await;
    pair.until("it takes none", is(&[])).await;
    redis.restart().await;
    // While it has no broker it says so or nothing; it must never say that it takes jobs.
    for _ in 0..20 {
        let view = pair.workers.observe(&task(ADDRESS)).await.unwrap();
        let now = view.nodes.get(&node()).and_then(queues).unwrap_or_default();
        assert!(now.is_empty(), "a cancelled queue came back with the broker");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    pair.until("it answers again", is(&[])).await;
    let later = pair.app.submit(Jobs::new(1).prefix("later").seconds(0.0, 0.0)).await;
    pair.give_back().await;
    pair.until("it takes jobs again", is(&["celery"])).await;
    pair.app.journal().wait_finished(&later).await;
    redis.restart().await;
    let more = pair.app.submit(Jobs::new(1).prefix("more").seconds(0.0, 0.0)).await;
    pair.app.journal().wait_finished(&more).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_worker_says_nothing_and_a_restarted_one_is_another() {
    let redis = Redis::start().await;
    let Pair { app, mut worker, workers } = pair(SampleApp::new(redis.url()), "prefork", 1).await;
    let first = until(&workers, ADDRESS, "it answers", |_| true).await;
    worker.freeze();
    let view = workers.observe(&task(ADDRESS)).await.unwrap();
    assert!(view.nodes.is_empty() && crate::hint(&view).contains("did not answer within 10s"), "{view:?}");
    worker.thaw();
    until(&workers, ADDRESS, "it answers again", |_| true).await;
    worker.kill();
    drop(worker);
    let _again = app.worker("worker@one").start().await;
    // What was decided on the first one's answer is not for the second.
    let refused = workers.cancel(&[(node(), vec!["celery".into()])]).await;
    assert!(matches!(&refused[..], [Outcome::Refused { reason }] if reason.starts_with("409")), "{refused:?}");
    let second = until(&workers, ADDRESS, "the new one answers", |_| true).await;
    assert_ne!(first.instance, second.instance);
}

/// A call that fetches messages from SQS is under way nearly always. What it brings after the cancel must be neither lost
/// nor run where nobody looks for it any more.
#[tokio::test(flavor = "multi_thread")]
async fn what_sqs_sends_while_a_queue_is_cancelled_is_neither_lost_nor_unseen() {
    let sqs = Sqs::start().await;
    let pair = on_sqs(&sqs, "prefork", 2).await;
    let takes = |answer: &Answer| queues(answer).is_some_and(|queues| queues == ["celery"]);
    let mut all = Vec::new();
    for round in 0..3 {
        pair.until("it takes jobs", takes).await;
        let told = Instant::now();
        pair.cancel().await;
        let answer = pair.until("it answers", |_| true).await;
        // A call lasts 5 seconds here, and a slow machine may take longer than that to ask.
        let is_over = told.elapsed() > Duration::from_secs(5);
        assert!(takes(&answer) || is_over, "a call may still bring jobs, and it says that nothing more comes");
        // These meet the call that is under way.
        all.extend(pair.app.submit(Jobs::new(3).prefix(&format!("round{round}")).seconds(0.0, 0.0)).await);
        pair.until("it is drained", drained).await;
        let now = pair.app.journal().tally(&all);
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert_eq!(pair.app.journal().tally(&all), now, "a job was begun by a worker that had said it was drained");
        }
        pair.give_back().await;
        pair.app.journal().wait_finished(&all).await;
    }
    assert!(pair.app.journal().tally(&all).run_twice.is_empty());
}

/// An authority of our own, and a certificate of it with its key, for a name and for the address.
fn make_certificates(folder: &Path) -> (String, String) {
    let file = |name: &str| folder.join(name).display().to_string();
    let (ca, ca_key, certificate, key) = (file("ca"), file("ca.key"), file("certificate"), file("key"));
    let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(new).args(arguments).output().expect("openssl: run `make setup`");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    openssl(&["-subj", "/CN=test authority", "-keyout", &ca_key, "-out", &ca]);
    let names = ["-subj", "/CN=worker", "-addext", "subjectAltName=DNS:worker.internal,IP:127.0.0.1"];
    let signed = ["-CA", &ca, "-CAkey", &ca_key, "-keyout", &key, "-out", &certificate];
    openssl(&[&names[..], &signed[..], &["-addext", "basicConstraints=critical,CA:FALSE"]].concat());
    let read = |file: &str| std::fs::read_to_string(file).unwrap();
    let both = file("both");
    std::fs::write(&both, read(&certificate) + &read(&key)).unwrap();
    (read(&ca), both)
}

#[tokio::test(flavor = "multi_thread")]
async fn by_tls_with_an_authority_of_ones_own() {
    let (redis, folder) = (Redis::start().await, tempfile::tempdir().unwrap());
    let (authority, certificate) = make_certificates(folder.path());
    let port = free_port();
    let app = listening(SampleApp::new(redis.url()), port).variable("WORKER_DRAIN_HTTP_CERTIFICATE", certificate);
    let _worker = app.worker("worker@one").start().await;
    let https = |name: Option<&str>, authority: Option<String>| {
        let authorities = authority.map(|text| Pem::Text { called: "caFrom".into(), text });
        let scheme = Scheme::Https { server_name: name.map(String::from), authorities };
        open(&HttpSettings { scheme, ..settings(port) })
    };
    let named = https(Some("worker.internal"), Some(authority.clone()));
    until(&named, ADDRESS, "it answers by TLS", |_| true).await;
    until(&https(None, Some(authority.clone())), ADDRESS, "its certificate is for the address, too", |_| true).await;
    for workers in [https(Some("another.internal"), Some(authority)), https(Some("worker.internal"), None)] {
        let failure = workers.observe(&task(ADDRESS)).await.unwrap_err();
        assert!(failure.message.contains("no TLS with"), "{}", failure.message);
    }
    let clear = open(&settings(port)).observe(&task(ADDRESS)).await;
    assert!(clear.is_err_and(|failure| failure.message.contains("no whole HTTP answer")), "it speaks TLS alone");
}

/// Children of the pool that are forked after the port was opened must not keep it open.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_ends_with_its_worker_and_not_with_the_workers_children() {
    let redis = Redis::start().await;
    let often = json!({"worker_max_tasks_per_child": 1});
    let mut pair = pair(SampleApp::new(redis.url()).settings(often), "prefork", 2).await;
    let jobs = pair.app.submit(Jobs::new(6).seconds(0.0, 0.1)).await;
    pair.app.journal().wait_finished(&jobs).await;
    let last = pair.app.submit(Jobs::new(2).prefix("last").until_told()).await;
    pair.app.journal().wait_started(&last, 2).await;
    pair.until("it runs both", |answer| ids(answer.active.as_ref()).len() == 2).await;
    pair.worker.process().signal(Signal::KILL);
    pair.worker.process().ended(LONG).await;
    // Its children work on.
    let view = pair.workers.observe(&task(ADDRESS)).await.unwrap();
    assert!(crate::hint(&view).contains("cannot connect"), "{}", crate::hint(&view));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_a_token_does_not_start_unless_it_was_meant() {
    let redis = Redis::start().await;
    let app = listening(SampleApp::new(redis.url()), free_port()).variable("WORKER_DRAIN_HTTP_TOKEN", "");
    let mut worker = app.worker("worker@one").spawn();
    let status = worker.process().ended(LONG).await;
    assert!(!status.success());
    assert!(worker.process().log().contains("WORKER_DRAIN_HTTP_TOKEN is not set"), "{}", worker.process().log());

    let port = free_port();
    let app = listening(SampleApp::new(redis.url()), port).variable("WORKER_DRAIN_HTTP_TOKEN", "");
    let _worker = app.variable("WORKER_DRAIN_HTTP_ALLOW_ANYONE", "true").worker("worker@one").start().await;
    let workers = open(&HttpSettings { token: "".into(), ..settings(port) });
    until(&workers, ADDRESS, "it answers anybody", |_| true).await;
}
