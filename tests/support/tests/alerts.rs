//! The chart's alerts, tried by Prometheus' own tool on made-up time series.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use test_support::{kube_tool, repository};

/// The labels by which the chart's rules know our series, where the release is called `worker-drain`, in `ops`.
const LABELS: &str = r#"job="worker-drain-metrics",namespace="ops""#;

/// What `tests/alerts.yaml` abbreviates.
fn written_out(tests: &str) -> String {
    let alert = |name: &str, severity: &str| format!("'A{{alertname=\"{name}\",severity=\"{severity}\"}}'");
    // Which alerts fire, for whichever drain. The metric's name is of no account, but must be one.
    let all = "'label_replace(count by (alertname, severity) (ALERTS{alertstate=\"firing\"}), \"__name__\", \"A\", \"\", \"\")'";
    tests
        .replace("DRAIN", "drain_namespace=\"media\",drain=\"transcoder\",LABELS")
        .replace("LABELS", LABELS)
        .replace("expr: ALL", &format!("expr: {all}"))
        .replace("labels: HOLDS", &format!("labels: {}", alert("WorkerDrainHoldsExpire", "critical")))
        .replace("labels: NOBODY", &format!("labels: {}", alert("WorkerDrainNoLeader", "warning")))
        .replace("labels: CUT", &format!("labels: {}", alert("WorkerDrainJobsCut", "warning")))
        .replace("labels: KILLED", &format!("labels: {}", alert("WorkerDrainTaskKilled", "critical")))
        .replace("labels: UNPERMITTED", &format!("labels: {}", alert("WorkerDrainEndedUnpermitted", "warning")))
}

#[test]
fn alerts_fire_when_they_should_and_only_then() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("rules.yaml"), rules()).unwrap();
    let tests = fs::read_to_string(repository().join("tests/support/tests/alerts.yaml")).unwrap();
    for alert in rules().lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let fires = format!("alertname=\"{alert}\"");
        assert!(written_out(&tests).contains(&fires), "no test has {alert} fire");
    }
    fs::write(folder.path().join("tests.yaml"), written_out(&tests)).unwrap();
    promtool(folder.path(), &["check", "rules", "rules.yaml"]);
    promtool(folder.path(), &["test", "rules", "tests.yaml"]);
}

/// The groups of rules, as helm makes them for the Prometheus Operator and as that hands them to Prometheus.
fn rules() -> String {
    let chart = repository().join("charts/worker-drain");
    let output = Command::new(kube_tool("helm"))
        .args(["template", "worker-drain", "--namespace", "ops", "--show-only", "templates/prometheusrule.yaml"])
        .args(["--set", "image.repository=worker-drain,metrics.prometheusRule.enabled=true"])
        .arg(chart)
        .env("HOME", "/nonexistent")
        .output()
        .expect("helm runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let manifest = String::from_utf8(output.stdout).expect("helm's YAML");
    manifest.split_once("\nspec:\n").expect("a spec").1.to_owned()
}

#[track_caller]
fn promtool(folder: &Path, arguments: &[&str]) {
    let output = Command::new(program()).args(arguments).current_dir(folder).output().expect("promtool runs");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "promtool {arguments:?}:\n{}", String::from_utf8_lossy(&said));
}

/// Where `tests/setup/promtool.sh` puts it, or else on the PATH.
fn program() -> PathBuf {
    let fetched = repository().join(".cache/promtool/promtool");
    if fetched.is_file() {
        return fetched;
    }
    let is_there = Command::new("promtool").arg("--version").output().is_ok();
    assert!(is_there, "there is no promtool for the tests: run tests/setup/promtool.sh, which fetches it, once");
    PathBuf::from("promtool")
}
