//! What `make test` runs of the simulation: seeds that always run, seeds that once found something, fresh ones for a
//! bounded time, and a second run of the same seed.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use simulation::{Options, Outcome, Tally, run};
use tokio::time::Instant;

/// Seeds that always run: enough for every fault, action, reason and phase to occur.
const FIXED: std::ops::Range<u64> = 0..3_000;
/// For how long fresh seeds are tried, at the most, and how many.
const FRESH_FOR: Duration = Duration::from_mins(1);
const MOST_FRESH: u64 = 100_000;

/// Seeds that once broke a rule, with what was found. They stay, whatever becomes of the script that they stand for.
const FOUND: [(u64, &str); 49] = [
    (1_039_761, "two solo workers of one task, which never answered together, were counted as one"),
    (1_015_228, "a worker that was frozen when it was told heeded that after the floor had changed"),
    (3, "a clock one second behind had every hold set again on every look"),
    (231, "a drain of a deleted service could not be withdrawn"),
    (431, "a stale read showed a task living that had ended"),
    (1921, "an unmapped task that could not be held was not said to be unheld"),
    (16_558, "with room for one hold, the second task was left out without a word"),
    (10_858, "tasks for whose holds no room was left were at risk one look later than they could be"),
    (7_461, "a worker that had never answered anybody"),
    (16_522, "a job with a start time began after the proof"),
    (4_673, "a clock that jumped puts tasks at risk"),
    (13_941, "the simulated record let somebody write over what he had not read"),
    (29, "a drain that was withdrawn forgot old tasks that were still there"),
    (46_824, "a gate that a clock's jump kept from opening was looked at many times a second"),
    (55_468, "a task behind one that waited out a refusal was not said to be unheld"),
    (4_746, "a task that was left out of answers for a minute, and came back, was not to leave"),
    (102_340, "an answer from the past ended a rollout as rolled back"),
    (18_852, "jobs that a deadline had cut in a scale-in were not told by the rollout that counted their task"),
    (205_653, "a task that was being stopped when the fleet turned back was counted by nobody"),
    (101_384, "a drain that was withdrawn forgot which tasks had ended by its permit"),
    (3_205, "a permit of a scale-in was forgotten while its task was being stopped"),
    (25_326, "a permit that another operator kept from being written down was forgotten"),
    (42_041, "an answer from the past began a rollout again that was over"),
    (55_081, "a drain was withdrawn when it had just let go of a task"),
    (414_965, "a task that was let go, and whose revision became current again, was said to have ended unpermitted"),
    (415_997, "a task that was let go in a scale-in, and was told to take jobs again, was judged by what nobody knew"),
    (420_767, "a task that was let go, and was to stay after all, was said to have ended unpermitted"),
    (401_490, "a held task that an old answer showed as starting let its drain be withdrawn"),
    (401_875, "the worker of another task was waited for, for which one answer had taken it"),
    (20_069, "a task that stays after all kept one of its two permits"),
    (411_222, "a task that was killed with jobs was believed to have ended by a release that never came about"),
    (1_004_458, "a task behind a hold that was just refused was called safe"),
    (1_072_565, "a clock that jumped shortened the wait for a rate limit"),
    (1_061_362, "the clock of a second operator shortened the wait for a rate limit"),
    (1_194_103, "a task that was started to balance zones was let go for a scale-in, and was never stopped"),
    (1_130_605, "a hold from the past had queues given back to a task that was just let go"),
    (1_012_063, "a worker behind a gate was not given back what it forgot, because it had taken up another queue"),
    (1_065_181, "who is asked for unacknowledged messages changed once a cancel was written down"),
    (1_130_429, "a task whose hold had run out, and for which none was left, was told of nowhere"),
    (1_113_497, "two tasks of one zone left, one of them because its machine did"),
    (1_114_154, "a deadline was judged by a policy that the operator had not read"),
    (1_180_491, "a task that had its queues again was stopped between rollouts, where nothing holds it"),
    (1_082_692, "a hold ran out while its renewal was on the way"),
    (1_198_733, "a hold reached ECS when its drain was no more"),
    (19_384, "a worker that was taken for another task's made two be expected of each"),
    (808, "a silent worker's cancel changed who may hold messages of the gate"),
    (8_035, "a cancel of a worker whose answer was too old was not written down"),
    (16_439, "a solo worker that lost the broker between two jobs"),
    (22, "a service that was deleted in mid-rollout"),
];

fn judge(seed: u64) -> Outcome {
    let outcome = run(&Options { seed, ..Options::default() });
    if let Some(broken) = &outcome.broken {
        panic!(
            "seed {seed} breaks rule {}: {}\nreplay it with: cargo run -p simulation -- --replay {seed}",
            broken.rule, broken.what
        );
    }
    outcome
}

/// Judges seeds on all cores until they or the time run out.
fn judge_many(seeds: std::ops::Range<u64>, time: Option<Duration>) -> Tally {
    let (next, sum) = (AtomicU64::new(seeds.start), Mutex::new(Tally::default()));
    let begun = Instant::now();
    let work = || {
        let mut own = Tally::default();
        while time.is_none_or(|time| begun.elapsed() < time) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            own.add(&judge(seed).tally);
        }
        sum.lock().expect("no thread panics while it holds the sum").add(&own);
    };
    let cores = std::thread::available_parallelism().map_or(1, Into::into);
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    sum.into_inner().expect("no thread panics while it holds the sum")
}

#[test]
fn fixed_seeds_keep_every_rule_and_leave_nothing_out() {
    let tally = judge_many(FIXED, None);
    let holes = tally.holes();
    assert!(holes.is_empty(), "these never occurred, so nothing is proven of them: {}", holes.join(", "));
}

#[test]
fn seeds_that_found_something_once_find_it_no_more() {
    for (seed, _) in FOUND {
        judge(seed);
    }
}

/// Set `SIMULATION_FROM` to begin elsewhere: a nightly run gives the date.
#[test]
fn fresh_seeds_keep_every_rule() {
    let from = std::env::var("SIMULATION_FROM").ok().and_then(|from| from.parse().ok()).unwrap_or(1_000_000);
    judge_many(from..from + MOST_FRESH, Some(FRESH_FOR));
}

#[test]
fn a_seed_is_the_same_history_every_time() {
    for seed in [1, 7, 42] {
        let told = || run(&Options { seed, telling: true, ..Options::default() }).story;
        let (first, second) = (told(), told());
        assert!(!first.is_empty());
        assert_eq!(first, second, "seed {seed} is not the same history twice");
    }
}

#[test]
fn a_story_changes_nothing() {
    for seed in [2, 5, 11] {
        let passes = |telling| run(&Options { seed, telling, ..Options::default() }).tally.passes;
        assert_eq!(passes(true), passes(false));
    }
}
