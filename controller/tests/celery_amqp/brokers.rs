//! Brokers of every form.

use std::{
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::json;
use test_support::{LONG, RabbitMq, RabbitMqOptions, SampleApp, free_port, wait_until};
use worker_drain::workers::{Workers, celery::CelerySettings};
use worker_drain_plan::{Outcome, observation::FailureKind};

use crate::both::{known_tasks, look_until, node, open, queues, settings, tasks};

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
    look_until("it is cancelled", &celery, &tasks, |view| queues(&view.nodes[&task]).is_empty()).await;
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
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(folder.path());
    let (open_port, strict_port) = (free_port(), free_port());
    let strict = RabbitMq::start_with(options(&certificates, strict_port, true)).await;
    let app = SampleApp::new(strict.url());
    let host = |port: u16| format!("amqps://guest:guest@127.0.0.1:{port}//");
    let trusting =
        CelerySettings { tls_ca_file: Some(certificates.authority.clone().into()), ..settings(&host(strict_port)) };
    let ours = CelerySettings {
        tls_certificate_file: Some(certificates.client.clone().into()),
        tls_key_file: Some(certificates.client_key.clone().into()),
        ..trusting.clone()
    };
    works(&app, &ours).await;
    // As a URL tells it.
    let url = format!(
        "{}?ssl_ca_certs={}&ssl_certfile={}&ssl_keyfile={}",
        host(strict_port),
        certificates.authority,
        certificates.client,
        certificates.client_key
    );
    works(&app, &settings(&url)).await;
    let failure = open(&trusting).observe(&tasks(&["one"])).await.expect_err("it wants a certificate of ours");
    assert!(matches!(failure.kind, FailureKind::Invalid | FailureKind::Unreachable), "{failure:?}");
    drop(strict);

    let lax = RabbitMq::start_with(options(&certificates, open_port, false)).await;
    let app = SampleApp::new(lax.url());
    works(&app, &CelerySettings { url: host(open_port).into(), ..trusting }).await;
    // Without any check.
    works(&app, &settings(&format!("{}?ssl_cert_reqs=none", host(open_port)))).await;

    let failure = open(&settings(&host(open_port))).observe(&tasks(&["one"])).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid, "{failure:?}");
    assert!(failure.message.contains("certificate"), "{failure:?}");
    let wrong_port = open(&settings(&format!("{}?ssl_cert_reqs=none", host(lax.port()))));
    let failure = wrong_port.observe(&tasks(&["one"])).await.unwrap_err();
    assert!(failure.message.contains("does not speak TLS"), "{failure:?}");
}

fn options(certificates: &Certificates, port: u16, wants_ours: bool) -> RabbitMqOptions {
    let Certificates { authority, server, server_key, .. } = certificates;
    RabbitMqOptions {
        configuration: vec![
            format!("listeners.ssl.1 = 127.0.0.1:{port}"),
            format!("ssl_options.cacertfile = {authority}"),
            format!("ssl_options.certfile = {server}"),
            format!("ssl_options.keyfile = {server_key}"),
            format!("ssl_options.verify = {}", if wants_ours { "verify_peer" } else { "verify_none" }),
            format!("ssl_options.fail_if_no_peer_cert = {wants_ours}"),
        ],
    }
}

/// An authority of our own, and two certificates of it.
struct Certificates {
    authority: String,
    server: String,
    server_key: String,
    client: String,
    client_key: String,
}

impl Certificates {
    fn make(folder: &Path) -> Self {
        let file = |name: &str| folder.join(name).display().to_string();
        let openssl = |arguments: &[&str]| {
            let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
            let output = Command::new("openssl").args(["req", "-x509"]).args(arguments).args(key).output();
            let output = output.expect("openssl is installed: run `make setup`");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let (authority, authority_key) = (file("ca.pem"), file("ca.key"));
        openssl(&["-subj", "/CN=test authority", "-keyout", &authority_key, "-out", &authority]);
        let signed = |name: &str| {
            let (certificate, key) = (file(&format!("{name}.pem")), file(&format!("{name}.key")));
            let subject = format!("/CN={name}");
            let mut arguments = vec!["-subj", &subject, "-keyout", &key, "-out", &certificate];
            arguments.extend(["-CA", &authority, "-CAkey", &authority_key]);
            arguments.extend([
                "-addext",
                "subjectAltName=IP:127.0.0.1",
                "-addext",
                "basicConstraints=critical,CA:FALSE",
            ]);
            openssl(&arguments);
            (certificate, key)
        };
        let ((server, server_key), (client, client_key)) = (signed("server"), signed("client"));
        Self { authority, server, server_key, client, client_key }
    }
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
