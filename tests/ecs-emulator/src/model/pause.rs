//! Deployments that pause, as those with a PAUSE lifecycle hook do (Developer Guide, "Pause a deployment with lifecycle
//! hooks", May 2026), until somebody continues them or their time runs out. Which stages a *rolling* deployment visits is
//! not documented; both that would matter to a drain can be had. Nobody continues here: the time runs out.
//!
//! And those with a bake time: with the strategies `BLUE_GREEN`, `LINEAR` and `CANARY` all new tasks run beside all old ones, and
//! ECS stops none of the old ones before the bake time is over. There is no load balancer here, so the three do not differ.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{RolloutState, Service, ServiceId, Strategy, Time, World, time::seconds};

/// Where and for how long every deployment of a service pauses that is neither its first nor a rollback.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// Where.
    pub stage: PauseStage,
    /// For how long.
    #[serde(with = "seconds", rename = "seconds")]
    pub lasts: Duration,
    /// And then.
    pub then: PauseEnd,
}

/// Where a deployment pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseStage {
    /// `RECONCILE_SERVICE` or `PRE_SCALE_UP`: before it starts its first task. No old one is stopped either.
    PreScaleUp,
    /// `POST_SCALE_UP`: when all of its tasks are healthy. No old one that is left is stopped. In a rolling deployment old
    /// ones may be gone by then.
    PostScaleUp,
}

/// What follows when the time of a pause runs out (`timeoutAction`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseEnd {
    /// It goes on.
    Continue,
    /// It has failed, and is rolled back.
    Rollback,
}

impl World {
    /// Lets the primary begin or end its pause, as it is due.
    pub(super) fn pause(&mut self, id: ServiceId) {
        let Some(pause) = self.knobs.pause else { return };
        let service = &self.state.services[id.0];
        let (now, desired, is_first) = (self.now, service.desired, service.last_completed.is_none());
        let healthy = self.healthy_of_primary(id);
        let Some(primary) = self.state.services[id.0].deployments.first_mut() else { return };
        if primary.rollout != RolloutState::InProgress || primary.is_rollback || is_first {
            return;
        }
        let is_due = pause.stage == PauseStage::PreScaleUp || healthy >= desired;
        if is_due && primary.paused_until.is_none() {
            primary.paused_until = Some(now + pause.lasts);
        }
        match primary.paused_until {
            Some(until) if until > now => self.poke_at(id, until),
            Some(_) if pause.then == PauseEnd::Rollback => {
                self.fail(id, "ECS deployment lifecycle hook timed out.", "a lifecycle hook timed out");
                self.roll_back(id);
            }
            _ => {}
        }
    }

    /// Where the primary pauses now.
    pub(super) fn paused_at(&self, id: ServiceId) -> Option<PauseStage> {
        let until: Time = self.state.services[id.0].primary()?.paused_until?;
        self.knobs.pause.filter(|_| until > self.now).map(|pause| pause.stage)
    }

    /// Notes when all new tasks of a deployment with a bake time are healthy.
    pub(super) fn bake(&mut self, id: ServiceId) {
        let (now, healthy) = (self.now, self.healthy_of_primary(id));
        let service = &mut self.state.services[id.0];
        let (desired, lasts) = (service.desired, bake_time(service));
        let Some(primary) = service.deployments.first_mut() else { return };
        if primary.bakes_since.is_none() && healthy >= desired {
            primary.bakes_since = Some(now);
        }
        if let Some(end) = primary.bakes_since.map(|since| since + lasts).filter(|end| *end > now) {
            self.poke_at(id, end);
        }
    }

    /// Whether old tasks stay because the newest deployment is not rolling, and its bake time is not over.
    pub(super) fn bakes(&self, id: ServiceId) -> bool {
        let service = &self.state.services[id.0];
        let baked = |primary: &super::Deployment| {
            primary.bakes_since.is_some_and(|since| since + bake_time(service) <= self.now)
        };
        service.strategy != Strategy::Rolling && service.deployments.len() > 1 && !service.primary().is_some_and(baked)
    }

    fn healthy_of_primary(&self, id: ServiceId) -> u32 {
        let service = &self.state.services[id.0];
        let primary = service.primary().map(|primary| primary.id);
        let tasks = service.tasks.iter().map(|id| &self.state.tasks[id]);
        let healthy = tasks.filter(|task| task.is_live() && task.healthy && task.deployment == primary);
        u32::try_from(healthy.count()).unwrap_or(u32::MAX)
    }
}

fn bake_time(service: &Service) -> Duration {
    Duration::from_mins(1) * service.bake_minutes
}
