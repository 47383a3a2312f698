//! The operator comes to reach another ECS service than the one that a drain belongs to.

use e2e::{Cluster, SERVICE, Setup, Stage, aws_environment};
use ecs_emulator::{
    Config, Emulator,
    model::{ContainerDefinition, CreateService, Operation},
};
use serde_json::Map;

/// A service of the same names in another Region, whose tasks are only pretended.
async fn in_another_region(stage: &Stage) -> Emulator {
    let mut config = Config::fast(stage.folder().join("elsewhere"));
    "eu-west-1".clone_into(&mut config.knobs.region);
    let emulator = Emulator::start(config).await.expect("the emulator starts");
    let now = emulator.now();
    emulator.with_world(|world| {
        let containers = vec![ContainerDefinition::new("worker", &[])];
        world.register_task_definition(SERVICE, containers, Map::new(), now).expect("it can be registered");
        let request = CreateService {
            cluster: String::new(),
            name: SERVICE.to_owned(),
            task_definition: SERVICE.to_owned(),
            desired: 2,
            ..CreateService::default()
        };
        world.create_service(&request, now).expect("the service can be created");
    });
    emulator
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_in_another_region_touches_neither_service() {
    let (stage, cluster) = tokio::join!(Stage::start(Setup::default()), Cluster::start(&[]));
    let elsewhere = in_another_region(&stage).await;
    // The spec names no Region: it is the operator's.
    let manifest = stage.drain_with_secret().replace(", region: us-east-1", "");
    assert!(!manifest.contains("region"), "{manifest}");
    let mut operator = cluster.operator(0, &stage);
    cluster.apply(&manifest).await;
    let old = stage.tasks();
    stage.until_held(&old).await;
    operator.terminate().await;

    let environment = aws_environment(elsewhere.endpoint())
        .into_iter()
        .map(|(name, value)| (name, value.replace("us-east-1", "eu-west-1")))
        .collect();
    let mut operator = cluster.operator_with(0, environment);
    let changed = |drain: &serde_json::Value| {
        Cluster::condition(drain, "Ready") == Some(("False", "FleetChanged"))
            && Cluster::condition(drain, "Stalled") == Some(("True", "FleetChanged"))
    };
    let drain = cluster.until(SERVICE, "the drain says that its fleet has changed", changed).await;
    let text = drain["status"]["conditions"].to_string();
    for region in ["us-east-1", "eu-west-1"] {
        assert!(text.contains(&format!("arn:aws:ecs:{region}:123456789012:service/default/{SERVICE}")), "{text}");
    }

    // Deleted, it waits: it can give nothing back to the first service, and the other one is not its own.
    cluster.kubectl(&format!("delete workerdrain {SERVICE} --wait=false")).ok().await;
    let waits = cluster.kubectl(&format!("wait --for=delete --timeout=20s workerdrain/{SERVICE}")).refused().await;
    assert!(waits.contains("timed out"), "{waits}");
    assert!(changed(&cluster.drain(SERVICE).await));
    assert!(old.iter().all(|task| stage.task(task.id).is_held), "holds of the first one stay: {:?}", stage.tasks());
    let acted = elsewhere.with_world(|world| world.calls().get(&Operation::UpdateTaskProtection).copied());
    assert_eq!(acted, None, "nothing was done to the other one");
    operator.terminate().await;

    let _operator = cluster.operator(0, &stage);
    cluster.kubectl(&format!("wait --for=delete --timeout=3m workerdrain/{SERVICE}")).ok().await;
    assert!(stage.tasks().iter().all(|task| !task.is_held), "holds are left: {:?}", stage.tasks());
    elsewhere.stop().await;
}
