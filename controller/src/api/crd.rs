//! The CRD: the schema and the rules that objects are judged by, made from the types of the spec and the status.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::spec::WorkerDrain;

/// The group of the resource.
pub const GROUP: &str = "workerdrain.io";

/// The version of the resource.
pub const VERSION: &str = "v1alpha1";

/// The CRD as it is installed. Use this one, not `WorkerDrain::crd()`, which it is made from.
pub fn crd() -> CustomResourceDefinition {
    let mut crd = serde_json::to_value(WorkerDrain::crd()).expect("a CRD is JSON");
    tidy(&mut crd);
    // Only worker-drain writes a status; defaults are for fields that users may leave out.
    let status = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
    without_defaults(status);
    // Until somebody observes a new resource, tools that know kstatus (Helm, Argo CD, Flux) take it for done, unless it says that an
    // older generation was observed. Flux's own resources have the same default.
    status["default"] = json!({"observedGeneration": -1, "phase": "Unknown"});
    serde_json::from_value(crd).expect("tidying leaves it a CRD")
}

/// The schema that objects are judged by.
#[cfg(feature = "cli")]
pub(crate) fn schema() -> Value {
    let crd = serde_json::to_value(crd()).expect("a CRD is JSON");
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Takes out what the derive adds and an API server has no use for: `nullable` (a null is the same as nothing here).
/// Rust's unsigned integers get the format of the signed ones, because Kubernetes knows no other ("API Conventions",
/// Primitive types); each has a minimum of 0.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if object.remove("nullable").is_some()
                && let Some(Value::Array(allowed)) = object.get_mut("enum")
            {
                allowed.retain(|value| !value.is_null());
            }
            match object.get("format").and_then(Value::as_str) {
                Some("uint8" | "uint16" | "uint32") => drop(object.insert("format".into(), "int32".into())),
                Some("uint64") => drop(object.insert("format".into(), "int64".into())),
                _ => {}
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
    use serde_json::Value;

    use super::{crd, schema};

    #[test]
    fn every_field_is_described() {
        let mut missing = Vec::new();
        undescribed(&schema()["properties"]["spec"], "spec", &mut missing);
        undescribed(&schema()["properties"]["status"], "status", &mut missing);
        // These come from Kubernetes' own `Condition`, which describes them.
        assert!(missing.is_empty(), "without description: {missing:?}");
    }

    fn undescribed(schema: &Value, path: &str, missing: &mut Vec<String>) {
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
        fields(&schema()["properties"]["spec"], &mut names);
        assert!(names.len() > 40, "{names:?}");
        // In comments too: those are fields that exclude others, or show their defaults.
        let is_there = |name: &String| {
            example.match_indices(&format!("{name}:")).any(|(at, _)| example[..at].ends_with([' ', '{']))
        };
        let missing: Vec<&String> = names.iter().filter(|name| !is_there(name)).collect();
        assert!(missing.is_empty(), "examples/transcoder.yaml lacks {missing:?}");
    }

    fn fields(schema: &Value, names: &mut Vec<String>) {
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
            assert!(column["description"].is_string(), "{path} is not described");
            if path.starts_with(".metadata") {
                continue;
            }
            // A filter picks an item of a list.
            let (list, field) = path.split_once("[?(").map_or((path, ""), |(list, rest)| {
                (list, rest.split_once(")].").unwrap_or_else(|| panic!("{path} picks no field")).1)
            });
            let whole = schema();
            let mut schema = &whole;
            for part in list.trim_start_matches('.').split('.') {
                schema = schema["properties"].get(part).unwrap_or_else(|| panic!("{path} leads nowhere"));
            }
            assert!(field.is_empty() || schema["items"]["properties"].get(field).is_some(), "{path} leads nowhere");
        }
    }

    #[test]
    fn plain_kubectl_get_shows_whether_it_is_ready_and_what_blocks_it() {
        let crd = serde_json::to_value(crd()).unwrap();
        let columns = crd["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap();
        let shown = |name: &str| {
            columns.iter().any(|column| column["name"] == name && column["priority"].as_i64().unwrap_or_default() == 0)
        };
        assert!(shown("Ready") && shown("Blocked-By"), "{columns:?}");
    }

    #[test]
    fn no_command_for_all_resources_reaches_it() {
        let crd = serde_json::to_value(crd()).unwrap();
        assert!(crd["spec"]["names"]["categories"].is_null(), "`kubectl delete all --all` would release holds");
        assert_eq!(crd["spec"]["names"]["shortNames"][0], "wdrain");
    }

    #[test]
    fn every_list_says_how_it_is_merged_and_every_integer_how_wide_it_is() {
        let (mut lists, mut integers, mut wrong) = (0, 0, Vec::new());
        each(&schema(), "", &mut |path, schema| match schema["type"].as_str() {
            Some("array") => {
                lists += 1;
                if schema["x-kubernetes-list-type"].is_null() {
                    wrong.push(path.to_owned());
                }
            }
            Some("integer") => {
                integers += 1;
                if !["int32", "int64"].iter().any(|format| schema["format"] == *format) {
                    wrong.push(path.to_owned());
                }
            }
            _ => {}
        });
        assert!(wrong.is_empty(), "{wrong:?}");
        assert_eq!((lists, integers > 20), (10, true), "{integers} integers");
    }

    /// Calls back with every schema below this one, and its path.
    fn each(schema: &Value, path: &str, back: &mut impl FnMut(&str, &Value)) {
        back(path, schema);
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            each(property, &format!("{path}.{name}"), back);
        }
        if schema["items"].is_object() {
            each(&schema["items"], &format!("{path}[]"), back);
        }
    }
}
