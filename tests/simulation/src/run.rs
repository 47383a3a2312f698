//! One history, from a seed to its verdict; and how a failing one is made smaller.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
};

use futures::future::join;

use crate::{
    fault::FaultSet, judge::Broken, operator::operate, script::Beat, setup::Setup, sim::Sim, tally::Tally, world::World,
};

/// Which history.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// All chance comes from it.
    pub seed: u64,
    /// Faults that are switched off, whatever the seed says.
    pub without: FaultSet,
    /// Beats of the script that are left out.
    pub cut: Vec<usize>,
    /// Whether a story is told.
    pub telling: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The first rule that did not hold.
    pub broken: Option<Broken>,
    /// The story, if one was told.
    pub story: Vec<String>,
    /// What occurred how often.
    pub tally: Tally,
    /// The faults that were on.
    pub faults: FaultSet,
    /// The script.
    pub script: Vec<Beat>,
}

/// Runs one history.
pub fn run(options: &Options) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O can always be built");
    runtime.block_on(history(options))
}

/// Runs one history on a runtime whose time is paused.
async fn history(options: &Options) -> Outcome {
    let setup = Setup::new(options.seed, options.without, &options.cut);
    let (faults, script) = (setup.faults, setup.script.clone());
    let sim = Arc::new(Sim::new(World::new(setup, options.telling)));
    if options.telling {
        let mut world = sim.world();
        let what = format!(
            "{:#?}",
            (&world.setup.policy, world.setup.work, world.setup.remote, world.setup.configuration, &world.setup.knobs)
        );
        world.tell(|| format!("seed {}; faults {faults}\n{what}", options.seed));
    }
    let mut operators = pin!(join(Box::pin(operate(&sim, 0)), Box::pin(operate(&sim, 1))));
    poll_fn(|context| {
        sim.tick();
        operators.as_mut().poll(context)
    })
    .await;
    let mut world = sim.world();
    Outcome {
        broken: world.judge.broken.take(),
        story: world.judge.take_story(),
        tally: std::mem::take(&mut world.tally),
        faults,
        script,
    }
}

/// Looks for a smaller history of the same seed that breaks the same rule: without some faults, then without some beats.
pub fn shrink(options: &Options, rule: &'static str) -> Options {
    let fails = |options: &Options| run(options).broken.is_some_and(|broken| broken.rule == rule);
    let mut best = options.clone();
    loop {
        let on = Setup::new(best.seed, best.without, &best.cut).faults;
        let smaller = on
            .iter()
            .map(|fault| Options { without: best.without.with(fault), cut: Vec::new(), ..best.clone() })
            .find(|smaller| fails(smaller));
        let Some(smaller) = smaller else { break };
        best = smaller;
    }
    let beats = Setup::new(best.seed, best.without, &best.cut).script;
    for beat in beats {
        let mut smaller = best.clone();
        smaller.cut.push(beat.index);
        if fails(&smaller) {
            best = smaller;
        }
    }
    best
}
