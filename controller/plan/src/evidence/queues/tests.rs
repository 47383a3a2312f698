//! What one count proves of one queue, as a table.

use super::{
    Answer, Delivered, FRESH_FOR, FailureKind, Gate, Memory, NodeName, Observation, QueueCount, QueueEvidence,
    QueueName, QueueState, Seen, SignedDuration, Timestamp, WorkersView, state,
};
use crate::{
    memory::TaskMemory,
    observation::{Binding, Failure, Job, Queue},
};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn queue() -> Queue {
    Queue::named("slow")
}

/// A node that takes jobs from these queues and has so many of each kind; `None`: that was not answered.
fn answer(queues: &[Queue], active: Option<usize>, reserved: usize, scheduled: usize) -> Answer {
    let job = Job { id: "j".into(), name: "work".into(), started_at: None };
    let jobs = |count: usize| vec![job.clone(); count];
    Answer {
        queues: Some(queues.into()),
        reserved: Some(jobs(reserved)),
        active: active.map(jobs),
        scheduled: Some(jobs(scheduled)),
        ..Answer::new(NOW, NOW)
    }
}

fn count(ready: u64, delivered: Delivered) -> QueueCount {
    QueueCount { counted_at: NOW, ready, delivered, known: true, settles_in: SignedDuration::ZERO }
}

fn told(consumers: u64, nodes: &[(&str, Answer)]) -> Delivered {
    let nodes = nodes.iter().map(|(name, answer)| (NodeName::from(*name), answer.clone())).collect();
    Delivered::Told { consumers, nodes }
}

fn judged(count: QueueCount, workers: &[(&str, Answer)], memory: &Memory) -> QueueState {
    let nodes = workers.iter().map(|(name, answer)| (NodeName::from(*name), answer.clone())).collect();
    let view = WorkersView { nodes, ..WorkersView::default() };
    state(&QueueName::from("slow"), Some(&Seen::Ok { value: count, at: NOW }), Some(&view), memory, NOW)
}

fn why(state: QueueState) -> String {
    let QueueState::Unknown { why, .. } = state else { panic!("{state:?} is not unknown") };
    why
}

#[test]
fn what_the_broker_counts_is_what_there_is() {
    let memory = Memory::default();
    for (ready, delivered, expected) in [
        (0, 0, QueueState::Empty),
        (2, 0, QueueState::Holds { ready: 2, delivered: Some(0) }),
        (0, 3, QueueState::Holds { ready: 0, delivered: Some(3) }),
    ] {
        assert_eq!(judged(count(ready, Delivered::Counted(delivered)), &[], &memory), expected);
    }
}

#[test]
fn where_it_does_not_every_consumer_must_have_answered_and_hold_nothing() {
    let memory = Memory::default();
    let idle = answer(&[queue()], Some(0), 0, 0);
    let empty = |consumers, nodes: &[(&str, Answer)]| judged(count(0, told(consumers, nodes)), &[], &memory);
    assert_eq!(empty(0, &[]), QueueState::Empty, "nobody can hold any");
    assert_eq!(empty(2, &[("a", idle.clone()), ("b", idle.clone())]), QueueState::Empty);
    assert_eq!(why(empty(2, &[("a", idle.clone())])).matches("of its 2 consumers 1 do not answer").count(), 1);
    for (active, reserved, scheduled) in [(1, 0, 0), (0, 1, 0), (0, 0, 1)] {
        let busy = answer(&[queue()], Some(active), reserved, scheduled);
        let state = empty(2, &[("a", idle.clone()), ("b", busy)]);
        assert_eq!(
            state,
            QueueState::Holds { ready: 0, delivered: Some(1) },
            "a job for later is not acknowledged either"
        );
    }
    let half = answer(&[queue()], None, 0, 0);
    assert!(why(empty(1, &[("a", half)])).contains("a does not answer"));
    // What waits is known all the same.
    assert_eq!(judged(count(4, told(1, &[])), &[], &memory), QueueState::Holds { ready: 4, delivered: None });
}

#[test]
fn a_worker_that_lost_the_queue_to_us_may_still_hold_what_it_took_from_it() {
    let mut memory = Memory::default();
    let mut task = TaskMemory::default();
    task.nodes.entry("a".into()).or_default().taken.insert(queue());
    memory.tasks.insert("t".into(), task);
    let nobody = || count(0, told(0, &[]));
    let busy = answer(&[], Some(0), 2, 0);
    assert_eq!(judged(nobody(), &[("a", busy)], &memory), QueueState::Holds { ready: 0, delivered: Some(2) });
    assert_eq!(judged(nobody(), &[("a", answer(&[], Some(0), 0, 0))], &memory), QueueState::Empty);
    assert!(why(judged(nobody(), &[], &memory)).contains("a does not answer"));
    memory.tasks.values_mut().for_each(|task| task.gone = true);
    assert_eq!(judged(nobody(), &[], &memory), QueueState::Empty, "with its task it gave all back");
}

#[test]
fn a_queue_that_nobody_knows_is_not_empty() {
    let unknown = || QueueCount { known: false, ..count(0, Delivered::Counted(0)) };
    let state = judged(unknown(), &[], &Memory::default());
    assert!(
        matches!(&state, QueueState::Unknown { kind: FailureKind::NotFound, why } if why.contains("spelling")),
        "{state:?}"
    );
    let taker = ("a", answer(&[queue()], Some(0), 0, 0));
    assert_eq!(judged(unknown(), &[taker], &Memory::default()), QueueState::Empty, "who takes from it knows it");
}

#[test]
fn a_failure_and_an_old_count_prove_nothing() {
    let name = QueueName::from("slow");
    let judge = |seen: Option<&Seen<QueueCount>>, now| state(&name, seen, None, &Memory::default(), now);
    assert!(why(judge(None, NOW)).contains("not counted yet"));
    let failed = Seen::Err { failure: Failure::new(FailureKind::Denied, "NOPERM"), at: NOW };
    assert_eq!(judge(Some(&failed), NOW), QueueState::Unknown { kind: FailureKind::Denied, why: "NOPERM".into() });
    let seen = Seen::Ok { value: count(0, Delivered::Counted(0)), at: NOW };
    assert_eq!(judge(Some(&seen), NOW + FRESH_FOR), QueueState::Empty);
    assert!(why(judge(Some(&seen), NOW + FRESH_FOR + SignedDuration::from_secs(1))).contains("too long ago"));
}

#[test]
fn what_may_be_in_two_queues_is_counted_by_those_who_hold_it() {
    let bound = |name: &str, kind: &str, key: &str| {
        let (exchange, exchange_type) = ("media".into(), kind.into());
        let binding = Some(Binding { exchange, exchange_type, routing_key: key.into() });
        Queue { binding, ..Queue::named(name) }
    };
    let counted = || count(0, Delivered::Counted(0));
    let judged = |queues: &[Queue], active| {
        judged(counted(), &[("w@1", answer(queues, Some(active), 0, 0))], &Memory::default())
    };
    let holds = QueueState::Holds { ready: 0, delivered: Some(1) };
    let direct = |name: &str, key: &str| bound(name, "direct", key);
    let alone = judged(&[direct("slow", "video"), direct("other", "audio")], 1);
    assert_eq!(alone, QueueState::Empty, "what runs is of the other queue");
    assert_eq!(judged(&[direct("slow", "video"), direct("all", "video")], 1), holds);
    let topic = |name: &str, key: &str| bound(name, "topic", key);
    let both = [topic("slow", "video.hd"), topic("all", "video.#")];
    assert_eq!(judged(&both, 1), holds);
    assert_eq!(judged(&both, 0), QueueState::Empty);
    assert_eq!(judged(&both[..1], 1), holds, "somebody else may take from a queue whose pattern fits, too");
}

#[test]
fn who_may_hold_messages_unseen_leaves_it_unknown() {
    let hidden = Answer { unseen: Some("batches".into()), ..answer(&[queue()], Some(0), 0, 0) };
    let nodes = [("w@1", hidden)];
    assert!(why(judged(count(0, told(1, &nodes)), &[], &Memory::default())).contains("batches"));
}

#[test]
fn those_that_may_hold_messages_in_no_list_count_what_they_begin() {
    let gate = Gate { queues_empty: ["slow", "fast"].map(QueueName::from).into(), awaited: false };
    let begun = |answers: &[(&str, Answer)]| {
        let seen = |delivered| Seen::Ok { value: count(0, delivered), at: NOW };
        let queues = [("slow".into(), seen(told(0, answers))), ("fast".into(), seen(told(0, answers)))].into();
        let failure = || Failure::new(FailureKind::Unreachable, "not asked");
        let observation = Observation {
            fleet: Seen::Err { failure: failure(), at: NOW },
            workers: Seen::Err { failure: failure(), at: NOW },
            queues: Some(queues),
        };
        QueueEvidence::of(&gate, &observation, &Memory::default(), NOW).counters.begun
    };
    let plain = Answer { begun: Some(5), ..answer(&[queue()], Some(0), 0, 0) };
    let limited = Answer { settles_in: SignedDuration::from_secs(32), ..plain.clone() };
    assert_eq!(begun(&[("a", plain.clone())]), None, "what it begins shows in its lists before");
    assert_eq!(begun(&[("a", limited.clone()), ("b", limited), ("c", plain)]), Some(10), "of two queues, once");
}
