//! What the connections of all clients share.

use std::sync::{Arc, atomic::AtomicBool};

use crate::{audit::Audit, forwarder::Forwarder, record::Recorder};

/// Serves clients, each under its policy. Clones share their state.
#[derive(Clone)]
pub struct Gateway {
    pub(crate) forwarder: Arc<Forwarder>,
    pub(crate) audit: Audit,
    pub(crate) recorder: Option<Recorder>,
    pub(crate) warned: Arc<AtomicBool>,
}

impl Gateway {
    /// A gateway to the forwarder's API server.
    #[must_use]
    pub fn new(forwarder: Arc<Forwarder>, audit: Audit) -> Self {
        Self { forwarder, audit, recorder: None, warned: Arc::default() }
    }

    /// A gateway that records `exec` and `attach` too.
    #[must_use]
    pub fn recording(self, recorder: Recorder) -> Self {
        Self { recorder: Some(recorder), ..self }
    }

    /// Whether sessions are recorded.
    #[must_use]
    pub fn records(&self) -> bool {
        self.recorder.is_some()
    }

    /// The audit log, for lines about clients.
    #[must_use]
    pub fn audit(&self) -> &Audit {
        &self.audit
    }
}
