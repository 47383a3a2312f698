//! An API server that is reached through a proxy.

use std::{fs, process::Stdio};

use rstest::rstest;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    process::Command,
    time::timeout,
};

use crate::stage::PATIENCE;

/// The operator, with a kubeconfig that has this in its cluster; and with this environment.
fn operator(folder: &std::path::Path, cluster: &str, environment: &[(&str, &str)]) -> Command {
    let kubeconfig = folder.join("kubeconfig");
    let text = format!(
        "apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: 'https://kubernetes.invalid:6443'{cluster}}}}}]
users: [{{name: u, user: {{token: t}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
"
    );
    fs::write(&kubeconfig, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_worker-drain"));
    command
        .args(["controller", "--leader-election=false", "--metrics-address=127.0.0.1:0"])
        .env_clear()
        .env("KUBECONFIG", kubeconfig)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
}

#[rstest]
#[case::as_the_kubeconfig_says(true)]
#[case::as_the_environment_says(false)]
#[tokio::test]
async fn the_operator_reaches_its_api_server_through_a_proxy(#[case] in_kubeconfig: bool) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let cluster = if in_kubeconfig { format!(", proxy-url: '{proxy}'") } else { String::new() };
    let environment = if in_kubeconfig { vec![] } else { vec![("HTTPS_PROXY", proxy.as_str())] };
    let folder = tempfile::tempdir().unwrap();
    let _operator = operator(folder.path(), &cluster, &environment).spawn().unwrap();
    let (stream, _) = timeout(PATIENCE, listener.accept()).await.expect("the proxy is asked").unwrap();
    let mut asked = String::new();
    BufReader::new(stream).read_line(&mut asked).await.unwrap();
    assert!(asked.starts_with("CONNECT kubernetes.invalid:6443 "), "{asked}");
}
