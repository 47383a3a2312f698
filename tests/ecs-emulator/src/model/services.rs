//! The API for clusters, task definitions and services.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use serde_json::{Map, Value};

use super::{
    ApiError, ConfigurationChange, ContainerDefinition, DeploymentConfiguration, DeploymentId, Failure, Knobs,
    LastStatus, Operation, ReplaceTerminated, Service, ServiceId, ServiceStatus, State, Strategy, TaskDefinition,
    TaskId, Time, Transition, World,
};

/// `DescribeServices` takes at most so many services.
const MAX_DESCRIBE: usize = 10;

/// What `CreateService` asks for.
#[derive(Debug, Clone, Default)]
pub struct CreateService {
    /// Name or ARN of the cluster; empty for `default`.
    pub cluster: String,
    /// The new service's name.
    pub name: String,
    /// Name (`family`, `family:revision`) or ARN.
    pub task_definition: String,
    /// How many tasks.
    pub desired: u32,
    /// See [`DeploymentConfiguration`].
    pub configuration: DeploymentConfiguration,
    /// See [`Service::strategy`].
    pub strategy: Strategy,
    /// See [`Service::bake_minutes`].
    pub bake_minutes: u32,
    /// See [`Service::rebalances`]. What is not said is off here; ECS has it on for services that were made since 2025.
    pub rebalances: bool,
}

/// What `UpdateService` asks for; what is absent stays.
#[derive(Debug, Clone, Default)]
pub struct UpdateService {
    /// Name or ARN of the cluster; empty for `default`.
    pub cluster: String,
    /// Name or ARN.
    pub service: String,
    /// A new count.
    pub desired: Option<u32>,
    /// A new task definition, which means a new deployment if it differs.
    pub task_definition: Option<String>,
    /// A new deployment in any case.
    pub force_new_deployment: bool,
    /// See [`ConfigurationChange`].
    pub configuration: ConfigurationChange,
    /// See [`Service::strategy`].
    pub strategy: Option<Strategy>,
    /// See [`Service::bake_minutes`].
    pub bake_minutes: Option<u32>,
    /// See [`Service::rebalances`].
    pub rebalances: Option<bool>,
}

/// Tasks of a service, or of one of its deployments. Tasks that are to stop count in neither.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// `runningCount`.
    pub running: u32,
    /// `pendingCount`.
    pub pending: u32,
}

/// The answer of `DescribeServices`.
#[derive(Debug, Clone, Default)]
pub struct DescribedServices {
    /// Each with the counts of the service and of its deployments, in their order.
    pub services: Vec<(Service, Counts, Vec<Counts>)>,
    /// Services that do not exist.
    pub failures: Vec<Failure>,
}

impl Knobs {
    fn arn(&self, rest: &str) -> String {
        format!("arn:aws:ecs:{}:{}:{rest}", self.region, self.account)
    }

    /// ARN of a cluster.
    pub fn cluster_arn(&self, cluster: &str) -> String {
        self.arn(&format!("cluster/{cluster}"))
    }

    /// ARN of a service.
    pub fn service_arn(&self, cluster: &str, service: &str) -> String {
        self.arn(&format!("service/{cluster}/{service}"))
    }

    /// ARN of a task.
    pub fn task_arn(&self, cluster: &str, task: TaskId) -> String {
        self.arn(&format!("task/{cluster}/{task}"))
    }

    /// ARN of a task definition.
    pub fn definition_arn(&self, definition: &TaskDefinition) -> String {
        self.arn(&format!("task-definition/{}", definition.name()))
    }
}

impl State {
    /// The cluster's name, given its name or ARN; empty stands for `default`.
    pub(super) fn cluster_name(&self, given: &str) -> Result<String, ApiError> {
        let name = given.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("default");
        self.clusters.get(name).cloned().ok_or_else(ApiError::cluster_not_found)
    }

    fn find_service(&self, cluster: &str, given: &str) -> Option<&Service> {
        self.service(cluster, given.rsplit('/').next().unwrap_or(given))
    }

    /// The service, which must be in use.
    pub(super) fn active_service(&self, cluster: &str, given: &str) -> Result<&Service, ApiError> {
        let service = self.find_service(cluster, given).ok_or_else(ApiError::service_not_found)?;
        if service.status == ServiceStatus::Active { Ok(service) } else { Err(ApiError::service_not_active()) }
    }

    /// A task definition by `family`, `family:revision` or ARN.
    pub(super) fn definition(&self, given: &str) -> Result<&Arc<TaskDefinition>, ApiError> {
        let name = given.rsplit('/').next().unwrap_or(given);
        let found = match name.split_once(':') {
            Some((family, revision)) => {
                revision.parse().ok().and_then(|revision| self.definitions.get(&(family.to_owned(), revision)))
            }
            None => self
                .definitions
                .range((name.to_owned(), 0)..=(name.to_owned(), u32::MAX))
                .next_back()
                .map(|(_, definition)| definition),
        };
        found.ok_or_else(|| ApiError::client("Unable to describe task definition."))
    }

    /// Counts of a service, or of one of its deployments.
    pub fn counts(&self, service: &Service, deployment: Option<DeploymentId>) -> Counts {
        let mut counts = Counts::default();
        for task in service.tasks.iter().filter_map(|id| self.tasks.get(id)).filter(|task| task.is_live()) {
            if deployment.is_some() && task.deployment != deployment {
                continue;
            }
            if task.last == LastStatus::Running {
                counts.running += 1;
            } else {
                counts.pending += 1;
            }
        }
        counts
    }
}

impl World {
    /// `CreateCluster`. A cluster that exists stays as it is.
    pub fn create_cluster(&mut self, name: &str, now: Time) -> Result<String, ApiError> {
        self.call(Operation::CreateCluster, now, |world| {
            let name = if name.is_empty() { "default" } else { name };
            world.state.clusters.insert(name.to_owned());
            Ok(name.to_owned())
        })
    }

    /// `DescribeClusters`: which of these exist. All names if none is given would be `ListClusters`, so `default`.
    pub fn describe_clusters(&mut self, names: &[&str], now: Time) -> Result<(Vec<String>, Vec<Failure>), ApiError> {
        self.call(Operation::DescribeClusters, now, |world| {
            let (mut found, mut failures) = (Vec::new(), Vec::new());
            for &name in if names.is_empty() { &[""] } else { names } {
                match world.state.cluster_name(name) {
                    Ok(name) => found.push(name),
                    Err(_) => failures.push(world.missing(name, Knobs::cluster_arn)),
                }
            }
            Ok((found, failures))
        })
    }

    fn missing(&self, given: &str, arn: impl Fn(&Knobs, &str) -> String) -> Failure {
        let arn = if given.starts_with("arn:") { given.to_owned() } else { arn(&self.knobs, given) };
        Failure { arn, reason: "MISSING".to_owned(), detail: None }
    }

    /// `RegisterTaskDefinition`: the next revision of the family.
    pub fn register_task_definition(
        &mut self,
        family: &str,
        containers: Vec<ContainerDefinition>,
        document: Map<String, Value>,
        now: Time,
    ) -> Result<Arc<TaskDefinition>, ApiError> {
        self.call(Operation::RegisterTaskDefinition, now, |world| {
            if family.is_empty() {
                return Err(ApiError::client("Family contains invalid characters."));
            }
            if containers.is_empty() {
                return Err(ApiError::client("Container list cannot be empty."));
            }
            if !containers.iter().any(|container| container.essential) {
                return Err(ApiError::client("At least one container must be essential."));
            }
            let revision = world.state.definition(family).map_or(1, |latest| latest.revision + 1);
            let definition = Arc::new(TaskDefinition { family: family.to_owned(), revision, containers, document });
            world.state.definitions.insert((family.to_owned(), revision), definition.clone());
            Ok(definition)
        })
    }

    /// `DescribeTaskDefinition`, by `family`, `family:revision` or ARN.
    pub fn describe_task_definition(&mut self, name: &str, now: Time) -> Result<Arc<TaskDefinition>, ApiError> {
        self.call(Operation::DescribeTaskDefinition, now, |world| world.state.definition(name).cloned())
    }

    /// `CreateService`.
    pub fn create_service(&mut self, request: &CreateService, now: Time) -> Result<Service, ApiError> {
        self.call(Operation::CreateService, now, |world| {
            let cluster = world.state.cluster_name(&request.cluster)?;
            if request.name.is_empty() {
                return Err(ApiError::invalid("Service name cannot be empty."));
            }
            let definition = definition_for(&world.state, &request.task_definition)?;
            check(request.configuration)?;
            match world.state.service(&cluster, &request.name).map(|service| service.status) {
                Some(ServiceStatus::Active) => {
                    return Err(ApiError::invalid("Creation of service was not idempotent."));
                }
                Some(ServiceStatus::Draining) => {
                    return Err(ApiError::invalid("Unable to Start a service that is still Draining."));
                }
                Some(ServiceStatus::Inactive) | None => {}
            }
            let id = ServiceId(world.state.services.len());
            let tick_phase = world.rng.next_u64();
            world.state.services.push(Service {
                id,
                cluster,
                name: request.name.as_str().into(),
                status: ServiceStatus::Active,
                desired: request.desired,
                configuration: request.configuration,
                strategy: request.strategy,
                bake_minutes: request.bake_minutes,
                tags: BTreeMap::new(),
                rebalances: request.rebalances,
                moving: None,
                deployments: Vec::new(),
                events: VecDeque::new(),
                created_at: world.now,
                tasks: BTreeSet::new(),
                last_completed: None,
                force_deleted: false,
                steady: false,
                tick_at: None,
                tick_phase,
                last_block: None,
            });
            world.begin_deployment(id, definition);
            Ok(world.state.services[id.0].clone())
        })
    }

    /// `UpdateService`.
    pub fn update_service(&mut self, request: &UpdateService, now: Time) -> Result<Service, ApiError> {
        self.call(Operation::UpdateService, now, |world| {
            let cluster = world.state.cluster_name(&request.cluster)?;
            let service = world.state.active_service(&cluster, &request.service)?;
            let (id, before) = (service.id, service.desired);
            let current = service.primary().expect("an active service has a deployment").definition.clone();
            let configuration = request.configuration.applied_to(service.configuration);
            check(configuration)?;
            let definition = match &request.task_definition {
                Some(name) => definition_for(&world.state, name)?,
                None => current.clone(),
            };
            let deploys = request.force_new_deployment || definition.name() != current.name();
            if deploys {
                world.check_deployment_limit(id)?;
            }
            let service = &mut world.state.services[id.0];
            service.configuration = configuration;
            service.strategy = request.strategy.unwrap_or(service.strategy);
            service.bake_minutes = request.bake_minutes.unwrap_or(service.bake_minutes);
            service.rebalances = request.rebalances.unwrap_or(service.rebalances);
            let after = request.desired.unwrap_or(before);
            if after != before {
                service.desired = after;
                service.steady = false;
                world.record(Some(id), Transition::Desired { count: after });
            }
            if deploys {
                world.begin_deployment(id, definition);
            } else if world.knobs.replace_terminated != ReplaceTerminated::Primary {
                world.scale_out_old(id, before, after);
            }
            world.poke(id);
            Ok(world.state.services[id.0].clone())
        })
    }

    /// A service has at most so many deployments that are not over (aws/containers-roadmap#2836).
    fn check_deployment_limit(&self, id: ServiceId) -> Result<(), ApiError> {
        let service = &self.state.services[id.0];
        let primary = service.primary().map(|primary| primary.id);
        let alive = |number: DeploymentId| Some(number) == primary || self.live_of(id, number) > 0;
        let count = service.deployments.iter().filter(|deployment| alive(deployment.id)).count();
        match self.knobs.max_active_deployments {
            Some(max) if count >= max as usize => {
                Err(ApiError::invalid(format!("{count} active deployments exist, unable to create new deployment.")))
            }
            _ => Ok(()),
        }
    }

    /// `DeleteService`.
    pub fn delete_service(
        &mut self,
        cluster: &str,
        service: &str,
        force: bool,
        now: Time,
    ) -> Result<Service, ApiError> {
        self.call(Operation::DeleteService, now, |world| {
            let cluster = world.state.cluster_name(cluster)?;
            let service = world.state.active_service(&cluster, service)?;
            let id = service.id;
            let live = service.tasks.iter().any(|task| world.state.tasks[task].is_live());
            if !force && (service.desired > 0 || live) {
                return Err(ApiError::invalid(
                    "The service cannot be stopped while the primary deployment is scaled above 0.",
                ));
            }
            let service = &mut world.state.services[id.0];
            service.status = ServiceStatus::Draining;
            service.desired = 0;
            service.force_deleted = force;
            world.record(Some(id), Transition::Desired { count: 0 });
            world.poke(id);
            Ok(world.state.services[id.0].clone())
        })
    }

    /// `ListServices`: names of the services in use.
    pub fn list_services(&mut self, cluster: &str, now: Time) -> Result<Vec<String>, ApiError> {
        self.call(Operation::ListServices, now, |world| {
            let cluster = world.state.cluster_name(cluster)?;
            let (_, state) = world.view();
            let active = |service: &&Service| service.cluster == cluster && service.status == ServiceStatus::Active;
            Ok(state.services.iter().filter(active).map(|service| service.name.to_string()).collect())
        })
    }

    /// `DescribeServices`, by names or ARNs.
    pub fn describe_services(
        &mut self,
        cluster: &str,
        services: &[&str],
        now: Time,
    ) -> Result<DescribedServices, ApiError> {
        self.call(Operation::DescribeServices, now, |world| {
            let cluster = world.state.cluster_name(cluster)?;
            if services.is_empty() {
                return Err(ApiError::invalid("Services cannot be empty."));
            }
            if services.len() > MAX_DESCRIBE {
                return Err(ApiError::invalid(format!("Services can have at most {MAX_DESCRIBE} items.")));
            }
            let mut answer = DescribedServices::default();
            let mut missing = Vec::new();
            let (_, state) = world.view();
            for &given in services {
                let Some(service) = state.find_service(&cluster, given) else {
                    missing.push(given);
                    continue;
                };
                answer.services.push(state.with_counts(service));
            }
            for given in missing {
                answer.failures.push(world.missing(given, |knobs, name| knobs.service_arn(&cluster, name)));
            }
            Ok(answer)
        })
    }
}

impl State {
    /// A service with its counts and those of its deployments.
    pub fn with_counts(&self, service: &Service) -> (Service, Counts, Vec<Counts>) {
        let deployments =
            service.deployments.iter().map(|deployment| self.counts(service, Some(deployment.id))).collect();
        (service.clone(), self.counts(service, None), deployments)
    }
}

fn definition_for(state: &State, name: &str) -> Result<Arc<TaskDefinition>, ApiError> {
    if name.is_empty() {
        return Err(ApiError::invalid("TaskDefinition can not be blank."));
    }
    state.definition(name).cloned().map_err(|_| ApiError::client("TaskDefinition not found."))
}

/// Bounds that leave the scheduler nothing to do are refused, as ECS does.
fn check(configuration: DeploymentConfiguration) -> Result<(), ApiError> {
    let DeploymentConfiguration { minimum_healthy_percent: min, maximum_percent: max, breaker: _ } = configuration;
    if max == 0 || max < min || max > 10_000 {
        return Err(ApiError::invalid(
            "maximumPercent must be greater than minimumHealthyPercent and not above 10000.",
        ));
    }
    Ok(())
}
