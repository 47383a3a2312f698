//! What a stage's tasks are made of.

use ecs_emulator::model::ContainerDefinition;
use test_support::SampleApp;

use crate::{broker::BrokerKind, stage::Setup};

/// Where a task's second worker runs: of the solo pool, called `deep@<task id>`, with a queue `deep` of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Second {
    /// There is none.
    #[default]
    None,
    /// Beside the first one, whose container starts both.
    InTheSameContainer,
    /// In another container of the task, of the same image.
    InAContainerOfTheSameImage,
}

/// The worker's container. `wrapper` is run, if there is one, with the worker's command as its arguments.
fn container(setup: &Setup, app: &SampleApp, wrapper: &[String]) -> ContainerDefinition {
    // As the first process of a container, a shell without a trap would ignore the signal, too.
    let shell = ["sh", "-c", "trap : TERM; \"$@\"", "sh"].map(str::to_owned);
    let shell = if setup.passes_sigterm { &[][..] } else { &shell };
    let mut command: Vec<String> = wrapper.iter().chain(shell).cloned().chain(app.worker_command()).collect();
    command.push(format!("--concurrency={}", setup.concurrency));
    command.push(match (setup.prefetch, setup.broker) {
        (0, BrokerKind::Redis) => "--disable-prefetch".to_owned(),
        (jobs, _) => format!("--prefetch-multiplier={}", jobs.max(1)),
    });
    command.push("--loglevel=INFO".to_owned());
    ContainerDefinition {
        command,
        // Logs are read by us, too: their times are in UTC.
        environment: app.environment().into_iter().chain([("TZ".to_owned(), "UTC".to_owned())]).collect(),
        stop_timeout: Some(setup.stop_timeout),
        ..ContainerDefinition::new("worker", &[])
    }
}

/// The container of the worker, and that of the second one if it has its own.
pub(crate) fn containers(setup: &Setup, app: &SampleApp, wrapper: &[String]) -> Vec<ContainerDefinition> {
    let deep = ["--pool=solo", "--queues=deep"].map(str::to_owned);
    match setup.second {
        Second::None => vec![container(setup, app, wrapper)],
        Second::InTheSameContainer => {
            let script = format!(
                "trap 'kill -TERM $deep $first' TERM
                 WORKER_NODE_NAME=\"deep@${{ECS_TASK_ID}}\" \"$@\" {} & deep=$!
                 \"$@\" & first=$!
                 wait; wait",
                deep.join(" ")
            );
            let both: Vec<String> =
                wrapper.iter().cloned().chain(["sh", "-c", &script, "sh"].map(str::to_owned)).collect();
            vec![container(setup, app, &both)]
        }
        Second::InAContainerOfTheSameImage => {
            let mut second = ContainerDefinition { name: "deep".to_owned(), ..container(setup, app, wrapper) };
            second.command.extend(deep);
            second.environment.insert("WORKER_NODE_NAME".to_owned(), "deep@${ECS_TASK_ID}".to_owned());
            vec![container(setup, app, wrapper), second]
        }
    }
}
