//! The Secrets that a drain names, as they were read last.
//!
//! What was read once is kept for as long as the drain names it: when the drain is deleted, the Secret may go first, as it
//! does with its namespace, and without it nothing can be given back (docs/decisions/0008).

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::Secret;
use kube::{Client, api::Api};
use tokio::time::Instant;
use worker_drain_plan::observation::{Failure, FailureKind};

use crate::{
    api::{policy::WorkersTarget, secret_ref::SecretKeyRef},
    record::api_server::{Namespace, call_opt, state_of},
    secret::{Secret as Text, SecretTexts},
};

/// A Secret is read again after so long. To watch it would need the permission to list all Secrets of the namespace; to
/// read the one that is named does not.
const FRESH_FOR: Duration = Duration::from_secs(15);

/// The Secrets of one drain.
#[derive(Default)]
pub struct Secrets(BTreeMap<SecretKeyRef, Known>);

/// What was read last.
struct Known {
    text: Text,
    /// When; `None`: it did not work, and is read again before it is used.
    at: Option<Instant>,
    /// That it is used though it cannot be read any more was said.
    said: bool,
}

/// Where Secrets are read, and for what.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    /// The API server.
    pub client: &'a Client,
    /// The drain's own namespace.
    pub namespace: &'a str,
    /// The drain is deleted: what was read last is used where nothing can be read any more.
    pub deleted: bool,
}

impl Secrets {
    /// They are read again before they are used: what they contained did not work.
    pub fn distrust(&mut self) {
        self.0.values_mut().for_each(|known| known.at = None);
    }

    /// All that the target names, and nothing else is kept. Errors: one of them cannot be read, or not be used.
    pub async fn of(&mut self, target: &WorkersTarget, reader: Reader<'_>) -> Result<SecretTexts, Failure> {
        let named = target.secrets();
        self.0.retain(|known, _| named.iter().any(|(_, key)| *key == known));
        let mut texts = SecretTexts::new();
        for (field, key) in named {
            texts.insert(key.clone(), self.one(&field, key, reader).await?);
        }
        Ok(texts)
    }

    async fn one(&mut self, field: &str, key: &SecretKeyRef, reader: Reader<'_>) -> Result<Text, Failure> {
        let known = self.0.get_mut(key);
        if let Some(Known { text, at: Some(at), .. }) = &known
            && at.elapsed() < FRESH_FOR
        {
            return Ok(text.clone());
        }
        match (read(field, key, reader).await, known) {
            (Ok(text), _) => {
                self.0.insert(key.clone(), Known { text: text.clone(), at: Some(Instant::now()), said: false });
                Ok(text)
            }
            (Err(failure), Some(known)) if reader.deleted => {
                if !std::mem::replace(&mut known.said, true) {
                    let why = failure.message;
                    tracing::warn!(why, "a Secret cannot be read any more: the last one that was read is used");
                }
                Ok(known.text.clone())
            }
            // An API server that does not answer is no reason to stop using what works.
            (Err(failure), Some(known)) if failure.kind == FailureKind::Unreachable && known.at.is_some() => {
                Ok(known.text.clone())
            }
            (Err(failure), known) => {
                if let Some(known) = known {
                    known.at = None;
                }
                Err(failure)
            }
        }
    }
}

/// Reads a key of a Secret of the drain's own namespace.
async fn read(
    field: &str,
    SecretKeyRef { name, key }: &SecretKeyRef,
    reader @ Reader { client, namespace, .. }: Reader<'_>,
) -> Result<Text, Failure> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = match call_opt("read the Secret", api.get(name)).await {
        Ok(Some(secret)) => secret,
        Ok(None) => {
            let missing =
                format!("there is no Secret {name} in the namespace {namespace} ({field}){}", mend(reader).await);
            return Err(Failure::new(FailureKind::NotFound, missing));
        }
        Err(failure) if failure.kind == FailureKind::Denied => {
            let message = format!(
                "worker-drain is not permitted to read the Secret {name} in the namespace {namespace} ({field}): permit it (the chart's \
                 secrets.enabled, secrets.names and watch.namespaces)"
            );
            return Err(Failure::new(FailureKind::Denied, message));
        }
        Err(failure) => return Err(failure),
    };
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    let text =
        value.and_then(|value| std::str::from_utf8(&value.0).ok()).map(|text| text.trim_end_matches(['\n', '\r']));
    match text {
        Some("") => Err(invalid(field, name, namespace, &format!("its key {key} is empty"))),
        Some(text) => Ok(Text::from(text)),
        None if value.is_some() => Err(invalid(field, name, namespace, &format!("its key {key} is not text"))),
        None => {
            let keys: Vec<&str> = secret.data.iter().flat_map(|data| data.keys()).map(String::as_str).collect();
            let has = if keys.is_empty() { String::from("no key") } else { keys.join(", ") };
            Err(invalid(field, name, namespace, &format!("it has no key {key} (it has {has})")))
        }
    }
}

/// Whether a Secret that is missing can be made. One that is deleted with its namespace cannot.
async fn mend(Reader { client, namespace, deleted }: Reader<'_>) -> &'static str {
    if !deleted {
        return ": create it";
    }
    match state_of(client, namespace).await {
        Namespace::Terminating => ", and it cannot be made again, because the namespace is being deleted",
        Namespace::Open => ": make it again, and what was taken is given back",
        Namespace::Unknown => ": make it again, which is possible unless the namespace is being deleted too",
    }
}

fn invalid(field: &str, name: &str, namespace: &str, why: &str) -> Failure {
    let message = format!("the Secret {name} in the namespace {namespace} cannot be used ({field}): {why}");
    Failure::new(FailureKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
    };

    use hyper::{Method, Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// What an API server answers to a read of the Secret, and to a trial of making something in its namespace.
    type Answers = Arc<Mutex<(Value, Value)>>;

    fn client(answers: &Answers) -> Client {
        let answers = Arc::clone(answers);
        let service = tower::service_fn(move |request: Request<Body>| {
            let answers = answers.lock().unwrap();
            let answer = if request.method() == Method::GET { &answers.0 } else { &answers.1 };
            let code = answer["code"].as_u64().map_or(200, |code| u16::try_from(code).unwrap());
            let body = Body::from(answer.to_string().into_bytes());
            let status = StatusCode::from_u16(code).unwrap();
            std::future::ready(Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap()))
        });
        Client::new(service, "media")
    }

    fn refusal(code: u16, cause: &str) -> Value {
        let causes = json!([{"reason": cause}]);
        json!({"kind": "Status", "status": "Failure", "code": code, "message": "no", "details": {"causes": causes}})
    }

    fn secret(url: &str) -> Value {
        // As base64: what is text in a Secret is that on its way.
        json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "broker"}, "data": {"url": url}})
    }

    async fn one(secrets: &mut Secrets, client: &Client, deleted: bool) -> Result<Text, Failure> {
        let key = SecretKeyRef { name: "broker".into(), key: "url".into() };
        secrets.one("broker.urlFrom", &key, Reader { client, namespace: "media", deleted }).await
    }

    #[tokio::test]
    async fn what_was_read_last_serves_a_drain_that_is_deleted_whatever_has_become_of_the_secret() {
        for gone in [refusal(404, ""), refusal(403, ""), secret("")] {
            let answers = Answers::new(Mutex::new((secret("b25l"), refusal(403, "NamespaceTerminating"))));
            let (client, mut secrets) = (client(&answers), Secrets::default());
            one(&mut secrets, &client, false).await.unwrap();
            answers.lock().unwrap().0 = gone.clone();
            one(&mut secrets, &client, false).await.expect("it is young");
            secrets.distrust();
            one(&mut secrets, &client, false).await.expect_err("one that stays asks for its Secret");
            for _ in 0..2 {
                secrets.distrust();
                assert_eq!(one(&mut secrets, &client, true).await.unwrap(), Text::from("one"), "{gone}");
            }
            answers.lock().unwrap().0 = secret("dHdv");
            assert_eq!(one(&mut secrets, &client, true).await.unwrap(), Text::from("two"), "a new one is taken");
        }
    }

    #[tokio::test]
    async fn whether_a_missing_secret_can_be_made_is_told() {
        for (deleted, trial, words) in [
            (false, refusal(403, "NamespaceTerminating"), ": create it"),
            (
                true,
                refusal(403, "NamespaceTerminating"),
                "it cannot be made again, because the namespace is being deleted",
            ),
            (true, refusal(404, ""), "it cannot be made again, because the namespace is being deleted"),
            (true, json!({"metadata": {}, "revision": 1}), ": make it again, and what was taken is given back"),
            (true, refusal(403, ""), "unless the namespace is being deleted too"),
        ] {
            let answers = Answers::new(Mutex::new((refusal(404, ""), trial)));
            let failure = one(&mut Secrets::default(), &client(&answers), deleted).await.unwrap_err();
            assert_eq!(failure.kind, FailureKind::NotFound);
            assert!(failure.message.contains(words), "{}", failure.message);
        }
    }
}
