//! What a seed stands for: the faults that are on, the service, its workers and jobs, the policy, and the script.

use ecs_emulator::model::{
    BlockedRenewal, BlockedRule, CircuitBreaker, DeleteForceProtected, DeploymentConfiguration, DeploymentStatusSet,
    EarlySuccess, Knobs, Pause, PauseEnd, PauseStage, ReplaceTerminated, RollbackId, Span,
};
use jiff::SignedDuration;
use worker_drain_plan::{
    Policy, QueueName,
    policy::{Deadline, DeadlineAction, DrainPolicy, Gate, HoldMode, HoldPolicy, MinConsuming, Mode, Scheduled},
};

use crate::{
    chance::Chance,
    fault::{Fault, FaultSet},
    remote::Remote,
    script::{self, Beat},
    world::queue_names,
};

/// One second, in the simulation's milliseconds.
pub const SECOND: u64 = 1000;
/// One minute.
pub const MINUTE: u64 = 60 * SECOND;

/// What a history is made from.
#[derive(Clone, Debug)]
pub struct Setup {
    /// All chance comes from it.
    pub seed: u64,
    /// The faults that are on.
    pub faults: FaultSet,
    /// How many tasks the service wants at first.
    pub desired: u32,
    /// The bounds of its deployments.
    pub configuration: DeploymentConfiguration,
    /// The delays and readings of ECS.
    pub knobs: Knobs,
    /// What the user asks for at first.
    pub policy: Policy,
    /// The longest hold that ECS grants.
    pub longest_hold: SignedDuration,
    /// The workers and their jobs.
    pub work: Work,
    /// How the workers are asked.
    pub remote: Remote,
    /// How long faults go on.
    pub safety: u64,
    /// What happens, and when; in order.
    pub script: Vec<Beat>,
}

/// The workers and their jobs.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a thing that is so or not, apart from the others")]
pub struct Work {
    /// How many queues there are; every node takes jobs from all of them.
    pub queues: u8,
    /// Nodes in a task.
    pub nodes: u8,
    /// Jobs that a node runs at once.
    pub concurrency: usize,
    /// Jobs that a node takes beyond those.
    pub prefetch: usize,
    /// From one job's arrival to the next, in milliseconds, at the most.
    pub gap: u64,
    /// How long a job runs, at the most.
    pub longest: u64,
    /// One job in so many has a later start time; zero: none has.
    pub eta_one_in: u64,
    /// One job in so many fails and is retried some seconds later, as another message of the same id; zero: none is.
    pub retry_one_in: u64,
    /// Messages are acknowledged when the job has ended: one that is killed comes again.
    pub acks_late: bool,
    /// A worker that reconnects forgets the queues that were added to it (celery#10352).
    pub forgets_added: bool,
    /// A cancel takes effect a moment after it was answered (Celery 5.5).
    pub slow_cancel: bool,
    /// A known node that does not answer is still told to be its task's. If not, the policy has to know by itself.
    pub maps_silent: bool,
    /// How long a worker takes to come up, at the most.
    pub boot: u64,
    /// From one job's beginning to the next in each worker, by its rate limit; zero: there is none. A job that waits for it is in none
    /// of the lists that the worker tells.
    pub limit: u64,
    /// What becomes of jobs when the worker loses the broker.
    pub lost: Lost,
    /// Of two queues the workers were started for the first. The other they only send to, and take jobs from it after they have
    /// lost the broker (Celery up to 5.6.3, started without `-Q`).
    pub only_sends: bool,
    /// The workers have the package `celery-worker-drain`.
    pub package: Option<Package>,
    /// The workers run jobs where they listen: one at a time, and while it runs they hear nothing (the solo pool).
    pub solo: bool,
}

/// What a worker that loses the broker tells of the jobs that it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// What is so.
    Nothing,
    /// None of those that its pool has and has not begun: it runs them one after another (threads and gevent).
    Waiting,
    /// Those that ran, for ever (prefork, Celery 5.3 to 5.5).
    Ended,
}

/// How the package tells of what Celery does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Package {
    /// It knows which task it runs in.
    pub tells_task: bool,
    /// Jobs that wait are kept by a strategy of their own, and can only be counted.
    pub batches: bool,
}

impl Work {
    /// The queues that a worker was started for, a bit each.
    pub fn own(&self) -> u8 {
        if self.only_sends { 1 } else { self.every() }
    }

    /// All queues.
    pub fn every(&self) -> u8 {
        (1 << self.queues) - 1
    }
}

impl Setup {
    /// What this seed stands for, without these faults and these beats of its script.
    pub fn new(seed: u64, off: FaultSet, cut: &[usize]) -> Self {
        let faults = swarm(&mut Chance::new(seed, "swarm")).minus(off);
        let mut chance = Chance::new(seed, "setup");
        let desired = u32::try_from(chance.between(1, 4)).unwrap_or(1);
        let configuration = DeploymentConfiguration {
            minimum_healthy_percent: chance.pick(&[100, 100, 50, 0]),
            maximum_percent: chance.pick(&[200, 200, 200, 150, 100]),
            breaker: chance.pick(&[
                CircuitBreaker { enable: true, rollback: true },
                CircuitBreaker { enable: true, rollback: true },
                CircuitBreaker { enable: true, rollback: false },
                CircuitBreaker { enable: false, rollback: false },
            ]),
        };
        let knobs = knobs(&mut Chance::new(seed, "knobs"));
        let short = faults.has(Fault::ShortHolds);
        let longest_hold = SignedDuration::from_mins(if short { 4 } else { 48 * 60 });
        let mut policy = policy(&mut Chance::new(seed, "policy"), faults);
        let mut work = work(&mut Chance::new(seed, "work"), faults);
        work.limit = Chance::new(seed, "limit").pick(&[0, 0, 0, 0, 0, 3, 10, 30]) * SECOND;
        work.lost =
            Chance::new(seed, "lost").pick(&[Lost::Nothing, Lost::Nothing, Lost::Nothing, Lost::Waiting, Lost::Ended]);
        work.only_sends = work.queues > 1 && Chance::new(seed, "only sends").percent(40);
        let mut package = Chance::new(seed, "package");
        work.package = package
            .percent(25)
            .then(|| Package { tells_task: package.percent(50), batches: work.limit > 0 && package.percent(50) });
        if Chance::new(seed, "solo").percent(10) {
            (work.solo, work.concurrency, work.lost) = (true, 1, Lost::Nothing);
        }
        // Behind a gate the last job is waited for before any task leaves, and its retry: with jobs of an hour, for hours.
        let may_gate = work.longest <= 3 * MINUTE;
        policy.drain.gate = (may_gate && Chance::new(seed, "gate").percent(10)).then(|| gate(work.own()));
        let remote = Remote::draw(&mut Chance::new(seed, "remote"), work);
        let safety = chance.between(3 * MINUTE, 9 * MINUTE);
        let mut script = script::write(seed, faults, desired, safety);
        for beat in &mut script {
            beat.cut = cut.contains(&beat.index);
        }
        Self { seed, faults, desired, configuration, knobs, policy, longest_hold, work, remote, safety, script }
    }
}

/// Each kind is on in about a fifth of all seeds; now and then none is, or many are.
fn swarm(chance: &mut Chance) -> FaultSet {
    let density = chance.pick(&[0, 4, 8, 12, 16, 20, 30]);
    Fault::ALL.iter().filter(|_| chance.percent(density)).fold(FaultSet::NONE, |set, fault| set.with(*fault))
}

fn knobs(chance: &mut Chance) -> Knobs {
    Knobs {
        tick: chance.span(SECOND, 5 * SECOND),
        provisioning: Span::seconds(0.5, 5.0),
        pending: Span::seconds(0.5, 5.0),
        healthy_after: chance.span(3 * SECOND, 20 * SECOND),
        unprotect_delay: chance.span(0, 10 * SECOND),
        deprovisioning: chance.span(SECOND, 10 * SECOND),
        default_stop_timeout: chance.span(2 * SECOND, 30 * SECOND),
        stopped_retention: chance.span(5 * SECOND, 10 * MINUTE),
        launch_backoff_max: std::time::Duration::from_secs(30),
        start_batch: chance.pick(&[None, None, Some(1)]),
        blocked_rule: chance.pick(&[
            BlockedRule::WhileInProgress,
            BlockedRule::WhileInProgressFor(60),
            BlockedRule::Always,
            BlockedRule::Off,
        ]),
        blocked_renewal: chance.pick(&[
            BlockedRenewal::Refuse,
            BlockedRenewal::Allow,
            BlockedRenewal::RefuseOldAfter(90),
        ]),
        rollback_id: chance.pick(&[RollbackId::Reuse, RollbackId::New]),
        replace_terminated: chance.pick(&[
            ReplaceTerminated::SameRevision,
            ReplaceTerminated::SameRevisionAlways,
            ReplaceTerminated::Primary,
        ]),
        delete_force_protected: chance.pick(&[DeleteForceProtected::Stops, DeleteForceProtected::Holds]),
        early_success: chance.pick(&[
            EarlySuccess::Off,
            EarlySuccess::Off,
            EarlySuccess::Blocking(50),
            EarlySuccess::Deferred(50),
        ]),
        max_active_deployments: chance.pick(&[Some(5), Some(5), Some(2), None]),
        signal_delay: chance.span(0, 2 * SECOND),
        deactivating: chance.span(0, 10 * SECOND) * u32::from(chance.percent(30)),
        deployments_status_set: chance.pick(&[DeploymentStatusSet::Documented, DeploymentStatusSet::WithDraining]),
        pause: chance.percent(8).then(|| Pause {
            stage: chance.pick(&[PauseStage::PreScaleUp, PauseStage::PostScaleUp]),
            lasts: chance.span(5 * SECOND, 2 * MINUTE),
            then: chance.pick(&[PauseEnd::Continue, PauseEnd::Rollback]),
        }),
        ..Knobs::simulation()
    }
}

fn policy(chance: &mut Chance, faults: FaultSet) -> Policy {
    let mode = chance.pick(&[HoldMode::Standing, HoldMode::Standing, HoldMode::OnRollout]);
    let scale_in = mode == HoldMode::Standing && chance.percent(85);
    let min_consuming = {
        let percent = MinConsuming::Percent;
        chance.pick(&[None, None, Some(percent(0)), Some(percent(50)), Some(percent(100))])
    };
    let idle_for = SignedDuration::from_millis(chance.pick(&[1000, 1000, 2000, 5000]));
    let scheduled = chance.pick(&[Scheduled::Ignore, Scheduled::Wait]);
    let hold_deadline = chance.percent(10);
    let deadline = if faults.has(Fault::PermitStopDeadline) {
        Some(DeadlineAction::PermitStop)
    } else {
        hold_deadline.then_some(DeadlineAction::Hold)
    };
    let after = SignedDuration::from_secs(chance.pick(&[45, 90, 180]));
    Policy {
        hold: HoldPolicy {
            mode,
            expires_in: SignedDuration::from_mins(if faults.has(Fault::ShortHolds) { 2 } else { 120 }),
        },
        drain: DrainPolicy {
            min_consuming,
            idle_for,
            scheduled,
            deadline: deadline.map(|action| Deadline { after, action }),
            workers_per_task: None,
            start_timeout: None,
            scale_in,
            gate: None,
        },
        mode: Mode::Enforce,
        paused: false,
        withdrawn: false,
    }
}

/// All queues that workers were started for are to be empty: nobody sends to them in the end. Of another one the last job may stay
/// when the worker that took it up by itself has ended.
fn gate(queues: u8) -> Gate {
    Gate { queues_empty: queue_names(queues).map(QueueName::from).collect(), awaited: false }
}

fn work(chance: &mut Chance, faults: FaultSet) -> Work {
    let drawn = Work {
        queues: chance.pick(&[1, 1, 2]),
        nodes: chance.pick(&[1, 1, 1, 2]),
        concurrency: chance.pick(&[1, 1, 2, 3]),
        prefetch: chance.pick(&[0, 1, 3]),
        gap: chance.pick(&[2, 10, 30, 90]) * SECOND,
        longest: chance.pick(&[2, 10, 60, 180]) * SECOND,
        eta_one_in: chance.pick(&[0, 0, 4]),
        retry_one_in: chance.pick(&[0, 0, 5]),
        acks_late: chance.percent(50),
        forgets_added: chance.percent(50),
        slow_cancel: chance.percent(50),
        maps_silent: chance.percent(75),
        boot: if faults.has(Fault::SlowBoot) { 2 * MINUTE } else { 6 * SECOND },
        limit: 0,
        lost: Lost::Nothing,
        only_sends: false,
        package: None,
        solo: false,
    };
    // Jobs of an hour cost a thousand looks: few seeds have them, and none that waits behind another.
    if chance.percent(1) { Work { longest: 60 * MINUTE, gap: 5 * MINUTE, prefetch: 0, ..drawn } } else { drawn }
}
