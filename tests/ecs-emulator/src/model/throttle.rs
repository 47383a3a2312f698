//! AWS's token buckets (developer guide: "Request throttling for the Amazon ECS API").

use std::collections::BTreeMap;

use super::{operation::Operation, time::Time};

/// Operations that share a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Bucket {
    ClusterResourceRead,
    ClusterResourceModify,
    ServiceRead,
    ServiceModify,
    TaskProtection,
    TaskDefinitionRead,
    /// Clusters, registrations and tags: no work of a test is about how often they are called.
    Other,
}

impl Bucket {
    fn of(operation: Operation) -> Self {
        match operation {
            Operation::DescribeTasks | Operation::ListTasks | Operation::DescribeContainerInstances => {
                Self::ClusterResourceRead
            }
            Operation::StopTask | Operation::RunTask | Operation::UpdateContainerInstancesState => {
                Self::ClusterResourceModify
            }
            Operation::DescribeServices | Operation::ListServices => Self::ServiceRead,
            Operation::CreateService | Operation::UpdateService | Operation::DeleteService => Self::ServiceModify,
            Operation::UpdateTaskProtection | Operation::GetTaskProtection => Self::TaskProtection,
            Operation::DescribeTaskDefinition => Self::TaskDefinitionRead,
            Operation::CreateCluster
            | Operation::DescribeClusters
            | Operation::RegisterTaskDefinition
            | Operation::RegisterContainerInstance
            | Operation::TagResource
            | Operation::UntagResource => Self::Other,
        }
    }

    /// Burst, and tokens per second.
    fn size(self) -> (u64, u64) {
        match self {
            Self::ClusterResourceRead | Self::ServiceRead => (100, 20),
            Self::ClusterResourceModify => (100, 40),
            Self::ServiceModify => (50, 5),
            Self::TaskProtection => (200, 80),
            Self::TaskDefinitionRead => (50, 20),
            Self::Other => (100, 100),
        }
    }
}

/// Thousandths of tokens, so that whole milliseconds refill without rounding.
#[derive(Debug, Clone, Copy)]
struct Level {
    millitokens: u64,
    at: Time,
}

/// The buckets of one account and Region.
#[derive(Debug, Clone, Default)]
pub(super) struct Buckets {
    levels: BTreeMap<Bucket, Level>,
}

impl Buckets {
    /// Takes a token if there is one. `limit` replaces burst and rate.
    pub fn take(&mut self, operation: Operation, limit: Option<u32>, now: Time) -> bool {
        let bucket = Bucket::of(operation);
        let (burst, rate) = limit.map_or_else(|| bucket.size(), |n| (u64::from(n), u64::from(n)));
        let level = self.levels.entry(bucket).or_insert(Level { millitokens: burst * 1000, at: now });
        // A rate per second in tokens is the same number per millisecond in thousandths.
        let passed = now.0.saturating_sub(level.at.0);
        level.millitokens = level.millitokens.saturating_add(passed.saturating_mul(rate)).min(burst * 1000);
        level.at = level.at.max(now);
        let taken = level.millitokens >= 1000;
        if taken {
            level.millitokens -= 1000;
        }
        taken
    }
}
