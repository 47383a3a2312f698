//! Status and memory in the resource itself, for the operator.
//!
//! Both are one document, the resource's status, written in one request: the report and what an undo needs never
//! contradict each other. Every write names the version of the resource that it was made from, so that of two writers
//! only one succeeds, and the other one reconciles again. A memory too large for a status lies in [`pages`](super::pages)
//! beside it, and the status names them (docs/decisions/0005).

use std::sync::Arc;

use kube::{
    Client,
    api::{Api, DynamicObject, Patch, PatchParams},
    core::ObjectMeta,
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{sync::Mutex, time::timeout};
use worker_drain_plan::{
    Memory, Report,
    observation::{Failure, FailureKind},
};

use super::{
    Record, Remembered,
    api_server::{CALL_BOUND, call, drains},
    deletion,
    pages::{Damaged, Packed, PageCache, Pages},
};
use crate::{
    api::{WorkerDrainStatus, render::render},
    clock::Clock,
    identity::FleetId,
};

/// Under this name the API server knows which fields are ours.
pub const FIELD_MANAGER: &str = "worker-drain";

/// A status is never larger, so that watching and listing drains of the largest services stays cheap.
const LARGEST_STATUS: usize = 60 * 1024;

/// A larger memory lies in pages.
const LARGEST_INLINE: usize = 16 * 1024;

/// A larger memory of a drain that is being deleted lies in pages: nothing can be made in a namespace that is deleted too.
/// A request to etcd may have 1.5 MiB, and the memory of the 5,000 tasks that ECS allows in a service takes well under this.
const LARGEST_INLINE_AT_THE_END: usize = 1024 * 1024;

/// How often a write is made again because the resource has changed in something that is not ours.
const ATTEMPTS: usize = 3;

/// The status of a resource. Errors: it is not one that this program can read.
pub fn status_of(resource: &DynamicObject) -> Result<WorkerDrainStatus, serde_json::Error> {
    match resource.data.get("status") {
        None | Some(Value::Null) => Ok(WorkerDrainStatus::default()),
        Some(status) => serde_json::from_value(status.clone()),
    }
}

/// Changes a status otherwise than by a report, whatever this program can read of it: all else is written back as it was
/// read, so that what is remembered stays to the letter. Writes nothing if nothing changes. Errors: it was not written, or
/// somebody else has changed the resource since it was read.
pub async fn amend(
    client: &Client,
    resource: &DynamicObject,
    change: impl FnOnce(&mut Value) + Send,
) -> Result<(), Failure> {
    let before = resource.data.get("status").filter(|status| status.is_object()).cloned().unwrap_or_else(|| json!({}));
    let mut status = before.clone();
    change(&mut status);
    if status == before {
        return Ok(());
    }
    let api = drains(client.clone(), resource.metadata.namespace.as_deref().unwrap_or_default());
    let version = resource.metadata.resource_version.as_deref().unwrap_or_default();
    match apply(&api, &resource.metadata, version, &status).await {
        Ok(_) => Ok(()),
        Err(Refused::Conflict) => Err(overtaken()),
        Err(Refused::Failed(failure)) => Err(failure),
    }
}

/// Writes a status whole, under our name, if the resource still has this version. Never in part: what we wrote before and
/// leave out, the API server takes out.
async fn apply(
    api: &Api<DynamicObject>,
    drain: &ObjectMeta,
    version: &str,
    status: &(impl Serialize + Sync),
) -> Result<DynamicObject, Refused> {
    let name = drain.name.as_deref().unwrap_or_default();
    let body = json!({
        "apiVersion": format!("{}/{}", crate::api::GROUP, crate::api::VERSION),
        "kind": "WorkerDrain",
        "metadata": {
            "name": name, "namespace": drain.namespace, "uid": drain.uid, "resourceVersion": version,
        },
        "status": status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let patch = Patch::Apply(&body);
    match timeout(CALL_BOUND, api.patch_status(name, &params, &patch)).await {
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(Refused::Conflict),
        Ok(result) => call("write the status", std::future::ready(result)).await.map_err(Refused::Failed),
        Err(_) => Err(Refused::Failed(Failure::new(
            FailureKind::Unreachable,
            "the Kubernetes API server did not answer when the status was written",
        ))),
    }
}

/// Why a status was not written, or may not have been.
enum Refused {
    /// It was not: the resource has changed.
    Conflict,
    /// Anything else.
    Failed(Failure),
}

/// The status and the memory of one drain, as its resource was read for one reconciliation.
#[derive(Debug)]
pub struct ResourceRecord<C> {
    api: Api<DynamicObject>,
    pages: Pages,
    drain: ObjectMeta,
    clock: C,
    fleet: FleetId,
    known: Mutex<Known>,
}

/// What the resource holds, as far as this record has read or written it.
#[derive(Debug)]
struct Known {
    version: String,
    status: WorkerDrainStatus,
    /// What `status` holds or names; `None`: not read yet.
    remembered: Option<Arc<Remembered>>,
}

impl<C: Clock> ResourceRecord<C> {
    /// The record in this resource. Errors: its status is not one that this program can read, and so neither is what it
    /// remembers.
    pub fn of(client: &Client, resource: &DynamicObject, cache: PageCache, clock: C) -> Result<Self, Failure> {
        let metadata = &resource.metadata;
        let status = status_of(resource).map_err(|error| {
            let why = "it may have been written by a newer worker-drain, which should then go on with it";
            Failure::new(FailureKind::Invalid, format!("the status cannot be read ({error}): {why}"))
        })?;
        let known = Known { version: metadata.resource_version.clone().unwrap_or_default(), status, remembered: None };
        Ok(Self {
            api: drains(client.clone(), metadata.namespace.as_deref().unwrap_or_default()),
            pages: Pages::of(client.clone(), metadata, cache),
            drain: metadata.clone(),
            clock,
            fleet: FleetId::default(),
            known: Mutex::new(known),
        })
    }

    /// The status as it was read or written last.
    pub async fn status(&self) -> WorkerDrainStatus {
        self.known.lock().await.status.clone()
    }

    /// Which fleet the drain belongs to, as it is remembered. If that is not known yet, what the fleet learns by this is
    /// saved with the next memory. Errors: as in [`Record::load`].
    pub async fn fleet(&self) -> Result<FleetId, Failure> {
        self.remembered(&mut *self.known.lock().await).await?;
        Ok(self.fleet.clone())
    }

    async fn remembered(&self, known: &mut Known) -> Result<Arc<Remembered>, Failure> {
        if let Some(remembered) = &known.remembered {
            return Ok(Arc::clone(remembered));
        }
        let text = known.status.memory.as_deref();
        let packed: Option<Packed> = text.map(str::parse).transpose().map_err(|damaged| unreadable(&damaged))?;
        let remembered = match &packed {
            None => Arc::default(),
            Some(packed) => self.pages.unpack(packed).await?,
        };
        self.pages.sweep(packed.as_ref(), &known.version).await;
        if let Some(fleet) = &remembered.fleet {
            self.fleet.learn(fleet);
        }
        known.remembered = Some(Arc::clone(&remembered));
        Ok(remembered)
    }

    /// Writes the status, unless somebody else has written one since it was read. Whatever else changed meanwhile (the
    /// spec, a label) is no reason to forget what was just done.
    async fn write(&self, known: &mut Known, status: WorkerDrainStatus) -> Result<(), Unwritten> {
        for _ in 0..ATTEMPTS {
            match apply(&self.api, &self.drain, &known.version, &status).await {
                Ok(written) => {
                    known.version = written.metadata.resource_version.unwrap_or_default();
                    known.status = status;
                    return Ok(());
                }
                Err(Refused::Conflict) => known.version = self.unchanged_version(known, &status).await?,
                Err(Refused::Failed(failure)) => return Err(Unwritten::by(failure)),
            }
        }
        // The last read has found the status that was there before.
        Err(Unwritten::For(overtaken()))
    }

    /// The resource's version now, if its status is still the one that is known, and not what was to be written.
    async fn unchanged_version(&self, known: &Known, wanted: &WorkerDrainStatus) -> Result<String, Unwritten> {
        let name = self.drain.name.as_deref().unwrap_or_default();
        let now = call("read the WorkerDrain", self.api.get(name)).await.map_err(Unwritten::Perhaps)?;
        let is_ours = now.metadata.uid == self.drain.uid;
        match status_of(&now) {
            Ok(status) if is_ours && same(&status, &known.status) => {
                Ok(now.metadata.resource_version.unwrap_or_default())
            }
            Ok(status) if status.memory != wanted.memory => Err(Unwritten::For(overtaken())),
            // A proxy may have sent it twice, and the second time was refused for the first.
            _ => Err(Unwritten::Perhaps(overtaken())),
        }
    }
}

/// Why a status is not known to be written.
enum Unwritten {
    /// It is not, for certain.
    For(Failure),
    /// The answer was lost, and may have been a yes.
    Perhaps(Failure),
}

impl Unwritten {
    /// A failure of the write itself.
    fn by(failure: Failure) -> Self {
        if failure.kind == FailureKind::Unreachable { Self::Perhaps(failure) } else { Self::For(failure) }
    }

    fn failure(self) -> Failure {
        match self {
            Self::For(failure) | Self::Perhaps(failure) => failure,
        }
    }
}

impl<C: Clock> Record for ResourceRecord<C> {
    async fn load(&self) -> Result<Memory, Failure> {
        let mut known = self.known.lock().await;
        Ok(self.remembered(&mut known).await?.memory.clone())
    }

    fn tell(&self, report: &mut Report) {
        deletion::tell(&self.drain, report);
    }

    async fn save(&self, memory: &Memory, report: &Report) -> Result<(), Failure> {
        let mut known = self.known.lock().await;
        let before = self.remembered(&mut known).await?;
        let mut status = render(Some(&known.status), report, self.drain.generation, self.clock.now());
        let remembered = Remembered { memory: memory.clone(), fleet: self.fleet.get().map(ToOwned::to_owned) };
        // Pages may go before the drain does, as they do with its namespace.
        let in_pages =
            || known.status.memory.as_deref().is_some_and(|text| matches!(text.parse(), Ok(Packed::Pages(_))));
        let ends = self.drain.deletion_timestamp.is_some();
        if *before == remembered && !(ends && in_pages()) {
            status.memory.clone_from(&known.status.memory);
            fit(&mut status);
            if same(&status, &known.status) {
                return Ok(());
            }
            return self.write(&mut known, status).await.map_err(Unwritten::failure);
        }
        let inline = if ends { LARGEST_INLINE_AT_THE_END } else { LARGEST_INLINE };
        let packed = self.pages.pack(&remembered, inline).await?;
        status.memory = (remembered != Remembered::default()).then(|| packed.to_string());
        fit(&mut status);
        let replaced = known.status.memory.as_deref().and_then(|text| text.parse::<Packed>().ok());
        match self.write(&mut known, status).await {
            Ok(()) => {
                known.remembered = Some(Arc::new(remembered));
                // Only now does nothing name them any more.
                self.pages.delete(replaced.as_ref()).await;
                Ok(())
            }
            Err(Unwritten::For(failure)) => {
                self.pages.delete(Some(&packed)).await;
                Err(failure)
            }
            Err(Unwritten::Perhaps(failure)) => {
                // One of the two is named by the status: the next reconciliation sees which.
                self.pages.doubt(Some(&packed), &known.version).await;
                self.pages.doubt(replaced.as_ref(), &known.version).await;
                Err(failure)
            }
        }
    }
}

/// Equal as the API server keeps them: it drops, for example, fractions of seconds.
fn same(a: &WorkerDrainStatus, b: &WorkerDrainStatus) -> bool {
    a == b || serde_json::to_value(a).ok() == serde_json::to_value(b).ok()
}

/// Shows fewer tasks until the status fits. A memory that is larger than usual takes no room from them.
fn fit(status: &mut WorkerDrainStatus) {
    let memory = status.memory.as_ref().map_or(0, String::len);
    let largest = LARGEST_STATUS + memory.saturating_sub(LARGEST_INLINE);
    while serde_json::to_vec(status).is_ok_and(|bytes| bytes.len() > largest) && !status.tasks.is_empty() {
        let shown = status.tasks.len() * 3 / 4;
        status.tasks_omitted += u32::try_from(status.tasks.len() - shown).unwrap_or_default();
        status.tasks.truncate(shown);
    }
}

fn overtaken() -> Failure {
    Failure::new(
        FailureKind::Unreachable,
        "another writer changed the status meanwhile, such as another replica; the drain is reconciled again",
    )
}

fn unreadable(damaged: &Damaged) -> Failure {
    Failure::new(
        FailureKind::Invalid,
        format!(
            "status.memory cannot be read: {damaged}. It says which queues have to be given back to which workers, so it \
             is not ignored. If nothing was being drained, delete the WorkerDrain with the annotation \
             workerdrain.io/abandon: \"true\" and apply it again"
        ),
    )
}
