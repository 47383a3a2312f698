//! From a manifest to what the loop runs on: the one place of the command line where fleets and workers are chosen.

use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use worker_drain_plan::{
    Memory, Report,
    observation::{Failure, FailureKind},
};

use super::{
    exit::{Exit, UserError},
    manifest::Manifest,
};
use crate::{
    api::values,
    clock::{Clock, SystemClock},
    fleet::ecs::{EcsFleet, Limiters},
    identity::FleetId,
    queues::sqs::SqsSettings,
    reconcile::Drain,
    record::{
        Record,
        file::{DrainId, FileRecord},
    },
    settings,
    workers::any::{AnyWorkers, WorkersSettingsError},
};

/// How ECS is reached and where memory is stored, as far as a manifest does not say.
#[derive(Clone, Debug, Args)]
pub struct ConnectArgs {
    /// Where the memory of a drain is stored: a file, or a folder with `/` at its end [default: a separate file under
    /// `$XDG_STATE_HOME/worker-drain/` or `~/.local/state/worker-drain/`]
    #[arg(long, value_name = "PATH")]
    state: Option<PathBuf>,

    /// A profile of the shared AWS configuration [default: `AWS_PROFILE`]
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,

    /// How far apart two counts of an SQS queue must be. For tests: AWS says that its counts need a minute
    #[arg(long, value_name = "TIME", default_value = "60s", hide = true)]
    sqs_settles_in: values::Duration,
}

/// A drain that runs on real things.
pub type Connected<R> = Drain<EcsFleet, AnyWorkers, R, SystemClock>;

/// Why a drain could not be set up.
pub type Refusal = (Exit, UserError);

impl ConnectArgs {
    /// Errors: one file cannot hold the memory of several drains.
    pub fn check(&self, drains: usize) -> Result<(), UserError> {
        match &self.state {
            Some(path) if drains > 1 && !is_folder(path) => Err(UserError::new(format!(
                "--state {} is one file, and there are {drains} WorkerDrains: give a folder, with / at its end",
                path.display()
            ))),
            _ => Ok(()),
        }
    }

    /// Sets a drain up to be run. Nothing outside is asked or changed yet.
    pub async fn connect(&self, manifest: &Manifest, limiters: &Limiters) -> Result<Connected<FileRecord>, Refusal> {
        let (fleet, workers) = self.adapters(manifest, limiters).await?;
        let id = id(manifest, &fleet);
        let record = FileRecord::open(self.path(&id)?, id).map_err(|failure| cannot(manifest, &failure))?;
        let fleet = fleet.belonging_to(record.fleet().clone());
        Ok(Drain { policy: manifest.drain.policy.clone(), fleet, workers, record, clock: SystemClock })
    }

    /// Sets a drain up to be observed, with what another run remembers, if any.
    pub async fn peek(&self, manifest: &Manifest, limiters: &Limiters) -> Result<Connected<Peeked>, Refusal> {
        let (fleet, workers) = self.adapters(manifest, limiters).await?;
        let id = id(manifest, &fleet);
        let peeked = FileRecord::peek(&self.path(&id)?, &id).map_err(|failure| cannot(manifest, &failure))?;
        let fleet = fleet.belonging_to(FleetId::known(peeked.fleet));
        let record = Peeked(peeked.memory);
        Ok(Drain { policy: manifest.drain.policy.clone(), fleet, workers, record, clock: SystemClock })
    }

    async fn adapters(&self, manifest: &Manifest, limiters: &Limiters) -> Result<(EcsFleet, AnyWorkers), Refusal> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let fleet = settings::ecs(&manifest.drain.ecs, self.profile.clone());
        let queues = SqsSettings { settles_in: self.sqs_settles_in.get(), ..SqsSettings::new(fleet.access()) };
        let workers = settings::workers(&manifest.drain.workers, &manifest.secrets, queues);
        let workers = AnyWorkers::open(&workers, Arc::clone(&clock)).map_err(|error| unfit(manifest, &error))?;
        let fleet = EcsFleet::connect(fleet, limiters, clock).await.map_err(|failure| cannot(manifest, &failure))?;
        Ok((fleet, workers))
    }

    fn path(&self, id: &DrainId) -> Result<PathBuf, Refusal> {
        let folder = match &self.state {
            Some(path) if !is_folder(path) => return Ok(path.clone()),
            Some(folder) => Some(folder),
            None => None,
        };
        let var = |name| env::var_os(name).map(PathBuf::from);
        let default = id.default_path(var("XDG_STATE_HOME").as_deref(), var("HOME").as_deref());
        match (folder, default.or_else(|| id.default_path(Some(Path::new("/")), None))) {
            (Some(folder), Some(path)) => Ok(folder.join(path.file_name().unwrap_or_default())),
            (None, Some(path)) if var("XDG_STATE_HOME").or_else(|| var("HOME")).is_some() => Ok(path),
            _ => Err((Exit::BadInput, UserError::new("neither XDG_STATE_HOME nor HOME is set: give --state PATH"))),
        }
    }
}

fn is_folder(path: &Path) -> bool {
    path.as_os_str().to_string_lossy().ends_with('/') || path.is_dir()
}

fn id(manifest: &Manifest, fleet: &EcsFleet) -> DrainId {
    let drain = &manifest.drain;
    DrainId {
        namespace: drain.namespace.clone().unwrap_or_else(|| "default".into()),
        name: drain.name.clone(),
        cluster: drain.ecs.cluster.clone(),
        service: drain.ecs.service.clone(),
        region: fleet.region().to_owned(),
    }
}

fn unfit(manifest: &Manifest, error: &WorkersSettingsError) -> Refusal {
    let drain = &manifest.drain;
    let message = format!("WorkerDrain {}: {}: {error}", drain.full_name(), drain.workers.field());
    (Exit::BadInput, UserError::new(message))
}

fn cannot(manifest: &Manifest, failure: &Failure) -> Refusal {
    (Exit::CouldNotRun, UserError::new(format!("{}: {}", manifest.drain.full_name(), failure.message)))
}

/// The memory of another run, which is read and never changed.
#[derive(Clone, Debug)]
pub struct Peeked(Memory);

impl Record for Peeked {
    async fn load(&self) -> Result<Memory, Failure> {
        Ok(self.0.clone())
    }

    async fn save(&self, _: &Memory, _: &Report) -> Result<(), Failure> {
        Err(Failure::new(FailureKind::Invalid, "this memory is read-only"))
    }
}
