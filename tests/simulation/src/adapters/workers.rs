//! The workers: the real Celery adapter, listened to. What it speaks through is in `transport`.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

use tokio::time::sleep_until;
use worker_drain::{
    identity::Expected,
    workers::{Workers, celery::Celery},
};
use worker_drain_plan::{
    NodeName, Observation, Outcome, QueueName, TaskId,
    observation::{Failure, Mapping, Queue, QueueCount, Seen, WorkersView},
};

use super::{SimTransport, clock, judge_begin};
use crate::{operator::Step, setup::SECOND, sim::Sim};

/// The workers, as one operator reaches them.
pub struct SimWorkers<'a> {
    /// The world.
    pub sim: &'a Sim,
    /// Whose.
    pub who: usize,
    /// The real adapter, which lives as long as its process.
    pub celery: &'a Celery<SimTransport>,
}

impl Workers for SimWorkers<'_> {
    async fn observe(&self, tasks: &BTreeMap<TaskId, Expected>) -> Result<WorkersView, Failure> {
        let asked = {
            let mut world = self.sim.world();
            let (now, ms) = (clock(&world, self.who), world.now);
            world.taps[self.who].asked_ms = ms;
            now
        };
        let mut result = self.attended(self.celery.observe(tasks)).await;
        let mut world = self.sim.world();
        if let (Ok(view), false) = (&mut result, world.setup.work.maps_silent) {
            forget_silent(view);
        }
        let now = clock(&world, self.who);
        let tap = &mut world.taps[self.who];
        let workers = match &result {
            Ok(value) => Seen::Ok { value: value.clone(), at: asked },
            Err(failure) => Seen::Err { failure: failure.clone(), at: now },
        };
        let queues = tap.queues.take();
        tap.observation = tap.fleet.take().map(|fleet| Observation { fleet, workers, queues });
        result
    }

    async fn count(&self, queues: &BTreeSet<QueueName>) -> BTreeMap<QueueName, Seen<QueueCount>> {
        let counts = self.attended(self.celery.count(queues)).await;
        self.sim.world().taps[self.who].queues = Some(counts.clone());
        counts
    }

    async fn cancel(&self, cancels: &[(NodeName, Vec<QueueName>)]) -> Vec<Outcome> {
        self.begin();
        self.attended(self.celery.cancel(cancels)).await
    }

    async fn give_back(&self, undos: &[(NodeName, Vec<Queue>)]) -> Vec<Outcome> {
        self.begin();
        self.attended(self.celery.give_back(undos)).await
    }
}

impl SimWorkers<'_> {
    fn begin(&self) {
        let mut world = self.sim.world();
        judge_begin(&mut world, self.who, false);
        if world.now > world.taps[self.who].planned_ms + 12 * SECOND {
            world.disturbed_at = world.now;
        }
    }

    /// Lets the world go on while this waits for replies: whenever a message is due, it is brought up to date. Each is an
    /// await at which the operator may be killed, or paused: then nothing of it goes on.
    async fn attended<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let mut alarm = pin!(sleep_until(self.sim.at(0)));
        let (mut armed, mut paused) = (0, None);
        poll_fn(|context| {
            loop {
                if paused.is_none()
                    && let Poll::Ready(result) = work.as_mut().poll(context)
                {
                    return Poll::Ready(result);
                }
                let next = paused.or_else(|| self.sim.world().next_message());
                let Some(next) = next else { return Poll::Pending };
                if armed != next {
                    armed = next;
                    alarm.as_mut().reset(self.sim.at(next));
                }
                if alarm.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                if paused.take().is_some() {
                    continue;
                }
                let mut world = self.sim.world();
                match world.gates[self.who].step() {
                    Step::Go => {}
                    Step::Pause(ms) => {
                        world.tell(|| format!("operator {} is paused for {ms} ms", self.who));
                        paused = Some(world.now + ms);
                    }
                    Step::Die => {
                        world.tell(|| format!("operator {} is killed", self.who));
                        return Poll::Pending;
                    }
                }
            }
        })
        .await
    }
}

/// Another adapter than ours may not know which silent node is whose. The policy is not to rely on it.
fn forget_silent(view: &mut WorkersView) {
    for mapping in view.tasks.values_mut() {
        let Mapping::Nodes(nodes) = mapping else { continue };
        nodes.retain(|node| view.nodes.contains_key(node));
        if nodes.is_empty() {
            *mapping = Mapping::NotFound { hint: "no node of it answered".to_owned() };
        }
    }
}
