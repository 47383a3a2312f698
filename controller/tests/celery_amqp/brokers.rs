//! Brokers of every form.

use std::{
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::json;
use test_support::{Certificates, LONG, RabbitMq, RabbitMqOptions, SampleApp, free_port, wait_until};
use worker_drain::{
    tls::{Pem, TlsSettings},
    workers::{Workers, celery::CelerySettings},
};
use worker_drain_plan::{Outcome, observation::FailureKind};

use crate::both::{consumes, known_tasks, look_until, node, open, settings, tasks};

/// A look, and a cancel that is read back.
async fn works(app: &SampleApp, settings: &CelerySettings) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let id = format!("n{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let _worker = app.worker(format!("worker@{id}")).start().await;
    let celery = open(settings);
    let tasks = known_tasks(&[&id]);
    let task = node(&id);
    look_until("it answers", &celery, &tasks, |view| view.nodes.contains_key(&task)).await;
    assert_eq!(celery.cancel(&[(task.clone(), vec!["celery".into()])]).await, [Outcome::Done]);
    look_until("it is cancelled", &celery, &tasks, |view| consumes(view, &id, &[])).await;
    celery.close().await;
}

#[tokio::test]
async fn another_control_exchange() {
    let broker = RabbitMq::shared().await;
    let app = SampleApp::new(broker.url()).settings(json!({"control_exchange": "media"}));
    works(&app, &CelerySettings { control_exchange: "media".into(), ..settings(&broker.url()) }).await;
}

#[tokio::test]
async fn quorum_queues() {
    let broker = RabbitMq::shared().await;
    let app = SampleApp::new(broker.url()).settings(json!({
        "task_default_queue_type": "quorum",
        "broker_transport_options": {"confirm_publish": true},
        "worker_detect_quorum_queues": true,
    }));
    works(&app, &settings(&broker.url())).await;
}

#[tokio::test]
async fn odd_virtual_hosts_and_passwords() {
    let broker = RabbitMq::shared().await;
    let rabbit = broker.rabbit();
    rabbit.add_vhost("/odd name/").await;
    rabbit.ctl(&["add_user", "o'dd", "p@ss;wo,rd/?"]).await;
    rabbit.ctl(&["set_permissions", "-p", "/odd name/", "o'dd", ".*", ".*", ".*"]).await;
    let url = format!("amqp://o%27dd:p%40ss%3Bwo%2Crd%2F%3F@127.0.0.1:{}//odd%20name/", rabbit.port());
    works(&SampleApp::new(&url), &settings(&url)).await;
}

#[tokio::test]
async fn tls_with_a_private_authority_and_with_our_own_certificate() {
    let certificates = Certificates::make();
    let (open_port, strict_port) = (free_port(), free_port());
    let strict =
        RabbitMq::start_with(RabbitMqOptions { configuration: certificates.rabbitmq_configuration(strict_port, true) })
            .await;
    let app = SampleApp::new(strict.url());
    let host = |port: u16| format!("amqps://guest:guest@127.0.0.1:{port}//");
    let (authority, (certificate, key)) = (certificates.authority(), certificates.client());
    let trusting = TlsSettings { authorities: Some(Pem::File(authority.clone())), ..TlsSettings::default() };
    // As it comes from Secrets.
    let text = |called: &str, file: &Path| {
        Some(Pem::Text { called: called.into(), text: std::fs::read_to_string(file).expect("it was just made") })
    };
    let ours = TlsSettings {
        authorities: text("ca", &authority),
        certificate: text("certificate", &certificate),
        key: text("key", &key),
    };
    works(&app, &CelerySettings { tls: Some(ours), ..settings(&host(strict_port)) }).await;
    // As a URL tells it.
    let url = format!(
        "{}?ssl_ca_certs={}&ssl_certfile={}&ssl_keyfile={}",
        host(strict_port),
        authority.display(),
        certificate.display(),
        key.display()
    );
    works(&app, &settings(&url)).await;
    let nameless = CelerySettings { tls: Some(trusting.clone()), ..settings(&host(strict_port)) };
    let failure = open(&nameless).observe(&tasks(&["one"])).await.expect_err("it wants a certificate of ours");
    assert!(matches!(failure.kind, FailureKind::Invalid | FailureKind::Unreachable), "{failure:?}");
    drop(strict);

    let lax =
        RabbitMq::start_with(RabbitMqOptions { configuration: certificates.rabbitmq_configuration(open_port, false) })
            .await;
    let app = SampleApp::new(lax.url());
    works(&app, &CelerySettings { tls: Some(trusting), ..settings(&host(open_port)) }).await;
    // Without any check.
    works(&app, &settings(&format!("{}?ssl_cert_reqs=none", host(open_port)))).await;

    let failure = open(&settings(&host(open_port))).observe(&tasks(&["one"])).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid, "{failure:?}");
    assert!(failure.message.contains("certificate"), "{failure:?}");
    let wrong_port = open(&settings(&format!("{}?ssl_cert_reqs=none", host(lax.port()))));
    let failure = wrong_port.observe(&tasks(&["one"])).await.unwrap_err();
    assert!(failure.message.contains("does not speak TLS"), "{failure:?}");
}

#[tokio::test]
async fn exchanges_that_others_made_otherwise_are_used_as_they_are() {
    let broker = RabbitMq::shared().await;
    // Durable, as nobody's Celery has it: to declare it anew would be refused.
    let declare = format!(
        "rabbit_exchange:declare(rabbit_misc:r(<<\"{}\">>, exchange, <<\"reply.celery.pidbox\">>), direct, true, false, \
         false, [], <<\"test\">>).",
        broker.name()
    );
    broker.rabbit().eval(&declare).await;
    let celery = open(&settings(&broker.url()));
    celery.observe(&tasks(&["one"])).await.expect("there is nobody, and that is no failure");
    wait_until("it is asked again and again", LONG, async || celery.observe(&tasks(&["one"])).await.is_ok()).await;
}

/// RabbitMQ from 4.3 on refuses transient queues that are not exclusive: ours is.
#[tokio::test]
async fn our_reply_queue_has_the_flags_of_celerys_own() {
    let broker = RabbitMq::shared().await;
    let celery = open(&settings(&broker.url()));
    celery.observe(&tasks(&["one"])).await.expect("there is nobody, and that is no failure");
    let list = ["list_queues", "--quiet", "--no-table-headers", "-p", broker.name()];
    let columns = ["name", "durable", "auto_delete", "exclusive", "arguments"];
    let listed = broker.rabbit().ctl(&[&list[..], &columns[..]].concat()).await;
    let ours: Vec<&str> = listed.lines().filter(|line| line.starts_with("worker-drain-")).collect();
    assert_eq!(ours.len(), 1, "{listed}");
    let flags: Vec<&str> = ours[0].split('\t').skip(1).collect();
    assert_eq!(flags[..3], ["false", "true", "true"], "{listed}");
    for argument in ["{\"x-expires\",10000}", "{\"x-message-ttl\",300000}"] {
        assert!(flags[3].contains(argument), "{listed}");
    }
}

#[tokio::test]
async fn heartbeats_are_agreed_on() {
    let broker = RabbitMq::shared().await;
    for (url, seconds) in [(broker.url(), "10"), (format!("{}?heartbeat=7", broker.url()), "7")] {
        let celery = open(&settings(&url));
        celery.observe(&tasks(&["one"])).await.expect("there is nobody, and that is no failure");
        let listed =
            broker.rabbit().ctl(&["list_connections", "--quiet", "--no-table-headers", "vhost", "timeout"]).await;
        let ours = format!("{}\t{seconds}", broker.name());
        assert!(listed.lines().any(|line| line == ours), "{listed}");
        celery.close().await;
    }
}
