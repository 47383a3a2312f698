//! `worker-drain run`: the loop, without Kubernetes.

use std::{collections::BTreeSet, pin::pin, time::Duration};

use clap::Args;
use jiff::{Timestamp, Unit};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::{self, Receiver},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use worker_drain_plan::{
    QueueName, counted,
    policy::{Gate, HoldMode, Mode},
};

use super::{
    connect::{ConnectArgs, Connected},
    drive::{Reporter, Update, drive},
    exit::{Exit, UserError, print_errors},
    manifest::{Manifest, ManifestArgs},
    progress::{End, Goal, Patience},
    target::Target,
    view::{Output, View, Watched},
};
use crate::{
    api::{policy::DrainSpec, values},
    clock::{Clock, SystemClock},
    fleet::ecs::Limiters,
    record::file::FileRecord,
};

/// How long a reconciliation that is under way may take when the run must end. It may be cut off anywhere without harm; finishing
/// only saves the next run a little work.
const LAST_RECONCILIATION: Duration = Duration::from_secs(5);

/// How long closing the connection to a broker may take.
const LEAVE: Duration = Duration::from_secs(2);

/// Drain until no task of an old revision is left
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub struct RunArgs {
    #[command(flatten)]
    manifest: ManifestArgs,

    #[command(flatten)]
    connect: ConnectArgs,

    /// How changes are shown
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,

    /// Only wait until the queues of `drain.gate`, or these (separated by commas), are empty; every task is held
    /// meanwhile, and stays held at the end
    #[arg(long, value_name = "QUEUES", num_args = 0..=1, require_equals = true, value_delimiter = ',')]
    #[arg(group = "goal", conflicts_with_all = ["watch", "wait_for_rollout", "grace"])]
    until_queues_empty: Option<Vec<String>>,

    /// The step before a deployment: only wait until every running task is held; they stay held at the end
    #[arg(long, group = "goal", conflicts_with_all = ["watch", "wait_for_rollout", "grace"])]
    until_held: bool,

    /// Drain until this deployment (`ecs-svc/…`) is in place and no task of another one is left; end with exit code 6 if another one
    /// takes its place
    #[arg(long, value_name = "ID", group = "goal", conflicts_with_all = ["watch", "wait_for_rollout"])]
    deployment: Option<String>,

    /// The same for the deployment of this task definition
    #[arg(long, value_name = "FAMILY:REVISION", group = "goal", conflicts_with_all = ["watch", "wait_for_rollout"])]
    task_definition: Option<String>,

    /// Do not wait for what is drained for another reason than a rollout, such as a scale-in
    #[arg(long, group = "goal", conflicts_with = "watch")]
    rollout_only: bool,

    /// Stay after the rollout has drained, and drain the next one
    #[arg(long)]
    watch: bool,

    /// Wait for a rollout to begin, for as long as it takes
    #[arg(long)]
    wait_for_rollout: bool,

    /// How long to wait for a rollout if none is in progress at the start; with --deployment or --task-definition, how long ECS may
    /// show another one as current before that is taken for a rollback
    #[arg(long, value_name = "TIME", default_value = "15s", conflicts_with = "wait_for_rollout")]
    grace: values::Duration,

    /// End after this time with exit code 3; everything is still held
    #[arg(long, value_name = "TIME")]
    timeout: Option<values::Duration>,

    /// Where there is no terminal: after so long without a change, tell where things stand; 0s: never
    #[arg(long, value_name = "TIME", default_value = "5m")]
    progress: values::Duration,

    /// How long ECS and the broker may be unreachable at the start
    #[arg(long, value_name = "TIME", default_value = "30s")]
    connect_timeout: values::Duration,
}

/// Why a run ends before its drains do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    TimeLimit,
    Signal,
}

impl RunArgs {
    /// Runs it.
    pub async fn run(&self, logs: bool) -> Exit {
        let manifests = self.manifest.read().and_then(|manifests| self.aimed(manifests));
        let (manifests, goal) = match manifests.and_then(|manifests| Ok((self.goal(&manifests)?, manifests))) {
            Ok((goal, manifests)) => (manifests, goal),
            Err(errors) => return ended(Exit::BadInput, &errors),
        };
        if let Err(error) = self.connect.check(manifests.len()) {
            return ended(Exit::BadInput, &[error]);
        }
        let drains = match self.connect_all(&manifests).await {
            Ok(drains) => drains,
            Err((exit, errors)) => return ended(exit, &errors),
        };
        let signals = signal(SignalKind::interrupt()).and_then(|int| Ok((int, signal(SignalKind::terminate())?)));
        let Ok((int, term)) = signals else {
            return ended(Exit::CouldNotRun, &[UserError::new("this system does not deliver signals to the process")]);
        };
        let names = manifests.iter().map(|manifest| manifest.drain.full_name()).collect();
        Run::start(
            drains,
            names,
            &self.patience(goal),
            View::new(self.output, logs, self.progress.get(), SystemClock.now()),
            Signals { int, term },
        )
        .until_the_end(self.timeout.map(length))
        .await
    }

    /// What the run is for. Errors: it is no one deployment.
    fn goal(&self, manifests: &[Manifest]) -> Result<Goal, Vec<UserError>> {
        let target = match (&self.deployment, &self.task_definition) {
            (Some(id), _) => Target::deployment(id),
            (_, Some(name)) => Target::task_definition(name),
            _ if self.until_held => return Ok(Goal::Held),
            _ if self.until_queues_empty.is_some() => return Ok(Goal::Gate),
            _ => return Ok(Goal::Drained { rollout_only: self.rollout_only }),
        };
        match target {
            Ok(_) if manifests.len() > 1 => Err(vec![UserError::with_hint(
                format!(
                    "--deployment and --task-definition are for one WorkerDrain, and these are {}",
                    manifests.len()
                ),
                "run one command for each service",
            )]),
            Ok(target) => Ok(Goal::Deployment(target)),
            Err(error) => Err(vec![error]),
        }
    }

    /// The manifests, and what is wanted of them: all that they say, or only that tasks are held.
    fn aimed(&self, mut manifests: Vec<Manifest>) -> Result<Vec<Manifest>, Vec<UserError>> {
        let aim = |manifest: &mut Manifest| match &self.until_queues_empty {
            Some(queues) => await_gate(&mut manifest.drain, queues).err(),
            None if self.until_held => hold_only(&mut manifest.drain).err(),
            None => None,
        };
        let errors: Vec<UserError> = manifests.iter_mut().filter_map(aim).collect();
        if errors.is_empty() { Ok(manifests) } else { Err(errors) }
    }

    async fn connect_all(&self, manifests: &[Manifest]) -> Result<Vec<Connected<FileRecord>>, (Exit, Vec<UserError>)> {
        let limiters = Limiters::default();
        let mut drains = Vec::new();
        let mut refusals = Vec::new();
        for manifest in manifests {
            match self.connect.connect(manifest, &limiters).await {
                Ok(drain) => drains.push(drain),
                Err(refusal) => refusals.push(refusal),
            }
        }
        match refusals.iter().map(|(exit, _)| *exit).max() {
            None => Ok(drains),
            Some(exit) => Err((exit, refusals.into_iter().map(|(_, error)| error).collect())),
        }
    }

    fn patience(&self, goal: Goal) -> Patience {
        Patience {
            connect: length(self.connect_timeout),
            grace: (!self.wait_for_rollout).then(|| length(self.grace)),
            watch: self.watch,
            goal,
        }
    }
}

/// Has a drain wait for its gate, or for one on these queues, and do nothing but hold every task.
fn await_gate(drain: &mut DrainSpec, queues: &[String]) -> Result<(), UserError> {
    let name = drain.full_name();
    let policy = &mut drain.policy;
    let given: BTreeSet<QueueName> =
        queues.iter().filter(|name| !name.is_empty()).map(|name| name.as_str().into()).collect();
    let named = policy.drain.gate.take().map(|gate| gate.queues_empty);
    let Some(queues_empty) = Some(given).filter(|given| !given.is_empty()).or(named) else {
        return Err(UserError::with_hint(
            format!("WorkerDrain {name}: --until-queues-empty, and no queue is named"),
            "name them in spec.drain.gate.queuesEmpty, or write --until-queues-empty=NAME,NAME",
        ));
    };
    if policy.mode == Mode::Plan {
        let why = format!("WorkerDrain {name}: --until-queues-empty holds tasks, and spec.mode Plan does not");
        return Err(UserError::with_hint(why, "set spec.mode to Enforce"));
    }
    policy.drain.gate = Some(Gate { queues_empty, awaited: true });
    // They are held before there is a rollout.
    policy.hold.mode = HoldMode::Standing;
    Ok(())
}

/// Has a drain hold every task, and do nothing else.
fn hold_only(drain: &mut DrainSpec) -> Result<(), UserError> {
    if drain.policy.mode == Mode::Plan {
        let name = drain.full_name();
        let why = format!("WorkerDrain {name}: --until-held holds tasks, and spec.mode Plan does not");
        return Err(UserError::with_hint(why, "set spec.mode to Enforce"));
    }
    drain.policy.paused = true;
    drain.policy.hold.mode = HoldMode::Standing;
    Ok(())
}

fn length(duration: values::Duration) -> Duration {
    // None is negative: they are read without a sign.
    Duration::try_from(duration.get()).unwrap_or_default()
}

fn ended(exit: Exit, errors: &[UserError]) -> Exit {
    print_errors(errors);
    exit
}

/// Ctrl-C and SIGTERM mean the same.
struct Signals {
    int: Signal,
    term: Signal,
}

impl Signals {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.int.recv() => {}
            _ = self.term.recv() => {}
        }
    }
}

/// All drains of one manifest, under way.
struct Run {
    drains: Vec<Watched>,
    view: View,
    updates: Receiver<(usize, Update)>,
    driven: JoinSet<(usize, Option<End>)>,
    ends: Vec<Option<End>>,
    stop: CancellationToken,
    signals: Signals,
}

impl Run {
    fn start(
        drains: Vec<Connected<FileRecord>>,
        names: Vec<String>,
        patience: &Patience,
        view: View,
        signals: Signals,
    ) -> Self {
        let began = SystemClock.now();
        let stop = CancellationToken::new();
        let (to, updates) = mpsc::channel(64);
        let mut driven = JoinSet::new();
        let ends = vec![None; drains.len()];
        for (index, drain) in drains.into_iter().enumerate() {
            let (reporter, stop, patience) = (Reporter { index, to: to.clone() }, stop.clone(), patience.clone());
            driven.spawn(async move {
                let end = Box::pin(drive(&drain, patience, &reporter, &stop)).await;
                let _ = timeout(LEAVE, drain.workers.close()).await;
                (index, end)
            });
        }
        let watched = |name| Watched { goal: patience.goal.clone(), ..Watched::new(name, began) };
        let drains = names.into_iter().map(watched).collect();
        Self { drains, view, updates, driven, ends, stop, signals }
    }

    async fn until_the_end(mut self, time_limit: Option<Duration>) -> Exit {
        let cut = self.watch(time_limit).await;
        if cut.is_some() {
            self.stop.cancel();
            self.last_reconciliations().await;
        }
        let now = SystemClock.now();
        let exits: Vec<Exit> = (0..self.drains.len()).map(|index| self.exit(index, cut)).collect();
        let errors: Vec<UserError> = self.errors();
        let closing_line = (cut == Some(Cut::Signal)).then(|| held(&self.drains));
        self.view.end(&self.drains, &exits, now);
        print_errors(&errors);
        if let Some(closing_line) = closing_line {
            eprintln!("{closing_line}");
        }
        exits.into_iter().max().unwrap_or(Exit::Done)
    }

    /// Shows updates until every drain has ended, or until that is cut short.
    async fn watch(&mut self, time_limit: Option<Duration>) -> Option<Cut> {
        let mut limit = pin!(async {
            match time_limit {
                Some(limit) => sleep(limit).await,
                None => std::future::pending().await,
            }
        });
        let mut tick = interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                () = self.signals.next() => return Some(Cut::Signal),
                Some((index, update)) = self.updates.recv() => self.show(index, update),
                ended = self.driven.join_next() => match ended {
                    Some(ended) => self.end(ended),
                    None => return None,
                },
                () = &mut limit => return Some(Cut::TimeLimit),
                _ = tick.tick() => self.view.tick(&self.drains, SystemClock.now()),
            }
        }
    }

    /// Lets reconciliations that are under way come to their end, within bounds. A second signal ends them at once.
    async fn last_reconciliations(&mut self) {
        let mut bound = pin!(sleep(LAST_RECONCILIATION));
        loop {
            tokio::select! {
                biased;
                () = self.signals.next() => break,
                Some((index, update)) = self.updates.recv() => self.show(index, update),
                ended = self.driven.join_next() => match ended {
                    Some(ended) => self.end(ended),
                    None => break,
                },
                () = &mut bound => break,
            }
        }
        self.driven.abort_all();
    }

    fn show(&mut self, index: usize, update: Update) {
        let changes = self.drains[index].take_in(update);
        self.view.changed(&self.drains, index, &changes, SystemClock.now());
    }

    fn end(&mut self, ended: Result<(usize, Option<End>), tokio::task::JoinError>) {
        // Its last updates may still be on their way here.
        while let Ok((index, update)) = self.updates.try_recv() {
            self.show(index, update);
        }
        if let Ok((index, end)) = ended {
            self.drains[index].ended = end.as_ref().map(|end| end.exit);
            self.ends[index] = end;
        }
    }

    fn exit(&self, index: usize, cut: Option<Cut>) -> Exit {
        let drain = &self.drains[index];
        match (&self.ends[index], cut) {
            (Some(end), _) => end.exit,
            (None, Some(Cut::Signal)) => Exit::Interrupted,
            (None, Some(Cut::TimeLimit)) if drain.is_settled() => drain.so_far(),
            (None, Some(Cut::TimeLimit)) => drain.so_far().max(Exit::TimeLimit),
            // It broke off without a word: a bug of ours. Holds stay as they are.
            (None, None) => Exit::CouldNotRun,
        }
    }

    fn errors(&self) -> Vec<UserError> {
        let ends = self.drains.iter().zip(&self.ends);
        ends.filter_map(|(drain, end)| {
            let UserError { message, hint } = end.as_ref()?.error.clone()?;
            Some(UserError { message: format!("{}: {message}", drain.name), hint })
        })
        .collect()
    }
}

/// What becomes of holds when nobody renews them.
fn held(drains: &[Watched]) -> String {
    let holds: Vec<&Timestamp> = drains.iter().flat_map(|drain| drain.held.values()).collect();
    match holds.iter().min() {
        None => String::from("interrupted: no task is held"),
        Some(first) => {
            let first = first.round(Unit::Second).unwrap_or(**first);
            format!(
                "interrupted: {} held, the first until {first}; run the same command again to continue",
                counted(u32::try_from(holds.len()).unwrap_or(u32::MAX), "task")
            )
        }
    }
}
