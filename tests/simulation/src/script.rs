//! What happens to a world from outside, and when: drawn from the seed before anything runs, so that single beats can be
//! cut away when a failing seed is made smaller.

use crate::{
    chance::Chance,
    fault::{Fault, FaultSet},
    setup::{MINUTE, SECOND},
};

/// Something that happens at a time.
#[derive(Clone, Copy, Debug)]
pub struct Beat {
    /// When, in milliseconds from the beginning.
    pub at: u64,
    /// Its place in the whole script of the seed.
    pub index: usize,
    /// The fault that it is; none for what every history has.
    pub fault: Option<Fault>,
    /// What happens.
    pub what: Happening,
    /// It does not happen after all.
    pub cut: bool,
}

/// Something that happens. `pick` chooses among what is there then; spans are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A new definition is deployed.
    Deploy,
    /// The present definition is deployed again.
    ForceDeploy,
    /// A definition is deployed that cannot start.
    DeployUnstartable,
    /// A definition is deployed whose workers crash.
    DeployCrashing,
    /// The definition before this one is deployed again.
    DeployPrevious,
    /// The desired count changes by this.
    Scale(i32),
    /// The desired count becomes zero.
    ScaleToZero,
    /// The service is deleted by force.
    DeleteService,
    /// Something outside is in this state for so long.
    Outage(Outage, u64),
    /// There is one more zone, and the service is balanced across all of them.
    Rebalance,
    /// A container instance is set to DRAINING, and perhaps back to ACTIVE after so long.
    DrainInstance(u64, Option<u64>),
    /// A task's hold is taken away by somebody else.
    LoseHold(u64),
    /// A worker is frozen for so long.
    Freeze(u64, u64),
    /// A worker restarts.
    Restart(u64),
    /// A worker reconnects.
    Reconnect(u64),
    /// A worker restarts under another name, for so long.
    Rename(u64, u64),
    /// A task's nodes cannot be told for so long.
    Ambiguous(u64, u64),
    /// The rate limit is set to one job in so many milliseconds, if that is less.
    Limit(u64),
    /// Somebody else adds its queues to a worker.
    AddQueues(u64),
    /// A task's container exits.
    Exit(u64),
    /// A task is found unhealthy.
    Unhealthy(u64),
    /// A task is stopped by somebody.
    StopTask(u64),
    /// A task's machine is taken away after so long.
    Spot(u64, u64),
    /// An operator is killed at its so-manieth await from now, and comes back after so long.
    Kill(u32, u64),
    /// An operator is paused at its so-manieth await from now, for so long.
    Pause(u32, u64),
    /// A second operator is at work for so long.
    SecondOperator(u64),
    /// The first operator is paused at its so-manieth await from now, for so long, and a second one takes over.
    LoseLease(u32, u64),
    /// An operator's clock jumps by so much.
    ClockJump(i64),
    /// The policy is edited.
    EditPolicy(u64),
    /// The drain is paused for so long.
    PausePolicy(u64),
    /// The drain is in mode Plan for so long.
    PlanMode(u64),
    /// The drain is withdrawn, and made again after so long.
    Withdraw(u64),
}

/// What may be out of order for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outage {
    /// ECS cannot be reached.
    EcsDown,
    /// ECS does not let us in.
    EcsDenied,
    /// ECS does not deploy this service itself.
    EcsInvalid,
    /// ECS throttles every call.
    EcsThrottled,
    /// ECS refuses protection.
    HoldsRefused,
    /// Protection may be read and not changed.
    HoldsDenied,
    /// ECS throttles changes of protection.
    HoldsThrottled,
    /// ECS leaves tasks out of its answers about protection.
    EcsPartial,
    /// The service counts a task more than it lists.
    Miscounted,
    /// The broker cannot be reached by anybody.
    BrokerDown,
    /// The broker does not let us in.
    BrokerDenied,
    /// The broker cannot be used as the specification says.
    BrokerInvalid,
    /// The memory cannot be written.
    RecordDown,
    /// The memory cannot be read.
    RecordUnreadable,
}

impl Outage {
    /// How many there are.
    pub const COUNT: usize = 14;
}

/// The whole script of a seed.
pub fn write(seed: u64, faults: FaultSet, desired: u32, safety: u64) -> Vec<Beat> {
    let mut beats = Vec::new();
    let mut add = |fault: Option<Fault>, at: u64, what: Happening| {
        beats.push(Beat { at, index: 0, fault, what, cut: false });
    };
    // Every history has a rollout or two; all else is a fault.
    let mut chance = Chance::new(seed, "deployments");
    let deployments: Vec<u64> =
        (0..chance.pick(&[1, 1, 1, 2])).map(|_| chance.between(20 * SECOND, safety * 2 / 3)).collect();
    for at in &deployments {
        add(None, *at, Happening::Deploy);
    }
    for &fault in Fault::ALL {
        // Drawn whether it is on or not and each from its own stream: switching one off leaves the others as they are.
        if !faults.has(fault) {
            continue;
        }
        let mut chance = Chance::new(seed, fault.name());
        for _ in 0..often(fault, &mut chance) {
            let at = match fault {
                // In the middle of a drain, where there is something to give back.
                Fault::ManualRollback if chance.percent(75) => {
                    chance.pick(&deployments) + chance.between(10 * SECOND, 2 * MINUTE)
                }
                _ => chance.between(10 * SECOND, safety),
            };
            if let Some(what) = happening(fault, &mut chance, desired) {
                add(Some(fault), at, what);
            }
        }
    }
    beats.sort_by_key(|beat| beat.at);
    // Numbered by fault and order within it would be stabler; by time is what a person reads.
    for (index, beat) in beats.iter_mut().enumerate() {
        beat.index = index;
    }
    beats
}

/// How a fault shows at one time; `None` for those that are drawn call by call, or are part of the setup.
fn happening(fault: Fault, chance: &mut Chance, desired: u32) -> Option<Happening> {
    let pick = chance.below(1 << 20);
    if let Some(outage) = outage(fault, pick) {
        return Some(Happening::Outage(outage, chance.between(5 * SECOND, 3 * MINUTE)));
    }
    match fault {
        Fault::SecondDeployment => Some(Happening::Deploy),
        Fault::ForcedDeployment => Some(Happening::ForceDeploy),
        Fault::UnstartableDeployment => Some(Happening::DeployUnstartable),
        Fault::CrashingDeployment => Some(Happening::DeployCrashing),
        Fault::ManualRollback => Some(Happening::DeployPrevious),
        Fault::ScaleOut => Some(Happening::Scale(1 + i32::from(pick.is_multiple_of(2)))),
        Fault::ScaleIn => Some(Happening::Scale(-1 - i32::from(pick.is_multiple_of(2) && desired > 2))),
        Fault::ScaleToZero => Some(Happening::ScaleToZero),
        Fault::ServiceDeleted => chance.percent(30).then_some(Happening::DeleteService),
        Fault::Rebalancing => Some(Happening::Rebalance),
        Fault::InstanceDrains => {
            let back_after = chance.percent(40).then(|| chance.between(20 * SECOND, 4 * MINUTE));
            Some(Happening::DrainInstance(pick, back_after))
        }
        Fault::HoldLost => Some(Happening::LoseHold(pick)),
        Fault::WorkerFrozen => Some(Happening::Freeze(pick, chance.between(2 * SECOND, 2 * MINUTE))),
        Fault::WorkerRestarted => Some(Happening::Restart(pick)),
        Fault::RateLowered => Some(Happening::Limit(chance.pick(&[1, 5, 20, 40]) * SECOND)),
        Fault::ForeignConsumer => Some(Happening::AddQueues(pick)),
        Fault::WorkerReconnects => Some(Happening::Reconnect(pick)),
        Fault::WorkerRenamed => Some(Happening::Rename(pick, chance.between(20 * SECOND, 2 * MINUTE))),
        Fault::Ambiguous => Some(Happening::Ambiguous(pick, chance.between(10 * SECOND, 2 * MINUTE))),
        Fault::TaskExits => Some(Happening::Exit(pick)),
        Fault::TaskUnhealthy => Some(Happening::Unhealthy(pick)),
        Fault::TaskStopped => Some(Happening::StopTask(pick)),
        Fault::SpotInterruption => Some(Happening::Spot(pick, chance.between(0, 2 * MINUTE))),
        Fault::OperatorKilled => Some(Happening::Kill(awaits(chance), chance.between(10, 20 * SECOND))),
        Fault::OperatorGone => Some(Happening::Kill(awaits(chance), chance.between(MINUTE, 6 * MINUTE))),
        Fault::OperatorPaused => Some(Happening::Pause(awaits(chance), chance.between(100, 90 * SECOND))),
        Fault::TwoOperators => Some(Happening::SecondOperator(chance.between(20 * SECOND, 5 * MINUTE))),
        Fault::LeaseLost => Some(Happening::LoseLease(awaits(chance), chance.between(15 * SECOND, 90 * SECOND))),
        Fault::ClockJumps => {
            let by = i64::try_from(chance.between(500, 3 * MINUTE)).unwrap_or(0);
            Some(Happening::ClockJump(if pick.is_multiple_of(2) { by } else { -by }))
        }
        Fault::PolicyEdited => Some(Happening::EditPolicy(pick)),
        Fault::Paused => Some(Happening::PausePolicy(chance.between(10 * SECOND, 3 * MINUTE))),
        Fault::PlanMode => Some(Happening::PlanMode(chance.between(10 * SECOND, 3 * MINUTE))),
        Fault::Withdrawn => Some(Happening::Withdraw(chance.between(10 * SECOND, 2 * MINUTE))),
        _ => None,
    }
}

/// What is out of order by this fault, if that is how it shows.
fn outage(fault: Fault, pick: u64) -> Option<Outage> {
    Some(match fault {
        Fault::EcsDown => Outage::EcsDown,
        Fault::EcsDenied => Outage::EcsDenied,
        Fault::EcsInvalid => Outage::EcsInvalid,
        Fault::EcsThrottled => Outage::EcsThrottled,
        Fault::HoldRefused => Outage::HoldsRefused,
        Fault::HoldsFail if pick.is_multiple_of(2) => Outage::HoldsDenied,
        Fault::HoldsFail => Outage::HoldsThrottled,
        Fault::EcsPartial => Outage::EcsPartial,
        Fault::Miscounted => Outage::Miscounted,
        Fault::BrokerDown => Outage::BrokerDown,
        Fault::BrokerDenied => Outage::BrokerDenied,
        Fault::BrokerInvalid => Outage::BrokerInvalid,
        Fault::RecordRefused => Outage::RecordDown,
        Fault::RecordUnreadable => Outage::RecordUnreadable,
        _ => return None,
    })
}

/// How often in one history. What strikes at one await of many must strike often to meet the ones that matter.
fn often(fault: Fault, chance: &mut Chance) -> u64 {
    match fault {
        Fault::OperatorKilled | Fault::OperatorPaused => chance.between(2, 8),
        _ => chance.between(1, 3),
    }
}

fn awaits(chance: &mut Chance) -> u32 {
    u32::try_from(chance.between(1, 25)).unwrap_or(1)
}
