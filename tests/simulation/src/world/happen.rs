//! What happens to the world: the lives of containers and workers, and the beats of the script.

use ecs_emulator::model::{self as ecs, Faults, Health, Interruption, Knobs, Time, UpdateService};

use super::{CLUSTER, Event, Node, NodeState, SERVICE, World};
use crate::{
    remote::{Host, node_name},
    script::{Happening, Outage},
    setup::{MINUTE, SECOND},
};

impl World {
    pub(super) fn start_container(&mut self, task: ecs::TaskId) {
        let m = self.member_of(task);
        let (remote, nodes) = (self.setup.remote, usize::from(self.setup.work.nodes));
        if let Some(task) = self.ecs.task(task) {
            let member = &mut self.members[m];
            member.identity = remote.identity(task, nodes);
            member.hosts = (0..nodes).map(|n| remote.host(task, member.id.as_str(), n)).collect();
        }
        for n in 0..nodes {
            let name = node_name(&self.members[m].hosts[n], n, false);
            self.tell(|| format!("{name} comes up in t{}", m + 1));
            self.members[m].nodes.push(Node { started_at: self.now, ..Node::booting(name, 0) });
            let boots = self.delay_chance.between(500, self.setup.work.boot);
            self.at(self.now + boots, Event::NodeReady(m, n, 0));
        }
        self.ecs.container_started(task, 0, Time(self.now));
        let revision = self.ecs.task(task).map_or(0, |task| task.definition.revision);
        if self.bad.contains(&revision) {
            let after = self.delay_chance.between(SECOND, 25 * SECOND);
            self.at(self.now + after, Event::Exit(m));
        }
    }

    pub(super) fn node_ready(&mut self, m: usize, n: usize, epoch: u32) {
        let own = self.setup.work.own();
        let node = &mut self.members[m].nodes[n];
        if node.epoch != epoch {
            return;
        }
        match node.state {
            NodeState::Booting => {
                node.state = NodeState::Up;
                node.consuming = own;
                node.came_back_at = self.now;
            }
            NodeState::Frozen(until) if until <= self.now => {
                node.state = NodeState::Up;
                node.thawed_at = self.now;
                if node.told_to_end {
                    self.end(m, n);
                    return;
                }
                // It may have thawed sooner than it was to, and what waits for its pace was put off until then.
                self.at(self.now, Event::Token(m, n, epoch));
                self.at(self.now, Event::Kept(m, n, epoch));
            }
            NodeState::Reconnecting => node.state = NodeState::Up,
            _ => return,
        }
        self.tell(|| format!("the worker of t{} is up", m + 1));
        self.pump();
    }

    pub(super) fn terminate(&mut self, task: ecs::TaskId) {
        let m = self.member_of(task);
        self.stop_was_decided(m);
        for n in 0..self.members[m].nodes.len() {
            self.end(m, n);
        }
    }

    /// SIGTERM: what runs is finished, what waits goes back.
    fn end(&mut self, m: usize, n: usize) {
        let node = &mut self.members[m].nodes[n];
        match node.state {
            NodeState::Frozen(_) => node.told_to_end = true,
            NodeState::Gone | NodeState::Ending => {}
            NodeState::Booting | NodeState::Up | NodeState::Reconnecting => {
                node.state = NodeState::Ending;
                node.consuming = 0;
                self.end_if_idle(m, n);
            }
        }
    }

    pub(super) fn end_if_idle(&mut self, m: usize, n: usize) {
        if self.members[m].nodes[n].active.is_empty() {
            self.give_up_held(m, n);
            self.members[m].nodes[n].state = NodeState::Gone;
            self.pump();
            self.exit_if_all_gone(m, 0);
        }
    }

    fn exit_if_all_gone(&mut self, m: usize, code: i32) {
        if self.members[m].nodes.iter().all(|node| node.state == NodeState::Gone) {
            self.ecs.container_exited(self.members[m].ecs, 0, code, Time(self.now));
        }
    }

    pub(super) fn kill(&mut self, task: ecs::TaskId) {
        let m = self.member_of(task);
        for n in 0..self.members[m].nodes.len() {
            self.cut_off(m, n, true);
        }
        self.exit_if_all_gone(m, 137);
        self.pump();
    }

    /// A container exits by itself.
    pub(super) fn exit(&mut self, m: usize) {
        if self.members[m].nodes.iter().all(|node| node.state == NodeState::Gone) {
            return;
        }
        self.tell(|| format!("the container of t{} exits by itself", m + 1));
        for n in 0..self.members[m].nodes.len() {
            self.cut_off(m, n, false);
        }
        self.exit_if_all_gone(m, 1);
        self.disturbed_at = self.now;
        self.pump();
    }

    pub(super) fn restart(&mut self, m: usize, n: usize, renamed: bool) {
        if matches!(self.members[m].nodes[n].state, NodeState::Gone | NodeState::Ending) {
            return;
        }
        self.cut_off(m, n, false);
        let epoch = self.members[m].nodes[n].epoch + 1;
        let name = node_name(&self.members[m].hosts[n], n, renamed);
        self.tell(|| format!("the worker of t{} restarts as {name}", m + 1));
        let Node { heard, told, .. } = self.members[m].nodes[n];
        self.members[m].nodes[n] = Node { heard, told, started_at: self.now, ..Node::booting(name, epoch) };
        let boots = self.delay_chance.between(500, 6 * SECOND);
        self.at(self.now + boots, Event::NodeReady(m, n, epoch));
        self.disturbed_at = self.now;
        self.pump();
    }

    fn reconnect(&mut self, m: usize, n: usize, with_all_queues: bool) {
        let work = self.setup.work;
        let (every, forgets) = (work.every(), work.forgets_added);
        let node = &mut self.members[m].nodes[n];
        if node.state != NodeState::Up {
            return;
        }
        node.state = NodeState::Reconnecting;
        if forgets {
            node.excused |= node.orphaned && node.added != 0;
            node.consuming &= !node.added;
            node.added = 0;
        }
        // It takes up what it only sends to. Whether it was told meanwhile to take no jobs makes no difference to that.
        let takes_up = if work.only_sends { every & !work.own() } else { 0 };
        let consuming = if with_all_queues { every } else { node.consuming | takes_up };
        let comes_back = node.consuming != consuming;
        if comes_back {
            node.consuming = consuming;
            node.came_back_at = self.now + 4 * SECOND;
        }
        let epoch = node.epoch;
        self.members[m].track.fed += u32::from(comes_back);
        self.lose_broker(m, n);
        self.tell(|| format!("the worker of t{} reconnects", m + 1));
        let takes = self.delay_chance.between(SECOND, 4 * SECOND);
        self.at(self.now + takes, Event::NodeReady(m, n, epoch));
        self.disturbed_at = self.now;
    }

    /// Somebody else has a worker take jobs from its queues.
    fn add_queues(&mut self, m: usize, n: usize) {
        let own = self.setup.work.own();
        let node = &mut self.members[m].nodes[n];
        if node.consuming & own != own {
            node.consuming |= own;
            node.came_back_at = self.now;
            self.members[m].track.fed += 1;
            self.pump();
        }
    }

    /// A worker that works, chosen by `pick`.
    fn worker(&self, pick: u64) -> Option<(usize, usize)> {
        let nodes: Vec<(usize, usize)> = self
            .members
            .iter()
            .enumerate()
            .flat_map(|(m, member)| (0..member.nodes.len()).map(move |n| (m, n)))
            .filter(|(m, n)| self.members[*m].nodes[*n].state == NodeState::Up)
            .collect();
        nodes.get(usize::try_from(pick % (nodes.len() as u64).max(1)).unwrap_or(0)).copied()
    }

    pub(super) fn beat(&mut self, index: usize) {
        let beat = self.setup.script[index];
        if self.calm {
            return;
        }
        if let Some(fault) = beat.fault {
            self.tally.fault(fault);
        }
        self.tell(|| format!("*** {:?}", beat.what));
        match beat.what {
            Happening::Deploy
            | Happening::ForceDeploy
            | Happening::DeployUnstartable
            | Happening::DeployCrashing
            | Happening::DeployPrevious
            | Happening::Scale(_)
            | Happening::ScaleToZero
            | Happening::Rebalance
            | Happening::DeleteService => self.deploy(beat.what),
            Happening::DrainInstance(pick, back_after) => self.drain_instance(pick, back_after),
            Happening::Outage(outage, lasts) => self.outage(outage, lasts),
            Happening::Kill(awaits, down) => self.gate_for(awaits).die_in = Some((awaits, down)),
            Happening::Pause(awaits, lasts) => self.gate_for(awaits).pause_in = Some((awaits, lasts)),
            Happening::LoseLease(awaits, lasts) => {
                self.gates[0].pause_in = Some((awaits, lasts));
                self.second_until = self.second_until.max(self.now + lasts + MINUTE);
            }
            Happening::SecondOperator(lasts) => self.second_until = self.now + lasts,
            // What was taken away before anybody was cancelled is not known to anybody (docs/limits.md).
            Happening::Limit(limit) => self.limit = self.limit.max(limit),
            Happening::ClockJump(by) => self.skew[0] += by,
            Happening::EditPolicy(_) | Happening::PausePolicy(_) | Happening::PlanMode(_) | Happening::Withdraw(_) => {
                self.edit(beat.what);
            }
            what => self.strike(what),
        }
    }

    fn gate_for(&mut self, awaits: u32) -> &mut crate::operator::Gate {
        let second = self.second_until > self.now && awaits.is_multiple_of(2);
        &mut self.gates[usize::from(second)]
    }

    /// Something befalls one task or worker.
    fn strike(&mut self, what: Happening) {
        let (Happening::LoseHold(pick)
        | Happening::Freeze(pick, _)
        | Happening::Restart(pick)
        | Happening::Reconnect(pick)
        | Happening::AddQueues(pick)
        | Happening::Rename(pick, _)
        | Happening::Ambiguous(pick, _)
        | Happening::Exit(pick)
        | Happening::Unhealthy(pick)
        | Happening::StopTask(pick)
        | Happening::Spot(pick, _)) = what
        else {
            return;
        };
        let Some((m, n)) = self.worker(pick) else { return };
        self.tell(|| format!("    … to t{}", m + 1));
        let (task, now) = (self.members[m].ecs, Time(self.now));
        self.disturbed_at = self.now;
        match what {
            Happening::LoseHold(_) => self.lose_hold(m),
            Happening::Freeze(_, lasts) => {
                let node = &mut self.members[m].nodes[n];
                node.state = NodeState::Frozen(self.now + lasts);
                let epoch = node.epoch;
                self.at(self.now + lasts, Event::NodeReady(m, n, epoch));
            }
            Happening::Restart(_) => self.restart(m, n, false),
            Happening::AddQueues(_) => self.add_queues(m, n),
            Happening::Reconnect(pick) => self.reconnect(m, n, pick.is_multiple_of(3)),
            Happening::Rename(_, lasts) => {
                self.members[m].renamed = true;
                self.restart(m, n, true);
                self.at(self.now + lasts, Event::NameBack(m, n));
            }
            Happening::Ambiguous(pick, lasts) => self.confuse(m, pick, self.now + lasts),
            Happening::Exit(_) => self.exit(m),
            Happening::Unhealthy(_) => self.ecs.set_health(task, Health::Unhealthy, now),
            Happening::StopTask(_) => {
                let hex = self.members[m].hex.clone();
                self.ecs.stop_task(CLUSTER, &hex, "", now).ok();
            }
            Happening::Spot(_, notice) => {
                let kind = if pick.is_multiple_of(2) { Interruption::Spot } else { Interruption::Maintenance };
                self.ecs.interrupt(task, kind, std::time::Duration::from_millis(notice), now);
            }
            _ => {}
        }
    }

    /// It can no longer be told which node is whose: another process answers under the same name, or ECS tells the same
    /// of two tasks, as it would of two on one host's network.
    fn confuse(&mut self, m: usize, pick: u64, until: u64) {
        let running = |other: &usize| *other != m && !self.members[*other].hosts.is_empty();
        let others: Vec<usize> = (0..self.members.len()).filter(running).collect();
        let other = others.get(usize::try_from(pick / 2).unwrap_or(0) % others.len().max(1)).copied();
        match other.filter(|_| pick.is_multiple_of(2) && self.setup.remote.host != Host::TaskId) {
            Some(other) => {
                let member = &mut self.members[m];
                (member.double, member.confused) = (Some((until, other)), true);
            }
            None => self.members[m].twin_until = until,
        }
    }

    pub(super) fn deploy(&mut self, what: Happening) {
        let mut request = UpdateService { service: SERVICE.to_owned(), ..UpdateService::default() };
        let (desired, definition) = (self.service().desired, self.definition());
        match what {
            Happening::Deploy => request.task_definition = Some(self.register()),
            Happening::ForceDeploy => request.force_new_deployment = true,
            Happening::DeployUnstartable => {
                let name = self.register();
                let mut faults = self.ecs.faults().clone();
                faults.unstartable.insert(name.clone());
                self.ecs.set_faults(faults);
                request.task_definition = Some(name);
            }
            Happening::DeployCrashing => {
                request.task_definition = Some(self.register());
                self.bad.push(self.definitions);
            }
            Happening::DeployPrevious => {
                let previous = definition.saturating_sub(1).max(1);
                request.task_definition = Some(format!("app:{previous}"));
            }
            Happening::Scale(by) => request.desired = Some(desired.saturating_add_signed(by).min(5)),
            Happening::ScaleToZero => request.desired = Some(0),
            Happening::Rebalance => {
                let knobs = self.ecs.knobs().clone();
                self.ecs.set_knobs(Knobs { zones: knobs.zones + 2, ..knobs });
                request.rebalances = Some(true);
            }
            _ => {
                self.deleted = self.ecs.delete_service(CLUSTER, SERVICE, true, Time(self.now)).is_ok() || self.deleted;
                self.disturbed_at = self.now;
                return;
            }
        }
        if let Err(error) = self.ecs.update_service(&request, Time(self.now)) {
            self.tell(|| format!("    … refused: {error}"));
        }
        self.disturbed_at = self.now;
    }

    fn definition(&self) -> u32 {
        self.service().primary().map_or(1, |primary| primary.definition.revision)
    }

    fn outage(&mut self, outage: Outage, lasts: u64) {
        let until = self.now + lasts;
        self.outages[outage as usize] = self.outages[outage as usize].max(until);
        self.at(until, Event::OutageOver(outage));
        // It refuses connections, or is merely silent.
        if outage == Outage::BrokerDown && self.delay_chance.percent(50) {
            self.hang_up_all();
        }
        if outage == Outage::HoldsRefused {
            let refuse = Some("DEPLOYMENT_BLOCKED".to_owned());
            let faults = Faults { refuse_protection: refuse, ..self.ecs.faults().clone() };
            self.ecs.set_faults(faults);
        }
    }

    pub(super) fn outage_over(&mut self, outage: Outage) {
        if self.is_out(outage) {
            return;
        }
        self.tell(|| format!("*** {outage:?} is over"));
        match outage {
            Outage::HoldsRefused => {
                let faults = Faults { refuse_protection: None, ..self.ecs.faults().clone() };
                self.ecs.set_faults(faults);
            }
            Outage::BrokerDown => {
                self.hang_up_all();
                for m in 0..self.members.len() {
                    for n in 0..self.members[m].nodes.len() {
                        self.reconnect(m, n, false);
                    }
                }
                self.pump();
            }
            _ => {}
        }
    }
}
