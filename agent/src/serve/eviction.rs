//! How a server tells one client's task to end, and why; and the replaced clients that have yet to be told.

use std::collections::VecDeque;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Why the server ends a client, or the wait for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The operator ended it, or the command that asked for its code has gone.
    Killed,
    /// Its code was to replace a client that is back.
    Withdrawn,
    /// It was away for `replace_after`, and another client has its slot.
    Replaced,
}

impl Why {
    /// As the client hears it.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Killed => "ended by the server's operator",
            Self::Withdrawn => "the client whose place this would have been is back",
            Self::Replaced => "this client was away, and another has taken its place",
        }
    }
}

/// Held by the server's list of clients.
#[derive(Debug)]
pub(super) struct EvictionSender(watch::Sender<Option<Why>>);

/// Held by the client's task.
#[derive(Clone, Debug)]
pub(super) struct EvictionReceiver(watch::Receiver<Option<Why>>);

impl EvictionSender {
    pub(super) fn new() -> (Self, EvictionReceiver) {
        let (sender, receiver) = watch::channel(None);
        (Self(sender), EvictionReceiver(receiver))
    }

    /// Only the first call counts.
    pub(super) fn evict(&self, why: Why) {
        self.0.send_if_modified(|slot| slot.is_none().then(|| *slot = Some(why)).is_some());
    }
}

impl EvictionReceiver {
    /// Waits until the server ends this client.
    pub(super) async fn wait(&self) -> Why {
        let mut evicted = self.0.clone();
        let why = evicted.wait_for(Option::is_some).await.ok().and_then(|why| *why);
        match why {
            Some(why) => why,
            // The server has dropped its end without evicting: this task ends by itself.
            None => std::future::pending().await,
        }
    }

    /// Whether it was replaced.
    pub(super) fn is_replaced(&self) -> bool {
        *self.0.borrow() == Some(Why::Replaced)
    }
}

/// Clients that were replaced and are still away. Each keeps a session waiting, so only the latest are remembered.
#[derive(Debug, Default)]
pub(super) struct Unaware(VecDeque<CancellationToken>);

impl Unaware {
    /// Adds a client. Beyond `most`, the oldest is forgotten: its token is cancelled.
    pub(super) fn remember(&mut self, client: CancellationToken, most: usize) {
        self.0.push_back(client);
        while self.0.len() > most {
            self.0.pop_front().inspect(CancellationToken::cancel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_replaced_clients_are_remembered_than_there_are_slots() {
        let mut unaware = Unaware::default();
        let clients: Vec<_> = (0..4).map(|_| CancellationToken::new()).collect();
        for client in &clients {
            unaware.remember(client.clone(), 2);
        }
        let forgotten: Vec<_> = clients.iter().map(CancellationToken::is_cancelled).collect();
        assert_eq!(forgotten, [true, true, false, false]);
    }

    #[tokio::test]
    async fn the_first_word_counts_and_silence_is_none() {
        let (eviction, evicted) = EvictionSender::new();
        eviction.evict(Why::Replaced);
        eviction.evict(Why::Killed);
        assert!(evicted.is_replaced());
        assert_eq!(evicted.wait().await, Why::Replaced);
        let (eviction, evicted) = EvictionSender::new();
        drop(eviction);
        assert!(futures_util::FutureExt::now_or_never(evicted.wait()).is_none());
    }
}
