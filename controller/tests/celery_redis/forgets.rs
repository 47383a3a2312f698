//! Celery 5.5 on Redis forgets, when it reconnects, what was added to it (celery#10352). As long as a drain is there, that is
//! seen and mended: by the whole loop, on a real worker, with a fleet of one task that stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use jiff::SignedDuration;
use test_support::{LONG, Redis, SampleApp, python_with_celery, wait_until};
use worker_drain::{
    clock::{Clock, SystemClock},
    fleet::{Fleet, FleetObservation},
    reconcile::Drain,
    record::Record,
    workers::{Workers, celery::Celery},
};
use worker_drain_plan::{
    Memory, Outcome, Policy, Report, RevisionId, TaskId,
    memory::TaskMemory,
    observation::{Displaced, Failure, FleetView, HoldState, Life, Revision, Task},
    policy::{DrainPolicy, HoldMode, HoldPolicy, Mode, Scheduled},
};

use crate::both::{all_answer, known_tasks, look_until, node, open, settings, takes};

/// One task of the current revision.
struct OneTask;

impl Fleet for OneTask {
    async fn observe(&self, _: &BTreeSet<TaskId>) -> Result<FleetObservation, Failure> {
        let now = SystemClock.now();
        let hold = HoldState::Until(now + SignedDuration::from_hours(2));
        let task = Task {
            revision: "one".into(),
            life: Life::Running,
            started_at: Some(now),
            hold,
            displaced: Displaced::No,
            zone: None,
            alike: Vec::new(),
        };
        let view = FleetView {
            is_rolling_out: false,
            is_deleted: false,
            name: "media/transcoder".into(),
            desired: 1,
            minimum_healthy_percent: 100,
            maximum_percent: 200,
            current: "one".into(),
            revisions: [("one".into(), Revision { label: "app:1".into(), created_at: None })].into(),
            tasks: [(TaskId::from("one"), task)].into(),
            made_at: None,
            longest_hold: SignedDuration::from_hours(48),
            unplaced: BTreeMap::new(),
            counted: None,
            balances_zones: false,
            unread: Vec::new(),
            remembered: None,
        };
        Ok(FleetObservation { view, identities: BTreeMap::new() })
    }

    async fn hold(&self, holds: &[(TaskId, SignedDuration)]) -> Vec<Outcome> {
        vec![Outcome::Done; holds.len()]
    }

    async fn remember(&self, _: &BTreeMap<RevisionId, u32>, _: &FleetView) -> Outcome {
        Outcome::Done
    }

    async fn release(&self, tasks: &[TaskId]) -> Vec<Outcome> {
        panic!("nothing is to be released: {tasks:?}");
    }
}

#[derive(Default)]
struct InMemory(Mutex<Memory>);

impl Record for InMemory {
    async fn load(&self) -> Result<Memory, Failure> {
        Ok(self.0.lock().expect("nobody panics while holding it").clone())
    }

    async fn save(&self, memory: &Memory, _: &Report) -> Result<(), Failure> {
        self.0.lock().expect("nobody panics while holding it").clone_from(memory);
        Ok(())
    }
}

fn policy() -> Policy {
    Policy {
        hold: HoldPolicy { mode: HoldMode::Standing, expires_in: SignedDuration::from_hours(2) },
        drain: DrainPolicy {
            min_consuming: None,
            idle_for: SignedDuration::from_secs(1),
            scheduled: Scheduled::Ignore,
            deadline: None,
            workers_per_task: None,
            start_timeout: None,
            scale_in: true,
            gate: None,
        },
        mode: Mode::Enforce,
        paused: false,
        withdrawn: false,
    }
}

#[tokio::test]
async fn what_a_worker_forgets_when_it_reconnects_is_given_back_again() {
    let redis = Redis::start().await;
    let app = SampleApp::new(redis.url()).python(python_with_celery("5.5"));
    let _worker = app.worker("worker@one").queues(["slow", "fast"]).start().await;
    let celery: Celery = open(&settings(&redis.url()));
    let tasks = known_tasks(&["one"]);
    let before = all_answer(&celery, &tasks).await.nodes[&node("one")].queues.clone().unwrap();

    // A rollout that was rolled back took a queue from it.
    celery.cancel(&[(node("one"), vec!["slow".into()])]).await;
    look_until("it is cancelled", &celery, &tasks, |view| takes(view, "one", &["fast"])).await;
    let mut known = TaskMemory::default();
    let taken = before.iter().filter(|queue| queue.name.as_str() == "slow").cloned().collect();
    known.nodes.entry(node("one")).or_default().taken = taken;
    let record = InMemory(Mutex::new(Memory { tasks: [("one".into(), known)].into(), ..Memory::default() }));
    let drain = Drain { policy: policy(), fleet: OneTask, workers: celery, record, clock: SystemClock };

    let settles = async |why: &str| {
        wait_until(why, LONG * 2, async || drain.reconcile().await.is_ok_and(|pass| pass.plan.report.settled)).await;
        look_until(why, &drain.workers, &tasks, |view| takes(view, "one", &["fast", "slow"])).await;
    };
    settles("the queue is given back").await;

    redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    look_until("it has reconnected, and forgotten what was added", &drain.workers, &tasks, |view| {
        takes(view, "one", &["fast"])
    })
    .await;
    settles("the queue is given back again").await;
}
