//! Jobs and those who run them. Each job is accounted for by its id: it is queued, on its way, held, runs, has ended, or
//! was cut off.

use worker_drain::workers::celery::{Count, Delivered};

use super::{Event, JobId, Node, NodeState, World};
use crate::{
    remote::Receivers,
    script::Outage,
    setup::{Lost, SECOND},
};

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// At the broker.
    Queued,
    /// With a worker, running or not.
    Delivered,
    /// Over.
    Done,
    /// Cut off by the end of its worker, and gone.
    Lost,
}

/// One job.
#[derive(Clone, Debug)]
pub struct Job {
    /// What Celery calls it.
    pub id: String,
    /// In which queue it came.
    pub queue: u8,
    /// How long it runs.
    pub lasts: u64,
    /// Not before this.
    pub eta: u64,
    /// How often it still fails and is retried.
    pub retries: u8,
    /// Where it is.
    pub state: JobState,
    /// When it last reached a worker.
    pub delivered_at: u64,
    /// When it began to run.
    pub started_at: u64,
}

impl World {
    pub(super) fn job_arrives(&mut self) {
        if self.calm || self.deleted {
            return;
        }
        let work = self.setup.work;
        let chance = &mut self.work_chance;
        let queue = u8::try_from(chance.below(u64::from(work.queues))).unwrap_or(0);
        let lasts = chance.between(100, work.longest);
        let later = work.eta_one_in > 0 && chance.below(work.eta_one_in) == 0;
        let eta = if later { self.now + chance.between(SECOND, 90 * SECOND) } else { 0 };
        let retries = u8::from(work.retry_one_in > 0 && chance.below(work.retry_one_in) == 0);
        let next = self.now + chance.between(1, work.gap);
        let id = self.jobs.len();
        let id_told = format!("job-{id}");
        let state = JobState::Queued;
        let job = Job { id: id_told, queue, lasts, eta, retries, state, delivered_at: 0, started_at: 0 };
        self.jobs.push(job);
        self.queued[usize::from(queue)].push_back(id);
        self.at(next, Event::JobArrives);
        self.pump();
    }

    /// Whoever sent the jobs that still wait takes them back.
    pub(super) fn recall_queued(&mut self) {
        for job in self.queued.iter_mut().flat_map(|queue| queue.drain(..)) {
            self.jobs[job].state = JobState::Done;
        }
    }

    /// What the broker tells of a queue: what waits, and what is delivered and not acknowledged, which RabbitMQ does not
    /// tell.
    pub fn count(&self, queue: u8) -> Count {
        let ready = number(self.queued[usize::from(queue)].len());
        let nodes = self.members.iter().flat_map(|member| &member.nodes);
        let delivered = if self.setup.remote.receivers == Receivers::Untold {
            let takes = |node: &&Node| {
                matches!(node.state, NodeState::Up | NodeState::Frozen(_)) && node.consuming >> queue & 1 == 1
            };
            Delivered::To(number(nodes.filter(takes).count()))
        } else {
            let late = self.setup.work.acks_late;
            let with = |node: &Node| {
                let all = node.held().chain(node.active.iter().filter(|_| late));
                number(all.filter(|job| self.jobs[**job].queue == queue).count())
            };
            Delivered::Counted(nodes.map(with).sum())
        };
        Count { ready, delivered, known: true }
    }

    /// Hands queued jobs to workers that can take them.
    pub fn pump(&mut self) {
        if self.is_out(Outage::BrokerDown) {
            return;
        }
        let most = self.setup.work.concurrency + self.setup.work.prefetch;
        for queue in 0..self.queued.len() {
            while let Some(job) = self.queued[queue].front().copied() {
                let able =
                    |node: &Node| node.state == NodeState::Up && node.consuming >> queue & 1 == 1 && node.load() < most;
                let nodes: Vec<(usize, usize)> = self
                    .members
                    .iter()
                    .enumerate()
                    .flat_map(|(m, member)| (0..member.nodes.len()).map(move |n| (m, n)))
                    .filter(|(m, n)| able(&self.members[*m].nodes[*n]))
                    .collect();
                if nodes.is_empty() {
                    break;
                }
                let (m, n) = self.deliver_chance.pick(&nodes);
                let travels = self.deliver_chance.between(1, 400);
                self.queued[queue].pop_front();
                self.jobs[job].state = JobState::Delivered;
                let node = &mut self.members[m].nodes[n];
                node.in_flight.push(job);
                let epoch = node.epoch;
                self.at(self.now + travels, Event::Deliver(m, n, epoch, job));
            }
        }
    }

    fn is_with(&self, m: usize, n: usize, epoch: u32) -> bool {
        self.members[m].nodes.get(n).is_some_and(|node| node.epoch == epoch && node.state != NodeState::Gone)
    }

    pub(super) fn delivered(&mut self, m: usize, n: usize, epoch: u32, job: JobId) {
        if !self.is_with(m, n, epoch) {
            return; // It went back when the process ended.
        }
        match self.members[m].nodes[n].state {
            NodeState::Frozen(until) => {
                let travels = self.deliver_chance.between(1, 400);
                self.at(until + travels, Event::Deliver(m, n, epoch, job));
            }
            NodeState::Up => {
                let (now, eta) = (self.now, self.jobs[job].eta);
                self.jobs[job].delivered_at = now;
                self.members[m].nodes[n].worked_at = now;
                let node = &mut self.members[m].nodes[n];
                node.in_flight.retain(|other| *other != job);
                if eta > now {
                    node.scheduled.push(job);
                    self.at(eta, Event::EtaDue(m, n, epoch, job));
                } else {
                    self.received(m, n, job);
                }
            }
            _ => self.give_up(m, n, job),
        }
    }

    pub(super) fn eta_due(&mut self, m: usize, n: usize, epoch: u32, job: JobId) {
        if !self.is_with(m, n, epoch) || !self.members[m].nodes[n].scheduled.contains(&job) {
            return;
        }
        if let NodeState::Frozen(until) = self.members[m].nodes[n].state {
            self.at(until + 1, Event::EtaDue(m, n, epoch, job));
            return;
        }
        let node = &mut self.members[m].nodes[n];
        if node.state != NodeState::Ending {
            node.scheduled.retain(|other| *other != job);
            self.received(m, n, job);
        }
    }

    /// A job is to run: at once, or when the rate limit lets it.
    fn received(&mut self, m: usize, n: usize, job: JobId) {
        let node = &mut self.members[m].nodes[n];
        if self.limit == 0 {
            node.reserved.push_back(job);
            self.begin_jobs(m, n);
            return;
        }
        node.limited.push_back(job);
        if node.limited.len() == 1 {
            node.pace = self.limit;
            let (epoch, at) = (node.epoch, node.next_token.max(self.now));
            self.at(at, Event::Token(m, n, epoch));
        }
    }

    /// The rate limit lets the next job begin.
    pub(super) fn token(&mut self, m: usize, n: usize, epoch: u32) {
        if !self.is_with(m, n, epoch) {
            return;
        }
        let now = self.now;
        let node = &mut self.members[m].nodes[n];
        let pace = node.pace;
        match node.state {
            NodeState::Frozen(until) => self.at(until + 1, Event::Token(m, n, epoch)),
            NodeState::Ending => {}
            // What waited has gone back when it reconnected, and what came since waits for its own token.
            _ if node.next_token > now => {
                let at = node.next_token;
                self.at(at, Event::Token(m, n, epoch));
            }
            _ => {
                let Some(job) = node.limited.pop_front() else { return };
                node.next_token = now + pace;
                node.reserved.push_back(job);
                let more = !node.limited.is_empty();
                if more {
                    self.at(now + pace, Event::Token(m, n, epoch));
                }
                self.begin_jobs(m, n);
            }
        }
    }

    /// A worker loses its broker. It forgets what waits for the rate limit: the broker has it again.
    pub(super) fn lose_broker(&mut self, m: usize, n: usize) {
        let limited: Vec<JobId> = self.members[m].nodes[n].limited.iter().copied().collect();
        for job in limited {
            self.give_up(m, n, job);
        }
        let node = &mut self.members[m].nodes[n];
        match self.setup.work.lost {
            Lost::Waiting => node.kept.extend(node.reserved.drain(..)),
            Lost::Ended if !self.calm => node.ghosts.extend(&node.active),
            Lost::Nothing | Lost::Ended => {}
        }
    }

    /// The pool takes the next of the jobs that it has and that its worker does not tell of.
    pub(super) fn kept(&mut self, m: usize, n: usize, epoch: u32) {
        if !self.is_with(m, n, epoch) {
            return;
        }
        if let NodeState::Frozen(until) = self.members[m].nodes[n].state {
            self.at(until + 1, Event::Kept(m, n, epoch));
            return;
        }
        let node = &mut self.members[m].nodes[n];
        if node.active.len() < self.setup.work.concurrency
            && let Some(job) = node.kept.pop_front()
        {
            node.reserved.push_front(job);
            self.begin_jobs(m, n);
        }
    }

    fn begin_jobs(&mut self, m: usize, n: usize) {
        let most = self.setup.work.concurrency;
        loop {
            let node = &mut self.members[m].nodes[n];
            if node.active.len() >= most || node.state == NodeState::Ending {
                return;
            }
            let Some(job) = node.reserved.pop_front() else { return };
            node.active.push(job);
            node.begun += 1;
            let epoch = node.epoch;
            self.jobs[job].started_at = self.now;
            self.members[m].nodes[n].worked_at = self.now;
            self.at(self.now + self.jobs[job].lasts, Event::JobEnds(m, n, epoch, job));
        }
    }

    pub(super) fn job_ends(&mut self, m: usize, n: usize, epoch: u32, job: JobId) {
        if !self.is_with(m, n, epoch) {
            return;
        }
        let node = &mut self.members[m].nodes[n];
        if let NodeState::Frozen(until) = node.state {
            // What was left of it when the worker froze is not kept in mind: it ends soon after.
            self.at(until + SECOND, Event::JobEnds(m, n, epoch, job));
            return;
        }
        node.active.retain(|other| *other != job);
        if !node.kept.is_empty() {
            // Between two of them it tells of nothing.
            let pause = self.delay_chance.between(0, 400);
            self.at(self.now + pause, Event::Kept(m, n, epoch));
        }
        self.jobs[job].state = JobState::Done;
        self.retry(job);
        if self.members[m].nodes[n].state == NodeState::Ending {
            self.end_if_idle(m, n);
        } else if self.setup.work.solo && self.delay_chance.percent(50) {
            // It hears what it was told meanwhile before it begins the next one.
            self.at(self.now + 5, Event::Next(m, n, epoch));
        } else {
            self.begin_jobs(m, n);
            self.pump();
        }
    }

    pub(super) fn next(&mut self, m: usize, n: usize, epoch: u32) {
        if !self.is_with(m, n, epoch) {
            return;
        }
        if let NodeState::Frozen(until) = self.members[m].nodes[n].state {
            self.at(until + 1, Event::Next(m, n, epoch));
            return;
        }
        self.begin_jobs(m, n);
        self.pump();
    }

    /// Until when a worker hears nothing, because it runs a job where it would listen.
    pub(super) fn deaf_until(&self, m: usize, n: usize) -> Option<u64> {
        let job = self.members[m].nodes[n].active.first().filter(|_| self.setup.work.solo)?;
        let ends = self.jobs[*job].started_at + self.jobs[*job].lasts;
        Some(if ends > self.now { ends } else { self.now + SECOND })
    }

    /// A job that failed sends itself again, to run a moment later.
    fn retry(&mut self, job: JobId) {
        if self.jobs[job].retries == 0 {
            return;
        }
        let later = self.work_chance.between(SECOND, 30 * SECOND);
        let Job { retries, eta, state, queue, .. } = &mut self.jobs[job];
        *retries -= 1;
        (*eta, *state) = (self.now + later, JobState::Queued);
        self.queued[usize::from(*queue)].push_back(job);
        self.tell(|| format!("job-{job} fails, and is retried"));
    }

    /// The first job that is not in exactly one place, or in a wrong one.
    pub fn unaccounted(&self) -> Option<String> {
        let mut places = vec![(0_u8, 0_u8); self.jobs.len()];
        self.queued.iter().flatten().for_each(|job| places[*job].0 += 1);
        for node in self.members.iter().flat_map(|member| &member.nodes) {
            node.held().chain(&node.active).for_each(|job| places[*job].1 += 1);
        }
        let right = |state: JobState| match state {
            JobState::Queued => (1, 0),
            JobState::Delivered => (0, 1),
            JobState::Done | JobState::Lost => (0, 0),
        };
        let wrong = self.jobs.iter().zip(&places).find(|(job, found)| right(job.state) != **found);
        wrong.map(|(Job { id, state, .. }, (queued, held))| {
            format!("{id} is {state:?}, {queued} times at the broker and {held} times with a worker")
        })
    }

    /// A job goes back to the broker.
    fn give_up(&mut self, m: usize, n: usize, job: JobId) {
        if self.members[m].nodes[n].forget(job) {
            self.jobs[job].state = JobState::Queued;
            let queue = usize::from(self.jobs[job].queue);
            self.queued[queue].push_front(job);
        }
    }

    /// What a worker holds and has not begun goes back to the broker.
    pub(super) fn give_up_held(&mut self, m: usize, n: usize) {
        let held: Vec<JobId> = self.members[m].nodes[n].held().copied().collect();
        for job in held {
            self.give_up(m, n, job);
        }
    }

    /// A worker's process ends at once: what runs in it is cut off.
    pub(super) fn cut_off(&mut self, m: usize, n: usize, by_scheduler: bool) {
        self.give_up_held(m, n);
        let cut = std::mem::take(&mut self.members[m].nodes[n].active);
        for job in cut {
            let again = self.setup.work.acks_late;
            self.jobs[job].state = if again { JobState::Queued } else { JobState::Lost };
            if again {
                self.queued[usize::from(self.jobs[job].queue)].push_front(job);
            }
            self.tell(|| format!("job-{job} is cut off in t{}", m + 1));
            if by_scheduler {
                self.judge_death(m, n, job);
            } else {
                self.tally.death("by its worker's own end");
            }
        }
        self.members[m].nodes[n].state = NodeState::Gone;
    }

    /// A worker is told to take jobs from these queues, or to take no more.
    pub(super) fn control(&mut self, m: usize, n: usize, add: bool, queues: u8) {
        let epoch = self.members[m].nodes[n].epoch;
        match self.members[m].nodes[n].state {
            NodeState::Up if add => {
                let node = &mut self.members[m].nodes[n];
                node.added |= queues & !node.consuming;
                node.consuming |= queues;
                self.tell(|| format!("t{} takes jobs from queues {queues:b} again", m + 1));
                self.pump();
            }
            NodeState::Up if self.setup.work.slow_cancel => {
                let later = self.delay_chance.between(0, 300);
                self.at(self.now + later, Event::CancelDeed(m, n, epoch, queues));
            }
            NodeState::Up => self.cancel_deed(m, n, epoch, queues),
            _ => {}
        }
    }

    pub(super) fn cancel_deed(&mut self, m: usize, n: usize, epoch: u32, queues: u8) {
        if !self.is_with(m, n, epoch) {
            return;
        }
        let before = self.consuming();
        let node = &mut self.members[m].nodes[n];
        node.consuming &= !queues;
        node.added &= !queues;
        self.tell(|| format!("t{} takes no more jobs from queues {queues:b}", m + 1));
        self.judge_floor(m, before);
    }

    /// How many tasks take jobs, in truth.
    pub fn consuming(&self) -> usize {
        let live = |member: &&super::Member| self.ecs.task(member.ecs).is_some_and(ecs_emulator::model::Task::is_live);
        self.members.iter().filter(live).filter(|member| member.nodes.iter().any(Node::takes_jobs)).count()
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
