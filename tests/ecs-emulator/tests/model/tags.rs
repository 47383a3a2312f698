//! Tags of a service.

use ecs_emulator::model::Operation;

use crate::lab::{CLUSTER, Lab, SERVICE, knobs, percent};

fn tags(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn tags_are_set_one_by_one_and_taken_away_by_their_keys() {
    let mut lab = Lab::settled(knobs(), 1, percent(100, 200));
    let arn = lab.world.knobs().service_arn(CLUSTER, SERVICE);
    let read = |lab: &Lab| lab.service().tags.clone().into_iter().collect::<Vec<_>>();
    lab.world.tag_resource(&arn, &tags(&[("team", "media"), ("a/b", "x:1=2 y:2=3")]), lab.now).unwrap();
    lab.world.tag_resource(&arn, &tags(&[("team", "video")]), lab.now).unwrap();
    assert_eq!(read(&lab), tags(&[("a/b", "x:1=2 y:2=3"), ("team", "video")]));
    lab.world.untag_resource(&arn, &["a/b".to_owned(), "none".to_owned()], lab.now).unwrap();
    assert_eq!(read(&lab), tags(&[("team", "video")]));
    assert_eq!(lab.world.calls()[&Operation::TagResource], 2);
    assert_eq!(lab.service().deployments.len(), 1, "a tag deploys nothing");
}

#[test]
fn what_ecs_takes_for_no_tag_is_refused() {
    let mut lab = Lab::settled(knobs(), 1, percent(100, 200));
    let arn = lab.world.knobs().service_arn(CLUSTER, SERVICE);
    let long = "x".repeat(257);
    for (key, value) in
        [("", "x"), ("aws:x", "x"), ("AWS:x", "x"), ("k", long.as_str()), (&long[..129], "x"), ("k", "a,b")]
    {
        let refused = lab.world.tag_resource(&arn, &tags(&[(key, value)]), lab.now).unwrap_err();
        assert_eq!(refused.code, "InvalidParameterException", "{key:?}: {value:?}");
    }
    let many: Vec<_> = (0..51).map(|number| (number.to_string(), String::new())).collect();
    assert!(lab.world.tag_resource(&arn, &many, lab.now).is_err());
    assert!(lab.service().tags.is_empty());
    let short = arn.replace("/default/", "/");
    let refused = lab.world.tag_resource(&short, &tags(&[("k", "v")]), lab.now).unwrap_err();
    assert!(refused.message.contains("Long arn format"), "{refused}");
    let missing = lab.world.untag_resource(&arn.replace("workers", "none"), &["k".to_owned()], lab.now).unwrap_err();
    assert_eq!(missing.code, "ServiceNotFoundException");
}
