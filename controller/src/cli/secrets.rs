//! Secrets without Kubernetes: from the environment, from files, or from a `Secret` in the manifest. They never reach a
//! message or a log.

use std::{collections::BTreeMap, env, fs, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use thiserror::Error;

use super::exit::{UserError, plain};
use crate::{api::secret_ref::SecretKeyRef, secret::Secret};

/// One `--secret NAME/KEY=env:VARIABLE` or `--secret NAME/KEY=file:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFlag {
    secret: SecretKeyRef,
    source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Environment(String),
    File(String),
}

/// A `--secret` that cannot be read. It does not repeat what was given: that may hold the secret itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("write NAME/KEY=env:VARIABLE or NAME/KEY=file:PATH; the secret itself does not belong on a command line")]
pub struct SecretFlagError;

impl FromStr for SecretFlag {
    type Err = SecretFlagError;

    fn from_str(text: &str) -> Result<Self, SecretFlagError> {
        let (target, source) = text.split_once('=').ok_or(SecretFlagError)?;
        let (name, key) = target.split_once('/').ok_or(SecretFlagError)?;
        let source = match source.split_once(':') {
            Some(("env", variable)) if !variable.is_empty() => Source::Environment(variable.into()),
            Some(("file", path)) if !path.is_empty() => Source::File(path.into()),
            _ => return Err(SecretFlagError),
        };
        if name.is_empty() || key.is_empty() {
            return Err(SecretFlagError);
        }
        Ok(Self { secret: SecretKeyRef { name: name.into(), key: key.into() }, source })
    }
}

impl SecretFlag {
    fn read(&self) -> Result<Secret, UserError> {
        let SecretKeyRef { name, key } = &self.secret;
        let text = match &self.source {
            Source::Environment(variable) => env::var(variable).map_err(|_| {
                UserError::new(format!("--secret {name}/{key}: the environment variable {variable} is not set"))
            })?,
            Source::File(path) => fs::read_to_string(path).map_err(|error| {
                UserError::new(format!("--secret {name}/{key}: cannot read {path}: {}", plain(&error)))
            })?,
        };
        match text.trim_end_matches(['\n', '\r']) {
            "" => Err(UserError::new(format!("--secret {name}/{key}: is empty"))),
            text => Ok(Secret::from(text)),
        }
    }
}

/// All secrets that are at hand. Those of `--secret` come first: whoever gives one means it.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    flags: BTreeMap<SecretKeyRef, Secret>,
    documents: BTreeMap<(Option<String>, SecretKeyRef), Secret>,
}

impl Secrets {
    /// Reads what `--secret` names.
    pub fn from_flags(flags: &[String]) -> Result<Self, Vec<UserError>> {
        let mut secrets = Self::default();
        let mut errors = Vec::new();
        for flag in flags {
            let flag = flag.parse::<SecretFlag>().map_err(|error| UserError::new(format!("--secret: {error}")));
            match flag.and_then(|flag| Ok((flag.read()?, flag.secret))) {
                Ok((secret, key)) => drop(secrets.flags.insert(key, secret)),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(secrets) } else { Err(errors) }
    }

    /// Adds what a document of kind `Secret` holds. Errors: what is wrong with it, without any value.
    pub fn add_document(&mut self, document: &Value) -> Result<(), String> {
        let metadata = &document["metadata"];
        let name = metadata["name"].as_str().ok_or("metadata.name is missing")?;
        let namespace = metadata["namespace"].as_str().map(String::from);
        for field in ["data", "stringData"] {
            let Some(entries) = document.get(field).filter(|entries| !entries.is_null()) else { continue };
            for (key, value) in entries.as_object().ok_or_else(|| format!("{field} must be a group of texts"))? {
                let text = value.as_str().ok_or_else(|| format!("{field}.{key} must be a text"))?;
                let text = if field == "data" {
                    let bytes = STANDARD.decode(text.trim()).map_err(|_| format!("data.{key} is not base64"))?;
                    String::from_utf8(bytes).map_err(|_| format!("data.{key} is not text"))?
                } else {
                    text.to_owned()
                };
                let secret = SecretKeyRef { name: name.into(), key: key.clone() };
                let text = text.trim_end_matches(['\n', '\r']);
                // As in Kubernetes, stringData comes before data.
                self.documents.insert((namespace.clone(), secret), Secret::from(text));
            }
        }
        Ok(())
    }

    /// A secret for a drain of this namespace.
    pub fn find(&self, namespace: Option<&str>, secret: &SecretKeyRef) -> Option<&Secret> {
        self.flags
            .get(secret)
            .or_else(|| self.documents.get(&(namespace.map(String::from), secret.clone())))
            .filter(|secret| !secret.expose().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::{SecretFlag, Secrets};
    use crate::api::secret_ref::SecretKeyRef;

    fn key(name: &str, key: &str) -> SecretKeyRef {
        SecretKeyRef { name: name.into(), key: key.into() }
    }

    #[rstest]
    #[case("broker/url=env:URL", true)]
    #[case("broker/url=file:/run/secrets/url", true)]
    #[case("broker/url=redis://:hunter2@cache", false)]
    #[case("broker=env:URL", false)]
    #[case("broker/url=env:", false)]
    #[case("/url=env:URL", false)]
    fn a_flag_names_where_a_secret_is(#[case] text: &str, #[case] fine: bool) {
        assert_eq!(text.parse::<SecretFlag>().is_ok(), fine);
    }

    #[test]
    fn a_secret_in_the_manifest_is_found_in_its_namespace() {
        let mut secrets = Secrets::default();
        let document = json!({
            "kind": "Secret", "metadata": {"name": "broker", "namespace": "media"},
            "data": {"url": "cmVkaXM6Ly9jYWNoZQo="}, "stringData": {"other": "x"},
        });
        secrets.add_document(&document).unwrap();
        assert_eq!(secrets.find(Some("media"), &key("broker", "url")).unwrap().expose(), "redis://cache");
        assert!(secrets.find(None, &key("broker", "url")).is_none());
        assert!(!format!("{secrets:?}").contains("redis://"));
    }

    #[rstest]
    #[case(json!({"metadata": {"name": "broker"}, "data": {"url": "hunter2!"}}), "data.url is not base64")]
    #[case(json!({"metadata": {"name": "broker"}, "stringData": {"url": 2}}), "stringData.url must be a text")]
    #[case(json!({"metadata": {}}), "metadata.name is missing")]
    fn a_bad_secret_is_told_without_its_value(#[case] document: serde_json::Value, #[case] expected: &str) {
        assert_eq!(Secrets::default().add_document(&document), Err(expected.to_owned()));
    }
}
