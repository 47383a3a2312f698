//! What a worker that answers over HTTP says, read without any of our own client.

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{broker::TOKEN, stage::Stage, tasks::TaskView};

impl Stage {
    /// What the task's worker says of itself; `None`: it does not answer, or these workers do not at all.
    pub async fn state(&self, task: &TaskView) -> Option<Value> {
        let address = format!("{}:{}", task.address, self.http_port()?);
        let mut stream = TcpStream::connect(&address).await.ok()?;
        let request = format!(
            "GET /worker-drain HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()
    }
}
