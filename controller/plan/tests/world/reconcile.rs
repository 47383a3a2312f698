//! A pass: what is decided is judged by every rule, and done as the outside would do it.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use worker_drain_plan::{
    Action, Ground, NodeName, Outcome, Plan, QueueName, RevisionId, absorb, absorb_remembering,
    invariants::{self, Judged},
    observation::{Life, Remembered},
    plan,
};

use super::{Node, World};

impl World {
    /// One reconciliation, with everything that it decides done, judged, and told.
    pub fn reconcile(&mut self) -> Plan {
        let plan = self.plan();
        self.tell(&plan);
        self.memory = plan.memory.clone();
        if !plan.dry_run {
            let outcomes: Vec<(Action, Outcome)> =
                plan.actions.iter().map(|action| (action.clone(), self.apply(action))).collect();
            absorb(&mut self.memory, &outcomes, self.now);
            if let Some(numbers) = &plan.remember {
                let outcome = self.remember(numbers);
                absorb_remembering(&mut self.memory, &outcome, self.now);
            }
        }
        plan
    }

    /// Plans, and judges the plan by every rule.
    pub fn plan(&self) -> Plan {
        let observation = self.observe();
        let plan = plan(&self.policy, &observation, &self.memory, self.now);
        let judged = Judged {
            policy: &self.policy,
            observation: &observation,
            before: &self.memory,
            plan: &plan,
            now: self.now,
        };
        if let Err(violation) = invariants::check(judged) {
            panic!("rule {} does not hold: {}\n{}", violation.rule, violation.what, self.story);
        }
        plan
    }

    /// Does one action, as the outside would.
    pub fn apply(&mut self, action: &Action) -> Outcome {
        if let Some(retry) = self.set_back.get(&action.step()) {
            return retry.clone();
        }
        let task = action.task().as_str().to_owned();
        match action {
            Action::Hold { lasting, .. } => return self.hold(&task, *lasting),
            Action::Permit { ground, .. } => {
                self.task(&task).held_until = None;
                self.task(&task).permitted = *ground == Ground::Drained;
            }
            Action::Release { .. } => self.task(&task).held_until = None,
            Action::Cancel { node, queues, .. } => {
                self.reach(&task, node, |node| {
                    node.queues.retain(|name| !queues.contains(&QueueName::from(name.as_str())));
                });
            }
            Action::GiveBack { node, queues, .. } => {
                self.reach(&task, node, |node| {
                    node.added.extend(queues.iter().map(|queue| queue.name.to_string()));
                    node.queues.extend(node.added.iter().cloned());
                });
            }
        }
        Outcome::Done
    }

    fn remember(&mut self, workers_per_task: &BTreeMap<RevisionId, u32>) -> Outcome {
        if let Some(refusal) = &self.refuses_to_remember {
            return refusal.clone();
        }
        self.remembered = Remembered { workers_per_task: workers_per_task.clone(), ..Remembered::default() };
        Outcome::Done
    }

    fn reach(&mut self, task: &str, node: &NodeName, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.task(task).nodes.get_mut(node.as_str()).filter(|node| !node.frozen) {
            change(node);
        }
    }

    fn hold(&mut self, task: &str, lasting: SignedDuration) -> Outcome {
        let end = self.now.saturating_add(lasting).unwrap();
        if let Some(reason) = self.refuse_holds.clone() {
            return Outcome::Refused { reason };
        }
        let held = self.live().filter(|(_, member)| member.held_until.is_some()).count();
        let member = self.tasks.get_mut(task).unwrap();
        if member.held_until.is_none() && held >= self.desired as usize {
            return Outcome::Refused { reason: "DEPLOYMENT_BLOCKED".into() };
        }
        if matches!(member.life, Life::Running) {
            member.held_until = Some(end);
        }
        Outcome::Done
    }

    /// Passes, the scheduler, and time, until nothing changes for a while or the bound is reached.
    pub fn run(&mut self, passes: usize) -> &mut Self {
        for _ in 0..passes {
            let plan = self.reconcile();
            self.schedule();
            self.later(plan.wake_after);
        }
        self
    }
}
