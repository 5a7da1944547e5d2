//! A TCP forwarder and HTTP CONNECT proxy that does to connections what proxies in the field do: cuts them when they
//! are idle or old, stops reading, slows down, refuses.

mod connection;
mod options;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::{runtime::Runtime, sync::watch};

use self::options::{Counters, Orders};
pub use self::options::{Cut, ForwardOptions, ForwardTarget};
use crate::{LabError, namespace::enter_path};

/// What a forwarder has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct ForwardCounts {
    /// Connections accepted.
    pub accepted: u64,
    /// Of these, still open.
    pub open: u64,
    /// Cut, for whatever reason.
    pub cut: u64,
    /// Bytes towards the target, and back.
    pub bytes: u64,
}

/// A running forwarder, on threads of its own. It ends when this is dropped.
#[derive(Debug)]
pub struct Forwarder {
    address: SocketAddr,
    orders: watch::Sender<Orders>,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    /// Takes connections from this socket, which may have been made in a namespace ([`crate::Namespace::listen`]).
    pub fn start(listener: TcpListener, options: ForwardOptions) -> Result<Self, LabError> {
        let address = listener.local_addr().map_err(LabError::io("read the address of a socket"))?;
        listener.set_nonblocking(true).map_err(LabError::io("use a socket without blocking"))?;
        let runtime = runtime(&options)?;
        let (orders, ordered) = watch::channel(Orders::default());
        let counters = Arc::new(Counters::default());
        let its = Arc::clone(&counters);
        let run = move || match options.connect_in.as_deref().map_or(Ok(()), enter_path) {
            Ok(()) => runtime.block_on(accept(listener, Arc::new(options), ordered, its)),
            Err(error) => eprintln!("the forwarder at {address} cannot start: {error}"),
        };
        let thread = std::thread::Builder::new().name("lab-forwarder".into()).spawn(run);
        Ok(Self { address, orders, counters, thread: Some(thread.map_err(LabError::io("start a thread"))?) })
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Pauses: stops reading from all connections, new ones too; or goes on. It holds at most a buffer for each.
    pub fn pause(&self, on: bool) {
        self.orders.send_modify(|orders| orders.paused = on);
    }

    /// Refuses: closes new connections at once; or no longer.
    pub fn refuse(&self, on: bool) {
        self.orders.send_modify(|orders| orders.refusing = on);
    }

    /// Cuts all connections.
    pub fn kill_all(&self) {
        self.orders.send_modify(|orders| orders.generation += 1);
    }

    /// What it has done so far.
    #[must_use]
    pub fn counts(&self) -> ForwardCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        let ended = read(&self.counters.ended);
        let accepted = read(&self.counters.accepted);
        ForwardCounts {
            accepted,
            open: accepted.saturating_sub(ended),
            cut: read(&self.counters.cut),
            bytes: read(&self.counters.bytes),
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.orders.send_modify(|orders| orders.stop = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn runtime(options: &ForwardOptions) -> Result<Runtime, LabError> {
    let mut builder = if options.threads > 1 {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    builder.worker_threads(options.threads.max(1)).enable_all();
    if let Some(path) = options.connect_in.clone() {
        builder.on_thread_start(move || enter_or_say(&path));
    }
    builder.build().map_err(LabError::io("start a runtime"))
}

fn enter_or_say(path: &Path) {
    if let Err(error) = enter_path(path) {
        eprintln!("a thread of a forwarder is in the wrong network: {error}");
    }
}

async fn accept(
    listener: TcpListener,
    options: Arc<ForwardOptions>,
    mut orders: watch::Receiver<Orders>,
    counters: Arc<Counters>,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return eprintln!("a forwarder cannot start: {error}"),
    };
    loop {
        tokio::select! {
            changed = orders.changed() => {
                if changed.is_err() || orders.borrow().stop {
                    return;
                }
            }
            accepted = listener.accept() => {
                let Ok((connection, _)) = accepted else {
                    // Mostly, there are no free descriptors: other connections have to end first.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                counters.accepted.fetch_add(1, Ordering::SeqCst);
                if orders.borrow().refusing {
                    let _: io::Result<()> = connection::cut(&connection, options.cut);
                    counters.ended.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                let generation = orders.borrow().generation;
                let serve = connection::serve(connection, Arc::clone(&options), orders.clone(), generation, Arc::clone(&counters));
                let counters = Arc::clone(&counters);
                tokio::spawn(async move {
                    serve.await;
                    counters.ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        }
    }
}
