//! What must hold in every history.

use std::{collections::BTreeMap, time::Duration};

use ecs_emulator::model::{
    BlockedRenewal, BlockedRule, Knobs, Protection, ReplaceTerminated, RollbackId, RolloutState, StopCause, TaskId,
    Time, Transition,
};
use proptest::prelude::*;

use crate::lab::{Lab, percent};

#[derive(Debug, Clone)]
enum Deed {
    Run(u64),
    Deploy(u32),
    Force,
    Scale(u32),
    Configure(u32, u32, bool),
    Protect { which: usize, minutes: u32 },
    Unprotect { which: usize },
    Exit { which: usize },
    StopTask { which: usize },
    Break(bool),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        6 => (1..200_u64).prop_map(Deed::Run),
        2 => (1..4_u32).prop_map(Deed::Deploy),
        1 => Just(Deed::Force),
        2 => (0..8_u32).prop_map(Deed::Scale),
        1 => (0..=100_u32, 100..=300_u32, any::<bool>()).prop_map(|(min, max, on)| Deed::Configure(min, max, on)),
        5 => (0..16_usize, 1..60_u32).prop_map(|(which, minutes)| Deed::Protect { which, minutes }),
        3 => (0..16_usize).prop_map(|which| Deed::Unprotect { which }),
        1 => (0..16_usize).prop_map(|which| Deed::Exit { which }),
        1 => (0..16_usize).prop_map(|which| Deed::StopTask { which }),
        1 => any::<bool>().prop_map(Deed::Break),
    ]
}

fn knobs() -> impl Strategy<Value = Knobs> {
    let blocked = prop_oneof![
        Just(BlockedRule::Off),
        Just(BlockedRule::WhileInProgress),
        Just(BlockedRule::WhileInProgressFor(300)),
        Just(BlockedRule::Always),
    ];
    let renewal = prop_oneof![
        Just(BlockedRenewal::Refuse),
        Just(BlockedRenewal::Allow),
        Just(BlockedRenewal::RefuseOldAfter(300))
    ];
    let rollback = prop_oneof![Just(RollbackId::Reuse), Just(RollbackId::New)];
    let replace = prop_oneof![
        Just(ReplaceTerminated::SameRevision),
        Just(ReplaceTerminated::SameRevisionAlways),
        Just(ReplaceTerminated::Primary)
    ];
    (blocked, renewal, rollback, replace, prop::option::of(1..4_u32)).prop_map(
        |(blocked_rule, blocked_renewal, rollback_id, replace_terminated, start_batch)| Knobs {
            blocked_rule,
            blocked_renewal,
            rollback_id,
            replace_terminated,
            start_batch,
            ..crate::lab::knobs()
        },
    )
}

fn pick(lab: &Lab, which: usize) -> Option<TaskId> {
    let live: Vec<TaskId> = lab.world.tasks_of(lab.service().id).filter(|task| task.is_live()).map(|t| t.id).collect();
    (!live.is_empty()).then(|| live[which % live.len()])
}

/// Live tasks may be more than the bound allows only if there were as many when the bound fell.
struct Bound {
    allowed: usize,
}

impl Bound {
    fn check(&mut self, lab: &Lab) {
        let service = lab.service();
        let upper = service.configuration.upper(service.desired) as usize;
        let live = lab.all_live();
        self.allowed = self.allowed.min(live).max(upper);
        assert!(live <= self.allowed, "{live} tasks, at most {}\n{}", self.allowed, lab.story());
    }

    fn lower(&mut self, lab: &Lab) {
        self.allowed = self.allowed.max(lab.all_live());
    }
}

fn perform(lab: &mut Lab, deed: &Deed, bound: &mut Bound) {
    match *deed {
        Deed::Run(seconds) => {
            let end = lab.now + Duration::from_secs(seconds);
            while lab.step(end) {
                bound.check(lab);
                a_held_old_task_keeps_the_rollout_open(lab);
            }
        }
        Deed::Deploy(revision) => {
            // May be refused: five at once are the limit.
            let _ = lab.update(|request| request.task_definition = Some(format!("worker:{revision}")));
        }
        Deed::Force => {
            let _ = lab.update(|request| request.force_new_deployment = true);
        }
        Deed::Scale(desired) => {
            bound.lower(lab);
            lab.scale(desired);
        }
        Deed::Configure(min, max, on) => {
            bound.lower(lab);
            let mut configuration = percent(min, max);
            configuration.breaker.enable = on;
            configuration.breaker.rollback = on;
            lab.configure(configuration);
        }
        Deed::Protect { which, minutes } => {
            if let Some(task) = pick(lab, which) {
                lab.protect(&[task], Protection::On(Some(minutes)));
            }
        }
        Deed::Unprotect { which } => {
            if let Some(task) = pick(lab, which) {
                let answer = lab.protect(&[task], Protection::Off);
                assert!(answer.failures.is_empty(), "taking protection away is never refused");
            }
        }
        Deed::Exit { which } => {
            if let Some(task) = pick(lab, which) {
                lab.exit(task, 1);
            }
        }
        Deed::StopTask { which } => {
            if let Some(task) = pick(lab, which) {
                lab.stop_task(task);
            }
        }
        Deed::Break(broken) => {
            let mut faults = lab.world.faults().clone();
            faults.unstartable.clear();
            if broken {
                faults.unstartable.insert("worker:3".to_owned());
            }
            lab.world.set_faults(faults);
        }
    }
}

fn a_held_old_task_keeps_the_rollout_open(lab: &Lab) {
    let Some(primary) = lab.service().primary() else { return };
    let before = |at: Time| at <= primary.updated_at;
    let held = lab.world.tasks_of(lab.service().id).any(|task| {
        task.is_live() && task.deployment != Some(primary.id) && task.is_protected(lab.now) && before(task.created_at)
    });
    assert!(!(held && primary.rollout == RolloutState::Completed), "{}", lab.story());
}

fn the_story_is_lawful(lab: &Lab) {
    let mut versions: BTreeMap<TaskId, u64> = BTreeMap::new();
    let mut protected: BTreeMap<TaskId, Time> = BTreeMap::new();
    for entry in lab.world.history() {
        match &entry.what {
            Transition::Task { task, version, .. } => {
                let before = versions.insert(*task, *version).unwrap_or(0);
                assert_eq!(*version, before + 1, "versions rise by one");
            }
            Transition::Protected { task, until } => {
                protected.insert(*task, *until);
            }
            Transition::Unprotected { task } | Transition::ProtectionExpired { task } => {
                protected.remove(task);
            }
            Transition::Stop { task, deployment, cause: StopCause::Scaling, reason, protected_until } => {
                assert_eq!(*protected_until, None, "the scheduler stops no protected task");
                assert!(protected.get(task).is_none_or(|until| *until <= entry.at));
                let named = deployment.expect("a service's task").to_string();
                assert_eq!(*reason, format!("Scaling activity initiated by (deployment {named})"));
            }
            _ => {}
        }
    }
}

/// Faults end, protection ends: then every rollout ends, too.
fn all_is_well_in_the_end(lab: &mut Lab) {
    lab.world.set_faults(ecs_emulator::model::Faults::default());
    let mut configuration = lab.service().configuration;
    configuration.minimum_healthy_percent = 50;
    configuration.maximum_percent = 200;
    configuration.breaker.enable = false;
    lab.configure(configuration);
    lab.scale(2);
    for task in [lab.live(1), lab.live(2), lab.live(3)].concat() {
        lab.protect(&[task], Protection::Off);
    }
    let new_one = lab.primary().rollout == RolloutState::Failed;
    if new_one {
        lab.run(7200);
        lab.deploy(1);
        lab.update(|request| request.force_new_deployment = true).unwrap();
    }
    lab.run(7200);
    assert_eq!(lab.primary().rollout, RolloutState::Completed, "{}", lab.story());
    assert_eq!(lab.all_live(), 2);
    assert_eq!(lab.service().deployments.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_history_is_lawful_and_comes_to_an_end(
        knobs in knobs(),
        seed in any::<u64>(),
        desired in 0..6_u32,
        deeds in prop::collection::vec(deed(), 1..40),
    ) {
        let mut lab = Lab::new(knobs, seed, desired, percent(100, 200));
        let mut bound = Bound { allowed: 0 };
        for deed in &deeds {
            perform(&mut lab, deed, &mut bound);
        }
        the_story_is_lawful(&lab);
        all_is_well_in_the_end(&mut lab);
        the_story_is_lawful(&lab);
    }
}
