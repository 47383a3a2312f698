//! A connection that is lost while jobs run and wait. Celery forgets a part of them; the package must not.

use std::{collections::BTreeMap, process::Command, time::Duration};

use serde_json::json;
use test_support::{CeleryWorker, Jobs, RabbitMq, Redis, SampleApp, python_with_celery, wait_until};

use crate::{Told, celery_lists, told, told_until, with_package};

/// Seven workers on a small machine, and each question is a Python that starts.
const VERY_LONG: Duration = Duration::from_mins(3);
/// Celery 5.3 to 5.5 empty the prefork pool's table of jobs, and list some that are over for ever (celery#8541). Threads
/// and greenlets go on with what they have, which Celery forgets to list.
const WORKERS: [(&str, &str); 7] = [
    ("5.3", "prefork"),
    ("5.4", "gevent"),
    ("5.5", "prefork"),
    ("5.6", "threads"),
    ("5.7", "prefork"),
    ("5.7", "threads"),
    ("5.7", "gevent"),
];

#[tokio::test]
async fn jobs_are_counted_to_their_end_after_a_lost_connection_to_redis() {
    let redis = Redis::start().await;
    jobs_are_counted_to_their_end(&redis.url(), async || redis.cut_connections()).await;
}

#[tokio::test]
async fn jobs_are_counted_to_their_end_after_a_lost_connection_to_rabbitmq() {
    let rabbit = RabbitMq::shared().await;
    jobs_are_counted_to_their_end(&rabbit.url(), async || rabbit.close_all_connections().await).await;
}

/// Celery 5.5 hears no more of such a job, neither its end nor the end of its process.
#[tokio::test]
async fn a_job_is_over_when_its_process_dies_after_a_lost_connection() {
    let redis = Redis::start().await;
    let app = with_package(redis.url(), &[], &json!({})).python(python_with_celery("5.5"));
    let _worker = app.worker("worker@one").start().await;
    let jobs = app.submit(Jobs::new(1).until_told()).await;
    app.journal().wait_started(&jobs, 1).await;
    redis.cut_connections();
    let lost = |told: &Told| told.0["connection_losses"].as_u64() > Some(0);
    let told = told_until(&app, "it is back", lost).await;
    assert_eq!(told.counts(["active", "pool"]), [1, 1], "{}", told.0);

    let stats = app.ask("stats", &["worker@one".into()], json!({})).await;
    let process = stats["worker@one"]["pool"]["processes"][0].to_string();
    assert!(Command::new("kill").args(["-KILL", &process]).status().unwrap().success());
    told_until(&app, "nothing is left", |told| !told.has_work()).await;
    assert!(app.journal().tally(&jobs).finished.is_empty());
}

/// Celery 5.7 cancels the timers of jobs that it gives back, and goes on listing them as scheduled.
#[tokio::test]
async fn jobs_that_the_broker_has_again_are_not_scheduled_any_more() {
    let redis = Redis::start().await;
    let app = with_package(redis.url(), &[], &json!({}));
    let _worker = app.worker("worker@one").start().await;
    app.submit(Jobs::new(1).countdown(3600.0)).await;
    told_until(&app, "it waits for its time", |told| told.count("scheduled") == Some(1)).await;
    app.ask("cancel_consumer", &["worker@one".into()], json!({"queue": "celery"})).await;
    told_until(&app, "it takes no more", |told| !told.consumes()).await;
    redis.cut_connections();
    let lost = |told: &Told| told.0["connection_losses"].as_u64() > Some(0);
    let told = told_until(&app, "it is back", lost).await;
    assert_eq!(told.counts(["scheduled", "unacknowledged", "pool"]), [0; 3], "{}", told.0);
    assert_eq!(celery_lists(&app, "worker@one").await, [0, 0, 1], "Celery lists it still");
}

async fn jobs_are_counted_to_their_end(url: &str, cut_connections: impl AsyncFn()) {
    let fleet = Fleet::start(url).await;
    let jobs = fleet.submit().await;
    fleet.app.journal().wait_started(jobs.values().map(|jobs| &jobs[0]), WORKERS.len()).await;
    fleet.see("each runs a job", |_, told| told.count("active") == Some(1)).await;
    fleet.cancel().await;
    cut_connections().await;
    let is_back = |told: &Told| told.0["connection_losses"].as_u64() > Some(0) && !told.consumes();
    let seen =
        fleet.see("all but the green ones are back, and cancelled", |name, told| is_green(name) || is_back(told)).await;
    for (name, told) in &seen {
        assert!(told.has_work() && told.count("pool") > Some(0), "{name} runs a job: {}", told.0);
    }
    for (name, told) in seen.iter().filter(|(name, _)| name.ends_with("threads")) {
        let hidden = told.count("reserved") == Some(0) && told.count("pool") == Some(3);
        assert!(hidden, "Celery shows no job of {name} that waits, and its pool has two: {}", told.0);
    }
    fleet.never_says_idle_with_a_job(&jobs).await;
    fleet.has_ghosts_of_celery_only().await;
}

/// Green workers do not notice a lost connection before a job has ended, because their loop waits for a
/// place in their pool; and until then they answer nobody, if it is their mailbox's connection that was lost.
fn is_green(name: &str) -> bool {
    name.ends_with("gevent")
}

/// A worker of each kind, with a queue of its own under its name.
struct Fleet {
    app: SampleApp,
    names: Vec<String>,
    _workers: Vec<CeleryWorker>,
}

impl Fleet {
    async fn start(url: &str) -> Self {
        let app = with_package(url, &[], &json!({}));
        let mut started = Vec::new();
        let mut names = Vec::new();
        for (version, pool) in WORKERS {
            let name = format!("{version}-{pool}");
            let worker = app.clone().python(python_with_celery(version)).worker(format!("worker@{name}"));
            started.push(worker.queues([name.clone()]).pool(pool).prefetch(9).spawn());
            names.push(name);
        }
        let mut workers = Vec::new();
        for worker in started {
            workers.push(worker.ready().await);
        }
        Self { app, names, _workers: workers }
    }

    fn nodes(&self) -> Vec<String> {
        self.names.iter().map(|name| format!("worker@{name}")).collect()
    }

    /// Three jobs for each worker, which runs one at a time.
    async fn submit(&self) -> BTreeMap<String, Vec<String>> {
        let ids = |name: &String| ["a", "b", "c"].map(|job| format!("{name}-{job}")).to_vec();
        let jobs: BTreeMap<_, _> = self.names.iter().map(|name| (name.clone(), ids(name))).collect();
        let all = jobs.iter().flat_map(|(name, ids)| ids.iter().map(|id| (id.clone(), name.clone())));
        self.app.submit(Jobs::to_queues(all).until_told()).await;
        jobs
    }

    /// All but the green ones. Over RabbitMQ those are deaf for ever if the connection is lost before they have carried
    /// out a cancel: they wait for the broker's answer to it (docs/hazards.md).
    async fn cancel(&self) {
        for name in self.names.iter().filter(|name| !is_green(name)) {
            self.app.ask("cancel_consumer", &[format!("worker@{name}")], json!({"queue": name})).await;
        }
        self.see("all but the green ones are cancelled", |name, told| is_green(name) || !told.consumes()).await;
    }

    /// Asks until all answer as wanted at once. Green workers may be silent.
    async fn see(&self, what: &str, wanted: impl Fn(&str, &Told) -> bool) -> BTreeMap<String, Told> {
        let mut seen = BTreeMap::new();
        wait_until(what, VERY_LONG, async || {
            seen = self.told().await;
            let wrong = seen.iter().find(|(name, told)| !wanted(name, told));
            if let Some((name, told)) = wrong {
                eprintln!("not yet, {what}: {name} {}", told.0);
            }
            wrong.is_none() && self.names.iter().all(|name| is_green(name) || seen.contains_key(name))
        })
        .await;
        seen
    }

    async fn told(&self) -> BTreeMap<String, Told> {
        let answers = told(&self.app, &self.nodes()).await;
        answers.into_iter().map(|(node, told)| (node["worker@".len()..].to_owned(), told)).collect()
    }

    /// Lets the jobs end one by one, until every worker says that it has none.
    async fn never_says_idle_with_a_job(&self, jobs: &BTreeMap<String, Vec<String>>) {
        wait_until("all are idle", VERY_LONG, async || {
            let before = self.app.journal().tally(jobs.values().flatten());
            let seen = self.told().await;
            for (name, told) in &seen {
                let runs =
                    jobs[name].iter().find(|job| before.started.contains(*job) && !before.finished.contains(*job));
                assert!(
                    told.has_work() || runs.is_none(),
                    "{name} says that it is idle, and runs {runs:?}: {}",
                    told.0
                );
            }
            // No job ends but here, so what ran before the question ran when it was answered.
            self.app.tell(&before.started);
            let ended = async || {
                let now = self.app.journal().tally(jobs.values().flatten());
                before.started.is_subset(&now.finished)
            };
            wait_until("what was told to end has ended", VERY_LONG, ended).await;
            let busy = seen.iter().find(|(_, told)| told.has_work());
            if let Some((name, told)) = busy {
                eprintln!("not yet idle, of {} that answered: {name} {}", seen.len(), told.0);
            }
            seen.len() == self.names.len() && busy.is_none()
        })
        .await;
        // What was said to be over is over: nothing begins any more.
        let last = self.app.journal().tally(jobs.values().flatten());
        self.see("all are idle still", |_, told| !told.has_work()).await;
        assert_eq!(self.app.journal().tally(jobs.values().flatten()), last);
        assert!(last.started == last.finished, "{last:?}");
    }

    /// Jobs that are over and that Celery still lists.
    async fn has_ghosts_of_celery_only(&self) {
        let active = self.app.ask("active", &self.nodes(), json!({})).await;
        for name in ["5.3-prefork", "5.5-prefork"] {
            let ghosts = active[&format!("worker@{name}")].as_array().unwrap().len();
            assert_eq!(ghosts, 1, "Celery's own `active` of {name}: {active:?}");
        }
        for (name, told) in self.told().await {
            assert_eq!(told.counts(["active", "reserved"]), [0, 0], "{name}: {}", told.0);
        }
    }
}
