//! Two questions that another node of a relay may have to answer: which nameplate a new session gets, and which session waits
//! under a nameplate. This process answers both by itself, at once; callers wait for the answer all the same
//! (docs/decisions/0017).

use mykube_protocol::{Attempt, Claims};
use mykube_relay_core::registry::{CreateError, Created, NoSuchNameplate};

/// Who answers. `here` is this process's own answer. It locks the registry by itself, so that nobody holds that while another
/// node is asked.
pub(crate) enum Directory {
    /// This process.
    Here,
    /// Somebody else first: as many answers as the semaphore has permits.
    #[cfg(test)]
    Elsewhere(std::sync::Arc<tokio::sync::Semaphore>),
}

impl Directory {
    /// A session with a nameplate that nobody else has.
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

    /// A client's claims for the session that waits under a nameplate.
    ///
    /// # Errors
    /// None does.
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
