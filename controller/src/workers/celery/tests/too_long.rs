//! Replies that are too long to be read.

use std::sync::{Arc, Mutex};

use super::{LONG, Replies, Reply, ReplySink, SHORT, Workers, answer_as, celery, known, tasks};
use crate::workers::celery::pidbox::{Body, Method, Request, TooLong};

const HOW: TooLong = TooLong { bytes: 40 << 20, most: 32 << 20 };

#[tokio::test]
async fn one_that_is_too_long_is_waited_for_no_more_and_told() {
    for left_out in [Method::Scheduled, Method::Reserved, Method::ActiveQueues] {
        let method = left_out.clone();
        let celery = celery(LONG, None, Some(1), move |request: &Request, sink: &ReplySink| {
            if request.method == left_out {
                let body = Body::TooLong("w@a".into(), HOW);
                sink.put(Ok(Reply { ticket: request.ticket.clone(), body }));
            } else {
                answer_as("w@a", request, sink);
            }
        });
        // The second look asks for everything: the node was met in the first.
        let tasks = known(tasks(&["a"]), &["w@a"]);
        for _ in 0..2 {
            let looking = celery.observe(&tasks);
            let view = tokio::time::timeout(LONG / 2, looking).await.expect("nobody is left to wait for").unwrap();
            let answer = &view.nodes[&"w@a".into()];
            assert!(!answer.is_whole() && answer.active.is_some(), "{answer:?}");
            let told = format!("its answer to `{}` has 40 MiB, more than the 32 MiB that are read: ", method.name());
            assert!(view.silences[&"w@a".into()].starts_with(&told), "{view:?}");
        }
    }
}

#[tokio::test]
async fn what_is_read_ahead_is_bounded() {
    let of = |mebibytes: usize| Ok(Reply { ticket: "t".into(), body: vec![b' '; mebibytes << 20].into() });
    let (sink, mut replies) = Replies::channel();
    sink.put(of(3));
    assert!(!sink.is_full());
    sink.put(of(3));
    assert!(sink.is_full());
    replies.next().await.unwrap().unwrap();
    assert!(!sink.is_full());
    replies.at_hand().unwrap().unwrap();
    replies.set_aside();
    sink.put(of(3));
    assert!(replies.at_hand().is_none(), "it is late, and of no use");
    sink.put(of(1));
    assert!(replies.at_hand().is_some() && !sink.is_full());
}

/// A long answer takes long.
#[tokio::test]
async fn one_that_comes_when_the_look_is_over_is_told_in_the_next() {
    let late: Arc<Mutex<Vec<(ReplySink, String)>>> = Arc::default();
    let asked = late.clone();
    let celery = celery(SHORT, None, Some(1), move |request: &Request, sink: &ReplySink| match request.method {
        Method::Scheduled => asked.lock().unwrap().push((sink.clone(), request.ticket.clone())),
        _ => answer_as("w@a", request, sink),
    });
    let tasks = known(tasks(&["a"]), &["w@a"]);
    assert!(!celery.observe(&tasks).await.unwrap().silences.contains_key(&"w@a".into()));
    for (sink, ticket) in late.lock().unwrap().drain(..) {
        sink.put(Ok(Reply { ticket, body: Body::TooLong("w@a".into(), HOW) }));
    }
    let view = celery.observe(&tasks).await.unwrap();
    assert!(view.silences[&"w@a".into()].starts_with("its answer to `scheduled` has 40 MiB"), "{view:?}");
}
