//! A document of a provider that is kept for a while: fetched by one caller for all, and not again and again.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mykube_relay_accounts::time::UnixTime;
use tokio::sync::Mutex as AsyncMutex;

use crate::error::ProviderError;

/// How long a document is used: no key that a provider has taken back is believed for longer.
pub const DOCUMENT_LIFE: Duration = Duration::from_hours(1);
/// How long after one was fetched it is fetched again because something is missing in it, such as a key. Anybody can
/// hand in a token that names a key which nobody has.
pub const REFETCH_AFTER: Duration = Duration::from_mins(1);
/// How long after a failure the provider is asked again. Until then everybody gets the same error at once.
pub const RETRY_AFTER: Duration = Duration::from_secs(5);

/// One document. Cheap to clone, and all clones are one.
pub(crate) struct Cached<T> {
    books: Arc<Mutex<Books<T>>>,
    fetching: Arc<AsyncMutex<()>>,
}

/// What is known of it.
struct Books<T> {
    kept: Option<(Arc<T>, UnixTime)>,
    /// When it was asked for last, and what went wrong.
    asked: Option<(UnixTime, Option<ProviderError>)>,
}

enum Next<T> {
    Use(Arc<T>),
    Fail(ProviderError),
    Fetch,
}

impl<T: Send + Sync + 'static> Cached<T> {
    pub(crate) fn new() -> Self {
        let books = Books { kept: None, asked: None };
        Self { books: Arc::new(Mutex::new(books)), fetching: Arc::default() }
    }

    /// The document; if it is missing, too old, or not `enough`, a fetched one. It may still not be enough.
    ///
    /// What is fetched is fetched by a task of its own: a caller that goes away stops nothing, and who goes away again
    /// and again does not make the provider be asked again and again.
    pub(crate) async fn get(
        &self,
        enough: impl Fn(&T) -> bool,
        now: UnixTime,
        fetch: impl Future<Output = Result<T, ProviderError>> + Send + 'static,
    ) -> Result<Arc<T>, ProviderError> {
        match self.books().next(&enough, now) {
            Next::Use(document) => return Ok(document),
            Next::Fail(error) => return Err(error),
            Next::Fetch => {}
        }
        let fetching = Arc::clone(&self.fetching).lock_owned().await;
        // Whoever had the lock before may have fetched it.
        match self.books().next(&enough, now) {
            Next::Use(document) => return Ok(document),
            Next::Fail(error) => return Err(error),
            Next::Fetch => {}
        }
        let books = Arc::clone(&self.books);
        let work = tokio::spawn(async move {
            let fetched = fetch.await;
            let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
            let outcome = books.note(fetched, now);
            drop(books);
            drop(fetching);
            outcome
        });
        work.await.map_err(|_| ProviderError::Interrupted)?
    }

    fn books(&self) -> MutexGuard<'_, Books<T>> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Cached<T> {
    fn clone(&self) -> Self {
        Self { books: Arc::clone(&self.books), fetching: Arc::clone(&self.fetching) }
    }
}

impl<T> Books<T> {
    fn next(&self, enough: impl Fn(&T) -> bool, now: UnixTime) -> Next<T> {
        let kept = self.kept.as_ref().filter(|(_, at)| within(*at, now, DOCUMENT_LIFE));
        match (kept, &self.asked) {
            (Some((document, _)), _) if enough(document) => Next::Use(Arc::clone(document)),
            (Some((document, _)), Some((asked, _))) if within(*asked, now, REFETCH_AFTER) => {
                Next::Use(Arc::clone(document))
            }
            (None, Some((asked, Some(error)))) if within(*asked, now, RETRY_AFTER) => Next::Fail(error.clone()),
            _ => Next::Fetch,
        }
    }

    /// What a fetch brought. After a failure the document that is there is used on until it is too old.
    fn note(&mut self, fetched: Result<T, ProviderError>, now: UnixTime) -> Result<Arc<T>, ProviderError> {
        self.asked = Some((now, fetched.as_ref().err().cloned()));
        match fetched {
            Ok(document) => {
                let document = Arc::new(document);
                self.kept = Some((Arc::clone(&document), now));
                Ok(document)
            }
            Err(error) => {
                let kept = self.kept.as_ref().filter(|(_, at)| within(*at, now, DOCUMENT_LIFE));
                kept.map(|(document, _)| Arc::clone(document)).ok_or(error)
            }
        }
    }
}

/// Whether it is less than `span` from one to the other. A clock that was set back does not make a document young.
fn within(one: UnixTime, other: UnixTime, span: Duration) -> bool {
    one.since(other).max(other.since(one)) < span
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;
    use crate::error::Call;

    const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);
    const FAILED: ProviderError = ProviderError::Status { call: Call::Keys, status: 500 };

    /// A provider whose document is the number of times it was asked.
    #[derive(Clone, Default)]
    struct Asked(Arc<AtomicUsize>);

    #[allow(clippy::unused_async, reason = "a fetch is a future")]
    impl Asked {
        fn times(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }

        async fn answer(self) -> Result<usize, ProviderError> {
            Ok(self.0.fetch_add(1, Ordering::SeqCst) + 1)
        }

        async fn fail(self) -> Result<usize, ProviderError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Err(FAILED)
        }
    }

    #[tokio::test]
    async fn a_document_is_fetched_once_until_it_is_old() {
        let (cached, asked) = (Cached::new(), Asked::default());
        for (after, times) in [(0, 1), (1, 1), (3599, 1), (3600, 2), (3601, 2), (7200, 3), (0, 4)] {
            let now = NOW + Duration::from_secs(after);
            let document = cached.get(|_| true, now, asked.clone().answer()).await.unwrap();
            assert_eq!((*document, asked.times()), (times, times), "after {after} s");
        }
    }

    #[tokio::test]
    async fn what_is_missing_in_it_is_looked_for_once_a_minute() {
        let (cached, asked) = (Cached::new(), Asked::default());
        for (after, times) in [(0, 1), (0, 1), (59, 1), (60, 2), (61, 2), (119, 2), (120, 3)] {
            let now = NOW + Duration::from_secs(after);
            cached.get(|_| false, now, asked.clone().answer()).await.unwrap();
            assert_eq!(asked.times(), times, "after {after} s");
        }
        // A failure costs nobody the document that is there.
        let later = NOW + Duration::from_mins(3);
        assert_eq!(*cached.get(|_| false, later, asked.clone().fail()).await.unwrap(), 3);
        assert_eq!(asked.times(), 4);
    }

    #[tokio::test]
    async fn a_failure_is_everybodys_for_some_seconds() {
        let (cached, asked) = (Cached::<usize>::new(), Asked::default());
        for (after, times) in [(0, 1), (4, 1), (5, 2)] {
            let now = NOW + Duration::from_secs(after);
            assert_eq!(cached.get(|_| true, now, asked.clone().fail()).await.unwrap_err(), FAILED);
            assert_eq!(asked.times(), times, "after {after} s");
        }
        let old = Cached::new();
        old.get(|_| true, NOW, asked.clone().answer()).await.unwrap();
        let error = old.get(|_| true, NOW + DOCUMENT_LIFE, asked.clone().fail()).await.unwrap_err();
        assert_eq!(error, FAILED, "a document that is too old is none");
    }

    #[tokio::test]
    async fn who_goes_away_stops_no_fetch_and_begins_no_second() {
        let (cached, asked, go) = (Cached::new(), Asked::default(), Arc::new(Notify::new()));
        let slow = |asked: Asked, go: Arc<Notify>| async move {
            let answer = asked.answer().await;
            go.notified().await;
            answer
        };
        let mut gone = Box::pin(cached.get(|_| true, NOW, slow(asked.clone(), Arc::clone(&go))));
        while asked.times() == 0 {
            tokio::select! {
                _ = &mut gone => panic!("it is not there yet"),
                () = tokio::task::yield_now() => {}
            }
        }
        drop(gone);
        let second = cached.get(|_| true, NOW, slow(asked.clone(), Arc::clone(&go)));
        let third = cached.get(|_| true, NOW, slow(asked.clone(), Arc::clone(&go)));
        go.notify_one();
        let (second, third) = tokio::join!(second, third);
        assert_eq!((*second.unwrap(), *third.unwrap(), asked.times()), (1, 1, 1));
    }
}
