//! The record: a resource's status, written by compare-and-set as an API server does it.

use ecs_emulator::model::LastStatus;
use worker_drain::record::Record;
use worker_drain_plan::{
    Memory, Plan, Report, TaskId,
    observation::{Failure, FailureKind},
};

use super::clock;
use crate::{
    fault::Fault,
    judge::{RULES, judge_plan},
    script::Outage,
    sim::Sim,
    world::World,
};

/// The drain's resource, as one operator reaches it.
#[derive(Clone, Copy, Debug)]
pub struct SimRecord<'a> {
    /// The world.
    pub sim: &'a Sim,
    /// Whose.
    pub who: usize,
}

fn unreachable(why: &str) -> Failure {
    Failure::new(FailureKind::Unreachable, why)
}

impl Record for SimRecord<'_> {
    async fn load(&self) -> Result<Memory, Failure> {
        self.sim.point(self.who).await;
        let mut world = self.sim.world();
        if world.is_out(Outage::RecordUnreadable) {
            return Err(unreachable("the API server does not answer"));
        }
        let stale = world.befalls(Fault::RecordStale, 150);
        let stored = if stale { world.stored_before.clone() } else { world.stored.clone() };
        let tap = &mut world.taps[self.who];
        (tap.before, tap.version) = (Some(stored.memory.clone()), stored.version);
        tap.written = Some(stored.memory.clone());
        Ok(stored.memory)
    }

    fn decided(&self, plan: &Plan) {
        self.judge(&mut self.sim.world(), plan);
    }

    async fn save(&self, memory: &Memory, report: &Report) -> Result<(), Failure> {
        self.sim.point(self.who).await;
        let takes = self.sim.world().delay_chance.between(1, 20);
        self.sim.sleep(takes).await;
        let result = self.write(memory, report);
        self.sim.world().taps[self.who].saved |= result.is_ok();
        self.sim.point(self.who).await;
        result
    }
}

impl SimRecord<'_> {
    /// The pass has decided, and may be killed before it does anything of it.
    fn judge(&self, world: &mut World, plan: &Plan) {
        let (now, ms) = (clock(world, self.who), world.now);
        let mut tap = std::mem::take(&mut world.taps[self.who]);
        tap.decided(plan, now, ms);
        if let Some(plan) = &tap.plan {
            world.tally.planned(plan);
            world.asks_back(plan);
            if world.judge.is_telling() {
                tell(world, self.who, plan);
            }
        }
        if let Err((rule, what)) = judge_plan(&tap, &mut world.tally) {
            world.broken(rule, || what);
        }
        world.taps[self.who] = tap;
    }

    fn write(&self, memory: &Memory, report: &Report) -> Result<(), Failure> {
        let mut world = self.sim.world();
        if world.is_out(Outage::RecordDown) {
            return Err(unreachable("the API server does not answer"));
        }
        if world.taps[self.who].written.as_ref() != Some(memory) {
            if world.taps[self.who].version != world.stored.version {
                world.tell(|| format!("operator {} may not write: somebody else did", self.who));
                return Err(unreachable("the status was written by somebody else"));
            }
            judge_taken(&mut world, memory);
            judge_gone(&mut world, memory);
            world.judge_turn(memory);
            world.stored_before = world.stored.clone();
            world.stored.memory = memory.clone();
            world.stored.version += 1;
            world.learn_nodes(memory);
            // Where nothing is written, nothing is learnt of what somebody else wrote.
            world.taps[self.who].version = world.stored.version;
        }
        world.taps[self.who].written = Some(memory.clone());
        let tap = std::mem::take(&mut world.taps[self.who]);
        if let (Some(policy), Some(plan)) = (&tap.policy, &tap.plan) {
            world.reported(policy, plan, &report.tasks, tap.planned_at);
        }
        world.taps[self.who] = tap;
        if world.befalls(Fault::RecordRefused, 60) {
            return Err(unreachable("the reply of the API server was lost"));
        }
        Ok(())
    }
}

/// Whatever was once written down as taken from a worker stays written down for as long as its task is remembered.
fn judge_taken(world: &mut World, memory: &Memory) {
    world.tally.rule("what was taken is never forgotten");
    let forgotten = world.stored.memory.tasks.iter().find_map(|(task, known)| {
        let now = &memory.tasks.get(task)?.nodes;
        let kept = |node| now.get(node).map(|now| &now.taken);
        known.nodes.iter().find(|(node, before)| kept(node).is_none_or(|now| !now.is_superset(&before.taken)))
    });
    if let Some((node, before)) = forgotten.map(|(node, before)| (node.clone(), before.taken.clone())) {
        world.broken("what was taken is never forgotten", || format!("{before:?} of {node}"));
    }
}

/// Whatever is written down as ended has ended in truth, however it was seen. By a clock that jumps, a task that ECS leaves
/// out of one answer is missing for as long as the jump.
fn judge_gone(world: &mut World, memory: &Memory) {
    if world.setup.faults.has(Fault::ClockJumps) {
        return;
    }
    world.tally.rule(RULES[7]);
    let runs = |task: &TaskId| {
        let task = world.member_named(task).and_then(|m| world.ecs.task(world.members[m].ecs));
        task.is_some_and(|task| task.last != LastStatus::Stopped)
    };
    let wrong = memory.tasks.iter().find(|(task, known)| known.gone && runs(task)).map(|(task, _)| task.clone());
    if let Some(task) = wrong {
        world.broken(RULES[7], || format!("{task} is said to have ended, and has not"));
    }
}

/// One line for a pass, and one for each action.
fn tell(world: &mut World, who: usize, plan: &Plan) {
    let report = &plan.report;
    let tasks: Vec<String> = report
        .tasks
        .iter()
        .map(|task| {
            let jobs = task.jobs.map_or_else(|| "?".to_owned(), |jobs| format!("{}+{}", jobs.active, jobs.reserved));
            let held = match task.hold {
                worker_drain_plan::observation::HoldState::Until(_) => "held",
                worker_drain_plan::observation::HoldState::Free => "free",
                worker_drain_plan::observation::HoldState::Unread => "hold?",
            };
            format!("{}@{} {} {jobs} {held}", task.task, task.revision, task.phase)
        })
        .collect();
    let (phase, drained, ready) = (report.phase, report.drained.reason, report.ready.reason);
    world.tell(|| format!("operator {who} sees {phase:?}, {drained}, {ready}: {}", tasks.join("; ")));
    if let Some(gate) = report.gate.as_ref().filter(|gate| gate.answer != Some(true)) {
        world.tell(|| format!("    {}", gate.message));
    }
    for action in &plan.actions {
        world.tell(|| format!("operator {who} decides: {action}"));
    }
}
