//! What every test of Celery's remote control needs: clients, tasks, looks.

#![allow(dead_code, reason = "each test program uses some of it")]

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
    observation::{Answer, Mapping, Queue, WorkersView},
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
        node_names: vec!["worker@{taskId}".into()],
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

/// Waits until all these nodes answer all that they are asked: "ready" in a worker's log comes a moment before it listens
/// to us.
pub async fn all_answer(celery: &Celery, tasks: &BTreeMap<TaskId, Expected>) -> WorkersView {
    let listening = |view: &WorkersView| {
        let mut nodes = tasks.keys().map(|task| view.nodes.get(&node(task.as_str())));
        nodes.all(|answer| answer.is_some_and(has_said_all)) && tasks.keys().all(|task| maps_to(view, task.as_str()))
    };
    look_until("all answer", celery, tasks, listening).await
}

/// Whether all questions were answered. A worker that is slow may answer some of them in time.
pub fn has_said_all(answer: &Answer) -> bool {
    answer.is_whole()
}

/// Whether this task's node was seen to consume these queues and no others.
pub fn consumes(view: &WorkersView, task: &str, wanted: &[&str]) -> bool {
    view.nodes.get(&node(task)).is_some_and(|answer| answer.queues.is_some() && queues(answer) == wanted)
}

/// How many jobs this task's node was seen to run and to hold, if it said.
pub fn jobs(view: &WorkersView, task: &str) -> Option<(usize, usize)> {
    let answer = view.nodes.get(&node(task))?;
    Some((answer.active.as_ref()?.len(), answer.reserved.as_ref()?.len()))
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

/// Gives queues back until it is read back. Once may not be enough: orders that reach a worker in one moment are carried
/// out in any order, so that an earlier cancel may be the last (hazards.rs).
pub async fn give_back_until(
    what: &str,
    celery: &Celery,
    tasks: &BTreeMap<TaskId, Expected>,
    undos: &[(NodeName, Vec<Queue>)],
    wanted: impl Fn(&WorkersView) -> bool,
) -> WorkersView {
    let mut last = None;
    test_support::wait_until(what, LONG, async || {
        celery.give_back(undos).await;
        last = celery.observe(tasks).await.ok().filter(&wanted);
        last.is_some()
    })
    .await;
    last.expect("it was fine")
}

pub fn maps_to(view: &WorkersView, task: &str) -> bool {
    view.tasks[&TaskId::from(task)] == Mapping::Nodes([node(task)].into())
}

/// Whether the node of this task answered, and takes jobs from these queues. On a busy machine a look may miss it.
pub fn takes(view: &WorkersView, task: &str, wanted: &[&str]) -> bool {
    view.nodes.get(&node(task)).is_some_and(|answer| answer.queues.is_some() && queues(answer) == wanted)
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
