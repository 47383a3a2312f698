//! `simulate`: runs many seeds on all cores, or replays one and tells its story.

use std::{
    io::Write,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use clap::Parser;
use simulation::{FaultSet, Options, Tally, run, shrink};
use tokio::time::Instant;

/// A history is mostly small maps that are made and dropped: with the C library's allocator it takes a fifth longer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs whole rollouts on virtual time, with faults, and judges them.
#[derive(Parser, Debug)]
#[command(version, about)]
struct Arguments {
    /// Which seeds: `A..B`, without B.
    #[arg(long, default_value = "0..10000", value_parser = range)]
    seeds: std::ops::Range<u64>,
    /// How many at once; all cores if not given.
    #[arg(long)]
    jobs: Option<usize>,
    /// Runs this one seed and tells what happened.
    #[arg(long)]
    replay: Option<u64>,
    /// With --replay: faults to leave out, by name, with commas.
    #[arg(long, default_value = "")]
    without: FaultSet,
    /// With --replay: beats of the script to leave out, by number, with commas.
    #[arg(long, value_delimiter = ',')]
    cut: Vec<usize>,
    /// Goes on after a failure, and tells of each in one line.
    #[arg(long)]
    keep_going: bool,
    /// Does not fail if something never occurred: for a few seeds.
    #[arg(long)]
    partial: bool,
    /// Says nothing but which seed broke which rule, and how, with tabs in between.
    #[arg(long)]
    quiet: bool,
}

fn range(text: &str) -> Result<std::ops::Range<u64>, String> {
    let parse = |part: &str| part.parse::<u64>().map_err(|error| format!("{part}: {error}"));
    let (from, to) = text.split_once("..").ok_or("expected A..B")?;
    Ok(parse(from)?..parse(to)?)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.replay {
        Some(seed) => replay(seed, &arguments),
        None => many(&arguments),
    }
}

/// Tells the story of one seed.
fn replay(seed: u64, arguments: &Arguments) -> ExitCode {
    let options = Options { seed, without: arguments.without, cut: arguments.cut.clone(), telling: true };
    let outcome = run(&options);
    let mut out = std::io::stdout().lock();
    for line in &outcome.story {
        // A reader who has seen enough closes the pipe.
        if writeln!(out, "{line}").is_err() {
            break;
        }
    }
    match outcome.broken {
        Some(broken) => {
            let _ = writeln!(out, "\nseed {seed} breaks rule {}: {}", broken.rule, broken.what);
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

/// What all threads share.
#[derive(Default)]
struct Shared {
    next: AtomicU64,
    stop: AtomicBool,
    tally: Mutex<Tally>,
    failures: Mutex<Vec<(u64, simulation::Broken)>>,
}

fn many(arguments: &Arguments) -> ExitCode {
    let jobs = arguments.jobs.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    let shared = Shared::default();
    shared.next.store(arguments.seeds.start, Ordering::Relaxed);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| work(arguments, &shared));
        }
        if !arguments.quiet {
            progress(arguments, &shared, begun);
        }
    });
    let tally = std::mem::take(&mut *shared.tally.lock().unwrap_or_else(PoisonError::into_inner));
    let mut failures = std::mem::take(&mut *shared.failures.lock().unwrap_or_else(PoisonError::into_inner));
    failures.sort_by_key(|(seed, _)| *seed);
    if !arguments.quiet {
        summary(&tally, jobs, begun.elapsed());
    }
    verdict(arguments, &tally, &failures)
}

fn work(arguments: &Arguments, shared: &Shared) {
    let mut own = Tally::default();
    while !shared.stop.load(Ordering::Relaxed) {
        let seed = shared.next.fetch_add(1, Ordering::Relaxed);
        if seed >= arguments.seeds.end {
            break;
        }
        let outcome = run(&Options { seed, ..Options::default() });
        own.add(&outcome.tally);
        if let Some(broken) = outcome.broken {
            if arguments.keep_going {
                println!("seed {seed} breaks rule {}: {}", broken.rule, broken.what);
            } else {
                shared.stop.store(true, Ordering::Relaxed);
            }
            shared.failures.lock().unwrap_or_else(PoisonError::into_inner).push((seed, broken));
        }
    }
    shared.tally.lock().unwrap_or_else(PoisonError::into_inner).add(&own);
}

/// A line that is written over until all is done.
fn progress(arguments: &Arguments, shared: &Shared, begun: Instant) {
    let all = arguments.seeds.end.saturating_sub(arguments.seeds.start);
    loop {
        let next = shared.next.load(Ordering::Relaxed).min(arguments.seeds.end);
        let done = next.saturating_sub(arguments.seeds.start);
        let rate = rate(done, begun.elapsed());
        let filled = usize::try_from(done * 30 / all.max(1)).unwrap_or(30);
        let failed = shared.failures.lock().unwrap_or_else(PoisonError::into_inner).len();
        let rest = " ".repeat(30 - filled.min(30));
        eprint!("\r[{}{rest}] {done} of {all} seeds, {rate} a second, {failed} failed ", "=".repeat(filled.min(30)));
        if done >= all || shared.stop.load(Ordering::Relaxed) {
            eprintln!();
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn rate(count: u64, took: Duration) -> u64 {
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    count.saturating_mul(1000) / ms
}

fn summary(tally: &Tally, jobs: usize, took: Duration) {
    let rate = rate(tally.histories, took);
    println!(
        "{} histories in {} s on {jobs} threads: {rate} a second; {} days of virtual time, {} passes ({} broken off), {} jobs done",
        tally.histories,
        took.as_secs(),
        tally.virtual_ms / 86_400_000,
        tally.passes,
        tally.broken_off,
        tally.jobs,
    );
    println!("\nrules checked:\n{}", list(tally.rules.iter()));
    let faults = tally.faults.iter().map(|(fault, count)| (fault.name(), count));
    println!("faults injected:\n{}", list(faults));
    println!("actions decided:\n{}", list(tally.actions.iter()));
    let outcomes = tally.outcomes.iter().map(|((action, outcome), count)| (format!("{action} {outcome}"), count));
    println!("what became of them:\n{}", list(outcomes));
    let reasons = tally.reasons.iter().map(|((condition, reason), count)| (format!("{condition} {reason}"), count));
    println!("conditions told, and their reasons:\n{}", list(reasons));
    println!("phases of tasks:\n{}", list(tally.task_phases.iter()));
    println!("rollouts ended:\n{}", list(tally.endings.iter()));
    println!("jobs cut off, and why that was not by our permit:\n{}", list(tally.deaths.iter()));
}

fn list<K: std::fmt::Display, V: std::fmt::Display>(items: impl Iterator<Item = (K, V)>) -> String {
    items.map(|(name, count)| format!("  {count:>12}  {name}")).collect::<Vec<_>>().join("\n") + "\n"
}

fn verdict(arguments: &Arguments, tally: &Tally, failures: &[(u64, simulation::Broken)]) -> ExitCode {
    if let Some((seed, broken)) = failures.first() {
        if arguments.quiet {
            // For scripts: a rule's name may have a colon in it, and no tab.
            println!("{seed}\t{}\t{}", broken.rule, broken.what);
            return ExitCode::FAILURE;
        }
        println!("seed {seed} breaks rule {}: {}", broken.rule, broken.what);
        if arguments.keep_going {
            return ExitCode::FAILURE;
        }
        let small = shrink(&Options { seed: *seed, ..Options::default() }, broken.rule);
        let cut: Vec<String> = small.cut.iter().map(ToString::to_string).collect();
        let outcome = run(&small);
        println!("smallest history found: faults {}; {} beats", outcome.faults, outcome.script.len() - small.cut.len());
        let without =
            if small.without == FaultSet::NONE { String::new() } else { format!(" --without {}", small.without) };
        let cut = if cut.is_empty() { String::new() } else { format!(" --cut {}", cut.join(",")) };
        println!("replay it with:\n    cargo run -p simulation -- --replay {seed}{without}{cut}");
        return ExitCode::FAILURE;
    }
    let holes = if arguments.partial { Vec::new() } else { tally.holes() };
    if !holes.is_empty() {
        println!("these never occurred, so nothing is proven of them: {}", holes.join(", "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
