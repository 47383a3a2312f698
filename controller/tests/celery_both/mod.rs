//! What Celery's remote control is to do over every broker, on real parts: a broker, and Celery workers of the sample app.
//!
//! Each kind of broker has a test program of its own, which includes this and says what `a_broker` is.

mod events;
mod lookings;
mod orders;
mod outages;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use test_support::LONG;
use worker_drain::{
    clock::SystemClock,
    identity::Expected,
    workers::{
        Workers,
        celery::{Celery, CelerySettings},
    },
};
use worker_drain_plan::{
    NodeName, TaskId,
    observation::{Answer, Mapping, WorkersView},
};

/// Tasks by these ids, all running. Their nodes are called `worker@<id>`.
pub fn tasks(ids: &[&str]) -> BTreeMap<TaskId, Expected> {
    let running = Expected { running: true, ..Expected::default() };
    ids.iter().map(|id| (TaskId::from(*id), running.clone())).collect()
}

/// Tasks as [`tasks`] has them, whose nodes were seen before.
pub fn known_tasks(ids: &[&str]) -> BTreeMap<TaskId, Expected> {
    let mut tasks = tasks(ids);
    for (id, expected) in &mut tasks {
        expected.nodes.insert(node(id.as_str()));
    }
    tasks
}

pub fn node(task: &str) -> NodeName {
    NodeName::from(format!("worker@{task}"))
}

/// Settings for this broker. On a busy machine one look may miss what is late: tests look until they see what they want,
/// or look with a [`patient`] client.
pub fn settings(url: &str) -> CelerySettings {
    CelerySettings {
        node_name: Some("worker@{taskId}".into()),
        reply_bound: Duration::from_secs(2),
        operation_bound: Duration::from_secs(10),
        ..CelerySettings::new(url)
    }
}

/// A client that waits for replies as long as it takes.
pub fn patient(url: &str) -> Celery {
    open(&CelerySettings { reply_bound: LONG, ..settings(url) })
}

pub fn open(settings: &CelerySettings) -> Celery {
    Celery::open(settings, Arc::new(SystemClock)).unwrap_or_else(|error| panic!("{error}"))
}

/// Waits until all these nodes answer: "ready" in a worker's log comes a moment before it listens to us.
pub async fn all_answer(celery: &Celery, tasks: &BTreeMap<TaskId, Expected>) -> WorkersView {
    let answers = |view: &WorkersView, task: &TaskId| view.nodes.contains_key(&node(task.as_str()));
    // One that was seen before maps to its task though it is silent.
    let listening = |view: &WorkersView| tasks.keys().all(|id| maps_to(view, id.as_str()) && answers(view, id));
    look_until("all answer", celery, tasks, listening).await
}

/// Looks until what is seen is as wanted. A worker that reconnects does not answer for some seconds.
pub async fn look_until(
    what: &str,
    celery: &Celery,
    tasks: &BTreeMap<TaskId, Expected>,
    wanted: impl Fn(&WorkersView) -> bool,
) -> WorkersView {
    let mut last = None;
    test_support::wait_until(what, LONG, async || {
        let view = celery.observe(tasks).await;
        let fine = view.as_ref().is_ok_and(&wanted);
        last = Some(view);
        fine
    })
    .await;
    last.expect("we looked").expect("it was fine")
}

pub fn maps_to(view: &WorkersView, task: &str) -> bool {
    view.tasks[&TaskId::from(task)] == Mapping::Nodes([node(task)].into())
}

pub fn queues(answer: &Answer) -> Vec<&str> {
    let mut names: Vec<&str> = answer.queues.iter().flatten().map(|queue| queue.name.as_str()).collect();
    names.sort_unstable();
    names
}

pub fn ids(jobs: Option<&Vec<worker_drain_plan::observation::Job>>) -> Vec<&str> {
    let mut ids: Vec<&str> = jobs.expect("the node answered").iter().map(|job| job.id.as_str()).collect();
    ids.sort_unstable();
    ids
}
