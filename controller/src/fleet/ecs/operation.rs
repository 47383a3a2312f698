//! The ECS operations that we use, which rows of AWS's throttling table they draw on, and how often they were called.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

/// The ECS operations that we use, all of them: the IAM policy in `docs/iam.md` grants exactly these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Reads the service: its deployments, counts and limits.
    DescribeServices,
    /// Lists the service's tasks.
    ListTasks,
    /// Reads tasks.
    DescribeTasks,
    /// Reads the instances that tasks run on, where they are the account's own.
    DescribeContainerInstances,
    /// Reads holds.
    GetTaskProtection,
    /// Holds and releases.
    UpdateTaskProtection,
    /// Writes down beside the service how many workers a task has.
    TagResource,
    /// Takes that away.
    UntagResource,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::DescribeServices,
        Self::ListTasks,
        Self::DescribeTasks,
        Self::DescribeContainerInstances,
        Self::GetTaskProtection,
        Self::UpdateTaskProtection,
        Self::TagResource,
        Self::UntagResource,
    ];

    /// AWS's name for it; `ecs:` before it makes the IAM action.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DescribeServices => "DescribeServices",
            Self::ListTasks => "ListTasks",
            Self::DescribeTasks => "DescribeTasks",
            Self::DescribeContainerInstances => "DescribeContainerInstances",
            Self::GetTaskProtection => "GetTaskProtection",
            Self::UpdateTaskProtection => "UpdateTaskProtection",
            Self::TagResource => "TagResource",
            Self::UntagResource => "UntagResource",
        }
    }

    /// The row of AWS's throttling table that it draws on. The two that write tags are in none: they are so few that any will do.
    pub const fn row(self) -> Row {
        match self {
            Self::DescribeServices | Self::TagResource | Self::UntagResource => Row::ServiceRead,
            Self::ListTasks | Self::DescribeTasks | Self::DescribeContainerInstances => Row::ClusterRead,
            Self::GetTaskProtection | Self::UpdateTaskProtection => Row::Protection,
        }
    }

    const fn index(self) -> usize {
        self as usize
    }
}

/// How many requests were sent to ECS, by operation; retries count.
#[derive(Debug, Default)]
pub struct Calls([AtomicU64; Operation::ALL.len()]);

impl Calls {
    /// By operation; those that were never sent are not listed.
    pub fn by_operation(&self) -> BTreeMap<Operation, u64> {
        Operation::ALL.into_iter().map(|operation| (operation, self.of(operation))).filter(|(_, n)| *n > 0).collect()
    }

    /// Of one operation.
    pub fn of(&self, operation: Operation) -> u64 {
        self.0[operation.index()].load(Ordering::Relaxed)
    }

    /// All together.
    pub fn total(&self) -> u64 {
        Operation::ALL.into_iter().map(|operation| self.of(operation)).sum()
    }

    pub(super) fn count(&self, operation: Operation) {
        self.0[operation.index()].fetch_add(1, Ordering::Relaxed);
    }
}

/// The rows of AWS's table that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    /// "Cluster resource read": `ListTasks`, `DescribeTasks`, `DescribeContainerInstances`.
    ClusterRead,
    /// "Service read": `DescribeServices`.
    ServiceRead,
    /// "Task protection": `GetTaskProtection`, `UpdateTaskProtection`.
    Protection,
}

impl Row {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::ClusterRead, Self::ServiceRead, Self::Protection];

    /// What AWS documents for it: burst and sustained rate a second, for all callers of an account and Region together.
    pub(super) const fn documented(self) -> (u32, u32) {
        match self {
            Self::ClusterRead | Self::ServiceRead => (100, 20),
            Self::Protection => (200, 80),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_documented_policy_grants_exactly_what_is_called() {
        let text = include_str!("../../../../docs/iam.md");
        let policy = text.split("## The policy").nth(1).and_then(|rest| rest.split("Why it is").next()).unwrap();
        let granted: BTreeSet<&str> = policy
            .split('"')
            .filter_map(|word| word.strip_prefix("ecs:"))
            .filter(|word| word.starts_with(char::is_uppercase))
            .collect();
        assert_eq!(granted, Operation::ALL.map(Operation::name).into());
    }

    #[test]
    fn calls_are_counted_by_operation() {
        let calls = Calls::default();
        calls.count(Operation::ListTasks);
        calls.count(Operation::ListTasks);
        calls.count(Operation::UpdateTaskProtection);
        assert_eq!(calls.total(), 3);
        let expected = BTreeMap::from([(Operation::ListTasks, 2), (Operation::UpdateTaskProtection, 1)]);
        assert_eq!(calls.by_operation(), expected);
    }
}
