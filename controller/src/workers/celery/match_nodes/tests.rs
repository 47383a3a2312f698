use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use proptest::{prelude::*, sample::subsequence};
use rstest::rstest;
use worker_drain_plan::{NodeName, TaskId, observation::Mapping};

use super::{Answered, Matched, Matcher, Naming};
use crate::identity::{Container, Expected, Identity};

const A: &str = "0af30af30af30af30af30af30af30af3";
const B: &str = "0bf30bf30bf30bf30bf30bf30bf30bf3";
const ARN: &str = "arn:aws:ecs:us-east-1:1:task/media/";
const DOCKER: &str = "4f5c0123456789abcdef4f5c0123456789abcdef4f5c0123456789abcdef4f5c";

fn match_nodes(naming: &Naming, tasks: &BTreeMap<TaskId, Expected>, answered: &Answered) -> Matched {
    Matcher::new(naming, tasks).matched(answered)
}

fn id(short: &str) -> TaskId {
    TaskId::from(format!("{ARN}{short}"))
}

/// A running task with an interface that has this address and, if any, this host name, and a container with this id.
fn task(address: &str, host_name: &str, runtime_id: &str) -> Expected {
    let host_names = [host_name].into_iter().filter(|name| !name.is_empty()).map(String::from).collect();
    let runtime_id = (!runtime_id.is_empty()).then(|| runtime_id.to_owned());
    let identity = Identity {
        containers: vec![Container { name: "worker".into(), runtime_id }],
        host_names,
        addresses: BTreeSet::from([address.parse::<IpAddr>().unwrap()]),
    };
    Expected { identity, nodes: BTreeSet::new(), running: true }
}

fn answered(nodes: &[&str]) -> Answered {
    Answered { nodes: nodes.iter().map(|node| NodeName::from(*node)).collect(), ..Answered::default() }
}

fn nodes(names: &[&str]) -> Mapping {
    Mapping::Nodes(names.iter().map(|name| NodeName::from(*name)).collect())
}

/// A fleet of two: ours, with what is given, and another.
fn fleet(ours: Expected) -> BTreeMap<TaskId, Expected> {
    let other = task("10.0.9.9", "ip-10-0-9-9.ec2.internal", "ffff0123456789abcdef0123456789abcdef");
    BTreeMap::from([(id(A), ours), (id(B), other)])
}

#[rstest]
#[case::named_by_its_task(&format!("worker@{A}"))]
#[case::named_by_its_task_before_the_at(&format!("worker-{A}@localhost"))]
#[case::named_by_its_task_in_capitals(&format!("worker@{}", A.to_uppercase()))]
#[case::fargate_without_dns(&format!("celery@{A}-0123456789"))]
#[case::fargate_full("celery@ip-10-0-4-168.ec2.internal")]
#[case::fargate_short("celery@ip-10-0-4-168")]
#[case::another_suffix("celery@ip-10-0-4-168.ap-northeast-2.compute.internal")]
#[case::plain_address("celery@10.0.4.168")]
#[case::docker("celery@4f5c01234567")]
#[case::docker_and_more("heavy@4f5c01234567-1")]
#[case::docker_whole(&format!("celery@{DOCKER}"))]
fn a_node_is_recognised(#[case] node: &str) {
    let tasks = fleet(task("10.0.4.168", "ip-10-0-4-168.ec2.internal", DOCKER));
    let Matched { tasks, unmatched_workers } = match_nodes(&Naming::Automatic, &tasks, &answered(&[node]));
    assert_eq!(tasks[&id(A)], nodes(&[node]));
    assert!(matches!(&tasks[&id(B)], Mapping::NotFound { .. }));
    assert!(unmatched_workers.is_empty());
}

#[rstest]
#[case::foreign_host("celery@ip-10-0-4-169.ec2.internal")]
#[case::longer_id(&format!("worker@{A}0"))]
#[case::docker_too_short("celery@4f5c0123")]
#[case::a_longer_id("celery@4f5c012345670")]
#[case::pause_container("celery@99990123abcd")]
#[case::no_address("celery@ip-10-0-4")]
#[case::fixed_host_name("celery@worker")]
#[case::no_host("celery")]
#[case::empty_host("celery@")]
fn a_node_is_a_stranger(#[case] node: &str) {
    let tasks = fleet(task("10.0.4.168", "ip-10-0-4-168.ec2.internal", DOCKER));
    let Matched { tasks, unmatched_workers } = match_nodes(&Naming::Automatic, &tasks, &answered(&[node]));
    assert!(tasks.values().all(|mapping| matches!(mapping, Mapping::NotFound { .. })), "{tasks:?}");
    assert_eq!(unmatched_workers, [NodeName::from(node)].into());
}

#[test]
fn a_short_id_must_be_the_whole_host() {
    let tasks = BTreeMap::from([(TaskId::from("pod-7"), task("10.0.0.7", "", ""))]);
    let found =
        match_nodes(&Naming::Automatic, &tasks, &answered(&["celery@pod-7", "celery@pod-7-x", "celery@pod-70"]));
    assert_eq!(found.tasks[&TaskId::from("pod-7")], nodes(&["celery@pod-7"]));
    assert_eq!(found.unmatched_workers.len(), 2);
}

#[test]
fn a_task_may_have_several_nodes() {
    let tasks = fleet(task("10.0.4.168", "ip-10-0-4-168.ec2.internal", ""));
    let names = ["a@ip-10-0-4-168", "b@ip-10-0-4-168.ec2.internal"];
    assert_eq!(match_nodes(&Naming::Automatic, &tasks, &answered(&names)).tasks[&id(A)], nodes(&names));
}

#[test]
fn a_host_that_several_tasks_share_is_nobodys() {
    // EC2 in host mode: the instance's name and address, shared by all tasks there.
    let shared = task("10.0.4.168", "ip-10-0-4-168.ec2.internal", "");
    let mut tasks = fleet(shared.clone());
    let third = "0cf30cf30cf30cf30cf30cf30cf30cf3";
    tasks.insert(id(third), shared);
    let found = match_nodes(&Naming::Automatic, &tasks, &answered(&["celery@ip-10-0-4-168"]));
    for task in [A, third] {
        let Mapping::Ambiguous { why } = &found.tasks[&id(task)] else { panic!("{found:?}") };
        assert!(why.contains(A) && why.contains(third), "{why}");
    }
    assert!(matches!(&found.tasks[&id(B)], Mapping::NotFound { .. }), "who has no part in it is told nothing of it");
    assert!(found.unmatched_workers.is_empty());
}

#[test]
fn an_address_that_a_stopping_task_still_has_is_nobodys() {
    let mut stopping = task("10.0.4.168", "", "");
    stopping.running = false;
    stopping.nodes = ["celery@ip-10-0-4-168".into()].into();
    let tasks = BTreeMap::from([(id(A), stopping), (id(B), task("10.0.4.168", "", ""))]);
    let found = match_nodes(&Naming::Automatic, &tasks, &answered(&["celery@ip-10-0-4-168"]));
    assert!(found.tasks.values().all(|mapping| matches!(mapping, Mapping::Ambiguous { .. })), "{found:?}");
}

#[test]
fn an_earlier_rule_outranks_a_later_one() {
    // The node says whose it is, though by its address it could be another's.
    let tasks = BTreeMap::from([(id(A), task("10.0.4.168", "", "")), (id(B), task("10.0.9.9", "", ""))]);
    let node = format!("{B}@ip-10-0-4-168");
    let found = match_nodes(&Naming::Automatic, &tasks, &answered(&[&node]));
    assert_eq!(found.tasks[&id(B)], nodes(&[&node]));
    assert!(matches!(&found.tasks[&id(A)], Mapping::NotFound { .. }));
}

#[test]
fn a_node_that_was_seen_before_is_missed_by_name() {
    let mut ours = task("10.0.4.168", "", "");
    ours.nodes = ["a@ip-10-0-4-168".into(), "b@ip-10-0-4-168".into()].into();
    let found = match_nodes(&Naming::Automatic, &fleet(ours), &answered(&["a@ip-10-0-4-168"]));
    assert_eq!(found.tasks[&id(A)], nodes(&["a@ip-10-0-4-168", "b@ip-10-0-4-168"]));
}

#[test]
fn a_name_that_several_processes_share_is_nobodys() {
    let tasks = fleet(task("10.0.4.168", "", ""));
    let node = NodeName::from("a@ip-10-0-4-168");
    let answered = Answered { nodes: [node.clone()].into(), shared: [node].into(), ..Answered::default() };
    let found = match_nodes(&Naming::Automatic, &tasks, &answered);
    assert!(matches!(&found.tasks[&id(A)], Mapping::Ambiguous { why } if why.contains("several processes")));
}

#[test]
fn what_no_template_names_is_recognised_all_the_same() {
    let naming = Naming::Templates(vec!["worker@{taskId}".parse().unwrap()]);
    let tasks = fleet(task("10.0.4.168", "ip-10-0-4-168.ec2.internal", ""));
    let (exact, forgotten) = (format!("worker@{A}"), "light@ip-10-0-4-168");
    let found = match_nodes(&naming, &tasks, &answered(&[&exact, forgotten, "worker@elsewhere"]));
    assert_eq!(found.tasks[&id(A)], nodes(&[&exact, forgotten]), "its second worker is its own");
    let Mapping::NotFound { hint } = &found.tasks[&id(B)] else { panic!("{found:?}") };
    assert_eq!(hint, &format!("no node answered as worker@{B}; nodes that are no task's: worker@elsewhere"));
}

#[test]
fn one_that_is_bound_and_silent_is_its_tasks_where_its_name_is_unique() {
    let tasks = fleet(task("10.0.4.168", "ip-10-0-4-168.ec2.internal", DOCKER));
    let (heard, silent) = (format!("heavy@{A}"), format!("light@{A}"));
    let names = [silent.as_str(), &heard, "old@ip-10-0-4-168", "old@10.0.9.9"];
    let bound = names.into_iter().map(NodeName::from).collect();
    let found = match_nodes(&Naming::Automatic, &tasks, &Answered { bound, ..answered(&[&heard]) });
    assert_eq!(found.tasks[&id(A)], nodes(&[&heard, &silent]), "an address is used again, and an id is not");
    assert!(matches!(&found.tasks[&id(B)], Mapping::NotFound { .. }));
    assert!(found.unmatched_workers.is_empty());
}

#[test]
fn one_that_says_whose_it_is_is_believed() {
    let tasks = fleet(task("10.0.4.168", "ip-10-0-4-168.ec2.internal", ""));
    let told = [("a@ip-10-0-4-168".into(), B.to_owned()), ("b@ip-10-0-4-168".into(), "another fleet's".into())];
    let answered = Answered { told: told.into(), ..answered(&["a@ip-10-0-4-168", "b@ip-10-0-4-168"]) };
    let found = match_nodes(&Naming::Automatic, &tasks, &answered);
    assert_eq!(found.tasks[&id(B)], nodes(&["a@ip-10-0-4-168"]));
    assert!(matches!(&found.tasks[&id(A)], Mapping::NotFound { .. }));
    assert_eq!(found.unmatched_workers, ["b@ip-10-0-4-168".into()].into());
}

#[test]
fn with_a_template_for_each_container_those_that_run_no_worker_are_not_waited_for() {
    let naming = Naming::Templates(vec!["{containerName}@{runtimeId}".parse().unwrap()]);
    let mut ours = task("10.0.4.168", "", "r-1");
    ours.identity.containers.push(Container { name: "log-router".into(), runtime_id: Some("r-2".into()) });
    let found = match_nodes(&naming, &fleet(ours), &answered(&["worker@r-1"]));
    assert_eq!(found.tasks[&id(A)], nodes(&["worker@r-1"]));
}

#[test]
fn hints_are_bounded() {
    let tasks = fleet(task("10.0.4.168", "ip-10-0-4-168.ec2.internal", DOCKER));
    let many: Vec<String> =
        (0..500).map(|number| format!("celery@ip-10-1-{}-{}", number / 250, number % 250)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let found = match_nodes(&Naming::Automatic, &tasks, &answered(&many));
    let Mapping::NotFound { hint } = &found.tasks[&id(A)] else { panic!("{found:?}") };
    assert!(hint.ends_with("and 497 more") && hint.len() < 500, "{hint}");
    let Mapping::NotFound { hint } = &match_nodes(&Naming::Automatic, &tasks, &answered(&[])).tasks[&id(A)] else {
        panic!("{found:?}")
    };
    assert!(hint.ends_with("no node answered that is not already some task's"), "{hint}");
}

/// Few names, so that they clash.
fn some_expected() -> impl Strategy<Value = Expected> {
    let hosts = vec!["ip-10-0-0-1.x", "ip-10-0-0-1.y", "ip-10-0-0-2.x"];
    let addresses = vec!["10.0.0.1", "10.0.0.2", "::1"];
    let runtime_ids = vec![DOCKER, "4f5c01234567ffff", "0af30af30af30af30af30af30af30af3-1"];
    (
        subsequence(hosts, 0..=2),
        subsequence(addresses, 0..=2),
        subsequence(runtime_ids, 0..=2),
        subsequence(some_names(), 0..=2),
        any::<bool>(),
    )
        .prop_map(|(hosts, addresses, runtime_ids, seen, running)| Expected {
            identity: Identity {
                containers: runtime_ids
                    .iter()
                    .map(|id| Container { name: "worker".into(), runtime_id: Some((*id).into()) })
                    .collect(),
                host_names: hosts.into_iter().map(String::from).collect(),
                addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            },
            nodes: seen.into_iter().map(NodeName::from).collect(),
            running,
        })
}

fn some_names() -> Vec<String> {
    let hosts =
        ["ip-10-0-0-1", "ip-10-0-0-1.x", "ip-10-0-0-2.z", "4f5c01234567", DOCKER, A, B, "10.0.0.1", "[::1]", "", "é"];
    hosts.iter().flat_map(|host| ["a", "b"].map(|name| format!("{name}@{host}"))).chain(["plain".into()]).collect()
}

proptest! {
    #[test]
    fn no_node_is_ever_mapped_to_two_tasks(
        expected in prop::collection::vec(some_expected(), 1..5),
        nodes in subsequence(some_names(), 0..=15),
        shared in subsequence(some_names(), 0..=2),
        template in prop::option::of(prop::sample::select(vec![
            "a@{taskId}", "a@{privateIp}", "b@{runtimeId}", "a@{privateDnsName}", "{containerName}@{runtimeId}",
        ])),
    ) {
        let ids = [A, B, "pod-7", "pod-70"];
        let tasks: BTreeMap<_, _> = ids.into_iter().map(id).zip(expected).collect();
        let nodes: BTreeSet<_> = nodes.into_iter().map(NodeName::from).collect();
        let shared = shared.into_iter().map(NodeName::from).filter(|node| nodes.contains(node)).collect();
        let naming = template.map_or(Naming::Automatic, |template| Naming::Templates(vec![template.parse().unwrap()]));
        let answered = Answered { nodes, shared, ..Answered::default() };
        let found = match_nodes(&naming, &tasks, &answered);

        prop_assert!(found.tasks.keys().eq(tasks.keys()), "every task that was asked about is told of");
        let mut taken = BTreeSet::new();
        for mapping in found.tasks.values() {
            if let Mapping::Nodes(nodes) = mapping {
                prop_assert!(!nodes.is_empty());
                for node in nodes {
                    prop_assert!(taken.insert(node.clone()), "{node} is mapped twice");
                    prop_assert!(!answered.shared.contains(node), "{node} is several processes");
                    prop_assert!(!found.unmatched_workers.contains(node), "{node} is a stranger too");
                }
            }
        }
        prop_assert!(found.unmatched_workers.is_subset(&answered.nodes));
        prop_assert_eq!(match_nodes(&naming, &tasks, &answered), found, "it depends on nothing else");
    }
}
