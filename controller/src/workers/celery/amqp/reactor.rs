//! What lapin reads from and writes to: connections of any kind, which are set up by us.
//!
//! lapin's own TLS would bring a reader of PKCS#12 files, and fifty crates with it.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
    time::{Duration, Instant},
};

use async_rs::{Tokio, traits::Reactor};
use futures::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::compat::TokioAsyncReadCompatExt as _;

/// A connection, plain or by TLS.
pub(super) type Stream = Box<dyn ReadWrite>;

/// Something to read from and write to.
pub(super) trait ReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ReadWrite for T {}

/// A connection of tokio's.
pub(super) fn boxed(stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static) -> Stream {
    Box::new(stream.compat())
}

/// tokio, with connections of any kind.
#[derive(Clone, Debug)]
pub(super) struct Sockets(pub(super) Tokio);

impl Reactor for Sockets {
    type TcpStream = Stream;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.0.sleep(time)
    }

    fn interval(&self, time: Duration) -> impl futures::Stream<Item = Instant> + Send + 'static {
        self.0.interval(time)
    }

    #[expect(clippy::manual_async_fn, reason = "an async fn would borrow self, and the trait's future does not")]
    fn tcp_connect_addr(&self, address: SocketAddr) -> impl Future<Output = io::Result<Stream>> + Send + 'static {
        async move { TcpStream::connect(address).await.map(boxed) }
    }
}
