//! How long a hold outlasts the last job of its task: ours, as workers send events or do not, and what a pipeline's own
//! script would do.

use std::{process::Stdio, time::Duration};

use e2e::{BrokerKind, Setup, Stage, TaskView, percentile};
use serde_json::{Value, json};
use test_support::{python, repository};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::sleep,
};

use crate::{BROKERS, compared, shown};

/// Between the ends of two tasks' jobs. No multiple of a poll interval, so that ends fall anywhere within one.
const APART: Duration = Duration::from_millis(3700);

/// Prints the table.
pub async fn measure(tasks: u32) {
    println!(
        "\nFrom a task's last job to the permit to stop it: the median of {tasks}, and how many times the first it is."
    );
    println!("Ours is proven by two looks, 1 s apart (idleFor); the script looks once, each second.\n");
    println!("{:<10}{:>16}{:>20}{:>20}{:>20}", "", "ours, with -E", "ours, heartbeats", "ours, no events", "script");
    for (name, kind) in BROKERS {
        let with_events = ours(kind, tasks, true, "Listen").await;
        let heartbeats = ours(kind, tasks, false, "Listen").await;
        let without = ours(kind, tasks, false, "Ignore").await;
        let script = script(kind, tasks).await;
        println!(
            "{name:<10}{:>16}{:>20}{:>20}{:>20}",
            shown(percentile(&with_events, 50)),
            compared(&heartbeats, &with_events),
            compared(&without, &with_events),
            compared(&script, &with_events)
        );
    }
}

async fn stage(broker: BrokerKind, tasks: u32, sends_events: bool) -> Stage {
    let settings = json!({"worker_send_task_events": sends_events});
    Stage::start(Setup { broker, tasks, concurrency: 1, prefetch: 0, settings, ..Setup::default() }).await
}

async fn ours(broker: BrokerKind, tasks: u32, sends_events: bool, events: &str) -> Vec<Duration> {
    let stage = stage(broker, tasks, sends_events).await;
    let mut drain = stage.run_with_events(events, &["--wait-for-rollout"]);
    let old = stage.tasks();
    stage.until_held(&old).await;
    let jobs = stage.fill("job").await;
    let deployed = stage.now();
    stage.deploy();
    stage.until_revision_is_up(2).await;
    stage.until_cancelled(&old).await;
    end_one_by_one(&stage, &old, &jobs).await;
    assert_eq!(drain.ended().await, 0, "worker-drain says that all is drained");
    stage.figures(&jobs, deployed).releases
}

async fn end_one_by_one(stage: &Stage, tasks: &[TaskView], jobs: &[String]) {
    for task in tasks {
        sleep(APART).await;
        stage.app().tell(&stage.running_on(task, jobs));
    }
}

async fn script(broker: BrokerKind, tasks: u32) -> Vec<Duration> {
    let stage = stage(broker, tasks, false).await;
    let old = stage.tasks();
    let jobs = stage.fill("job").await;
    let mut scripts = Vec::new();
    for task in &old {
        scripts.push(Script::start(&stage, task));
    }
    for script in &mut scripts {
        assert_eq!(script.next_line().await, "cancelled");
    }
    end_one_by_one(&stage, &old, &jobs).await;
    let mut took = Vec::new();
    for (task, mut script) in old.iter().zip(scripts) {
        let said: Value = serde_json::from_str(&script.next_line().await).expect("it prints the time");
        let records = stage.app().journal().records();
        let ends = records.values().filter(|record| record.node == task.node()).flat_map(|record| &record.ends);
        let last = ends.copied().fold(0.0, f64::max);
        took.push(Duration::from_secs_f64((said.as_f64().unwrap_or_default() - last).max(0.0)));
    }
    took
}

/// The script, as it waits for one task.
struct Script {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Script {
    fn start(stage: &Stage, task: &TaskView) -> Self {
        let mut command = Command::new(python());
        command.args(["rival.py", "drain", "--node", &task.node()]);
        command.current_dir(repository().join("tests/celery")).envs(stage.app().environment());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("Python can be run");
        let stdout = child.stdout.take().expect("it is piped");
        Self { _child: child, lines: BufReader::new(stdout).lines() }
    }

    async fn next_line(&mut self) -> String {
        self.lines.next_line().await.expect("it can be read").expect("the script says something")
    }
}
