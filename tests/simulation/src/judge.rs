//! The rules, by name, and the story that is told when one of them does not hold.

use std::collections::VecDeque;

use ecs_emulator::model::{Entry, Transition};
use worker_drain_plan::invariants::{self, Judged};

use crate::{tally::Tally, tap::Tap};

/// A rule that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub rule: &'static str,
    /// When, in milliseconds from the beginning.
    pub at: u64,
    /// What was wrong.
    pub what: String,
}

/// Hears what happens, and keeps the first rule that breaks.
#[derive(Debug, Default)]
pub struct Judge {
    /// The first rule that did not hold.
    pub broken: Option<Broken>,
    telling: bool,
    story: Vec<String>,
    heard: usize,
}

/// The rules of a single pass, by their numbers.
pub const RULES: [&str; 20] = [
    "0",
    "1: a stop is permitted only on proof",
    "2: unknown is never idle",
    "3: an outside failure never releases a hold",
    "4: what was taken is given back",
    "5: the floor is kept",
    "6: never more holds than tasks wanted, old ones first",
    "7: done means seen",
    "8: nothing is stopped by us",
    "9: who takes jobs again is cancelled again",
    "10: planning again changes nothing",
    "11: calls stay few",
    "12: every rollout ends",
    "13: behind a shut gate nothing leaves",
    "14: a fleet that turns back is believed later",
    // 15, 16 and 18 are not judged from one pass of the policy.
    "15",
    "16",
    "17: a surplus is a scale-in only if fewer are wanted",
    "18",
    "19: what does not add up is told",
];

impl Judge {
    /// One that tells the story, or none.
    pub fn new(telling: bool) -> Self {
        Self { telling, ..Self::default() }
    }

    /// Whether a story is told.
    pub fn is_telling(&self) -> bool {
        self.telling
    }

    /// A line of the story.
    pub fn tell(&mut self, now: u64, line: impl FnOnce() -> String) {
        if self.telling {
            let text = line();
            self.story.push(format!("{:>9} {text}", Seconds(now)));
        }
    }

    /// The story so far.
    pub fn take_story(&mut self) -> Vec<String> {
        std::mem::take(&mut self.story)
    }

    /// A rule does not hold. Only the first is kept: what comes after may follow from it.
    pub fn broken(&mut self, now: u64, rule: &'static str, what: impl FnOnce() -> String) {
        if self.broken.is_none() {
            let what = what();
            self.tell(now, || format!("!!! RULE BROKEN: {rule}: {what}"));
            self.broken = Some(Broken { rule, at: now, what });
        }
    }

    /// What ECS did since the last time, for the story.
    pub fn hear(&mut self, now: u64, history: &VecDeque<Entry>) {
        if !self.telling {
            return;
        }
        for entry in history.iter().skip(self.heard) {
            match &entry.what {
                Transition::Stop { task, cause, protected_until, .. } => {
                    let line = format!("ECS decides to stop {task} ({cause:?}), held until {protected_until:?}");
                    self.story.push(format!("{:>9} {line}", Seconds(now)));
                }
                Transition::Deployment { deployment, status, rollout, .. } => {
                    let line = format!("ECS: deployment {deployment} is {status}, {rollout:?}");
                    self.story.push(format!("{:>9} {line}", Seconds(now)));
                }
                Transition::ProtectionRefused { task, reason } => {
                    self.story.push(format!("{:>9} ECS refuses to hold {task}: {reason}", Seconds(now)));
                }
                Transition::ProtectionExpired { task } => {
                    self.story.push(format!("{:>9} ECS: the hold of {task} has run out", Seconds(now)));
                }
                _ => {}
            }
        }
        self.heard = history.len();
    }
}

/// Judges one plan by every rule of a single pass.
pub fn judge_plan(tap: &Tap, tally: &mut Tally) -> Result<(), (&'static str, String)> {
    let (Some(policy), Some(before), Some(observation), Some(plan)) =
        (&tap.policy, &tap.before, &tap.observation, &tap.plan)
    else {
        return Ok(());
    };
    tally.rule("rules 1 to 10 of one pass");
    let judged = Judged { policy, observation, before, plan, now: tap.planned_at };
    invariants::check(judged)
        .map_err(|violation| (RULES.get(usize::from(violation.rule)).copied().unwrap_or("?"), violation.what))
}

struct Seconds(u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{}.{:03}", self.0 / 1000, self.0 % 1000))
    }
}
