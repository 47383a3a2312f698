//! What answers prove, as a table: each row is what the nodes of one task said, and what may be concluded from it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use worker_drain_plan::{
    NodeName, TaskId,
    evidence::{Evidence, FRESH_FOR, Intake, Work},
    memory::TaskMemory,
    observation::{Answer, Job, Mapping, Queue, WorkersView},
    policy::Scheduled,
};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// Queues, reserved, active, scheduled: how many of each a node told of, `None` if it did not answer that.
type Told = (Option<usize>, Option<usize>, Option<usize>, Option<usize>);

const IDLE: Told = (Some(0), Some(0), Some(0), Some(0));

fn answer((queues, reserved, active, scheduled): Told, age: SignedDuration) -> Answer {
    let jobs = |count: Option<usize>| {
        count
            .map(|count| (0..count).map(|i| Job { id: i.to_string(), name: "work".into(), started_at: None }).collect())
    };
    let queues = queues.map(|count| (0..count).map(|i| Queue { name: i.to_string().into(), binding: None }).collect());
    let at = NOW.checked_sub(age).expect("a short age");
    Answer {
        asked_at: at,
        answered_at: at,
        queues,
        reserved: jobs(reserved),
        active: jobs(active),
        scheduled: jobs(scheduled),
    }
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
    let evidence = Evidence::of(&task, &memory, Some(&view), scheduled, NOW);
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
fn an_old_answer_is_silence() {
    let old = FRESH_FOR + SignedDuration::from_secs(1);
    assert_eq!(judge(&["a"], &[("a", IDLE, old)], Scheduled::Ignore), (Intake::Unknown, Work::Unknown));
    assert_eq!(judge(&["a"], &[("a", IDLE, FRESH_FOR)], Scheduled::Ignore), (Intake::Cancelled, Work::Idle));
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
        let evidence = Evidence::of(&task, &memory, Some(&view), Scheduled::Ignore, NOW);
        assert_eq!((evidence.intake, evidence.work), (Intake::Unknown, Work::Unknown));
        assert!(!evidence.is_drained());
    }
    assert!(!Evidence::of(&task, &memory, None, Scheduled::Ignore, NOW).is_drained());
}

#[test]
fn an_ambiguous_node_proves_nothing_even_if_it_was_clear_before() {
    let task = TaskId::from("t");
    let mut memory = TaskMemory::default();
    memory.nodes.entry("a".into()).or_default();
    let mut view = WorkersView::default();
    view.tasks.insert(task.clone(), Mapping::Ambiguous { why: "a could be of t or u".into() });
    view.nodes.insert("a".into(), answer(IDLE, NEW));
    assert!(!Evidence::of(&task, &memory, Some(&view), Scheduled::Ignore, NOW).is_drained());
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
    let evidence = Evidence::of(&task, &memory, Some(&view), Scheduled::Ignore, NOW);
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
