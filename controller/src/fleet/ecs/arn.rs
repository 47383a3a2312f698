//! The ARN of an ECS service: `arn:partition:ecs:region:account:service/cluster/name`, or `…:service/name` for services from
//! before 2021 ("Amazon Resource Names (ARNs) and IDs" in the developer guide). ECS may come to call a service by the other
//! form, so the two are one service here.

/// The parts of a service's ARN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ServiceArn<'a> {
    partition: &'a str,
    pub(super) region: &'a str,
    pub(super) account: &'a str,
    /// Absent in the form of before 2021.
    cluster: Option<&'a str>,
    name: &'a str,
}

impl<'a> ServiceArn<'a> {
    /// `None`: it is not the ARN of a service.
    pub(super) fn parse(arn: &'a str) -> Option<Self> {
        let mut parts = arn.splitn(6, ':');
        let (Some("arn"), Some(partition), Some("ecs"), Some(region), Some(account), Some(resource)) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let path = resource.strip_prefix("service/")?;
        let (cluster, name) = path.rsplit_once('/').map_or((None, path), |(cluster, name)| (Some(cluster), name));
        Some(Self { partition, region, account, cluster, name })
    }
}

/// Whether both are of one service. A part that one of them does not name may be any.
pub(super) fn is_same_service(one: &str, other: &str) -> bool {
    let (Some(a), Some(b)) = (ServiceArn::parse(one), ServiceArn::parse(other)) else { return one == other };
    let clusters = a.cluster.zip(b.cluster);
    ServiceArn { cluster: None, ..a } == ServiceArn { cluster: None, ..b } && clusters.is_none_or(|(a, b)| a == b)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const ARN: &str = "arn:aws:ecs:eu-west-1:123456789012:service/media/transcoder";

    #[rstest]
    #[case::itself(ARN, true)]
    #[case::the_form_of_before("arn:aws:ecs:eu-west-1:123456789012:service/transcoder", true)]
    #[case::another_region("arn:aws:ecs:us-east-1:123456789012:service/media/transcoder", false)]
    #[case::another_account("arn:aws:ecs:eu-west-1:210987654321:service/media/transcoder", false)]
    #[case::another_cluster("arn:aws:ecs:eu-west-1:123456789012:service/batch/transcoder", false)]
    #[case::another_service("arn:aws:ecs:eu-west-1:123456789012:service/media/resizer", false)]
    #[case::another_partition("arn:aws-cn:ecs:eu-west-1:123456789012:service/media/transcoder", false)]
    #[case::no_arn("transcoder", false)]
    fn one_service_has_one_name(#[case] other: &str, #[case] same: bool) {
        assert_eq!(is_same_service(ARN, other), same);
        assert_eq!(is_same_service(other, ARN), same);
    }
}
