//! Deployments: their beginning, completion, failure and rollback.

use std::{sync::Arc, time::Duration};

use super::{
    Deployment, DeploymentId, DeploymentStatus, DeploymentStatusSet, EarlySuccess, RollbackId, RolloutState, ServiceId,
    ServiceStatus, TaskDefinition, TaskId, Time, Transition, World, service::Completed,
};

/// The circuit breaker opens after half the desired count, but not below and above these (AWS: "How the deployment
/// circuit breaker detects failures").
const BREAKER_BOUNDS: (u32, u32) = (3, 200);
/// Failures in a row before starts are slowed down (AWS: "service throttle logic" gives no number).
const FREE_FAILURES: u32 = 3;

impl World {
    /// Makes a new primary; the former one's tasks are old from now on.
    pub(super) fn begin_deployment(&mut self, id: ServiceId, definition: Arc<TaskDefinition>) {
        let deployment = self.new_deployment(id, definition);
        self.retire_primary(id, DeploymentStatus::Active);
        self.state.services[id.0].deployments.insert(0, deployment);
        self.state.services[id.0].steady = false;
        self.record_primary(id);
        self.poke(id);
    }

    fn new_deployment(&mut self, id: ServiceId, definition: Arc<TaskDefinition>) -> Deployment {
        // Nineteen digits, as real ones have.
        let number = DeploymentId(1_000_000_000_000_000_000 + self.rng.next_u64() % 8_000_000_000_000_000_000);
        Deployment {
            id: number,
            definition,
            status: DeploymentStatus::Primary,
            rollout: RolloutState::InProgress,
            reason: format!("ECS deployment {number} in progress."),
            created_at: self.now,
            updated_at: self.now,
            target: self.state.services[id.0].desired,
            failed_tasks: 0,
            launch_failures: 0,
            launch_from: Time::default(),
            replaced_at: None,
            is_rollback: false,
            paused_until: None,
            bakes_since: None,
        }
    }

    /// The primary becomes an old deployment that should have the tasks it has.
    fn retire_primary(&mut self, id: ServiceId, status: DeploymentStatus) {
        let now = self.now;
        let Some(primary) = self.state.services[id.0].primary() else { return };
        let (number, rollout, reason) = (primary.id, primary.rollout, primary.reason.clone());
        let live = self.live_of(id, number);
        if let Some(primary) = self.state.services[id.0].deployments.first_mut() {
            primary.status = status;
            primary.updated_at = now;
            primary.replaced_at = Some(now);
            primary.target = if rollout == RolloutState::Failed { 0 } else { live };
        }
        self.record(Some(id), Transition::Deployment { deployment: number, status: status.as_str(), rollout, reason });
    }

    /// Tasks of a deployment that run or are pending.
    pub(super) fn live_of(&self, id: ServiceId, deployment: DeploymentId) -> u32 {
        let tasks = self.state.services[id.0].tasks.iter().map(|id| &self.state.tasks[id]);
        let count = tasks.filter(|task| task.deployment == Some(deployment) && task.is_live()).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    fn record_primary(&mut self, id: ServiceId) {
        if let Some(primary) = self.state.services[id.0].primary() {
            let (deployment, rollout, reason) = (primary.id, primary.rollout, primary.reason.clone());
            self.record(
                Some(id),
                Transition::Deployment { deployment, status: DeploymentStatus::Primary.as_str(), rollout, reason },
            );
        }
    }

    /// A task has ended before it was ever healthy.
    pub(super) fn count_failure(&mut self, id: TaskId) {
        let task = &self.state.tasks[&id];
        let (Some(service), Some(deployment)) = (task.service, task.deployment) else { return };
        if task.healthy {
            return;
        }
        let (now, max) = (self.now, self.knobs.launch_backoff_max);
        let Some(deployment) = self.state.services[service.0].deployment_mut(deployment) else { return };
        deployment.failed_tasks += 1;
        deployment.launch_failures += 1;
        let doubled = deployment.launch_failures.checked_sub(FREE_FAILURES).map(|extra| 1_u32 << extra.min(6));
        if let Some(factor) = doubled {
            deployment.launch_from = now + (max / 64 * factor).min(max);
        }
        if deployment.launch_failures == FREE_FAILURES {
            let name = self.state.services[service.0].name.clone();
            self.say(service, format!("(service {name}) is unable to consistently start tasks successfully."));
        }
    }

    /// Fails the primary if its circuit breaker says so, and rolls back if it is to.
    pub(super) fn check_breaker(&mut self, id: ServiceId) {
        let service = &mut self.state.services[id.0];
        let (breaker, desired) = (service.configuration.breaker, service.desired);
        let threshold = desired.div_ceil(2).clamp(BREAKER_BOUNDS.0, BREAKER_BOUNDS.1);
        let Some(primary) = service.deployments.first_mut() else { return };
        if !breaker.enable || primary.rollout != RolloutState::InProgress || primary.failed_tasks < threshold {
            return;
        }
        self.fail(id, "ECS deployment circuit breaker: tasks failed to start.", "tasks failed to start");
        if breaker.rollback {
            self.roll_back(id);
        }
    }

    /// The primary has failed.
    pub(super) fn fail(&mut self, id: ServiceId, reason: &str, why: &str) {
        let now = self.now;
        let service = &mut self.state.services[id.0];
        let Some(primary) = service.deployments.first_mut() else { return };
        primary.rollout = RolloutState::Failed;
        reason.clone_into(&mut primary.reason);
        primary.updated_at = now;
        let (number, name) = (primary.id, service.name.clone());
        self.record_primary(id);
        self.say(id, format!("(service {name}) (deployment {number}) deployment failed: {why}."));
    }

    /// Brings back the last completed deployment; without one the service stalls.
    pub(super) fn roll_back(&mut self, id: ServiceId) {
        let service = &self.state.services[id.0];
        let failed = service.primary().map(|primary| primary.id);
        let Some(target) = service.last_completed.clone().filter(|target| Some(target.id) != failed) else { return };
        let status = match self.knobs.deployments_status_set {
            DeploymentStatusSet::Documented => DeploymentStatus::Active,
            DeploymentStatusSet::WithDraining => DeploymentStatus::Draining,
        };
        self.retire_primary(id, status);
        let mut deployment = match self.knobs.rollback_id {
            RollbackId::New => self.new_deployment(id, target.definition),
            RollbackId::Reuse => self.revive(id, target),
        };
        deployment.is_rollback = true;
        deployment.reason = format!("ECS deployment circuit breaker: rolling back to deploymentId {}.", deployment.id);
        let message = {
            let name = &self.state.services[id.0].name;
            format!("(service {name}) rolling back to deployment {}.", deployment.id)
        };
        let service = &mut self.state.services[id.0];
        service.deployments.insert(0, deployment);
        service.steady = false;
        self.record_primary(id);
        self.say(id, message);
        self.poke(id);
    }

    /// The completed deployment under its own id, with the tasks it still has.
    fn revive(&mut self, id: ServiceId, target: Completed) -> Deployment {
        let place = self.state.services[id.0].deployments.iter().position(|deployment| deployment.id == target.id);
        let fresh = self.new_deployment(id, target.definition);
        let old = place.map(|place| self.state.services[id.0].deployments.remove(place));
        let definition = old.map_or_else(|| fresh.definition.clone(), |old| old.definition);
        Deployment { id: target.id, definition, created_at: target.created_at, ..fresh }
    }

    /// After the choices of one look: which deployments are done, which are gone.
    pub(super) fn settle(&mut self, id: ServiceId, acted: bool) {
        self.drop_empty_deployments(id);
        let service = &self.state.services[id.0];
        let desired = service.desired;
        let Some(primary) = service.primary() else { return };
        let (number, rollout) = (primary.id, primary.rollout);
        let tasks = service.tasks.iter().map(|id| &self.state.tasks[id]).filter(|task| task.is_live());
        let (mut ready, mut of_primary, mut all) = (0_u32, 0_u32, 0_u32);
        for task in tasks {
            let is_new = task.deployment == Some(number);
            all += 1;
            of_primary += u32::from(is_new);
            ready += u32::from(is_new && task.healthy);
        }
        let steady = !acted && all == desired && ready == desired && rollout != RolloutState::Failed;
        let early = match self.knobs.early_success {
            EarlySuccess::Off => false,
            EarlySuccess::Blocking(percent) => all == of_primary && ready >= share(desired, percent),
            EarlySuccess::Deferred(percent) => ready >= share(desired, percent),
        };
        if (steady || early) && rollout == RolloutState::InProgress && self.paused_at(id).is_none() {
            self.complete(id);
        }
        let was = std::mem::replace(&mut self.state.services[id.0].steady, steady);
        if steady && !was {
            let name = self.state.services[id.0].name.clone();
            self.say(id, format!("(service {name}) has reached a steady state."));
        }
    }

    fn complete(&mut self, id: ServiceId) {
        let now = self.now;
        let service = &mut self.state.services[id.0];
        let name = service.name.clone();
        let Some(primary) = service.deployments.first_mut() else { return };
        primary.rollout = RolloutState::Completed;
        primary.reason = format!("ECS deployment {} completed.", primary.id);
        primary.updated_at = now;
        let message = format!("(service {name}) (deployment {}) deployment completed.", primary.id);
        service.last_completed =
            Some(Completed { id: primary.id, definition: primary.definition.clone(), created_at: primary.created_at });
        self.record_primary(id);
        self.say(id, message);
    }

    /// Old deployments without tasks become `INACTIVE` and are no longer listed.
    fn drop_empty_deployments(&mut self, id: ServiceId) {
        let gone: Vec<DeploymentId> = self.state.services[id.0]
            .deployments
            .iter()
            .skip(1)
            .filter(|deployment| deployment.target == 0 && self.live_of(id, deployment.id) == 0)
            .map(|deployment| deployment.id)
            .collect();
        for number in gone {
            let service = &mut self.state.services[id.0];
            let Some(place) = service.deployments.iter().position(|deployment| deployment.id == number) else {
                continue;
            };
            let old = service.deployments.remove(place);
            self.record(
                Some(id),
                Transition::Deployment {
                    deployment: number,
                    status: "INACTIVE",
                    rollout: old.rollout,
                    reason: old.reason,
                },
            );
        }
    }

    /// A deleted service has no task left that runs.
    pub(super) fn end_service(&mut self, id: ServiceId) {
        let service = &mut self.state.services[id.0];
        service.status = ServiceStatus::Inactive;
        service.deployments.clear();
    }

    /// A higher desired count during a rollout goes to old revisions, too, in proportion (AWS, What's New, November
    /// 2025).
    pub(super) fn scale_out_old(&mut self, id: ServiceId, before: u32, after: u32) {
        let service = &mut self.state.services[id.0];
        let extra = after.saturating_sub(before);
        for deployment in service.deployments.iter_mut().skip(1) {
            let share = (extra * deployment.target.min(before)).checked_div(before).unwrap_or(0);
            deployment.target += share;
        }
    }

    /// How long the newest deployment has been in progress.
    pub fn in_progress_for(&self, id: ServiceId) -> Option<Duration> {
        let primary = self.state.services.get(id.0)?.primary()?;
        (primary.rollout == RolloutState::InProgress).then(|| self.now.since(primary.created_at))
    }
}

/// So many percent of the desired count: rounded up, and at least one task.
fn share(desired: u32, percent: u32) -> u32 {
    (desired * percent).div_ceil(100).max(1)
}
