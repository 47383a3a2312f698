//! `make bench`: what worker-drain costs, and how it compares with Celery's own tools on the same broker in the same run.
//! What the tables mean, and what was measured once, is in docs/benchmarks.md.

mod inspect;
mod releases;
mod rollouts;

use std::{process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};
use e2e::{BrokerKind, percentile};

/// Measures on real workers and real brokers.
#[derive(Debug, Parser)]
struct Options {
    /// What to measure [default: all of it]
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Deployments to measure.
    #[arg(long, default_value_t = 3)]
    runs: u64,
    /// Tasks of the service.
    #[arg(long, default_value_t = 4)]
    tasks: u32,
    /// Looks of each kind.
    #[arg(long, default_value_t = 20)]
    looks: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// How long it takes to ask nodes what they do.
    Inspect,
    /// How long a hold outlasts the last job.
    Releases,
    /// What whole deployments cost.
    Rollouts,
}

const BROKERS: [(&str, BrokerKind); 2] = [("Redis", BrokerKind::Redis), ("RabbitMQ", BrokerKind::RabbitMq)];

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    if cfg!(debug_assertions) {
        eprintln!("error: this is a debug build, and its figures would mislead: run `make bench`");
        return ExitCode::FAILURE;
    }
    let wanted = |part| options.only.is_empty() || options.only.contains(&part);
    if wanted(Part::Inspect) {
        inspect::measure(options.looks).await;
    }
    if wanted(Part::Releases) {
        releases::measure(options.tasks).await;
    }
    if wanted(Part::Rollouts) && rollouts::measure(options.runs, options.tasks).await > 0 {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// A duration for people, or `-` if there is none.
fn shown(value: Option<Duration>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value < Duration::from_secs(1) => format!("{:.1} ms", value.as_secs_f64() * 1000.0),
        Some(value) => format!("{:.2} s", value.as_secs_f64()),
    }
}

/// A median, and how many times the other one it is.
fn compared(values: &[Duration], with: &[Duration]) -> String {
    let (Some(median), Some(other)) = (percentile(values, 50), percentile(with, 50)) else { return "-".to_owned() };
    format!("{} ({:.1}x)", shown(Some(median)), median.as_secs_f64() / other.as_secs_f64().max(1e-6))
}
