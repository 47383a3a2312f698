//! The two acts.

use std::{collections::BTreeSet, path::Path, process::Stdio, time::Duration};

use e2e::{Figures, Setup, Stage, TaskView, binary};
use ecs_emulator::model::{Entry, Time, Transition};
use test_support::Jobs;
use tokio::time::sleep;

pub const TASKS: u32 = 4;
pub const STOP_TIMEOUT: Duration = Duration::from_secs(3);
pub const SHORTEST: u32 = 10;
pub const LONGEST: u32 = 30;

/// What runs at once, what waits in the workers, and a few that wait in the queue.
const JOBS: usize = 20;
const AT_ONCE: usize = 8;
const SEED: u64 = 26;

/// What came of the second act.
pub struct ActTwo {
    pub figures: Figures,
    /// How `worker-drain` ended; `None`: by a signal.
    pub exit: Option<i32>,
}

async fn stage() -> Stage {
    println!("  starting Redis, ECS and {TASKS} workers ...");
    Stage::start(Setup { tasks: TASKS, concurrency: 2, stop_timeout: STOP_TIMEOUT, ..Setup::default() }).await
}

/// The same jobs each time. Returns when the workers are full.
async fn load(stage: &Stage) -> Vec<String> {
    let jobs = Jobs::new(JOBS).seconds(SHORTEST.into(), LONGEST.into()).seed(SEED);
    let jobs = stage.submit(jobs).await;
    stage.app().journal().wait_started(&jobs, AT_ONCE).await;
    println!("  {JOBS} jobs: {AT_ONCE} run, the others wait, most of them in the workers, as Celery takes some ahead.");
    jobs
}

/// Without worker-drain: what ECS does.
pub async fn without() -> Figures {
    println!("\nACT 1: without worker-drain");
    let stage = stage().await;
    let jobs = load(&stage).await;
    let old = stage.tasks();
    let deployed = stage.now();
    stage.deploy();
    println!("  a new revision is deployed.");

    let mut told = BTreeSet::new();
    stage
        .until("ECS has stopped the old tasks", |stage| {
            narrate(stage, &jobs, deployed, &mut told);
            old.iter().all(|task| stage.task(task.id).is_over())
        })
        .await;
    println!("  the old tasks are gone. The new ones go on with what is left in the queue ...");
    until_nothing_runs(&stage, &jobs).await;
    stage.until_rolled_out().await;
    let figures = stage.figures(&jobs, deployed);
    println!("  {} jobs were killed in mid-run. Celery had acknowledged them: nobody will run them.", figures.lost);
    if figures.waiting > 0 {
        println!("  {} more had been taken by killed workers; Redis gives them back in an hour.", figures.waiting);
    }
    figures
}

/// Tells what ECS does to tasks, each once.
fn narrate(stage: &Stage, jobs: &[String], deployed: Time, told: &mut BTreeSet<String>) {
    let entries: Vec<Entry> = stage
        .emulator()
        .with_world(|world| world.history().iter().filter(|entry| entry.at >= deployed).cloned().collect());
    for entry in entries {
        let task = match &entry.what {
            Transition::Terminate { task } | Transition::Kill { task, .. } => stage.task(*task),
            _ => continue,
        };
        let line = match &entry.what {
            Transition::Terminate { .. } => format!("SIGTERM to {}", name(&task)),
            _ => format!("SIGKILL to {}, with {} jobs running", name(&task), stage.running_on(&task, jobs).len()),
        };
        if told.insert(line.clone()) {
            println!("  {:5.1} s  {line}", entry.at.since(deployed).as_secs_f64());
        }
    }
}

fn name(task: &TaskView) -> String {
    format!("task {}", &task.id.to_string()[..8])
}

/// All jobs that began have ended or are lost, and the queue is empty, for a while: a job that was just taken from the
/// queue needs a moment to begin.
async fn until_nothing_runs(stage: &Stage, jobs: &[String]) {
    const LOOKS: usize = 20;
    let mut quiet = 0;
    while quiet < LOOKS {
        let tally = stage.app().journal().tally(jobs);
        let over = tally.finished.len() + stage.lost(jobs).len() == tally.started.len();
        quiet = if over && stage.queue_length() == 0 { quiet + 1 } else { 0 };
        sleep(Duration::from_millis(100)).await;
    }
}

/// With worker-drain.
pub async fn with(terminal: bool) -> ActTwo {
    println!("\nACT 2: the same with worker-drain");
    let stage = stage().await;
    let old = stage.tasks();
    let jobs = load(&stage).await;
    // Nothing more is said from here on: on a terminal, the live view has it to itself.
    println!("  when worker-drain holds every task, a new revision is deployed.");
    println!("  $ worker-drain run -f drain.yaml --wait-for-rollout");
    if !terminal {
        println!("  (on a terminal it shows a live view; here, a line for each change)");
    }
    let mut drain = start(&stage);
    tokio::select! {
        () = stage.until_held(&old) => {}
        _ = drain.wait() => panic!("worker-drain ended before it held the tasks"),
    }
    let deployed = stage.now();
    stage.deploy();

    let status = drain.wait().await.expect("worker-drain was started");
    stage.app().journal().wait_finished(&jobs).await;
    stage.until_rolled_out().await;
    ActTwo { figures: stage.figures(&jobs, deployed), exit: status.code() }
}

/// `worker-drain` on this terminal. It ends with us, however we end.
fn start(stage: &Stage) -> tokio::process::Child {
    let mut command = stage.command(Path::new("setpriv"));
    command.args(["--pdeathsig", "KILL", "--"]).arg(binary()).args(["run", "--wait-for-rollout", "-f"]);
    command.arg(stage.manifest()).arg("--state").arg(stage.folder().join("state")).stdin(Stdio::null());
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true).spawn().expect("worker-drain can be started (setpriv is in the package util-linux)")
}
