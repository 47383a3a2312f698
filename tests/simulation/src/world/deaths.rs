//! Judges each job that is cut off, and what is told of the rollout in which that happens.

use ecs_emulator::model::StopCause;
use worker_drain_plan::{
    Ground, Memory, Observation, TaskId,
    evidence::MAX_ANSWER_LAG,
    observation::Life,
    policy::{HoldMode, Scheduled},
    report::{PastRollout, RolloutOutcome},
};

use super::{
    Job, JobId, Member, Node, World,
    protect::{Change, GOOD_FOR, Track},
};
use crate::{fault::Fault, setup::SECOND};

impl World {
    /// The scheduler's decision to stop a task is seen: what was told of it until now counts.
    pub(super) fn stop_was_decided(&mut self, m: usize) {
        self.disturbed_at = self.now;
        let track = &mut self.members[m].track;
        track.at_stop = Some((track.silent_since, track.announced));
    }

    /// A job was cut off by the end of its task.
    pub(super) fn judge_death(&mut self, m: usize, n: usize, job: JobId) {
        self.tally.rule("no job dies by our permit");
        self.tally.rule("every death was announced");
        let Some(task) = self.ecs.task(self.members[m].ecs) else { return };
        let Some(stop) = &task.stop else { return };
        let (cause, decided) = (stop.cause, stop.decided_at.0);
        self.members[m].track.cut |= !matches!(self.members[m].track.change, Change::Drained(..));
        let asks = cause == StopCause::Draining && !self.is_taken_with_its_instance(m);
        if cause != StopCause::Scaling && !asks {
            self.tally.death("by ECS or somebody else, held or not");
            return;
        }
        let track = self.members[m].track;
        if let Change::Drained(evidence, planned) = track.change
            && self.jobs[job].delivered_at <= track.changed_at
        {
            if let Some(excuse) = self.excuse(m, n, job, evidence, planned) {
                self.tally.death(excuse);
                return;
            }
            if self.members[m].nodes[n].came_back_at < evidence {
                let what = {
                    let Job { eta, delivered_at, started_at, .. } = &self.jobs[job];
                    let released = track.changed_at;
                    format!(
                        "job-{job} in t{}: came at {delivered_at}, due at {eta}, began at {started_at}; the workers were \
                         asked at {evidence}, it was released at {released}",
                        m + 1
                    )
                };
                self.broken("no job dies by our permit", || what);
                return;
            }
        }
        self.judge_late_death(m, n, job, decided);
    }

    /// A job was cut off that came to its task after that was let go, or that was never let go on proof.
    fn judge_late_death(&mut self, m: usize, n: usize, job: JobId, decided: u64) {
        let track = self.members[m].track;
        let (silent, announced) = track.at_stop.unwrap_or_default();
        match track.change {
            Change::Deadline => self.tally.death("by the user's deadline"),
            Change::Released => self.tally.death("after the user took the hold away"),
            _ if announced => self.tally.death("announced: its hold was refused or had no room"),
            _ if silent.is_some_and(|since| since + SECOND < decided) => {
                self.broken("every death was announced", || {
                    format!(
                        "job-{job} in t{}: {:?} at {}, silent since {silent:?}",
                        m + 1,
                        track.change,
                        track.changed_at
                    )
                });
            }
            Change::Drained(evidence, _) if self.members[m].nodes[n].came_back_at >= evidence => {
                self.tally.death("its worker came back after the proof, and was stopped at once");
            }
            Change::Drained(..) if self.setup.faults.has(Fault::Withdrawn) => {
                self.tally.death("the user withdrew the drain when it had been let go");
            }
            Change::Drained(..) if self.is_back_without_a_hold(&track, decided) => {
                self.tally
                    .death("hold.mode is OnRollout, and it had its queues again when it was stopped in a scale-in");
            }
            Change::Drained(..) if self.may_be_told_late() => {
                self.tally.death("its worker was told to take jobs by what was sent before the proof");
            }
            Change::Drained(..) => {
                self.broken("no job dies by our permit", || {
                    format!("job-{job} came to t{} after it was let go, though its worker never came back", m + 1)
                });
            }
            Change::Held(_) => self.tally.death("its hold ran out while nobody could renew it"),
            Change::Never if self.may_lose_the_race() => {
                self.tally.death("hold.mode is OnRollout, and ECS was faster or it was a scale-in");
            }
            Change::Never => self.tally.death("it was never seen unheld before it was stopped"),
            Change::Lost => self.tally.death("somebody else took its hold away"),
        }
    }

    /// Why a job may be cut off that was in a task when we released it, though its worker never came back.
    pub(super) fn excuse(&self, m: usize, n: usize, job: JobId, evidence: u64, planned: u64) -> Option<&'static str> {
        let (track, node) = (&self.members[m].track, &self.members[m].nodes[n]);
        if self.jobs[job].eta > evidence && self.setup.policy.drain.scheduled == Scheduled::Ignore {
            // It was held in the worker.
            return Some("its start time came after the proof, and drain.scheduled is Ignore");
        }
        if !node.heard {
            // One of several workers in the task, silent from its first moment on, or since the drain was made.
            return Some("its worker had never answered anybody");
        }
        let late = node.came_back_at < evidence && track.changed_at > planned + GOOD_FOR;
        late.then_some("by a permit that reached ECS later than its plan was good for")
    }

    /// A rollout has ended, and this is what is told of it. `before` is what was remembered of it until then,
    /// and `seen` is by what it was judged.
    pub fn judge_outcome(&mut self, told: &PastRollout, before: &Memory, seen: &Observation) {
        let old = || before.rollout.iter().flat_map(|rollout| &rollout.old);
        // An answer from the past may show a task running that has ended since.
        let tasks = seen.fleet.ok().map(|fleet| &fleet.tasks);
        let life = |id: &TaskId| tasks.and_then(|tasks| tasks.get(id)).map(|task| &task.life);
        let ends = |id: &&TaskId| !matches!(life(id), Some(Life::Starting | Life::Running));
        // Nor is it known of a worker that was proven idle, and came back, what it was doing when its task ended.
        let permitted = |id: &TaskId| before.tasks.get(id).and_then(|known| known.permitted.as_ref());
        let proven = |id: &&TaskId| permitted(id).is_some_and(|permitted| permitted.ground == Ground::Drained);
        // How it ended tells: its worker was killed, and did not end by itself.
        let killed = |id: &&TaskId| matches!(life(id), Some(Life::Stopped { exit_code: Some(137), .. }));
        let ended = old().filter(ends).filter(|id| !proven(id) || killed(id)).filter_map(|id| self.member_named(id));
        let cut = ended.into_iter().find(|m| self.members[*m].track.cut);
        let same = before.rollout.as_ref().is_some_and(|rollout| rollout.to == told.to);
        let all_permitted = same && old().all(|id| permitted(id).is_some()) && old().count() == told.tasks as usize;
        // Whoever was let go, and was at work again, was permitted no more.
        let let_go = |id: &TaskId| {
            let Some(Member { track, nodes, .. }) = self.member_named(id).map(|m| &self.members[m]) else {
                return false;
            };
            let Change::Drained(asked, _) = track.change else { return false };
            let at_work = |node: &Node| node.came_back_at.max(node.worked_at) >= asked;
            track.asked_back_at < asked && !nodes.iter().any(at_work)
        };
        // One of several workers that was frozen or in a job from the first, and never heard of, may take jobs later; a drain that
        // is withdrawn takes its permits back; by a clock that jumps a task ends before its time; and a job with a start time that is
        // not waited for may come due.
        let unknowable = [Fault::WorkerFrozen, Fault::Withdrawn, Fault::ClockJumps];
        let waits = self.setup.policy.drain.scheduled == Scheduled::Wait || self.setup.work.eta_one_in == 0;
        let solo_pair = self.setup.work.solo && self.setup.work.nodes > 1;
        let known = waits && !solo_pair && !unknowable.iter().any(|fault| self.setup.faults.has(*fault));
        let all_let_go = known && old().all(let_go) && old().count() == told.tasks as usize;
        let said = told.outcome;
        self.tally.rule("a rollout is told as it went");
        match (said, cut) {
            (RolloutOutcome::Drained | RolloutOutcome::RolledBack, Some(m)) => {
                self.broken("a rollout is told as it went", || {
                    format!("{said:?}, and a job was cut off in t{}", m + 1)
                });
            }
            (RolloutOutcome::EndedUnpermitted, _) if all_permitted || (same && all_let_go) => {
                self.broken("a rollout is told as it went", || format!("{said:?}, and each task was permitted"));
            }
            (RolloutOutcome::Drained | RolloutOutcome::RolledBack | RolloutOutcome::EndedUnpermitted, _)
                if old().any(|id| proven(&id) && killed(&id)) =>
            {
                self.broken("a rollout is told as it went", || format!("{said:?}, and a drained task was killed"));
            }
            _ => {}
        }
    }

    /// What is sent to workers may reach them late, or twice.
    pub(super) fn may_be_told_late(&self) -> bool {
        [Fault::RequestLate, Fault::RequestDoubled].iter().any(|fault| self.setup.faults.has(*fault))
    }

    /// It was let go, and was to stay after all, and `OnRollout` holds nobody between rollouts: it was given its queues back so long
    /// before ECS decided to stop it that no answer of ECS was older.
    fn is_back_without_a_hold(&self, track: &Track, decided: u64) -> bool {
        let lag = u64::try_from(MAX_ANSWER_LAG.as_millis()).unwrap_or(u64::MAX);
        self.may_lose_the_race() && track.asked_back_at > track.changed_at && decided > track.asked_back_at + lag
    }

    fn may_lose_the_race(&self) -> bool {
        self.policy.as_ref().is_none_or(|policy| policy.hold.mode == HoldMode::OnRollout)
    }
}
