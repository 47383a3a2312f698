//! The end: what must have come to rest, and what may not be left behind.

use ecs_emulator::model::Time;
use worker_drain_plan::{
    Memory,
    policy::HoldMode,
    report::{Reason, Report, RolloutOutcome},
};

use super::{Change, JobState, Node, NodeState, World};
use crate::{fault::Fault, judge::RULES};

impl World {
    /// Nothing is left to do for anybody.
    pub fn rests(&self) -> bool {
        let idle = self.deleted || self.jobs.iter().all(|job| job.state != JobState::Delivered);
        idle && self.is_settled()
    }

    /// Nothing is left to do for the drain. Jobs may run on for hours where they came after its end.
    fn is_settled(&self) -> bool {
        let policy = self.policy.as_ref().is_some_and(|policy| !policy.withdrawn);
        let settled = self.taps[0].plan.as_ref().is_some_and(|plan| plan.report.settled && plan.actions.is_empty());
        // A deleted service whose scale-in is not ours keeps its holds: that is what the user asked for.
        let kept = self.deleted && self.policy.as_ref().is_some_and(|policy| !policy.drain.scale_in);
        policy
            && (self.is_at_rest() || kept)
            && (settled || kept || self.is_told_deleted())
            && self.lacking().is_none()
            && self.unheld().is_none()
    }

    /// The service was deleted, and that is told; no rollout of it goes on.
    fn is_told_deleted(&self) -> bool {
        let report = self.taps[0].plan.as_ref().map(|plan| &plan.report);
        let told = |report: &Report| report.ready.reason == Reason::FleetNotFound && report.rollout.is_none();
        self.deleted && report.is_some_and(told)
    }

    /// A live task of the current revision that takes jobs from fewer queues than it was made to.
    fn lacking(&self) -> Option<usize> {
        let own = self.setup.work.own();
        let primary = self.service().primary().map(|primary| primary.id);
        let stays = |m: &usize| {
            self.ecs.task(self.members[*m].ecs).is_some_and(|task| task.is_live() && task.deployment == primary)
        };
        let up = |node: &Node| node.state == NodeState::Up;
        (0..self.members.len()).filter(stays).find(|m| {
            self.members[*m].nodes.iter().any(|node| up(node) && node.consuming & own != own && !node.excused)
        })
    }

    /// A live task that nothing holds though every one is to be.
    fn unheld(&self) -> Option<usize> {
        let standing = self.policy.as_ref().is_some_and(|policy| policy.hold.mode == HoldMode::Standing);
        let now = Time(self.now);
        let bare = |m: &usize| {
            self.ecs.task(self.members[*m].ecs).is_some_and(|task| task.is_live() && !task.is_protected(now))
        };
        (0..self.members.len()).filter(|_| standing && !self.deleted).find(bare)
    }

    /// The drain says that nothing of it is left.
    pub fn judge_withdrawn(&mut self) {
        self.tally.rule("a withdrawn drain leaves nothing behind");
        let clean = self.is_off(Fault::WorkerFrozen)
            && self.is_off(Fault::WorkerReconnects)
            && self.is_off(Fault::BrokerDown)
            && self.is_off(Fault::ReplyLost)
            && self.is_off(Fault::RequestLate)
            && self.is_off(Fault::RequestDoubled)
            && self.is_off(Fault::StaleReads)
            && self.is_off(Fault::RecordStale)
            && self.is_off(Fault::TwoOperators);
        if let Some(m) = self.lacking().filter(|_| clean) {
            self.broken("a withdrawn drain leaves nothing behind", || format!("t{} is left without its queues", m + 1));
        }
        if let Some(m) = self.left_held() {
            self.broken("a withdrawn drain leaves nothing behind", || format!("t{} is left held", m + 1));
        }
    }

    /// A task that we hold still. Of a hold that takes effect late, or that another operator sets, or that is older than the
    /// memory which tells of it, nobody can know.
    fn left_held(&self) -> Option<usize> {
        let unknowable = [Fault::EcsLate, Fault::TwoOperators, Fault::LeaseLost, Fault::RecordStale, Fault::ClockJumps];
        let known = unknowable.iter().all(|fault| self.is_off(*fault));
        let now = Time(self.now);
        let is_held = |m: &usize| {
            let track = &self.members[*m].track;
            matches!(track.change, Change::Held(_))
                && !track.is_leftover
                && self.ecs.task(self.members[*m].ecs).is_some_and(|task| task.is_live() && task.is_protected(now))
        };
        (0..self.members.len()).filter(|_| known).find(is_held)
    }

    /// What is written of rollbacks is true.
    pub fn judge_turn(&mut self, memory: &Memory) {
        // By a clock that jumps, one answer from the past lasts for ten seconds; and whoever withdraws does not wait.
        if [Fault::ClockJumps, Fault::Withdrawn].iter().any(|fault| self.setup.faults.has(*fault)) {
            return;
        }
        self.tally.rule(RULES[14]);
        let now = memory.rollout.as_ref().is_some_and(|rollout| rollout.back);
        let past = memory.past.iter().any(|past| past.outcome == RolloutOutcome::RolledBack);
        if (now || past) && !self.turned_back {
            self.broken(RULES[14], || "a rollback is told of, and there was none".to_owned());
        }
    }

    /// The history ends: has everything come to rest?
    pub fn judge_end(&mut self) {
        self.tally.rule(RULES[12]);
        self.tally.rule(RULES[4]);
        self.tally.rule("at rest every task is held");
        self.tally.jobs = self.jobs.iter().filter(|job| job.state == JobState::Done).count() as u64;
        self.tally.virtual_ms = self.now;
        self.tally.histories = 1;
        self.tally.rule("every job is accounted for");
        if let Some(what) = self.unaccounted() {
            self.broken("every job is accounted for", || what);
        }
        if self.is_settled() {
            return;
        }
        if let Some(m) = self.lacking() {
            self.broken(RULES[4], || format!("t{} is left without its queues", m + 1));
        }
        if let Some(m) = self.unheld() {
            self.broken("at rest every task is held", || format!("t{} is not", m + 1));
        }
        let tasks: Vec<String> = self.taps[0].plan.as_ref().map_or_else(Vec::new, |plan| {
            plan.report.tasks.iter().map(|task| format!("{} {}: {}", task.task, task.phase, task.waiting_for)).collect()
        });
        let waiting = self.jobs.iter().filter(|job| job.state == JobState::Delivered).count();
        let rest = self.is_at_rest();
        self.broken(RULES[12], || format!("ECS at rest: {rest}; {waiting} jobs run; {}", tasks.join("; ")));
    }
}
