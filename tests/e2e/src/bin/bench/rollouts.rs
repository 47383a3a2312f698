//! What whole deployments cost, measured from outside.

use std::{fs, time::Duration};

use e2e::{Figures, Setup, Stage, percentile};
use test_support::Jobs;

/// What one deployment gave.
struct Run {
    figures: Figures,
    /// The most memory that worker-drain used, in KiB.
    memory: u64,
}

/// Takes services through deployments, and prints the table. Returns how many jobs were lost.
pub async fn measure(count: u64, tasks: u32) -> usize {
    let mut runs = Vec::new();
    for seed in 1..=count {
        eprintln!("deployment {seed} of {count} ...");
        runs.push(run(tasks, seed).await);
    }
    let lost: usize = runs.iter().map(|run| run.figures.submitted - run.figures.finished).sum();
    let releases: Vec<Duration> = runs.iter().flat_map(|run| run.figures.releases.clone()).collect();
    let cancels: Vec<Duration> = runs.iter().filter_map(|run| run.figures.to_first_cancel).collect();
    let memory = runs.iter().map(|run| run.memory).max().unwrap_or_default();
    let calls: u64 = runs.iter().map(|run| run.figures.ecs_calls).sum();
    let time: Duration = runs.iter().filter_map(|run| run.figures.rollout).sum();

    println!("\n{count} deployments of {tasks} tasks on Redis, {} releases\n", releases.len());
    println!("{:<48}{:>10}{:>10}", "", "p50", "p99");
    line("from a task's last job to its hold's release", &releases);
    line("from the deployment to the first cancel", &cancels);
    println!(
        "{:<48}{:>6.1} MiB",
        "most memory used by worker-drain",
        f64::from(u32::try_from(memory).unwrap_or(0)) / 1024.0
    );
    println!("{:<48}{:>10}", "calls to ECS for each deployment", calls / count.max(1));
    println!(
        "{:<48}{:>8.1} s",
        "a rollout took, on average",
        time.as_secs_f64() / f64::from(u32::try_from(count.max(1)).unwrap_or(1))
    );
    if lost > 0 {
        eprintln!("bench: {lost} jobs were lost");
    }
    lost
}

fn line(what: &str, values: &[Duration]) {
    let show = |percent| {
        percentile(values, percent).map_or_else(|| "-".to_owned(), |value| format!("{:.2} s", value.as_secs_f64()))
    };
    println!("{what:<48}{:>10}{:>10}", show(50), show(99));
}

async fn run(tasks: u32, seed: u64) -> Run {
    let stage = Stage::start(Setup { tasks, ..Setup::default() }).await;
    let mut drain = stage.run(&["--wait-for-rollout"]);
    stage.until_held(&stage.tasks()).await;
    let count = 3 * tasks as usize;
    let jobs = stage.submit(Jobs::new(count).seconds(4.0, 9.0).seed(seed)).await;
    stage.app().journal().wait_started(&jobs, 2 * tasks as usize).await;
    let deployed = stage.now();
    stage.deploy();
    stage.app().journal().wait_finished(&jobs).await;
    let memory = most_memory(drain.process().id());
    assert_eq!(drain.ended().await, 0, "worker-drain says that all is drained");
    stage.until_rolled_out().await;
    Run { figures: stage.figures(&jobs, deployed), memory }
}

/// `VmHWM` of proc(5), in KiB.
fn most_memory(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
}
