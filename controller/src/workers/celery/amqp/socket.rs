//! Opening a connection in bounded time, and ending it however far it came.
//!
//! lapin drives each connection by a thread of its own, which waits for as long as the peer says nothing. A handle to the
//! socket is kept beside it: shutting that down ends the thread, in every state.

use std::{
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lapin::{AsyncTcpStream, Connection, ConnectionProperties, Error, runtime::default_runtime, tcp::RustlsConnector};
use tokio::{net::lookup_host, time::timeout};

use super::{address::Address, error::Problem};

/// A handle to a connection's socket. When it is dropped, the connection is over.
pub(super) struct Socket(Arc<Mutex<State>>);

enum State {
    /// Not connected yet.
    Opening,
    Open(TcpStream),
    /// It is not wanted any longer.
    Unwanted,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let State::Open(stream) = set(&self.0, State::Unwanted) {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn set(state: &Mutex<State>, new: State) -> State {
    std::mem::replace(&mut *state.lock().unwrap_or_else(PoisonError::into_inner), new)
}

/// Connects and logs in.
pub(super) async fn open(address: &Address, bound: Duration) -> Result<(Connection, Socket), Problem> {
    let socket = Socket(Arc::new(Mutex::new(State::Opening)));
    let runtime = default_runtime().map_err(Problem::Connect)?;
    let (state, tls, reactor) = (socket.0.clone(), address.tls.clone(), runtime.clone());
    let connect = async move |uri: lapin::uri::AMQPUri, _| {
        let connecting = async {
            let host = &uri.authority.host;
            let addresses: Vec<_> = lookup_host((host.as_str(), uri.authority.port)).await?.collect();
            let stream = AsyncTcpStream::connect(&reactor, addresses).await?;
            if let AsyncTcpStream::Plain(plain) = &stream {
                plain.get_ref().set_nodelay(true)?;
                let handle = TcpStream::from(plain.get_ref().as_fd().try_clone_to_owned()?);
                if matches!(set(&state, State::Open(handle)), State::Unwanted) {
                    return Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted));
                }
            }
            match &tls {
                Some(tls) => stream.into_rustls(&RustlsConnector::from(tls.clone()), host).await,
                None => Ok(stream),
            }
        };
        // The one who waits for us may be gone, and then nobody else ends this.
        let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
        timeout(bound, connecting).await.map_err(late).flatten().map_err(Error::from)
    };
    let properties = ConnectionProperties::default().with_connection_name("worker-drain".into());
    let connecting = Connection::connector(address.uri.clone(), runtime, connect, properties);
    let connection =
        timeout(bound, connecting).await.map_err(|_| Problem::Silence(bound))?.map_err(Problem::Connect)?;
    Ok((connection, socket))
}
