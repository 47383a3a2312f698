//! The scheduler: a rolling deployment that starts what its ceiling allows, and stops what is old and not held.

use std::collections::BTreeMap;

use worker_drain_plan::observation::{Displaced, Life};

use super::{Member, World, consuming};

impl World {
    /// One step of the scheduler: it stops what it may, and starts what it can.
    pub fn schedule(&mut self) -> &mut Self {
        self.stop_some();
        self.start_some();
        self
    }

    fn start_some(&mut self) {
        let ceiling = self.desired * self.maximum_percent / 100;
        while self.live().count() < ceiling as usize
            && self.live().filter(|(_, member)| member.revision == self.current).count() < self.desired as usize
        {
            self.start(self.current);
        }
    }

    pub fn start(&mut self, revision: usize) -> String {
        self.made += 1;
        let name = format!("t{}", self.made);
        let mut member = Member {
            revision,
            life: Life::Running,
            started_at: Some(self.now),
            held_until: None,
            permitted: false,
            nodes: BTreeMap::new(),
            unmapped: None,
            displaced: Displaced::No,
            zone: None,
            alike: self.alike.clone(),
        };
        if self.workers_come_up {
            member.nodes.insert(format!("celery@{name}"), consuming());
        }
        self.tasks.insert(name.clone(), member);
        name
    }

    /// New tasks start, and nothing is stopped yet.
    pub fn start_all(&mut self) -> &mut Self {
        self.start_some();
        self
    }

    fn stop_some(&mut self) {
        let lower = (self.desired * self.minimum_percent).div_ceil(100) as usize;
        let names: Vec<String> = self.tasks.keys().cloned().collect();
        for name in names {
            let healthy = self.live().filter(|(_, member)| member.life == Life::Running).count();
            let current = self.live().filter(|(_, member)| member.revision == self.current).count();
            let member = &self.tasks[&name];
            let live = matches!(member.life, Life::Running | Life::Starting);
            let surplus = member.revision != self.current || current > self.desired as usize;
            if live && surplus && member.held_until.is_none() && healthy > lower {
                self.stop(&name);
            }
        }
    }

    /// The scheduler stops a task. The main rule, seen from outside: no job dies by our permit.
    pub fn stop(&mut self, name: &str) {
        let member = self.tasks.get_mut(name).unwrap();
        let jobs: usize = member.nodes.values().filter(|node| !node.restarted).map(|node| node.active.len()).sum();
        assert!(!member.permitted || jobs == 0, "{name} was permitted to stop and had {jobs} jobs\n{}", self.story);
        member.life = Life::Stopped { reason: "Scaling activity initiated by deployment".into(), exit_code: Some(0) };
        member.nodes.clear();
        member.held_until = None;
    }
}
