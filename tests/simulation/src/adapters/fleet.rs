//! The fleet: the model of ECS behind calls that take time and fail.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::FutureExt as _;
use jiff::SignedDuration;
use worker_drain::fleet::{
    Fleet, FleetObservation,
    ecs::{Attempts, Limiter, Operation},
};
use worker_drain_plan::{
    Action, Ground, Observation, Outcome, RevisionId, TaskId,
    observation::{Counted, Failure, FailureKind, FleetView, Remembered, Seen},
};

use super::{clock, judge_attempt, judge_begin};
use crate::{
    fault::Fault,
    script::Outage,
    setup::SECOND,
    sim::{PATIENCE, Sim},
    tap::stamp,
    world::{Change, Event, World},
};

/// Tasks in one call.
const BATCH: usize = 10;

/// ECS, as one operator reaches it.
#[derive(Clone, Copy, Debug)]
pub struct SimFleet<'a> {
    /// The world.
    pub sim: &'a Sim,
    /// Whose.
    pub who: usize,
    /// The token buckets of its process.
    pub limiter: &'a Limiter,
}

/// How long one call may take with its retries: what the real client is made with.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// What is to become of holds.
#[derive(Clone, Copy)]
enum Wish {
    Hold(u32),
    Release,
}

impl Fleet for SimFleet<'_> {
    async fn observe(&self, tracked: &BTreeSet<TaskId>) -> Result<FleetObservation, Failure> {
        let at = {
            let mut world = self.sim.world();
            world.taps[self.who].looked_ms = world.now;
            clock(&world, self.who)
        };
        let result = Box::pin(self.look(tracked)).await;
        let mut world = self.sim.world();
        let now = clock(&world, self.who);
        let tap = &mut world.taps[self.who];
        match &result {
            Ok(view) => tap.fleet = Some(Seen::Ok { value: view.clone(), at }),
            Err(failure) => {
                let fleet = Seen::Err { failure: failure.clone(), at: now };
                let why = "not asked, because the fleet could not be seen";
                let unasked = Failure::new(FailureKind::Unreachable, why);
                tap.observation =
                    Some(Observation { fleet, workers: Seen::Err { failure: unasked, at }, queues: None });
            }
        }
        let world = &*world;
        result.map(|view| {
            let identities = world.identities(view.tasks.keys());
            FleetObservation { view, identities }
        })
    }

    async fn hold(&self, holds: &[(TaskId, SignedDuration)]) -> Vec<Outcome> {
        judge_begin(&mut self.sim.world(), self.who, true);
        let mut outcomes = vec![Outcome::Stale; holds.len()];
        let mut batches: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (index, (_, lasting)) in holds.iter().enumerate() {
            let minutes = u32::try_from(lasting.as_mins()).unwrap_or(u32::MAX);
            batches.entry(minutes).or_default().push(index);
        }
        for (minutes, indices) in batches {
            for batch in indices.chunks(BATCH) {
                let tasks: Vec<&TaskId> = batch.iter().map(|index| &holds[*index].0).collect();
                let results = self.update(&tasks, Wish::Hold(minutes)).await;
                for (index, outcome) in batch.iter().zip(results) {
                    outcomes[*index] = outcome;
                }
            }
        }
        outcomes
    }

    async fn release(&self, tasks: &[TaskId]) -> Vec<Outcome> {
        judge_begin(&mut self.sim.world(), self.who, false);
        let mut outcomes = Vec::with_capacity(tasks.len());
        for batch in tasks.chunks(BATCH) {
            outcomes.extend(self.update(&batch.iter().collect::<Vec<_>>(), Wish::Release).await);
        }
        outcomes
    }

    async fn remember(&self, workers_per_task: &BTreeMap<RevisionId, u32>, _: &FleetView) -> Outcome {
        let operation = if workers_per_task.is_empty() { Operation::UntagResource } else { Operation::TagResource };
        match self.call(operation, |world| world.remembered.clone_from(workers_per_task)).await {
            Ok(()) => Outcome::Done,
            Err(failure) => Outcome::Failed(failure),
        }
    }
}

impl SimFleet<'_> {
    async fn look(&self, tracked: &BTreeSet<TaskId>) -> Result<FleetView, Failure> {
        let sim = self.sim;
        self.crowd();
        let mut service = self.call(Operation::DescribeServices, World::service_view).await?;
        if !service.exists {
            let gone = Failure::new(FailureKind::NotFound, "the service does not exist");
            return self.deleted(tracked, gone).await;
        }
        self.call(Operation::ListTasks, |_| ()).await?;
        let mut tasks = self.call(Operation::DescribeTasks, |world| world.tasks_view(tracked)).await?;
        // Whether holds can be read decides what is told of them, not whether anything is told.
        let holds = self.call(Operation::GetTaskProtection, |world| world.read_holds(&tasks)).await;
        for (id, hold) in holds.into_iter().flatten() {
            tasks.entry(id).and_modify(|task| task.hold = hold);
        }
        // As the real one does: the service may have been read before a deployment, and its tasks after it.
        if service.unlisted(&tasks).next().is_some() {
            service = self.call(Operation::DescribeServices, World::service_view).await?;
            if sim.world().has_newer(&service, &tasks) {
                return Err(Failure::new(FailureKind::Unreachable, "a task is of a deployment that is not listed yet"));
            }
        }
        sim.point(self.who).await;
        let more = u32::from(sim.world().is_out(Outage::Miscounted));
        let (running, starting) = service.counted;
        let counted = Counted { running: running + more, starting, stopping: 0 };
        let written = sim.world().remembered.clone();
        let known = written.iter().filter(|(revision, _)| service.revisions.contains_key(*revision));
        let workers_per_task: BTreeMap<RevisionId, u32> =
            known.map(|(revision, number)| (revision.clone(), *number)).collect();
        let is_outdated = workers_per_task.len() < written.len();
        let remembered = Remembered { workers_per_task, is_outdated, written: None };
        Ok(FleetView {
            is_rolling_out: service.is_rolling_out,
            is_deleted: false,
            name: "default/transcoder".into(),
            desired: service.desired,
            minimum_healthy_percent: service.minimum,
            maximum_percent: service.maximum,
            current: service.current,
            revisions: service.revisions,
            tasks,
            made_at: Some(stamp(0)),
            longest_hold: sim.world().setup.longest_hold,
            unplaced: BTreeMap::new(),
            counted: Some(counted),
            balances_zones: service.balances_zones,
            unread: Vec::new(),
            remembered: Some(remembered),
        })
    }

    /// As the real one does: of a service that does not exist what is left of those that are remembered, if none of them lives.
    async fn deleted(&self, tracked: &BTreeSet<TaskId>, gone: Failure) -> Result<FleetView, Failure> {
        if tracked.is_empty() {
            return Err(gone);
        }
        let tasks = self.call(Operation::DescribeTasks, |world| world.tasks_view(tracked)).await?;
        if tasks.values().any(|task| task.life.is_live()) {
            return Err(gone);
        }
        let longest_hold = self.sim.world().setup.longest_hold;
        Ok(FleetView::deleted("default/transcoder".into(), BTreeMap::new(), tasks, longest_hold))
    }

    /// One call, with its turn in the bucket and its retries: how that is done is not the simulation's own.
    async fn turn<T, F>(&self, operation: Operation, send: impl Fn() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let jitter = || f64::from(u32::try_from(self.sim.world().delay_chance.below(1000)).unwrap_or(0)) / 1000.0;
        let attempts =
            Attempts { limiter: self.limiter, time_limit: TIME_LIMIT, service: "transcoder", jitter: &jitter };
        let counted = || {
            self.sim.world().count_call(self.who, operation.row());
            send()
        };
        attempts.call(operation, counted).await
    }

    /// One call that reads.
    async fn call<T>(&self, operation: Operation, read: impl Fn(&mut World) -> T) -> Result<T, Failure> {
        let (sim, who) = (self.sim, self.who);
        let read = &read;
        let send = || async move {
            sim.to_ecs(who, operation == Operation::DescribeServices).await?;
            Ok(read(&mut sim.world()))
        };
        self.turn(operation, send).await
    }

    /// Other drains of the same process take their turns before us.
    fn crowd(&self) {
        let mut world = self.sim.world();
        if !world.befalls(Fault::Crowded, 40) {
            return;
        }
        let operation = if world.span_of(Fault::Crowded, 0, 1) == 0 {
            Operation::UpdateTaskProtection
        } else {
            Operation::DescribeTasks
        };
        let calls = world.span_of(Fault::Crowded, 10, 800);
        world.tell(|| format!("{calls} calls of other drains come before those of operator {}", self.who));
        for _ in 0..calls {
            if let None | Some(Ok(())) = self.limiter.acquire(operation).now_or_never() {
                world.count_foreign(self.who, operation.row());
            }
        }
    }

    /// One call of `UpdateTaskProtection`.
    async fn update(&self, tasks: &[&TaskId], wish: Wish) -> Vec<Outcome> {
        let answer = self.turn(Operation::UpdateTaskProtection, || self.try_update(tasks, wish)).await;
        answer.unwrap_or_else(|failure| vec![Outcome::Failed(failure); tasks.len()])
    }

    /// One attempt at it. Errors: nothing is known to have been done, though it may have been.
    async fn try_update(&self, tasks: &[&TaskId], wish: Wish) -> Result<Vec<Outcome>, Failure> {
        let silent = || Err(Failure::new(FailureKind::Unreachable, "ECS does not answer"));
        let late = {
            let mut world = self.sim.world();
            self.intend(&mut world, tasks, wish);
            world.befalls(Fault::EcsLate, 80)
        };
        if late {
            self.send_late(tasks, wish);
            self.sim.sleep(PATIENCE).await;
            return silent();
        }
        self.sim.to_ecs(self.who, false).await?;
        let (outcomes, lost) = {
            let mut world = self.sim.world();
            if world.is_out(Outage::HoldsDenied) {
                return Err(Failure::new(FailureKind::Denied, "AccessDeniedException: ecs:UpdateTaskProtection"));
            }
            if world.is_out(Outage::HoldsThrottled) {
                return Err(Failure::new(FailureKind::Throttled, "ThrottlingException"));
            }
            let outcomes: Vec<Outcome> = tasks.iter().map(|task| effect(&mut world, task, wish)).collect();
            (outcomes, world.befalls(Fault::EcsReplyLost, 80))
        };
        self.sim.point(self.who).await;
        if lost {
            self.sim.sleep(PATIENCE).await;
            return silent();
        }
        Ok(outcomes)
    }

    /// Notes why a hold is released, and that the plan says so.
    fn intend(&self, world: &mut World, tasks: &[&TaskId], wish: Wish) {
        let (planned, asked) = (world.taps[self.who].planned_ms, world.taps[self.who].asked_ms);
        if world.now > planned + 12 * SECOND {
            world.disturbed_at = world.now;
        }
        if matches!(wish, Wish::Hold(_)) {
            return;
        }
        judge_attempt(world, self.who);
        for task in tasks {
            let change = match World::releasing(world.taps[self.who].plan.as_ref(), task) {
                Some(Action::Permit { ground: Ground::Drained, .. }) => Change::Drained(asked, planned),
                Some(Action::Permit { ground: Ground::Deadline { .. }, .. }) => Change::Deadline,
                Some(_) => Change::Released,
                None => {
                    world.broken("3: an outside failure never releases a hold", || format!("{task}: no plan says so"));
                    Change::Released
                }
            };
            if let Some(m) = world.member_named(task) {
                world.members[m].track.pending = change;
            }
        }
    }

    fn send_late(&self, tasks: &[&TaskId], wish: Wish) {
        let mut world = self.sim.world();
        let at = world.now + world.span_of(Fault::EcsLate, SECOND, PATIENCE + 3 * SECOND);
        for task in tasks {
            if let Some(m) = world.member_named(task) {
                let event = match wish {
                    Wish::Hold(minutes) => Event::LateHold(m, minutes),
                    Wish::Release => Event::LateRelease(m),
                };
                world.at(at, event);
            }
        }
    }
}

/// The call takes effect on one task.
fn effect(world: &mut World, task: &TaskId, wish: Wish) -> Outcome {
    let Some(m) = world.member_named(task) else { return Outcome::Refused { reason: "MISSING".into() } };
    let partial = world.is_out(Outage::EcsPartial);
    if partial && world.delay_chance.percent(25) {
        return Outcome::Refused { reason: "left out of the answer".into() };
    }
    let result = match wish {
        Wish::Hold(minutes) => world.hold(m, minutes, false),
        Wish::Release => world.release(m),
    };
    if partial && world.delay_chance.percent(25) {
        return Outcome::Refused { reason: "left out of the answer".into() };
    }
    match result {
        Ok(()) => Outcome::Done,
        Err(reason) => Outcome::Refused { reason },
    }
}
