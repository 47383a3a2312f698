//! Opening a connection in bounded time, and ending it however far it came.
//!
//! lapin drives each connection by a separate thread, which waits for as long as the peer says nothing. A handle to the
//! socket is kept beside it: shutting that down ends the thread, in every state.

use std::{
    io,
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_rs::{Runtime, Tokio, util::RuntimeParts};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties, Error, uri::AMQPUri};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net, time::timeout};
use tokio_rustls::TlsConnector;

use super::{
    address::Address,
    error::Problem,
    reactor::{Sockets, Stream, boxed},
};

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
    let tokio = Tokio::current();
    let runtime = Runtime::new(RuntimeParts::new(tokio.clone(), Sockets(tokio)));
    let (state, tls) = (socket.0.clone(), address.tls.clone());
    let connect = async move |uri: AMQPUri, _| {
        // The caller may be gone, and then nothing else ends this.
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        let connected = timeout(bound, connect(&uri, &state, tls.clone())).await.map_err(late).flatten();
        connected.map(AsyncTcpStream::Plain).map_err(Error::from)
    };
    let properties = ConnectionProperties::default().with_connection_name("worker-drain".into());
    let connecting = Connection::connector(address.uri.clone(), runtime, connect, properties);
    let connection =
        timeout(bound, connecting).await.map_err(|_| Problem::Silence(bound))?.map_err(Problem::Connect)?;
    Ok((connection, socket))
}

/// A connection to where the URI says, by TLS if there is a configuration of it.
async fn connect(uri: &AMQPUri, state: &Mutex<State>, tls: Option<Arc<ClientConfig>>) -> io::Result<Stream> {
    let host = &uri.authority.host;
    let stream = net::TcpStream::connect((host.as_str(), uri.authority.port)).await?;
    stream.set_nodelay(true)?;
    let handle = TcpStream::from(stream.as_fd().try_clone_to_owned()?);
    if matches!(set(state, State::Open(handle)), State::Unwanted) {
        return Err(io::Error::from(io::ErrorKind::ConnectionAborted));
    }
    let Some(tls) = tls else { return Ok(boxed(stream)) };
    let name = ServerName::try_from(host.clone())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("no certificate can be for {host:?}")))?;
    Ok(boxed(TlsConnector::from(tls).connect(name, stream).await?))
}
