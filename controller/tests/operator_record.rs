//! Status and memory in the resource, against a real API server.

#![allow(clippy::unwrap_used, reason = "all of it is test")]

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::{
    Client, Config,
    api::{Api, ListParams},
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use test_support::{ControlPlane, LONG, repository, wait_until};
use tokio::sync::watch;
use tower::BoxError;
use uuid::Uuid;
use worker_drain::{
    api::{DrainSpec, WorkerDrain},
    clock::{Clock, SystemClock},
    record::{
        Record,
        api_server::drains,
        pages::PageCache,
        resource::{ResourceRecord, amend},
    },
};
use worker_drain_plan::{
    Memory, Observation, Plan, Policy, TaskId,
    observation::{
        Answer, Displaced, FailureKind, FleetView, HoldState, Job, Life, Mapping, Queue, Revision, Seen, Task,
        WorkersView,
    },
    plan,
};

const DRAIN: &str = r"
apiVersion: workerdrain.io/v1alpha1
kind: WorkerDrain
metadata: {name: transcoder, namespace: default}
spec:
  fleet: {ecs: {cluster: media, service: transcoder}}
  workers: {celery: {broker: {url: 'redis://broker'}}}
";

/// What becomes of the next writes of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    Nothing,
    /// It is not written, and nobody says so.
    Request,
    /// It is written, and nobody says so.
    Answer,
}

struct Lab {
    plane: ControlPlane,
    client: Client,
}

impl Lab {
    async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let plane = ControlPlane::start().await;
        let crd = repository().join("crds/workerdrains.yaml").display().to_string();
        plane.kubectl(["apply", "--server-side", "--filename", &crd]).ok().await;
        plane.kubectl(["wait", "--for=condition=Established", "crd/workerdrains.workerdrain.io"]).ok().await;
        let kubeconfig = Kubeconfig::read_from(plane.kubeconfig()).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let lab = Self { plane, client: Client::try_from(config).unwrap() };
        lab.kubectl("apply --filename -", DRAIN).await;
        lab
    }

    async fn kubectl(&self, words: &str, stdin: &str) -> String {
        self.plane.kubectl(words.split(' ')).stdin(stdin).ok().await
    }

    /// A record as a pass makes one: of the resource as it is now.
    async fn record(&self) -> ResourceRecord<SystemClock> {
        self.record_by(&self.client, &PageCache::default()).await
    }

    /// The same, by this client and with what passes before it have kept.
    async fn record_by(&self, client: &Client, kept: &PageCache) -> ResourceRecord<SystemClock> {
        let resource = drains(self.client.clone(), "default").get("transcoder").await.unwrap();
        ResourceRecord::of(client, &resource, kept.clone(), SystemClock).unwrap()
    }

    /// A client of the same API server, for which writes of a status get lost as they are told to.
    fn lossy(&self) -> (Client, watch::Sender<Lost>) {
        let (tell, told) = watch::channel(Lost::Nothing);
        let client = self.client.clone();
        let service = tower::service_fn(move |request: hyper::Request<Body>| {
            let (client, lost) = (client.clone(), *told.borrow());
            let lost = if request.uri().path().ends_with("/status") { lost } else { Lost::Nothing };
            async move {
                if lost == Lost::Request {
                    return Err(BoxError::from("the request was lost"));
                }
                let answer = client.send(request).await?;
                if lost == Lost::Answer { Err(BoxError::from("the answer was lost")) } else { Ok(answer) }
            }
        });
        (Client::new(service, "default"), tell)
    }

    async fn drain(&self) -> WorkerDrain {
        Api::<WorkerDrain>::default_namespaced(self.client.clone()).get("transcoder").await.unwrap()
    }

    async fn pages(&self) -> usize {
        self.page_names().await.len()
    }

    async fn page_names(&self) -> BTreeSet<String> {
        let api: Api<ControllerRevision> = Api::default_namespaced(self.client.clone());
        let pages = api.list(&ListParams::default()).await.unwrap().items;
        pages.into_iter().map(|page| page.metadata.name.unwrap()).collect()
    }

    fn policy(drain: &WorkerDrain) -> Policy {
        DrainSpec::try_from(drain).unwrap().policy
    }
}

/// A service in the middle of a deployment: each old task has a worker with a job.
fn busy(tasks: u128, now: Timestamp) -> Observation {
    let (mut known, mut mapped, mut nodes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for number in 0..tasks {
        let id = Uuid::from_u128(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)).simple().to_string();
        let task: TaskId = format!("arn:aws:ecs:eu-west-1:123456789012:task/media/{id}").into();
        let node: worker_drain_plan::NodeName = format!("worker@{id}").into();
        let revision = if number % 2 == 0 { "ecs-svc/1" } else { "ecs-svc/2" };
        let hold = HoldState::Until(now + SignedDuration::from_hours(1));
        let started_at = Some(now - SignedDuration::from_hours(9));
        known.insert(
            task.clone(),
            Task {
                revision: revision.into(),
                life: Life::Running,
                started_at,
                hold,
                displaced: Displaced::No,
                zone: None,
                alike: Vec::new(),
            },
        );
        let job = Job { id: id.clone(), name: "app.tasks.transcode".into(), started_at };
        let answer = Answer {
            queues: Some(vec![Queue::named("celery")]),
            reserved: Some(vec![job.clone(), job.clone()]),
            active: Some(vec![job]),
            scheduled: Some(Vec::new()),
            // As over Celery: what it takes jobs from is remembered.
            hears_later: true,
            ..Answer::new(now, now)
        };
        nodes.insert(node.clone(), answer);
        mapped.insert(task, Mapping::Nodes([node].into()));
    }
    let revision = |label: &str| Revision { label: label.into(), created_at: None };
    let view = FleetView {
        is_rolling_out: false,
        is_deleted: false,
        name: "media/transcoder".into(),
        desired: u32::try_from(tasks).unwrap(),
        minimum_healthy_percent: 50,
        maximum_percent: 200,
        current: "ecs-svc/2".into(),
        revisions: [("ecs-svc/1".into(), revision("app:1")), ("ecs-svc/2".into(), revision("app:2"))].into(),
        tasks: known,
        made_at: None,
        longest_hold: SignedDuration::from_hours(48),
        unplaced: BTreeMap::new(),
        counted: None,
        balances_zones: false,
        unread: Vec::new(),
        remembered: None,
    };
    let workers = WorkersView { tasks: mapped, nodes, unmatched_workers: [].into(), silences: [].into() };
    let (fleet, workers) = (Seen::Ok { value: view, at: now }, Seen::Ok { value: workers, at: now });
    Observation { fleet, workers, queues: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_a_service_of_five_thousand_tasks_stays_small_and_its_memory_whole() {
    let lab = Lab::start().await;
    let now: Timestamp = SystemClock.now();
    let policy = Lab::policy(&lab.drain().await);
    let Plan { memory, report, .. } = plan(&policy, &busy(5000, now), &Memory::default(), now);
    let record = lab.record().await;
    assert_eq!(record.load().await.unwrap(), Memory::default());
    record.save(&memory, &report).await.unwrap();

    let status = lab.drain().await.status.unwrap();
    let size = serde_json::to_vec(&status).unwrap().len();
    let pages = lab.pages().await;
    eprintln!("5,000 tasks: {size} bytes of status, {pages} pages");
    assert!(size < 64 * 1024, "the status has {size} bytes");
    assert_eq!(lab.record().await.load().await.unwrap(), memory, "another process remembers the same");

    // Nothing new: nothing is written. Something new: the old pages go.
    let version = lab.drain().await.metadata.resource_version;
    let record = lab.record().await;
    record.save(&memory, &report).await.unwrap();
    assert_eq!(lab.drain().await.metadata.resource_version, version);
    let later = now + SignedDuration::from_secs(5);
    let Plan { memory, report, .. } = plan(&policy, &busy(5000, later), &memory, later);
    let mut memory = memory;
    memory.cut.jobs += 1;
    record.save(&memory, &report).await.unwrap();
    assert_eq!(lab.pages().await, pages);
    assert_eq!(lab.record().await.load().await.unwrap(), memory);

    lab.plane.kubectl(["delete", "wd", "transcoder"]).ok().await;
    wait_until("the pages are gone with their drain", 2 * LONG, async || lab.pages().await == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_writers_one_succeeds_and_what_others_change_is_in_nobodys_way() {
    let lab = Lab::start().await;
    let now: Timestamp = SystemClock.now();
    let policy = Lab::policy(&lab.drain().await);
    let Plan { memory, report, .. } = plan(&policy, &busy(10, now), &Memory::default(), now);
    let (first, second) = (lab.record().await, lab.record().await);
    first.load().await.unwrap();
    second.load().await.unwrap();
    first.save(&memory, &report).await.unwrap();
    let mut other = memory.clone();
    other.cut.jobs = 7;
    let failure = second.save(&other, &report).await.unwrap_err();
    assert_eq!((failure.kind, failure.message.contains("another writer")), (FailureKind::Unreachable, true));
    assert_eq!(lab.record().await.load().await.unwrap(), memory);

    // A label, or a new spec, in the middle of a pass.
    lab.kubectl("label wd transcoder team=media", "").await;
    lab.kubectl("patch wd transcoder --type=merge --patch {\"spec\":{\"paused\":true}}", "").await;
    other.cut.jobs = 8;
    first.save(&other, &report).await.unwrap();
    let drain = lab.drain().await;
    assert_eq!(lab.record().await.load().await.unwrap(), other);
    assert!(drain.spec.paused, "what others wrote stays");
    assert!(drain.status.unwrap().observed_generation < drain.metadata.generation, "the new spec was not looked at");

    // What a kill leaves behind, and a status of somebody else's.
    lab.kubectl(
        "patch wd transcoder --subresource=status --type=merge --patch {\"status\":{\"memory\":\"here:x\"}}",
        "",
    )
    .await;
    let failure = lab.record().await.load().await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid);
    assert!(failure.message.contains("workerdrain.io/abandon"), "{}", failure.message);

    // Another drain of the same name is another drain.
    let stale = lab.record().await;
    lab.kubectl("delete wd transcoder", "").await;
    lab.kubectl("apply --filename -", DRAIN).await;
    assert!(stale.save(&memory, &report).await.is_err());
    assert_eq!(lab.record().await.load().await.unwrap(), Memory::default());
}

/// As after an upgrade and back: the CRD is newer than this program.
#[tokio::test(flavor = "multi_thread")]
async fn a_status_of_another_shape_can_be_told_in_and_is_kept() {
    let lab = Lab::start().await;
    let field = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/tasksOmitted";
    let patch = format!(r#"[{{"op": "replace", "path": "{field}", "value": {{"type": "string"}}}}]"#);
    let crd = ["patch", "crd", "workerdrains.workerdrain.io", "--type=json", "--patch", &patch];
    lab.plane.kubectl(crd).ok().await;
    let status = r#"{"status": {"memory": "sheets:two", "tasksOmitted": "many"}}"#;
    let patch = ["patch", "wd", "transcoder", "--subresource=status", "--type=merge", "--patch", status];
    wait_until("the API server takes the new shape", LONG, async || {
        lab.plane.kubectl(patch).output().await.status.success()
    })
    .await;

    let read = async || drains(lab.client.clone(), "default").get("transcoder").await.unwrap();
    let resource = read().await;
    let failure = ResourceRecord::of(&lab.client, &resource, PageCache::default(), SystemClock).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid);
    let tell = |status: &mut Value| status["blockedBy"] = json!("RecordInvalid");
    amend(&lab.client, &resource, tell).await.unwrap();
    let told = read().await;
    // What it did not say is what every new status says.
    let expected = json!({
        "memory": "sheets:two", "tasksOmitted": "many", "blockedBy": "RecordInvalid", "observedGeneration": -1, "phase": "Unknown",
    });
    assert_eq!(told.data["status"], expected);

    // Nothing new is not written; and nothing is written over what somebody else wrote.
    amend(&lab.client, &told, tell).await.unwrap();
    assert_eq!(read().await.metadata.resource_version, told.metadata.resource_version);
    let late = amend(&lab.client, &resource, |status| status["memory"] = json!("here:old")).await.unwrap_err();
    assert!(late.message.contains("another writer"), "{}", late.message);
    assert_eq!(read().await.data["status"], expected);
}

/// A memory too large for a status, and its report; `jobs` tells one from another.
fn large(policy: &Policy, jobs: u32) -> (Memory, worker_drain_plan::Report) {
    let now = SystemClock.now();
    let Plan { mut memory, report, .. } = plan(policy, &busy(600, now), &Memory::default(), now);
    memory.cut.jobs = jobs;
    (memory, report)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_refused_leaves_no_page() {
    let lab = Lab::start().await;
    let policy = Lab::policy(&lab.drain().await);
    let (first, second) = (lab.record().await, lab.record().await);
    let ((ours, report), (theirs, _)) = (large(&policy, 1), large(&policy, 2));
    second.load().await.unwrap();
    first.save(&ours, &report).await.unwrap();
    let pages = lab.page_names().await;
    assert!(!pages.is_empty(), "the memory is too large for a status");
    let failure = second.save(&theirs, &report).await.unwrap_err();
    assert!(failure.message.contains("another writer"), "{}", failure.message);
    assert_eq!(lab.page_names().await, pages, "those of the write that was refused are gone, and no other");
    assert_eq!(lab.record().await.load().await.unwrap(), ours);
}

/// The API server deletes the pages first, and lets nobody make new ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_whose_namespace_is_deleted_remembers_without_pages() {
    let lab = Lab::start().await;
    let (namespace, kept) = ("media", PageCache::default());
    lab.kubectl("create namespace media", "").await;
    let held = "namespace: media, finalizers: [workerdrain.io/give-back]";
    lab.kubectl("apply --filename -", &DRAIN.replace("namespace: default", held)).await;
    let record = async |kept: &PageCache| {
        let resource = drains(lab.client.clone(), namespace).get("transcoder").await.unwrap();
        ResourceRecord::of(&lab.client, &resource, kept.clone(), SystemClock).unwrap()
    };
    let (policy, now) = (Lab::policy(&lab.drain().await), SystemClock.now());
    let Plan { memory, report, .. } = plan(&policy, &busy(5000, now), &Memory::default(), now);
    record(&kept).await.save(&memory, &report).await.unwrap();

    lab.kubectl("delete namespace media --wait=false", "").await;
    let pages: Api<ControllerRevision> = Api::namespaced(lab.client.clone(), namespace);
    let left = async || pages.list(&ListParams::default()).await.unwrap().items.len();
    wait_until("the pages are gone", LONG, async || left().await == 0).await;
    let deleted =
        async || drains(lab.client.clone(), namespace).get("transcoder").await.unwrap().metadata.deletion_timestamp;
    wait_until("the drain is being deleted", LONG, async || deleted().await.is_some()).await;
    let ours = record(&kept).await;
    assert_eq!(ours.load().await.unwrap(), memory, "this process has read them");
    ours.save(&memory, &report).await.unwrap();
    assert_eq!(record(&PageCache::default()).await.load().await.unwrap(), memory, "another process remembers the same");
    let mut more = memory;
    more.cut.jobs += 1;
    ours.save(&more, &report).await.unwrap();
    assert_eq!(record(&PageCache::default()).await.load().await.unwrap(), more);
    let status = drains(lab.client.clone(), namespace).get("transcoder").await.unwrap().data["status"].clone();
    assert!(!status["tasks"].as_array().unwrap().is_empty(), "tasks are shown all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_which_nothing_is_heard_leaves_no_page_for_long() {
    let lab = Lab::start().await;
    let policy = Lab::policy(&lab.drain().await);
    let ((client, tell), kept) = (lab.lossy(), PageCache::default());
    let (one, report) = large(&policy, 1);
    lab.record_by(&client, &kept).await.save(&one, &report).await.unwrap();
    let pages_of_one = lab.page_names().await;

    // It was a yes: the next look finds the new pages named, and the old ones go.
    tell.send(Lost::Answer).unwrap();
    let (two, report) = large(&policy, 2);
    let failure = lab.record_by(&client, &kept).await.save(&two, &report).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unreachable);
    let all = lab.page_names().await;
    assert_eq!(all.len(), 2 * pages_of_one.len(), "until then, both are kept");
    assert_eq!(lab.record_by(&client, &kept).await.load().await.unwrap(), two);
    let pages_of_two = lab.page_names().await;
    assert_eq!(pages_of_two, all.difference(&pages_of_one).cloned().collect());

    // It was a no: the write may come late while the drain is as it was, and cannot any more when it has changed.
    tell.send(Lost::Request).unwrap();
    let (three, report) = large(&policy, 3);
    lab.record_by(&client, &kept).await.save(&three, &report).await.unwrap_err();
    assert_eq!(lab.record_by(&client, &kept).await.load().await.unwrap(), two);
    assert_eq!(lab.pages().await, 2 * pages_of_two.len(), "what may be named by a write under way is kept");
    lab.kubectl("label wd transcoder team=media", "").await;
    assert_eq!(lab.record_by(&client, &kept).await.load().await.unwrap(), two);
    assert_eq!(lab.page_names().await, pages_of_two);
    tell.send(Lost::Nothing).unwrap();
    lab.record_by(&client, &kept).await.save(&three, &report).await.unwrap();
    assert_eq!(lab.record().await.load().await.unwrap(), three);
    assert_eq!(lab.pages().await, pages_of_two.len());
}
