//! Many drains.

use std::{collections::BTreeMap, fs, time::Duration};

use e2e::{Cluster, Operator, SERVICE, Setup, Stage, aws_environment, patient};
use ecs_emulator::{
    Config, Emulator,
    model::{ContainerDefinition, CreateService, DeploymentConfiguration},
};
use serde_json::Value;
use test_support::{Redis, wait_until};
use tokio::time::{Instant, sleep};

const DRAINS: usize = 200;

/// For so long nothing may be written.
const CALM: Duration = Duration::from_mins(2);

/// So often it is tried: a machine on which nothing answers in time makes news, and needless writes never end.
const WINDOWS: usize = 4;

/// All of one service, which a drain that only plans has in nobody's way: two hundred fleets of real workers are more than
/// one machine has room for.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_drains_are_all_looked_at_and_none_is_written_without_need() {
    let setup = Setup { tasks: 5, concurrency: 1, ..Setup::default() };
    let (stage, mut cluster) = tokio::join!(Stage::start(setup), Cluster::start(&[]));
    let mut operator = cluster.operator(0, &stage);
    let manifest = |number: usize| {
        patient(&stage.drain_in_cluster()).replace(&format!("name: {SERVICE}"), &format!("name: drain-{number}"))
            + "  mode: Plan\n---\n"
    };
    let began = Instant::now();
    cluster
        .apply(&(stage.secret(stage.app().broker()) + "---\n" + &(0..DRAINS).map(manifest).collect::<String>()))
        .await;
    let applied = began.elapsed();
    cluster.kubectl("wait --for=condition=Ready --timeout=5m wd --all").bound(Duration::from_mins(6)).ok().await;
    let ready = began.elapsed();
    // What the first looks have changed is written by then.
    sleep(Duration::from_secs(10)).await;

    let mut calm = None;
    for _ in 0..WINDOWS {
        let (before, calls) = (versions(&cluster).await, api_calls(&mut cluster).await);
        sleep(CALM).await;
        let after = versions(&cluster).await;
        let written = after.iter().filter(|(name, version)| before[*name] != **version).count();
        if written == 0 {
            calm = Some(api_calls(&mut cluster).await - calls);
            break;
        }
        eprintln!("{written} drains were written in {CALM:?}");
    }
    let calls = calm.expect("there are two minutes in which nothing is written");
    let (resident, passes) = (resident_kib(&mut operator), operator.get("/metrics").await.expect("metrics").1);
    let passes = passes
        .lines()
        .find(|line| line.starts_with("worker_drain_reconciliations_total"))
        .unwrap_or_default()
        .to_owned();
    eprintln!(
        "{DRAINS} drains of 5 tasks: applied in {applied:?}, all ready after {ready:?}, {} MiB resident, {calls} calls of \
         WorkerDrains and Secrets in {CALM:?}; {passes}",
        resident / 1024,
    );
}

/// Services of their own, each with a task that has no worker. ECS lets us make some ten calls a second in all.
const SERVICES: usize = 120;

/// Their looks wait for one another. If they waited while they were under way, each would be too old to act on when it
/// ends, and no task would ever be held.
#[tokio::test(flavor = "multi_thread")]
async fn with_more_services_than_ecs_lets_us_look_at_at_once_all_are_held() {
    let folder = tempfile::Builder::new().prefix("worker-drain-many-").tempdir().expect("a temporary folder");
    let config = Config::fast(folder.path());
    let (emulator, redis, cluster) = tokio::join!(Emulator::start(config), Redis::start(), Cluster::start(&[]));
    let emulator = emulator.expect("the emulator starts");
    let names: Vec<String> = (0..SERVICES).map(|number| format!("service-{number}")).collect();
    for name in &names {
        wait_until("ECS makes a service", Duration::from_mins(1), async || create_service(&emulator, name)).await;
    }
    let operator = cluster.operator_with(0, aws_environment(emulator.endpoint()));
    let manifest = |name: &String| {
        format!(
            "{{apiVersion: workerdrain.io/v1alpha1, kind: WorkerDrain, metadata: {{name: {name}}}, spec: {{fleet: {{ecs: \
             {{cluster: default, service: {name}, region: us-east-1}}}}, workers: {{celery: {{broker: {{url: \
             '{}'}}}}}}}}}}\n---\n",
            redis.url()
        )
    };
    let began = Instant::now();
    cluster.apply(&names.iter().map(manifest).collect::<String>()).await;
    let held = || {
        emulator.with_world(|world| world.state().tasks.values().filter(|task| task.protected_until.is_some()).count())
    };
    wait_until("every task is held", Duration::from_mins(5), async || held() == SERVICES).await;
    eprintln!("{SERVICES} services held after {:?}", began.elapsed());
    let (_, told) = operator.get("/metrics").await.expect("the operator answers");
    let stale = told.lines().find(|line| line.contains("action=\"hold\",outcome=\"stale\"")).unwrap_or("none");
    eprintln!("holds that were not set because the look was too old: {stale}");
}

/// False: ECS says that we ask too often.
fn create_service(emulator: &Emulator, name: &str) -> bool {
    let container = ContainerDefinition::new("worker", &["sleep", "3600"]);
    let now = emulator.now();
    let made = emulator.with_world(|world| {
        let definition = world.register_task_definition(name, vec![container], serde_json::Map::new(), now)?;
        let request = CreateService {
            cluster: String::new(),
            name: name.to_owned(),
            task_definition: definition.name(),
            desired: 1,
            configuration: DeploymentConfiguration::default(),
            ..CreateService::default()
        };
        world.create_service(&request, now).map(drop)
    });
    made.inspect_err(|error| assert_eq!(error.code, "ThrottlingException")).is_ok()
}

async fn versions(cluster: &Cluster) -> BTreeMap<String, String> {
    let list: Value =
        serde_json::from_str(&cluster.kubectl("get wd --output json").ok().await).expect("kubectl's JSON");
    let text = |drain: &Value, field: &str| drain["metadata"][field].as_str().unwrap_or_default().to_owned();
    let items = list["items"].as_array().expect("a list");
    items.iter().map(|drain| (text(drain, "name"), text(drain, "resourceVersion"))).collect()
}

/// Calls that the API server has answered so far; the test's own are few.
async fn api_calls(cluster: &mut Cluster) -> u64 {
    let told = cluster.plane().kubectl(["get", "--raw", "/metrics"]).ok().await;
    let ours = |line: &&str| {
        line.starts_with("apiserver_request_total{")
            && ["resource=\"workerdrains\"", "resource=\"secrets\"", "resource=\"events\""]
                .iter()
                .any(|it| line.contains(it))
    };
    let counts = told.lines().filter(ours).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is a count")]
    counts.map(|count| count as u64).sum()
}

fn resident_kib(operator: &mut Operator) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", operator.process().id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}
