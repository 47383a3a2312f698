//! Redis servers that stand in for one another, behind Sentinels.

use std::time::Duration;

use serde_json::{Value, json};
use test_support::{
    Certificates, LONG, MASTER_NAME, Redis, RedisSentinels, SampleApp, SentinelOptions, free_port, python_with_celery,
    wait_until,
};
use worker_drain::{
    tls::{Pem, TlsSettings},
    workers::{
        Workers,
        celery::{CelerySettings, SentinelSettings},
    },
};
use worker_drain_plan::{
    Outcome,
    observation::{Failure, FailureKind, WorkersView},
};

use super::brokers::choose_cryptography;
use crate::both::{all_answer, consumes, known_tasks, look_until, node, open, settings, tasks};

/// An app as its own settings have it.
fn app(url: &str, sentinel_kwargs: &Value) -> SampleApp {
    let options = json!({"master_name": MASTER_NAME, "sentinel_kwargs": sentinel_kwargs});
    SampleApp::new(url).settings(json!({"broker_transport_options": options}))
}

fn behind(url: &str) -> CelerySettings {
    let sentinel = SentinelSettings { master_name: Some(MASTER_NAME.into()), ..SentinelSettings::default() };
    CelerySettings { sentinel, ..settings(url) }
}

async fn works(app: &SampleApp, settings: &CelerySettings) {
    let _worker = app.worker("worker@one").start().await;
    let (celery, tasks) = (open(settings), known_tasks(&["one"]));
    all_answer(&celery, &tasks).await;
    assert_eq!(celery.cancel(&[(node("one"), vec!["celery".into()])]).await, [Outcome::Done]);
    look_until("it is cancelled", &celery, &tasks, |view| consumes(view, "one", &[])).await;
    celery.close().await;
}

async fn failure_of(settings: CelerySettings) -> Failure {
    let settings = CelerySettings { operation_bound: Duration::from_secs(4), ..settings };
    let failure = open(&settings).observe(&tasks(&["one"])).await.expect_err("it fails");
    assert!(!failure.message.contains("hunter2"), "{failure:?}");
    failure
}

#[tokio::test]
async fn a_master_that_dies_in_mid_drain_is_replaced() {
    let mut group = RedisSentinels::start(SentinelOptions { sentinels: 3, ..SentinelOptions::default() }).await;
    let app = app(&group.url(), &Value::Null);
    let _worker = app.worker("worker@one").start().await;
    let (celery, tasks) = (open(&behind(&group.url())), known_tasks(&["one"]));
    let view = all_answer(&celery, &tasks).await;
    let before = view.nodes[&node("one")].queues.clone().expect("it answered");
    assert_eq!(celery.cancel(&[(node("one"), vec!["celery".into()])]).await, [Outcome::Done]);
    let is_cancelled = |view: &WorkersView| consumes(view, "one", &[]);
    look_until("it is cancelled", &celery, &tasks, is_cancelled).await;

    group.servers()[0].kill();
    let impatient = CelerySettings { operation_bound: Duration::from_millis(500), ..behind(&group.url()) };
    let failure = open(&impatient).observe(&tasks).await.expect_err("the one that they name is gone");
    assert_eq!(failure.kind, FailureKind::Unreachable, "{failure:?}");
    let gone = group.servers()[0].port();
    assert!(failure.message.contains(&format!("the Sentinels name 127.0.0.1:{gone}")), "{failure:?}");

    // One of the Sentinels goes too.
    group.kill_sentinel(0);
    group.wait_until_master(1).await;
    look_until("the drain goes on at the other one", &celery, &tasks, is_cancelled).await;
    assert!(group.servers()[1].cli(&["KEYS", "*"]).contains("worker-drain"));

    // It comes back as a replica, and nobody is led astray.
    group.servers()[0].restart().await;
    wait_until("it is a replica", LONG, async || group.servers()[0].cli(&["ROLE"]).starts_with("slave")).await;
    assert_eq!(celery.give_back(&[(node("one"), before)]).await, [Outcome::Done]);
    look_until("it is back", &celery, &tasks, |view| consumes(view, "one", &["celery"])).await;
    let failure = failure_of(settings(&group.servers()[0].url())).await;
    assert_eq!(failure.kind, FailureKind::Invalid, "{failure:?}");
    assert!(failure.message.contains("this is a replica"), "{failure:?}");
}

#[tokio::test]
async fn a_master_that_is_a_replica_already_is_refused() {
    let mut group = RedisSentinels::start(SentinelOptions::default()).await;
    let celery = open(&CelerySettings { operation_bound: Duration::from_secs(4), ..behind(&group.url()) });
    celery.observe(&tasks(&["one"])).await.expect("there is nobody, and that is no failure");
    // The Sentinel learns of it later.
    let other = group.servers()[1].port().to_string();
    group.servers()[0].cli(&["REPLICAOF", "127.0.0.1", &other]);
    assert_eq!(group.master_port(0), Some(group.servers()[0].port()));
    // Redis breaks off what waits on the old connection, so that an observation may meet that first.
    wait_until("the replica is refused", LONG, async || {
        let failure = celery.observe(&tasks(&["one"])).await.expect_err("it is no master");
        assert_eq!(failure.kind, FailureKind::Unreachable, "{failure:?}");
        failure.message.contains("which is a replica still")
    })
    .await;
    group.servers()[0].cli(&["REPLICAOF", "NO", "ONE"]);
    celery.observe(&tasks(&["one"])).await.expect("it is one again");
}

#[tokio::test]
async fn servers_and_sentinels_have_passwords_of_their_own() {
    let options = SentinelOptions {
        password: Some("hunter2".into()),
        sentinel_password: Some("hunter2-of-sentinels".into()),
        ..SentinelOptions::default()
    };
    let group = RedisSentinels::start(options).await;
    let mut right = behind(&group.url());
    right.sentinel.password = Some("hunter2-of-sentinels".into());
    works(&app(&group.url(), &json!({"password": "hunter2-of-sentinels"})), &right).await;

    let failure = failure_of(behind(&group.url())).await;
    assert_eq!(failure.kind, FailureKind::Denied, "{failure:?}");
    assert!(failure.message.contains("transportOptions.sentinelKwargs has the Sentinels' own"), "{failure:?}");
    let url = group.url().replace("hunter2", "hunter2-wrong");
    let failure = failure_of(CelerySettings { url: url.into(), ..right }).await;
    assert_eq!(failure.kind, FailureKind::Denied, "{failure:?}");
    assert!(failure.message.contains("the password in the broker's URL is not the one"), "{failure:?}");
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let group = RedisSentinels::start(SentinelOptions::default()).await;
    let mut other = behind(&group.url());
    other.sentinel.master_name = Some("mymaster".into());
    let failure = failure_of(other).await;
    assert_eq!(failure.kind, FailureKind::Invalid, "{failure:?}");
    assert!(failure.message.contains("no master called mymaster"), "{failure:?}");

    // No Sentinel at all: here is a Redis server, and there is nobody.
    let redis = Redis::start().await;
    let url = format!("sentinel://127.0.0.1:{};sentinel://127.0.0.1:{}", redis.port(), free_port());
    let failure = failure_of(behind(&url)).await;
    assert!(failure.message.contains("no Sentinel could be asked"), "{failure:?}");
    assert!(failure.message.contains(&format!("127.0.0.1:{}: ", redis.port())), "{failure:?}");

    // One of several is enough.
    let url = format!("sentinel://127.0.0.1:{};{}", free_port(), group.url());
    open(&behind(&url)).observe(&tasks(&["one"])).await.expect("one of them answers");
}

#[tokio::test]
async fn the_least_rights_are_enough() {
    let mut group = RedisSentinels::start(SentinelOptions::default()).await;
    let app = app(&group.url(), &Value::Null);
    // What docs/brokers.md tells; not the channel of an older kombu.
    let on_servers = "on >hunter2 resetkeys ~_kombu.binding.reply.celery.pidbox ~_kombu.binding.celery.pidbox ~_kombu.binding_deadlines \
                      ~worker-drain-* resetchannels &/0.celery.pidbox \
                      -@all +publish +eval +brpop +rpop +sadd +srem +smembers +zadd +set +exists +del +role";
    let on_sentinels = "on >hunter2 -@all +sentinel|get-master-addr-by-name";
    let user = |rights: &'static str| ["ACL", "SETUSER", "least"].into_iter().chain(rights.split_whitespace());
    assert_eq!(group.servers()[0].cli(&user(on_servers).collect::<Vec<_>>()), "OK");
    assert_eq!(group.ask(0, &user(on_sentinels).collect::<Vec<_>>()), "OK");

    let url = group.url().replace("sentinel://", "sentinel://least:hunter2@");
    let mut least = behind(&url);
    least.sentinel.username = Some("least".into());
    least.sentinel.password = Some("hunter2".into());
    works(&app, &least).await;
    // Its role is asked for to be sure early: a replica refuses what we write, too.
    group.servers()[0].cli(&["ACL", "SETUSER", "least", "-role"]);
    open(&least).observe(&tasks(&["one"])).await.expect("it goes without");
    group.ask(0, &["ACL", "SETUSER", "least", "-@all"]);
    let failure = failure_of(least).await;
    assert_eq!(failure.kind, FailureKind::Denied, "{failure:?}");
    assert!(failure.message.contains("sentinelKwargs"), "{failure:?}");
}

/// kombu before 5.4 listens on a channel whose name has `{db}` in it, where newer ones fill the number in.
#[tokio::test]
async fn an_older_celery_listens_elsewhere_and_is_reached_too() {
    let group = RedisSentinels::start(SentinelOptions::default()).await;
    let app = app(&group.url(), &Value::Null).python(python_with_celery("5.3"));
    works(&app, &behind(&group.url())).await;
}

#[tokio::test]
async fn servers_and_sentinels_may_speak_tls() {
    choose_cryptography();
    let certificates = Certificates::make();
    let group = RedisSentinels::start_with_tls(&certificates).await;
    let authority = certificates.authority();
    let (certificate, key) = certificates.client();
    let files = |prefix: &str| {
        json!({
            (format!("{prefix}ca_certs")): authority, (format!("{prefix}certfile")): certificate,
            (format!("{prefix}keyfile")): key,
        })
    };
    let mut sentinel_kwargs = files("ssl_");
    sentinel_kwargs["ssl"] = json!(true);
    let as_celery_has_it = format!(
        "{}?ssl_cert_reqs=required&ssl_ca_certs={}&ssl_certfile={}&ssl_keyfile={}",
        group.url(),
        authority.display(),
        certificate.display(),
        key.display()
    );
    let app = app(&as_celery_has_it, &sentinel_kwargs);
    let tls = TlsSettings {
        authorities: Some(Pem::File(authority.clone())),
        certificate: Some(Pem::File(certificate.clone())),
        key: Some(Pem::File(key.clone())),
    };
    let mut ours = CelerySettings { tls: Some(tls), ..behind(&group.url()) };
    ours.sentinel.tls = true;
    works(&app, &ours).await;

    ours.sentinel.tls = false;
    let failure = failure_of(ours).await;
    assert!(failure.message.contains("no Sentinel could be asked"), "{failure:?}");
}
