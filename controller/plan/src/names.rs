//! The names that things have outside. Newtypes, so that a task's name can never stand where a node's is meant. They are
//! shared, not copied: every reconciliation hands the same few names from what was seen to memory, actions and report.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize, Serializer};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(from = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as the outside writes it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl<T: Into<String>> From<T> for $name {
            fn from(name: T) -> Self {
                Self(name.into().into())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name! {
    /// One member of the fleet, by the full name that its scheduler gives it (ECS: the task's ARN).
    TaskId
}
name! {
    /// One worker process as the broker knows it, such as `celery@ip-10-0-1-7`.
    NodeName
}
name! {
    /// What a deployment rolls out (ECS: a deployment's id, `ecs-svc/123…`, never the task definition's number).
    RevisionId
}
name! {
    /// A queue that a worker takes jobs from.
    QueueName
}

impl TaskId {
    /// The part that people use: what follows the last `/` (ECS: the 32 hexadecimal digits at the end of an ARN).
    pub fn short(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::TaskId;

    #[test]
    fn a_task_is_called_by_the_end_of_its_arn() {
        assert_eq!(TaskId::from("arn:aws:ecs:eu-west-1:1:task/media/0af3").short(), "0af3");
        assert_eq!(TaskId::from("pod-7").short(), "pod-7");
    }
}
