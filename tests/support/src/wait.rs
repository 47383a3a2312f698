//! Waiting for conditions, and ports.

use std::{net::TcpListener, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

/// A bound that only a stuck thing passes, however slow and busy the machine is.
pub const LONG: Duration = Duration::from_mins(1);

/// A TCP port on 127.0.0.1 that nobody used a moment ago. Somebody else may take it before you do: try again then.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("127.0.0.1 has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// Waits until the condition holds, looking every 20 ms. Panics with `what` when it does not within `bound`.
pub async fn wait_until(what: &str, bound: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + bound;
    loop {
        match timeout_at(deadline, condition()).await {
            Ok(true) => return,
            Ok(false) if Instant::now() < deadline => sleep(Duration::from_millis(20)).await,
            Ok(false) | Err(_) => panic!("waited {bound:?} in vain until {what}"),
        }
    }
}
