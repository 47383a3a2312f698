//! How long it takes to ask nodes what they do.

use std::{collections::BTreeMap, process::Stdio, sync::Arc, time::Duration};

use e2e::Broker;
use serde_json::Value;
use test_support::{CeleryWorker, LONG, ModelledNodes, SampleApp, python, repository, wait_until};
use tokio::{process::Command, time::Instant};
use worker_drain::{
    clock::SystemClock,
    identity::Expected,
    workers::{
        Workers,
        celery::{Celery, CelerySettings},
    },
};
use worker_drain_plan::TaskId;

use crate::{BROKERS, compared, shown};

/// More real workers than this would measure the machine.
const REAL: usize = 10;

/// Celery's command line takes so long to start that few looks tell as much as many.
const FEW: usize = 5;

/// Nodes that are there as long as this is.
struct Nodes {
    names: Vec<String>,
    _real: Vec<CeleryWorker>,
    _modelled: Option<ModelledNodes>,
}

impl Nodes {
    async fn start(app: &SampleApp, count: usize) -> Self {
        let names: Vec<String> = (0..count).map(|number| format!("worker@{number}")).collect();
        if count > REAL {
            let modelled = Some(ModelledNodes::start(app.broker(), names.clone()).await);
            return Self { names, _real: Vec::new(), _modelled: modelled };
        }
        // All at once: each takes seconds to start.
        let starting: Vec<CeleryWorker> = names.iter().map(|name| app.worker(name).pool("solo").spawn()).collect();
        let mut real = Vec::new();
        for worker in starting {
            real.push(worker.ready().await);
        }
        Self { names, _real: real, _modelled: None }
    }
}

/// Prints the table.
pub async fn measure(looks: usize) {
    println!("\nAsking nodes what they do: the median of {looks} looks, and how many times ours it is.");
    println!(
        "Ours and Python's API ask for queues, reserved, active and scheduled jobs, the command for active jobs alone.\n"
    );
    println!(
        "{:<10}{:>7}{:>10}{:>20}{:>20}{:>22}{:>20}",
        "", "nodes", "ours", "API, told nodes", "API", "`inspect active -d`", "`inspect active`"
    );
    for (name, kind) in BROKERS {
        for count in [1, 10, 300] {
            let broker = Broker::start(kind).await;
            let app = broker.app(&Value::Null);
            let nodes = Nodes::start(&app, count).await;
            let ours = ours(app.broker(), count, looks).await;
            let all = nodes.names.join(",");
            let api_told = api(&app, looks, Some(&all)).await;
            let api = api(&app, FEW, None).await;
            let command_told = command(&app, &["--destination", &all, "--timeout", "30"]).await;
            let command = command(&app, &[]).await;
            println!(
                "{name:<10}{count:>7}{:>10}{:>20}{:>20}{:>22}{:>20}",
                shown(e2e::percentile(&ours, 50)),
                compared(&api_told, &ours),
                compared(&api, &ours),
                compared(&command_told, &ours),
                compared(&command, &ours)
            );
        }
    }
}

async fn ours(url: &str, count: usize, looks: usize) -> Vec<Duration> {
    let open = |reply_bound: Duration| {
        let node_names = vec!["worker@{taskId}".into()];
        let settings = CelerySettings { node_names, reply_bound, operation_bound: LONG, ..CelerySettings::new(url) };
        Celery::open(&settings, Arc::new(SystemClock)).expect("the settings are good")
    };
    let running = Expected { running: true, ..Expected::default() };
    let tasks: BTreeMap<TaskId, Expected> =
        (0..count).map(|number| (TaskId::from(number.to_string()), running.clone())).collect();
    // A worker says that it is ready a moment before it listens.
    let early = open(Duration::from_secs(2));
    wait_until("all answer", LONG * 2, async || {
        early.observe(&tasks).await.is_ok_and(|view| view.nodes.len() == count)
    })
    .await;
    early.close().await;
    let celery = open(LONG);
    let mut took = Vec::new();
    // The first one connects.
    for _ in 0..=looks {
        let began = Instant::now();
        let view = celery.observe(&tasks).await.expect("the broker is there");
        took.push(began.elapsed());
        assert_eq!(view.nodes.len(), count, "all have answered");
    }
    celery.close().await;
    took.split_off(1)
}

async fn api(app: &SampleApp, looks: usize, nodes: Option<&str>) -> Vec<Duration> {
    let mut arguments = vec!["rival.py".to_owned(), "inspect".into(), "--looks".into(), looks.to_string()];
    arguments.extend(nodes.iter().flat_map(|nodes| ["--nodes".to_owned(), (*nodes).to_owned()]));
    let seconds: Vec<f64> = serde_json::from_slice(&run(app, &arguments).await).expect("it prints a list");
    seconds.into_iter().map(Duration::from_secs_f64).collect()
}

async fn command(app: &SampleApp, more: &[&str]) -> Vec<Duration> {
    let mut arguments = ["-m", "celery", "--app", "app", "inspect", "active"].map(String::from).to_vec();
    arguments.extend(more.iter().map(|word| (*word).to_owned()));
    let mut took = Vec::new();
    for _ in 0..FEW {
        let began = Instant::now();
        run(app, &arguments).await;
        took.push(began.elapsed());
    }
    took
}

/// What a Python program of the sample app prints.
async fn run(app: &SampleApp, arguments: &[String]) -> Vec<u8> {
    let mut command = Command::new(python());
    command.args(arguments).current_dir(repository().join("tests/celery")).envs(app.environment());
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.expect("Python can be run");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
