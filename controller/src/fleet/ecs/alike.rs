//! Which containers of a task run one and the same image: if one of them is a worker, the others may be.
//!
//! Source: `Container` in the API reference (`image`, `imageDigest`, `lastStatus`).

use aws_sdk_ecs::types::{Container, Task as EcsTask};

/// The largest set of a task's containers that run one image, by name; empty if there are no two. A container that has ended is not
/// one: an image is often run once more before the worker, to migrate a database.
pub(super) fn alike(task: &EcsTask) -> Vec<String> {
    let alive = || task.containers().iter().filter(|container| container.last_status() != Some("STOPPED"));
    let sets = alive().map(|one| alive().filter(|other| is_same(one, other)).filter_map(Container::name));
    let sets = sets.map(|names| names.map(ToOwned::to_owned).collect::<Vec<_>>()).filter(|names| names.len() > 1);
    sets.max_by_key(Vec::len).unwrap_or_default()
}

/// They run one image: by its digest, which is the image's own, or else by its name.
fn is_same(one: &Container, other: &Container) -> bool {
    match (one.image_digest(), other.image_digest()) {
        (Some(one), Some(other)) => one == other,
        _ => one.image().is_some() && one.image() == other.image(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn container((name, image, digest, status): (&str, &str, &str, &str)) -> Container {
        let digest = (!digest.is_empty()).then(|| digest.to_owned());
        Container::builder().name(name).image(image).set_image_digest(digest).last_status(status).build()
    }

    #[rstest]
    #[case::one(&[("a", "app", "", "RUNNING")], &[])]
    #[case::a_sidecar(&[("a", "app", "x", "RUNNING"), ("log", "router", "y", "RUNNING")], &[])]
    #[case::by_name(&[("a", "app", "", "RUNNING"), ("b", "app", "x", "RUNNING"), ("log", "router", "", "RUNNING")], &["a", "b"])]
    #[case::by_digest(&[("a", "app:1", "x", "RUNNING"), ("b", "app:latest", "x", "RUNNING")], &["a", "b"])]
    #[case::a_name_that_moved(&[("a", "app", "x", "RUNNING"), ("b", "app", "y", "RUNNING")], &[])]
    #[case::one_that_has_ended(&[("migrate", "app", "x", "STOPPED"), ("a", "app", "x", "RUNNING")], &[])]
    #[case::the_larger_set(
        &[("l1", "log", "", "RUNNING"), ("a", "app", "", "RUNNING"), ("l2", "log", "", "RUNNING"), ("b", "app", "", "PENDING"), ("c", "app", "", "RUNNING")],
        &["a", "b", "c"]
    )]
    fn containers_of_one_image_are_alike(#[case] given: &[(&str, &str, &str, &str)], #[case] expected: &[&str]) {
        let containers = given.iter().copied().map(container).collect();
        assert_eq!(alike(&EcsTask::builder().set_containers(Some(containers)).build()), expected);
    }
}
