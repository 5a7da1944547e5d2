//! Records what a relay sees: a TCP proxy before it that keeps every byte, and a reader of WebSocket frames.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::net::serve;

type Bytes = Arc<Mutex<Vec<u8>>>;
type Connections = Arc<Mutex<Vec<(Bytes, Bytes)>>>;

/// Stands between the ends and a relay without TLS.
pub(crate) struct Recorder {
    pub(crate) url: String,
    connections: Connections,
}

/// All bytes that passed, by kind.
#[derive(Default)]
pub(crate) struct Recording {
    /// HTTP requests and answers.
    pub(crate) http: Vec<u8>,
    /// Text frames.
    pub(crate) texts: Vec<String>,
    /// Binary frames from the ends, one after the other.
    pub(crate) from_ends: Vec<u8>,
    /// Binary frames to the ends.
    pub(crate) to_ends: Vec<u8>,
}

impl Recorder {
    pub(crate) fn start(relay: SocketAddr) -> Self {
        let connections = Connections::default();
        let shared = Arc::clone(&connections);
        let address = serve(move |connection| record(connection, relay, Arc::clone(&shared)));
        Self { url: format!("http://{address}"), connections }
    }

    /// The bytes that have passed so far.
    pub(crate) fn recording(&self) -> Recording {
        let mut recording = Recording::default();
        for (up, down) in self.connections.lock().unwrap().iter() {
            recording.add(&up.lock().unwrap(), true);
            recording.add(&down.lock().unwrap(), false);
        }
        recording
    }
}

async fn record(client: TcpStream, relay: SocketAddr, connections: Connections) -> io::Result<()> {
    let relay = TcpStream::connect(relay).await?;
    let (up, down) = (Bytes::default(), Bytes::default());
    connections.lock().unwrap().push((Arc::clone(&up), Arc::clone(&down)));
    let (client_read, client_write) = client.into_split();
    let (relay_read, relay_write) = relay.into_split();
    tokio::try_join!(pump(client_read, relay_write, up), pump(relay_read, client_write, down)).map(drop)
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, kept: Bytes) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer).await? {
            0 => return to.shutdown().await,
            n => {
                kept.lock().unwrap().extend_from_slice(&buffer[..n]);
                to.write_all(&buffer[..n]).await?;
            }
        }
    }
}

impl Recording {
    fn add(&mut self, bytes: &[u8], from_end: bool) {
        let head_end = bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
        let (head, rest) = bytes.split_at(head_end);
        self.http.extend_from_slice(head);
        let head = String::from_utf8_lossy(head).to_ascii_lowercase();
        if !head.contains("upgrade: websocket") {
            self.http.extend_from_slice(rest);
            return;
        }
        let mut rest = rest;
        while let Some((opcode, payload, after)) = frame(rest) {
            match opcode {
                1 => self.texts.push(String::from_utf8_lossy(&payload).into_owned()),
                2 if from_end => self.from_ends.extend_from_slice(&payload),
                2 => self.to_ends.extend_from_slice(&payload),
                _ => {}
            }
            rest = after;
        }
    }
}

/// One whole frame (RFC 6455 section 5.2), unmasked, and what follows it.
fn frame(bytes: &[u8]) -> Option<(u8, Vec<u8>, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    let (len, rest) = match head[1] & 0x7f {
        126 => rest.split_first_chunk::<2>().map(|(len, rest)| (usize::from(u16::from_be_bytes(*len)), rest))?,
        127 => {
            let (len, rest) = rest.split_first_chunk::<8>()?;
            (usize::try_from(u64::from_be_bytes(*len)).ok()?, rest)
        }
        len => (usize::from(len), rest),
    };
    let (mask, rest) = match head[1] & 0x80 {
        0 => ([0; 4], rest),
        _ => rest.split_first_chunk::<4>().map(|(mask, rest)| (*mask, rest))?,
    };
    if rest.len() < len {
        return None;
    }
    let (payload, after) = rest.split_at(len);
    let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    Some((head[0] & 0x0f, payload, after))
}
