//! From the tasks to the operator: one queue, one thing at a time.

use tokio::sync::{mpsc, oneshot};

use super::{Event, Ui};

/// What a task says or asks.
pub(super) enum Notice {
    Event(Event),
    Words(String, oneshot::Sender<bool>),
    AnotherCode(oneshot::Sender<bool>),
}

/// Which client it is about, and what.
pub(super) type Post = (u64, Notice);

/// One client's way to the operator.
#[derive(Clone)]
pub(super) struct Front {
    pub(super) client: u64,
    pub(super) post: mpsc::UnboundedSender<Post>,
}

impl Front {
    /// Tells. Events are few: a code's life has at most some dozens, and a failing stream's are limited by its task.
    pub(super) fn event(&self, event: Event) {
        let _ = self.post.send((self.client, Notice::Event(event)));
    }

    pub(super) async fn confirm_words(&self, words: String) -> bool {
        self.ask(|reply| Notice::Words(words, reply)).await
    }

    pub(super) async fn another_code(&self) -> bool {
        self.ask(Notice::AnotherCode).await
    }

    async fn ask(&self, notice: impl FnOnce(oneshot::Sender<bool>) -> Notice) -> bool {
        let (reply, answer) = oneshot::channel();
        let asked = self.post.send((self.client, notice(reply)));
        asked.is_ok() && answer.await.unwrap_or(false)
    }
}

/// Brings a notice to the operator and the answer back.
pub(super) async fn deliver(ui: &mut impl Ui, name: &str, notice: Notice) {
    match notice {
        Notice::Event(event) => ui.event(name, event),
        Notice::Words(words, reply) => {
            let _ = reply.send(ui.confirm_words(name, &words).await);
        }
        Notice::AnotherCode(reply) => {
            let _ = reply.send(ui.another_code().await);
        }
    }
}
