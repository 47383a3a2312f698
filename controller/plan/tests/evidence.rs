//! What answers prove. First as a table: each row is what the nodes of one task said, and what may be concluded from it.
//! Then over several looks: what each hazard of docs/idleness.md does to a proof.

mod world;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use worker_drain_plan::{
    Action, Memory, NodeName, Observation, Plan, TaskId,
    evidence::{Evidence, FRESH_FOR, Intake, Work},
    memory::TaskMemory,
    observation::{Answer, Displaced, FleetView, HoldState, Job, Life, Mapping, Queue, Seen, Task, WorkersView},
    plan,
    policy::{DrainPolicy, HoldMode, HoldPolicy, MinConsuming, Mode, Policy, Scheduled},
};
use world::{SECOND, World};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// Queues, reserved, active, scheduled: how many of each a node told of, `None` if it did not answer that.
type Told = (Option<usize>, Option<usize>, Option<usize>, Option<usize>);

const IDLE: Told = (Some(0), Some(0), Some(0), Some(0));

fn answer((queues, reserved, active, scheduled): Told, age: SignedDuration) -> Answer {
    let jobs = |count: Option<usize>| {
        count
            .map(|count| (0..count).map(|i| Job { id: i.to_string(), name: "work".into(), started_at: None }).collect())
    };
    let queues = queues.map(|count| (0..count).map(|i| Queue::named(i.to_string())).collect());
    let at = NOW.checked_sub(age).expect("a short age");
    Answer { queues, reserved: jobs(reserved), active: jobs(active), scheduled: jobs(scheduled), ..Answer::new(at, at) }
}

/// What is concluded of a task whose nodes are known to be `known`, of which some answered.
fn judge(known: &[&str], answers: &[(&str, Told, SignedDuration)], scheduled: Scheduled) -> (Intake, Work) {
    let task = TaskId::from("t");
    let mut memory = TaskMemory::default();
    for node in known {
        memory.nodes.entry(NodeName::from(*node)).or_default();
    }
    let mut view = WorkersView::default();
    let found = answers.iter().map(|(node, ..)| NodeName::from(*node)).collect();
    view.tasks.insert(task.clone(), Mapping::Nodes(found));
    view.nodes = answers
        .iter()
        .map(|(node, told, age)| (NodeName::from(*node), answer(*told, *age)))
        .collect::<BTreeMap<_, _>>();
    let evidence = Evidence::of(&task, &memory, Some(&view), (1, scheduled), NOW);
    (evidence.intake, evidence.work)
}

const NEW: SignedDuration = SignedDuration::ZERO;

#[test]
fn one_node_is_judged_by_what_it_said_and_by_nothing_else() {
    use Intake::{Cancelled, Consuming, Unknown as NoWord};
    use Work::{Busy, Idle, Unknown};
    let (yes, no) = (Some(1), None);
    let zero = Some(0);
    let table = [
        ((zero, zero, zero, zero), (Cancelled, Idle), "everything answered, nothing there"),
        ((yes, zero, zero, zero), (Consuming, Idle), "it takes jobs and has none"),
        ((zero, yes, zero, zero), (Cancelled, Busy), "a reserved job is work"),
        ((zero, zero, yes, zero), (Cancelled, Busy), "a running job is work"),
        ((zero, zero, zero, yes), (Cancelled, Idle), "a scheduled job goes back to the broker"),
        ((no, zero, zero, zero), (NoWord, Idle), "what it consumes was not answered"),
        ((zero, no, zero, zero), (Cancelled, Unknown), "reserved was not answered"),
        ((zero, zero, no, zero), (Cancelled, Unknown), "active was not answered"),
        ((zero, no, yes, zero), (Cancelled, Busy), "work needs one witness"),
        ((zero, yes, no, no), (Cancelled, Busy), "work needs one witness"),
        ((no, no, no, no), (NoWord, Unknown), "silence"),
    ];
    for (told, expected, why) in table {
        assert_eq!(judge(&["a"], &[("a", told, NEW)], Scheduled::Ignore), expected, "{why}");
    }
}

#[test]
fn scheduled_jobs_count_only_if_the_user_says_so() {
    let told = (Some(0), Some(0), Some(0), Some(1));
    assert_eq!(judge(&["a"], &[("a", told, NEW)], Scheduled::Wait).1, Work::Busy);
    let unanswered = (Some(0), Some(0), Some(0), None);
    assert_eq!(judge(&["a"], &[("a", unanswered, NEW)], Scheduled::Wait).1, Work::Unknown);
    assert_eq!(judge(&["a"], &[("a", unanswered, NEW)], Scheduled::Ignore).1, Work::Idle);
}

#[test]
fn idleness_needs_every_node_and_work_needs_one() {
    let busy = (Some(0), Some(0), Some(1), Some(0));
    let unknown = (Intake::Unknown, Work::Unknown);
    assert_eq!(judge(&["a", "b"], &[("a", IDLE, NEW), ("b", IDLE, NEW)], Scheduled::Ignore).1, Work::Idle);
    assert_eq!(judge(&["a", "b"], &[("a", IDLE, NEW)], Scheduled::Ignore), unknown, "b was known once and is silent");
    assert_eq!(judge(&["a", "b"], &[("a", busy, NEW)], Scheduled::Ignore).1, Work::Busy);
}

#[test]
fn jobs_that_no_list_shows_are_work_where_they_are_counted_and_unknown_where_they_may_be() {
    let judge = |told: Answer| {
        let (task, memory, mut view) = (TaskId::from("t"), TaskMemory::default(), WorkersView::default());
        view.tasks.insert(task.clone(), Mapping::Nodes(["a".into()].into()));
        view.nodes.insert("a".into(), told);
        let evidence = Evidence::of(&task, &memory, Some(&view), (1, Scheduled::Ignore), NOW);
        (evidence.work, evidence.settles_in(), evidence.jobs().map_or(0, |jobs| jobs.reserved))
    };
    let idle = || answer(IDLE, NEW);
    assert_eq!(judge(Answer { unlisted: 2, ..idle() }), (Work::Busy, SignedDuration::ZERO, 2));
    assert_eq!(judge(Answer { unseen: Some("batches".into()), ..idle() }).0, Work::Unknown);
    let settles_in = SignedDuration::from_secs(30);
    assert_eq!(judge(Answer { settles_in, ..idle() }), (Work::Idle, settles_in, 0));
}

#[test]
fn an_old_answer_is_silence() {
    let old = FRESH_FOR + SignedDuration::from_secs(1);
    assert_eq!(judge(&["a"], &[("a", IDLE, old)], Scheduled::Ignore), (Intake::Unknown, Work::Unknown));
    assert_eq!(judge(&["a"], &[("a", IDLE, FRESH_FOR)], Scheduled::Ignore), (Intake::Cancelled, Work::Idle));
}

#[test]
fn a_look_at_several_nodes_lasts_from_the_first_question_to_the_last_answer() {
    let (task, mut memory, mut view) = (TaskId::from("t"), TaskMemory::default(), WorkersView::default());
    for (node, asked, answered) in [("a", 5, 4), ("b", 9, 6), ("c", 7, 2)] {
        let answer =
            Answer { asked_at: NOW - SECOND * asked, answered_at: NOW - SECOND * answered, ..answer(IDLE, NEW) };
        memory.nodes.entry(node.into()).or_default();
        view.nodes.insert(node.into(), answer);
    }
    let evidence = Evidence::of(&task, &memory, Some(&view), (1, Scheduled::Ignore), NOW);
    assert_eq!(evidence.span, Some((NOW - SECOND * 9, NOW - SECOND * 2)));
}

#[test]
fn nobody_to_ask_or_nobody_found_proves_nothing() {
    let (task, memory) = (TaskId::from("t"), TaskMemory::default());
    let mut view = WorkersView::default();
    for mapping in [
        None,
        Some(Mapping::NotFound { hint: "no such node".into() }),
        Some(Mapping::Ambiguous { why: "two claim it".into() }),
    ] {
        view.tasks = mapping.map(|mapping| (task.clone(), mapping)).into_iter().collect();
        let evidence = Evidence::of(&task, &memory, Some(&view), (1, Scheduled::Ignore), NOW);
        assert_eq!((evidence.intake, evidence.work), (Intake::Unknown, Work::Unknown));
        assert!(!evidence.is_drained());
    }
    assert!(!Evidence::of(&task, &memory, None, (1, Scheduled::Ignore), NOW).is_drained());
}

#[test]
fn an_ambiguous_node_proves_nothing_even_if_it_was_clear_before() {
    let task = TaskId::from("t");
    let mut memory = TaskMemory::default();
    memory.nodes.entry("a".into()).or_default();
    let mut view = WorkersView::default();
    view.tasks.insert(task.clone(), Mapping::Ambiguous { why: "a could be of t or u".into() });
    view.nodes.insert("a".into(), answer(IDLE, NEW));
    assert!(!Evidence::of(&task, &memory, Some(&view), (1, Scheduled::Ignore), NOW).is_drained());
}

/// An old task that stopped consuming, has no jobs, and was not observed since: the proof begins.
struct Proof {
    world: World,
    memory: Memory,
    now: Timestamp,
}

impl Proof {
    fn begin() -> Self {
        let mut world = World::of(1).settled();
        let _ = world.deploy("app:2").schedule().reconcile();
        assert!(world.node("t1").queues.is_empty(), "it was cancelled");
        Self { memory: world.memory.clone(), now: world.now, world }
    }

    /// Looks after this long; `change` says how the answer of the old task's node differs from "nothing there".
    fn look(&mut self, after: SignedDuration, change: impl FnOnce(&mut Answer)) -> Plan {
        self.now += after;
        self.world.now = self.now;
        let mut observation = self.world.observe();
        let Seen::Ok { value: workers, .. } = &mut observation.workers else { panic!("the broker is there") };
        change(workers.nodes.get_mut(&NodeName::from("celery@t1")).expect("it answers"));
        let plan = plan(&self.world.policy, &observation, &self.memory, self.now);
        self.memory = plan.memory.clone();
        plan
    }

    fn idle(&mut self, after: SignedDuration) -> bool {
        is_permitted(&self.look(after, |_| {}))
    }
}

fn is_permitted(plan: &Plan) -> bool {
    plan.actions.iter().any(|action| matches!(action, Action::Permit { .. }))
}

fn a_job() -> Vec<Job> {
    vec![Job { id: "j".into(), name: "work".into(), started_at: None }]
}

#[test]
fn two_looks_that_agree_are_needed_and_far_enough_apart() {
    let mut proof = Proof::begin();
    proof.world.policy.drain.idle_for = SECOND * 5;
    assert!(!proof.idle(SECOND), "one look proves nothing");
    assert!(!proof.idle(SECOND * 4), "too near to the first");
    assert!(proof.idle(SECOND));
}

#[test]
fn a_job_that_starts_between_two_looks_begins_the_proof_anew() {
    let mut proof = Proof::begin();
    assert!(!proof.idle(SECOND));
    // It was on its way when the consumer was cancelled, and arrived after the first observation.
    assert!(!is_permitted(&proof.look(SECOND, |answer| answer.reserved = Some(a_job()))));
    assert!(!is_permitted(&proof.look(SECOND, |answer| answer.active = Some(a_job()))));
    assert!(!proof.idle(SECOND), "what was seen before the job counts no more");
    assert!(proof.idle(SECOND));
}

#[test]
fn looks_far_apart_are_no_unbroken_run() {
    let mut proof = Proof::begin();
    assert!(!proof.idle(SECOND));
    assert!(!proof.idle(SignedDuration::from_mins(10)), "anything may have happened while nobody looked");
    assert!(proof.idle(SECOND));
}

#[test]
fn a_broker_that_answers_late_delays_a_proof_and_never_hastens_it() {
    let late = |by: SignedDuration| move |answer: &mut Answer| answer.asked_at -= by;
    let mut proof = Proof::begin();
    // The first look took three seconds. What counts of it is its end; of the second, its beginning.
    assert!(!is_permitted(&proof.look(SECOND * 3, late(SECOND * 3))));
    assert!(!is_permitted(&proof.look(SECOND * 3, late(SECOND * 3))), "asked at the very moment the first had ended");
    assert!(proof.idle(SECOND));

    let mut proof = Proof::begin();
    let stale = FRESH_FOR + SECOND;
    for _ in 0..3 {
        let plan = proof.look(SECOND * 20, late(stale));
        assert!(!is_permitted(&plan), "an answer to a question that old tells nothing of now");
    }
    assert!(!proof.idle(SECOND), "the run begins with the first fresh answer");
    assert!(proof.idle(SECOND));
}

#[test]
fn a_node_that_answers_active_queues_and_not_active_is_not_idle() {
    let parts: [fn(&mut Answer); 3] =
        [|answer| answer.active = None, |answer| answer.reserved = None, |answer| answer.queues = None];
    for missing in parts {
        let mut proof = Proof::begin();
        assert!(!proof.idle(SECOND));
        for _ in 0..5 {
            assert!(!is_permitted(&proof.look(SECOND, missing)));
        }
        assert!(!proof.idle(SECOND), "the run was broken");
        assert!(proof.idle(SECOND));
    }
}

#[test]
fn a_worker_that_reconnected_and_takes_jobs_again_is_cancelled_again_and_proven_anew() {
    let mut proof = Proof::begin();
    assert!(!proof.idle(SECOND));
    let takes = |answer: &mut Answer| answer.queues = Some(vec![world::queue("video")]);
    let plan = proof.look(SECOND, takes);
    assert!(!is_permitted(&plan));
    assert!(plan.actions.iter().any(|action| matches!(action, Action::Cancel { .. })), "{:?}", plan.actions);
    assert!(!proof.idle(SECOND), "what it took meanwhile would not show in a proof from before");
    assert!(proof.idle(SECOND));
}

/// One look at a drained task of one node after another, each with the instance that answered; the run of idle looks
/// after the last.
fn idle_run_after(instances: &[Option<&str>]) -> u32 {
    let (task, second) = (TaskId::from("t"), SignedDuration::from_secs(1));
    let policy = policy();
    let mut memory = Memory::default();
    for (number, instance) in (0..).zip(instances) {
        let now = NOW + second * number;
        let told = Answer { instance: instance.map(String::from), ..answer(IDLE, NEW) };
        let told = Answer { asked_at: now, answered_at: now, ..told };
        let mut view = WorkersView::default();
        view.tasks.insert(task.clone(), Mapping::Nodes(["a".into()].into()));
        view.nodes.insert("a".into(), told);
        let observation = Observation {
            fleet: Seen::Ok { value: fleet(&task), at: now },
            workers: Seen::Ok { value: view, at: now },
            queues: None,
        };
        memory = plan(&policy, &observation, &memory, now).memory;
        let again = plan(&policy, &observation, &memory, now).memory;
        assert_eq!(again, memory, "the same look is remembered once");
    }
    memory.tasks[&task].idle.map_or(0, |run| run.observations)
}

#[test]
fn idleness_that_was_proven_of_one_start_of_a_worker_is_not_proven_of_the_next() {
    assert_eq!(idle_run_after(&[Some("a"), Some("a"), Some("a")]), 3);
    assert_eq!(idle_run_after(&[Some("a"), Some("b")]), 1);
    assert_eq!(idle_run_after(&[Some("a"), Some("a"), Some("b"), Some("b")]), 2);
    assert_eq!(idle_run_after(&[None, None]), 2, "a worker that does not say is believed to be the same");
    assert_eq!(idle_run_after(&[Some("a"), None, Some("b")]), 1, "what it said last counts");
}

#[test]
fn why_a_node_is_silent_is_told_where_it_is_known() {
    let mut memory = TaskMemory::default();
    memory.nodes.entry("a".into()).or_default();
    let mut view = WorkersView::default();
    view.silences.insert("a".into(), "its token is another".into());
    view.silences.insert("b".into(), "of no interest".into());
    let evidence = Evidence::of(&TaskId::from("t"), &memory, Some(&view), (1, Scheduled::Ignore), NOW);
    assert_eq!(evidence.silences, [("a".into(), "its token is another")].into());
    view.nodes.insert("a".into(), answer(IDLE, NEW));
    let evidence = Evidence::of(&TaskId::from("t"), &memory, Some(&view), (1, Scheduled::Ignore), NOW);
    assert_eq!(evidence.silences, [].into());
}

fn policy() -> Policy {
    let (mode, minutes) = (HoldMode::Standing, SignedDuration::from_mins);
    Policy {
        hold: HoldPolicy { mode, expires_in: minutes(120) },
        drain: DrainPolicy {
            min_consuming: Some(MinConsuming::Percent(0)),
            idle_for: minutes(10),
            scheduled: Scheduled::Ignore,
            deadline: None,
            workers_per_task: None,
            start_timeout: None,
            scale_in: true,
            gate: None,
        },
        mode: Mode::Enforce,
        paused: false,
        withdrawn: false,
    }
}

/// A fleet of one task, of an old revision.
fn fleet(task: &TaskId) -> FleetView {
    let hold = HoldState::Until(NOW + SignedDuration::from_hours(48));
    let old = Task {
        revision: "old".into(),
        life: Life::Running,
        started_at: Some(NOW),
        hold,
        displaced: Displaced::No,
        zone: None,
        alike: Vec::new(),
    };
    FleetView {
        is_rolling_out: false,
        is_deleted: false,
        name: "media/transcoder".into(),
        desired: 1,
        minimum_healthy_percent: 100,
        maximum_percent: 200,
        current: "new".into(),
        revisions: BTreeMap::new(),
        tasks: [(task.clone(), old)].into(),
        made_at: None,
        longest_hold: SignedDuration::from_hours(48),
        unplaced: BTreeMap::new(),
        counted: None,
        balances_zones: false,
        unread: Vec::new(),
        remembered: None,
    }
}

/// What is concluded of a task that was known to have node `a`, which told this, and whose nodes cannot be told now.
/// Whether it is drained, how many of its nodes are silent, and its load.
fn unmapped(mapping: Option<Mapping>, told: Told) -> (bool, usize, u32) {
    let task = TaskId::from("t");
    let mut memory = TaskMemory::default();
    memory.nodes.entry("a".into()).or_default();
    let tasks = mapping.map(|mapping| (task.clone(), mapping)).into_iter().collect();
    let nodes = BTreeMap::from([("a".into(), answer(told, NEW))]);
    let view = WorkersView { tasks, nodes, ..WorkersView::default() };
    let evidence = Evidence::of(&task, &memory, Some(&view), (1, Scheduled::Ignore), NOW);
    (evidence.is_drained(), evidence.silent().count(), evidence.load())
}

#[test]
fn a_node_that_was_known_before_is_believed_though_it_is_not_found_again() {
    assert!(unmapped(None, IDLE).0);
    assert!(unmapped(Some(Mapping::NotFound { hint: "no such node".into() }), IDLE).0);
}

#[test]
fn a_node_that_leaves_out_one_answer_is_silent() {
    let some = Some(0);
    let silent = |told| unmapped(None, told).1;
    assert_eq!(silent(IDLE), 0);
    for told in [(None, some, some, some), (some, None, some, some), (some, some, None, some), (some, some, some, None)]
    {
        assert_eq!(silent(told), 1, "{told:?}");
    }
}

#[test]
fn load_is_what_runs_and_what_waits() {
    let load = |told| unmapped(None, told).2;
    assert_eq!(load((Some(1), Some(2), Some(1), Some(5))), 3);
    assert_eq!(load((None, Some(2), None, None)), 2, "one answer is enough to count");
    assert_eq!(load((None, None, Some(1), None)), 1);
    assert_eq!(load((None, None, None, None)), 0);
}
