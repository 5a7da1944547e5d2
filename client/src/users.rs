//! The users of a session on this machine: our child, and the terminals that have joined (`mykube shell`).
//!
//! All of them are asked to end, and are gone, before the session's connections are cut: a program whose connection is
//! cut may take the bytes that it has for all there are (kubectl over SPDY then exits with 0). Only a program that does
//! not end in time sees the cut.

use std::future::Future;

use tokio::task::spawn_blocking;

use crate::{
    session::ClientSession,
    shell::{Exit, Prepared, ShellError},
    terminals::Terminals,
    workspace::{Live, Workspace},
};

/// The users of a session that this process holds.
pub struct Users<'s> {
    session: &'s ClientSession,
    terminals: Option<Terminals>,
    child: Option<Prepared>,
}

impl<'s> Users<'s> {
    /// From here on the session's connections stay open until [`Self::run`] is done.
    #[must_use]
    pub fn new(session: &'s ClientSession, workspace: &Workspace, child: Option<Prepared>) -> Self {
        session.hold();
        Self { session, terminals: workspace.terminals(), child }
    }

    /// Runs until the child ends by itself or `stop` resolves; then ends the child, the other terminals, and last the
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

/// Runs a child in a session that another process holds, until the child ends by itself, `stop` resolves, or that
/// process says that the session ends: it waits until this is done before it cuts the connections.
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
    // Gone too: the lock.
    drop(workspace);
    exit
}
