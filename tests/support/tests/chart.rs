//! The Helm chart, judged by helm itself and by a real API server.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use test_support::{ControlPlane, LONG, PodCommand, kube_tool, repository, wait_until};

/// The release's namespace, which admits only Pods that Kubernetes calls restricted.
const NAMESPACES: &str = r"
{apiVersion: v1, kind: Namespace, metadata: {name: ops, labels: {pod-security.kubernetes.io/enforce: restricted}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: media}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: video}}
---
{apiVersion: v1, kind: Secret, metadata: {name: broker, namespace: media}, stringData: {url: 'redis://broker'}}
---
{apiVersion: v1, kind: Secret, metadata: {name: other, namespace: media}, stringData: {key: private}}
";

const DRAIN: &str = r"
apiVersion: workerdrain.io/v1alpha1
kind: WorkerDrain
metadata: {name: transcoder, namespace: media}
spec:
  fleet: {ecs: {cluster: media, service: transcoder}}
  workers: {celery: {broker: {urlFrom: {secretKeyRef: {name: broker, key: url}}}}}
";

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

/// One control plane for all of these: it takes longer to start than any of them takes.
#[tokio::test]
async fn the_chart_on_a_real_api_server() {
    let plane = ControlPlane::start().await;
    plane.kubectl(["apply", "-f", "-"]).stdin(NAMESPACES).ok().await;
    plane.kubectl(["apply", "-f", "-"]).stdin(read("tests/kube/monitoring-crds.yaml")).ok().await;
    let monitoring = "crd/servicemonitors.monitoring.coreos.com";
    plane.kubectl(["wait", "--for=condition=Established", monitoring, "--timeout=60s"]).ok().await;

    every_set_of_values_makes_valid_objects(&plane).await;
    every_name_makes_valid_objects(&plane).await;
    a_release_runs_and_may_do_only_its_work(&plane).await;
    users_get_their_permissions(&plane).await;
    an_upgrade_reaches_the_crd_and_an_uninstall_keeps_it(&plane).await;
    a_namespaced_release_has_no_cluster_role(&plane).await;
    without_keep_the_crd_goes(&plane).await;
}

async fn every_set_of_values_makes_valid_objects(plane: &ControlPlane) {
    let everything = "metrics.serviceMonitor.enabled=true,metrics.serviceMonitor.scrapeTimeout=10s,\
        metrics.serviceMonitor.labels.release=prometheus,metrics.serviceMonitor.relabelings[0].targetLabel=cluster,\
        metrics.serviceMonitor.relabelings[0].replacement=one,metrics.serviceMonitor.metricRelabelings[0].action=drop,\
        metrics.serviceMonitor.metricRelabelings[0].sourceLabels={__name__},\
        metrics.serviceMonitor.metricRelabelings[0].regex=worker_drain_build_info,metrics.prometheusRule.enabled=true,\
        metrics.prometheusRule.alertLabels.team=media,metrics.service.annotations.a=b,networkPolicy.enabled=true,\
        networkPolicy.egress.enabled=true,networkPolicy.egress.nodeMetadata=true,networkPolicy.from[0].namespaceSelector.matchLabels.name=monitoring,\
        podAnnotations.a=b,podLabels.c=d,commonLabels.e=f,aws.region=ap-northeast-2,env[0].name=RUST_BACKTRACE,\
        env[0].value=yes,extraArgs[0]=--a=b c,image.digest=sha256:\
        0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef,imagePullSecrets[0].name=registry,\
        global.imageRegistry=registry.example.com,global.imagePullSecrets[0]=other,revisionHistoryLimit=3,\
        envFrom[0].secretRef.name=proxy,extraVolumes[0].name=token,extraVolumes[0].projected.sources[0].serviceAccountToken.path=aws,\
        extraVolumeMounts[0].name=token,extraVolumeMounts[0].mountPath=/var/run/aws,extraVolumeMounts[0].readOnly=true,\
        priorityClassName=system-cluster-critical,nodeSelector.kubernetes\\.io/arch=amd64,\
        tolerations[0].operator=Exists,topologySpread.whenUnsatisfiable=DoNotSchedule,\
        affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight=1,\
        affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey=zone,\
        serviceAccount.annotations.eks\\.amazonaws\\.com/role-arn=arn:aws:iam::111122223333:role/worker-drain";
    let least = "crds.enabled=false,rbac.create=false,serviceAccount.create=false,serviceAccount.name=default,replicas=1,\
        leaderElection.enabled=false,topologySpread.enabled=false,podDisruptionBudget.enabled=false,\
        metrics.service.enabled=false,resources=null,secrets.enabled=false";
    let openshift =
        "podSecurityContext.runAsUser=null,podSecurityContext.runAsGroup=null,podSecurityContext.fsGroup=null";
    let namespaced = "watch.namespaces={media,video},secrets.names={broker,other},networkPolicy.enabled=true";
    let long = "fullnameOverride=a-name-that-is-as-long-as-a-label-may-be-which-is-63-letters,crds.keep=false";
    for values in ["replicas=2", everything, least, openshift, namespaced, long] {
        let template = ["template", "worker-drain", &chart(), "--namespace", "ops", "--set", IMAGE, "--set", values];
        let rendered = plane.helm(template).ok().await;
        let dry_run = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"];
        plane.kubectl(dry_run).stdin(rendered).ok().await;
    }
}

/// In YAML some names are not strings unless they are quoted: `y` and `on` are true, `123` and `1e3` are numbers.
async fn every_name_makes_valid_objects(plane: &ControlPlane) {
    let enabled = serde_json::json!({"enabled": true});
    let metrics = serde_json::json!({"serviceMonitor": enabled, "prometheusRule": enabled});
    for name in ["y", "on", "123", "1e3"] {
        plane.kubectl(["create", "namespace", name]).ok().await;
        for namespaces in [&[][..], &[name]] {
            let values = serde_json::json!({
                "metrics": metrics, "networkPolicy": enabled, "watch": {"namespaces": namespaces},
                "nameOverride": name, "fullnameOverride": name, "serviceAccount": {"name": name},
                "priorityClassName": "system-node-critical", "podLabels": {"team": name}, "commonLabels": {"unit": name},
            });
            let template = ["template", name, &chart(), "--namespace", name, "--set", IMAGE, "--values", "-"];
            let rendered = plane.helm(template).stdin(values.to_string()).ok().await;
            let dry_run = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"];
            plane.kubectl(dry_run).stdin(rendered).ok().await;
        }
    }
}

async fn a_release_runs_and_may_do_only_its_work(plane: &ControlPlane) {
    // A CRD as an older version of the chart may have had it.
    let older = older_chart();
    let notes = plane.helm(["install", "worker-drain", &older.1, "--namespace", "ops", "--set", IMAGE]).ok().await;
    assert!(notes.contains("all namespaces") && notes.contains("EKS Pod Identity"), "{notes}");

    let pods = plane.pod_commands("ops", "app.kubernetes.io/instance=worker-drain", 2).await;
    let expected = [
        "controller",
        "--leader-election=true",
        "--lease-namespace=ops",
        "--lease-name=worker-drain",
        "--metrics-address=:8080",
        "--log-format=json",
        "--log-level=info",
    ];
    let PodCommand { pod, service_account, args, env, probes, .. } = &pods[0];
    assert_eq!((args.as_slice(), service_account.as_str()), (expected.map(String::from).as_slice(), "worker-drain"));
    assert_eq!(env["POD_NAME"], *pod);
    assert_eq!(probes["livenessProbe"], ("/livez".to_owned(), 8080));
    assert_eq!(probes["readinessProbe"], ("/readyz".to_owned(), 8080));

    let yes = [
        "list workerdrains.workerdrain.io --all-namespaces",
        "watch workerdrains.workerdrain.io --all-namespaces",
        "patch workerdrains.workerdrain.io/transcoder --namespace media",
        "patch workerdrains.workerdrain.io/transcoder --subresource status --namespace media",
        "create events.events.k8s.io --namespace media",
        "patch events.events.k8s.io --namespace media",
        "get secrets/broker --namespace media",
        "create leases.coordination.k8s.io --namespace ops",
        "get leases.coordination.k8s.io/worker-drain --namespace ops",
        "update leases.coordination.k8s.io/worker-drain --namespace ops",
    ];
    let no = [
        "list secrets --namespace media",
        "watch secrets --namespace media",
        "list secrets --all-namespaces",
        "create secrets --namespace ops",
        "update secrets/broker --namespace media",
        "create workerdrains.workerdrain.io --namespace media",
        "update workerdrains.workerdrain.io --namespace media",
        "delete workerdrains.workerdrain.io/transcoder --namespace media",
        "delete events.events.k8s.io --namespace media",
        "create leases.coordination.k8s.io --namespace media",
        "update leases.coordination.k8s.io/other --namespace ops",
        "delete leases.coordination.k8s.io/worker-drain --namespace ops",
        "list leases.coordination.k8s.io --namespace ops",
        "list leases.coordination.k8s.io/worker-drain --namespace ops",
        "watch leases.coordination.k8s.io/worker-drain --namespace ops",
        "patch leases.coordination.k8s.io/worker-drain --namespace ops",
        "get pods --namespace ops",
        "delete pods --namespace ops",
        "create pods --subresource exec --namespace ops",
        "get configmaps --namespace ops",
        "update deployments.apps --namespace ops",
        "create serviceaccounts --subresource token --namespace ops",
        "escalate clusterroles.rbac.authorization.k8s.io",
        "update customresourcedefinitions.apiextensions.k8s.io",
        "impersonate users",
        "* *",
    ];
    may(plane, &yes, &no).await;

    let theirs = plane.service_account_kubeconfig("ops", "worker-drain").await;
    plane.kubectl(["get", "secret", "broker", "--namespace", "media"]).kubeconfig(&theirs).ok().await;
    let why = plane.kubectl(["get", "secrets", "--namespace", "media"]).kubeconfig(&theirs).refused().await;
    assert!(why.contains("cannot list resource \"secrets\""), "{why}");
}

/// Asks the API server with the token of the release's service account.
async fn may(plane: &ControlPlane, yes: &[&str], no: &[&str]) {
    let theirs = plane.service_account_kubeconfig("ops", "worker-drain").await;
    for (questions, answer) in [(yes, "yes"), (no, "no")] {
        for question in questions {
            let words = ["auth", "can-i"].into_iter().chain(question.split(' '));
            let said = plane.kubectl(words).kubeconfig(&theirs).output().await;
            assert_eq!(said.stdout.trim(), answer, "can the operator {question}? {}", said.stderr);
        }
    }
}

/// Users who can view or edit in a namespace can do so with our resources too.
async fn users_get_their_permissions(plane: &ControlPlane) {
    for role in ["view", "edit"] {
        let (role_option, user) = (format!("--clusterrole={role}"), format!("--user={role}er"));
        plane.kubectl(["create", "rolebinding", role, "--namespace=media", &role_option, &user]).ok().await;
    }
    let can = async |verb: &str, user: &str| {
        let question = ["auth", "can-i", verb, "workerdrains.workerdrain.io", "--namespace=media", "--as", user];
        plane.kubectl(question).output().await.stdout.trim() == "yes"
    };
    // A controller adds them up, in its own time.
    wait_until("viewers may view", LONG, async || can("list", "viewer").await).await;
    wait_until("editors may edit", LONG, async || can("create", "editer").await).await;
    assert!(!can("create", "viewer").await);
}

/// A field belongs to the tool that set it last; docs/install.md says what to do then.
async fn what_another_tool_set_is_overwritten_by_force_only(plane: &ControlPlane) {
    let scale = ["scale", "deployment/worker-drain", "--namespace=ops", "--replicas=1"];
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    let crd = read("crds/workerdrains.yaml").replacen("name: Service\n", "name: By-Hand\n", 1);
    let upgrade = ["upgrade", "worker-drain", &chart(), "--namespace", "ops", "--reset-then-reuse-values"];
    for (change, field) in [(scale.as_slice(), ".spec.replicas"), (apply.as_slice(), ".spec.versions")] {
        plane.kubectl(change).stdin(crd.clone()).ok().await;
        let why = plane.helm(upgrade).refused().await;
        assert!(why.contains("conflict with \"kubectl\"") && why.contains(field), "{why}");
        plane.helm(upgrade.into_iter().chain(["--force-conflicts"])).ok().await;
    }
    let replicas = ["get", "deployment/worker-drain", "--namespace=ops", "--output=jsonpath={.spec.replicas}"];
    assert_eq!(plane.kubectl(replicas).ok().await, "2");
}

async fn an_upgrade_reaches_the_crd_and_an_uninstall_keeps_it(plane: &ControlPlane) {
    let column = |name: &'static str| {
        let path = "jsonpath={.spec.versions[0].additionalPrinterColumns[0].name}";
        async move {
            let found = plane.kubectl(["get", "crd/workerdrains.workerdrain.io", "--output", path]).ok().await;
            assert_eq!(found, name);
        }
    };
    column("An-Older-Column").await;
    plane.kubectl(["apply", "-f", "-"]).stdin(DRAIN).ok().await;
    let upgrade = ["upgrade", "worker-drain", &chart(), "--namespace", "ops", "--reset-then-reuse-values"];
    plane.helm(upgrade.into_iter().chain(["--set", "log.format=text"])).ok().await;
    column("Service").await;
    let selector = "app.kubernetes.io/instance=worker-drain";
    wait_until("a Pod of the new revision is there", LONG, async || {
        plane.pod_command("ops", selector).await.args.contains(&"--log-format=text".to_owned())
    })
    .await;

    what_another_tool_set_is_overwritten_by_force_only(plane).await;

    plane.helm(["uninstall", "worker-drain", "--namespace", "ops"]).ok().await;
    plane.kubectl(["get", "workerdrains/transcoder", "--namespace", "media"]).ok().await;
    let left = ["get", "deploy,svc,sa,role,rolebinding,pdb,clusterrole,clusterrolebinding", "-A", "-l", selector];
    assert_eq!(plane.kubectl(left.into_iter().chain(["--output=name"])).ok().await, "");

    // Installed again under the same name, it takes over what it left; another name must be told to.
    let other = ["install", "other", &chart(), "--namespace", "ops", "--set", IMAGE];
    let why = plane.helm(other).refused().await;
    assert!(why.contains("workerdrains.workerdrain.io") && why.contains("meta.helm.sh/release-name"), "{why}");
    plane.helm(other.into_iter().chain(["--take-ownership"])).ok().await;
    plane.helm(["uninstall", "other", "--namespace", "ops"]).ok().await;
    plane.kubectl(["get", "workerdrains/transcoder", "--namespace", "media"]).ok().await;
}

async fn a_namespaced_release_has_no_cluster_role(plane: &ControlPlane) {
    let values = ["--set", IMAGE, "--set", "watch.namespaces={media},secrets.names={broker}", "--take-ownership"];
    let install = ["install", "worker-drain", &chart(), "--namespace", "ops"].map(String::from);
    let notes = plane.helm(install.into_iter().chain(values.map(String::from))).ok().await;
    assert!(notes.contains("the namespaces media."), "{notes}");
    let selector = "app.kubernetes.io/instance=worker-drain";
    let cluster = ["get", "clusterrole,clusterrolebinding", "--selector", selector, "--output=name"];
    assert_eq!(plane.kubectl(cluster).ok().await, "");
    let pod = plane.pod_command("ops", selector).await;
    assert!(pod.args.contains(&"--namespace=media".to_owned()), "{:?}", pod.args);

    let yes = [
        "list workerdrains.workerdrain.io --namespace media",
        "get secrets/broker --namespace media",
        "create events.events.k8s.io --namespace media",
        "update leases.coordination.k8s.io/worker-drain --namespace ops",
    ];
    let no = [
        "watch secrets/broker --namespace media",
        "get secrets/other --namespace media",
        "get secrets/broker --namespace video",
        "get secrets/broker --namespace ops",
        "list secrets --namespace media",
        "list workerdrains.workerdrain.io --namespace video",
        "list workerdrains.workerdrain.io --all-namespaces",
        "create events.events.k8s.io --namespace video",
    ];
    may(plane, &yes, &no).await;

    let theirs = plane.service_account_kubeconfig("ops", "worker-drain").await;
    let secret = ["get", "secret", "broker", "--namespace=media", "--output=name"];
    assert_eq!(plane.kubectl(secret).kubeconfig(&theirs).ok().await.trim(), "secret/broker");
    let secrets = ["get", "secrets", "--namespace=media", "--field-selector=metadata.name=broker"];
    plane.kubectl(secrets).kubeconfig(&theirs).refused().await;
}

async fn without_keep_the_crd_goes(plane: &ControlPlane) {
    let upgrade =
        ["upgrade", "worker-drain", &chart(), "--namespace", "ops", "--set", IMAGE, "--set", "crds.keep=false"];
    let notes = plane.helm(upgrade).ok().await;
    assert!(notes.contains("crds.keep is false"), "{notes}");
    plane.helm(["uninstall", "worker-drain", "--namespace", "ops"]).ok().await;
    wait_until("the CRD is gone", LONG, async || {
        let crd = ["get", "crd/workerdrains.workerdrain.io", "--ignore-not-found", "--output=name"];
        plane.kubectl(crd).ok().await.is_empty()
    })
    .await;
}

/// The chart with another CRD, and the folder that it is in.
fn older_chart() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copied = Command::new("cp").args(["-R", &chart()]).arg(folder.path()).status().expect("cp runs");
    assert!(copied.success());
    let path: PathBuf = folder.path().join("worker-drain/files/workerdrains.yaml");
    let crd = fs::read_to_string(&path).expect("the chart has a CRD");
    let older = crd.replacen("name: Service\n", "name: An-Older-Column\n", 1);
    assert_ne!(crd, older);
    fs::write(&path, older).expect("our folder can be written");
    let chart = folder.path().join("worker-drain").display().to_string();
    (folder, chart)
}
