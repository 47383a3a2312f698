//! The JSON in which kombu wraps every message on Redis.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::names::Names;
use crate::workers::celery::{
    pidbox::{Body, Request, TooLong},
    transport::Reply,
};

/// Wraps a request.
pub(super) fn wrap(request: &Request, names: &Names) -> String {
    json!({
        "body": STANDARD.encode(request.body(&names.reply_to())),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"expires": seconds(request.expires)},
        "properties": {
            "body_encoding": "base64",
            "delivery_info": {"exchange": names.exchange, "routing_key": ""},
            "delivery_mode": 2,
            "delivery_tag": Uuid::new_v4().to_string(),
            "priority": 0,
        },
    })
    .to_string()
}

#[expect(clippy::cast_precision_loss, reason = "to the microsecond for some centuries, and kombu has it so")]
fn seconds(at: Timestamp) -> f64 {
    at.as_microsecond() as f64 / 1_000_000.0
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    body: Cow<'a, str>,
    #[serde(default)]
    headers: Headers,
    #[serde(default)]
    properties: Properties,
}

#[derive(Default, Deserialize)]
struct Headers {
    ticket: Option<String>,
}

#[derive(Default, Deserialize)]
struct Properties {
    body_encoding: Option<String>,
}

impl Envelope<'_> {
    fn body(self) -> Option<Vec<u8>> {
        match self.properties.body_encoding.as_deref() {
            Some("base64") => STANDARD.decode(self.body.as_bytes()).ok(),
            _ => Some(self.body.into_owned().into_bytes()),
        }
    }
}

/// Unwraps a reply. `None`: it is none.
pub(super) fn unwrap(envelope: &[u8]) -> Option<Reply> {
    let mut envelope: Envelope = serde_json::from_slice(envelope).ok()?;
    Some(Reply { ticket: envelope.headers.ticket.take()?, body: envelope.body()?.into() })
}

/// What can be told of a reply that is too long to be read, from where it begins and ends. `None`: it is none, or not as kombu
/// writes them, whose envelope begins with the body and ends with the headers (`Channel.prepare_message` in
/// `kombu/transport/virtual/base.py`).
pub(super) fn unwrap_ends(how: TooLong, head: &[u8], tail: &[u8]) -> Option<Reply> {
    let body = head.strip_prefix(br#"{"body": ""#)?;
    let body = STANDARD.decode(&body[..body.len() / 4 * 4]).ok()?;
    let node = first_text(body.strip_prefix(b"{")?).filter(|node| !node.is_empty())?;
    let key = br#""ticket": "#;
    let at = tail.windows(key.len()).rposition(|window| window == key)?;
    Some(Reply { ticket: first_text(&tail[at + key.len()..])?, body: Body::TooLong(node.into(), how) })
}

/// The text that JSON begins with, whatever comes after it.
fn first_text(json: &[u8]) -> Option<String> {
    serde_json::Deserializer::from_slice(json).into_iter().next()?.ok()
}

/// The body alone, of any message. `None`: it is none.
pub(super) fn body(envelope: &[u8]) -> Option<Vec<u8>> {
    serde_json::from_slice::<Envelope>(envelope).ok()?.body()
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::{Names, Reply, TooLong, unwrap, unwrap_ends, wrap};
    use crate::workers::celery::{
        pidbox::{Body, Method, Recipients, Request},
        settings::CelerySettings,
    };

    #[test]
    fn a_request_expires() {
        let names = Names::new(&CelerySettings::new("redis://a"), 0);
        let request = Request::new(Method::Active, Recipients::Everybody, "2026-01-01T00:00:00.5Z".parse().unwrap());
        let envelope: Value = serde_json::from_str(&wrap(&request, &names)).unwrap();
        assert_eq!(envelope["headers"]["expires"], json!(1_767_225_600.5));
        let body = STANDARD.decode(envelope["body"].as_str().unwrap()).unwrap();
        assert_eq!(body, request.body(&names.reply_to()).into_bytes());
    }

    #[test]
    fn a_reply_is_unwrapped_with_and_without_base64() {
        let reply = Reply { ticket: "t".into(), body: b"{}".to_vec().into() };
        let plain =
            json!({"body": "{}", "headers": {"ticket": "t", "clock": 3}, "properties": {"body_encoding": null}});
        assert_eq!(unwrap(plain.to_string().as_bytes()), Some(reply.clone()));
        let encoded = json!({"body": "e30=", "headers": {"ticket": "t"}, "properties": {"body_encoding": "base64"}});
        assert_eq!(unwrap(encoded.to_string().as_bytes()), Some(reply));
    }

    #[rstest]
    #[case(b"")]
    #[case(b"\xff\xff")]
    #[case(b"[]")]
    #[case(b"{\"body\": 5}")]
    #[case(b"{\"body\": \"e30=\", \"headers\": {}}")]
    #[case(b"{\"body\": \"!\", \"headers\": {\"ticket\": \"t\"}, \"properties\": {\"body_encoding\": \"base64\"}}")]
    fn junk_is_no_reply(#[case] envelope: &[u8]) {
        assert_eq!(unwrap(envelope), None);
    }

    /// As kombu 5.7 wrote it.
    #[rstest]
    #[case(r#"{"worker@a": [{"eta"#, Some("worker@a"))]
    #[case(r#"{"w\u00f6rker@a": [{"eta"#, Some("w\u{f6}rker@a"))]
    #[case(r#"{"": [{"eta"#, None)]
    #[case(r#"{"a-name-that-does-not-end"#, None)]
    #[case("[1, 2]", None)]
    fn the_ends_of_a_long_reply_name_its_node(#[case] begins: &str, #[case] node: Option<&str>) {
        let how = TooLong { bytes: 40 << 20, most: 32 << 20 };
        let head = format!(r#"{{"body": "{}"#, STANDARD.encode(begins));
        let tail = r#"fV19", "content-encoding": "utf-8", "content-type": "application/json", "headers": {"ticket": "t", "clock": 7}, "properties": {}}"#;
        let reply = node.map(|node| Reply { ticket: "t".into(), body: Body::TooLong(node.into(), how) });
        assert_eq!(unwrap_ends(how, head.as_bytes(), tail.as_bytes()), reply);
        assert_eq!(unwrap_ends(how, head.as_bytes(), &tail.as_bytes()[..60]), None, "it has no ticket");
    }
}
