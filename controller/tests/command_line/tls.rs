//! A broker that speaks TLS, with certificates from Secrets.

use std::{path::Path, process::Output};

use test_support::{Certificates, Redis, RedisOptions, free_port};
use tokio::time::timeout;

use crate::stage::{PATIENCE, Stage};

/// Looks once, with these keys of the Secret `tls` read from these files.
async fn plan(stage: &Stage, url: &str, fields: &str, keys: &[(&str, &Path)]) -> Output {
    let celery = format!("{{broker: {{urlFrom: {{secretKeyRef: {{name: broker, key: url}}}}, tls: {fields}}}}}");
    let secrets: Vec<String> =
        keys.iter().map(|(key, file)| format!("--secret=tls/{key}=file:{}", file.display())).collect();
    let command: Vec<&str> = ["plan"].into_iter().chain(secrets.iter().map(String::as_str)).collect();
    let child = stage.begin_with(&command, "media", "transcoder", &celery, url);
    timeout(PATIENCE, child.wait_with_output()).await.expect("it ends in time").unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_come_from_secrets() {
    let stage = Stage::start().await;
    let certificates = Certificates::make();
    let port = free_port();
    let arguments = certificates.redis_arguments(port, true);
    let _redis = Redis::start_with(RedisOptions { arguments, ..RedisOptions::default() }).await;
    let url = format!("rediss://127.0.0.1:{port}/0");
    let (authority, (certificate, key)) = (certificates.authority(), certificates.client());
    let from = |field: &str, key: &str| format!("{field}: {{secretKeyRef: {{name: tls, key: {key}}}}}");
    let all = format!("{{{}, {}, {}}}", from("caFrom", "ca"), from("certificateFrom", "crt"), from("keyFrom", "key"));

    let right = plan(&stage, &url, &all, &[("ca", &authority), ("crt", &certificate), ("key", &key)]).await;
    assert_eq!(right.status.code(), Some(0), "{}", told(&right));
    assert!(!told(&right).contains("certificate"), "{}", told(&right));

    let nameless = plan(&stage, &url, &format!("{{{}}}", from("caFrom", "ca")), &[("ca", &authority)]).await;
    assert!(told(&nameless).contains("a broker may want one of ours"), "{}", told(&nameless));

    // Somebody mixes two files up: the key is not shown.
    let mixed = plan(&stage, &url, &all, &[("ca", &authority), ("crt", &key), ("key", &certificate)]).await;
    assert_eq!(mixed.status.code(), Some(2), "{}", told(&mixed));
    assert!(
        told(&mixed).contains("certificateFrom (the key crt of the Secret tls) cannot be used for TLS"),
        "{}",
        told(&mixed)
    );
    let secret = std::fs::read_to_string(&key).unwrap();
    let line = secret.lines().nth(1).expect("a key has lines");
    assert!(!told(&mixed).contains(line));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_lost_its_line_breaks_is_never_shown_whatever_the_workers_are() {
    let stage = Stage::start().await;
    let certificates = Certificates::make();
    let key = std::fs::read_to_string(certificates.client().1).unwrap();
    let on_one_line = key.replace('\n', " ");
    let content = key.lines().nth(1).expect("a key has lines");
    // As rustls prints a line that it cannot read.
    let decimal = content.bytes().take(12).map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    let source = "{secretKeyRef: {name: tls, key: ca}}";
    for (workers, field) in [
        (format!("{{http: {{port: 8443, scheme: https, caFrom: {source}}}}}"), "caFrom"),
        (
            format!("{{celery: {{broker: {{url: 'rediss://127.0.0.1/0', tls: {{caFrom: {source}}}}}}}}}"),
            "broker.tls.caFrom",
        ),
        (
            format!("{{celery: {{broker: {{url: 'amqps://127.0.0.1//', tls: {{caFrom: {source}}}}}}}}}"),
            "broker.tls.caFrom",
        ),
    ] {
        let mut call = stage.command(&["plan"], "media", "transcoder", &workers);
        let call = call.args(["--secret", "tls/ca=env:CA"]).env("CA", &on_one_line);
        let output = timeout(PATIENCE, call.output()).await.expect("it ends in time").unwrap();
        let told = told(&output);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(&format!("{field} (the key ca of the Secret tls) cannot be used for TLS")), "{told}");
        assert!(!told.contains(content) && !told.contains(&decimal), "{told}");
    }
}
