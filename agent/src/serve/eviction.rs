//! The desk's word to one client's task that it should end, and why; and those that have yet to hear it.

use std::collections::VecDeque;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Why a client, or the waiting for one, is ended from the server's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The operator wants it so, or nobody wants its code any more.
    Killed,
    /// Its code was for the place of a client that is back.
    Withdrawn,
    /// It was away for so long that another has its place.
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

/// The desk's end.
#[derive(Debug)]
pub(super) struct Dismiss(watch::Sender<Option<Why>>);

/// The task's end.
#[derive(Clone, Debug)]
pub(super) struct Dismissed(watch::Receiver<Option<Why>>);

impl Dismiss {
    pub(super) fn new() -> (Self, Dismissed) {
        let (sender, receiver) = watch::channel(None);
        (Self(sender), Dismissed(receiver))
    }

    /// The first word counts.
    pub(super) fn dismiss(&self, why: Why) {
        self.0.send_if_modified(|slot| slot.is_none().then(|| *slot = Some(why)).is_some());
    }
}

impl Dismissed {
    /// Waits for the word.
    pub(super) async fn wait(&self) -> Why {
        let mut word = self.0.clone();
        let said = word.wait_for(Option::is_some).await.ok().and_then(|why| *why);
        match said {
            Some(why) => why,
            // The desk has let go of it without a word.
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
    /// One more, of at most `most`. Whoever is forgotten has its token cancelled.
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
    fn no_more_replaced_clients_are_remembered_than_there_are_places() {
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
        let (dismiss, dismissed) = Dismiss::new();
        dismiss.dismiss(Why::Replaced);
        dismiss.dismiss(Why::Killed);
        assert!(dismissed.is_replaced());
        assert_eq!(dismissed.wait().await, Why::Replaced);
        let (dismiss, dismissed) = Dismiss::new();
        drop(dismiss);
        assert!(futures_util::FutureExt::now_or_never(dismissed.wait()).is_none());
    }
}
