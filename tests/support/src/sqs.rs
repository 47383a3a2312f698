//! An Amazon SQS of one's own: moto's server (<https://docs.getmoto.org>).

use std::process::Command;

use serde_json::{Value, json};

use crate::{
    app::python_with_sqs,
    process::Process,
    wait::{LONG, free_port, wait_until},
};

/// Makes a user without rights, and has moto check rights from then on.
const WITHOUT_RIGHTS: &str = r#"
import sys, urllib.request
import boto3
endpoint = sys.argv[1]
iam = boto3.client("iam", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
iam.create_user(UserName="nobody")
key = iam.create_access_key(UserName="nobody")["AccessKey"]
check = urllib.request.Request(endpoint + "/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"})
urllib.request.urlopen(check)
print(key["AccessKeyId"], key["SecretAccessKey"])
"#;

/// A running moto server. All queues are in its memory, and go with it.
#[derive(Debug)]
pub struct Sqs {
    port: u16,
    _process: Process,
}

impl Sqs {
    /// Starts one, and waits until it answers.
    pub async fn start() -> Self {
        // Somebody may take the port between our look and its bind.
        for _ in 0..5 {
            let port = free_port();
            let mut command = Command::new(python_with_sqs());
            command.args(["-m", "moto.server", "--host", "127.0.0.1", "--port", &port.to_string()]);
            let mut process = Process::start("moto", &command);
            let mut up = false;
            wait_until("moto answers", LONG, async || {
                up = process.is_running() && process.log().contains("Running on");
                up || !process.is_running()
            })
            .await;
            if up {
                return Self { port, _process: process };
            }
        }
        panic!("moto ended at once, five times");
    }

    /// The URL as Celery has it, with credentials that anything will do for.
    pub fn url(&self) -> String {
        format!("sqs://emulated:emulated@127.0.0.1:{}", self.port)
    }

    /// The endpoint, for whoever speaks to it without Celery.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on only known users are served, and only with rights. Tells the key and the secret of one who has none.
    pub fn without_rights(&self) -> (String, String) {
        let mut command = Command::new(python_with_sqs());
        command.args(["-c", WITHOUT_RIGHTS, &self.endpoint()]);
        let output = command.output().expect("Python runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let key = said.trim().split_once(' ').map(|(key, secret)| (key.to_owned(), secret.to_owned()));
        key.unwrap_or_else(|| panic!("no user was made: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// Celery's settings for it. Calls that fetch messages last up to 5 seconds.
    pub fn settings() -> Value {
        json!({
            "broker_transport_options": {"region": "us-east-1", "is_secure": false, "wait_time_seconds": 5},
            "worker_enable_remote_control": false,
        })
    }
}
