//! Memory as text, and pages for what is too large for a status.
//!
//! A page is a `ControllerRevision` (apps/v1), Kubernetes' own kind for "an immutable snapshot of state data" of a
//! controller. It is owned by its `WorkerDrain`, and so never outlives it. Pages are created first and named in the status
//! then: a process that dies in between leaves pages that nothing names, never a status that names nothing. Those of a write
//! that was refused are deleted at once; those of one whose answer was lost when a later read can decide.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use k8s_openapi::{
    api::apps::v1::ControllerRevision,
    apimachinery::pkg::{apis::meta::v1::OwnerReference, runtime::RawExtension},
};
use kube::{
    Client,
    api::{Api, DeleteParams, PostParams},
    core::ObjectMeta,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use thiserror::Error;
use tokio::sync::Mutex;
use uuid::Uuid;
use worker_drain_plan::observation::{Failure, FailureKind};

use super::{
    Remembered,
    api_server::{call, call_opt},
};
use crate::api::{GROUP, VERSION};

/// The version of the text's shape. A newer program reads older versions; an older program refuses newer ones.
const FORMAT: u32 = 1;

/// The longest text of one page. A request to etcd may have 1.5 MiB.
const LARGEST_PAGE: usize = 512 * 1024;

/// A memory that unpacks to more is not one: ours has some hundred bytes for each task.
const LARGEST_MEMORY: usize = 64 * 1024 * 1024;

/// zlib's own default: a memory is packed often, and read less often.
const LEVEL: u8 = 6;

/// What is known of a drain's pages between reconciliations.
pub type PageCache = Arc<Mutex<Kept>>;

/// None of it matters: without it, pages are read again, and those that nothing names end with the drain.
#[derive(Debug, Default)]
pub struct Kept {
    /// What was read last, so that pages are read once.
    read: Option<(Packed, Arc<Remembered>)>,
    /// Pages that may be named by nothing, each with the version of the drain on which a write rests that may still name it.
    doubtful: BTreeMap<String, Option<String>>,
}

/// What a status holds as its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packed {
    /// All of it.
    Here(String),
    /// The names of the pages, in their order.
    Pages(Vec<String>),
}

/// A text that is no memory.
#[derive(Debug, Error)]
pub enum Damaged {
    /// Another version of this program wrote it.
    #[error("its format is unknown to this version of worker-drain")]
    Format,
    /// It is not what was written.
    #[error("it is damaged ({0})")]
    Content(String),
}

impl Packed {
    /// The names of its pages, if it has any.
    fn pages(&self) -> &[String] {
        match self {
            Self::Here(_) => &[],
            Self::Pages(names) => names,
        }
    }
}

impl fmt::Display for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(text) => write!(f, "here:{text}"),
            Self::Pages(names) => write!(f, "pages:{}", names.join(",")),
        }
    }
}

impl FromStr for Packed {
    type Err = Damaged;

    fn from_str(text: &str) -> Result<Self, Damaged> {
        match text.split_once(':') {
            Some(("here", text)) => Ok(Self::Here(text.to_owned())),
            Some(("pages", names)) => Ok(Self::Pages(names.split(',').map(ToOwned::to_owned).collect())),
            _ => Err(Damaged::Format),
        }
    }
}

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    #[serde(flatten)]
    remembered: &'a Remembered,
}

#[derive(Deserialize)]
struct Head {
    format: u32,
}

/// What is remembered, as text: JSON, zlib (whose checksum shows damage), base64.
pub fn encode(remembered: &Remembered) -> String {
    let json = serde_json::to_vec(&Written { format: FORMAT, remembered }).expect("a memory has only texts as keys");
    STANDARD_NO_PAD.encode(miniz_oxide::deflate::compress_to_vec_zlib(&json, LEVEL))
}

/// Back from text. Errors: it is damaged, or of a newer version.
pub fn decode(text: &str) -> Result<Remembered, Damaged> {
    let content = |why: &dyn fmt::Display| Damaged::Content(why.to_string());
    let packed = STANDARD_NO_PAD.decode(text).map_err(|error| content(&error))?;
    let json = miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(&packed, LARGEST_MEMORY)
        .map_err(|error| content(&error))?;
    let head: Head = serde_json::from_slice(&json).map_err(|error| content(&error))?;
    if head.format > FORMAT {
        return Err(Damaged::Format);
    }
    serde_json::from_slice(&json).map_err(|error| content(&error))
}

/// The pages of one drain.
#[derive(Debug)]
pub struct Pages {
    api: Api<ControllerRevision>,
    owner: OwnerReference,
    cache: PageCache,
}

impl Pages {
    /// The pages of this drain.
    pub fn of(client: Client, drain: &ObjectMeta, cache: PageCache) -> Self {
        let owner = OwnerReference {
            api_version: format!("{GROUP}/{VERSION}"),
            kind: String::from("WorkerDrain"),
            name: drain.name.clone().unwrap_or_default(),
            uid: drain.uid.clone().unwrap_or_default(),
            ..OwnerReference::default()
        };
        let api = Api::namespaced(client, drain.namespace.as_deref().unwrap_or_default());
        Self { api, owner, cache }
    }

    /// The memory as a status can hold it; creates pages if it is longer than `inline`.
    pub async fn pack(&self, remembered: &Remembered, inline: usize) -> Result<Packed, Failure> {
        let text = encode(remembered);
        if text.len() <= inline {
            return Ok(Packed::Here(text));
        }
        let mut names = Vec::new();
        for page in text.as_bytes().chunks(LARGEST_PAGE) {
            let page = self.page(std::str::from_utf8(page).expect("base64 is ASCII"));
            names.push(page.metadata.name.clone().unwrap_or_default());
            let made = call("write a page of memory", self.api.create(&PostParams::default(), &page)).await;
            if let Err(failure) = made {
                // The last one may have been made all the same.
                self.cache.lock().await.doubtful.extend(names.into_iter().map(|name| (name, None)));
                return Err(failure);
            }
        }
        let packed = Packed::Pages(names);
        self.cache.lock().await.read = Some((packed.clone(), Arc::new(remembered.clone())));
        Ok(packed)
    }

    fn page(&self, text: &str) -> ControllerRevision {
        // A drain's name may have 253 characters, and so may a page's.
        let drain: String = self.owner.name.chars().take(200).collect();
        ControllerRevision {
            metadata: ObjectMeta {
                name: Some(format!("{drain}-memory-{}", Uuid::new_v4().simple())),
                owner_references: Some(vec![self.owner.clone()]),
                labels: Some([("app.kubernetes.io/managed-by".into(), "worker-drain".into())].into()),
                ..ObjectMeta::default()
            },
            data: Some(RawExtension(json!({ "memory": text }))),
            revision: 1,
        }
    }

    /// The memory that a status holds or names.
    pub async fn unpack(&self, packed: &Packed) -> Result<Arc<Remembered>, Failure> {
        let names = match packed {
            Packed::Here(text) => return decode(text).map(Arc::new).map_err(|damaged| unreadable(&damaged)),
            Packed::Pages(names) => names,
        };
        let mut cache = self.cache.lock().await;
        if let Some((known, remembered)) = &cache.read
            && known == packed
        {
            return Ok(Arc::clone(remembered));
        }
        let mut text = String::new();
        for name in names {
            let page = call_opt("read a page of memory", self.api.get(name)).await?;
            let part = page.as_ref().and_then(|page| page.data.as_ref()?.0.get("memory")?.as_str());
            text.push_str(part.ok_or_else(|| unreadable(&format!("its page {name} is gone")))?);
        }
        let remembered = decode(&text).map(Arc::new).map_err(|damaged| unreadable(&damaged))?;
        cache.read = Some((packed.clone(), Arc::clone(&remembered)));
        Ok(remembered)
    }

    /// Deletes pages that nothing names any more. What cannot be deleted now is tried again by [`sweep`](Self::sweep).
    pub async fn delete(&self, packed: Option<&Packed>) {
        for name in packed.into_iter().flat_map(Packed::pages) {
            if !self.is_deleted(name).await {
                self.cache.lock().await.doubtful.insert(name.clone(), None);
            }
        }
    }

    /// These pages may be named by the status or not: the answer to a write that rests on this version was lost.
    pub async fn doubt(&self, packed: Option<&Packed>, version: &str) {
        let names = packed.into_iter().flat_map(Packed::pages);
        self.cache.lock().await.doubtful.extend(names.map(|name| (name.clone(), Some(version.to_owned()))));
    }

    /// Deletes doubtful pages that a status, as it was read in this version, does not name. A write that rests on that very
    /// version may be under way still, and so may be what it names.
    pub async fn sweep(&self, named: Option<&Packed>, version: &str) {
        let mut cache = self.cache.lock().await;
        let named = |name: &String| named.is_some_and(|packed| packed.pages().contains(name));
        cache.doubtful.retain(|name, _| !named(name));
        let over = cache.doubtful.iter().filter(|(_, rests_on)| rests_on.as_deref() != Some(version));
        let over: Vec<String> = over.map(|(name, _)| name.clone()).collect();
        for name in over {
            if self.is_deleted(&name).await {
                cache.doubtful.remove(&name);
            }
        }
    }

    async fn is_deleted(&self, name: &str) -> bool {
        let params = DeleteParams::default();
        let deleted = call_opt("delete a page of memory", self.api.delete(name, &params)).await;
        deleted
            .inspect_err(|failure| tracing::warn!(page = name, why = failure.message, "a page could not be deleted"))
            .is_ok()
    }
}

fn unreadable(why: &dyn fmt::Display) -> Failure {
    Failure::new(
        FailureKind::Invalid,
        format!(
            "what was remembered cannot be read: {why}. It says which queues have to be given back to which workers, so \
             it is not ignored. If nothing was being drained, delete the WorkerDrain with the annotation \
             workerdrain.io/abandon: \"true\" and apply it again"
        ),
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use worker_drain_plan::{
        Memory,
        memory::{NodeMemory, PhaseSince, TaskMemory},
        report::TaskPhase,
    };

    use super::*;

    fn memory(tasks: u32) -> Remembered {
        let task = |number: u32| {
            // Random ids, as ECS makes them: nothing else in a memory resists being packed.
            let id =
                Uuid::from_u128(u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)).simple();
            let phase =
                PhaseSince { phase: TaskPhase::Serving, since: "2026-01-01T00:00:00.123456789Z".parse().unwrap() };
            let nodes = [(format!("worker@{id}").into(), NodeMemory::default())].into();
            let task = TaskMemory { nodes, phase: Some(phase), held: true, ..TaskMemory::default() };
            (format!("arn:aws:ecs:eu-west-1:123456789012:task/media/{id}").into(), task)
        };
        let memory = Memory { tasks: (0..tasks).map(task).collect(), ..Memory::default() };
        Remembered { memory, fleet: Some("arn:aws:ecs:eu-west-1:123456789012:service/media/transcoder".into()) }
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        for tasks in [0, 1, 100] {
            assert_eq!(decode(&encode(&memory(tasks))).unwrap(), memory(tasks));
        }
        // As it was written before fleets were remembered.
        let text = serde_json::to_vec(&json!({"format": 1, "memory": memory(1).memory})).unwrap();
        let text = STANDARD_NO_PAD.encode(miniz_oxide::deflate::compress_to_vec_zlib(&text, LEVEL));
        assert_eq!(decode(&text).unwrap(), Remembered { fleet: None, ..memory(1) });
        let packed = Packed::Pages(vec!["a".into(), "b".into()]);
        assert_eq!(packed.to_string().parse::<Packed>().unwrap(), packed);
    }

    #[rstest]
    #[case(200, 16 * 1024)]
    #[case(5000, 2 * LARGEST_PAGE)]
    fn it_is_small(#[case] tasks: u32, #[case] most: usize) {
        let size = encode(&memory(tasks)).len();
        assert!(size <= most, "{tasks} tasks take {size} bytes");
    }

    #[test]
    fn damage_is_told_and_never_an_empty_memory() {
        let mut text = encode(&memory(5));
        text.replace_range(20..21, if &text[20..21] == "A" { "B" } else { "A" });
        assert!(matches!(decode(&text), Err(Damaged::Content(_))));
        assert!(matches!("v2:x".parse::<Packed>(), Err(Damaged::Format)));
        let newer = serde_json::to_vec(&json!({"format": 2, "memory": {"unheard": true}})).unwrap();
        let newer = STANDARD_NO_PAD.encode(miniz_oxide::deflate::compress_to_vec_zlib(&newer, LEVEL));
        assert!(matches!(decode(&newer), Err(Damaged::Format)));
    }
}
