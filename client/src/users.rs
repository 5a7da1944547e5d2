//! What uses a session on this machine: a child of ours, and the terminals that have joined (`mykube shell`).
//!
//! All of it is asked to end, and is gone, before the session's connections are cut: a program whose connection is cut may take
//! what it has for all there is (kubectl over SPDY then exits with 0). Only whoever does not go in time sees the cut.

use std::future::Future;

use tokio::task::spawn_blocking;

use crate::{
    session::ClientSession,
    shell::{Exit, Prepared, ShellError},
    terminals::Terminals,
    workspace::{Live, Workspace},
};

/// What uses a session that this process holds.
pub struct Users<'s> {
    session: &'s ClientSession,
    terminals: Option<Terminals>,
    child: Option<Prepared>,
}

impl<'s> Users<'s> {
    /// The session's connections outlive it from here on, until [`Self::run`] is done.
    #[must_use]
    pub fn new(session: &'s ClientSession, workspace: &Workspace, child: Option<Prepared>) -> Self {
        session.hold();
        Self { session, terminals: workspace.terminals(), child }
    }

    /// Runs until the child ends by itself or `stop` comes; then ends the child, the other terminals, and last the
    /// connections. Without a child only `stop` ends it.
    ///
    /// # Errors
    /// The child could not be started.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<Exit, ShellError> {
        let stop = async {
            stop.await;
            self.terminals.as_ref().map(Terminals::tell_end);
        };
        let exit = match self.child {
            Some(child) => child.run(stop).await,
            None => {
                stop.await;
                Ok(Exit::Stopped)
            }
        };
        if let Some(terminals) = &self.terminals {
            terminals.gone().await;
        }
        self.session.let_go();
        exit
    }
}

/// Runs a child in a session that another process holds, until it ends by itself, or `stop` comes, or that process says that
/// the session ends: it waits with the cut until this is done.
///
/// # Errors
/// The child could not be started.
pub async fn run_joined(
    live: &Live,
    workspace: Workspace,
    child: Prepared,
    stop: impl Future<Output = ()>,
) -> Result<Exit, ShellError> {
    let waiting = live.clone();
    let ended = spawn_blocking(move || waiting.wait_for_end());
    let exit = child
        .run(async {
            tokio::select! {
                _ = ended => {}
                () = stop => {}
            }
        })
        .await;
    // With it the lock.
    drop(workspace);
    exit
}
