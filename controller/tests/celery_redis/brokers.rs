//! Brokers of every form, and what we leave on them.

use std::{path::Path, sync::Once};

use serde_json::json;
use test_support::{Certificates, LONG, Redis, RedisOptions, SampleApp, wait_until};
use worker_drain::{
    tls::{Pem, TlsSettings},
    workers::{
        Workers,
        celery::{CelerySettings, FanoutPrefix, TransportOptions},
    },
};
use worker_drain_plan::{Outcome, observation::FailureKind};

use crate::both::{all_answer, consumes, known_tasks, look_until, node, open, settings, tasks};

/// Everything works: a look, a cancel that is read back, and nothing of ours is left.
async fn works(app: &SampleApp, settings: &CelerySettings, redis: &Redis) {
    let _worker = app.worker("worker@one").start().await;
    let celery = open(settings);
    celery.observe(&tasks(&["one"])).await.unwrap_or_else(|failure| panic!("{failure:?}"));
    all_answer(&celery, &tasks(&["one"])).await;
    assert_eq!(celery.cancel(&[(node("one"), vec!["celery".into()])]).await, [Outcome::Done]);
    let tasks = known_tasks(&["one"]);
    look_until("it is cancelled", &celery, &tasks, |view| consumes(view, "one", &[])).await;

    assert!(ours(redis).contains("worker-drain"));
    celery.close().await;
    assert_eq!(ours(redis), "");
    // It can be used again, and taken away by being dropped.
    celery.observe(&tasks).await.expect("it connects again");
    drop(celery);
    wait_until("nothing of ours is left", LONG, async || ours(redis).is_empty()).await;
}

/// All of ours that is on the server, in any database.
fn ours(redis: &Redis) -> String {
    let mut found = Vec::new();
    for database in ["0", "5"] {
        for key in redis.cli(&["-n", database, "KEYS", "*"]).lines().filter(|key| !key.is_empty()) {
            let members = if key.contains("_kombu.binding.reply") {
                redis.cli(&["-n", database, "SMEMBERS", key])
            } else {
                String::new()
            };
            found.extend(
                [key, members.as_str()].into_iter().filter(|text| text.contains("worker-drain")).map(String::from),
            );
        }
    }
    found.join("\n")
}

#[tokio::test]
async fn a_plain_broker() {
    let redis = Redis::start().await;
    works(&SampleApp::new(redis.url()), &settings(&redis.url()), &redis).await;
}

#[tokio::test]
async fn a_password_and_another_database() {
    let redis = Redis::start_with(RedisOptions { password: Some("hunter2".into()), ..RedisOptions::default() }).await;
    let url = redis.url_of(5);
    works(&SampleApp::new(&url), &settings(&url), &redis).await;
}

#[tokio::test]
async fn other_names() {
    let redis = Redis::start().await;
    let cases = [
        ("team:", FanoutPrefix::Database, json!(true), "celery"),
        ("", FanoutPrefix::None, json!(false), "celery"),
        ("team:", FanoutPrefix::Text("/{db}/ours.".into()), json!("/{db}/ours."), "media"),
    ];
    for (prefix, fanout_prefix, fanout_option, control_exchange) in cases {
        let options =
            TransportOptions { global_keyprefix: prefix.into(), fanout_prefix, ..TransportOptions::default() };
        let app = SampleApp::new(redis.url()).settings(json!({
            "control_exchange": control_exchange,
            "broker_transport_options": {"global_keyprefix": prefix, "fanout_prefix": fanout_option},
        }));
        let settings = CelerySettings {
            control_exchange: control_exchange.into(),
            transport_options: options,
            ..settings(&redis.url())
        };
        works(&app, &settings, &redis).await;
    }
}

#[tokio::test]
async fn a_unix_socket() {
    let redis = Redis::start_with(RedisOptions { unix_socket: true, ..RedisOptions::default() }).await;
    let socket = redis.unix_socket().unwrap();
    let app = SampleApp::new(format!("redis+socket://{}?virtual_host=5", socket.display()));
    works(&app, &settings(&format!("redis+socket://{}?virtual_host=5", socket.display())), &redis).await;
}

/// The Redis client takes what the process has chosen, as `main` does.
pub fn choose_cryptography() {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| rustls::crypto::aws_lc_rs::default_provider().install_default().expect("it is the first"));
}

#[tokio::test]
async fn tls_with_a_private_authority() {
    choose_cryptography();
    let certificates = Certificates::make();
    let port = test_support::free_port();
    let redis = Redis::start_with(RedisOptions {
        arguments: certificates.redis_arguments(port, false),
        ..RedisOptions::default()
    })
    .await;

    let url = format!("rediss://127.0.0.1:{port}/0");
    let authority = certificates.authority();
    let app = SampleApp::new(format!("{url}?ssl_cert_reqs=required&ssl_ca_certs={}", authority.display()));
    let trusting = TlsSettings { authorities: Some(Pem::File(authority)), ..TlsSettings::default() };
    works(&app, &CelerySettings { tls: Some(trusting), ..settings(&url) }, &redis).await;
    // As Celery's own URL tells it: without any check.
    works(&app, &settings(&format!("{url}?ssl_cert_reqs=none")), &redis).await;

    let failure = open(&settings(&url)).observe(&tasks(&["one"])).await.unwrap_err();
    assert!(failure.message.contains("certificate"), "{failure:?}");
    assert_eq!(failure.kind, FailureKind::Invalid);
}

#[tokio::test]
async fn tls_with_our_own_certificate() {
    choose_cryptography();
    let certificates = Certificates::make();
    let port = test_support::free_port();
    let redis = Redis::start_with(RedisOptions {
        arguments: certificates.redis_arguments(port, true),
        ..RedisOptions::default()
    })
    .await;

    let url = format!("rediss://127.0.0.1:{port}/0");
    let (authority, (certificate, key)) = (certificates.authority(), certificates.client());
    let as_celery_has_it = format!(
        "{url}?ssl_cert_reqs=required&ssl_ca_certs={}&ssl_certfile={}&ssl_keyfile={}",
        authority.display(),
        certificate.display(),
        key.display()
    );
    let app = SampleApp::new(&as_celery_has_it);
    works(&app, &settings(&as_celery_has_it), &redis).await;
    // As it comes from Secrets.
    let text = |called: &str, file: &Path| {
        Some(Pem::Text { called: called.into(), text: std::fs::read_to_string(file).expect("it was just made") })
    };
    let tls = TlsSettings {
        authorities: text("ca", &authority),
        certificate: text("certificate", &certificate),
        key: text("key", &key),
    };
    works(&app, &CelerySettings { tls: Some(tls.clone()), ..settings(&url) }, &redis).await;

    let nameless = TlsSettings { certificate: None, key: None, ..tls };
    let celery = open(&CelerySettings { tls: Some(nameless), ..settings(&url) });
    let failure = celery.observe(&tasks(&["one"])).await.expect_err("it wants a certificate of ours");
    assert_eq!(failure.kind, FailureKind::Invalid, "{failure:?}");
    assert!(failure.message.contains("a broker may want one of ours"), "{failure:?}");
}

#[tokio::test]
async fn what_a_killed_client_left_is_cleaned_up_by_the_next() {
    let redis = Redis::start().await;
    let app = SampleApp::new(redis.url());
    let _worker = app.worker("worker@one").start().await;
    let alive = open(&settings(&redis.url()));
    all_answer(&alive, &tasks(&["one"])).await;

    let dead = "worker-drain-dead";
    let binding = format!("{dead}\u{6}\u{16}\u{6}\u{16}{dead}.reply.celery.pidbox");
    redis.cli(&["SADD", "_kombu.binding.reply.celery.pidbox", &binding]);
    redis.cli(&["LPUSH", &format!("{dead}.reply.celery.pidbox"), "a reply that nobody read"]);
    let celerys_own = "0af3\u{6}\u{16}\u{6}\u{16}0af3.reply.celery.pidbox";
    redis.cli(&["SADD", "_kombu.binding.reply.celery.pidbox", celerys_own]);

    let next = open(&settings(&redis.url()));
    next.observe(&tasks(&["one"])).await.unwrap();
    assert!(!ours(&redis).contains(dead));
    let members = redis.cli(&["SMEMBERS", "_kombu.binding.reply.celery.pidbox"]);
    assert!(members.contains("0af3"), "others' are left alone: {members}");
    // Whoever lives is left alone.
    all_answer(&alive, &tasks(&["one"])).await;
}
