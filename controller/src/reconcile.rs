//! One reconciliation: observe → plan → record → act → record. Generic over the fleet, the workers, the record and
//! the clock, so that a simulation drives this very code.
//!
//! The fleet is observed before the workers: a worker's nodes are found by what the fleet knows of its tasks, and
//! evidence of idleness is then always younger than the list of tasks that it is used on (docs/decisions/0002).

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use tokio::time::timeout;
use worker_drain_plan::{
    Action, Memory, Observation, Outcome, Plan, Policy, TaskId, absorb, absorb_remembering,
    observation::{Failure, FailureKind, Life, Seen},
    plan, to_count,
};

use crate::{
    batches::{Batch, batches},
    clock::Clock,
    fleet::{Fleet, FleetObservation},
    identity::Expected,
    record::Record,
    workers::Workers,
};

/// All that one drain works with.
#[derive(Debug)]
pub struct Drain<F, W, R, C> {
    /// What the user asked for.
    pub policy: Policy,
    /// The tasks.
    pub fleet: F,
    /// Their workers.
    pub workers: W,
    /// Where the memory lives.
    pub record: R,
    /// The time.
    pub clock: C,
}

/// What one reconciliation saw, decided and did.
#[derive(Clone, Debug)]
pub struct Reconciliation {
    /// What it saw.
    pub observation: Observation,
    /// What it decided.
    pub plan: Plan,
    /// What became of each action, in the order in which they were taken; empty if nothing was to be done.
    pub outcomes: Vec<(Action, Outcome)>,
}

impl<F: Fleet, W: Workers, R: Record, C: Clock> Drain<F, W, R, C> {
    /// Reconciles once. Errors: the memory cannot be read or written; nothing was done then, or no more than the
    /// memory already says.
    pub async fn reconcile(&self) -> Result<Reconciliation, Failure> {
        let mut done = self.observe_and_plan().await?;
        let plan = &mut done.plan;
        self.record.decided(plan);
        self.record.save(&plan.memory, &plan.report).await?;
        if !plan.dry_run && (!plan.actions.is_empty() || plan.remember.is_some()) {
            done.outcomes = self.act(plan).await;
            let remembered = self.remember(plan, &done.observation).await;
            self.learn(&done.observation, plan, &done.outcomes, remembered);
            self.record.save(&plan.memory, &plan.report).await?;
        }
        self.workers.listen(&done.plan.awaited).await;
        Ok(done)
    }

    /// Brings memory and report up to date with what became of the actions. What was seen is the same, so planning on
    /// it again reports permits and refusals at once; what it would decide waits for the next observation.
    fn learn(
        &self,
        observation: &Observation,
        done: &mut Plan,
        outcomes: &[(Action, Outcome)],
        remembered: Option<Outcome>,
    ) {
        let now = self.clock.now();
        absorb(&mut done.memory, outcomes, now);
        if let Some(outcome) = remembered {
            absorb_remembering(&mut done.memory, &outcome, now);
        }
        let Plan { report, memory, .. } = self.plan(observation, &done.memory, now);
        (done.report, done.memory) = (report, memory);
    }

    /// Observes and plans, and does nothing. Errors: the memory cannot be read.
    pub async fn observe_and_plan(&self) -> Result<Reconciliation, Failure> {
        let memory = self.record.load().await?;
        let observation = self.observe(&memory).await;
        let plan = self.plan(&observation, &memory, self.clock.now());
        Ok(Reconciliation { observation, plan, outcomes: Vec::new() })
    }

    /// The plan, with a note on the signals besides the policy's own notes, and what the record has to tell: the policy knows
    /// nothing of them.
    fn plan(&self, observation: &Observation, memory: &Memory, now: Timestamp) -> Plan {
        let mut plan = plan(&self.policy, observation, memory, now);
        plan.report.notes.extend(self.workers.note());
        self.record.tell(&mut plan.report);
        plan
    }

    async fn observe(&self, memory: &Memory) -> Observation {
        let at = self.clock.now();
        let seen = match self.fleet.observe(&memory.tracked()).await {
            Ok(seen) => seen,
            Err(failure) => {
                // Without the fleet it is not known which nodes to ask, and nothing could be decided on their answers.
                let fleet = Seen::Err { failure, at: self.clock.now() };
                let unasked = Failure::new(FailureKind::Unreachable, "not asked, because the fleet could not be seen");
                return Observation { fleet, workers: Seen::Err { failure: unasked, at }, queues: None };
            }
        };
        // Before the workers: a message goes from its queue to a worker, so that the other way round one on its way would
        // be in neither.
        let queues = match to_count(&self.policy, &seen.view, memory) {
            Some(queues) => Some(self.workers.count(queues).await),
            None => None,
        };
        let asked_at = self.clock.now();
        let workers = match self.workers.observe(&expected(&seen, memory)).await {
            Ok(value) => Seen::Ok { value, at: asked_at },
            Err(failure) => Seen::Err { failure, at: self.clock.now() },
        };
        Observation { fleet: Seen::Ok { value: seen.view, at }, workers, queues }
    }

    /// Takes the actions in batches of one kind, in the order in which the plan lists them. Makes no choices, but begins
    /// nothing that has become too old.
    async fn act(&self, plan: &Plan) -> Vec<(Action, Outcome)> {
        let mut outcomes = Vec::with_capacity(plan.actions.len());
        for batch in batches(&plan.actions) {
            outcomes.extend(self.act_on(batch, plan.good_until).await);
        }
        outcomes
    }

    /// Writes down beside the fleet what the plan wants to be known to whoever drains it next.
    async fn remember(&self, plan: &Plan, observation: &Observation) -> Option<Outcome> {
        let (numbers, fleet) = (plan.remember.as_ref()?, observation.fleet.ok()?);
        Some(self.fleet.remember(numbers, fleet).await)
    }

    async fn act_on(&self, batch: Batch<'_>, good_until: Timestamp) -> Vec<(Action, Outcome)> {
        match batch {
            Batch::Hold(items) => self.each(items, good_until, async |holds| self.fleet.hold(&holds).await).await,
            Batch::Release(items) => {
                self.each(items, good_until, async |tasks| self.release(&tasks, good_until).await).await
            }
            Batch::Cancel(items) => {
                self.each(items, good_until, async |cancels| self.workers.cancel(&cancels).await).await
            }
            Batch::GiveBack(items) => {
                self.each(items, good_until, async |undos| self.workers.give_back(&undos).await).await
            }
        }
    }

    /// What becomes of each action of a batch: what the adapter says, or nothing if the plan has become too old.
    async fn each<T>(
        &self,
        items: Vec<(&Action, T)>,
        good_until: Timestamp,
        take: impl AsyncFnOnce(Vec<T>) -> Vec<Outcome>,
    ) -> Vec<(Action, Outcome)> {
        let (actions, given): (Vec<&Action>, Vec<T>) = items.into_iter().unzip();
        let results =
            if self.clock.now() > good_until { vec![Outcome::Stale; actions.len()] } else { take(given).await };
        debug_assert_eq!(results.len(), actions.len(), "one outcome for each action");
        actions.into_iter().cloned().zip(results).collect()
    }

    /// ECS's release has no condition, so it is not waited for longer than the plan is good: a turn or an attempt that
    /// comes later could let go of a task that has work again.
    async fn release(&self, tasks: &[TaskId], good_until: Timestamp) -> Vec<Outcome> {
        let left = Duration::try_from(good_until.duration_since(self.clock.now())).unwrap_or_default();
        timeout(left, self.fleet.release(tasks)).await.unwrap_or_else(|_| {
            let why = "not confirmed while the plan was good; the next observation shows whether it took effect";
            vec![Outcome::Failed(Failure::new(FailureKind::Unreachable, why)); tasks.len()]
        })
    }
}

/// The tasks whose workers are looked for: every task that has not ended, with the nodes that were seen to be its own before.
fn expected(seen: &FleetObservation, memory: &Memory) -> BTreeMap<TaskId, Expected> {
    seen.view
        .tasks
        .iter()
        .filter(|(_, task)| !matches!(task.life, Life::Stopped { .. } | Life::Missing))
        .map(|(id, task)| {
            let nodes = memory.tasks.get(id).map(|known| known.nodes.keys().cloned().collect()).unwrap_or_default();
            let identity = seen.identities.get(id).cloned().unwrap_or_default();
            (id.clone(), Expected { identity, nodes, running: task.life == Life::Running })
        })
        .collect()
}
