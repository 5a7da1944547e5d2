//! The threads that serve sockets. One thread serves both sockets of a session, so that forwarding wakes no second thread;
//! sessions are spread over all threads (docs/decisions/0013).

use std::{
    io,
    num::NonZeroUsize,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use mykube_protocol::SessionId;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// The number of processors that this process may use.
#[must_use]
pub(crate) fn default_count() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// The threads, which run until their token is cancelled.
pub(crate) struct Workers {
    handles: Vec<Handle>,
    next: AtomicUsize,
}

impl Workers {
    /// Starts `count` threads. The tasks on them end when `stop` is cancelled.
    ///
    /// # Errors
    /// The system has no threads or descriptors left.
    pub(crate) fn start(count: NonZeroUsize, stop: &CancellationToken) -> io::Result<Self> {
        let start = |number| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let (handle, stop) = (runtime.handle().clone(), stop.clone());
            let run = move || runtime.block_on(stop.cancelled());
            // `top -H` shows this name, which operators know.
            thread::Builder::new().name(format!("carrier-{number}")).spawn(run)?;
            Ok(handle)
        };
        Ok(Self { handles: (0..count.get()).map(start).collect::<io::Result<_>>()?, next: AtomicUsize::new(0) })
    }

    /// The next thread in turn, for a new connection.
    pub(crate) fn next(&self) -> &Handle {
        &self.handles[self.next.fetch_add(1, Ordering::Relaxed) % self.handles.len()]
    }

    /// The thread that serves both sockets of this session.
    pub(crate) fn of(&self, session: &SessionId) -> &Handle {
        let number = session.as_bytes().iter().fold(0_usize, |sum, byte| sum + usize::from(*byte));
        &self.handles[number % self.handles.len()]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tokio::net::TcpListener;

    use super::*;
    use crate::stream::Stream;

    async fn name(handle: &Handle) -> String {
        handle.spawn(async { thread::current().name().unwrap_or_default().to_owned() }).await.unwrap()
    }

    #[tokio::test]
    async fn a_session_is_one_threads_and_all_have_some_until_the_end() {
        let stop = CancellationToken::new();
        let workers = Workers::start(NonZeroUsize::new(3).unwrap(), &stop).unwrap();
        let (mut by_session, mut in_turn) = (HashSet::new(), HashSet::new());
        for number in 0..=u8::MAX {
            let session = SessionId::from_bytes([number; 16].map(|it| it.wrapping_mul(number)));
            let worker = name(workers.of(&session)).await;
            assert_eq!(name(workers.of(&session)).await, worker);
            by_session.insert(worker);
            in_turn.insert(name(workers.next()).await);
        }
        assert_eq!([by_session.len(), in_turn.len()], [3, 3]);
        let served = workers.next().spawn(std::future::pending::<()>());
        stop.cancel();
        assert!(served.await.unwrap_err().is_cancelled());
    }

    #[tokio::test]
    async fn a_connection_goes_on_at_the_thread_that_takes_it() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let stop = CancellationToken::new();
        let workers = Workers::start(NonZeroUsize::new(2).unwrap(), &stop).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (far, near) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
        let (mut far, mut near) = (far.unwrap(), Stream::Plain(near.unwrap().0));
        far.write_all(b"before").await.unwrap();
        near.read_exact(&mut [0; 6]).await.unwrap();

        let worker = workers.next();
        near.move_to(worker).await.unwrap();
        let answered = worker.spawn(async move {
            let mut word = [0; 4];
            near.read_exact(&mut word).await?;
            near.write_all(&word).await
        });
        far.write_all(b"then").await.unwrap();
        let mut word = [0; 4];
        far.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"then");
        answered.await.unwrap().unwrap();
        assert_eq!(far.read(&mut word).await.unwrap(), 0, "and nobody else holds it open");
    }
}
