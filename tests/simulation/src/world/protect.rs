//! What keeps tasks from being stopped, and who is to answer for it when one is.

use ecs_emulator::model::{Health, Protection, ProtectionAnswer, Task, Time};
use jiff::Timestamp;
use worker_drain_plan::{
    Action, Memory, Plan, Policy, TaskId,
    observation::HoldState,
    policy::{DeadlineAction, HoldMode, MinConsuming, Mode},
    report::{TaskPhase, TaskReport},
};

use super::{CLUSTER, JobId, World};
use crate::{
    fault::Fault,
    setup::{MINUTE, SECOND},
};

/// After a change outside it takes this long until nobody can have missed it.
const SETTLED: u64 = 25 * SECOND;
/// A plan is good for so long; what reaches ECS later than this was sent by somebody who was paused, or kept waiting.
pub const GOOD_FOR: u64 = 11 * SECOND;

/// What last became of a task's hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Change {
    /// It never had one.
    #[default]
    Never,
    /// It was set or renewed, and lasts until then.
    Held(u64),
    /// We released it: the task was said to be drained. The workers were asked at this time, and the plan was made at
    /// the other.
    Drained(u64, u64),
    /// We released it: the user's deadline had passed.
    Deadline,
    /// We released it because the user wants no hold on it.
    Released,
    /// Somebody else took it away.
    Lost,
}

/// Whoever has read this policy lets holds end at its deadline.
fn lets_go_by_deadline(policy: &Policy) -> bool {
    let deadline = policy.drain.deadline.filter(|_| !policy.paused);
    deadline.is_some_and(|deadline| deadline.action == DeadlineAction::PermitStop)
}

/// What is known from outside of a task's hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct Track {
    /// What last became of it.
    pub change: Change,
    /// When.
    pub changed_at: u64,
    /// What it will be when a release that is under way takes effect.
    pub pending: Change,
    /// A report has been in force since then which saw the task in danger, did nothing, and said nothing.
    pub silent_since: Option<u64>,
    /// The last report that was written says that the task may be stopped.
    pub announced: bool,
    /// As these were when the scheduler's decision to stop it was seen.
    pub at_stop: Option<(Option<u64>, bool)>,
    /// A job was cut off with it, and not after a permit on proof.
    pub cut: bool,
    /// Its hold reached ECS when the drain for which it was asked for was no more.
    pub is_leftover: bool,
    /// When it was last decided that its workers get queues back. Nobody but they can know what they took since.
    pub asked_back_at: u64,
    /// How often somebody else released its hold.
    pub hands: u32,
    /// How often a worker of it took jobs again, and neither because of us nor because it was started again.
    pub fed: u32,
}

impl World {
    /// Holds a task, as ECS would.
    pub fn hold(&mut self, m: usize, minutes: u32, late: bool) -> Result<(), String> {
        let (hex, ecs) = (self.members[m].hex.clone(), self.members[m].ecs);
        let before = match self.members[m].track.change {
            Change::Held(until) => until,
            _ => self.ecs.task(ecs).and_then(|task| task.protected_until).map_or(0, |until| until.0),
        };
        let answer = self.protect(&hex, Protection::On(Some(minutes)));
        if let Some(refused) = answer.failures.first() {
            return Err(refused.reason.clone());
        }
        let until = self.now + u64::from(minutes) * MINUTE;
        let track = &mut self.members[m].track;
        (track.change, track.changed_at) = (Change::Held(until), self.now);
        track.is_leftover = self.policy.is_none();
        self.tell(|| format!("ECS holds t{} for {minutes} min", m + 1));
        if late {
            // Who looked before it could not know.
            self.disturbed_at = self.now;
        } else {
            self.judge_hold(m, before, until);
        }
        Ok(())
    }

    /// Releases a task, as ECS would.
    pub fn release(&mut self, m: usize) -> Result<(), String> {
        let hex = self.members[m].hex.clone();
        let answer = self.protect(&hex, Protection::Off);
        if let Some(refused) = answer.failures.first() {
            return Err(refused.reason.clone());
        }
        let track = &mut self.members[m].track;
        (track.change, track.changed_at) = (track.pending, self.now);
        self.tell(|| format!("ECS holds t{} no more", m + 1));
        if let Change::Drained(evidence, planned) = self.members[m].track.change {
            self.judge_proof(m, evidence, planned);
        }
        Ok(())
    }

    /// Whoever is let go on proof has no job that was in it when its workers were asked for the last time, shown or not; whether
    /// or not that job will be cut off.
    fn judge_proof(&mut self, m: usize, evidence: u64, planned: u64) {
        self.tally.rule("no task is let go with a job in it");
        let is_left = |n: usize, job: JobId| {
            let node = &self.members[m].nodes[n];
            self.jobs[job].delivered_at <= evidence
                && node.came_back_at < evidence
                && self.excuse(m, n, job, evidence, planned).is_none()
        };
        let left = self.members[m].nodes.iter().enumerate().find_map(|(n, node)| {
            let mut jobs = node.waiting().chain(&node.active);
            jobs.find(|job| is_left(n, **job)).copied()
        });
        if let Some(job) = left {
            let came = self.jobs[job].delivered_at;
            self.broken("no task is let go with a job in it", || {
                format!("job-{job} in t{} came at {came}; the workers were asked at {evidence}", m + 1)
            });
        }
    }

    /// Somebody else takes a hold away, if there is one.
    pub(super) fn lose_hold(&mut self, m: usize) {
        if !self.ecs.task(self.members[m].ecs).is_some_and(|task| task.is_protected(Time(self.now))) {
            return;
        }
        let hex = self.members[m].hex.clone();
        self.protect(&hex, Protection::Off);
        let track = &mut self.members[m].track;
        (track.change, track.changed_at) = (Change::Lost, self.now);
        track.hands += 1;
    }

    /// Nobody is told of somebody else's hand who has none in it: holds are only ever taken away by others here, and workers take jobs
    /// again only when that is so.
    pub fn judge_hands(&mut self, memory: &Memory) {
        const RULE: &str = "another hand is told of only if there was one";
        const FED: &str = "another hand at a worker's queues is told of only if there was one";
        // By clocks that differ an answer from the past looks young; and a drain that was made again does not know what the one before
        // it released.
        let unknowable = [Fault::TwoOperators, Fault::LeaseLost, Fault::ClockJumps, Fault::Withdrawn];
        if unknowable.iter().any(|fault| self.setup.faults.has(*fault)) {
            return;
        }
        for m in 0..self.members.len() {
            let Some(task) = memory.tasks.get(&self.members[m].id) else { continue };
            let (hands, really_fed) = (self.members[m].track.hands, self.members[m].track.fed);
            let held_again = task.held_again.map_or(0, |again| again.times);
            let fed = task.nodes.values().filter_map(|node| Some(node.taken_up.as_ref()?.times)).sum();
            let what = [
                (RULE, "released", task.released_by_others, hands),
                (RULE, "held", held_again, 0),
                (FED, "fed", fed, really_fed),
            ];
            for (rule, what, times, really) in what {
                if times > 0 {
                    self.tally.rule(rule);
                }
                if times > really {
                    self.broken(rule, || {
                        format!("t{} was {what} {really} times by others, and {times} are told", m + 1)
                    });
                }
            }
        }
    }

    fn protect(&mut self, hex: &str, protection: Protection) -> ProtectionAnswer {
        let answer = self.ecs.update_task_protection(CLUSTER, &[hex], protection, Time(self.now));
        self.settle();
        answer.unwrap_or_default()
    }

    /// Nothing that counts has changed outside for a while, and everybody who acts sees what is: a look that waits for its
    /// turn at ECS decides on what was a minute ago.
    fn is_undisturbed(&self) -> bool {
        let views = self.taps.iter().filter(|tap| tap.planned_ms + GOOD_FOR >= self.now);
        let seen = views.map(|tap| tap.looked_ms + GOOD_FOR).min().unwrap_or(self.now).min(self.now);
        seen > self.disturbed_at + SETTLED && self.is_off(Fault::StaleReads)
    }

    /// The scheduler has just decided to stop a task, which nobody may have seen yet.
    fn was_just_cut(&self) -> bool {
        let stops = self.members.iter().filter_map(|member| self.ecs.task(member.ecs)?.stop.as_ref());
        stops.into_iter().any(|stop| self.now <= stop.decided_at.0 + SETTLED)
    }

    /// A second operator is at work, or was a moment ago.
    fn has_second(&self) -> bool {
        self.second_until > 0 && self.second_until + SETTLED > self.now
    }

    fn judge_hold(&mut self, m: usize, before: u64, until: u64) {
        let clocks_agree = self.is_off(Fault::ClockJumps) && self.skew == [0, 0];
        let sees_well = self.is_off(Fault::EcsPartial) && clocks_agree;
        if !self.is_undisturbed() || !sees_well || self.has_second() {
            return;
        }
        self.tally.rule("holds within the desired count");
        self.tally.rule("no hold is cut short under a job");
        let Some(task) = self.ecs.task(self.members[m].ecs) else { return };
        let service = self.service();
        let now = Time(self.now);
        let live = |task: &&Task| task.is_live() && task.is_protected(now);
        let held = service.tasks.iter().filter_map(|id| self.ecs.task(*id)).filter(live).count();
        let desired = service.desired as usize;
        let is_old = task.deployment != service.primary().map(|primary| primary.id);
        let cut_short = is_old && before > until + MINUTE && !self.policy.as_ref().is_some_and(lets_go_by_deadline);
        // One that ran out while its renewal was on the way was counted when that was decided.
        if before + GOOD_FOR <= self.now && held > desired {
            self.broken("holds within the desired count", || format!("{held} tasks are held and {desired} are wanted"));
        }
        if cut_short {
            self.broken("no hold is cut short under a job", || format!("t{} was held until {before}", m + 1));
        }
    }

    /// Consuming workers never fall below the floor because of us, counted in truth.
    pub(super) fn judge_floor(&mut self, m: usize, before: usize) {
        let Some(policy) = &self.policy else { return };
        // Whether a worker could be spared was judged when it was told; one that hears between jobs, or was frozen, heeds that later.
        let thawed = self.members[m].nodes.iter().any(|node| node.thawed_at > 0 && self.now <= node.thawed_at + SECOND);
        let late = (self.may_be_told_late() && !self.calm) || self.setup.work.solo || thawed;
        let id = &self.members[m].id;
        let is_told = |told: &TaskReport| told.task == *id && told.phase == TaskPhase::AtRisk;
        let plans = self.taps.iter().filter_map(|tap| tap.plan.as_ref());
        let at_risk = plans.flat_map(|plan| &plan.report.tasks).any(is_told) || lets_go_by_deadline(policy);
        let ecs = self.members[m].ecs;
        let held = self.ecs.task(ecs).is_some_and(|task| task.is_protected(Time(self.now)));
        let unseen = !self.is_undisturbed() || self.was_just_cut();
        // ECS stops an unhealthy task, held or not, and a container instance goes when it goes.
        let wanted_gone =
            self.ecs.task(ecs).is_some_and(|task| task.health == Health::Unhealthy) || self.ecs.is_displaced(ecs);
        if wanted_gone || late || at_risk || !held || unseen || self.has_second() {
            return;
        }
        let service = self.service();
        let own = MinConsuming::Percent(service.configuration.minimum_healthy_percent);
        let floor = policy.drain.min_consuming.unwrap_or(own).of(service.desired) as usize;
        let after = self.consuming();
        self.tally.rule("consuming workers stay above the floor");
        if after < before && after < floor {
            self.broken("consuming workers stay above the floor", || {
                format!("{after} tasks are left consuming and the floor is {floor}")
            });
        }
    }

    /// A report was written: who is in danger, and is it told?
    pub fn reported(&mut self, policy: &Policy, plan: &Plan, report: &[TaskReport], by: Timestamp) {
        for told in report {
            let Some(m) = self.member_named(&told.task) else { continue };
            if self.ecs.task(self.members[m].ecs).is_some_and(|task| task.stop.is_some()) {
                continue; // What counts was told before that was decided.
            }
            let announced = is_announced(told);
            let silent = !announced && self.is_silent(m, policy, plan, told, by);
            let now = self.now;
            let track = &mut self.members[m].track;
            track.announced = announced;
            track.silent_since = silent.then(|| track.silent_since.unwrap_or(now));
        }
    }

    /// This report saw the task in danger with something to lose, and nothing is done about it.
    fn is_silent(&self, m: usize, policy: &Policy, plan: &Plan, told: &TaskReport, by: Timestamp) -> bool {
        let responsible = policy.mode == Mode::Enforce
            && !policy.withdrawn
            && (policy.hold.mode == HoldMode::Standing || told.leaving.is_some());
        let runs = !matches!(told.phase, TaskPhase::Starting | TaskPhase::Stopping | TaskPhase::Stopped);
        let left = match told.hold {
            HoldState::Unread => return false,
            HoldState::Free => 0,
            HoldState::Until(end) => {
                // By the operator's own clock: it cannot know better.
                u64::try_from(end.as_millisecond() - by.as_millisecond()).unwrap_or(0)
            }
        };
        let short = u64::try_from(policy.hold.expires_in.as_millis() / 4).unwrap_or(u64::MAX);
        let at_work = told.jobs.is_some_and(|jobs| jobs.active + jobs.reserved > 0)
            || matches!(told.phase, TaskPhase::Held | TaskPhase::Cancelling | TaskPhase::Serving);
        // A clock that is so wrong cannot tell when a hold ends.
        let wrong = self.skew.iter().any(|skew| skew.unsigned_abs() > 2 * short);
        let excused = wrong || self.members[m].track.change == Change::Deadline || lets_go_by_deadline(policy);
        let acted = plan.actions.iter().any(|action| matches!(action, Action::Hold { task, .. } if *task == told.task));
        responsible && runs && left < short && at_work && !excused && !acted
    }

    /// A plan gives queues back to workers of these tasks.
    pub fn asks_back(&mut self, plan: &Plan) {
        for action in plan.actions.iter().filter(|action| matches!(action, Action::GiveBack { .. })) {
            if let Some(m) = self.member_named(action.task()) {
                self.members[m].track.asked_back_at = self.now;
            }
        }
    }

    /// The action of this plan that releases a task.
    pub fn releasing<'a>(plan: Option<&'a Plan>, id: &TaskId) -> Option<&'a Action> {
        plan?
            .actions
            .iter()
            .find(|action| matches!(action, Action::Permit { task, .. } | Action::Release { task } if task == id))
    }
}

/// The report says of this task that it may be stopped though it has, or may get, jobs.
fn is_announced(told: &TaskReport) -> bool {
    told.phase == TaskPhase::AtRisk
        || told.hold_refused.is_some()
        || (told.leaving.is_none()
            && ["it is held as soon as", "it is about to be held"].iter().any(|words| told.waiting_for.contains(words)))
}
