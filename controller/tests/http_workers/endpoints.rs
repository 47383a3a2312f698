//! Servers that do not answer as they should: each is told in words that say what to do, and none is ever idle.

use std::time::Duration;

use test_support::free_port;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
    time::Instant,
};
use worker_drain::workers::{
    Workers as _,
    http::{HttpSettings, Scheme},
};
use worker_drain_plan::{
    Outcome,
    observation::{FailureKind, Queue},
};

use crate::{TOKEN, at, hint, node, open, queues, settings, task};

const STATE: &str = r#"{"instance": "one", "startedAt": "2026-11-24T05:44:54Z", "queues": ["slow"], "active": [],
    "reserved": [], "scheduled": []}"#;

/// A server that ends when this is dropped.
struct Server {
    port: u16,
    _tasks: JoinSet<()>,
}

/// Says this to everybody, and then nothing more; whether it ends the connection then.
async fn says(words: Vec<u8>, ends: bool) -> Server {
    answers(move |_| words.clone(), ends).await
}

/// Answers each request by what was asked.
async fn answers(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + Clone + 'static, ends: bool) -> Server {
    serve(TcpListener::bind(("127.0.0.1", 0)).await.unwrap(), answer, ends)
}

fn serve(
    listener: TcpListener,
    answer: impl Fn(&str) -> Vec<u8> + Send + Sync + Clone + 'static,
    ends: bool,
) -> Server {
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            connections.spawn(async move {
                let mut request = vec![0; 64 * 1024];
                let length = stream.read(&mut request).await.unwrap_or(0);
                let _ = stream.write_all(&answer(&String::from_utf8_lossy(&request[..length]))).await;
                if !ends {
                    // Until the other one has had enough.
                    let _ = stream.read(&mut request).await;
                }
            });
        }
    });
    Server { port, _tasks: tasks }
}

fn http(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn with(field: &str, value: &str) -> Vec<u8> {
    let mut state: serde_json::Value = serde_json::from_str(STATE).unwrap();
    state[field] = serde_json::from_str(value).unwrap();
    http("200 OK", &state.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_does_wrong_is_told_and_is_never_idleness() {
    use FailureKind::{Denied, Invalid};
    let endless = [b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n".as_slice(), &vec![b' '; 2_000_000]].concat();
    let chunks: Vec<u8> = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        .iter()
        .copied()
        .chain(format!("10000\r\n{}\r\n", " ".repeat(0x10000)).repeat(20).into_bytes())
        .collect();
    let elsewhere = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n".to_vec();
    // What it says, whether it then ends the connection, the failure if that is what all do, and what is told.
    let table = [
        (http("401 Unauthorized", "{}"), true, Some(Denied), "the token of spec.workers.http.tokenFrom is not the one"),
        (http("403 Forbidden", ""), true, Some(Denied), "answered 403"),
        (http("404 Not Found", ""), true, Some(Invalid), "see spec.workers.http.path"),
        (elsewhere, true, Some(Invalid), "answered 302: redirects are not followed"),
        (http("418 I'm a teapot", ""), true, Some(Invalid), "the status is 418"),
        (http("500 Internal Server Error", "<html>"), true, None, "answered 500"),
        (http("503 Busy", r#"{"error": "the worker is starting"}"#), true, None, "503: the worker is starting"),
        (http("200 OK", "<html>hello</html>"), true, Some(Invalid), "does not answer as docs/http-worker.md says"),
        (http("200 OK", "{}"), true, Some(Invalid), "missing field `instance`"),
        (with("active", "null"), true, Some(Invalid), "does not answer as"),
        (with("queues", "[1]"), true, Some(Invalid), "does not answer as"),
        (with("task", "\"another\""), true, None, "says that it is of the task another"),
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), true, Some(Invalid), "no whole HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec(), true, Some(Invalid), "no whole HTTP answer"),
        (endless, false, Some(Invalid), "more than 1048576 bytes"),
        (chunks, false, Some(Invalid), "more than 1048576 bytes"),
        (Vec::new(), false, None, "did not answer within 1s"),
        (b"HTTP/1.1 200 OK\r\n".to_vec(), false, None, "did not answer within 1s"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec(), false, None, "did not answer within 1s"),
    ];
    let mut wrong = Vec::new();
    for (words, ends, kind, told) in table {
        let shown: String = String::from_utf8_lossy(&words).chars().take(60).collect();
        let waits = told.contains("within 1s");
        let server = says(words, ends).await;
        let bound = Duration::from_secs(if waits { 1 } else { 10 });
        let workers = open(&HttpSettings { reply_bound: bound, ..settings(server.port) });
        let (got, said) = match workers.observe(&task("127.0.0.1")).await {
            Ok(view) => {
                assert!(view.nodes.is_empty(), "{shown:?} was taken for an answer");
                (None, hint(&view))
            }
            Err(failure) => (Some(failure.kind), failure.message),
        };
        if got != kind || !said.contains(told) || said.contains(TOKEN) {
            wrong.push(format!("{shown:?}: {got:?} {said}, where {kind:?} with {told:?} is right"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_told_with_the_ways_out() {
    let workers = open(&settings(free_port()));
    let view = workers.observe(&task("127.0.0.1")).await.unwrap();
    let said = hint(&view);
    assert!(view.nodes.is_empty() && said.contains("cannot connect") && said.contains("security group"), "{said}");
    let mut nowhere = task("127.0.0.1");
    for task in nowhere.values_mut() {
        task.identity.addresses.clear();
    }
    let failure = workers.observe(&nowhere).await.unwrap_err();
    assert!(failure.kind == FailureKind::Invalid && failure.message.contains("network mode awsvpc"), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_refuses_us_does_not_hide_those_that_answer() {
    let server = says(http("200 OK", STATE), true).await;
    let port = server.port;
    let refusing = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    let _refusing = serve(refusing, |_| http("401 Unauthorized", ""), true);
    let mut tasks = task("127.0.0.1");
    tasks.insert("u".into(), at("127.0.0.2"));
    // It answered before, so it is known, and silent now.
    let known = worker_drain::identity::Expected { nodes: ["http@v".into()].into(), ..at("127.0.0.3") };
    tasks.insert("v".into(), known);
    let view = open(&settings(port)).observe(&tasks).await.unwrap();
    assert_eq!(view.nodes.keys().collect::<Vec<_>>(), [&node()]);
    assert_eq!(queues(&view.nodes[&node()]).unwrap(), ["slow"]);
    assert!(view.silences[&"http@u".into()].contains("401"), "{:?}", view.silences);
    assert!(view.silences[&"http@v".into()].contains("cannot connect"), "{:?}", view.silences);
    assert_eq!(view.tasks[&"v".into()], worker_drain_plan::observation::Mapping::Nodes(["http@v".into()].into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_silent_workers_cost_one_bound_and_no_more() {
    let server = says(Vec::new(), false).await;
    let tasks = (0..200).map(|number| (format!("t{number}").into(), at("127.0.0.1"))).collect();
    let workers = open(&HttpSettings { reply_bound: Duration::from_secs(3), ..settings(server.port) });
    let began = Instant::now();
    let view = workers.observe(&tasks).await.unwrap();
    assert!(view.nodes.is_empty() && view.tasks.len() == 200);
    // One after another they would take ten minutes.
    assert!(began.elapsed() < Duration::from_mins(2), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_can_be_replaced_while_workers_run_that_know_only_the_old_one() {
    let server = answers(
        |request| {
            let knows = request.to_lowercase().contains("authorization: bearer the-old-one");
            if knows { http("200 OK", STATE) } else { http("401 Unauthorized", "") }
        },
        true,
    )
    .await;
    let with = |token: &str| open(&HttpSettings { token: token.into(), ..settings(server.port) });
    let tasks = task("127.0.0.1");
    assert_eq!(with("the-new-one").observe(&tasks).await.unwrap_err().kind, FailureKind::Denied);
    assert_eq!(with("the-new-one\nthe-old-one\n").observe(&tasks).await.unwrap().nodes.len(), 1);
    let without = with("").observe(&tasks).await.unwrap_err();
    assert!(without.message.contains("it wants a token: give spec.workers.http.tokenFrom"), "{}", without.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_name_the_instance_that_they_are_meant_for() {
    let server = answers(
        |request| match request {
            _ if request.starts_with("GET") => http("200 OK", STATE),
            _ if request.starts_with("POST /worker-drain/cancel") && request.contains(r#""instance":"one""#) => {
                http("202 Accepted", "")
            }
            _ if request.starts_with("POST /worker-drain/resume") => http("409 Conflict", r#"{"error": "restarted"}"#),
            _ => http("400 Bad Request", ""),
        },
        true,
    )
    .await;
    let workers = open(&settings(server.port));
    let cancel = [(node(), vec!["slow".into()])];
    // Nobody answered yet, so nobody is told anything.
    assert!(matches!(&workers.cancel(&cancel).await[..], [Outcome::Failed(_)]));
    workers.observe(&task("127.0.0.1")).await.unwrap();
    assert_eq!(workers.cancel(&cancel).await, [Outcome::Done]);
    let queue = Queue::named("slow");
    let refused = workers.give_back(&[(node(), vec![queue])]).await;
    assert_eq!(refused, [Outcome::Refused { reason: "409: restarted".into() }]);
}

#[tokio::test(flavor = "multi_thread")]
async fn https_is_refused_where_there_is_none() {
    let server = says(http("200 OK", STATE), true).await;
    let scheme = Scheme::Https { server_name: Some("worker.internal".into()), authorities: None };
    let workers = open(&HttpSettings { scheme, ..settings(server.port) });
    let said = workers.observe(&task("127.0.0.1")).await.unwrap_err();
    assert!(said.kind == FailureKind::Invalid && said.message.contains("no TLS with https://"), "{}", said.message);
}
