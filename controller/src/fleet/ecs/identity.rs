//! What a task is known by. The spelling differs by place: an ENI attachment's detail is called `privateIPv4Address`, a
//! container's field `privateIpv4Address` (API reference, `Attachment` and `NetworkInterface`). An IPv6 address is documented of a
//! container's interface alone, as `ipv6Address`.

use aws_sdk_ecs::types::{Attachment, KeyValuePair, Task};

use crate::identity::{Container, Identity};

pub(super) fn identity(task: &Task) -> Identity {
    let details = || task.attachments().iter().filter(|it| is_attached(it)).flat_map(Attachment::details);
    let detail = |name: &'static str| details().filter_map(move |pair| value_of(pair, name));
    let of_containers = task
        .containers()
        .iter()
        .flat_map(aws_sdk_ecs::types::Container::network_interfaces)
        .flat_map(|interface| [interface.private_ipv4_address(), interface.ipv6_address()])
        .flatten();
    Identity {
        containers: task
            .containers()
            .iter()
            .map(|container| Container {
                name: container.name().unwrap_or_default().to_owned(),
                runtime_id: container.runtime_id().filter(|id| !id.is_empty()).map(ToOwned::to_owned),
            })
            .collect(),
        host_names: detail("privateDnsName").filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect(),
        addresses: detail("privateIPv4Address")
            .chain(of_containers)
            .filter_map(|address| address.parse().ok())
            .collect(),
    }
}

/// An interface that is gone may already be another task's.
fn is_attached(attachment: &Attachment) -> bool {
    !matches!(attachment.status(), Some("DETACHED" | "DELETED"))
}

fn value_of<'a>(pair: &'a KeyValuePair, name: &str) -> Option<&'a str> {
    pair.value().filter(|_| pair.name() == Some(name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use aws_sdk_ecs::types::{Container as EcsContainer, NetworkInterface};

    use super::*;

    fn detail(name: &str, value: &str) -> KeyValuePair {
        KeyValuePair::builder().name(name).value(value).build()
    }

    fn eni(status: &str, host: &str, address: &str) -> Attachment {
        Attachment::builder()
            .r#type("ElasticNetworkInterface")
            .status(status)
            .details(detail("subnetId", "subnet-1"))
            .details(detail("privateDnsName", host))
            .details(detail("privateIPv4Address", address))
            .build()
    }

    #[test]
    fn a_fargate_task_is_known_by_its_interface_and_containers() {
        let interface = NetworkInterface::builder().private_ipv4_address("10.0.4.168").build();
        let task = Task::builder()
            .attachments(eni("ATTACHED", "ip-10-0-4-168.ec2.internal", "10.0.4.168"))
            .containers(
                EcsContainer::builder().name("worker").runtime_id("0af3-527074").network_interfaces(interface).build(),
            )
            .containers(EcsContainer::builder().name("sidecar").build())
            .build();
        let identity = identity(&task);
        assert_eq!(
            identity.containers,
            [
                Container { name: "worker".into(), runtime_id: Some("0af3-527074".into()) },
                Container { name: "sidecar".into(), runtime_id: None },
            ]
        );
        assert_eq!(identity.host_names, BTreeSet::from(["ip-10-0-4-168.ec2.internal".to_owned()]));
        assert_eq!(identity.addresses, BTreeSet::from(["10.0.4.168".parse().unwrap()]));
    }

    #[test]
    fn a_container_may_be_the_only_one_that_tells_the_address() {
        let interface = NetworkInterface::builder;
        for (interface, address) in [
            (interface().private_ipv4_address("10.0.9.9"), "10.0.9.9"),
            (interface().ipv6_address("2001:db8::a"), "2001:db8::a"),
        ] {
            let container = EcsContainer::builder().name("worker").network_interfaces(interface.build()).build();
            let identity = identity(&Task::builder().containers(container).build());
            assert_eq!(identity.addresses, BTreeSet::from([address.parse().unwrap()]));
        }
    }

    #[test]
    fn an_interface_that_is_gone_names_nobody() {
        let task = Task::builder().attachments(eni("DELETED", "ip-10-0-4-168.ec2.internal", "10.0.4.168")).build();
        assert_eq!(identity(&task), Identity::default());
    }
}
