//! What the word of each node is worth, and what it does not tell.

use super::words::age;
use crate::{
    evidence::{Evidence, held},
    memory::TaskMemory,
    observation::{Answer, Strength},
    policy::Scheduled,
    report::{NodeReport, Worth},
};

/// The nodes of a task, with what each of them says is worth.
pub fn asked(evidence: &Evidence<'_>, scheduled: Scheduled) -> Vec<NodeReport> {
    let judged = evidence.nodes.iter().map(|(name, answer)| {
        let (worth, doubt) = worth(*answer, scheduled, evidence.silences.get(name).copied());
        NodeReport { name: name.clone(), worth: Some(worth), doubt }
    });
    judged.collect()
}

fn worth(answer: Option<&Answer>, scheduled: Scheduled, why_silent: Option<&str>) -> (Worth, String) {
    let why = why_silent.map_or_else(String::new, |why| format!(": {why}"));
    let Some(answer) = answer else {
        return (Worth::None, format!("it does not answer{why}"));
    };
    match (&answer.unseen, answer.strength) {
        (Some(unseen), _) => (Worth::Incomplete, format!("it may hold jobs unseen: {unseen}")),
        (None, _) if answer.queues.is_none() || held(answer, scheduled).is_none() => {
            (Worth::Incomplete, format!("it did not answer every question{why}"))
        }
        (None, Strength::Account) => (Worth::Account, String::new()),
        (None, Strength::Lists) if answer.settles_in.is_zero() => {
            (Worth::Lists, why_silent.unwrap_or_default().to_owned())
        }
        (None, Strength::Lists) => {
            (Worth::Lists, format!("a rate-limited job may be missing from its lists for {}", age(answer.settles_in)))
        }
    }
}

/// The nodes of a task that has ended: nobody asks them any more.
pub fn asked_no_more(memory: &TaskMemory) -> Vec<NodeReport> {
    memory.nodes.keys().map(|name| NodeReport { name: name.clone(), worth: None, doubt: String::new() }).collect()
}
