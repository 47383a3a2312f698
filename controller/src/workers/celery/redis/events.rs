//! Celery's events on Redis: published on channels, one for each routing key.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, future::ready};
use tokio::time::timeout;

use super::{address::Address, envelope, error::Problem, names::Names};
use crate::workers::celery::transport::Events;

/// Subscribes, on a separate connection.
pub(super) async fn events(address: &Arc<Address>, names: &Names, bound: Duration) -> Result<Events, Problem> {
    let subscribing = async {
        let client = address.place.client(bound).await?;
        let mut connection = client.get_async_pubsub().await.map_err(Problem::Connect)?;
        connection.psubscribe(names.event_channels()).await.map_err(Problem::Listen)?;
        Ok(connection)
    };
    let connection = timeout(bound, subscribing).await.map_err(|_| Problem::Silence(bound))??;
    let bodies = connection.into_on_message().filter_map(|message| ready(envelope::body(message.get_payload_bytes())));
    Ok(Box::pin(bodies))
}
