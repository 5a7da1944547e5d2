//! From the tasks to the operator: events through one queue, and questions one at a time.

use std::collections::VecDeque;

use tokio::sync::{mpsc, oneshot};

use super::ui::{Answer, Event, Ui};

/// An event or a question of a client's task.
pub(super) enum Notice {
    Event(Event),
    Ask(Question, oneshot::Sender<bool>),
}

/// What a task asks.
pub(super) enum Question {
    Words(String),
    AnotherCode,
}

/// A notice, with the number and name of the client it is about.
pub(super) struct ClientNotice {
    pub(super) client: u64,
    pub(super) name: String,
    pub(super) notice: Notice,
}

/// What one client's task has of the operator: it sends events, and asks questions.
#[derive(Clone)]
pub(super) struct OperatorHandle {
    pub(super) client: u64,
    pub(super) name: String,
    pub(super) sender: mpsc::UnboundedSender<ClientNotice>,
}

impl OperatorHandle {
    /// Tells the operator. The queue has no limit because events are few: at most some dozens in a code's life, and the
    /// task limits those of failing streams.
    pub(super) fn event(&self, event: Event) {
        self.send(Notice::Event(event));
    }

    pub(super) async fn confirm_words(&self, words: String) -> bool {
        self.ask(Question::Words(words)).await
    }

    pub(super) async fn another_code(&self) -> bool {
        self.ask(Question::AnotherCode).await
    }

    async fn ask(&self, question: Question) -> bool {
        let (reply, answer) = oneshot::channel();
        self.send(Notice::Ask(question, reply));
        answer.await.unwrap_or(false)
    }

    fn send(&self, notice: Notice) {
        // Fails once the server has ended; a question is then dropped, which answers no.
        let _ = self.sender.send(ClientNotice { client: self.client, name: self.name.clone(), notice });
    }
}

/// Questions to the operator, put one after the other beside everything else. A question whose task has gone is no longer
/// waited for.
#[derive(Default)]
pub(super) struct Questions {
    waiting: VecDeque<(String, Question, oneshot::Sender<bool>)>,
    open: Option<(Answer, oneshot::Sender<bool>)>,
}

impl Questions {
    pub(super) fn ask(&mut self, name: String, question: Question, reply: oneshot::Sender<bool>) {
        self.waiting.push_back((name, question, reply));
    }

    /// Puts the questions and brings back the answers; never ends by itself. Safe to cancel: the next call goes on with the
    /// same question.
    pub(super) async fn put(&mut self, ui: &mut impl Ui) {
        loop {
            if self.open.is_none() {
                let Some((name, question, reply)) = self.waiting.pop_front() else {
                    return std::future::pending().await;
                };
                if reply.is_closed() {
                    continue;
                }
                let answer = match question {
                    Question::Words(words) => ui.confirm_words(&name, &words),
                    Question::AnotherCode => ui.another_code(),
                };
                self.open = Some((answer, reply));
            }
            if let Some((answer, reply)) = &mut self.open {
                let said = tokio::select! {
                    said = answer => Some(said),
                    () = reply.closed() => None,
                };
                if let (Some((_, reply)), Some(said)) = (self.open.take(), said) {
                    let _ = reply.send(said);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// An operator who answers when the test says so.
    #[derive(Default)]
    struct Person {
        answers: VecDeque<oneshot::Receiver<bool>>,
        asked: Vec<String>,
    }

    impl Person {
        fn answer(&mut self, question: &str) -> Answer {
            self.asked.push(question.to_owned());
            let answer = self.answers.pop_front().expect("not so many questions");
            Box::pin(async { answer.await.unwrap_or(false) })
        }
    }

    impl Ui for Person {
        fn event(&mut self, _: &str, _: Event) {}

        fn confirm_words(&mut self, client: &str, words: &str) -> Answer {
            self.answer(&format!("{client}: {words}"))
        }

        fn another_code(&mut self) -> Answer {
            self.answer("another?")
        }
    }

    #[tokio::test]
    async fn questions_are_put_one_at_a_time_and_only_for_tasks_that_wait() {
        let (mut person, mut questions) = (Person::default(), Questions::default());
        let (first, answer) = oneshot::channel();
        person.answers.push_back(answer);
        // Never answered.
        let (_silent, answer) = oneshot::channel();
        person.answers.push_back(answer);
        let (third, answer) = oneshot::channel();
        person.answers.push_back(answer);
        let mut asks = |question, name: &str| {
            let (reply, answered) = oneshot::channel();
            questions.ask(name.to_owned(), question, reply);
            answered
        };
        let mut words = asks(Question::Words("a b c d".into()), "one");
        let another = asks(Question::AnotherCode, "two");
        let gone = asks(Question::Words("not put".into()), "gone");
        let mut last = asks(Question::Words("e f g h".into()), "three");
        drop(gone);
        // `put` can be cancelled and called again at any time.
        for _ in 0..3 {
            assert!(questions.put(&mut person).now_or_never().is_none());
        }
        assert_eq!(person.asked, ["one: a b c d"]);
        first.send(true).unwrap();
        assert!(questions.put(&mut person).now_or_never().is_none());
        assert_eq!(words.try_recv(), Ok(true));
        assert_eq!(person.asked, ["one: a b c d", "another?"]);
        // The task that asked has gone: the next question's turn.
        drop(another);
        assert!(questions.put(&mut person).now_or_never().is_none());
        assert_eq!(person.asked, ["one: a b c d", "another?", "three: e f g h"]);
        third.send(false).unwrap();
        assert!(questions.put(&mut person).now_or_never().is_none());
        assert_eq!(last.try_recv(), Ok(false));
    }
}
