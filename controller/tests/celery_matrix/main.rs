//! Every Celery that is supported, with every pool, over every broker: inspected, cancelled, given back, stopped.
//!
//! All of them share one broker, as the workers of a fleet do that is being upgraded. `make test-matrix` runs this alone.

#[path = "../celery_both/helpers.rs"]
mod helpers;

use std::{collections::BTreeMap, time::Duration};

use test_support::{CeleryWorker, Jobs, RabbitMq, Redis, SampleApp, Signal, python_with_celery, wait_until};
use worker_drain::{
    identity::Expected,
    workers::{
        Workers,
        celery::{Celery, CelerySettings},
    },
};
use worker_drain_plan::{
    NodeName, Outcome, TaskId,
    observation::{Answer, Queue, WorkersView},
};

use helpers::{has_said_all, ids, known_tasks, node, open, queues, settings};

/// Forty workers are a lot for a small machine, and each look is to hear twenty.
const VERY_LONG: Duration = Duration::from_mins(3);
const VERSIONS: [&str; 5] = ["5.3", "5.4", "5.5", "5.6", "5.7"];
/// Versions that forget after a reconnect what was given back.
const FORGET: [&str; 4] = ["5.3", "5.4", "5.5", "5.6"];
/// Workers that acknowledge a job up to two seconds after they began it, and not at all if they are told to stop before:
/// it is given back, and runs twice. So does what waits in them (docs/hazards.md).
const RUN_AGAIN: [&str; 2] = ["5.3-gevent", "5.4-gevent"];
const POOLS: [&str; 4] = ["prefork", "threads", "gevent", "solo"];

#[tokio::test]
async fn every_celery_with_every_pool_over_redis() {
    let redis = Redis::start().await;
    every_celery_with_every_pool(&redis.url(), async || redis.cut_connections()).await;
}

#[tokio::test]
async fn every_celery_with_every_pool_over_rabbitmq() {
    let rabbit = RabbitMq::shared().await;
    every_celery_with_every_pool(&rabbit.url(), async || rabbit.close_all_connections().await).await;
}

async fn every_celery_with_every_pool(url: &str, cut_connections: impl AsyncFn()) {
    let mut fleet = Fleet::start(url).await;
    let before = fleet.inspect().await;
    fleet.cancel_while_jobs_run().await;
    fleet.take_nothing_when_cancelled().await;
    cut_connections().await;
    let cancelled = |_: &str, answer: &Answer| queues(answer).is_empty();
    fleet.see("all are cancelled still after a reconnect", cancelled, true).await;
    fleet.give_back(&before).await;
    cut_connections().await;
    let as_known = |name: &str, answer: &Answer| queues(answer).is_empty() == forgets(name);
    fleet.see("older ones have forgotten, after a reconnect, what was given back", as_known, true).await;
    fleet.give_back_what_was_forgotten(&before).await;
    fleet.stop_warmly().await;
}

/// One worker of each version and pool, with a queue of its own under its task's name.
struct Fleet {
    app: SampleApp,
    celery: Celery,
    names: Vec<String>,
    tasks: BTreeMap<TaskId, Expected>,
    workers: Vec<CeleryWorker>,
}

impl Fleet {
    async fn start(url: &str) -> Self {
        let app = SampleApp::new(url);
        let mut names = Vec::new();
        let mut workers = Vec::new();
        for version in VERSIONS {
            let python = python_with_celery(version);
            let started = POOLS.map(|pool| {
                let name = format!("{version}-{pool}");
                let worker = app.clone().python(python.clone()).worker(format!("worker@{name}"));
                names.push(name.clone());
                worker.queues([name]).pool(pool).spawn()
            });
            // A few at a time: each wants a second of the machine.
            for worker in started {
                workers.push(worker.ready().await);
            }
        }
        let tasks = known_tasks(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let celery = open(&CelerySettings { reply_bound: Duration::from_secs(4), ..settings(url) });
        Self { app, celery, names, tasks, workers }
    }

    /// A job for each worker, under this word and its name.
    async fn submit(&self, word: &str) -> Vec<String> {
        let job = |name: &String| (format!("{word}-{name}"), name.clone());
        self.app.submit(Jobs::to_queues(self.names.iter().map(job)).until_told()).await
    }

    /// Looks until all, or all but the solo ones, were seen as wanted in one look.
    async fn see(&self, what: &str, wanted: impl Fn(&str, &Answer) -> bool, solo_too: bool) -> WorkersView {
        let mut seen = None;
        wait_until(what, VERY_LONG, async || {
            let view = self.celery.observe(&self.tasks).await;
            seen = view.ok().filter(|view| {
                let mut names = self.names.iter().filter(|name| solo_too || !is_solo(name));
                names.all(|name| {
                    view.nodes.get(&node(name)).is_some_and(|answer| has_said_all(answer) && wanted(name, answer))
                })
            });
            seen.is_some()
        })
        .await;
        seen.expect("it was seen")
    }

    async fn inspect(&self) -> Vec<(NodeName, Vec<Queue>)> {
        let fresh = |name: &str, answer: &Answer| queues(answer) == [name] && is_idle(answer);
        let view = self.see("all answer, idle, each with its queue", fresh, true).await;
        let remembered = |name: &String| (node(name), view.nodes[&node(name)].queues.clone().expect("it was seen"));
        self.names.iter().map(remembered).collect()
    }

    async fn cancel_while_jobs_run(&self) {
        let jobs = self.submit("first").await;
        self.app.journal().wait_started(&jobs, jobs.len()).await;
        let runs_its_own = |name: &str, answer: &Answer| ids(answer.active.as_ref()) == [format!("first-{name}")];
        let view = self.see("each tells its job", runs_its_own, false).await;
        let silent = |name: &&String| !view.nodes.contains_key(&node(name));
        assert!(self.names.iter().filter(|name| is_solo(name)).all(|name| silent(&name)), "solo works, and answered");

        let orders: Vec<_> = self.names.iter().map(|name| (node(name), vec![name.as_str().into()])).collect();
        let outcomes = self.celery.cancel(&orders).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done), "{outcomes:?}");
        let cancelled = |name: &str, answer: &Answer| queues(answer).is_empty() && runs_its_own(name, answer);
        self.see("all are cancelled, and their jobs run on", cancelled, false).await;
        self.app.tell(&jobs);
        self.app.journal().wait_finished(&jobs).await;
        self.see("all are cancelled and idle", |_, answer| queues(answer).is_empty() && is_idle(answer), true).await;
    }

    async fn take_nothing_when_cancelled(&self) {
        let jobs = self.submit("second").await;
        for _ in 0..2 {
            let still = |_: &str, answer: &Answer| queues(answer).is_empty() && is_idle(answer);
            self.see("all are idle still", still, true).await;
        }
        let tally = self.app.journal().tally(&jobs);
        assert!(tally.started.is_empty(), "a cancelled worker took a job: {tally:?}");
    }

    async fn give_back_what_was_forgotten(&self, before: &[(NodeName, Vec<Queue>)]) {
        self.celery.give_back(before).await;
        self.see("each has its queue again", |name, answer| queues(answer) == [name], true).await;
    }

    async fn give_back(&self, before: &[(NodeName, Vec<Queue>)]) {
        let outcomes = self.celery.give_back(before).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done), "{outcomes:?}");
        let jobs: Vec<String> = self.names.iter().map(|name| format!("second-{name}")).collect();
        self.app.journal().wait_started(&jobs, jobs.len()).await;
        self.see("each has its queue again", |name, answer| queues(answer) == [name], false).await;
        self.app.tell(&jobs);
        self.app.journal().wait_finished(&jobs).await;
        self.see("each has its queue again", |name, answer| queues(answer) == [name] && is_idle(answer), true).await;
    }

    /// As ECS does after a permit, and with jobs in hand: what runs is finished, and what does not is not lost.
    async fn stop_warmly(&mut self) {
        let (running, waiting) = (self.submit("third").await, self.submit("fourth").await);
        self.app.journal().wait_started(&running, running.len()).await;
        for worker in &mut self.workers {
            worker.process().signal(Signal::TERM);
        }
        // Whether what waits inside a worker is given back or still run is the pool's own way.
        self.app.tell(running.iter().chain(&waiting));
        for worker in &mut self.workers {
            worker.process().ended(VERY_LONG).await;
        }
        let journal = self.app.journal();
        assert_eq!(journal.tally(&running).finished.len(), running.len(), "what ran was finished");
        let _heir = self.app.worker("worker@heir").queues(self.names.clone()).concurrency(4).start().await;
        journal.wait_finished(&waiting).await;
        let all: Vec<String> = [running, waiting].concat();
        let twice = journal.tally(&all).run_twice;
        assert!(twice.iter().all(|job| RUN_AGAIN.iter().any(|worker| job.ends_with(worker))), "{twice:?}");
    }
}

/// celery#10352.
fn forgets(name: &str) -> bool {
    FORGET.iter().any(|version| name.starts_with(version))
}

fn is_solo(name: &str) -> bool {
    name.ends_with("solo")
}

fn is_idle(answer: &Answer) -> bool {
    ids(answer.active.as_ref()).is_empty() && ids(answer.reserved.as_ref()).is_empty()
}
