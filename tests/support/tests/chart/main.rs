//! The Helm chart, judged by helm itself and by a real API server.

mod api_server;

use std::{collections::BTreeSet, fs, process::Command};

use test_support::{kube_tool, repository};

/// The labels whose values the chart's README lists.
const LABELS: [&str; 7] = ["system", "kind", "result", "action", "outcome", "phase", "reason"];

fn chart() -> String {
    repository().join("charts/worker-drain").display().to_string()
}

/// The value that every release needs.
const IMAGE: &str = "image.repository=worker-drain";

/// helm without a cluster: whether it was content, and all that it said.
fn helm(arguments: &[&str]) -> (bool, String) {
    let output =
        Command::new(kube_tool("helm")).args(arguments).env("HOME", "/nonexistent").output().expect("helm runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn read(path: &str) -> String {
    let file = repository().join(path);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{} cannot be read: {error}", file.display()))
}

#[test]
fn the_chart_has_the_crd_that_is_in_crds() {
    let (ours, theirs) = ("charts/worker-drain/files/workerdrains.yaml", "crds/workerdrains.yaml");
    assert!(read(ours) == read(theirs), "they differ: cp {theirs} {ours}");
}

#[test]
fn helm_has_nothing_to_complain_of() {
    let (content, said) = helm(&["lint", "--strict", &chart(), "--set", IMAGE]);
    assert!(content && !said.contains("WARNING"), "{said}");
}

#[test]
fn every_value_is_documented_and_known_to_the_schema() {
    let schema: serde_json::Value = serde_json::from_str(&read("charts/worker-drain/values.schema.json")).unwrap();
    let readme = read("charts/worker-drain/README.md");
    let values = leaves(&read("charts/worker-drain/values.yaml"));
    assert!(values.len() > 40, "{values:?}");
    for value in &values {
        assert!(readme.contains(&format!("| `{value}` |")), "the chart's README says nothing of {value}");
        let pointer = format!("/properties/{}", value.replace('.', "/properties/"));
        assert!(schema.pointer(&pointer).is_some(), "values.schema.json does not know {value}");
    }
    for line in readme.lines().filter_map(|line| line.strip_prefix("| `")) {
        let name = line.split('`').next().unwrap_or_default();
        let known = values.contains(name) || name.starts_with("worker_drain_") || name.starts_with("--");
        let known = known || LABELS.contains(&name);
        assert!(known || name.starts_with("WorkerDrain"), "the chart's README has {name}, and the chart has not");
    }
}

#[test]
fn every_metric_flag_and_alert_is_documented() {
    let readme = read("charts/worker-drain/README.md");
    let rules = read("charts/worker-drain/templates/prometheusrule.yaml");
    let deployment = read("charts/worker-drain/templates/deployment.yaml");
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
    let words = |text: &'static str| {
        move |from: &str| -> BTreeSet<String> {
            let words = from.split(|letter| !is_word(letter));
            words.filter(|word| word.starts_with(text)).map(String::from).collect()
        }
    };
    let metrics = words("worker_drain_")(&rules);
    let flags = words("--")(&deployment);
    let alerts = words("WorkerDrain")(&rules);
    assert_eq!((metrics.len(), flags.len(), alerts.len()), (11, 7, 10), "{metrics:?} {flags:?} {alerts:?}");
    for name in metrics.iter().chain(&flags).chain(&alerts) {
        assert!(readme.contains(&format!("\n| `{name}")), "the chart's README says nothing of {name}");
    }
    // A value that is never told would keep an alert from ever firing.
    let mut compared = 0;
    for label in LABELS {
        let row = readme.lines().find(|line| line.starts_with(&format!("| `{label}` |"))).unwrap_or_default();
        for comparison in ["=", "!="].map(|sign| format!("{label}{sign}\"")) {
            for value in rules.split(&comparison).skip(1).filter_map(|text| text.split('"').next()) {
                assert!(row.contains(&format!("`{value}`")), "the chart's README has no {label} {value}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 2);
}

/// The paths of all values in a values.yaml: its keys that have no keys below them. It is indented by two.
fn leaves(values: &str) -> BTreeSet<String> {
    let mut path: Vec<&str> = Vec::new();
    let mut all = BTreeSet::new();
    for line in values.lines() {
        let text = line.trim_start();
        let Some((key, _)) = text.split_once(':').filter(|_| !text.starts_with('#')) else { continue };
        path.truncate((line.len() - text.len()) / 2);
        all.remove(&path.join("."));
        path.push(key);
        all.insert(path.join("."));
    }
    // Those that are filled as a whole.
    all.retain(|value| !value.starts_with("resources."));
    all.insert("resources".into());
    all
}

#[test]
fn bad_values_are_refused_by_name() {
    // What is set, and what the message must say.
    let table = [
        ("replica=3", "'replica' not allowed"),
        ("replicas=two", "'/replicas': got string, want integer"),
        ("replicas=-1", "'/replicas'"),
        ("image.tga=1", "'/image': additional properties 'tga' not allowed"),
        ("image.repository=", "image.repository is needed: build the image, push it"),
        ("image.repository=Worker Drain", "'/image/repository'"),
        ("image.registry=https://registry", "'/image/registry'"),
        ("global.imageRegistry=https://registry", "'/global/imageRegistry'"),
        ("global.imagePullSecrets=registry", "'/global/imagePullSecrets': got string, want array"),
        ("imagePullSecrets[0].nome=registry", "'/imagePullSecrets/0'"),
        ("image.pullSecrets[0].name=registry", "'/image': additional properties 'pullSecrets' not allowed"),
        ("revisionHistoryLimit=-1", "'/revisionHistoryLimit'"),
        ("rbac.enabled=false", "'/rbac': additional properties 'enabled' not allowed"),
        ("envFrom=config", "'/envFrom': got string, want array"),
        ("extraVolumes[0].emptyDir.medium=Memory", "'/extraVolumes/0': missing property 'name'"),
        ("extraVolumeMounts[0].mountPath=/x", "'/extraVolumeMounts/0': missing property 'name'"),
        ("metrics.serviceMonitor.relabelings=x", "'/metrics/serviceMonitor/relabelings': got string, want array"),
        ("image.digest=latest", "'/image/digest'"),
        ("image.pullPolicy=Sometimes", "'/image/pullPolicy': value must be one of 'Always', 'IfNotPresent', 'Never'"),
        ("watch.namespaces=media", "'/watch/namespaces': got string, want array"),
        ("watch.namespaces[0]=Media_1", "'/watch/namespaces/0'"),
        ("secrets.names[0]=", "'/secrets/names/0'"),
        ("serviceAccount.annotations.eks\\.amazonaws\\.com/role-arn=worker-drain", "role-arn'"),
        ("log.format=yaml", "'/log/format': value must be one of 'json', 'text'"),
        ("log.level=verbose", "'/log/level'"),
        ("aws.region=Seoul", "'/aws/region'"),
        ("env[0].name=A=B", "'/env/0/name'"),
        ("extraArgs[0]=controller", "'/extraArgs/0'"),
        ("podSecurityContext.runAsUser=0", "'/podSecurityContext/runAsUser'"),
        ("podSecurityContext.runAsNonRoot=false", "'runAsNonRoot' not allowed"),
        ("metrics.port=80", "'/metrics/port'"),
        ("metrics.prometheusRule.blockedFor=half an hour", "'/metrics/prometheusRule/blockedFor'"),
        ("metrics.serviceMonitor.interval=30", "'/metrics/serviceMonitor/interval'"),
        ("networkPolicy.egress.brokerPorts[0]=70000", "'/networkPolicy/egress/brokerPorts/0'"),
        ("topologySpread.whenUnsatisfiable=Never", "'/topologySpread/whenUnsatisfiable'"),
        ("crds.keep=maybe", "'/crds/keep': got string, want boolean"),
        ("leaderElection.enabled=false", "replicas is 2, so leaderElection.enabled must be true"),
        ("serviceAccount.create=false", "serviceAccount.name is needed"),
        ("metrics.service.enabled=false,metrics.serviceMonitor.enabled=true", "needs metrics.service.enabled"),
        ("metrics.service.enabled=false,metrics.prometheusRule.enabled=true", "needs metrics.prometheusRule.selector"),
    ];
    for (set, message) in table {
        let (content, said) = helm(&["template", "worker-drain", &chart(), "--set", IMAGE, "--set", set]);
        assert!(!content, "helm accepts {set}");
        assert!(said.contains(message), "of {set} helm says:\n{said}");
    }
}

/// The lines of all objects, as helm makes them with these values.
fn rendered(set: &str) -> Vec<String> {
    let (content, said) = helm(&["template", "worker-drain", &chart(), "--set", IMAGE, "--set", set]);
    assert!(content, "of {set} helm says:\n{said}");
    said.lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn the_image_comes_from_the_registry_that_is_set() {
    let version = read("charts/worker-drain/Chart.yaml");
    let version = version.lines().find_map(|line| line.strip_prefix("appVersion: ")).unwrap();
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let table = [
        ("replicas=2", format!("worker-drain:{version}")),
        ("image.registry=registry.example.com", format!("registry.example.com/worker-drain:{version}")),
        ("image.registry=own,global.imageRegistry=all:5000/,image.tag=v1", "all:5000/worker-drain:v1".to_owned()),
        (&format!("global.imageRegistry=all,image.digest={digest},image.tag=v1"), format!("all/worker-drain@{digest}")),
        ("global.other=x,image.tag=v1", "worker-drain:v1".to_owned()),
    ];
    for (set, image) in table {
        assert!(rendered(set).contains(&format!("image: \"{image}\"")), "{set}: the image is not {image}");
    }
}

#[test]
fn pull_secrets_are_the_global_ones_and_the_charts() {
    let secrets = |set: &str| -> Vec<String> {
        let lines = rendered(set);
        let names = lines.iter().skip_while(|line| *line != "imagePullSecrets:").skip(1);
        names.map_while(|line| line.strip_prefix("- name: ").map(str::to_owned)).collect()
    };
    assert!(secrets("replicas=2").is_empty());
    assert_eq!(secrets("imagePullSecrets[0].name=a,imagePullSecrets[1]=b"), ["a", "b"]);
    assert_eq!(secrets("global.imagePullSecrets={g,a},imagePullSecrets[0].name=a"), ["g", "a"]);
    assert_eq!(secrets("global.imagePullSecrets[0].name=g,global.imagePullSecrets[1]=h"), ["g", "h"]);
}
