//! Answers of the API. Names and types are those of the published service model.

use serde_json::{Map, Value, json};

use crate::model::{
    ContainerInstance, ContainerState, Counts, Deployment, Failure, Health, HostnameShape, Knobs, LastStatus,
    ProtectionAnswer, Service, Task, Time, World,
};

/// A UUID made of random bits, for ids of events and attachments.
pub(super) fn uuid(bits: u128) -> String {
    let digits = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..])
}

pub(super) fn cluster(knobs: &Knobs, name: &str) -> Value {
    json!({
        "clusterArn": knobs.cluster_arn(name),
        "clusterName": name,
        "status": "ACTIVE",
        "registeredContainerInstancesCount": 0,
        "statistics": [],
        "tags": [],
        "settings": [],
        "capacityProviders": [],
        "defaultCapacityProviderStrategy": [],
    })
}

pub(super) fn failures(failures: &[Failure]) -> Value {
    failures
        .iter()
        .map(|failure| {
            let mut entry = json!({"arn": failure.arn, "reason": failure.reason});
            if let Some(detail) = &failure.detail {
                entry["detail"] = json!(detail);
            }
            entry
        })
        .collect()
}

pub(super) fn protection(knobs: &Knobs, cluster: &str, answer: &ProtectionAnswer) -> Value {
    let tasks: Vec<Value> = answer
        .tasks
        .iter()
        .map(|protected| {
            let mut entry = json!({
                "taskArn": knobs.task_arn(cluster, protected.task),
                "protectionEnabled": protected.until.is_some(),
            });
            if let Some(until) = protected.until {
                entry["expirationDate"] = json!(until.epoch_seconds());
            }
            entry
        })
        .collect();
    json!({"protectedTasks": tasks, "failures": failures(&answer.failures)})
}

pub(super) fn service(knobs: &Knobs, service: &Service, counts: Counts, of_deployments: &[Counts]) -> Value {
    let deployments: Vec<Value> =
        service.deployments.iter().zip(of_deployments).map(|(it, counts)| deployment(knobs, it, *counts)).collect();
    let events: Vec<Value> = service
        .events
        .iter()
        .rev()
        .map(|event| {
            json!({"id": uuid(event.id), "createdAt": event.created_at.epoch_seconds(), "message": event.message})
        })
        .collect();
    let configuration = &service.configuration;
    let definition = service.primary().map(|primary| knobs.definition_arn(&primary.definition));
    json!({
        "serviceArn": knobs.service_arn(&service.cluster, &service.name),
        "serviceName": &*service.name,
        "clusterArn": knobs.cluster_arn(&service.cluster),
        "loadBalancers": [],
        "serviceRegistries": [],
        "status": service.status.as_str(),
        "desiredCount": service.desired,
        "runningCount": counts.running.saturating_add_signed(knobs.running_count_off),
        "pendingCount": counts.pending,
        "launchType": "FARGATE",
        "platformVersion": "LATEST",
        "platformFamily": "Linux",
        "taskDefinition": definition.unwrap_or_default(),
        "deploymentConfiguration": {
            "deploymentCircuitBreaker": {
                "enable": configuration.breaker.enable,
                "rollback": configuration.breaker.rollback,
            },
            "maximumPercent": configuration.maximum_percent,
            "minimumHealthyPercent": configuration.minimum_healthy_percent,
            "strategy": service.strategy.as_str(),
            "bakeTimeInMinutes": service.bake_minutes,
        },
        "deployments": deployments,
        "events": events,
        "createdAt": service.created_at.epoch_seconds(),
        "placementConstraints": [],
        "placementStrategy": [],
        "schedulingStrategy": "REPLICA",
        "deploymentController": {"type": "ECS"},
        "enableECSManagedTags": false,
        "propagateTags": "NONE",
        "enableExecuteCommand": false,
        "availabilityZoneRebalancing": if service.rebalances { "ENABLED" } else { "DISABLED" },
    })
}

/// Tags, which are shown only to who asks for them.
pub(super) fn tags(service: &Service) -> Value {
    service.tags.iter().map(|(key, value)| json!({"key": key, "value": value})).collect()
}

fn deployment(knobs: &Knobs, deployment: &Deployment, counts: Counts) -> Value {
    json!({
        "id": deployment.id,
        "status": deployment.status.as_str(),
        "taskDefinition": knobs.definition_arn(&deployment.definition),
        "desiredCount": deployment.target,
        "pendingCount": counts.pending,
        "runningCount": counts.running,
        "failedTasks": deployment.failed_tasks,
        "createdAt": deployment.created_at.epoch_seconds(),
        "updatedAt": deployment.updated_at.epoch_seconds(),
        "launchType": "FARGATE",
        "platformVersion": "1.4.0",
        "platformFamily": "Linux",
        "rolloutState": deployment.rollout.as_str(),
        "rolloutStateReason": deployment.reason,
    })
}

pub(super) fn task(knobs: &Knobs, task: &Task) -> Value {
    let arn = knobs.task_arn(&task.cluster, task.id);
    let containers: Vec<Value> = (0..task.containers.len()).map(|place| container(knobs, task, &arn, place)).collect();
    let overrides: Vec<Value> = task.definition.containers.iter().map(|it| json!({"name": it.name})).collect();
    let family = &task.definition.family;
    let mut answer = json!({
        "attachments": [attachment(knobs, task)],
        "attributes": [{"name": "ecs.cpu-architecture", "value": "x86_64"}],
        "availabilityZone": format!("{}{}", knobs.region, char::from(b'a' + task.zone % 26)),
        "clusterArn": knobs.cluster_arn(&task.cluster),
        "connectivity": "CONNECTED",
        "containers": containers,
        "cpu": task.definition.document.get("cpu").and_then(Value::as_str).unwrap_or("256"),
        "createdAt": task.created_at.epoch_seconds(),
        "desiredStatus": task.desired.as_str(),
        "enableExecuteCommand": false,
        "group": task.service_name.as_ref().map_or_else(|| format!("family:{family}"), |name| format!("service:{name}")),
        "healthStatus": health(task.health),
        "lastStatus": task.last.as_str(),
        "launchType": "FARGATE",
        "memory": task.definition.document.get("memory").and_then(Value::as_str).unwrap_or("512"),
        "overrides": {"containerOverrides": overrides, "inferenceAcceleratorOverrides": []},
        "platformVersion": "1.4.0",
        "platformFamily": "Linux",
        "tags": [],
        "taskArn": arn,
        "taskDefinitionArn": knobs.definition_arn(&task.definition),
        "version": task.version,
        "ephemeralStorage": {"sizeInGiB": 20},
    });
    if let Some(fields) = answer.as_object_mut() {
        optional(knobs, fields, task);
    }
    answer
}

/// Members that are absent until they mean something.
fn optional(knobs: &Knobs, fields: &mut Map<String, Value>, task: &Task) {
    let mut time = |name: &str, at: Option<Time>| {
        if let Some(at) = at {
            fields.insert(name.to_owned(), json!(at.epoch_seconds()));
        }
    };
    time("startedAt", task.started_at);
    time("pullStartedAt", task.started_at);
    time("pullStoppedAt", task.started_at);
    if let Some(stop) = &task.stop {
        time("stoppingAt", stop.stopping_at);
        time("executionStoppedAt", stop.execution_stopped_at);
        time("stoppedAt", stop.stopped_at);
        fields.insert("stopCode".to_owned(), json!(stop.cause.code()));
        fields.insert("stoppedReason".to_owned(), json!(stop.reason));
    }
    if let Some(deployment) = task.deployment {
        let by = knobs.started_by.as_ref().map_or_else(|| json!(deployment), |by| json!(by));
        fields.insert("startedBy".to_owned(), by);
    }
    if let Some(instance) = task.instance {
        fields.insert("containerInstanceArn".to_owned(), json!(knobs.instance_arn(&task.cluster, instance)));
        fields.insert("launchType".to_owned(), json!("EC2"));
    }
}

pub(super) fn instance(world: &World, instance: &ContainerInstance) -> Value {
    let knobs = world.knobs();
    let zone = format!("{}{}", knobs.region, char::from(b'a' + instance.zone % 26));
    let on_it = || world.state().tasks.values().filter(|task| task.instance == Some(instance.id) && task.is_live());
    let running = on_it().filter(|task| task.last == LastStatus::Running).count();
    json!({
        "containerInstanceArn": knobs.instance_arn(&instance.cluster, instance.id),
        "status": instance.status.as_str(),
        "agentConnected": true,
        "runningTasksCount": running,
        "pendingTasksCount": on_it().count() - running,
        "registeredAt": instance.registered_at.epoch_seconds(),
        "attributes": [{"name": "ecs.availability-zone", "value": zone}],
        "attachments": [],
        "tags": [],
    })
}

fn health(health: Health) -> &'static str {
    match health {
        Health::Unknown => "UNKNOWN",
        Health::Healthy => "HEALTHY",
        Health::Unhealthy => "UNHEALTHY",
    }
}

fn attachment_id(task: &Task) -> String {
    uuid(task.id.0.rotate_left(64))
}

/// Of the kind that is handed out locally, with the private address in it.
fn mac_address(task: &Task) -> String {
    let [a, b, c, d] = task.address.octets();
    format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

fn attachment(knobs: &Knobs, task: &Task) -> Value {
    let low = task.id.0 & 0xffff_ffff;
    let mut details = vec![
        json!({"name": "subnetId", "value": format!("subnet-{:08x}", u32::from(task.zone) + 1)}),
        json!({"name": "networkInterfaceId", "value": format!("eni-{low:08x}")}),
        json!({"name": "macAddress", "value": mac_address(task)}),
    ];
    // Without DNS host names in the VPC the interface has no such name.
    if matches!(knobs.hostname_shape, HostnameShape::Fqdn | HostnameShape::Short) {
        details.push(json!({"name": "privateDnsName", "value": task.private_dns_name(&knobs.region)}));
    }
    if !knobs.ipv6_only {
        details.push(json!({"name": "privateIPv4Address", "value": task.ip()}));
    }
    let status = match task.last {
        LastStatus::Provisioning => "PRECREATED",
        LastStatus::Stopped => "DELETED",
        _ => "ATTACHED",
    };
    json!({"id": attachment_id(task), "type": "ElasticNetworkInterface", "status": status, "details": details})
}

fn container(knobs: &Knobs, task: &Task, arn: &str, place: usize) -> Value {
    let definition = &task.definition.containers[place];
    let id = uuid(task.id.0.rotate_left(32) ^ (place as u128));
    let name = &task.cluster;
    let mut entry = json!({
        "containerArn": format!("arn:aws:ecs:{}:{}:container/{name}/{}/{id}", knobs.region, knobs.account, task.id),
        "taskArn": arn,
        "name": definition.name,
        "image": definition.image,
        "lastStatus": container_status(task, place),
        "networkInterfaces": [interface(knobs, task)],
        "healthStatus": health(task.health),
        "cpu": "0",
    });
    let state = task.containers[place];
    if matches!(state, ContainerState::Running | ContainerState::Exited(Some(_))) {
        entry["runtimeId"] = json!(task.runtime_id(place, knobs.hostname_shape));
        entry["imageDigest"] = json!(digest(&definition.image));
    }
    if let ContainerState::Exited(Some(code)) = state {
        entry["exitCode"] = json!(code);
    }
    if let (ContainerState::Exited(None), Some(stop)) = (state, &task.stop) {
        entry["reason"] = json!(stop.reason);
    }
    entry
}

fn interface(knobs: &Knobs, task: &Task) -> Value {
    let (name, address) =
        if knobs.ipv6_only { ("ipv6Address", task.ipv6()) } else { ("privateIpv4Address", task.ip()) };
    json!({"attachmentId": attachment_id(task), name: address})
}

/// What a registry would call the image by. It is pulled from none, so it has the same digest as long as it has the same name.
fn digest(image: &str) -> String {
    // FNV-1a, 64 bits wide, four times over.
    let hash = image
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("sha256:{}", format!("{hash:016x}").repeat(4))
}

fn container_status(task: &Task, place: usize) -> &'static str {
    match task.containers[place] {
        ContainerState::Exited(_) => "STOPPED",
        ContainerState::Running => "RUNNING",
        ContainerState::Waiting | ContainerState::Starting if task.last == LastStatus::Stopped => "STOPPED",
        ContainerState::Waiting | ContainerState::Starting => "PENDING",
    }
}
