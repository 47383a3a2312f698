//! Workers that somebody else has take jobs again in mid-drain: an autoscaler that sends `add_consumer`, a monitor, or a person.

use jiff::SignedDuration;

use super::view::View;
use crate::{
    memory::{Memory, NodeMemory, ReadBack, TakenUp},
    observation::{Answer, Queue},
};

/// What we gave back may come into effect so much later: a worker that was frozen, or that reconnects, hears it then. RabbitMQ keeps
/// requests to workers for five minutes.
const LATE: SignedDuration = SignedDuration::from_mins(10);

/// Counts each time that a node of a leaving task takes jobs after its cancel was read back, and we neither gave anything back to it nor
/// may have seen another start of it. Comes before the start that answered is remembered.
pub fn follow(view: &View<'_>, memory: &mut Memory) {
    for (id, evidence) in &view.evidence {
        let Some(task) = memory.tasks.get_mut(id).filter(|task| task.leaving.is_some()) else { continue };
        for (name, answer) in &evidence.nodes {
            let answered = answer.and_then(|answer| Some((answer, answer.queues.as_deref()?)));
            let known = task.nodes.get_mut(name).filter(|node| !node.taken.is_empty());
            if let (Some((answer, queues)), Some(node)) = (answered, known) {
                of_node(node, answer, queues);
            }
        }
    }
}

/// One look at a worker that begins its consumers anew may show none of them. So it counts if that was seen twice.
fn of_node(node: &mut NodeMemory, answer: &Answer, queues: &[Queue]) {
    let before = node.read_back.take().filter(|read_back| is_same_start(node, answer, *read_back));
    if queues.is_empty() {
        let new = || ReadBack { since: answer.asked_at, again: false };
        let more = |before: ReadBack| ReadBack { again: before.again || before.since < answer.asked_at, ..before };
        node.read_back = Some(before.map_or_else(new, more));
        return;
    }
    let is_certain = before.is_some_and(|before| before.again);
    let may_be_ours = node.given_back.is_some_and(|given| answer.asked_at.duration_since(given) < LATE);
    if is_certain && !may_be_ours {
        let times = node.taken_up.as_ref().map_or(0, |known| known.times).saturating_add(1);
        let queues = queues.iter().map(|queue| queue.name.clone()).collect();
        node.taken_up = Some(TakenUp { times, at: answer.asked_at, queues });
    }
}

/// The start that answers is the one that was asked before, as far as it tells; one that tells nothing of it may be another.
fn is_same_start(node: &NodeMemory, answer: &Answer, read_back: ReadBack) -> bool {
    match (&node.instance, &answer.instance, answer.up_for) {
        (Some(before), Some(now), _) => before == now,
        (_, _, Some(up_for)) => up_for >= answer.answered_at.duration_since(read_back.since),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        memory::{Leaving, Why},
        observation::Life,
        update::testing::{Stage, at, consuming, idle},
    };

    /// How often a node is counted to have taken up jobs again, of what it answers at these seconds.
    fn counted(answers: &[Answer], change: impl FnOnce(&mut NodeMemory)) -> u32 {
        let mut stage = Stage::with_task("t", Life::Running);
        stage.answers("t", "w@1", idle(at(0)));
        let task = stage.memory.tasks.get_mut(&"t".into()).unwrap();
        task.leaving = Some(Leaving { why: Why::Rollout, since: at(0) });
        let node = task.nodes.get_mut(&"w@1".into()).unwrap();
        node.taken.insert(Queue::named("slow"));
        change(node);
        for answer in answers {
            stage.answers("t", "w@1", answer.clone());
            let mut memory = stage.memory.clone();
            for _ in 0..2 {
                follow(&stage.view(answer.asked_at), &mut memory);
                super::super::nodes::learn_instances(&stage.view(answer.asked_at), &mut memory);
            }
            stage.memory = memory;
        }
        let node = &stage.memory.tasks[&"t".into()].nodes[&"w@1".into()];
        node.taken_up.as_ref().map_or(0, |taken_up| taken_up.times)
    }

    fn by(instance: &str, answer: Answer) -> Answer {
        Answer { instance: Some(instance.into()), ..answer }
    }

    fn up_for(seconds: i64, answer: Answer) -> Answer {
        Answer { up_for: Some(SignedDuration::from_secs(seconds)), ..answer }
    }

    #[test]
    fn whoever_takes_jobs_after_its_cancel_was_read_back_was_told_so_by_somebody_else() {
        let [none, again, takes] = [idle(at(1)), idle(at(3)), consuming(at(5))].map(|answer| by("a", answer));
        let comes_back = [none.clone(), again.clone(), takes.clone(), by("a", consuming(at(6)))];
        assert_eq!(counted(&comes_back, |_| {}), 1);
        let twice: Vec<_> = comes_back.iter().cloned().chain([7, 8].map(|s| by("a", idle(at(s))))).collect();
        assert_eq!(counted(&[&twice[..], &[by("a", consuming(at(9)))]].concat(), |_| {}), 2);
        assert_eq!(counted(&[none.clone(), takes.clone()], |_| {}), 0, "seen once only");
        assert_eq!(counted(&[takes.clone(), by("a", consuming(at(6)))], |_| {}), 0, "it was not read back");
        assert_eq!(counted(&comes_back, |node| node.taken.clear()), 0, "nothing was taken from it");
    }

    #[test]
    fn another_start_and_a_late_undo_are_nobody_else() {
        let looks = |now: Answer| [by("a", idle(at(1))), by("a", idle(at(3))), now];
        assert_eq!(counted(&looks(by("b", consuming(at(5)))), |_| {}), 0, "it restarted");
        assert_eq!(counted(&looks(consuming(at(5))), |_| {}), 0, "nobody knows");
        let uptimes = |now| [up_for(10, idle(at(1))), up_for(12, idle(at(3))), up_for(now, consuming(at(5)))];
        assert_eq!([14, 4, 3].map(|now| counted(&uptimes(now), |_| {})), [1, 1, 0], "by its uptime");
        for (given, expected) in [(4 - 600, 1), (6 - 600, 0), (2, 0), (60, 0)] {
            let times = counted(&looks(by("a", consuming(at(5)))), |node| node.given_back = Some(at(given)));
            assert_eq!(times, expected, "given back at {given}");
        }
    }
}
