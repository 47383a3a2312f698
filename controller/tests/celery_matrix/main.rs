//! Every Celery that is supported, with every pool, over every broker: inspected, cancelled, given back, stopped.
//!
//! All of them share one broker, as the workers of a fleet do that is being upgraded. `make test-matrix` runs this alone.

#[path = "../celery_both/helpers.rs"]
mod helpers;
mod lost;
mod restarted;
#[path = "../celery_both/small_fleet.rs"]
mod small_fleet;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

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
    let broker = Broker {
        url: redis.url(),
        pools_that_go_on: &["threads", "gevent"],
        cut_connections: async || redis.cut_connections(),
        unacknowledged: || redis.cli(&["HVALS", "unacked"]),
    };
    every_celery_with_every_pool(&broker).await;
}

#[tokio::test]
async fn every_celery_with_every_pool_over_rabbitmq() {
    let rabbit = RabbitMq::shared().await;
    let broker = Broker {
        url: rabbit.url(),
        pools_that_go_on: &["threads"],
        cut_connections: async || rabbit.close_all_connections().await,
        unacknowledged: String::new,
    };
    every_celery_with_every_pool(&broker).await;
}

struct Broker<C, U> {
    url: String,
    /// Pools that always go on, through a lost connection, with the job that waits in them.
    pools_that_go_on: &'static [&'static str],
    cut_connections: C,
    /// Messages that may stay unacknowledged when the connection is lost that they were delivered on: Redis has them until
    /// the visibility timeout, an hour, where kombu's attempt to put them back goes to the lost connection, too.
    unacknowledged: U,
}

async fn every_celery_with_every_pool(broker: &Broker<impl AsyncFn(), impl Fn() -> String>) {
    let every = VERSIONS.map(|version| POOLS.map(|pool| (version, pool)));
    let mut fleet = Fleet::start(&broker.url, every.as_flattened(), broker.pools_that_go_on).await;
    let before = fleet.inspect().await;
    fleet.cancel_while_jobs_run().await;
    (broker.cut_connections)().await;
    fleet.are_judged_after_a_lost_connection().await;
    fleet.take_nothing_when_cancelled().await;
    fleet.give_back(&before).await;
    fleet.ran_all_that_were_there_when_the_connection_was_lost(&broker.unacknowledged).await;
    (broker.cut_connections)().await;
    let as_known = |name: &str, answer: &Answer| queues(answer).is_empty() == forgets(name);
    fleet.see("older ones have forgotten, after a reconnect, what was given back", as_known, true).await;
    fleet.give_back_what_was_forgotten(&before).await;
    fleet.stop_warmly().await;
}

/// One worker of each of some versions and pools, with a queue of its own under its task's name.
struct Fleet {
    app: SampleApp,
    celery: Celery,
    names: Vec<String>,
    tasks: BTreeMap<TaskId, Expected>,
    workers: Vec<CeleryWorker>,
    /// Workers that always go on with the job that waits in them when their connection is lost.
    go_on: BTreeSet<String>,
}

impl Fleet {
    async fn start(url: &str, kinds: &[(&str, &str)], pools_that_go_on: &[&str]) -> Self {
        let app = SampleApp::new(url);
        let mut names = Vec::new();
        let mut workers = Vec::new();
        // A few at a time: each wants a second of the machine.
        for some in kinds.chunks(POOLS.len()) {
            let started = some.iter().map(|(version, pool)| {
                let name = format!("{version}-{pool}");
                let worker = app.clone().python(python_with_celery(version)).worker(format!("worker@{name}"));
                names.push(name.clone());
                worker.queues([name]).pool(pool).spawn()
            });
            for worker in started.collect::<Vec<_>>() {
                workers.push(worker.ready().await);
            }
        }
        let tasks = known_tasks(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let goes_on = |name: &&String| pools_that_go_on.iter().any(|pool| name.ends_with(pool));
        let go_on = names.iter().filter(goes_on).cloned().collect();
        // Twenty are given four seconds.
        let reply_bound = Duration::from_millis(200) * u32::try_from(kinds.len()).expect("they are few");
        let celery = open(&CelerySettings { reply_bound, ..settings(url) });
        Self { app, celery, names, tasks, workers, go_on }
    }

    /// A job for each worker, under this word and its name.
    async fn submit(&self, word: &str) -> Vec<String> {
        let job = |name: &String| (format!("{word}-{name}"), name.clone());
        self.app.submit(Jobs::to_queues(self.names.iter().map(job)).until_told()).await
    }

    /// A job for each worker that can have one more waiting, under this word and its name.
    async fn submit_another(&self, word: &str) -> Vec<String> {
        let jobs = self.names.iter().filter(|name| self.has_one_waiting(name));
        let job = |name: &String| (format!("{word}-{name}"), name.clone());
        self.app.submit(Jobs::to_queues(jobs.map(job)).until_told()).await
    }

    /// With gevent, one that waits blocks the loop that carries out cancels; over RabbitMQ such a worker is deaf for ever after
    /// a lost connection (docs/hazards.md).
    fn has_one_waiting(&self, name: &str) -> bool {
        !is_green(name) || self.go_on.contains(name)
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
        let fresh = |name: &str, answer: &Answer| queues(answer) == [name] && has_no_more(name, answer);
        let view = self.see("all answer, idle, each with its queue", fresh, true).await;
        let remembered = |name: &String| (node(name), view.nodes[&node(name)].queues.clone().expect("it was seen"));
        self.names.iter().map(remembered).collect()
    }

    async fn cancel_while_jobs_run(&self) {
        let jobs = self.submit("first").await;
        self.app.journal().wait_started(&jobs, jobs.len()).await;
        self.submit_another("waiting").await;
        let runs_its_own = |name: &str, answer: &Answer| ids(answer.active.as_ref()) == [format!("first-{name}")];
        let has_another = |name: &str, answer: &Answer| {
            is_green(name) || ids(answer.reserved.as_ref()) == [format!("waiting-{name}")]
        };
        let has_both = |name: &str, answer: &Answer| runs_its_own(name, answer) && has_another(name, answer);
        let view = self.see("each tells its job, and the one that waits in it", has_both, false).await;
        let silent = |name: &&String| !view.nodes.contains_key(&node(name));
        assert!(self.names.iter().filter(|name| is_solo(name)).all(|name| silent(&name)), "solo works, and answered");

        let orders: Vec<_> = self.names.iter().map(|name| (node(name), vec![name.as_str().into()])).collect();
        let outcomes = self.celery.cancel(&orders).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done), "{outcomes:?}");
        let is_blocked = |name: &str| is_green(name) && self.has_one_waiting(name);
        let cancelled =
            |name: &str, answer: &Answer| (queues(answer).is_empty() || is_blocked(name)) && runs_its_own(name, answer);
        self.see("all are cancelled, and their jobs run on", cancelled, false).await;
    }

    async fn take_nothing_when_cancelled(&self) {
        let jobs = self.submit("second").await;
        for _ in 0..2 {
            let still = |name: &str, answer: &Answer| queues(answer).is_empty() && has_no_more(name, answer);
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
        self.see(
            "each has its queue again",
            |name, answer| queues(answer) == [name] && has_no_more(name, answer),
            true,
        )
        .await;
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

fn is_green(name: &str) -> bool {
    name.ends_with("gevent")
}

/// It lists no jobs, but for one that it ran when its connection was lost and that some list for ever.
fn has_no_more(name: &str, answer: &Answer) -> bool {
    let ghost = format!("first-{name}");
    let is_ghost = |id: &&str| lost::keeps_a_ghost(name) && **id == ghost;
    ids(answer.active.as_ref()).iter().all(is_ghost) && ids(answer.reserved.as_ref()).is_empty()
}
