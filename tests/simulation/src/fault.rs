//! Every kind of fault, by name. A seed switches each of them on or off ("swarm testing"): what is never seen together
//! with everything else is then seen with little else.

use std::fmt;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// A kind of fault, or of change from outside.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault { $($(#[$doc])* $name),* }

        impl Fault {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),* }
            }
        }
    };
}

faults! {
    /// A new revision is deployed in the middle of a rollout.
    SecondDeployment,
    /// The same definition is deployed again.
    ForcedDeployment,
    /// A revision is deployed whose containers cannot start.
    UnstartableDeployment,
    /// A revision is deployed whose workers crash again and again.
    CrashingDeployment,
    /// Somebody deploys the definition before the last one.
    ManualRollback,
    /// The desired count is raised.
    ScaleOut,
    /// The desired count is lowered.
    ScaleIn,
    /// The desired count is set to zero.
    ScaleToZero,
    /// The service is deleted.
    ServiceDeleted,
    /// ECS answers reads with what was true some seconds ago.
    StaleReads,
    /// ECS throttles calls.
    EcsThrottled,
    /// Other drains of the same process have many calls to make.
    Crowded,
    /// ECS answers 500 and does nothing.
    EcsError,
    /// ECS does what it is asked, and the reply is lost.
    EcsReplyLost,
    /// A call to ECS takes effect seconds after its caller gave up.
    EcsLate,
    /// ECS takes seconds to answer.
    EcsSlow,
    /// ECS cannot be reached for minutes.
    EcsDown,
    /// Our permissions for ECS are taken away for minutes.
    EcsDenied,
    /// The service is, for minutes, deployed by another controller than ECS.
    EcsInvalid,
    /// Some tasks are left out of an answer about protection, or listed as failures.
    EcsPartial,
    /// ECS refuses protection for minutes.
    HoldRefused,
    /// Protection is taken away by somebody else.
    HoldLost,
    /// The longest protection that ECS grants is minutes, and so are standing holds.
    ShortHolds,
    /// Requests to workers are lost.
    RequestLost,
    /// Requests to workers arrive seconds late.
    RequestLate,
    /// Requests to workers arrive twice, the second time seconds later.
    RequestDoubled,
    /// Replies of workers are lost, one question at a time.
    ReplyLost,
    /// Workers take seconds to answer, so that most of it comes too late.
    ReplySlow,
    /// Replies come twice.
    ReplyDoubled,
    /// Replies overtake one another.
    ReplyReordered,
    /// Workers answer with errors or something of another shape, or what comes is no reply at all.
    ReplyMalformed,
    /// Replies to somebody else's questions come to us.
    ReplyForeign,
    /// The connection to the broker is lost while something is sent, or between request and reply.
    ConnectionLost,
    /// The broker cannot be reached for minutes; workers reconnect afterwards.
    BrokerDown,
    /// The broker does not let us in for minutes.
    BrokerDenied,
    /// What workers are asked through cannot be used for minutes.
    BrokerInvalid,
    /// A worker is frozen for a while.
    WorkerFrozen,
    /// A worker restarts inside its task: it takes jobs from all its queues again.
    WorkerRestarted,
    /// A worker reconnects; some forget then what was added to them.
    WorkerReconnects,
    /// A worker restarts under another name.
    WorkerRenamed,
    /// Workers take long to come up.
    SlowBoot,
    /// It cannot be told for a while which node is a task's own.
    Ambiguous,
    /// A task's worker exits: ECS replaces it from its own revision.
    TaskExits,
    /// ECS finds a task unhealthy and stops it, protected or not.
    TaskUnhealthy,
    /// Somebody stops a task.
    TaskStopped,
    /// The machine under a task is taken away.
    SpotInterruption,
    /// The operator is killed at any await, and restarted seconds later.
    OperatorKilled,
    /// The operator stays away for minutes.
    OperatorGone,
    /// The operator's process is paused at any await, and goes on seconds later.
    OperatorPaused,
    /// A second operator is at work at the same time.
    TwoOperators,
    /// The operator is paused and its lease passes to a second one; then it goes on beside that.
    LeaseLost,
    /// The operator's clock jumps.
    ClockJumps,
    /// The operators' clocks are wrong by seconds.
    ClockSkew,
    /// Looks are taken at odd times, because something calls for one.
    Signals,
    /// The memory cannot be written, or is written and the reply is lost.
    RecordRefused,
    /// The memory cannot be read.
    RecordUnreadable,
    /// The memory is read as it was before the last write.
    RecordStale,
    /// The policy is edited.
    PolicyEdited,
    /// The drain is paused for a while.
    Paused,
    /// The drain is put into mode Plan for a while.
    PlanMode,
    /// The drain is withdrawn, and made again later.
    Withdrawn,
    /// The user set a deadline with `PermitStop`.
    PermitStopDeadline,
    /// Everything can be read, and holds can be neither set nor released for minutes: that is not allowed, or throttled.
    HoldsFail,
    /// The service counts a task more than it lists, for minutes.
    Miscounted,
    /// ECS moves tasks to zones that have none.
    Rebalancing,
    /// Somebody else tells a worker to take jobs again from queues that it was told not to take them from.
    ForeignConsumer,
    /// Somebody sets or lowers the rate limit of the jobs while their workers run.
    RateLowered,
    /// A container instance is set to DRAINING.
    InstanceDrains,
}

/// A set of kinds of faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultSet(u128);

impl FaultSet {
    /// None.
    pub const NONE: Self = Self(0);

    /// Whether this one is in it.
    pub fn has(self, fault: Fault) -> bool {
        self.0 >> (fault as u32) & 1 == 1
    }

    /// With this one.
    #[must_use]
    pub fn with(self, fault: Fault) -> Self {
        Self(self.0 | 1 << (fault as u32))
    }

    /// Without these.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Its members.
    pub fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::ALL.iter().copied().filter(move |fault| self.has(*fault))
    }
}

impl fmt::Display for FaultSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Fault::name).collect();
        f.write_str(&names.join(","))
    }
}

impl std::str::FromStr for FaultSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').filter(|name| !name.is_empty()).try_fold(Self::NONE, |set, name| {
            let known = Fault::ALL.iter().find(|fault| fault.name() == name);
            known.map(|fault| set.with(*fault)).ok_or_else(|| format!("no fault is called {name}"))
        })
    }
}
