//! The one world that all doors lead to, and the awaits at which an operator may be killed or paused.

use std::{
    future::pending,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};
use worker_drain_plan::observation::{Failure, FailureKind};

use crate::{fault::Fault, operator::Step, script::Outage, setup::SECOND, world::World};

/// How long a call waits for an answer that does not come.
pub const PATIENCE: u64 = 5 * SECOND;

/// The world, and the virtual clock that it runs by.
#[derive(Debug)]
pub struct Sim {
    world: Mutex<World>,
    start: Instant,
    now: AtomicU64,
}

impl Sim {
    /// A world at its beginning, which is now.
    pub fn new(world: World) -> Self {
        Self { world: Mutex::new(world), start: Instant::now(), now: AtomicU64::new(0) }
    }

    /// Virtual time, in milliseconds from the beginning.
    ///
    /// It stands still while a task of the runtime does something, and is read thousands of times meanwhile: reading
    /// tokio's clock each time took an eighth of the simulation.
    pub fn now(&self) -> u64 {
        let now = self.now.load(Ordering::Relaxed);
        debug_assert_eq!(now, self.elapsed(), "the clock is read whenever the runtime goes on");
        now
    }

    /// Reads the clock. To be called whenever the runtime goes on with the operators.
    pub fn tick(&self) {
        self.now.store(self.elapsed(), Ordering::Relaxed);
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The moment so many milliseconds from the beginning.
    pub fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    /// The world, brought up to date.
    pub fn world(&self) -> MutexGuard<'_, World> {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        world.advance(self.now());
        world
    }

    /// Time passes.
    pub async fn sleep(&self, ms: u64) {
        if ms > 0 {
            sleep(Duration::from_millis(ms)).await;
        }
    }

    /// An await: the operator may be killed here, or paused.
    pub async fn point(&self, who: usize) {
        let step = self.world().gates[who].step();
        match step {
            Step::Go => {}
            Step::Pause(ms) => {
                self.world().tell(|| format!("operator {who} is paused for {ms} ms"));
                self.sleep(ms).await;
                // What it saw before the pause may be long over.
                let mut world = self.world();
                world.disturbed_at = world.now;
                world.paused_at[who] = world.now;
            }
            Step::Die => {
                self.world().tell(|| format!("operator {who} is killed"));
                pending::<()>().await;
            }
        }
    }

    /// The way of a call to ECS, up to where it takes effect. Errors: it does not.
    pub async fn to_ecs(&self, who: usize, reads_service: bool) -> Result<(), Failure> {
        self.point(who).await;
        let (takes, failure) = self.ecs_weather(reads_service);
        self.sleep(takes).await;
        failure.map_or(Ok(()), Err)
    }

    fn ecs_weather(&self, reads_service: bool) -> (u64, Option<Failure>) {
        let mut world = self.world();
        let quick = world.delay_chance.between(5, 80);
        let fail = |kind, why: &str| Some(Failure::new(kind, why));
        if world.is_out(Outage::EcsDown) {
            return (PATIENCE, fail(FailureKind::Unreachable, "ECS does not answer"));
        }
        if world.is_out(Outage::EcsDenied) {
            return (quick, fail(FailureKind::Denied, "AccessDeniedException"));
        }
        if reads_service && world.is_out(Outage::EcsInvalid) {
            return (quick, fail(FailureKind::Invalid, "the service is deployed by CODE_DEPLOY"));
        }
        if world.is_out(Outage::EcsThrottled) || world.befalls(Fault::EcsThrottled, 50) {
            return (quick, fail(FailureKind::Throttled, "ThrottlingException"));
        }
        if world.befalls(Fault::EcsError, 50) {
            return (quick, fail(FailureKind::Unreachable, "ECS answers 500"));
        }
        if world.befalls(Fault::EcsSlow, 100) {
            return (world.span_of(Fault::EcsSlow, 500, PATIENCE - 500), None);
        }
        (quick, None)
    }
}
