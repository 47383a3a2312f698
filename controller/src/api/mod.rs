//! The resource `WorkerDrain`: the only place where a field is described. Documentation, defaults and rules written here
//! become the CRD that the API server enforces, and the same CRD judges the manifests that `worker-drain run` reads.

pub mod celery_spec;
#[cfg(feature = "cli")]
pub mod check;
pub mod http_spec;
pub mod policy;
pub mod problem;
pub mod render;
pub mod spec;
pub mod status;
pub mod values;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

pub use self::{
    policy::DrainSpec,
    spec::{WorkerDrain, WorkerDrainSpec},
    status::WorkerDrainStatus,
};

/// The group of the resource.
pub const GROUP: &str = "workerdrain.io";

/// The version of the resource.
pub const VERSION: &str = "v1alpha1";

/// The CRD as it is installed. Use this one, not `WorkerDrain::crd()`, which it is made from.
pub fn crd() -> CustomResourceDefinition {
    let mut crd = serde_json::to_value(WorkerDrain::crd()).expect("a CRD is JSON");
    tidy(&mut crd);
    // Nobody writes a status but us; defaults are for what users may leave out.
    without_defaults(&mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]);
    serde_json::from_value(crd).expect("tidying leaves it a CRD")
}

/// The schema that objects are judged by.
pub(crate) fn schema() -> Value {
    let crd = serde_json::to_value(crd()).expect("a CRD is JSON");
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Takes out what the derive adds and an API server has no use for: `nullable` (a null is the same as nothing here) and
/// the formats of Rust's unsigned numbers (API servers warn of formats that they do not know).
fn tidy(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if object.remove("nullable").is_some()
                && let Some(Value::Array(allowed)) = object.get_mut("enum")
            {
                allowed.retain(|value| !value.is_null());
            }
            if object.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
                object.remove("format");
            }
            object.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

fn without_defaults(value: &mut Value) {
    if let Value::Object(object) = value {
        object.remove("default");
        object.values_mut().for_each(without_defaults);
    }
}

#[cfg(test)]
mod tests {
    use super::crd;
    use crate::cli::crd::yaml;

    #[test]
    fn the_crd_that_is_checked_in_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds/workerdrains.yaml");
        let checked_in = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            checked_in == yaml().unwrap(),
            "crds/workerdrains.yaml is not current: cargo run -- crd > crds/workerdrains.yaml"
        );
    }

    #[test]
    fn every_field_is_described() {
        let mut missing = Vec::new();
        undescribed(&super::schema()["properties"]["spec"], "spec", &mut missing);
        undescribed(&super::schema()["properties"]["status"], "status", &mut missing);
        // These come from Kubernetes' own `Condition`, which describes them.
        assert!(missing.is_empty(), "without description: {missing:?}");
    }

    fn undescribed(schema: &serde_json::Value, path: &str, missing: &mut Vec<String>) {
        if schema.get("description").and_then(|text| text.as_str()).is_none_or(str::is_empty) {
            missing.push(path.to_owned());
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            undescribed(property, &format!("{path}.{name}"), missing);
        }
        for (name, property) in schema["items"]["properties"].as_object().into_iter().flatten() {
            undescribed(property, &format!("{path}[].{name}"), missing);
        }
    }

    #[test]
    fn the_example_has_every_field() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/transcoder.yaml");
        let example = std::fs::read_to_string(path).unwrap();
        let mut names = Vec::new();
        fields(&super::schema()["properties"]["spec"], &mut names);
        assert!(names.len() > 40, "{names:?}");
        // In comments too: those are fields that exclude others, or show their defaults.
        let is_there = |name: &String| {
            example.match_indices(&format!("{name}:")).any(|(at, _)| example[..at].ends_with([' ', '{']))
        };
        let missing: Vec<&String> = names.iter().filter(|name| !is_there(name)).collect();
        assert!(missing.is_empty(), "examples/transcoder.yaml lacks {missing:?}");
    }

    fn fields(schema: &serde_json::Value, names: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            names.push(name.clone());
            fields(property, names);
        }
    }

    #[test]
    fn columns_show_what_exists() {
        let crd = serde_json::to_value(crd()).unwrap();
        for column in crd["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap() {
            let path = column["jsonPath"].as_str().unwrap();
            if path.starts_with(".metadata") {
                continue;
            }
            let mut schema = &super::schema();
            for part in path.trim_start_matches('.').split('.') {
                schema = schema["properties"].get(part).unwrap_or_else(|| panic!("{path} leads nowhere"));
            }
        }
    }
}
