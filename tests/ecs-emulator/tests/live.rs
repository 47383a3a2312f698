//! The emulator as a whole: its API as boto3 sees it, tasks as processes, and that nothing is left behind.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use ecs_emulator::{
    Config, Emulator,
    model::{
        ContainerDefinition, ContainerState, CreateService, DeploymentConfiguration, HostnameShape, LastStatus, TaskId,
    },
};
use serde_json::Map;
use tokio::time::{sleep, timeout};

/// A bound for what should take a second; a busy machine may need much longer.
const PATIENCE: Duration = Duration::from_mins(2);

async fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let found = timeout(PATIENCE, async {
        loop {
            if let Some(found) = probe() {
                return found;
            }
            sleep(Duration::from_millis(20)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// A service of one task that runs a shell script.
fn serve(emulator: &Emulator, containers: Vec<ContainerDefinition>) {
    let now = emulator.now();
    emulator.with_world(|world| {
        world.register_task_definition("worker", containers, Map::new(), now).unwrap();
        let request = CreateService {
            name: "workers".to_owned(),
            task_definition: "worker".to_owned(),
            desired: 1,
            configuration: DeploymentConfiguration { minimum_healthy_percent: 0, ..DeploymentConfiguration::default() },
            ..CreateService::default()
        };
        world.create_service(&request, now).unwrap();
    });
}

fn script(text: &str) -> ContainerDefinition {
    ContainerDefinition::new("worker", &["sh", "-c", text])
}

async fn running_task(emulator: &Emulator) -> TaskId {
    wait_for("a task runs", || {
        emulator.with_world(|world| {
            world.state().tasks.values().find(|task| task.last == LastStatus::Running).map(|task| task.id)
        })
    })
    .await
}

fn output(emulator: &Emulator, task: TaskId) -> String {
    let path = emulator.log_path(task, 0).unwrap();
    std::fs::read_to_string(path).unwrap_or_default()
}

fn exists(process: i32) -> bool {
    // A zombie is dead, too: it only waits for a parent to notice.
    std::fs::read_to_string(format!("/proc/{process}/stat"))
        .is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| !rest.starts_with('Z')))
}

/// The process number that a script wrote as `pid=N`.
async fn written_pid(read: impl Fn() -> String) -> i32 {
    wait_for("the script has written its child's number", || {
        let text = read();
        let (_, rest) = text.split_once("pid=")?;
        let (number, _) = rest.split_once('\n')?;
        number.parse().ok()
    })
    .await
}

#[tokio::test]
async fn a_task_sees_the_surroundings_that_ecs_promises() {
    let logs = tempfile::tempdir().unwrap();
    let emulator = Emulator::start(Config::fast(logs.path())).await.unwrap();
    let mut container =
        script("echo \"$NODE|$HOSTNAME|$AWS_REGION|$ECS_CONTAINER_METADATA_URI_V4|$ECS_AGENT_URI|done\"; sleep 1000");
    container.environment.insert("NODE".to_owned(), "worker@${ECS_TASK_ID}".to_owned());
    serve(&emulator, vec![container]);
    let task = running_task(&emulator).await;
    let text =
        wait_for("the task has written", || Some(output(&emulator, task)).filter(|it| it.contains("done"))).await;
    let fields: Vec<&str> = text.trim().split('|').collect();
    assert_eq!(fields[0], format!("worker@{task}"));
    assert!(fields[1].starts_with("ip-10-0-") && fields[1].ends_with(".ec2.internal"), "{text}");
    assert_eq!(fields[2], "us-east-1");
    assert!(fields[3].starts_with(&format!("{}/v4/{task}-", emulator.endpoint())));
    assert!(fields[4].starts_with(&format!("{}/api/{task}-", emulator.endpoint())));
    emulator.stop().await;
}

#[tokio::test]
async fn sigterm_then_sigkill_to_the_whole_group() {
    let logs = tempfile::tempdir().unwrap();
    let emulator = Emulator::start(Config::fast(logs.path())).await.unwrap();
    let mut container = script("trap 'echo term' TERM; sleep 1000 & echo pid=$!; while :; do wait; done");
    container.stop_timeout = Some(Duration::from_secs(5));
    serve(&emulator, vec![container]);
    let task = running_task(&emulator).await;
    let grandchild = written_pid(|| output(&emulator, task)).await;
    let now = emulator.now();
    emulator.with_world(|world| world.stop_task("default", &task.to_string(), "", now).unwrap());
    wait_for("it is over", || {
        emulator.with_world(|world| world.task(task).filter(|task| task.last == LastStatus::Stopped).map(|_| ()))
    })
    .await;
    assert!(output(&emulator, task).contains("term"), "first it was asked");
    emulator.with_world(|world| {
        assert_eq!(world.task(task).unwrap().containers, [ContainerState::Exited(Some(137))]);
    });
    wait_for("nothing is left", || (!exists(grandchild)).then_some(())).await;
    emulator.stop().await;
}

#[tokio::test]
async fn a_task_that_ends_by_itself_is_replaced_and_one_that_cannot_start_says_so() {
    let logs = tempfile::tempdir().unwrap();
    let emulator = Emulator::start(Config::fast(logs.path())).await.unwrap();
    serve(&emulator, vec![script("exit 3")]);
    let ends = |code| {
        emulator.with_world(|world| {
            let tasks = world.state().tasks.values();
            tasks.filter(|task| task.stop.as_ref().is_some_and(|stop| stop.cause.code() == code)).count()
        })
    };
    wait_for("two have ended", || (ends("EssentialContainerExited") >= 2).then_some(())).await;
    let now = emulator.now();
    emulator.with_world(|world| {
        let missing = ContainerDefinition::new("worker", &["/no/such/program"]);
        let definition = world.register_task_definition("broken", vec![missing], Map::new(), now).unwrap();
        world.run_task("default", &definition.name(), now).unwrap();
    });
    wait_for("it could not start", || (ends("TaskFailedToStart") >= 1).then_some(())).await;
    emulator.stop().await;
}

#[tokio::test]
async fn a_container_without_a_command_is_pretended() {
    let logs = tempfile::tempdir().unwrap();
    let emulator = Emulator::start(Config::fast(logs.path())).await.unwrap();
    serve(&emulator, vec![ContainerDefinition::new("worker", &[])]);
    let task = running_task(&emulator).await;
    let now = emulator.now();
    emulator.with_world(|world| world.stop_task("default", &task.to_string(), "", now).unwrap());
    wait_for("it is over", || {
        emulator.with_world(|world| world.task(task).filter(|task| task.last == LastStatus::Stopped).map(|_| ()))
    })
    .await;
    emulator.stop().await;
}

#[tokio::test]
async fn stopping_the_emulator_ends_its_tasks() {
    let logs = tempfile::tempdir().unwrap();
    let emulator = Emulator::start(Config::fast(logs.path())).await.unwrap();
    serve(&emulator, vec![script("sleep 1000 & echo pid=$!; wait")]);
    let task = running_task(&emulator).await;
    let grandchild = written_pid(|| output(&emulator, task)).await;
    let leader = emulator.process_id(task, 0).unwrap();
    emulator.stop().await;
    // Nobody waits for the grandchild: a signal takes its time on a busy machine.
    wait_for("both are gone", || (!exists(leader) && !exists(grandchild)).then_some(())).await;
}

#[tokio::test]
async fn dropping_it_ends_them_too() {
    let logs = tempfile::tempdir().unwrap();
    let emulator = Emulator::start(Config::fast(logs.path())).await.unwrap();
    serve(&emulator, vec![script("sleep 1000 & echo pid=$!; wait")]);
    let task = running_task(&emulator).await;
    let grandchild = written_pid(|| output(&emulator, task)).await;
    drop(emulator);
    wait_for("its tasks have ended", || (!exists(grandchild)).then_some(())).await;
}

#[tokio::test]
async fn a_task_may_have_a_host_name_of_its_own() {
    let logs = tempfile::tempdir().unwrap();
    let mut config = Config::fast(logs.path());
    config.own_hostnames = true;
    config.knobs.hostname_shape = HostnameShape::TaskIdNumber;
    let emulator = match Emulator::start(config).await {
        Ok(emulator) => emulator,
        // Neither root nor user namespaces: then the error has to say what is needed.
        Err(error) => {
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(cause.contains("unshare"), "{cause}");
            return;
        }
    };
    serve(&emulator, vec![script("uname -n; exec sleep 1000")]);
    let task = running_task(&emulator).await;
    let name =
        wait_for("it has written its name", || Some(output(&emulator, task)).filter(|it| it.ends_with('\n'))).await;
    assert!(name.starts_with(&format!("{task}-")), "{name}");
    emulator.stop().await;
}

/// The emulator as a program, and its address.
struct Program {
    process: Child,
    endpoint: String,
}

impl Program {
    fn start(logs: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_ecs-emulator"))
            .args(["serve", "--port", "0", "--preset", "fast", "--logs"])
            .arg(logs)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let endpoint = line.trim().strip_prefix("listening on ").expect("the address in one line").to_owned();
        Self { process, endpoint }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The Python that has boto3.
fn python() -> PathBuf {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/venv/bin/python");
    let python = std::env::var_os("WORKER_DRAIN_PYTHON").map_or(shared, PathBuf::from);
    assert!(
        python.exists(),
        "{} does not exist: run `make setup`, or set WORKER_DRAIN_PYTHON to a Python that has boto3",
        python.display()
    );
    python
}

fn run_python(arguments: &[&str]) {
    let output = Command::new(python()).args(arguments).stdin(Stdio::null()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?} failed\n{out}\n{err}");
}

#[test]
fn boto3_finds_the_api_it_knows() {
    let logs = tempfile::tempdir().unwrap();
    let emulator = Program::start(logs.path());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/boto3_check.py");
    run_python(&[script, &emulator.endpoint]);
}

/// A service whose task leaves a grandchild; the numbers of both processes.
async fn service_with_grandchild(emulator: &Program, logs: &Path) -> i32 {
    let body = r#"
import boto3, sys
ecs = boto3.client("ecs", endpoint_url=sys.argv[1], region_name="us-east-1", aws_access_key_id="any", aws_secret_access_key="any")
command = ["sh", "-c", "sleep 1000 & echo pid=$!; wait"]
ecs.register_task_definition(family="w", containerDefinitions=[{"name": "w", "image": "w", "command": command}])
ecs.create_service(serviceName="w", taskDefinition="w", desiredCount=1)
"#;
    run_python(&["-c", body, &emulator.endpoint]);
    written_pid(|| {
        let files = std::fs::read_dir(logs).into_iter().flatten().flatten();
        files.filter_map(|file| std::fs::read_to_string(file.path()).ok()).collect()
    })
    .await
}

#[tokio::test]
async fn nothing_is_left_behind_however_the_program_ends() {
    for signal in ["-TERM", "-INT", "-KILL"] {
        let logs = tempfile::tempdir().unwrap();
        let mut emulator = Program::start(logs.path());
        let grandchild = service_with_grandchild(&emulator, logs.path()).await;
        assert!(exists(grandchild));
        let pid = emulator.process.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let status = wait_for("the emulator has ended", || emulator.process.try_wait().unwrap()).await;
        assert_eq!(status.success(), signal != "-KILL", "{signal}");
        wait_for("its tasks have ended", || (!exists(grandchild)).then_some(())).await;
    }
}
