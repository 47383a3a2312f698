//! The manifest: the very file that `kubectl apply` takes, read without Kubernetes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
};

use clap::Args;
use serde_json::Value;

use super::{
    exit::{UserError, plain},
    secrets::Secrets,
};
use crate::{
    api::{DrainSpec, problem::nearest, secret_ref::SecretKeyRef},
    secret::SecretTexts,
};

/// Which manifest, and where its secrets are.
#[derive(Clone, Debug, Args)]
pub struct ManifestArgs {
    /// A file with one or more `WorkerDrain` documents, as `kubectl apply` takes it; `-` is standard input
    #[arg(short = 'f', long = "file", value_name = "FILE", required = true)]
    files: Vec<String>,

    /// Where a `secretKeyRef` is read from: NAME/KEY=env:VARIABLE or NAME/KEY=file:PATH
    // Not parsed by clap, whose message would repeat it: somebody may have written the secret itself here.
    #[arg(long = "secret", value_name = "NAME/KEY=SOURCE")]
    secrets: Vec<String>,
}

/// One drain, with all that is needed to run it.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// What the document says.
    pub drain: DrainSpec,
    /// All that it names of Secrets.
    pub secrets: SecretTexts,
}

impl ManifestArgs {
    /// Reads all of it. Errors: everything that is wrong with it.
    pub fn read(&self) -> Result<Vec<Manifest>, Vec<UserError>> {
        let mut secrets = Secrets::from_flags(&self.secrets)?;
        let mut drains = Vec::new();
        let mut errors = Vec::new();
        for file in &self.files {
            match documents(file) {
                Ok(documents) => read_documents(file, &documents, &mut secrets, &mut drains, &mut errors),
                Err(error) => errors.push(error),
            }
        }
        twice(&drains, &mut errors);
        let mut manifests = Vec::new();
        for (file, drain) in drains {
            match resolve(&file, drain, &secrets) {
                Ok(manifest) => manifests.push(manifest),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(manifests) } else { Err(errors) }
    }
}

/// How a file is called in messages.
fn called(file: &str) -> &str {
    if file == "-" { "standard input" } else { file }
}

fn documents(file: &str) -> Result<Vec<Value>, UserError> {
    let read = if file == "-" {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(file)
    };
    let file = called(file);
    let text = read.map_err(|error| UserError::new(format!("cannot read {file}: {}", plain(&error))))?;
    // No snippet: it could show a line with a secret.
    let options = serde_saphyr::options! { with_snippet: false };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(&text, options)
        .map_err(|error| UserError::new(format!("{file} cannot be read as YAML: {}", in_user_terms(&error))))?;
    let documents: Vec<Value> = documents.into_iter().filter(|document| !document.is_null()).collect();
    if documents.is_empty() {
        return Err(UserError::new(format!("{file} is empty: write a WorkerDrain")));
    }
    Ok(documents)
}

/// What is wrong, and where, without talk of the library's own options.
fn in_user_terms(error: &serde_saphyr::Error) -> String {
    let text = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
    text.lines().next().unwrap_or_default().to_owned()
}

fn read_documents(
    file: &str,
    documents: &[Value],
    secrets: &mut Secrets,
    drains: &mut Vec<(String, DrainSpec)>,
    errors: &mut Vec<UserError>,
) {
    let file = called(file);
    let before = (drains.len(), errors.len());
    for (number, document) in (1..).zip(documents) {
        let place = if documents.len() > 1 { format!("{file}, document {number}") } else { file.to_owned() };
        match document.get("kind").and_then(Value::as_str) {
            Some("WorkerDrain") => match DrainSpec::parse(document) {
                Ok(drain) => drains.push((file.to_owned(), drain)),
                Err(problems) => {
                    let name = document["metadata"]["name"].as_str().map_or(String::new(), |name| format!(" {name}"));
                    let found = problems.iter().map(|problem| format!("{place}: WorkerDrain{name}: {problem}"));
                    errors.extend(found.map(UserError::new));
                }
            },
            Some("Secret") => {
                if let Err(why) = secrets.add_document(document) {
                    errors.push(UserError::new(format!("{place}: Secret: {why}")));
                }
            }
            Some(kind) => errors.push(other_kind(&place, kind)),
            None if !document.is_object() => {
                errors.push(UserError::new(format!("{place} is not a group of fields: write a WorkerDrain")));
            }
            None => errors.push(UserError::new(format!("{place}: kind is missing: write kind: WorkerDrain"))),
        }
    }
    if (drains.len(), errors.len()) == before {
        errors.push(UserError::new(format!("{file} holds no WorkerDrain")));
    }
}

fn other_kind(place: &str, kind: &str) -> UserError {
    let kind: String = kind.chars().take(60).collect();
    let near = nearest(&kind, ["WorkerDrain", "Secret"].into_iter());
    let near = near.map_or(String::new(), |near| format!(" (did you mean {near}?)"));
    UserError::new(format!("{place}: kind {kind} is not read here: only WorkerDrain and Secret are{near}"))
}

/// The same drain twice, or two drains that would undo each other's work.
fn twice(drains: &[(String, DrainSpec)], errors: &mut Vec<UserError>) {
    let mut names = BTreeSet::new();
    let mut services = BTreeMap::new();
    for (_, drain) in drains {
        let name = drain.full_name();
        if !names.insert(name.clone()) {
            errors.push(UserError::new(format!("two WorkerDrains are called {name}: give each its own name")));
        } else if let Some(other) = services.insert(&drain.ecs, name.clone()) {
            let service = format!("{}/{}", drain.ecs.cluster, drain.ecs.service);
            errors.push(UserError::new(format!(
                "the WorkerDrains {other} and {name} are both for the ECS service {service}: one service, one drain"
            )));
        }
    }
}

fn resolve(file: &str, drain: DrainSpec, secrets: &Secrets) -> Result<Manifest, UserError> {
    let named = drain.workers.secrets();
    let found = named.into_iter().map(|(field, key)| {
        let text = secrets.find(drain.namespace.as_deref(), key).cloned();
        Ok((key.clone(), text.ok_or_else(|| nowhere(file, &drain, &field, key))?))
    });
    let secrets = found.collect::<Result<SecretTexts, UserError>>()?;
    Ok(Manifest { drain, secrets })
}

fn nowhere(file: &str, drain: &DrainSpec, field: &str, SecretKeyRef { name, key }: &SecretKeyRef) -> UserError {
    let namespace = drain.namespace.as_ref().map_or(String::new(), |name| format!(" of namespace {name}"));
    UserError::with_hint(
        format!(
            "{file}: WorkerDrain {}: {field}: the key {key} of the Secret {name} is not known without Kubernetes",
            drain.name
        ),
        format!(
            "add --secret {name}/{key}=env:VARIABLE or --secret {name}/{key}=file:PATH, or a Secret {name}{namespace} to \
             the file"
        ),
    )
}
