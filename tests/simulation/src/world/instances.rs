//! Container instances of the account's own, which somebody sets to DRAINING, and perhaps back to ACTIVE.

use ecs_emulator::model::{DrainingProtected, InstanceId, InstanceStatus, Knobs, Time};

use super::{CLUSTER, Event, World};
use crate::chance::Chance;

/// So many are in each of two zones.
const IN_A_ZONE: u8 = 2;

impl World {
    /// The cluster has instances from the first on; and whether task protection keeps ECS from stopping a task on one that is set to
    /// DRAINING is chosen by the seed, because it is not documented.
    pub(super) fn register_instances(&mut self) {
        let mut chance = Chance::new(self.setup.seed, "draining protected");
        let draining_protected = chance.pick(&[DrainingProtected::Holds, DrainingProtected::Stops]);
        self.ecs.set_knobs(Knobs { draining_protected, ..self.ecs.knobs().clone() });
        for zone in (0..2).flat_map(|zone| (0..IN_A_ZONE).map(move |_| zone)) {
            self.ecs.register_container_instance(CLUSTER, zone, Time(0)).expect("an instance can be registered");
        }
    }

    /// One is emptied, unless it is the last that takes tasks.
    pub(super) fn drain_instance(&mut self, pick: u64, back_after: Option<u64>) {
        let instances = &self.ecs.state().instances;
        let active: Vec<InstanceId> =
            instances.values().filter(|known| known.status == InstanceStatus::Active).map(|known| known.id).collect();
        if active.len() < 2 {
            return;
        }
        let chosen = active[usize::try_from(pick).unwrap_or(0) % active.len()];
        self.set_instance(chosen, InstanceStatus::Draining);
        if let Some(after) = back_after {
            self.at(self.now + after, Event::InstanceBack(chosen));
        }
    }

    pub(super) fn set_instance(&mut self, id: InstanceId, status: InstanceStatus) {
        self.tell(|| format!("    instance {id} is {}", status.as_str()));
        let known = self.ecs.update_container_instances_state(CLUSTER, &[&id.to_string()], status, Time(self.now));
        known.expect("a registered instance can be changed");
        self.disturbed_at = self.now;
    }

    /// ECS stops this task because of the instance that it is on, held or not.
    pub(super) fn is_taken_with_its_instance(&self, m: usize) -> bool {
        self.ecs.knobs().draining_protected == DrainingProtected::Stops && self.ecs.is_displaced(self.members[m].ecs)
    }
}
