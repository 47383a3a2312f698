//! The life of one task, from its making to its last trace.

use std::net::Ipv4Addr;

use super::{
    ContainerState, DeploymentId, DesiredStatus, Effect, Health, LastStatus, ServiceId, Stop, StopCause, Task, TaskId,
    TaskTimer, Time, Transition, World, instances::Place,
};

impl World {
    /// Makes a task of a deployment, if there is a place for it.
    pub(super) fn launch(&mut self, service: ServiceId, deployment: DeploymentId) -> Option<TaskId> {
        let (zone, instance) = match self.place(service) {
            Place::Zone(zone) => (zone, None),
            Place::Instance(instance, zone) => (zone, Some(instance)),
            Place::Nowhere => return None,
        };
        let owner = &self.state.services[service.0];
        let definition = owner.deployment(deployment).expect("a listed deployment").definition.clone();
        let (cluster, name) = (owner.cluster.clone(), owner.name.clone());
        let id = self.new_task(cluster, definition, zone);
        let task = self.task_mut(id);
        task.service = Some(service);
        task.service_name = Some(name);
        task.deployment = Some(deployment);
        task.instance = instance;
        self.state.services[service.0].tasks.insert(id);
        self.begin(id);
        Some(id)
    }

    /// Makes a task that nobody has begun yet.
    pub(super) fn new_task(
        &mut self,
        cluster: String,
        definition: std::sync::Arc<super::TaskDefinition>,
        zone: u8,
    ) -> TaskId {
        let id = TaskId(self.rng.next_u128());
        self.addresses = self.addresses.wrapping_add(1).max(1);
        let ([net, works], [high, low]) = (self.knobs.network, self.addresses.to_be_bytes());
        let containers = vec![ContainerState::Waiting; definition.containers.len()];
        let task = Task {
            id,
            cluster,
            service: None,
            service_name: None,
            deployment: None,
            definition,
            zone,
            instance: None,
            address: Ipv4Addr::from([net, works, high, low]),
            last: LastStatus::Provisioning,
            desired: DesiredStatus::Running,
            containers,
            created_at: self.now,
            started_at: None,
            health: Health::Unknown,
            healthy: false,
            protected_until: None,
            stoppable_from: Time::default(),
            stop: None,
            version: 0,
        };
        self.state.tasks.insert(id, task);
        id
    }

    /// Sends a new task on its way.
    pub(super) fn begin(&mut self, id: TaskId) {
        self.changed(id);
        let delay = self.knobs.provisioning.draw(&mut self.rng);
        self.task_at(self.now + delay, id, TaskTimer::Provisioned);
    }

    pub(super) fn task_mut(&mut self, id: TaskId) -> &mut Task {
        self.state.tasks.get_mut(&id).expect("a task that is still visible")
    }

    /// The zone with the fewest tasks of the service; chance among equals.
    pub(super) fn emptiest_zone(&mut self, service: ServiceId) -> u8 {
        let mut counts = vec![0_u32; usize::from(self.knobs.zones.max(1))];
        for id in &self.state.services[service.0].tasks {
            let task = &self.state.tasks[id];
            if let (true, Some(count)) = (task.is_live(), counts.get_mut(usize::from(task.zone))) {
                *count += 1;
            }
        }
        let fewest = counts.iter().copied().min().unwrap_or(0);
        let zones: Vec<usize> = (0..counts.len()).filter(|&zone| counts[zone] == fewest).collect();
        let choice = zones[self.rng.below(zones.len())];
        u8::try_from(choice).unwrap_or(0)
    }

    /// A status of the task has changed: counts, tells, and has the scheduler look.
    fn changed(&mut self, id: TaskId) {
        let task = self.task_mut(id);
        task.version += 1;
        let (service, deployment) = (task.service, task.deployment);
        let (last, desired, version) = (task.last, task.desired, task.version);
        self.record(service, Transition::Task { task: id, deployment, last, desired, version });
        if self.knobs.events_limit > 0 {
            while self.outbox.len() >= self.knobs.events_limit {
                self.outbox.pop_front();
            }
            let task = self.state.tasks[&id].clone();
            self.outbox.push_back((self.now, task));
        }
        if let Some(service) = service {
            self.poke(service);
        }
    }

    pub(super) fn task_timer(&mut self, id: TaskId, timer: TaskTimer) {
        let Some(task) = self.state.tasks.get_mut(&id) else { return };
        let live = task.is_live();
        match timer {
            TaskTimer::Provisioned if live && task.last == LastStatus::Provisioning => {
                task.last = LastStatus::Pending;
                self.changed(id);
                let delay = self.knobs.pending.draw(&mut self.rng);
                self.task_at(self.now + delay, id, TaskTimer::Start);
            }
            TaskTimer::Start if live && task.last == LastStatus::Pending => self.start_containers(id),
            TaskTimer::Healthy if live && task.last == LastStatus::Running => self.became_healthy(id),
            TaskTimer::Deactivated if task.last == LastStatus::Deactivating => self.enter_stopping(id),
            TaskTimer::Interrupted => self.interruption_is_due(id),
            TaskTimer::Signal if task.last == LastStatus::Stopping => self.signal(id),
            TaskTimer::Kill(container) if task.containers[container] == ContainerState::Running => {
                self.effects.push(Effect::Kill { task: id, container });
                let service = self.state.tasks[&id].service;
                self.record(service, Transition::Kill { task: id, container });
            }
            TaskTimer::Deprovisioned if task.last == LastStatus::Deprovisioning => self.stopped(id),
            TaskTimer::Purge => {
                self.state.tasks.remove(&id);
            }
            TaskTimer::ProtectionEnds => self.protection_may_end(id),
            TaskTimer::MayStop => {
                if let Some(service) = task.service {
                    self.poke(service);
                }
            }
            _ => {}
        }
    }

    fn start_containers(&mut self, id: TaskId) {
        let definition = self.state.tasks[&id].definition.clone();
        if self.faults.hits_start(&definition) {
            self.container_could_not_start(id, 0, "CannotPullContainerError: the image cannot be pulled");
            return;
        }
        for container in 0..definition.containers.len() {
            self.task_mut(id).containers[container] = ContainerState::Starting;
            self.effects.push(Effect::Start { task: id, container });
        }
    }

    /// The runner has started a container.
    pub fn container_started(&mut self, id: TaskId, container: usize, now: Time) {
        self.catch_up(now);
        let healthy_after = self.knobs.healthy_after;
        let now = self.now;
        let Some(task) = self.state.tasks.get_mut(&id) else { return };
        if task.containers.get(container) != Some(&ContainerState::Starting) {
            return;
        }
        task.containers[container] = ContainerState::Running;
        if task.stop.as_ref().is_some_and(|stop| stop.signalled) {
            self.terminate(id, container);
            return;
        }
        let all_started = task.containers.iter().all(|state| *state != ContainerState::Starting);
        if all_started && task.is_live() && task.last == LastStatus::Pending {
            task.last = LastStatus::Running;
            task.started_at = Some(now);
            let checked = task.definition.containers.iter().any(|container| container.health_check);
            self.changed(id);
            if !checked {
                self.task_at(now + healthy_after, id, TaskTimer::Healthy);
            }
        }
        self.snapshot();
    }

    /// The runner could not start a container: the task ends with `TaskFailedToStart`.
    pub fn container_failed_to_start(&mut self, id: TaskId, container: usize, reason: &str, now: Time) {
        self.catch_up(now);
        let known = self.state.tasks.get(&id).and_then(|task| task.containers.get(container));
        if known == Some(&ContainerState::Starting) {
            self.container_could_not_start(id, container, reason);
            self.snapshot();
        }
    }

    fn container_could_not_start(&mut self, id: TaskId, container: usize, reason: &str) {
        self.task_mut(id).containers[container] = ContainerState::Exited(None);
        if self.state.tasks[&id].is_live() {
            self.count_failure(id);
            self.begin_stop(id, StopCause::FailedToStart, reason.to_owned());
        } else {
            self.check_execution_stopped(id);
        }
    }

    /// A container's main process has ended. `code` is its exit code, or 128 + n for signal n.
    pub fn container_exited(&mut self, id: TaskId, container: usize, code: i32, now: Time) {
        self.catch_up(now);
        let Some(task) = self.state.tasks.get_mut(&id) else { return };
        let Some(state) = task.containers.get_mut(container) else { return };
        if !matches!(state, ContainerState::Starting | ContainerState::Running) {
            return;
        }
        *state = ContainerState::Exited(Some(code));
        let essential = task.definition.containers[container].essential;
        let all_over = task.containers.iter().all(|state| matches!(state, ContainerState::Exited(_)));
        let (live, service) = (task.is_live(), task.service);
        self.record(service, Transition::Exit { task: id, container, code: Some(code) });
        if live && (essential || all_over) {
            self.count_failure(id);
            self.begin_stop(id, StopCause::Exited, "Essential container in task exited".to_owned());
        } else if !live {
            self.check_execution_stopped(id);
        }
        self.snapshot();
    }

    /// What a container health check says (for definitions that have one; others may be made unhealthy, too).
    pub fn set_health(&mut self, id: TaskId, health: Health, now: Time) {
        self.catch_up(now);
        let Some(task) = self.state.tasks.get_mut(&id) else { return };
        task.health = health;
        if health == Health::Unhealthy {
            task.healthy = false;
            self.changed(id);
        } else if health == Health::Healthy && task.is_live() && task.last == LastStatus::Running {
            self.became_healthy(id);
            self.changed(id);
        }
        self.snapshot();
    }

    fn became_healthy(&mut self, id: TaskId) {
        let task = self.task_mut(id);
        if task.health == Health::Unhealthy {
            return;
        }
        task.healthy = true;
        let (Some(service), Some(deployment)) = (task.service, task.deployment) else { return };
        if let Some(deployment) = self.state.services[service.0].deployment_mut(deployment) {
            deployment.failed_tasks = 0;
            deployment.launch_failures = 0;
            deployment.launch_from = Time::default();
        }
        self.poke(service);
    }

    /// Decides that a task ends, and begins its end.
    pub(super) fn begin_stop(&mut self, id: TaskId, cause: StopCause, reason: String) {
        let now = self.now;
        let task = self.task_mut(id);
        assert!(task.is_live(), "a task is stopped once");
        let protected_until = task.protected_until.filter(|until| *until > now);
        task.desired = DesiredStatus::Stopped;
        task.healthy = false;
        let (service, deployment) = (task.service, task.deployment);
        let ran = task.last == LastStatus::Running;
        let began = task.containers.iter().any(|state| *state != ContainerState::Waiting);
        task.stop = Some(Stop {
            cause,
            reason: reason.clone(),
            decided_at: now,
            stopping_at: None,
            signalled: false,
            execution_stopped_at: None,
            stopped_at: None,
        });
        self.record(service, Transition::Stop { task: id, deployment, cause, reason, protected_until });
        let deactivating = self.knobs.deactivating;
        if ran && !deactivating.is_zero() && cause != StopCause::Exited {
            self.task_mut(id).last = LastStatus::Deactivating;
            self.changed(id);
            self.task_at(now + deactivating, id, TaskTimer::Deactivated);
        } else if began {
            self.enter_stopping(id);
        } else {
            self.set_stopping_at(id);
            self.enter_deprovisioning(id);
        }
    }

    fn set_stopping_at(&mut self, id: TaskId) {
        let now = self.now;
        if let Some(stop) = &mut self.task_mut(id).stop {
            stop.stopping_at = Some(now);
        }
    }

    fn enter_stopping(&mut self, id: TaskId) {
        self.set_stopping_at(id);
        self.task_mut(id).last = LastStatus::Stopping;
        self.changed(id);
        self.task_at(self.now + self.knobs.signal_delay, id, TaskTimer::Signal);
        self.check_execution_stopped(id);
    }

    /// Time for SIGTERM.
    fn signal(&mut self, id: TaskId) {
        let task = self.task_mut(id);
        if let Some(stop) = &mut task.stop {
            stop.signalled = true;
        }
        let service = task.service;
        let running: Vec<usize> =
            (0..task.containers.len()).filter(|&index| task.containers[index] == ContainerState::Running).collect();
        self.record(service, Transition::Terminate { task: id });
        for container in running {
            self.terminate(id, container);
        }
    }

    fn terminate(&mut self, id: TaskId, container: usize) {
        let asked = self.state.tasks[&id].definition.containers[container].stop_timeout;
        let timeout = asked.unwrap_or(self.knobs.default_stop_timeout).min(self.knobs.max_stop_timeout);
        self.effects.push(Effect::Terminate { task: id, container });
        self.task_at(self.now + timeout, id, TaskTimer::Kill(container));
    }

    fn check_execution_stopped(&mut self, id: TaskId) {
        let now = self.now;
        let task = self.task_mut(id);
        let running =
            task.containers.iter().any(|state| matches!(state, ContainerState::Running | ContainerState::Starting));
        if running || task.last != LastStatus::Stopping {
            // A container that ends while the task is DEACTIVATING is looked at when that is over.
            return;
        }
        if let Some(stop) = &mut task.stop {
            stop.execution_stopped_at = Some(now);
        }
        self.enter_deprovisioning(id);
    }

    fn enter_deprovisioning(&mut self, id: TaskId) {
        self.task_mut(id).last = LastStatus::Deprovisioning;
        self.changed(id);
        self.task_at(self.now + self.knobs.deprovisioning, id, TaskTimer::Deprovisioned);
    }

    fn stopped(&mut self, id: TaskId) {
        let now = self.now;
        let task = self.task_mut(id);
        task.last = LastStatus::Stopped;
        if let Some(stop) = &mut task.stop {
            stop.stopped_at = Some(now);
        }
        let service = task.service;
        self.changed(id);
        if let Some(service) = service {
            self.state.services[service.0].tasks.remove(&id);
        }
        self.task_at(now + self.knobs.stopped_retention, id, TaskTimer::Purge);
    }
}
