//! What the scheduler moves without a deployment: tasks from a crowded Availability Zone to an empty one, and off instances that
//! are being emptied.
//!
//! Rules: AWS, "Balancing an Amazon ECS service across Availability Zones": after steady state, and only where `maximumPercent`
//! is more than 100, a task is started in the poor zone; when it is healthy, one of the rich zone is stopped. Protected tasks are
//! passed over. What follows if all of them stay protected is not documented, so that is a
//! [knob](super::Knobs::rebalance_gives_up_seconds).

use std::time::Duration;

use super::{DrainingProtected, RolloutState, ServiceId, StopCause, TaskId, Time, World, scheduler::Turn};

/// A task was started to balance the zones, and none was stopped for it yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Move {
    newcomer: TaskId,
    since: Time,
}

impl World {
    /// Begins, ends or gives up a move between zones, as it is due.
    pub(super) fn rebalance(&mut self, id: ServiceId, turn: &mut Turn) {
        let Some(Move { newcomer, since }) = self.moving(id) else {
            self.state.services[id.0].moving = None;
            self.begin_move(id, turn);
            return;
        };
        if !self.state.tasks[&newcomer].healthy {
            return;
        }
        let zones = self.by_zone(id);
        let most = zones.iter().map(Vec::len).max().unwrap_or(0);
        let crowded = zones.iter().filter(|tasks| tasks.len() == most).flatten().copied();
        let free =
            crowded.into_iter().find(|task| *task != newcomer && self.state.tasks[task].may_be_stopped(self.now));
        let gives_up_at = self.knobs.rebalance_gives_up_seconds.map(|after| since + Duration::from_secs(after.into()));
        if let Some(task) = free {
            self.scale_in(task, turn);
        } else if gives_up_at.is_none_or(|at| at > self.now) {
            if let Some(at) = gives_up_at {
                self.poke_at(id, at);
            }
            return;
        } else if self.state.tasks[&newcomer].may_be_stopped(self.now) {
            self.scale_in(newcomer, turn);
        }
        self.state.services[id.0].moving = None;
    }

    /// The move that goes on.
    pub(super) fn moving(&self, id: ServiceId) -> Option<Move> {
        self.state.services[id.0]
            .moving
            .filter(|known| self.state.tasks.get(&known.newcomer).is_some_and(super::Task::is_live))
    }

    fn begin_move(&mut self, id: ServiceId, turn: &mut Turn) {
        let service = &self.state.services[id.0];
        let has_room = service.configuration.upper(service.desired) > service.desired;
        let steady = service.deployments.len() == 1
            && service.primary().is_some_and(|primary| primary.rollout == RolloutState::Completed)
            && service.tasks.iter().filter(|task| self.state.tasks[task].is_live()).count() == service.desired as usize;
        let sizes: Vec<usize> = self.by_zone(id).iter().map(Vec::len).collect();
        let poorest =
            sizes.iter().enumerate().filter(|(zone, _)| self.takes_tasks(id, *zone)).map(|(_, size)| *size).min();
        let spread = sizes.iter().max().unwrap_or(&0).saturating_sub(poorest.unwrap_or(usize::MAX));
        let Some(deployment) = service.primary().map(|primary| primary.id) else { return };
        if !service.rebalances || !has_room || !steady || spread < 2 || self.faults.no_capacity {
            return;
        }
        let name = service.name.clone();
        let Some(newcomer) = self.launch(id, deployment) else { return };
        turn.started.push(newcomer);
        self.state.services[id.0].moving = Some(Move { newcomer, since: self.now });
        self.say(id, format!("(service {name}) is not AZ balanced. AZ Rebalancing in progress."));
    }

    /// Live tasks by zone, of all zones that there are.
    fn by_zone(&self, id: ServiceId) -> Vec<Vec<TaskId>> {
        let mut zones = vec![Vec::new(); usize::from(self.knobs.zones.max(1))];
        for task in self.state.services[id.0].tasks.iter().filter(|task| self.state.tasks[*task].is_live()) {
            if let Some(zone) = zones.get_mut(usize::from(self.state.tasks[task].zone)) {
                zone.push(*task);
            }
        }
        zones
    }

    /// Stops tasks on instances that are being emptied, as far as the lower bound allows.
    pub(super) fn stop_displaced(&mut self, id: ServiceId, turn: &mut Turn) {
        let service = &self.state.services[id.0];
        let lower = service.configuration.lower(service.desired);
        let live = service.tasks.iter().copied().filter(|task| self.state.tasks[task].is_live());
        let displaced: Vec<TaskId> = live.filter(|task| self.is_displaced(*task)).collect();
        for task in displaced {
            let healthy = self.tasks_of(id).filter(|task| task.healthy).count();
            let left = healthy - usize::from(self.state.tasks[&task].healthy);
            let held = self.knobs.draining_protected == DrainingProtected::Holds
                && !self.state.tasks[&task].may_be_stopped(self.now);
            if left >= lower as usize && !held {
                self.begin_stop(task, StopCause::Draining, "Task stopped during instance draining".to_owned());
                turn.stopped.push(task);
            }
        }
    }
}
