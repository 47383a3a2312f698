//! `make demo`: the same deployment under the same load, without worker-drain and with it.

mod acts;
mod table;

use std::{io::IsTerminal as _, process::ExitCode};

use test_support::repository;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    // A part that is missing is told in one line, without a trace.
    std::panic::set_hook(Box::new(|panic| eprintln!("demo: {}", panic.payload_as_str().unwrap_or("it has failed"))));
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be waited for");
    let mut interrupt = signal(SignalKind::interrupt()).expect("signals can be waited for");
    let mut hangup = signal(SignalKind::hangup()).expect("signals can be waited for");
    // What runs is ended by being dropped.
    tokio::select! {
        code = demo() => code,
        _ = interrupt.recv() => ended(130),
        _ = terminate.recv() => ended(143),
        _ = hangup.recv() => ended(129),
    }
}

fn ended(code: u8) -> ExitCode {
    eprintln!("\ndemo: ended early; everything that it had started is ended with it");
    ExitCode::from(code)
}

async fn demo() -> ExitCode {
    e2e::binary(); // Better now than after the first act.
    println!("A deployment of Celery workers on Amazon ECS, twice: without worker-drain, and with it.");
    println!("Real: Redis, {} Celery workers, their jobs, worker-drain. Emulated: ECS, whose", acts::TASKS);
    println!(
        "stopTimeout of at most 120 s is {} s here, as hours of work are {} to {} s.",
        acts::STOP_TIMEOUT.as_secs(),
        acts::SHORTEST,
        acts::LONGEST
    );

    let without = acts::without().await;
    let with = acts::with(std::io::stdout().is_terminal()).await;

    println!("\n{}", table::of(&without, &with.figures));
    println!("Jobs were counted from what they wrote themselves when they began and ended.");
    println!("The same by hand, with the aws command line: {}", repository().join("README.md").display());
    verdict(&without, &with)
}

fn verdict(without: &e2e::Figures, with: &acts::ActTwo) -> ExitCode {
    let figures = &with.figures;
    let mut wrong = Vec::new();
    if without.lost == 0 {
        wrong.push("act 1 lost no job, so act 2 proves nothing".to_owned());
    }
    if figures.finished < figures.submitted {
        wrong.push(format!("act 2 lost {} jobs", figures.submitted - figures.finished));
    }
    if figures.run_twice > 0 {
        wrong.push(format!("act 2 ran {} jobs twice", figures.run_twice));
    }
    if with.exit != Some(0) {
        wrong.push(format!("worker-drain ended with {:?}, and not with 0", with.exit));
    }
    for what in &wrong {
        eprintln!("demo: {what}");
    }
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
