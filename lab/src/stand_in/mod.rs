//! Stand-ins for kubectl and the API server, so that load, which is plain TCP, passes through guarded mode: a [`User`]
//! makes a request of each connection, an [`Api`] makes a connection of each request. Both use TLS, as the real
//! programs do.

mod api;
mod certificates;
mod user;

use std::{io, net::TcpListener};

pub use api::Api;
use bytes::{Bytes, BytesMut};
pub use certificates::{Authority, Signed};
use futures_util::stream;
use hyper::body::Frame;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, tcp::OwnedReadHalf},
};
pub use user::{How, User};

use crate::{LabError, socket::tune_load};

/// Bytes of one read.
const BUFFER: usize = 64 * 1024;
/// Bytes that are encrypted and written at once.
const TLS_WRITE_MAX: usize = 2 * BUFFER;

/// Reads of a connection, as parts of a body.
fn blocks(read: OwnedReadHalf) -> impl futures_util::Stream<Item = io::Result<Frame<Bytes>>> {
    stream::try_unfold((read, BytesMut::new()), |(mut read, mut buffer)| async move {
        buffer.reserve(BUFFER);
        let count = read.read_buf(&mut buffer).await?;
        let block = buffer.split().freeze();
        Ok((count > 0).then(|| (Frame::data(block), (read, buffer))))
    })
}

/// An end of a thread that serves until the process ends.
fn serve<F, Fut>(listener: TcpListener, handle: F) -> Result<(), LabError>
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = io::Result<()>> + Send + 'static,
{
    listener.set_nonblocking(true).map_err(LabError::io("use a socket without blocking"))?;
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().map_err(LabError::io("start a runtime"))?;
    let run = move || {
        runtime.block_on(async {
            let listener = match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => listener,
                Err(error) => return eprintln!("cannot listen: {error}"),
            };
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                    continue;
                };
                let handled = handle(stream);
                tokio::spawn(async move {
                    if let Err(error) = handled.await {
                        eprintln!("a connection ended: {error}");
                    }
                });
            }
        });
    };
    std::thread::Builder::new().name("lab-stand-in".into()).spawn(run).map(drop).map_err(LabError::io("start a thread"))
}

/// Copies until both sides have ended.
async fn join(
    mut a: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    mut b: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
) -> io::Result<()> {
    tokio::io::copy_bidirectional_with_sizes(&mut a, &mut b, BUFFER, BUFFER).await.map(drop)
}

/// The service that this connection asks the target for.
async fn service(stream: &mut TcpStream) -> io::Result<u8> {
    tune_load(&*stream)?;
    stream.read_u8().await
}

/// A connection to the target that asks for this service.
async fn target(address: std::net::SocketAddr, service: u8) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    tune_load(&stream)?;
    stream.write_u8(service).await?;
    Ok(stream)
}
