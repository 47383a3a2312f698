//! Container instances: machines of the account's own that tasks are placed on.
//!
//! Rules: AWS, "Draining Amazon ECS container instances". A cluster that has instances places the tasks of its services on
//! them, and on nothing else. A task on an instance that is set to `DRAINING` is wanted no more: a replacement is started
//! elsewhere, where `maximumPercent` allows it, and then the task is stopped, as far as `minimumHealthyPercent` allows. Whether
//! protection keeps it from being stopped is not documented, so that is a [knob](super::Knobs::draining_protected).

use super::{ApiError, Failure, InstanceId, Knobs, Operation, ServiceId, TaskId, Time, World};

/// `status` of a container instance, as far as it is modelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceStatus {
    /// Tasks are placed on it.
    Active,
    /// It is being emptied.
    Draining,
}

impl InstanceStatus {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Draining => "DRAINING",
        }
    }
}

/// One container instance.
#[derive(Debug, Clone)]
pub struct ContainerInstance {
    /// Its id.
    pub id: InstanceId,
    /// The cluster's name.
    pub cluster: String,
    /// Which availability zone, from zero.
    pub zone: u8,
    /// See [`InstanceStatus`].
    pub status: InstanceStatus,
    /// When it was registered.
    pub registered_at: Time,
}

/// Where a task is placed.
pub(super) enum Place {
    /// In this zone, on no instance of the account's own.
    Zone(u8),
    /// On this instance.
    Instance(InstanceId, u8),
    /// Nowhere: no instance takes tasks.
    Nowhere,
}

impl Knobs {
    /// ARN of a container instance.
    pub fn instance_arn(&self, cluster: &str, instance: InstanceId) -> String {
        format!("arn:aws:ecs:{}:{}:container-instance/{cluster}/{instance}", self.region, self.account)
    }
}

impl World {
    /// `RegisterContainerInstance`, as the agent calls it, in this zone.
    pub fn register_container_instance(
        &mut self,
        cluster: &str,
        zone: u8,
        now: Time,
    ) -> Result<ContainerInstance, ApiError> {
        self.call(Operation::RegisterContainerInstance, now, |world| {
            let cluster = world.state.cluster_name(cluster)?;
            let id = InstanceId(world.rng.next_u128());
            let registered_at = world.now;
            let instance = ContainerInstance { id, cluster, zone, status: InstanceStatus::Active, registered_at };
            world.state.instances.insert(id, instance.clone());
            world.poke_all();
            Ok(instance)
        })
    }

    /// `UpdateContainerInstancesState`, by ids or ARNs.
    pub fn update_container_instances_state(
        &mut self,
        cluster: &str,
        instances: &[&str],
        status: InstanceStatus,
        now: Time,
    ) -> Result<(Vec<ContainerInstance>, Vec<Failure>), ApiError> {
        self.call(Operation::UpdateContainerInstancesState, now, |world| {
            let cluster = world.state.cluster_name(cluster)?;
            for given in instances {
                let id = parse(given)?;
                let known = world.state.instances.get_mut(&id).filter(|known| known.cluster == cluster);
                if let Some(known) = known {
                    known.status = status;
                }
            }
            world.poke_all();
            world.find(&cluster, instances)
        })
    }

    /// `DescribeContainerInstances`, by ids or ARNs.
    pub fn describe_container_instances(
        &mut self,
        cluster: &str,
        instances: &[&str],
        now: Time,
    ) -> Result<(Vec<ContainerInstance>, Vec<Failure>), ApiError> {
        self.call(Operation::DescribeContainerInstances, now, |world| {
            let cluster = world.state.cluster_name(cluster)?;
            world.find(&cluster, instances)
        })
    }

    fn find(&mut self, cluster: &str, instances: &[&str]) -> Result<(Vec<ContainerInstance>, Vec<Failure>), ApiError> {
        let (mut found, mut failures) = (Vec::new(), Vec::new());
        let ids: Vec<InstanceId> = instances.iter().map(|given| parse(given)).collect::<Result<_, _>>()?;
        let (_, state) = self.view();
        let seen: Vec<_> = ids.iter().map(|id| (*id, state.instances.get(id).cloned())).collect();
        for (id, instance) in seen {
            if let Some(instance) = instance.filter(|instance| instance.cluster == cluster) {
                found.push(instance);
            } else {
                let arn = self.knobs.instance_arn(cluster, id);
                failures.push(Failure { arn, reason: "MISSING".to_owned(), detail: None });
            }
        }
        Ok((found, failures))
    }

    /// Whether a task is on an instance that is being emptied.
    pub fn is_displaced(&self, task: TaskId) -> bool {
        let instance = self.state.tasks[&task].instance.and_then(|id| self.state.instances.get(&id));
        instance.is_some_and(|instance| instance.status == InstanceStatus::Draining)
    }

    /// Whether a task of this service can be placed in this zone.
    pub(super) fn takes_tasks(&self, service: ServiceId, zone: usize) -> bool {
        let cluster = &self.state.services[service.0].cluster;
        let mut own = self.state.instances.values().filter(|instance| instance.cluster == *cluster).peekable();
        own.peek().is_none()
            || own.any(|known| usize::from(known.zone) == zone && known.status == InstanceStatus::Active)
    }

    /// The instance with the fewest tasks, in the zone of these that has the fewest tasks of the service.
    pub(super) fn place(&mut self, service: ServiceId) -> Place {
        let cluster = &self.state.services[service.0].cluster;
        let own = || self.state.instances.values().filter(|instance| instance.cluster == *cluster);
        if own().next().is_none() {
            return Place::Zone(self.emptiest_zone(service));
        }
        let live = || self.state.tasks.values().filter(|task| task.is_live());
        let in_zone = |zone| live().filter(|task| task.service == Some(service) && task.zone == zone).count();
        let on = |id| live().filter(|task| task.instance == Some(id)).count();
        let active = own().filter(|instance| instance.status == InstanceStatus::Active);
        active
            .min_by_key(|instance| (in_zone(instance.zone), on(instance.id), instance.id))
            .map_or(Place::Nowhere, |instance| Place::Instance(instance.id, instance.zone))
    }
}

fn parse(given: &str) -> Result<InstanceId, ApiError> {
    let digits = given.rsplit('/').next().unwrap_or(given);
    u128::from_str_radix(digits, 16)
        .map(InstanceId)
        .map_err(|_| ApiError::invalid("containerInstanceId length should be one of [32,36]"))
}
