//! Two questions that another node of a relay could have to answer: which nameplate a new session gets, and which session waits
//! under a nameplate. Today this process answers both by itself, at once; callers await the answer all the same
//! (docs/decisions/0017).

use mykube_protocol::{Attempt, Claims};
use mykube_relay_core::registry::{CreateError, Created, NoSuchNameplate};

/// What gives the answer. `here` computes this process's own. It locks the registry itself, so that the lock is not held while
/// another node is asked.
pub(crate) enum Directory {
    /// This process.
    Here,
    /// Another node has to answer first, in a test: it gives as many answers as the semaphore has permits.
    #[cfg(test)]
    Elsewhere(std::sync::Arc<tokio::sync::Semaphore>),
}

impl Directory {
    /// Makes a session with a free nameplate.
    ///
    /// # Errors
    /// A limit is reached.
    pub(crate) async fn create(
        &self,
        here: impl FnOnce() -> Result<Created, CreateError>,
    ) -> Result<Created, CreateError> {
        self.ask().await;
        here()
    }

    /// The claims of a client for the session that waits under a nameplate.
    ///
    /// # Errors
    /// No session does.
    pub(crate) async fn claim(
        &self,
        here: impl FnOnce() -> Result<(Attempt, Claims), NoSuchNameplate>,
    ) -> Result<(Attempt, Claims), NoSuchNameplate> {
        self.ask().await;
        here()
    }

    async fn ask(&self) {
        match self {
            Self::Here => {}
            #[cfg(test)]
            Self::Elsewhere(answers) => answers.acquire().await.expect("it is not closed").forget(),
        }
    }
}
