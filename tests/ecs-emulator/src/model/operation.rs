//! The API operations that exist here.

use serde::Serialize;

macro_rules! operations {
    ($($name:ident),* $(,)?) => {
        /// An API operation.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        pub enum Operation {
            $(
                #[doc = concat!("`", stringify!($name), "`")]
                $name
            ),*
        }

        impl Operation {
            /// Every operation, by name.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name in `X-Amz-Target`.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name)),*
                }
            }
        }
    };
}

operations! {
    CreateCluster,
    CreateService,
    DeleteService,
    DescribeClusters,
    DescribeContainerInstances,
    DescribeServices,
    DescribeTaskDefinition,
    DescribeTasks,
    GetTaskProtection,
    ListServices,
    ListTasks,
    RegisterContainerInstance,
    RegisterTaskDefinition,
    RunTask,
    StopTask,
    TagResource,
    UntagResource,
    UpdateContainerInstancesState,
    UpdateService,
    UpdateTaskProtection,
}

impl Operation {
    /// The operation of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|operation| operation.as_str() == name)
    }
}
