//! An Amazon SQS of one's own: moto's server (<https://docs.getmoto.org>).

use std::process::Command;

use serde_json::{Value, json};

use crate::{
    app::python_with_sqs,
    process::Process,
    wait::{LONG, free_port, wait_until},
};

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

    /// Celery's settings for it. Calls that fetch messages last up to 5 seconds.
    pub fn settings() -> Value {
        json!({
            "broker_transport_options": {"region": "us-east-1", "is_secure": false, "wait_time_seconds": 5},
            "worker_enable_remote_control": false,
        })
    }
}
