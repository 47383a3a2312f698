//! What a real API server makes of the chart: whether it takes every object, and what a release may do.

use std::{fs, path::PathBuf, process::Command};

use test_support::{ControlPlane, LONG, PodCommand, wait_until};

use super::{IMAGE, chart, read};

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
