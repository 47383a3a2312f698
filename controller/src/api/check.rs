//! Judges a manifest as the API server would, without one: by the schema and the CEL rules of the CRD itself. All problems
//! are reported at once, and no value of a field that may hold a secret is ever shown.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::cel::{ErrorKind, Validator, apply_defaults};
use serde_json::{Map, Value};

use super::{
    crd::{GROUP, VERSION, schema},
    problem::{Problem, nearest},
    spec::WorkerDrain,
};

/// Reads one document that says it is a `WorkerDrain`. Errors: all of its problems.
pub fn parse(document: &Value) -> Result<WorkerDrain, Vec<Problem>> {
    let schema = schema();
    let mut document = document.clone();
    prune_nulls(&mut document);
    let document = apply_defaults(&schema, &document);
    let mut problems = Vec::new();
    version(&document, &mut problems);
    metadata(&document, &mut problems);
    if let Some(spec) = document.get("spec") {
        walk(&schema["properties"]["spec"], spec, "spec", &mut problems);
    } else {
        problems.push(Problem::new("spec", "is missing"));
    }
    for (key, _) in document.as_object().into_iter().flatten() {
        if !["apiVersion", "kind", "metadata", "spec", "status"].contains(&key.as_str()) {
            problems.push(unknown("", key, ["spec", "metadata"].into_iter()));
        }
    }
    rules(&schema, &document, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut document = document;
    // The status is the operator's to write, and not read here.
    document.as_object_mut().map(|object| object.remove("status"));
    // The schema is made from the type, so this fails only if the two differ.
    serde_json::from_value(document).map_err(|error| vec![Problem::new("spec", error.to_string())])
}

/// As the API server does: a null is the same as nothing.
fn prune_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, value| !value.is_null());
            object.values_mut().for_each(prune_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(prune_nulls),
        _ => {}
    }
}

fn version(document: &Value, problems: &mut Vec<Problem>) {
    let expected = format!("{GROUP}/{VERSION}");
    match document.get("apiVersion").and_then(Value::as_str) {
        Some(version) if version == expected => {}
        Some(version) => problems.push(Problem::new("apiVersion", format!("'{version}' must be {expected}"))),
        None => problems.push(Problem::new("apiVersion", format!("is missing: write {expected}"))),
    }
}

fn metadata(document: &Value, problems: &mut Vec<Problem>) {
    let Some(metadata) = document.get("metadata") else {
        problems.push(Problem::new("metadata.name", "is missing: give the drain a name"));
        return;
    };
    let mut unknown_fields = Vec::new();
    let read = serde_ignored::deserialize(metadata, |path| unknown_fields.push(path.to_string()));
    match read {
        Ok(ObjectMeta { name: Some(name), namespace, .. }) => {
            for (field, value) in [("name", Some(name)), ("namespace", namespace)] {
                if let Some(value) = value.filter(|value| !is_name(value)) {
                    let message = format!(
                        "'{value}' is not a name: write lower-case letters, digits, '-' and '.', beginning and ending \
                         with a letter or digit, 253 at most"
                    );
                    problems.push(Problem::new(format!("metadata.{field}"), message));
                }
            }
        }
        Ok(_) => problems.push(Problem::new("metadata.name", "is missing: give the drain a name")),
        Err(error) => problems.push(Problem::new("metadata", error.to_string())),
    }
    let known = ["name", "namespace", "labels", "annotations"];
    problems.extend(unknown_fields.iter().map(|key| unknown("metadata", key, known.into_iter())));
}

/// RFC 1123's names of hosts, as Kubernetes has them for objects.
fn is_name(name: &str) -> bool {
    let is_part = |part: &str| {
        let ends = |sign: Option<char>| sign.is_some_and(|sign| sign != '-');
        part.chars().all(|sign| sign.is_ascii_lowercase() || sign.is_ascii_digit() || sign == '-')
            && ends(part.chars().next())
            && ends(part.chars().last())
    };
    name.len() <= 253 && name.split('.').all(is_part)
}

/// Types, unknown fields, missing fields, lengths and enums.
fn walk(schema: &Value, value: &Value, path: &str, problems: &mut Vec<Problem>) {
    let int_or_string = schema["x-kubernetes-int-or-string"] == true;
    let expected = if int_or_string { "int-or-string" } else { schema["type"].as_str().unwrap_or("object") };
    if schema["enum"].is_array() {
        one_of(schema, value, path, problems);
        return;
    }
    if !is_of_type(expected, value) {
        problems.push(Problem::new(path, format!("{} must be {}", shown(path, value), article(expected))));
        return;
    }
    match value {
        Value::Object(object) => walk_object(schema, object, path, problems),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(&schema["items"], item, &format!("{path}[{index}]"), problems);
            }
            limits(schema, "Items", items.len(), "items", path, problems);
        }
        Value::String(text) => limits(schema, "Length", text.chars().count(), "characters", path, problems),
        Value::Number(number) => bounds(schema, number, path, problems),
        Value::Bool(_) | Value::Null => {}
    }
}

fn walk_object(schema: &Value, object: &Map<String, Value>, path: &str, problems: &mut Vec<Problem>) {
    let Some(properties) = schema["properties"].as_object() else { return };
    for (key, value) in object {
        match properties.get(key) {
            Some(property) => walk(property, value, &format!("{path}.{key}"), problems),
            None => problems.push(unknown(path, key, properties.keys().map(String::as_str))),
        }
    }
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !object.contains_key(required) {
            problems.push(Problem::new(format!("{path}.{required}"), "is missing"));
        }
    }
}

fn is_of_type(expected: &str, value: &Value) -> bool {
    match expected {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "int-or-string" => value.is_i64() || value.is_u64() || value.is_string(),
        "number" => value.is_number(),
        _ => true,
    }
}

fn article(expected: &str) -> &str {
    match expected {
        "object" => "a group of fields",
        "array" => "a list",
        "string" => "a string (in quotes, if it looks like a number)",
        "boolean" => "true or false",
        "integer" => "an integer",
        "int-or-string" => "an integer or a string",
        other => other,
    }
}

/// A value for a person, short and never a secret. What is under a broker, or where one is to be named, may be one,
/// whatever it looks like.
fn shown(path: &str, value: &Value) -> String {
    match value {
        Value::Object(_) => String::from("a group of fields"),
        Value::Array(_) => String::from("a list"),
        _ if [".broker", "sentinelKwargs", "From"].iter().any(|secret| path.contains(secret)) => {
            String::from("the value")
        }
        Value::String(text) => format!("'{}'", text.chars().take(60).collect::<String>()),
        other => other.to_string(),
    }
}

/// Every enum of ours is of strings.
fn one_of(schema: &Value, value: &Value, path: &str, problems: &mut Vec<Problem>) {
    let allowed = schema["enum"].as_array().into_iter().flatten();
    let allowed: Vec<&str> = allowed.filter_map(Value::as_str).collect();
    if value.as_str().is_some_and(|text| allowed.contains(&text)) {
        return;
    }
    let near = value.as_str().and_then(|text| nearest(text, allowed.iter().copied()));
    let hint = near.map_or(String::new(), |near| format!(" (did you mean {near}?)"));
    problems.push(Problem::new(path, format!("{} must be one of {}{hint}", shown(path, value), allowed.join(", "))));
}

fn limits(schema: &Value, what: &str, count: usize, unit: &str, path: &str, problems: &mut Vec<Problem>) {
    let limit = |side: &str| schema[format!("{side}{what}")].as_u64().and_then(|limit| usize::try_from(limit).ok());
    if limit("min").is_some_and(|least| count < least) {
        let least = limit("min").unwrap_or(1);
        let short = || format!("is too short: {count} {unit}, but at least {least} are needed");
        problems.push(Problem::new(path, if count == 0 { "is empty".into() } else { short() }));
    }
    if let Some(most) = limit("max").filter(|most| count > *most) {
        problems.push(Problem::new(path, format!("is too long: {count} {unit}, but at most {most} are allowed")));
    }
}

fn bounds(schema: &Value, number: &serde_json::Number, path: &str, problems: &mut Vec<Problem>) {
    let number = number.as_f64().unwrap_or_default();
    let (least, most) = (schema["minimum"].as_f64(), schema["maximum"].as_f64());
    if least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most) {
        let least = least.map_or(String::new(), |least| format!(" from {least}"));
        let most = most.map_or(String::new(), |most| format!(" to {most}"));
        problems.push(Problem::new(path, format!("{number} must be a number{least}{most}")));
    }
}

fn unknown<'a>(path: &str, key: &str, known: impl Iterator<Item = &'a str> + Clone) -> Problem {
    let message = match nearest(key, known.clone()) {
        Some(near) => format!("unknown field (did you mean {near}?)"),
        None => format!("unknown field (known here: {})", known.collect::<Vec<_>>().join(", ")),
    };
    let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    Problem::new(path, message)
}

/// The rules in CEL. Where a field is unknown, the rule that it upsets beside it would only repeat that.
fn rules(schema: &Value, document: &Value, problems: &mut Vec<Problem>) {
    let Err(errors) = Validator::new().validate(schema, document, None) else { return };
    let structural = !problems.is_empty();
    for error in errors.into_vec() {
        let path = field(&error.field_path);
        let is_echo = problems.iter().any(|problem| {
            let is_within =
                problem.path.strip_prefix(&path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            is_within && problem.path.rsplit_once('.').is_none_or(|(parent, _)| parent == path || problem.path == path)
        });
        // A rule cannot be evaluated on a wrong type, which has been reported already.
        let is_failure = error.kind == ErrorKind::ValidationFailure;
        if !is_echo && (is_failure || !structural) {
            problems.push(Problem::new(path, error.message));
        }
    }
}

fn field(path: &str) -> String {
    path.trim_start_matches('.').replace("..", ".")
}
