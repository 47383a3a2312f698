//! The operators: the real pass, again and again, waiting as long as it says, until killed or told to stop.

use std::{future::Future, pin::pin, sync::Arc, task::Poll};

use worker_drain::{
    fleet::ecs::{Limiter, Limiters, Place},
    reconcile::{Drain, Reconciliation},
    workers::celery::Celery,
};
use worker_drain_plan::{
    Action, Outcome, Policy,
    observation::{Failure, FailureKind},
    report::{Phase, TaskReport},
};

use crate::{
    adapters::{SimClock, SimFleet, SimRecord, SimTransport, SimWorkers, connect},
    fault::Fault,
    judge::RULES,
    setup::{MINUTE, SECOND},
    sim::Sim,
    world::{Allowance, World},
};

/// How long after the last fault, and the longest job, everything must have come to rest.
pub const REST_WITHIN: u64 = 45 * MINUTE;
/// Passes of one operator in a minute, at the most: one in two seconds while something goes on, and a few for what was
/// done and is read back.
const MOST_PASSES: u64 = 80;

/// Counts the awaits of an operator.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gate {
    /// It dies at its so-manieth await from now, and comes back after so long.
    pub die_in: Option<(u32, u64)>,
    /// It is paused at its so-manieth await from now, for so long.
    pub pause_in: Option<(u32, u64)>,
    /// It is dead; so long, until it comes back.
    pub dead_for: Option<u64>,
}

/// What happens at an await.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Go,
    /// It takes so long.
    Pause(u64),
    /// It never ends.
    Die,
}

impl Gate {
    /// One more await.
    pub fn step(&mut self) -> Step {
        if let Some((left, lasts)) = &mut self.pause_in {
            *left -= 1;
            if *left == 0 {
                let lasts = *lasts;
                self.pause_in = None;
                return Step::Pause(lasts);
            }
        }
        if let Some((left, down)) = &mut self.die_in {
            *left -= 1;
            if *left == 0 {
                self.dead_for = Some(*down);
                self.die_in = None;
                return Step::Die;
            }
        }
        Step::Go
    }
}

/// Runs an operator until the history ends.
pub async fn operate(sim: &Arc<Sim>, who: usize) {
    let (mut celery, mut limiter) = start(sim, who);
    let mut passes_since = (0, 0);
    loop {
        let now = sim.now();
        if is_over(sim, who) {
            return;
        }
        let (policy, idle) = {
            let world = sim.world();
            let at_work = who == 0 || world.second_until > now;
            (world.policy.clone().filter(|_| at_work), idle_for(&world, who))
        };
        let Some(policy) = policy else {
            sim.sleep(idle).await;
            continue;
        };
        sim.world().taps[who].begin(policy.clone());
        let drain = Drain {
            policy: policy.clone(),
            fleet: SimFleet { sim, who, limiter: &limiter },
            workers: SimWorkers { sim, who, celery: &celery },
            record: SimRecord { sim, who },
            clock: SimClock { sim: Arc::clone(sim), who },
        };
        let wait = match killable(sim, who, drain.reconcile()).await {
            None => {
                (celery, limiter) = start(sim, who);
                let mut world = sim.world();
                world.tally.broken_off += 1;
                world.gates[who].dead_for.take().unwrap_or(SECOND)
            }
            Some(Err(_)) => {
                sim.world().tally.broken_off += 1;
                2 * SECOND
            }
            Some(Ok(pass)) => after(sim, who, &policy, &pass),
        };
        frugal(sim, &mut passes_since);
        sim.sleep(wait).await;
    }
}

/// For how long an operator that is not at work need not look whether it is. A second one that will never be has only to
/// end the phase of faults, on the second.
fn idle_for(world: &World, who: usize) -> u64 {
    if who == 0 || has_second(world) {
        return SECOND;
    }
    world.setup.safety.div_ceil(SECOND).saturating_mul(SECOND).saturating_sub(world.now).max(SECOND)
}

fn has_second(world: &World) -> bool {
    [Fault::TwoOperators, Fault::LeaseLost].iter().any(|fault| world.setup.faults.has(*fault))
}

/// What a process has from its beginning: its workers' broker, and full token buckets.
fn start(sim: &Arc<Sim>, who: usize) -> (Celery<SimTransport>, Arc<Limiter>) {
    let mut world = sim.world();
    world.hang_up(who);
    world.allowances[who] = Allowance::default();
    drop(world);
    (connect(sim, who), Limiters::default().of(&Place { account: "123456789012".into(), region: "us-east-1".into() }))
}

/// Runs a pass until it ends or its operator dies: then it is dropped where it stands.
async fn killable(
    sim: &Sim,
    who: usize,
    pass: impl Future<Output = Result<Reconciliation, Failure>>,
) -> Option<Result<Reconciliation, Failure>> {
    let mut pass = pin!(pass);
    std::future::poll_fn(|context| match pass.as_mut().poll(context) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending if sim.world().gates[who].dead_for.is_some() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Takes down what a pass did, and tells how long to wait for the next.
fn after(sim: &Sim, who: usize, policy: &Policy, pass: &Reconciliation) -> u64 {
    let mut world = sim.world();
    world.tally.passes += 1;
    let (decided, done) = (pass.plan.actions.len(), pass.outcomes.len());
    assert!(pass.plan.dry_run || decided == done, "each action has one outcome: {decided} and {done}");
    for (action, outcome) in &pass.outcomes {
        world.tally.outcome(action, outcome);
        let told = |told: &TaskReport| told.task == *action.task() && told.hold_refused.is_some();
        let refused = is_refused(action, outcome);
        if refused {
            world.tally.rule("every refused hold is told");
        }
        if refused && !pass.plan.report.tasks.iter().any(told) {
            world.broken("every refused hold is told", || format!("{action}: {outcome:?}"));
        }
        if *outcome != Outcome::Done {
            world.tell(|| format!("operator {who}: {action}: {outcome:?}"));
        }
    }
    world.judge_hands(&pass.plan.memory);
    let before = world.taps[who].before.take().unwrap_or_default();
    let youngest = before.past.first().map(|past| past.until);
    if let Some(ended) = pass.plan.report.past.first().filter(|past| Some(past.until) != youngest) {
        world.tally.ended(ended.outcome);
        world.judge_outcome(ended, &before, &pass.observation);
    }
    let withdrawn = policy.withdrawn && pass.plan.report.phase == Phase::Withdrawn;
    if withdrawn && world.policy.as_ref().is_some_and(|policy| policy.withdrawn) {
        world.judge_withdrawn();
        world.resource_gone();
    }
    let wake = u64::try_from(pass.plan.wake_after.as_millis()).unwrap_or(0).max(1);
    if world.befalls(Fault::Signals, 200) {
        return world.span_of(Fault::Signals, 1, wake);
    }
    // As the run loop does it: a tenth more or less, so that drains do not march in step.
    let low = (wake - wake / 10).max(1);
    world.delay_chance.between(low, wake + wake / 10)
}

/// It was refused to hold a task, or it is not allowed.
fn is_refused(action: &Action, outcome: &Outcome) -> bool {
    let for_good = match outcome {
        Outcome::Refused { .. } => true,
        Outcome::Failed(failure) => !matches!(failure.kind, FailureKind::Unreachable | FailureKind::Throttled),
        Outcome::Done | Outcome::Stale => false,
    };
    for_good && action.step() == worker_drain_plan::actions::Step::Hold
}

fn frugal(sim: &Sim, (begun, passes): &mut (u64, u64)) {
    let mut world = sim.world();
    if !world.is_off(Fault::Signals) {
        return;
    }
    *passes += 1;
    if world.now >= *begun + MINUTE {
        world.tally.rule(RULES[11]);
        if *passes > MOST_PASSES {
            let count = *passes;
            world.broken(RULES[11], || format!("{count} passes in a minute"));
        }
        (*begun, *passes) = (world.now, 0);
    }
}

/// Whether the history is over for this operator: it broke a rule, or everything has come to rest.
fn is_over(sim: &Sim, who: usize) -> bool {
    let mut world = sim.world();
    let now = world.now;
    if world.judge.broken.is_some() {
        return true;
    }
    if !world.calm {
        if now < world.setup.safety {
            return false;
        }
        world.calm_down();
    }
    if who > 0 {
        return true;
    }
    world.fix();
    let safety = world.setup.safety;
    let rested = now > safety + 2 * MINUTE && world.rests();
    if rested || now > safety + REST_WITHIN + 2 * world.setup.work.longest {
        world.judge_end();
        return true;
    }
    false
}
