//! One look of the scheduler at one service: what to start, what to stop, and what to say about it.
//!
//! Rules: AWS, "Deploy Amazon ECS services by replacing tasks", and the API's `UpdateService`. Starting comes before
//! stopping, and nothing that is protected is ever stopped for a rollout or a scale-in.

use std::fmt::Write as _;

use super::{
    DeleteForceProtected, Deployment, DeploymentId, Health, LastStatus, PauseStage, ReplaceTerminated, RolloutState,
    ServiceId, ServiceStatus, StopCause, TaskId, Time, World,
};

/// Task ids in one service event.
const IDS_PER_EVENT: usize = 10;

/// The tasks of a service, counted once for one look.
#[derive(Debug, Default)]
struct Census {
    live: u32,
    healthy: u32,
    primary_healthy: u32,
    /// Live and not wanted gone, by deployment, in the order of the service's list.
    useful: Vec<u32>,
}

/// What one look did.
#[derive(Debug, Default)]
pub(super) struct Turn {
    pub(super) started: Vec<TaskId>,
    pub(super) stopped: Vec<TaskId>,
    stopped_pending: u32,
    /// Why nothing could be done although something should be.
    stuck: bool,
}

impl World {
    pub(super) fn tick(&mut self, id: ServiceId, at: Time) {
        let service = &mut self.state.services[id.0];
        if service.tick_at != Some(at) {
            return; // An earlier look was asked for meanwhile, and has been had.
        }
        service.tick_at = None;
        match service.status {
            ServiceStatus::Inactive => {}
            ServiceStatus::Draining => self.tick_draining(id),
            ServiceStatus::Active => self.tick_active(id),
        }
    }

    fn tick_active(&mut self, id: ServiceId) {
        self.check_breaker(id);
        self.pause(id);
        self.bake(id);
        let mut turn = Turn::default();
        self.start_tasks(id, &mut turn);
        self.rebalance(id, &mut turn);
        self.stop_unhealthy(id, &mut turn);
        self.stop_displaced(id, &mut turn);
        self.stop_tasks(id, &mut turn);
        let acted = !turn.started.is_empty() || !turn.stopped.is_empty();
        self.tell(id, &turn);
        self.settle(id, acted);
        if acted {
            self.poke(id);
        }
    }

    fn census(&self, id: ServiceId) -> Census {
        let service = &self.state.services[id.0];
        let mut census = Census { useful: vec![0; service.deployments.len()], ..Census::default() };
        let primary = service.primary().map(|primary| primary.id);
        for task in service.tasks.iter().map(|id| &self.state.tasks[id]).filter(|task| task.is_live()) {
            census.live += 1;
            census.healthy += u32::from(task.healthy);
            if task.deployment == primary {
                census.primary_healthy += u32::from(task.healthy);
            }
            let place = service.deployments.iter().position(|deployment| Some(deployment.id) == task.deployment);
            if let Some(place) = place.filter(|_| !self.is_wanted_gone(task.id)) {
                census.useful[place] += 1;
            }
        }
        census
    }

    /// Whether another task shall take its place: it is unhealthy, or its container instance is being emptied.
    fn is_wanted_gone(&self, task: TaskId) -> bool {
        self.state.tasks[&task].health == Health::Unhealthy || self.is_displaced(task)
    }

    /// Starts replacements of old tasks, then tasks of the primary, as far as the upper bound allows.
    fn start_tasks(&mut self, id: ServiceId, turn: &mut Turn) {
        let census = self.census(id);
        self.adjust_targets(id, &census);
        let service = &self.state.services[id.0];
        // Green comes up in full beside blue, whatever the bounds of a rolling deployment are.
        let rolling = service.configuration.upper(service.desired);
        let upper = if self.bakes(id) { rolling.max(service.desired * 2) } else { rolling };
        let is_paused = self.paused_at(id) == Some(PauseStage::PreScaleUp);
        let mut room = upper.saturating_sub(census.live).min(self.knobs.start_batch.unwrap_or(u32::MAX));
        // Old revisions first: their tasks are what keeps the service up until the new ones are healthy.
        let mut wanted: Vec<(DeploymentId, u32)> = Vec::new();
        let order = (1..service.deployments.len()).chain([0]);
        for (place, deployment) in order.filter_map(|place| Some((place, service.deployments.get(place)?))) {
            let target = if place == 0 { service.desired } else { deployment.target };
            let waits = place == 0 && is_paused;
            let missing = if waits { 0 } else { target.saturating_sub(census.useful[place]) };
            if missing > 0 && deployment.rollout != RolloutState::Failed {
                wanted.push((deployment.id, missing));
                turn.stuck |= place == 0 && room == 0;
            }
        }
        if self.faults.no_capacity && !wanted.is_empty() {
            self.say_once(id, "was unable to place a task. Reason: Capacity is unavailable at this time.");
            return;
        }
        for (deployment, missing) in wanted {
            let from = self.state.services[id.0].deployment(deployment).map_or(self.now, |it| it.launch_from);
            if from > self.now {
                self.poke_at(id, from);
                continue;
            }
            let starts = missing.min(room);
            room -= starts;
            for _ in 0..starts {
                let Some(task) = self.launch(id, deployment) else {
                    self.say_once(
                        id,
                        "was unable to place a task because no container instance met all of its requirements.",
                    );
                    return;
                };
                turn.started.push(task);
            }
        }
    }

    /// What old deployments should have, now that others have ended by themselves or the new one is up.
    fn adjust_targets(&mut self, id: ServiceId, census: &Census) {
        let rule = self.knobs.replace_terminated;
        let service = &mut self.state.services[id.0];
        let complete = census.primary_healthy >= service.desired;
        for (place, deployment) in service.deployments.iter_mut().enumerate() {
            if place == 0 {
                deployment.target = service.desired;
            } else if deployment.rollout == RolloutState::Failed
                || (complete && rule != ReplaceTerminated::SameRevisionAlways)
            {
                deployment.target = 0;
            } else if rule == ReplaceTerminated::Primary {
                deployment.target = deployment.target.min(census.useful[place]);
            }
        }
    }

    /// Unhealthy tasks are stopped once their replacements are healthy, or to make room for them. Protection does not
    /// help them.
    fn stop_unhealthy(&mut self, id: ServiceId, turn: &mut Turn) {
        let service = &self.state.services[id.0];
        let lower = service.configuration.lower(service.desired);
        let upper = service.configuration.upper(service.desired);
        let census = self.census(id);
        if census.healthy < lower.max(1) && census.live < upper {
            return;
        }
        let unhealthy: Vec<TaskId> = service
            .tasks
            .iter()
            .copied()
            .filter(|task| {
                let task = &self.state.tasks[task];
                task.is_live() && task.health == Health::Unhealthy
            })
            .collect();
        for task in unhealthy {
            self.count_failure(task);
            self.begin_stop(task, StopCause::Unhealthy, "Task failed container health checks".to_owned());
            turn.stopped.push(task);
        }
    }

    /// Stops what is too much of the primary, and what is old, as far as the lower bound allows.
    fn stop_tasks(&mut self, id: ServiceId, turn: &mut Turn) {
        let census = self.census(id);
        let service = &self.state.services[id.0];
        let Some(primary) = service.primary() else { return };
        let (primary_id, stalled) = (primary.id, primary.rollout == RolloutState::Failed);
        let mut spare = census.healthy.saturating_sub(service.configuration.lower(service.desired));
        // The task that was started to balance the zones is no excess.
        let wanted = service.desired + u32::from(self.moving(id).is_some());
        let mut excess = census.useful.first().map_or(0, |useful| useful.saturating_sub(wanted));
        let may = |task: &TaskId| self.state.tasks[task].may_be_stopped(self.now) && !self.is_wanted_gone(*task);
        let of_primary = |task: &TaskId| self.state.tasks[task].deployment == Some(primary_id);
        let (mut new, mut old): (Vec<TaskId>, Vec<TaskId>) =
            service.tasks.iter().filter(|t| may(t)).partition(|t| of_primary(t));
        while excess > 0
            && let Some(task) = self.victim(id, &mut new, &mut spare)
        {
            excess -= 1;
            self.scale_in(task, turn);
        }
        // A deployment that pauses stops nothing.
        let waits = stalled || self.paused_at(id).is_some() || self.bakes(id);
        while !waits && let Some(task) = self.victim(id, &mut old, &mut spare) {
            self.scale_in(task, turn);
        }
        let old_left = !old.is_empty();
        // Not stuck while something is still on its way.
        turn.stuck &= old_left && census.healthy == census.live && turn.stopped.is_empty() && turn.started.is_empty();
        self.tell_blocked(id, excess, spare);
    }

    /// Takes one task out of `candidates` that may be stopped: one that nobody relies on costs nothing; another one
    /// costs one of `spare`. Then the zone with most tasks decides, then chance (AWS: `UpdateService`).
    fn victim(&mut self, id: ServiceId, candidates: &mut Vec<TaskId>, spare: &mut u32) -> Option<TaskId> {
        let service = &self.state.services[id.0];
        let mut per_zone = [0_u32; 256];
        for task in service.tasks.iter().map(|id| &self.state.tasks[id]).filter(|task| task.is_live()) {
            per_zone[usize::from(task.zone)] += 1;
        }
        let rank = |task: TaskId| (self.is_free(id, task), per_zone[usize::from(self.state.tasks[&task].zone)]);
        let best = candidates.iter().copied().map(rank).filter(|(free, _)| *spare > 0 || *free).max()?;
        let places: Vec<usize> = (0..candidates.len()).filter(|&place| rank(candidates[place]) == best).collect();
        let free = best.0;
        let chosen = candidates.swap_remove(places[self.rng.below(places.len())]);
        // Keeps the order independent of earlier choices.
        candidates.sort_unstable();
        if !free {
            *spare -= 1;
        }
        Some(chosen)
    }

    /// Whether a task can be stopped without anybody missing it: it is not healthy, and it is not on its way to
    /// replace a lost task of an old revision that still should have it.
    fn is_free(&self, id: ServiceId, task: TaskId) -> bool {
        let task = &self.state.tasks[&task];
        let deployment = task.deployment.and_then(|number| self.state.services[id.0].deployment(number));
        let replaces = deployment.is_some_and(|deployment| {
            deployment.replaced_at.is_some_and(|since| task.created_at > since)
                && self.live_of(id, deployment.id) <= deployment.target
        });
        !task.healthy && !replaces
    }

    pub(super) fn scale_in(&mut self, id: TaskId, turn: &mut Turn) {
        let task = &self.state.tasks[&id];
        turn.stopped_pending += u32::from(task.last != LastStatus::Running);
        turn.stopped.push(id);
        let (Some(service), Some(deployment)) = (task.service, task.deployment) else { return };
        if let Some(deployment) = self.state.services[service.0].deployment_mut(deployment) {
            deployment.target = deployment.target.saturating_sub(1);
        }
        self.begin_stop(id, StopCause::Scaling, format!("Scaling activity initiated by (deployment {deployment})"));
    }

    /// Service events about protected tasks that are in the way, each once.
    fn tell_blocked(&mut self, id: ServiceId, excess: u32, spare: u32) {
        let service = &self.state.services[id.0];
        let protected = |deployment: &Deployment| {
            let tasks = service.tasks.iter().map(|id| &self.state.tasks[id]);
            tasks
                .filter(|task| task.deployment == Some(deployment.id) && task.is_live() && task.is_protected(self.now))
                .count()
        };
        let name = &service.name;
        let lines: Vec<String> = service
            .deployments
            .iter()
            .enumerate()
            .filter(|(place, _)| if *place == 0 { excess > 0 } else { spare > 0 || service.desired == 0 })
            .map(|(place, deployment)| {
                let count = protected(deployment);
                (deployment.id, if place == 0 { count.min(excess as usize) } else { count })
            })
            .filter(|(_, count)| *count > 0)
            .map(|(deployment, count)| {
                format!(
                    "(service {name}) was unable to reach steady state because (taskSet {deployment}) was unable to \
                     scale in due to (reason {count} tasks under protection)"
                )
            })
            .collect();
        let said = (!lines.is_empty()).then(|| lines.join("\n"));
        if said.is_some() && said != self.state.services[id.0].last_block {
            self.state.services[id.0].last_block = said;
            for line in lines {
                self.say(id, line);
            }
        } else if said.is_none() {
            self.state.services[id.0].last_block = None;
        }
    }

    /// Says something about the service unless it was the last thing said.
    fn say_once(&mut self, id: ServiceId, what: &str) {
        let service = &self.state.services[id.0];
        let message = format!("(service {}) {what}", service.name);
        if service.events.back().is_none_or(|event| event.message != message) {
            self.say(id, message);
        }
    }

    fn tell(&mut self, id: ServiceId, turn: &Turn) {
        let name = self.state.services[id.0].name.clone();
        for ids in turn.started.chunks(IDS_PER_EVENT) {
            let message = format!("(service {name}) has started {} tasks:{}.", ids.len(), list(ids));
            self.say(id, message);
        }
        if turn.stopped_pending > 0 {
            self.say(id, format!("(service {name}) stopped {} pending tasks.", turn.stopped_pending));
        }
        let running: Vec<TaskId> =
            turn.stopped.iter().copied().filter(|id| self.state.tasks[id].started_at.is_some()).collect();
        for ids in running.chunks(IDS_PER_EVENT) {
            let message = format!("(service {name}) has stopped {} running tasks:{}.", ids.len(), list(ids));
            self.say(id, message);
        }
        if turn.stuck {
            self.say_once(
                id,
                "was unable to stop or start tasks during a deployment because of the service deployment \
                 configuration. Update the minimumHealthyPercent or maximumPercent value and try again.",
            );
        }
    }

    fn tick_draining(&mut self, id: ServiceId) {
        let service = &self.state.services[id.0];
        let holds = !service.force_deleted || self.knobs.delete_force_protected == DeleteForceProtected::Holds;
        let live: Vec<TaskId> = service.tasks.iter().copied().filter(|task| self.state.tasks[task].is_live()).collect();
        let mut left = false;
        for task in live {
            if holds && !self.state.tasks[&task].may_be_stopped(self.now) {
                left = true;
                continue;
            }
            let deployment = self.state.tasks[&task].deployment;
            let reason = deployment.map_or_else(String::new, |deployment| {
                format!("Scaling activity initiated by (deployment {deployment})")
            });
            self.begin_stop(task, StopCause::Deletion, reason);
        }
        if !left {
            self.end_service(id);
        }
    }

    /// A look at this very time, off the service's grid.
    pub(super) fn poke_at(&mut self, id: ServiceId, at: Time) {
        let service = &mut self.state.services[id.0];
        if service.tick_at.is_none_or(|next| next > at) {
            service.tick_at = Some(at);
            self.at(at, super::Timer::Tick(id));
        }
    }
}

fn list(ids: &[TaskId]) -> String {
    ids.iter().fold(String::new(), |mut text, id| {
        let _ = write!(text, " (task {id})");
        text
    })
}
