//! The deployment that a run is for, and what became of it.

use worker_drain_plan::{
    Report, RevisionId,
    observation::FleetView,
    report::{PastRollout, RolloutOutcome},
};

use super::exit::{Exit, UserError};

/// A deployment, as a pipeline knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// By the id that `aws ecs update-service` returns.
    Deployment(RevisionId),
    /// By the task definition that it rolls out, such as `transcoder:43`.
    TaskDefinition(String),
}

/// What became of it so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is not known, or another deployment is current that may be from before it.
    Unseen,
    /// It is current, and tasks of others are left.
    Current,
    /// No task of another deployment was left; its rollout ended so, if one was seen.
    Drained(Option<RolloutOutcome>),
    /// Another one has taken its place.
    Replaced {
        /// For a person.
        message: String,
    },
}

impl Target {
    /// By its id. Errors: it is none.
    pub fn deployment(id: &str) -> Result<Self, UserError> {
        let number = id.strip_prefix("ecs-svc/").filter(|number| is_number(number));
        number.map(|_| Self::Deployment(id.into())).ok_or_else(|| {
            UserError::with_hint(
                format!("--deployment {id:?} is no id of an ECS deployment, such as ecs-svc/1234567890123456789"),
                "aws ecs update-service prints it: --query 'service.deployments[?status==`PRIMARY`].id' --output text",
            )
        })
    }

    /// By its task definition, with its revision; the ARN is taken too. Errors: it is none.
    pub fn task_definition(name: &str) -> Result<Self, UserError> {
        let label = name.rsplit_once(":task-definition/").map_or(name, |(_, label)| label);
        let is_whole =
            label.split_once(':').is_some_and(|(family, revision)| !family.is_empty() && is_number(revision));
        if is_whole && !label.contains('/') {
            return Ok(Self::TaskDefinition(label.to_owned()));
        }
        Err(UserError::with_hint(
            format!("--task-definition {name:?} is no task definition with its revision"),
            "write family:revision, such as transcoder:43, or its ARN",
        ))
    }

    fn is(&self, id: &RevisionId, label: &str) -> bool {
        match self {
            Self::Deployment(wanted) => wanted == id,
            Self::TaskDefinition(wanted) => wanted == label,
        }
    }

    /// It is current now.
    pub fn is_current(&self, report: &Report) -> bool {
        report.current.as_ref().is_some_and(|current| self.is(&current.id, &current.label))
    }

    /// What became of it. `was_current`: it was seen current earlier in this run. `is_late`: if it is to become current, it had time to.
    pub fn standing(&self, fleet: Option<&FleetView>, report: &Report, was_current: bool, is_late: bool) -> Standing {
        let is_current = self.is_current(report);
        // Of a task definition that is not current only what this run has seen is known to be meant.
        let is_meant = is_current || was_current || matches!(self, Self::Deployment(_));
        let drained = report.drained_to.as_ref().filter(|drained| is_meant && self.is(&drained.id, &drained.label));
        if let Some(drained) = drained {
            return Standing::Drained(drained.outcome);
        }
        let is_it = |past: &&PastRollout| is_meant && !is_current && self.is(&past.to, &past.label);
        if let Some(past) = report.past.iter().find(is_it) {
            return Standing::Drained(Some(past.outcome));
        }
        if is_current {
            return Standing::Current;
        }
        let is_there =
            || fleet.is_some_and(|fleet| fleet.revisions.iter().any(|(id, revision)| self.is(id, &revision.label)));
        match &report.current {
            Some(current) if was_current || (is_late && is_there()) => Standing::Replaced {
                message: format!("{self} is not in place: {} ({}) is current", current.label, current.id),
            },
            _ => Standing::Unseen,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Deployment(id) => write!(f, "deployment {id}"),
            Self::TaskDefinition(name) => write!(f, "the deployment of {name}"),
        }
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// How a run for a deployment ends whose rollout ended so.
pub const fn exit_of(outcome: Option<RolloutOutcome>) -> Exit {
    match outcome {
        None | Some(RolloutOutcome::Drained | RolloutOutcome::RolledBack) => Exit::Done,
        Some(RolloutOutcome::JobsCut) => Exit::JobsCut,
        Some(RolloutOutcome::EndedUnpermitted) => Exit::EndedUnpermitted,
        Some(RolloutOutcome::Killed) => Exit::Killed,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use jiff::{SignedDuration, Timestamp};
    use rstest::rstest;
    use worker_drain_plan::{
        Memory, Plan, Policy,
        observation::{Failure, FailureKind, Observation, Revision, Seen},
        plan,
        report::{CurrentRevision, DrainedTo},
    };

    use super::*;

    const AT: Timestamp = Timestamp::UNIX_EPOCH;

    /// A report in which the first deployment was drained, and this one is current.
    pub fn report(current: Option<&str>) -> Report {
        planned(current).report
    }

    /// A plan that does nothing, with that report.
    pub fn planned(current: Option<&str>) -> Plan {
        let failure = || Failure::new(FailureKind::Unreachable, "nobody there");
        let seen = Observation {
            fleet: Seen::Err { failure: failure(), at: AT },
            workers: Seen::Err { failure: failure(), at: AT },
            queues: None,
        };
        let mut plan = plan(&policy(), &seen, &Memory::default(), AT);
        let report = &mut plan.report;
        report.current =
            current.map(|id| CurrentRevision { id: format!("ecs-svc/{id}").into(), label: label(id), since: None });
        report.drained_to = Some(DrainedTo {
            id: "ecs-svc/1".into(),
            label: label("1"),
            at: AT,
            outcome: Some(RolloutOutcome::JobsCut),
        });
        plan
    }

    fn policy() -> Policy {
        let manifest = "{apiVersion: workerdrain.io/v1alpha1, kind: WorkerDrain, metadata: {name: a}, spec: {fleet: {ecs: \
                        {cluster: a, service: b, region: eu-west-1}}, workers: {celery: {broker: {url: 'redis://a'}}}}}";
        let drain: crate::api::WorkerDrain = serde_saphyr::from_str(manifest).unwrap();
        crate::api::DrainSpec::try_from(&drain).unwrap().policy
    }

    fn label(number: &str) -> String {
        format!("transcoder:4{number}")
    }

    /// A fleet of which the first three deployments are known.
    fn fleet() -> FleetView {
        let revision =
            |number: &str| (format!("ecs-svc/{number}").into(), Revision { label: label(number), created_at: None });
        FleetView::deleted(
            "fleet".into(),
            ["1", "2", "3"].map(revision).into(),
            [].into(),
            SignedDuration::from_hours(48),
        )
    }

    #[rstest]
    #[case::in_progress("2", "2", (false, false), Standing::Current)]
    #[case::drained("1", "1", (false, false), Standing::Drained(Some(RolloutOutcome::JobsCut)))]
    #[case::drained_and_overtaken_since("1", "2", (false, false), Standing::Drained(Some(RolloutOutcome::JobsCut)))]
    #[case::not_begun("4", "1", (false, true), Standing::Unseen)]
    #[case::perhaps_not_begun("3", "2", (false, false), Standing::Unseen)]
    fn what_became_of_a_deployment(
        #[case] wanted: &str,
        #[case] current: &str,
        #[case] (was_current, is_late): (bool, bool),
        #[case] expected: Standing,
    ) {
        let target = Target::deployment(&format!("ecs-svc/{wanted}")).unwrap();
        assert_eq!(target.standing(Some(&fleet()), &report(Some(current)), was_current, is_late), expected);
    }

    #[rstest]
    #[case::seen_in_this_run("4", true, false)]
    #[case::its_tasks_are_there("3", false, true)]
    fn one_whose_place_is_taken_is_named_with_the_one_that_took_it(
        #[case] wanted: &str,
        #[case] was_current: bool,
        #[case] is_late: bool,
    ) {
        for target in [
            Target::deployment(&format!("ecs-svc/{wanted}")).unwrap(),
            Target::task_definition(&format!("arn:aws:ecs:eu-west-1:1:task-definition/{}", label(wanted))).unwrap(),
        ] {
            match target.standing(Some(&fleet()), &report(Some("2")), was_current, is_late) {
                Standing::Replaced { message } => {
                    assert!(message.ends_with("is not in place: transcoder:42 (ecs-svc/2) is current"), "{message}");
                }
                other => panic!("{target}: {other:?}"),
            }
            assert_eq!(target.standing(Some(&fleet()), &report(None), was_current, is_late), Standing::Unseen);
        }
    }

    /// The one before may have had the same task definition.
    #[test]
    fn of_a_task_definition_that_is_not_current_nothing_is_believed() {
        let target = Target::task_definition("transcoder:41").unwrap();
        assert_eq!(target.standing(Some(&fleet()), &report(Some("2")), false, false), Standing::Unseen);
        let drained = Standing::Drained(Some(RolloutOutcome::JobsCut));
        assert_eq!(target.standing(Some(&fleet()), &report(Some("1")), false, false), drained);
    }

    #[rstest]
    #[case("ecs-svc/")]
    #[case("transcoder:43")]
    #[case("ecs-svc/12a")]
    fn what_is_no_deployment_is_refused(#[case] id: &str) {
        assert!(Target::deployment(id).unwrap_err().message.contains(id));
    }

    #[rstest]
    #[case("transcoder")]
    #[case(":43")]
    #[case("transcoder:latest")]
    #[case("ecs-svc/1")]
    #[case("repository/image:43")]
    fn what_is_no_task_definition_is_refused(#[case] name: &str) {
        assert!(Target::task_definition(name).unwrap_err().message.contains(name));
    }
}
