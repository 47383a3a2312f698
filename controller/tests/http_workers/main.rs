//! Workers that answer over HTTP: real Celery workers with `contrib/celery/worker_drain_http.py` on Redis and on an SQS,
//! the example that is not Celery, and servers that do not answer as they should.

#![allow(clippy::unwrap_used, reason = "all of it is test")]

mod celery;
mod contract;
mod endpoints;
mod example;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use test_support::{LONG, wait_until};
use worker_drain::{
    clock::SystemClock,
    identity::{Expected, Identity},
    workers::{
        Workers,
        http::{Http, HttpSettings},
    },
};
use worker_drain_plan::{
    NodeName, TaskId,
    observation::{Answer, Mapping, WorkersView},
};

const TOKEN: &str = "a-token-for-tests-only";

fn settings(port: u16) -> HttpSettings {
    HttpSettings { token: TOKEN.into(), reply_bound: Duration::from_secs(10), ..HttpSettings::new(port) }
}

fn open(settings: &HttpSettings) -> Http {
    Http::open(settings, Arc::new(SystemClock)).unwrap()
}

/// A running task at this address.
fn at(address: &str) -> Expected {
    let identity = Identity { addresses: [address.parse().unwrap()].into(), ..Identity::default() };
    Expected { identity, nodes: BTreeSet::new(), running: true }
}

/// One running task, `t`, at this address.
fn task(address: &str) -> BTreeMap<TaskId, Expected> {
    [("t".into(), at(address))].into()
}

fn node() -> NodeName {
    "http@t".into()
}

/// What the only worker answers; waits until it does, and until that is so.
async fn until(workers: &Http, address: &str, what: &str, holds: impl Fn(&Answer) -> bool) -> Answer {
    let (tasks, mut last) = (task(address), None);
    wait_until(what, LONG, async || {
        last = workers.observe(&tasks).await.ok().and_then(|view| view.nodes.get(&node()).cloned());
        last.as_ref().is_some_and(&holds)
    })
    .await;
    last.unwrap()
}

fn queues(answer: &Answer) -> Option<Vec<&str>> {
    answer.queues.as_ref().map(|queues| queues.iter().map(|queue| queue.name.as_str()).collect())
}

fn ids(jobs: Option<&Vec<worker_drain_plan::observation::Job>>) -> BTreeSet<&str> {
    jobs.into_iter().flatten().map(|job| job.id.as_str()).collect()
}

fn hint(view: &WorkersView) -> String {
    match &view.tasks[&TaskId::from("t")] {
        Mapping::NotFound { hint } => hint.clone(),
        Mapping::Ambiguous { why } => why.clone(),
        Mapping::Nodes(nodes) => format!("{nodes:?}"),
    }
}
