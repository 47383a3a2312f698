//! Task scale-in protection (AWS: "Protect your Amazon ECS tasks from being terminated by scale-in events").

use std::time::Duration;

use super::{
    ApiError, BlockedRenewal, BlockedRule, Failure, LastStatus, Operation, RolloutState, ServiceId, Task, TaskId,
    TaskTimer, Time, Transition, World,
};

/// `UpdateTaskProtection` takes at most so many tasks.
const MAX_UPDATE: usize = 10;
/// `GetTaskProtection` takes at most so many tasks.
const MAX_GET: usize = 100;
/// The longest protection, in minutes: 48 hours.
const MAX_MINUTES: u32 = 2880;
/// If nothing is said, in minutes: two hours.
const DEFAULT_MINUTES: u32 = 120;

/// What `UpdateTaskProtection` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Protect, or extend or shorten to so many minutes from now; 120 if absent.
    On(Option<u32>),
    /// Take protection away.
    Off,
}

/// One entry of `protectedTasks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtectedTask {
    /// Which.
    pub task: TaskId,
    /// `expirationDate`, if it is protected.
    pub until: Option<Time>,
}

/// The answer of both operations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProtectionAnswer {
    /// `protectedTasks`.
    pub tasks: Vec<ProtectedTask>,
    /// `failures`.
    pub failures: Vec<Failure>,
}

impl World {
    /// `UpdateTaskProtection`. Tasks are ids or ARNs.
    pub fn update_task_protection(
        &mut self,
        cluster: &str,
        tasks: &[&str],
        protection: Protection,
        now: Time,
    ) -> Result<ProtectionAnswer, ApiError> {
        self.call(Operation::UpdateTaskProtection, now, |world| {
            let cluster = world.state.cluster_name(cluster)?;
            let ids = parse(tasks, MAX_UPDATE)?;
            if let Protection::On(Some(minutes)) = protection
                && !(1..=MAX_MINUTES).contains(&minutes)
            {
                return Err(ApiError::invalid(format!(
                    "expiresInMinutes must be between 1 and {MAX_MINUTES} inclusive."
                )));
            }
            let mut answer = ProtectionAnswer::default();
            if world.faults.empty_protection_answers {
                return Ok(answer);
            }
            for id in ids {
                match world.protect_one(&cluster, id, protection) {
                    Ok(protected) => answer.tasks.push(protected),
                    Err(reason) => answer.failures.push(world.protection_failure(&cluster, id, reason)),
                }
            }
            Ok(answer)
        })
    }

    /// `GetTaskProtection`. Tasks are ids or ARNs.
    pub fn get_task_protection(
        &mut self,
        cluster: &str,
        tasks: &[&str],
        now: Time,
    ) -> Result<ProtectionAnswer, ApiError> {
        self.call(Operation::GetTaskProtection, now, |world| {
            let cluster = world.state.cluster_name(cluster)?;
            let ids = parse(tasks, MAX_GET)?;
            let mut answer = ProtectionAnswer::default();
            if world.faults.empty_protection_answers {
                return Ok(answer);
            }
            let (at, state) = world.view();
            let mut refused = Vec::new();
            for id in ids {
                match state.tasks.get(&id).filter(|task| task.cluster == cluster) {
                    None => refused.push((id, "MISSING")),
                    Some(task) if task.service.is_none() => refused.push((id, "TASK_NOT_VALID")),
                    Some(task) => {
                        let until = task.protected_until.filter(|until| *until > at);
                        answer.tasks.push(ProtectedTask { task: id, until });
                    }
                }
            }
            for (id, reason) in refused {
                let failure = world.protection_failure(&cluster, id, reason.to_owned());
                answer.failures.push(failure);
            }
            Ok(answer)
        })
    }

    fn protection_failure(&self, cluster: &str, id: TaskId, reason: String) -> Failure {
        let detail = match reason.as_str() {
            "DEPLOYMENT_BLOCKED" => {
                Some("The number of protected tasks are more than the desired count of tasks.".to_owned())
            }
            "TASK_NOT_VALID" => Some("The specified task isn't part of an Amazon ECS service.".to_owned()),
            _ => None,
        };
        Failure { arn: self.knobs.task_arn(cluster, id), reason, detail }
    }

    fn protect_one(&mut self, cluster: &str, id: TaskId, protection: Protection) -> Result<ProtectedTask, String> {
        let now = self.now;
        let Some(task) = self.state.tasks.get(&id).filter(|task| task.cluster == cluster) else {
            return Err("MISSING".to_owned());
        };
        let Some(service) = task.service.filter(|_| task.is_live()) else {
            // For a task that is ending AWS gives no reason of its own.
            return Err("TASK_NOT_VALID".to_owned());
        };
        match protection {
            Protection::Off => {
                if task.is_protected(now) {
                    self.record(Some(service), Transition::Unprotected { task: id });
                    self.protection_ended(id, now);
                }
                self.task_mut(id).protected_until = None;
                Ok(ProtectedTask { task: id, until: None })
            }
            Protection::On(minutes) => {
                if let Some(reason) = self.refusal(service, id) {
                    self.record(Some(service), Transition::ProtectionRefused { task: id, reason: reason.clone() });
                    return Err(reason);
                }
                let minutes = u64::from(minutes.unwrap_or(DEFAULT_MINUTES));
                let until = now + Duration::from_secs(minutes * 60).div_f64(self.knobs.protection_scale);
                self.task_mut(id).protected_until = Some(until);
                self.record(Some(service), Transition::Protected { task: id, until });
                self.task_at(until, id, TaskTimer::ProtectionEnds);
                self.poke(service);
                Ok(ProtectedTask { task: id, until: Some(until) })
            }
        }
    }

    /// Why a task may not be protected now.
    fn refusal(&self, service: ServiceId, id: TaskId) -> Option<String> {
        if let Some(reason) = &self.faults.refuse_protection {
            return Some(reason.clone());
        }
        let renewal = self.state.tasks[&id].is_protected(self.now);
        let blocked = match (renewal, self.knobs.blocked_renewal) {
            (true, BlockedRenewal::Allow) => false,
            (true, BlockedRenewal::RefuseOldAfter(seconds)) => {
                self.is_over_protected(service, id) || self.has_blocked_for(id, seconds)
            }
            _ => self.is_over_protected(service, id),
        };
        blocked.then(|| "DEPLOYMENT_BLOCKED".to_owned())
    }

    fn is_over_protected(&self, service: ServiceId, id: TaskId) -> bool {
        let owner = &self.state.services[service.0];
        let progress = owner.primary().filter(|primary| primary.rollout == RolloutState::InProgress);
        let applies = match self.knobs.blocked_rule {
            BlockedRule::Off => false,
            BlockedRule::Always => true,
            BlockedRule::WhileInProgress => progress.is_some(),
            BlockedRule::WhileInProgressFor(seconds) => progress
                .is_some_and(|primary| self.now.since(primary.created_at) >= Duration::from_secs(u64::from(seconds))),
        };
        if !applies {
            return false;
        }
        let holds = |task: &&Task| task.is_live() && (task.id == id || task.is_protected(self.now));
        let after = owner.tasks.iter().map(|id| &self.state.tasks[id]).filter(holds).count();
        after > owner.desired as usize
    }

    fn has_blocked_for(&self, id: TaskId, seconds: u32) -> bool {
        let task = &self.state.tasks[&id];
        let deployment = task
            .service
            .zip(task.deployment)
            .and_then(|(service, deployment)| self.state.services[service.0].deployment(deployment));
        deployment
            .and_then(|deployment| deployment.replaced_at)
            .is_some_and(|since| self.now.since(since) >= Duration::from_secs(u64::from(seconds)))
    }

    /// The timer of a protection, which may have been extended or taken away since.
    pub(super) fn protection_may_end(&mut self, id: TaskId) {
        let now = self.now;
        let Some(task) = self.state.tasks.get_mut(&id) else { return };
        let Some(until) = task.protected_until.filter(|until| *until <= now) else { return };
        task.protected_until = None;
        let (service, over) = (task.service, task.last == LastStatus::Stopped);
        if !over {
            self.record(service, Transition::ProtectionExpired { task: id });
            self.protection_ended(id, until);
        }
    }

    /// Lets the scheduler act on an ended protection after a while.
    fn protection_ended(&mut self, id: TaskId, at: Time) {
        let from = at + self.knobs.unprotect_delay;
        self.task_mut(id).stoppable_from = from;
        self.task_at(from, id, TaskTimer::MayStop);
    }
}

fn parse(tasks: &[&str], limit: usize) -> Result<Vec<TaskId>, ApiError> {
    if tasks.is_empty() {
        return Err(ApiError::invalid("Tasks cannot be empty."));
    }
    if tasks.len() > limit {
        return Err(ApiError::invalid(format!("Tasks can have at most {limit} items.")));
    }
    tasks
        .iter()
        .map(|task| task.parse().map_err(|_| ApiError::invalid("taskId length should be one of [32,36]")))
        .collect()
}
