//! One observation, joined: each task with its evidence and its memory. The rules read this and nothing else.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::{
    evidence::Evidence,
    memory::{Memory, NodeMemory, TaskMemory, Why},
    names::{NodeName, RevisionId, TaskId},
    observation::{FleetView, HoldState, Life, Queue, Task},
    policy::{DeadlineAction, HoldMode, Policy, percent_of},
};

/// For how long after its start a task may be silent at least before that is worth a word: a worker takes a while to come up.
const START_TIMEOUT: SignedDuration = SignedDuration::from_secs(120);

/// One observation, joined.
pub struct Situation<'a> {
    /// What the user asked for.
    pub policy: &'a Policy,
    /// The fleet as it was seen.
    pub fleet: &'a FleetView,
    /// What is remembered, this observation included.
    pub memory: &'a Memory,
    /// Every task of the fleet that has not ended.
    pub members: BTreeMap<TaskId, Member<'a>>,
    /// How many more tasks may be held: the scheduler refuses holds beyond the desired count
    /// (Amazon ECS Developer Guide, "Protect your Amazon ECS tasks from being terminated by scale-in events").
    pub hold_room: u32,
    /// The workers could be asked.
    pub workers_seen: bool,
    /// Old tasks keep their queues and stay held, because the queues of the gate were not seen empty.
    pub gate_shut: bool,
    /// Now.
    pub now: Timestamp,
}

/// One task with all that is known of it.
pub struct Member<'a> {
    /// Which.
    pub id: &'a TaskId,
    /// As the scheduler tells it.
    pub task: &'a Task,
    /// As its nodes tell it.
    pub evidence: Evidence<'a>,
    /// As we remember it.
    pub memory: &'a TaskMemory,
    /// Why it leaves, if it does.
    pub leaving: Option<Why>,
}

impl<'a> Situation<'a> {
    /// Joins what was seen, what it proves, and what is remembered.
    pub fn new(
        policy: &'a Policy,
        fleet: &'a FleetView,
        memory: &'a Memory,
        mut evidence: BTreeMap<TaskId, Evidence<'a>>,
        workers_seen: bool,
        now: Timestamp,
    ) -> Self {
        let members: BTreeMap<TaskId, Member<'a>> = fleet
            .tasks
            .iter()
            .filter(|(_, task)| !task.life.has_ended())
            .filter_map(|(id, task)| {
                let (memory, evidence) = (memory.tasks.get(id)?, evidence.remove(id)?);
                let leaving = memory.leaving.map(|leaving| leaving.why);
                Some((id.clone(), Member { id, task, evidence, memory, leaving }))
            })
            .collect();
        let held = members.values().filter(|member| member.task.life.is_live() && member.is_held(now));
        let hold_room = fleet.desired.saturating_sub(count(held));
        let gate_shut = memory.is_gate_shut(policy);
        Self { policy, fleet, memory, members, hold_room, workers_seen, gate_shut, now }
    }

    /// The revision that is believed to be current.
    pub fn current(&self) -> &RevisionId {
        self.memory.current.as_ref().map_or(&self.fleet.current, |current| &current.revision)
    }

    /// Tasks that run.
    pub fn running(&self) -> impl Iterator<Item = &Member<'a>> {
        self.members.values().filter(|member| member.task.life == Life::Running)
    }

    /// Tasks that run and will leave.
    pub fn leaving(&self) -> impl Iterator<Item = &Member<'a>> {
        self.running().filter(|member| member.leaving.is_some())
    }

    /// Tasks that run or are about to.
    pub fn live(&self) -> impl Iterator<Item = &Member<'a>> {
        self.members.values().filter(|member| member.task.life.is_live())
    }

    /// The floor, in tasks.
    pub fn floor(&self) -> u32 {
        self.policy.floor(self.fleet)
    }

    /// The scheduler's own ceiling, in tasks: rounded down, as it does.
    pub fn ceiling(&self) -> u32 {
        percent_of(self.fleet.desired, self.fleet.maximum_percent, false)
    }

    /// How many tasks take jobs, as far as is known.
    pub fn consuming(&self) -> u32 {
        count(self.running().filter(|member| member.takes_jobs()))
    }

    /// When the deadline of this task passes, and what is done then.
    pub fn deadline(&self, member: &Member<'_>) -> Option<(Timestamp, DeadlineAction)> {
        let (deadline, leaving) = (self.policy.drain.deadline?, member.memory.leaving?);
        Some((leaving.since.saturating_add(deadline.after).unwrap_or(Timestamp::MAX), deadline.action))
    }

    /// The deadline of this task has passed, and the user wants this done.
    pub fn is_overdue(&self, member: &Member<'_>, wanted: DeadlineAction) -> bool {
        self.deadline(member).is_some_and(|(at, action)| action == wanted && at <= self.now)
    }

    /// The gate is shut, and concerns this task: its revision is old.
    pub fn is_behind_gate(&self, member: &Member<'_>) -> bool {
        self.gate_shut && member.leaving == Some(Why::Rollout)
    }

    /// Its scheduler wants it gone and may end it, held or not, and others take jobs that are not wanted gone. (Where all are, as
    /// when every machine is emptied at once, they go by the floor: somebody must take the jobs until new tasks do.)
    pub fn is_displaced(&self, member: &Member<'_>) -> bool {
        let others = || self.running().filter(|other| other.takes_jobs() && !other.task.displaced.is_certain());
        member.leaving.is_some() && member.task.displaced.is_certain() && others().next().is_some()
    }

    /// Its hold is wanted from the moment that it runs.
    pub fn is_standing(&self) -> bool {
        self.policy.hold.mode == HoldMode::Standing
    }

    /// For how long after its start a task may be silent: as long as the user says, or twice as long as one was seen to take.
    pub fn start_timeout(&self) -> SignedDuration {
        let usual =
            || self.memory.slowest_start.map_or(START_TIMEOUT, |slowest| slowest.saturating_mul(2).max(START_TIMEOUT));
        self.policy.drain.start_timeout.unwrap_or_else(usual)
    }

    /// It runs, no worker of it was ever found, and it may still be coming up.
    pub fn is_starting_up(&self, member: &Member<'_>) -> bool {
        let is_young = |start| self.now.duration_since(start) < self.start_timeout();
        !member.memory.has_worker() && member.task.started_at.is_none_or(is_young)
    }
}

impl Member<'_> {
    /// See [`Evidence::takes_jobs`].
    pub fn takes_jobs(&self) -> bool {
        self.evidence.takes_jobs(self.memory)
    }

    /// See [`Evidence::quiet`].
    pub fn quiet(&self) -> impl Iterator<Item = (&NodeName, &NodeMemory)> {
        self.evidence.quiet(self.memory)
    }

    /// The queues that one of its nodes takes jobs from; if it is silent, those that it last told of.
    pub fn queues(&self, node: &NodeName) -> Vec<&Queue> {
        match self.evidence.queues(node) {
            Some(queues) => queues.iter().collect(),
            None => self.quiet().filter(|(quiet, _)| *quiet == node).flat_map(|(_, known)| &known.consumed).collect(),
        }
    }

    /// Somebody has this node take jobs again and again: when it is told to stop again, if not at once.
    pub fn waits_until(&self, node: &NodeName, now: Timestamp) -> Option<Timestamp> {
        self.memory.nodes.get(node)?.waits_until(now)
    }

    /// Each of its nodes that takes jobs is such a one.
    pub fn is_left_for_now(&self, now: Timestamp) -> bool {
        let mut takers = self.evidence.nodes.keys().filter(|node| !self.queues(node).is_empty()).peekable();
        takers.peek().is_some() && takers.all(|node| self.waits_until(node, now).is_some())
    }

    /// It is held now, as read back.
    pub fn is_held(&self, now: Timestamp) -> bool {
        matches!(self.task.hold, HoldState::Until(end) if end > now)
    }

    /// Nothing holds it: that was read, or what was read has run out.
    pub fn is_free(&self, now: Timestamp) -> bool {
        self.task.hold != HoldState::Unread && !self.is_held(now)
    }

    /// It was drained by proof: idle at least twice, the last time freshly, and as far apart as the user asked for, or further where its
    /// nodes may hold jobs that show only when they begin.
    pub fn is_proven(&self, idle_for: SignedDuration) -> bool {
        self.evidence.is_drained()
            && self.memory.idle.is_some_and(|run| run.proves(idle_for, self.evidence.settles_in()))
    }
}

/// How many there are.
pub fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}
