//! Connections that are lost while jobs run and wait, after the cancel: what the policy makes of what each worker says from
//! then on, up to the permit. docs/hazards.md has it as a table.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use test_support::{Tally, wait_until};
use worker_drain::{
    clock::{Clock, SystemClock},
    reconcile::{Drain, Reconciliation},
    workers::celery::{Celery, CelerySettings},
};
use worker_drain_plan::{
    Memory, TaskId,
    evidence::{Evidence, Work},
    observation::{Answer, Strength},
    policy::{MinConsuming, Scheduled},
    report::TaskPhase,
};

use crate::{
    Fleet, RUN_AGAIN, VERY_LONG,
    helpers::{has_said_all, ids, node, open, settings},
    is_green, is_solo,
    small_fleet::{InMemory, SmallFleet, drain},
};

/// Such a worker lists the job for ever that it ran when its connection was lost (celery#8541): its task is held, as if the job
/// ran, until the worker is restarted.
pub fn keeps_a_ghost(name: &str) -> bool {
    ["5.3-prefork", "5.4-prefork", "5.5-prefork"].contains(&name)
}

/// A drain that is told nothing of what was before it began: each worker is an old task's own.
pub struct Judge<'a> {
    fleet: &'a Fleet,
    drain: Drain<SmallFleet, Celery, InMemory, SystemClock>,
}

impl Fleet {
    /// No task is judged idle while a job runs in it, and none with a job in it is permitted to stop; when the jobs have ended, all are
    /// permitted to, but those that list a job for ever.
    pub async fn are_judged_after_a_lost_connection(&self) {
        self.are_judged_by(&Judge::new(self, &settings(self.app.broker()))).await;
    }

    /// The same, by a drain that may know what was before.
    pub async fn are_judged_by(&self, judge: &Judge<'_>) {
        let (first, waiting) = (self.jobs("first", |_| true), self.jobs("waiting", |name| self.go_on.contains(name)));
        judge
            .until("all are back that can answer, and none lists what waits in its pool", |done| {
                self.names.iter().filter(|name| !self.is_silent(name)).all(|name| {
                    let answer =
                        answer(done, name).filter(|answer| has_said_all(answer) && answer.queues == Some(Vec::new()));
                    answer.is_some_and(|answer| {
                        ids(answer.active.as_ref()) == [format!("first-{name}")]
                            && ids(answer.reserved.as_ref()).is_empty()
                    })
                })
            })
            .await;
        judge.twice().await;
        self.app.tell(&first);
        self.app.journal().wait_finished(&first).await;
        self.app.journal().wait_started(&waiting, waiting.len()).await;
        judge.twice().await;
        self.app.tell(&self.jobs("waiting", |_| true));
        self.app.journal().wait_finished(&waiting).await;

        let ghosts: BTreeSet<&String> = self.names.iter().filter(|name| keeps_a_ghost(name)).collect();
        let done = judge.until("all are permitted to stop that list no job for ever", |_| {
            let released = judge.drain.fleet.released();
            self.names.iter().all(|name| ghosts.contains(name) || released.contains(name))
        });
        let done = done.await;
        for name in &self.names {
            let begun = u64::try_from(self.starts(name)).expect("they are few");
            assert_eq!(answer(&done, name).expect("it answers").begun, Some(begun), "{name} counts what it has begun");
        }
        for name in &ghosts {
            assert_eq!(phase(&done, name), TaskPhase::Busy, "{name}");
            let active = answer(&done, name).and_then(|answer| answer.active.as_ref());
            assert_eq!(ids(active), [format!("first-{name}")], "{name} lists what has ended");
        }
        assert_eq!(judge.drain.fleet.released().len(), self.names.len() - ghosts.len());
    }

    /// None is lost: each came to its end, or is at the broker. Some may run twice: those that their pool went on with, because the
    /// broker had them again; what solo workers had, which they acknowledge when it is over; and what some green ones began just
    /// before.
    pub async fn ran_all_that_were_there_when_the_connection_was_lost(&self, unacknowledged: impl Fn() -> String) {
        let waiting = self.jobs("waiting", |name| self.has_one_waiting(name));
        let jobs = [self.jobs("first", |_| true), waiting].concat();
        let mut tally = Tally::default();
        wait_until("each has come to its end, or is at the broker", VERY_LONG, async || {
            tally = self.app.journal().tally(&jobs);
            let left = unacknowledged();
            tally
                .unfinished
                .iter()
                .all(|job| job.starts_with("waiting") && job.ends_with("prefork") && left.contains(job))
        })
        .await;
        let may = [
            self.jobs("waiting", |name| is_solo(name) || self.go_on.contains(name)),
            self.jobs("first", |name| is_solo(name) || RUN_AGAIN.contains(&name)),
        ];
        let may: BTreeSet<String> = may.concat().into_iter().collect();
        assert!(tally.run_twice.is_subset(&may), "{:?}", tally.run_twice);
    }

    /// It does not answer before a job has ended: a solo worker, and a green one whose loop waits for its pool.
    pub fn is_silent(&self, name: &str) -> bool {
        is_solo(name) || is_green(name) && self.has_one_waiting(name)
    }

    fn jobs(&self, word: &str, whose: impl Fn(&str) -> bool) -> Vec<String> {
        self.names.iter().filter(|name| whose(name)).map(|name| format!("{word}-{name}")).collect()
    }

    /// How many jobs it has begun, by the jobs' own word.
    fn starts(&self, name: &str) -> usize {
        let records = self.app.journal().records();
        let own = ["first", "waiting"].map(|word| format!("{word}-{name}"));
        own.iter().filter_map(|job| records.get(job)).map(|record| record.starts.len()).sum()
    }
}

impl<'a> Judge<'a> {
    pub fn new(fleet: &'a Fleet, settings: &CelerySettings) -> Self {
        let tasks: Vec<_> = fleet.names.iter().map(|name| (name.as_str(), "old")).collect();
        let mut drain = drain(SmallFleet::of(&tasks), open(settings), Memory::default());
        drain.policy.drain.min_consuming = Some(MinConsuming::Percent(0));
        Self { fleet, drain }
    }

    /// A proof needs two looks: whatever could be taken for idle is by now.
    async fn twice(&self) {
        for _ in 0..2 {
            self.reconcile().await;
        }
    }

    pub async fn until(&self, what: &str, wanted: impl Fn(&Reconciliation) -> bool) -> Reconciliation {
        let mut last = None;
        wait_until(what, VERY_LONG, async || {
            let done = self.reconcile().await;
            let is_fine = wanted(&done);
            last = Some(done);
            is_fine
        })
        .await;
        last.expect("it was reconciled")
    }

    /// Reconciles once. Jobs end only between two of these, so what runs before one runs all the while.
    async fn reconcile(&self) -> Reconciliation {
        let running = self.running();
        let done = self.drain.reconcile().await.expect("memory and fleet are there");
        for name in &self.fleet.names {
            let answer = answer(&done, name);
            if let Some(answer) = answer {
                let gaps = (answer.unseen.is_some() && answer.is_whole(), answer.settles_in, answer.strength);
                assert_eq!(gaps, (false, SignedDuration::ZERO, Strength::Lists), "{name}: its lists are all there is");
            }
            let Some(job) = running.iter().find(|job| job.ends_with(name.as_str())) else { continue };
            let evidence = Evidence::of(
                &TaskId::from(name.as_str()),
                &done.plan.memory.tasks[&TaskId::from(name.as_str())],
                done.observation.workers.ok(),
                (1, Scheduled::Ignore),
                SystemClock.now(),
            );
            assert_ne!(evidence.work, Work::Idle, "{job} runs: {answer:?}");
            let phase = phase(&done, name);
            assert!(!matches!(phase, TaskPhase::Idle | TaskPhase::Permitted), "{job} runs: {phase}, {answer:?}");
        }
        // Nor may one begin in a task that is released.
        let (running, released) = (self.running(), self.drain.fleet.released());
        let cut = running.iter().find(|job| released.iter().any(|name| job.ends_with(name.as_str())));
        assert_eq!(cut, None, "it was permitted to stop with this job in it");
        done
    }

    fn running(&self) -> BTreeSet<String> {
        let records = self.fleet.app.journal().records();
        let runs = records.into_iter().filter(|(_, record)| record.starts.len() > record.ends.len());
        runs.map(|(job, _)| job).collect()
    }
}

pub fn answer<'a>(done: &'a Reconciliation, name: &str) -> Option<&'a Answer> {
    done.observation.workers.ok()?.nodes.get(&node(name))
}

fn phase(done: &Reconciliation, name: &str) -> TaskPhase {
    done.plan.report.tasks.iter().find(|task| task.task.as_str() == name).expect("it is a task").phase
}
