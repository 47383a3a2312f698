//! The user's own changes of the drain, and the end of all faults.

use ecs_emulator::model::{
    self as ecs, ConfigurationChange, Faults, Health, Knobs, ServiceStatus, Time, UpdateService,
};
use worker_drain_plan::{
    Memory,
    policy::{HoldMode, MinConsuming, Mode},
};

use super::{CLUSTER, Event, Member, NodeState, SERVICE, World};
use crate::{
    fault::Fault,
    script::{Happening, Outage},
    setup::{MINUTE, SECOND},
};

impl World {
    pub(super) fn edit(&mut self, what: Happening) {
        let Some(policy) = &mut self.policy else { return };
        if policy.withdrawn {
            return;
        }
        self.disturbed_at = self.now;
        match what {
            Happening::EditPolicy(pick) => match pick % 4 {
                0 => policy.drain.min_consuming = Some(MinConsuming::Percent(50)),
                1 => policy.drain.min_consuming = Some(MinConsuming::Percent(0)),
                2 => {
                    policy.hold.mode = HoldMode::Standing;
                    policy.drain.scale_in = true;
                }
                _ => {
                    policy.hold.mode = HoldMode::OnRollout;
                    policy.drain.scale_in = false;
                }
            },
            Happening::PausePolicy(lasts) => {
                policy.paused = true;
                self.at(self.now + lasts, Event::PolicyBack);
            }
            Happening::PlanMode(lasts) => {
                policy.mode = Mode::Plan;
                self.at(self.now + lasts, Event::PolicyBack);
            }
            Happening::Withdraw(lasts) => {
                policy.withdrawn = true;
                policy.paused = false;
                policy.mode = Mode::Enforce;
                self.at(self.now + lasts, Event::Remake);
            }
            _ => {}
        }
    }

    pub(super) fn policy_back(&mut self) {
        if let Some(policy) = &mut self.policy {
            (policy.paused, policy.mode) = (false, Mode::Enforce);
            self.disturbed_at = self.now;
        }
    }

    /// The resource is made again once the old one is gone: nothing is remembered.
    pub(super) fn remake(&mut self) {
        if self.policy.is_none() {
            self.tell(|| "*** the drain is made again".to_owned());
            self.policy = Some(self.setup.policy.clone());
            self.disturbed_at = self.now;
        } else if self.policy.as_ref().is_some_and(|policy| policy.withdrawn) {
            self.at(self.now + 10 * SECOND, Event::Remake);
        }
        if self.calm {
            // What ECS told before may have been believed since.
            self.end_vain_waits();
        }
    }

    /// A withdrawn drain has nothing left to do: its resource goes, and its memory with it.
    pub fn resource_gone(&mut self) {
        self.tell(|| "*** the drain's resource is gone".to_owned());
        self.policy = None;
        self.stored.memory = Memory::default();
        self.stored.version += 1;
        self.stored_before = self.stored.clone();
        for node in self.members.iter_mut().flat_map(|member| &mut member.nodes) {
            (node.heard, node.told) = (false, None);
            node.orphaned |= node.added != 0;
        }
    }

    /// Nodes in the memory that was written are waited for from now on.
    pub fn learn_nodes(&mut self, memory: &Memory) {
        for (id, task) in &memory.tasks {
            let Some(m) = self.member_named(id) else { continue };
            for node in self.members[m].nodes.iter_mut().filter(|node| task.nodes.contains_key(&node.name)) {
                node.heard = true;
            }
        }
    }

    /// All faults end, and what was broken is mended; no more jobs arrive.
    pub fn calm_down(&mut self) {
        self.tell(|| "======== the outside recovers ========".to_owned());
        self.calm = true;
        self.outages = [0; Outage::COUNT];
        self.bad.clear();
        self.ecs.set_faults(Faults::default());
        self.second_until = 0;
        self.skew = self.skew_at_first;
        self.past.clear();
        // Jobs end: what is still queued is taken back by whoever sent it.
        self.recall_queued();
        for gate in &mut self.gates {
            (gate.die_in, gate.pause_in) = (None, None);
        }
        self.policy_back();
        for m in 0..self.members.len() {
            (self.members[m].twin_until, self.members[m].double) = (0, None);
            let task = self.members[m].ecs;
            self.ecs.set_health(task, Health::Healthy, Time(self.now));
            for n in 0..self.members[m].nodes.len() {
                let node = &mut self.members[m].nodes[n];
                let epoch = node.epoch;
                if let NodeState::Frozen(until) = &mut node.state {
                    *until = self.now;
                    self.at(self.now, Event::NodeReady(m, n, epoch));
                }
            }
        }
        self.end_vain_waits();
        // A deployment that failed can then always be replaced: it may be the last that the quota allows.
        let knobs = Knobs { max_active_deployments: None, ..self.ecs.knobs().clone() };
        self.ecs.set_knobs(knobs);
        self.make_room();
        self.disturbed_at = self.now;
        self.pump();
        self.settle();
        self.at(self.now + MINUTE, Event::Remake);
    }

    /// The old name of a worker that was renamed is waited for as long as its task lives, and so are the worker of another task that
    /// was once taken for this one's, and jobs that Celery tells of though they have ended: a person ends that. And by such a worker
    /// more may be expected of every task of its revision than they have: the report says how to tell the number.
    fn end_vain_waits(&mut self) {
        let learnt = self.stored.memory.workers_per_task.values().chain(self.remembered.values());
        let most = learnt.max().copied().unwrap_or(0);
        if let Some(policy) = self.policy.as_mut().filter(|_| most > u32::from(self.setup.work.nodes)) {
            policy.drain.workers_per_task = Some(self.setup.work.nodes.into());
        }
        let told = self.setup.work.package.is_none();
        for m in 0..self.members.len() {
            let haunted = told && self.members[m].nodes.iter().any(|node| !node.ghosts.is_empty());
            if self.members[m].renamed || haunted || self.is_taken_for_anothers(m) {
                let hex = self.members[m].hex.clone();
                self.ecs.stop_task(CLUSTER, &hex, "", Time(self.now)).ok();
            }
        }
    }

    /// ECS once told of this task what was another's, so that a worker of that one is remembered as its own.
    fn is_taken_for_anothers(&self, m: usize) -> bool {
        let Member { id, nodes, confused, .. } = &self.members[m];
        let known = self.stored.memory.tasks.get(id).filter(|_| *confused);
        known.is_some_and(|known| known.nodes.keys().any(|name| nodes.iter().all(|node| node.name != *name)))
    }

    /// A service that may neither start a task nor stop one, or not by the floor that the user set, is stuck without us
    /// too: the report says so, and a person does what it says. Everywhere else old tasks have to go in steps.
    fn make_room(&mut self) {
        let (desired, configuration) = (self.service().desired, self.service().configuration);
        let own = configuration.minimum_healthy_percent;
        // The drain may be made again, and is then as it was at first.
        let floors = [self.policy.as_ref(), Some(&self.setup.policy)];
        let asked = floors.into_iter().flatten().filter_map(|policy| policy.drain.min_consuming);
        let all = asked.chain([MinConsuming::Percent(own)]).map(|floor| floor.of(desired));
        let floor = all.max().unwrap_or(desired);
        let is_full = desired * configuration.maximum_percent / 100 <= desired;
        if self.service().status == ServiceStatus::Active && is_full && floor >= desired {
            self.tell(|| "*** maximumPercent is raised, as the report asked for".to_owned());
            let configuration = ConfigurationChange { maximum_percent: Some(200), ..ConfigurationChange::default() };
            let request = UpdateService { service: SERVICE.to_owned(), configuration, ..UpdateService::default() };
            self.ecs.update_service(&request, Time(self.now)).ok();
        }
    }

    /// A service whose deployment has failed for good does nothing until somebody deploys again.
    pub fn fix(&mut self) {
        let failed = self.service().primary().is_some_and(|primary| primary.rollout == ecs::RolloutState::Failed);
        if failed && !self.deleted {
            self.deploy(Happening::Deploy);
        }
    }

    /// Whether every fault of this kind is off for good.
    pub fn is_off(&self, fault: Fault) -> bool {
        self.calm || !self.setup.faults.has(fault)
    }
}
