//! Random histories: whatever happens to a fleet and its workers, in whatever order, every reconciliation keeps every rule, no job
//! dies by our permit, and when the outside recovers everything comes to rest.

#![allow(unused_must_use, reason = "what a reconciliation decides is judged and told by the world")]

mod world;

use jiff::SignedDuration;
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use worker_drain_plan::{
    Outcome, Plan, absorb,
    invariants::{self, Judged},
    observation::{Displaced, FailureKind, Life, Mapping},
    policy::{Deadline, DeadlineAction, HoldMode, MinConsuming, Scheduled},
};
use world::{Counting, HOUR, World};

/// What may happen. Numbers choose among what is there.
#[derive(Clone, Copy, Debug)]
enum Event {
    Deploy,
    RollBack(usize),
    Scale(u32),
    Schedule,
    StartOld(usize),
    JobArrives(usize),
    JobsEnd(usize),
    Freeze(usize),
    Thaw(usize),
    Restart(usize),
    ForgetQueues(usize),
    WorkersComeUp(bool),
    Ambiguous(usize),
    Mapped(usize),
    Broker(bool),
    /// Jobs are sent to the queue.
    Sent(u64, u64),
    /// All that is in the queue is taken by those who take from it.
    QueueDrains,
    Countable(usize),
    Fleet(bool),
    RefuseHolds(bool),
    /// The scheduler counts more tasks than it shows.
    CountsMore(u32),
    LoseHold(usize),
    /// Somebody else has a worker take jobs from the queue.
    AddConsumer(usize),
    /// Somebody else holds a task.
    HoldByHand(usize),
    /// The scheduler wants a task gone, or not any more.
    Displace(usize),
    Stay(usize),
    /// A task is in one of two zones, and the scheduler balances them or not.
    Zone(usize),
    Balances(bool),
    Lost(usize),
    Later(i64),
    Pause(bool),
    Reconcile,
    /// The pass is killed after it has taken so many actions, and before it wrote down what became of them.
    KilledPass(usize),
    /// A second instance looks, decides, and writes down what it is about to do; then it is paused.
    SecondLooks,
    /// It goes on, and does what it had decided, unless that has become too old.
    SecondActs,
    /// Some actions fail, or take effect though they seem to fail.
    FaultyPass {
        lost: u32,
        late: u32,
    },
}

/// How the history begins.
#[derive(Clone, Debug)]
struct Beginning {
    desired: u32,
    minimum: u32,
    maximum: u32,
    min_consuming: Option<MinConsuming>,
    mode: HoldMode,
    scheduled: Scheduled,
    deadline: Option<Deadline>,
    gate: bool,
}

fn beginning() -> impl Strategy<Value = Beginning> {
    let deadline = prop_oneof![
        3 => Just(None),
        1 => Just(Some(Deadline { after: HOUR, action: DeadlineAction::Hold })),
    ];
    (
        1..5u32,
        prop_oneof![Just(100u32), Just(50), Just(0)],
        prop_oneof![3 => Just(200u32), 1 => Just(150), 1 => Just(100)],
        prop_oneof![
            3 => Just(None),
            1 => Just(Some(MinConsuming::Percent(0))),
            1 => Just(Some(MinConsuming::Percent(50))),
            1 => Just(Some(MinConsuming::Tasks(2))),
        ],
        prop_oneof![3 => Just(HoldMode::Standing), 1 => Just(HoldMode::OnRollout)],
        prop_oneof![Just(Scheduled::Ignore), Just(Scheduled::Wait)],
        deadline,
        prop_oneof![2 => Just(false), 1 => Just(true)],
    )
        .prop_map(|(desired, minimum, maximum, min_consuming, mode, scheduled, deadline, gate)| Beginning {
            desired,
            minimum,
            maximum,
            min_consuming,
            mode,
            scheduled,
            deadline,
            gate,
        })
}

/// Nothing is modelled a second time: what is demanded is the rules, not an expected state.
struct Anything;

impl ReferenceStateMachine for Anything {
    type State = Beginning;
    type Transition = Event;

    fn init_state() -> BoxedStrategy<Beginning> {
        beginning().boxed()
    }

    fn transitions(_: &Beginning) -> BoxedStrategy<Event> {
        let some = 0..8usize;
        prop_oneof![
            12 => Just(Event::Reconcile),
            6 => Just(Event::Schedule),
            4 => prop_oneof![Just(1i64), Just(5), Just(20), Just(90), Just(4_000)].prop_map(Event::Later),
            2 => Just(Event::Deploy),
            1 => (0..4usize).prop_map(Event::RollBack),
            1 => (0..5u32).prop_map(Event::Scale),
            1 => some.clone().prop_map(Event::StartOld),
            4 => some.clone().prop_map(Event::JobArrives),
            3 => some.clone().prop_map(Event::JobsEnd),
            1 => some.clone().prop_map(Event::Freeze),
            1 => some.clone().prop_map(Event::Thaw),
            1 => some.clone().prop_map(Event::Restart),
            1 => some.clone().prop_map(Event::ForgetQueues),
            1 => any::<bool>().prop_map(Event::WorkersComeUp),
            1 => some.clone().prop_map(Event::Ambiguous),
            1 => some.clone().prop_map(Event::Mapped),
            1 => any::<bool>().prop_map(Event::Broker),
            1 => any::<bool>().prop_map(Event::Fleet),
            1 => (0..3u64, 0..2u64).prop_map(|(ready, delivered)| Event::Sent(ready, delivered)),
            2 => Just(Event::QueueDrains),
            1 => (0..4usize).prop_map(Event::Countable),
            1 => any::<bool>().prop_map(Event::RefuseHolds),
            1 => (0..2u32).prop_map(Event::CountsMore),
            1 => some.clone().prop_map(Event::LoseHold),
            2 => some.clone().prop_map(Event::AddConsumer),
            2 => some.clone().prop_map(Event::HoldByHand),
            1 => some.clone().prop_map(Event::Displace),
            1 => some.clone().prop_map(Event::Stay),
            1 => some.clone().prop_map(Event::Zone),
            1 => any::<bool>().prop_map(Event::Balances),
            1 => some.clone().prop_map(Event::Lost),
            1 => any::<bool>().prop_map(Event::Pause),
            2 => some.clone().prop_map(Event::KilledPass),
            2 => Just(Event::SecondLooks),
            3 => Just(Event::SecondActs),
            2 => (any::<u32>(), any::<u32>()).prop_map(|(lost, late)| Event::FaultyPass { lost, late }),
        ]
        .boxed()
    }

    fn apply(state: Beginning, _: &Event) -> Beginning {
        state
    }
}

/// The world with what its instances remember.
struct History {
    world: World,
    second: Option<(Plan, u32)>,
    deployments: u32,
}

impl StateMachineTest for History {
    type SystemUnderTest = Self;
    type Reference = Anything;

    fn init_test(beginning: &Beginning) -> Self {
        let mut world = World::of(beginning.desired);
        world.minimum_percent = beginning.minimum;
        world.maximum_percent = beginning.maximum;
        world.policy.hold.mode = beginning.mode;
        world.policy.drain.scale_in = beginning.mode == HoldMode::Standing;
        world.policy.drain.min_consuming = beginning.min_consuming;
        world.policy.drain.scheduled = beginning.scheduled;
        world.policy.drain.deadline = beginning.deadline;
        if beginning.gate {
            world.gate();
        }
        Self { world, second: None, deployments: 0 }
    }

    fn apply(mut history: Self, _: &Beginning, event: Event) -> Self {
        history.world.say(&format!("{event:?}"));
        history.happen(event);
        history
    }

    /// The outside recovers and is left alone: everything must come to rest.
    fn teardown(mut history: Self, _: Beginning) {
        let world = &mut history.world;
        world.say("the outside recovers");
        world.policy.paused = false;
        (world.broker_down, world.fleet_down, world.refuse_holds) = (None, None, None);
        world.counts_more = 0;
        world.balances_zones = false;
        world.workers_come_up = true;
        world.counting = if world.counting == Counting::Ready { Counting::Ready } else { Counting::All };
        // A service that may neither start nor stop a task is stuck without us too.
        world.maximum_percent = world.maximum_percent.max(200);
        let names: Vec<String> = world.tasks.keys().cloned().collect();
        for name in names {
            let member = world.task(&name);
            member.unmapped = None;
            member.displaced = Displaced::No;
            if member.nodes.is_empty() && member.life == Life::Running {
                world.come_up(&name);
            }
            for node in world.task(&name).nodes.values_mut() {
                node.frozen = false;
                node.scheduled.clear();
            }
        }
        for _ in 0..60 {
            // Nothing more is sent; but what is in the queue goes only if somebody is left to take it.
            world.all_jobs_end().queue_drains().run(1);
        }
        let observation = world.observe();
        let plan = world.plan();
        let judged = Judged {
            policy: &world.policy,
            observation: &observation,
            before: &world.memory,
            plan: &plan,
            now: world.now,
        };
        if let Err(violation) = invariants::rule_12(judged) {
            panic!("rule {}: {}\n{}", violation.rule, violation.what, world.story);
        }
    }
}

impl History {
    fn happen(&mut self, event: Event) {
        self.deployments += u32::from(matches!(event, Event::Deploy | Event::RollBack(_)));
        let world = &mut self.world;
        match event {
            Event::Deploy if world.revisions.len() < 5 => drop(world.deploy("app:next")),
            Event::RollBack(to) => drop(world.roll_back_to(to % world.revisions.len())),
            Event::Scale(desired) => world.desired = desired,
            Event::Schedule => drop(world.schedule()),
            Event::StartOld(revision) if world.tasks.len() < 16 => drop(world.start(revision % world.revisions.len())),
            Event::Deploy | Event::StartOld(_) => {}
            Event::WorkersComeUp(yes) => world.workers_come_up = yes,
            Event::Broker(down) => world.broker_down = down.then_some(FailureKind::Unreachable),
            Event::Fleet(down) => world.fleet_down = down.then_some(FailureKind::Throttled),
            Event::Sent(ready, delivered) => world.queued = (ready, delivered),
            Event::QueueDrains => drop(world.queue_drains()),
            Event::Countable(how) => {
                let all = [
                    Counting::All,
                    Counting::Ready,
                    Counting::Fails(FailureKind::Denied),
                    Counting::Fails(FailureKind::Unreachable),
                ];
                world.counting = all[how];
            }
            Event::RefuseHolds(yes) => world.refuse_holds = yes.then(|| "DEPLOYMENT_BLOCKED".into()),
            Event::Balances(yes) => world.balances_zones = yes,
            Event::CountsMore(tasks) => world.counts_more = tasks,
            Event::Later(seconds) => drop(world.later(SignedDuration::from_secs(seconds))),
            Event::Pause(yes) => world.policy.paused = yes,
            Event::Reconcile => drop(world.reconcile()),
            Event::KilledPass(after) => self.faulty(|index| if index < after { Fault::Late } else { Fault::Lost }),
            Event::FaultyPass { lost, late } => {
                self.faulty(|index| match (lost >> (index % 32) & 1, late >> (index % 32) & 1) {
                    (1, _) => Fault::Lost,
                    (_, 1) => Fault::Late,
                    _ => Fault::None,
                });
            }
            Event::SecondLooks => self.second_looks(),
            Event::SecondActs => self.second_acts(),
            Event::JobArrives(which)
            | Event::JobsEnd(which)
            | Event::Freeze(which)
            | Event::Thaw(which)
            | Event::Restart(which)
            | Event::ForgetQueues(which)
            | Event::Ambiguous(which)
            | Event::Mapped(which)
            | Event::LoseHold(which)
            | Event::AddConsumer(which)
            | Event::HoldByHand(which)
            | Event::Displace(which)
            | Event::Stay(which)
            | Event::Zone(which)
            | Event::Lost(which) => self.happen_to(&event, which),
        }
    }

    fn happen_to(&mut self, event: &Event, which: usize) {
        let world = &mut self.world;
        let running: Vec<String> = world
            .tasks
            .iter()
            .filter(|(_, member)| member.life == Life::Running && !member.nodes.is_empty())
            .map(|(name, _)| name.clone())
            .collect();
        let Some(name) = running.get(which % running.len().max(1)) else { return };
        match event {
            // Jobs come only to those who take them.
            Event::JobArrives(_) if !world.node(name).queues.is_empty() && !world.node(name).frozen => {
                world.job(name);
            }
            Event::JobsEnd(_) if !world.node(name).frozen => drop(world.jobs_end(name)),
            Event::Freeze(_) => world.node(name).frozen = true,
            Event::Thaw(_) => world.node(name).frozen = false,
            Event::Restart(_) => drop(world.restart(name)),
            // Reconnecting, a worker forgets what was added to it, and nothing else.
            Event::ForgetQueues(_) => {
                let node = world.node(name);
                node.queues.retain(|queue| !node.added.contains(queue));
            }
            Event::Ambiguous(_) => world.task(name).unmapped = Some(Mapping::Ambiguous { why: "two claim it".into() }),
            Event::Mapped(_) => world.task(name).unmapped = None,
            Event::LoseHold(_) => world.task(name).held_until = None,
            Event::AddConsumer(_) if !world.node(name).frozen => drop(world.add_consumer(name, "video")),
            Event::HoldByHand(_) if world.has_room_for_a_hold() => drop(world.hold_by_hand(name, HOUR)),
            Event::Displace(which) => {
                let all = [Displaced::MachineLeaves, Displaced::Unhealthy, Displaced::Unread];
                world.task(name).displaced = all[which % all.len()];
            }
            Event::Stay(_) => world.task(name).displaced = Displaced::No,
            Event::Zone(which) => world.task(name).zone = Some(String::from(if which % 2 == 0 { "a" } else { "b" })),
            Event::Lost(_) => {
                world.task(name).permitted = false;
                world.stop(name);
            }
            _ => {}
        }
    }

    /// A pass of which some actions are lost, and some take effect though nobody learns of it.
    fn faulty(&mut self, fault: impl Fn(usize) -> Fault) {
        let plan = self.world.plan();
        self.world.memory = plan.memory.clone();
        let mut outcomes = Vec::new();
        for (index, action) in plan.actions.iter().enumerate() {
            let failed = || worker_drain_plan::observation::Failure::new(FailureKind::Unreachable, "timed out");
            outcomes.push((
                action.clone(),
                match fault(index) {
                    Fault::None => self.world.apply(action),
                    Fault::Lost => Outcome::Failed(failed()),
                    Fault::Late => {
                        self.world.apply(action);
                        Outcome::Failed(failed())
                    }
                },
            ));
        }
        absorb(&mut self.world.memory, &outcomes, self.world.now);
    }

    /// Memory is read at the beginning of a pass and written before acting, and a write over somebody else's fails; so
    /// both instances remember the same, and only what a second one does may come late.
    fn second_looks(&mut self) {
        let plan = self.world.plan();
        self.world.memory = plan.memory.clone();
        self.second = Some((plan, self.deployments));
    }

    fn second_acts(&mut self) {
        let Some((plan, deployments)) = self.second.take().filter(|(plan, _)| self.world.now <= plan.good_until) else {
            return;
        };
        for action in &plan.actions {
            let live = |member: &world::Member| matches!(member.life, Life::Running | Life::Starting);
            if !self.world.tasks.get(action.task().as_str()).is_some_and(live) {
                continue;
            }
            self.world.apply(action);
            if deployments != self.deployments {
                // Rolled back, at work again, and old again, all within the seconds for which a plan is good: releasing
                // a hold knows no condition, so this is a limit of any tool (docs/limits.md).
                self.world.task(action.task().as_str()).permitted = false;
            }
        }
    }
}

enum Fault {
    None,
    Lost,
    Late,
}

/// As many histories as a test run has time for; `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { ProptestConfig::default().cases } else { 1_500 };
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 20_000, ..ProptestConfig::default() }
}

prop_state_machine! {
    #![proptest_config(config())]
    #[test]
    fn whatever_happens_the_rules_hold_and_everything_comes_to_rest(sequential 1..60 => History);
}
