//! What ECS tells of the fleet, now or some seconds ago.

use std::collections::{BTreeMap, BTreeSet};

use ecs_emulator::model::{self as ecs, ContainerState, Health, LastStatus, ServiceStatus};
use worker_drain_plan::{
    RevisionId, TaskId,
    observation::{Displaced, HoldState, Life, Revision, Task},
};

use super::World;
use crate::{
    fault::Fault,
    setup::{MINUTE, SECOND},
    tap::stamp,
};

/// How old a stale read may be.
const STALE: u64 = 8 * SECOND;

/// A task that is younger may be of a deployment that is not listed yet.
const LISTED_WITHIN: u64 = 2 * MINUTE;

/// The state of the fleet at one time.
#[derive(Clone, Debug, Default)]
pub struct Snap {
    /// When.
    pub at: u64,
    /// The service.
    pub service: ServiceSnap,
    /// Every task that is still visible.
    pub tasks: BTreeMap<TaskId, (bool, Task)>,
}

/// What `DescribeServices` tells.
#[derive(Clone, Debug, Default)]
pub struct ServiceSnap {
    /// It is there.
    pub exists: bool,
    /// `desiredCount`.
    pub desired: u32,
    /// `minimumHealthyPercent`.
    pub minimum: u32,
    /// `maximumPercent`.
    pub maximum: u32,
    /// The primary deployment.
    pub current: RevisionId,
    /// `availabilityZoneRebalancing` is `ENABLED`.
    pub balances_zones: bool,
    /// `runningCount` and `pendingCount`.
    pub counted: (u32, u32),
    /// All that are listed.
    pub revisions: BTreeMap<RevisionId, Revision>,
    /// ECS has not brought the current deployment into place yet.
    pub is_rolling_out: bool,
}

impl ServiceSnap {
    /// Tasks that are meant to run, and are of a deployment that is not listed.
    pub fn unlisted<'a>(&'a self, tasks: &'a BTreeMap<TaskId, Task>) -> impl Iterator<Item = &'a TaskId> {
        let runs = |task: &Task| matches!(task.life, Life::Starting | Life::Running);
        let unlisted = move |task: &Task| runs(task) && !self.revisions.contains_key(&task.revision);
        tasks.iter().filter(move |(_, task)| unlisted(task)).map(|(id, _)| id)
    }
}

impl World {
    /// The service, as a read tells it.
    pub fn service_view(&mut self) -> ServiceSnap {
        if let Some(snap) = self.stale() {
            return snap.service.clone();
        }
        self.service_now()
    }

    fn service_now(&mut self) -> ServiceSnap {
        let service = self.service();
        let exists = service.status != ServiceStatus::Inactive;
        let counts = self.ecs.state().counts(service, None);
        let counted = (counts.running, counts.pending);
        let (desired, configuration, balances_zones) = (service.desired, service.configuration, service.rebalances);
        let is_rolling_out =
            service.deployments.first().is_some_and(|primary| primary.rollout != ecs::RolloutState::Completed);
        let listed: Vec<(ecs::DeploymentId, u32, u64)> = service
            .deployments
            .iter()
            .map(|deployment| (deployment.id, deployment.definition.revision, deployment.created_at.0))
            .collect();
        let mut revisions = BTreeMap::new();
        let mut current = RevisionId::default();
        for (place, (id, definition, made)) in listed.into_iter().enumerate() {
            let name = self.revision_of(id);
            if place == 0 {
                current = name.clone();
            }
            revisions.insert(name, Revision { label: format!("app:{definition}"), created_at: Some(stamp(made)) });
        }
        ServiceSnap {
            exists,
            desired,
            minimum: configuration.minimum_healthy_percent,
            maximum: configuration.maximum_percent,
            balances_zones,
            counted,
            current,
            revisions,
            is_rolling_out,
        }
    }

    /// The tasks, as reads tell them: those that are listed, and each of `tracked`. Holds are not read yet.
    pub fn tasks_view(&mut self, tracked: &BTreeSet<TaskId>) -> BTreeMap<TaskId, Task> {
        let missing = || Task {
            revision: RevisionId::default(),
            life: Life::Missing,
            started_at: None,
            hold: HoldState::Free,
            displaced: Displaced::No,
            zone: None,
            alike: Vec::new(),
        };
        let mut tasks: BTreeMap<TaskId, Task> = BTreeMap::new();
        if let Some(snap) = self.stale() {
            let shown = snap.tasks.iter().filter(|(id, (listed, _))| *listed || tracked.contains(*id));
            tasks.extend(shown.map(|(id, (_, task))| (id.clone(), task.clone())));
        } else {
            let is_live = |id: &ecs::TaskId| self.ecs.task(*id).is_some_and(ecs::Task::is_live);
            let listed: Vec<ecs::TaskId> = self.service().tasks.iter().copied().filter(is_live).collect();
            for id in listed {
                let m = self.member_of(id);
                tasks.extend(self.task_now(m).map(|(_, task)| (self.members[m].id.clone(), task)));
            }
            for id in tracked {
                if let Some(m) = self.member_named(id).filter(|_| !tasks.contains_key(id)) {
                    tasks.extend(self.task_now(m).map(|(_, task)| (id.clone(), task)));
                }
            }
        }
        for id in tracked {
            tasks.entry(id.clone()).or_insert_with(missing);
        }
        tasks
    }

    /// One of the tasks whose deployment is not listed is younger than the current deployment, and so young that it may be of the next one.
    pub fn has_newer(&self, service: &ServiceSnap, tasks: &BTreeMap<TaskId, Task>) -> bool {
        let current = service.revisions.get(&service.current).and_then(|current| current.created_at);
        let made = |id: &TaskId| {
            let task = self.ecs.task(self.members[self.member_named(id)?].ecs)?;
            Some(task.created_at.0)
        };
        let is_newer = |made: u64| current.is_none_or(|since| stamp(made) > since) && self.now < made + LISTED_WITHIN;
        service.unlisted(tasks).filter_map(made).any(is_newer)
    }

    /// Reads the holds of these tasks, as far as they run.
    pub fn read_holds(&mut self, tasks: &BTreeMap<TaskId, Task>) -> BTreeMap<TaskId, HoldState> {
        let partial = self.is_out(crate::script::Outage::EcsPartial);
        let mut holds = BTreeMap::new();
        for (id, _) in tasks.iter().filter(|(_, task)| matches!(task.life, Life::Starting | Life::Running)) {
            if partial && self.delay_chance.percent(40) {
                holds.insert(id.clone(), HoldState::Unread);
                continue;
            }
            let seen = match self.stale() {
                Some(snap) => snap.tasks.get(id).map(|(_, task)| task.hold),
                None => self.member_named(id).and_then(|m| self.hold_now(m)),
            };
            holds.insert(id.clone(), seen.unwrap_or(HoldState::Unread));
        }
        holds
    }

    fn hold_now(&self, m: usize) -> Option<HoldState> {
        let task = self.ecs.task(self.members[m].ecs)?;
        let until = task.protected_until.filter(|until| until.0 > self.now);
        Some(until.map_or(HoldState::Free, |until| HoldState::Until(stamp(until.0))))
    }

    /// A task as it is, and whether it is listed.
    fn task_now(&mut self, m: usize) -> Option<(bool, Task)> {
        let task = self.ecs.task(self.members[m].ecs)?;
        let (deployment, live, started) = (task.deployment, task.is_live(), task.started_at);
        let zone = Some(task.zone.to_string());
        let displaced = match task.health {
            Health::Unhealthy => Displaced::Unhealthy,
            _ if self.ecs.is_displaced(task.id) => Displaced::MachineLeaves,
            _ => Displaced::No,
        };
        let exit_code = match task.containers.first() {
            Some(ContainerState::Exited(code)) => *code,
            _ => None,
        };
        let stage = match task.last {
            LastStatus::Stopped => {
                let reason = task.stop.as_ref().map_or_else(String::new, |stop| stop.reason.clone());
                Life::Stopped { reason, exit_code }
            }
            _ if !live => Life::Stopping,
            LastStatus::Running => Life::Running,
            _ => Life::Starting,
        };
        let revision = deployment.map_or_else(RevisionId::default, |deployment| self.revision_of(deployment));
        let started_at = started.map(|at| stamp(at.0));
        let (hold, alike) = (HoldState::Unread, Vec::new());
        Some((live, Task { revision, life: stage, started_at, hold, displaced, zone, alike }))
    }

    /// Keeps the present state for stale reads.
    pub(super) fn remember(&mut self) {
        let visible: Vec<ecs::TaskId> = self.ecs.state().tasks.keys().copied().collect();
        let mut tasks = BTreeMap::new();
        for id in visible {
            let m = self.member_of(id);
            let hold = self.hold_now(m).unwrap_or(HoldState::Free);
            if let Some((listed, task)) = self.task_now(m) {
                tasks.insert(self.members[m].id.clone(), (listed, Task { hold, ..task }));
            }
        }
        let snap = Snap { at: self.now, service: self.service_now(), tasks };
        if self.past.back().is_some_and(|last| last.at == self.now) {
            self.past.pop_back();
        }
        self.past.push_back(snap);
        while self.past.get(1).is_some_and(|next| next.at + STALE < self.now) {
            self.past.pop_front();
        }
    }

    /// The state that a read is answered from, if not the present one.
    fn stale(&mut self) -> Option<&Snap> {
        if self.is_off(Fault::StaleReads) || !self.befalls(Fault::StaleReads, 300) {
            return None;
        }
        let ago = self.span_of(Fault::StaleReads, 0, STALE);
        let at = self.now.saturating_sub(ago);
        self.past.iter().rev().find(|snap| snap.at <= at)
    }
}
