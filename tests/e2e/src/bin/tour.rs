//! `make tour`: the service that the README's tour walks around in, until Ctrl-C.

use std::{fmt::Write as _, fs, io, path::PathBuf, process::ExitCode, time::Duration};

use e2e::{Setup, Stage};
use test_support::{Jobs, python, repository};
use tokio::signal::unix::{SignalKind, signal};

/// Enough workers that a rollout has a middle.
const TASKS: u32 = 3;

/// Each worker runs two and holds two more.
const JOBS: usize = 12;

#[tokio::main]
async fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| eprintln!("tour: {}", panic.payload_as_str().unwrap_or("it has failed"))));
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be waited for");
    let mut interrupt = signal(SignalKind::interrupt()).expect("signals can be waited for");
    // What runs is ended by being dropped.
    tokio::select! {
        error = tour() => {
            eprintln!("tour: {error}");
            return ExitCode::FAILURE;
        }
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    println!("\nEverything that the tour had started is ended.");
    ExitCode::SUCCESS
}

/// Ends only with an error.
async fn tour() -> io::Error {
    println!("Starting Redis, an emulated ECS, and a service of {TASKS} Celery workers ...");
    let setup = Setup { tasks: TASKS, stop_timeout: Duration::from_secs(3), ..Setup::default() };
    let stage = Stage::start(setup).await;
    stage.submit(Jobs::new(JOBS).seconds(30.0, 60.0).seed(1)).await;
    let environment = match write(&stage) {
        Ok(path) => path,
        Err(error) => return error,
    };
    println!(
        "\nThe workers run {JOBS} jobs of 30 to 60 s. In a second terminal:\n
    . {0}
    worker-drain plan -f $DRAIN
    worker-drain run -f $DRAIN --watch\n
And while that runs, in a third one:\n
    . {0}
    aws ecs update-service --service transcoder --force-new-deployment --query 'service.deployments[].[id,status]'\n
Jobs note their beginning and their end in {1}. Ctrl-C here ends everything.",
        environment.display(),
        stage.app().journal().folder().display(),
    );
    std::future::pending().await
}

/// Writes the file that points a shell to all of it.
fn write(stage: &Stage) -> io::Result<PathBuf> {
    let folder = repository().join(".cache/tour");
    fs::create_dir_all(&folder)?;
    let programs = [e2e::binary(), python()].map(|file| file.parent().map(PathBuf::from).unwrap_or_default());
    let mut text = format!("export PATH=\"{}:{}:$PATH\"\n", programs[0].display(), programs[1].display());
    for (name, value) in stage.aws_environment() {
        let _ = writeln!(text, "export {name}='{value}'");
    }
    let _ = writeln!(text, "export DRAIN='{}'", stage.manifest().display());
    let file = folder.join("env");
    fs::write(&file, text)?;
    Ok(file)
}
