//! docs/http-worker.openapi.yaml is what our client reads and writes, and what the bootstep and the example serve.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    sync::Mutex,
};

use serde_json::{Value, json};
use test_support::{Jobs, Process, Redis, SampleApp, free_port, python, python_with_sqs, repository};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use worker_drain::workers::{Workers as _, http::State};
use worker_drain_plan::observation::Queue;

use crate::{TOKEN, node, open, settings, task, until};

/// What is wrong with each of these, by the schema of that name.
fn judge(cases: &[(&str, Value)]) -> Vec<Option<String>> {
    let mut judge = Command::new(python_with_sqs())
        .arg(repository().join("tests/celery/check_openapi.py"))
        .arg(repository().join("docs/http-worker.openapi.yaml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    judge.stdin.take().unwrap().write_all(json!(cases).to_string().as_bytes()).unwrap();
    let output = judge.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// One request by hand; the status and the document.
async fn ask(port: u16, method: &str, path: &str, token: &str, body: &Value) -> (u16, Value) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n");
    stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bootstep_serves_what_the_contract_says() {
    let (redis, port) = (Redis::start().await, free_port());
    let app = SampleApp::new(redis.url())
        .variable("SAMPLE_HTTP", "1")
        .variable("WORKER_DRAIN_HTTP_TOKEN", format!("another-token-of-old {TOKEN}"))
        .variable("WORKER_DRAIN_HTTP_PORT", port.to_string())
        .variable("ECS_CONTAINER_METADATA_URI_V4", format!("http://127.0.0.1:1/v4/{}-1234567890", "0af3".repeat(8)));
    let _worker = app.worker("worker@one").concurrency(1).start().await;
    app.submit(Jobs::with_ids(["eta"]).countdown(3600.0)).await;
    let jobs = app.submit(Jobs::new(2).until_told()).await;
    app.journal().wait_started(&jobs, 1).await;
    let mut tasks = task("127.0.0.1");
    let expected = tasks.remove(&"t".into()).unwrap();
    tasks.insert(format!("arn:aws:ecs:eu-west-1:1:task/media/{}", "0af3".repeat(8)).into(), expected);
    assert_eq!(open(&settings(port)).observe(&tasks).await.unwrap().nodes.len(), 1, "it says that it is of this task");

    let (status, state) = ask(port, "GET", "/worker-drain", TOKEN, &Value::Null).await;
    assert_eq!((status, &state["task"]), (200, &json!("0af3".repeat(8))));
    assert_eq!(ask(port, "GET", "/worker-drain?x=1", "another-token-of-old", &Value::Null).await.0, 200);
    let order = |queues: Value| json!({"instance": state["instance"], "queues": queues});
    let mut cases = vec![("State", state.clone())];
    let table = [
        ("GET", "/worker-drain", "wrong", Value::Null, 401),
        ("POST", "/worker-drain/cancel", "wrong", order(json!(["celery"])), 401),
        ("GET", "/other", TOKEN, Value::Null, 404),
        ("POST", "/worker-drain", TOKEN, order(json!([])), 404),
        ("POST", "/worker-drain/cancel", TOKEN, json!({"instance": "x", "queues": ["celery"]}), 409),
        ("POST", "/worker-drain/cancel", TOKEN, json!({"instance": "x"}), 400),
        ("POST", "/worker-drain/cancel", TOKEN, json!("celery"), 400),
        ("POST", "/worker-drain/cancel", TOKEN, order(json!(["x".repeat(70_000)])), 413),
        ("POST", "/worker-drain/resume", TOKEN, order(json!(["nobody-has-it"])), 422),
    ];
    for (method, path, token, body, expected) in table {
        let (status, said) = ask(port, method, path, token, &body).await;
        assert_eq!(status, expected, "{method} {path}: {said}");
        cases.push(("Error", said));
    }
    for path in ["cancel", "cancel", "resume", "resume"] {
        let (status, said) =
            ask(port, "POST", &format!("/worker-drain/{path}"), TOKEN, &order(json!(["celery"]))).await;
        assert_eq!(status, 200, "{said}");
    }
    let no_queue = order(json!(["nobody-has-it"]));
    assert_eq!(ask(port, "POST", "/worker-drain/cancel", TOKEN, &no_queue).await.0, 200, "it consumes none of it");
    assert_eq!(judge(&cases), vec![None; cases.len()], "{cases:?}");
    app.tell(&jobs);
    app.journal().wait_finished(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_serves_what_the_contract_says() {
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    std::fs::create_dir(folder.path().join("jobs")).unwrap();
    std::fs::write(folder.path().join("jobs/a"), "").unwrap();
    let mut command = Command::new(python());
    command.arg(repository().join("examples/http-worker.py")).current_dir(folder.path());
    command.env("WORKER_TOKEN", TOKEN).env("PORT", port.to_string()).env("WORK_SECONDS", "600");
    let _worker = Process::start("examples/http-worker.py", &command);
    let active =
        |answer: &worker_drain_plan::observation::Answer| answer.active.as_ref().is_some_and(|jobs| jobs.len() == 1);
    until(&open(&settings(port)), "127.0.0.1", "it works", active).await;
    let (status, state) = ask(port, "GET", "/worker-drain", TOKEN, &Value::Null).await;
    let (denied, error) = ask(port, "GET", "/worker-drain", "wrong", &Value::Null).await;
    let order = json!({"instance": "another", "queues": ["jobs"]});
    let (conflict, other) = ask(port, "POST", "/worker-drain/cancel", TOKEN, &order).await;
    assert_eq!((status, denied, conflict), (200, 401, 409));
    let verdicts = judge(&[("State", state), ("Error", error), ("Error", other)]);
    assert_eq!(verdicts, [None, None, None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_sends_what_the_contract_says() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let state = r#"{"instance": "one", "startedAt": "2026-11-24T05:44:54Z", "queues": [], "active": [], "reserved": [],
        "scheduled": []}"#;
    let heard = std::sync::Arc::new(Mutex::new(Vec::new()));
    let wakeup = heard.clone();
    let mut server = JoinSet::new();
    server.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut text, mut buffer) = (String::new(), vec![0; 4096]);
            while !text.contains("\r\n\r\n") || (text.starts_with("POST") && !text.ends_with('}')) {
                let length = stream.read(&mut buffer).await.unwrap();
                text.push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
            wakeup.lock().unwrap().push(text);
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{state}", state.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let workers = open(&settings(port));
    workers.observe(&task("127.0.0.1")).await.unwrap();
    workers.cancel(&[(node(), vec!["slow".into(), "fast".into()])]).await;
    workers.give_back(&[(node(), vec![Queue::named("slow")])]).await;
    let heard = heard.lock().unwrap().clone();
    let lines: Vec<&str> = heard.iter().map(|text| text.lines().next().unwrap()).collect();
    let expected =
        ["GET /worker-drain HTTP/1.1", "POST /worker-drain/cancel HTTP/1.1", "POST /worker-drain/resume HTTP/1.1"];
    assert_eq!(lines, expected);
    let bearer = format!("authorization: Bearer {TOKEN}");
    assert!(heard.iter().all(|text| text.contains(&bearer)), "{heard:?}");
    let body = |text: &String| serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
    let orders: Vec<(&str, Value)> = heard[1..].iter().map(|text| ("Order", body(text))).collect();
    assert_eq!(orders[0].1, json!({"instance": "one", "queues": ["slow", "fast"]}));
    assert_eq!(judge(&orders), [None, None]);
}

#[test]
fn the_client_reads_exactly_what_the_contract_allows() {
    let good = json!({
        "instance": "one", "startedAt": "2026-11-24T05:44:54.25Z", "worker": "w@a", "task": null, "queues": ["slow"],
        "active": [{"id": "a", "name": "cut", "startedAt": "2026-11-24T05:44:54+01:00"}],
        "reserved": [{"id": "b", "name": "cut", "more": {}}],
        "scheduled": [{"id": "c", "name": "cut", "eta": "2026-11-25T00:00:00Z"}],
    });
    let mut documents = vec![good.clone(), json!([]), json!("state"), json!({})];
    for field in good.as_object().unwrap().keys() {
        let mut without = good.clone();
        without.as_object_mut().unwrap().remove(field);
        documents.push(without);
        for value in
            [Value::Null, json!(7), json!(""), json!([]), json!([7]), json!([{}]), json!({}), json!([{"id": "a"}])]
        {
            let mut changed = good.clone();
            changed[field] = value;
            documents.push(changed);
        }
    }
    let cases: Vec<(&str, Value)> = documents.iter().map(|document| ("State", document.clone())).collect();
    let mut wrong = Vec::new();
    for (document, verdict) in documents.iter().zip(judge(&cases)) {
        let read = State::parse(document.to_string().as_bytes());
        // An empty text is no time, which only a judge of formats can tell.
        let is_format = document["startedAt"] == "" && read.is_err();
        if read.is_ok() != verdict.is_none() && !is_format {
            wrong.push(format!("{document}: the client: {read:?}; the contract: {verdict:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
