//! What a manifest means, and what is said of one that means nothing.

use jiff::SignedDuration;
use rstest::rstest;
use serde_json::{Value, json};
use worker_drain_plan::policy::{DeadlineAction, HoldMode, MinConsuming, Mode, Scheduled};

use super::{BrokerSource, DrainSpec, HttpTarget, HttpsTarget, SecretKeyRef, WorkersTarget};

fn manifest(change: impl FnOnce(&mut Value)) -> Value {
    let mut manifest = json!({
        "apiVersion": "workerdrain.io/v1alpha1",
        "kind": "WorkerDrain",
        "metadata": {"name": "transcoder", "namespace": "media"},
        "spec": {
            "fleet": {"ecs": {"cluster": "media", "service": "transcoder"}},
            "workers": {"celery": {"broker": {"url": "redis://cache:6379/0"}}},
        },
    });
    change(&mut manifest);
    manifest
}

fn problems(manifest: &Value) -> Vec<String> {
    DrainSpec::parse(manifest).err().into_iter().flatten().map(|problem| problem.to_string()).collect()
}

#[test]
fn the_least_manifest_has_the_defaults_that_are_documented() {
    let drain = DrainSpec::parse(&manifest(|_| {})).unwrap();
    assert_eq!(drain.full_name(), "media/transcoder");
    let WorkersTarget::Celery(celery) = drain.workers else { panic!("celery was asked for") };
    assert_eq!(celery.brokers.len(), 1);
    assert_eq!(celery.brokers[0].source, BrokerSource::Url("redis://cache:6379/0".into()));
    assert_eq!(celery.control_exchange, "celery");
    assert_eq!(celery.reply_timeout, SignedDuration::from_secs(1));
    let policy = drain.policy;
    assert_eq!(policy.hold.mode, HoldMode::Standing);
    assert_eq!(policy.hold.expires_in, SignedDuration::from_hours(2));
    assert_eq!(policy.drain.min_consuming, None);
    assert_eq!(policy.drain.idle_for, SignedDuration::from_secs(1));
    assert_eq!(policy.drain.scheduled, Scheduled::Ignore);
    assert_eq!(policy.drain.deadline, None);
    assert!(policy.drain.scale_in, "Auto drains scale-ins with Standing");
    assert_eq!(policy.mode, Mode::Enforce);
    assert!(!policy.paused && !policy.withdrawn);
}

#[test]
fn every_field_that_is_given_counts() {
    let drain = DrainSpec::parse(&manifest(|manifest| {
        manifest["spec"]["hold"] = json!({"mode": "OnRollout", "expiresIn": "1h30m"});
        manifest["spec"]["drain"] = json!({
            "minConsuming": "0%", "idleFor": "5s", "scheduled": "Wait",
            "deadline": {"after": "12h", "action": "PermitStop"}, "gate": {"queuesEmpty": ["slow", "fast", "slow"]},
        });
        manifest["spec"]["mode"] = json!("Plan");
        manifest["spec"]["paused"] = json!(true);
    }))
    .unwrap();
    assert_eq!(drain.policy.hold.expires_in, SignedDuration::from_mins(90));
    assert_eq!(drain.policy.drain.min_consuming, Some(MinConsuming::Percent(0)));
    assert_eq!(drain.policy.drain.scheduled, Scheduled::Wait);
    assert_eq!(drain.policy.drain.deadline.unwrap().action, DeadlineAction::PermitStop);
    assert!(!drain.policy.drain.scale_in, "Auto ignores scale-ins with OnRollout");
    let gate = drain.policy.drain.gate.unwrap();
    assert_eq!((gate.queues_empty, gate.awaited), (["fast".into(), "slow".into()].into(), false));
    assert_eq!(drain.policy.mode, Mode::Plan);
    assert!(drain.policy.paused);
}

#[rstest]
#[case(json!(2), MinConsuming::Tasks(2))]
#[case(json!(0), MinConsuming::Tasks(0))]
#[case(json!("50%"), MinConsuming::Percent(50))]
#[case(json!("100%"), MinConsuming::Percent(100))]
fn the_floor_is_a_number_of_tasks_or_a_percentage(#[case] given: Value, #[case] expected: MinConsuming) {
    let manifest = manifest(|manifest| manifest["spec"]["drain"] = json!({"minConsuming": given}));
    assert_eq!(DrainSpec::parse(&manifest).unwrap().policy.drain.min_consuming, Some(expected));
}

#[rstest]
#[case("Standing", None, true)]
#[case("Standing", Some("Auto"), true)]
#[case("Standing", Some("Drain"), true)]
#[case("Standing", Some("Ignore"), false)]
#[case("OnRollout", None, false)]
#[case("OnRollout", Some("Auto"), false)]
#[case("OnRollout", Some("Ignore"), false)]
fn a_scale_in_is_drained_where_tasks_are_held_for_it(
    #[case] mode: &str,
    #[case] scale_in: Option<&str>,
    #[case] drained: bool,
) {
    let manifest = manifest(|manifest| {
        manifest["spec"]["hold"] = json!({"mode": mode});
        manifest["spec"]["drain"] = json!({"scaleIn": scale_in});
    });
    assert_eq!(DrainSpec::parse(&manifest).unwrap().policy.drain.scale_in, drained);
}

fn http(http: &Value) -> Value {
    manifest(|manifest| manifest["spec"]["workers"] = json!({"http": http}))
}

#[test]
fn http_workers_have_the_defaults_that_are_documented() {
    let drain = DrainSpec::parse(&http(&json!({"port": 8765}))).unwrap();
    let reply_timeout = SignedDuration::from_secs(5);
    let least = HttpTarget { port: 8765, path: "/worker-drain".into(), token: None, https: None, reply_timeout };
    assert_eq!(drain.workers, WorkersTarget::Http(least));
    assert!(drain.workers.secrets().is_empty());
}

#[test]
fn every_field_of_http_workers_counts() {
    let from = |key: &str| json!({"secretKeyRef": {"name": "drain", "key": key}});
    let given = json!({
        "port": 443, "path": "/x", "scheme": "https", "tokenFrom": from("token"), "caFrom": from("ca"),
        "serverName": "worker.internal", "replyTimeout": "2s",
    });
    let drain = DrainSpec::parse(&http(&given)).unwrap();
    let key = |key: &str| SecretKeyRef { name: "drain".into(), key: key.into() };
    let https = HttpsTarget { server_name: Some("worker.internal".into()), authorities: Some(key("ca")) };
    let expected = HttpTarget {
        port: 443,
        path: "/x".into(),
        token: Some(key("token")),
        https: Some(https),
        reply_timeout: SignedDuration::from_secs(2),
    };
    assert_eq!(drain.workers, WorkersTarget::Http(expected));
    let fields: Vec<String> = drain.workers.secrets().into_iter().map(|(field, _)| field).collect();
    let expected = ["spec.workers.http.tokenFrom.secretKeyRef", "spec.workers.http.caFrom.secretKeyRef"];
    assert_eq!(fields, expected);
}

#[rstest]
#[case(json!({}), "spec.workers.http.port: is missing")]
#[case(json!({"port": 0}), "spec.workers.http.port: 0 must be a number from 1 to 65535")]
#[case(json!({"port": 70000}), "spec.workers.http.port: 70000 must be a number from 1 to 65535")]
#[case(json!({"port": "8765"}), "spec.workers.http.port: '8765' must be an integer")]
#[case(json!({"port": 1, "path": "drain"}), "spec.workers.http.path: 'drain' is not a path: write one that begins with \
    /, such as /worker-drain, without ? and #")]
#[case(json!({"port": 1, "path": "/a?b"}), "spec.workers.http.path: '/a?b' is not a path: write one that begins with \
    /, such as /worker-drain, without ? and #")]
#[case(json!({"port": 1, "scheme": "HTTPS"}), "spec.workers.http.scheme: 'HTTPS' must be one of http, https (did you \
    mean https?)")]
#[case(json!({"port": 1, "serverName": "a.b"}), "spec.workers.http.scheme: serverName and caFrom need scheme https: \
    set scheme to https, or leave them out")]
#[case(json!({"port": 1, "token": "hunter2"}), "spec.workers.http.token: unknown field (did you mean tokenFrom?)")]
#[case(json!({"port": 1, "replyTimeout": "1m"}), "spec.workers.http.replyTimeout: 1m is not between 100ms and 10s: \
    workers need time to answer, and an answer counts for 15s after its question")]
fn what_is_wrong_with_http_workers_is_said(#[case] given: Value, #[case] expected: &str) {
    assert_eq!(problems(&http(&given)), [expected]);
}

#[test]
fn the_sum_of_a_proof_is_that_of_the_kind_of_workers() {
    let mut manifest = http(&json!({"port": 1}));
    manifest["spec"]["hold"] = json!({"expiresIn": "1m"});
    manifest["spec"]["drain"] = json!({"idleFor": "30s"});
    let expected = "spec.hold.expiresIn: hold.expiresIn (1m) is too short: half of it must last for a proof of \
                    idleness, drain.idleFor (30s) + 2 × workers.http.replyTimeout (5s) = 40s; make it 80s or more";
    assert_eq!(problems(&manifest), [expected]);
}

#[rstest]
#[case("sqs://")]
#[case("SQS://queue.internal")]
#[case(" sqs+https://queue.internal")]
fn a_broker_that_has_no_remote_control_is_refused_with_the_way_out(#[case] url: &str) {
    let manifest = manifest(|manifest| manifest["spec"]["workers"]["celery"]["broker"]["url"] = json!(url));
    let problems = problems(&manifest);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("spec.workers.celery.broker.url: Celery has no remote control over Amazon SQS"));
    assert!(problems[0].contains("spec.workers.http") && problems[0].contains("docs/http-worker.md"));
}

#[rstest]
#[case(json!({}))]
#[case(json!({"celery": {"broker": {"url": "redis://cache"}}, "http": {"port": 1}}))]
fn exactly_one_kind_of_workers_is_taken(#[case] workers: Value) {
    let manifest = manifest(|manifest| manifest["spec"]["workers"] = workers);
    assert_eq!(problems(&manifest), ["spec.workers: give exactly one kind of workers: celery or http"]);
}

#[rstest]
#[case::two_hours_and_a_bit(json!({"hold": {"expiresIn": "48h1s"}}), &[
    "spec.hold.expiresIn: 48h1s is not between 1m and 48h: ECS grants holds of whole minutes, of 48 hours at most",
])]
#[case::days(json!({"hold": {"expiresIn": "2d"}}), &[
    "spec.hold.expiresIn: '2d' is not a duration: write one such as 90s, 30m or 1h30m (h, m, s, ms)",
])]
#[case::no_unit(json!({"drain": {"idleFor": 5}}), &[
    "spec.drain.idleFor: 5 must be a string (in quotes, if it looks like a number)",
])]
#[case::zero(json!({"drain": {"idleFor": "0s"}}), &[
    "spec.drain.idleFor: 0s is not between 1ms and 1h: idleness is proven by two observations with time between them",
])]
#[case::the_sum_is_shown(json!({"hold": {"expiresIn": "1m"}, "drain": {"idleFor": "1m"}}), &[
    "spec.hold.expiresIn: hold.expiresIn (1m) is too short: half of it must last for a proof of idleness, \
     drain.idleFor (1m) + 2 × workers.celery.replyTimeout (1s) = 62s; make it 124s or more",
])]
#[case::a_deadline_before_any_proof(json!({"drain": {"idleFor": "1s500ms", "deadline": {"after": "2s"}}}), &[
    "spec.drain.deadline.after: drain.deadline.after (2s) would pass before any task can be proven idle: that takes \
     drain.idleFor (1s500ms) + 2 × workers.celery.replyTimeout (1s) = 3500ms",
])]
#[case::scale_in_without_standing_holds(json!({"hold": {"mode": "OnRollout"}, "drain": {"scaleIn": "Drain"}}), &[
    "spec.drain.scaleIn: Drain needs hold.mode Standing: with OnRollout no task is held when a scale-in begins. \
     Leave scaleIn out, or set hold.mode to Standing",
])]
#[case::scale_in_as_it_was_once(json!({"drain": {"scaleIn": true}}), &[
    "spec.drain.scaleIn: true must be one of Auto, Drain, Ignore",
])]
#[case::a_gate_of_nothing(json!({"drain": {"gate": {"queuesEmpty": []}}}), &["spec.drain.gate.queuesEmpty: is empty"])]
#[case::a_gate_of_a_queue_without_a_name(json!({"drain": {"gate": {"queuesEmpty": ["slow", ""]}}}), &[
    "spec.drain.gate.queuesEmpty[1]: is empty",
])]
#[case::a_wrong_word(json!({"hold": {"mode": "standing"}}), &[
    "spec.hold.mode: 'standing' must be one of Standing, OnRollout (did you mean Standing?)",
])]
#[case::over_the_top(json!({"drain": {"minConsuming": "150%"}}), &[
    "spec.drain.minConsuming: '150%' is neither a number of tasks, such as 2, nor a percentage from 0% to 100%, such as \
     50%",
])]
#[case::a_number_in_quotes(json!({"drain": {"minConsuming": "2"}}), &[
    "spec.drain.minConsuming: '2' is neither a number of tasks, such as 2, nor a percentage from 0% to 100%, such as 50%",
])]
#[case::less_than_nothing(json!({"drain": {"minConsuming": -1}}), &[
    "spec.drain.minConsuming: '-1' is neither a number of tasks, such as 2, nor a percentage from 0% to 100%, such as 50%",
])]
#[case::neither_number_nor_text(json!({"drain": {"minConsuming": true}}), &[
    "spec.drain.minConsuming: true must be an integer or a string",
])]
#[case::several_at_once(json!({"hold": {"expirsIn": "1h", "mode": 3}, "pause": true}), &[
    "spec.hold.expirsIn: unknown field (did you mean expiresIn?)",
    "spec.hold.mode: 3 must be one of Standing, OnRollout",
    "spec.pause: unknown field (did you mean paused?)",
])]
fn what_is_wrong_is_said(#[case] change: Value, #[case] expected: &[&str]) {
    let manifest = manifest(|manifest| {
        for (key, value) in change.as_object().unwrap() {
            manifest["spec"][key] = value.clone();
        }
    });
    assert_eq!(problems(&manifest), expected);
}

#[rstest]
#[case(json!({"url": "redis://:hunter2@cache:6379/0"}))]
#[case(json!({"url": "redis://app:hunt/er2@cache:6379/0"}))]
#[case(json!({"url": "redis://cache:6379/0?password=hunter2"}))]
#[case(json!({"url": ["hunter2"]}))]
#[case(json!({"url": "redis://cache:6379/0", "urlFrom": {"secretKeyRef": {"name": "broker", "key": "hunter2"}}}))]
#[case(json!({"urlFrom": {"secretKeyRef": "hunter2"}}))]
fn a_secret_is_refused_and_not_shown(#[case] broker: Value) {
    let problems = problems(&manifest(|manifest| manifest["spec"]["workers"]["celery"]["broker"] = broker));
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(!problems[0].contains("er2"), "{problems:?}");
}

#[rstest]
#[case::one_without_the_other(
    json!({"url": "amqps://rabbit", "tls": {"certificateFrom": {"secretKeyRef": {"name": "tls", "key": "crt"}}}}),
    "spec.workers.celery.broker.tls: certificateFrom and keyFrom go together: give both, or neither",
)]
#[case::no_tls_there(
    json!({"url": "redis://cache", "tls": {"caFrom": {"secretKeyRef": {"name": "tls", "key": "ca"}}}}),
    "spec.workers.celery.broker.tls: tls needs a broker that uses TLS: write rediss:// or amqps:// (or sentinel://) \
     in url, or leave tls out",
)]
#[case::the_thing_itself(
    json!({"url": "amqps://rabbit", "tls": {"caFrom": "-----BEGIN hunter2"}}),
    "spec.workers.celery.broker.tls.caFrom: the value must be a group of fields",
)]
fn what_is_wrong_with_tls_is_said(#[case] broker: Value, #[case] expected: &str) {
    let problems = problems(&manifest(|manifest| manifest["spec"]["workers"]["celery"]["broker"] = broker));
    assert_eq!(problems, [expected]);
}

#[test]
fn every_secret_that_is_named_is_read() {
    let key = |key: &str| json!({"secretKeyRef": {"name": "broker", "key": key}});
    let drain = DrainSpec::parse(&manifest(|manifest| {
        manifest["spec"]["workers"]["celery"] = json!({
            "broker": {
                "urlFrom": key("url"),
                "tls": {"caFrom": key("ca"), "certificateFrom": key("crt"), "keyFrom": key("key")},
            },
            "transportOptions": {
                "masterName": "main", "sentinelKwargs": {"passwordFrom": key("sentinel"), "ssl": true},
            },
        });
    }))
    .unwrap();
    let named = drain.workers.secrets();
    assert_eq!(
        named.iter().map(|(_, key)| key.key.as_str()).collect::<Vec<_>>(),
        ["url", "ca", "crt", "key", "sentinel"]
    );
    assert!(named.iter().all(|(field, _)| field.ends_with("From.secretKeyRef")), "{named:?}");
}

#[test]
fn each_of_several_brokers_is_told_by_its_place() {
    let drain = DrainSpec::parse(&manifest(|manifest| {
        let from = json!({"secretKeyRef": {"name": "broker", "key": "url"}});
        manifest["spec"]["workers"]["celery"] =
            json!({"brokers": [{"url": "redis://new"}, {"urlFrom": from, "tls": {"caFrom": from}}]});
    }))
    .unwrap();
    let fields: Vec<String> = drain.workers.secrets().into_iter().map(|(field, _)| field).collect();
    let second = |field: &str| format!("spec.workers.celery.brokers[1].{field}.secretKeyRef");
    assert_eq!(fields, [second("urlFrom"), second("tls.caFrom")]);
}

#[rstest]
#[case(json!({}))]
#[case(json!({"brokers": []}))]
#[case(json!({"broker": {"url": "redis://one"}, "brokers": [{"url": "redis://two"}]}))]
fn one_broker_or_a_list_of_them_is_given(#[case] celery: Value) {
    let problems = problems(&manifest(|manifest| manifest["spec"]["workers"]["celery"] = celery));
    assert_eq!(problems, ["spec.workers.celery: give exactly one of broker and brokers"]);
}

#[test]
fn a_clear_password_for_sentinels_has_no_place_and_is_not_shown() {
    for own in [json!({"password": "hunter2"}), json!({"passwordFrom": "hunter2"}), json!("hunter2")] {
        let problems = problems(&manifest(|manifest| {
            manifest["spec"]["workers"]["celery"]["transportOptions"] = json!({"sentinelKwargs": own});
        }));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(!problems[0].contains("hunter2"), "{problems:?}");
    }
}

#[rstest]
#[case("redis://cache:6379/0")]
#[case("sentinel://a:26379;sentinel://b:26379/0")]
#[case("rediss://app@cache/0")]
#[case("redis+socket:///run/redis.sock?virtual_host=1")]
fn a_url_without_a_password_is_fine(#[case] url: &str) {
    let manifest = manifest(|manifest| manifest["spec"]["workers"]["celery"]["broker"]["url"] = json!(url));
    assert_eq!(problems(&manifest), [""; 0]);
}

#[rstest]
#[case("worker@{taskId}", true)]
#[case("{containerName}@{runtimeId}", true)]
#[case("worker@{taskid}", false)]
#[case("worker@{taskId", false)]
#[case("worker@%h", false)]
#[case("worker-{taskId}", true)]
#[case("worker@host", false)]
fn a_template_must_tell_tasks_apart(#[case] template: &str, #[case] fine: bool) {
    let manifest = manifest(|manifest| manifest["spec"]["workers"]["celery"]["nodeName"] = json!(template));
    assert_eq!(problems(&manifest).is_empty(), fine, "{:?}", problems(&manifest));
}

#[test]
fn no_fleet_and_two_fleets_are_refused() {
    let none = manifest(|manifest| manifest["spec"]["fleet"] = json!({}));
    assert_eq!(problems(&none), ["spec.fleet: give exactly one kind of fleet: ecs"]);
    let two = manifest(|manifest| manifest["spec"]["fleet"]["kubernetes"] = json!({"deployment": "transcoder"}));
    assert_eq!(problems(&two), ["spec.fleet.kubernetes: unknown field (known here: ecs)"]);
}
