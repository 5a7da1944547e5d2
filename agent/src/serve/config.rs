//! Settings of a server, and what they are where nothing else is said.

use std::time::Duration;

/// An unattended agent waits this long before a new code after a burned one, doubling ...
pub const BURNED_BACKOFF: Duration = Duration::from_secs(60);
/// ... up to this ...
pub const BURNED_BACKOFF_MAX: Duration = Duration::from_secs(3600);
/// ... and stops after so many burned codes: somebody is guessing.
pub const BURNED_MAX: u32 = 100;
/// While a code waits, a lost relay is dialled again after this long, doubling up to [`RECONNECT_MAX`].
pub const RECONNECT: Duration = Duration::from_millis(100);
/// See [`RECONNECT`].
pub const RECONNECT_MAX: Duration = Duration::from_secs(1);
/// Clients at once, unless `--max-clients` says otherwise.
pub const MAX_CLIENTS: usize = 1;
/// How long a client may be away before another may take its place, unless `--replace-after` says otherwise.
pub const REPLACE_AFTER: Duration = Duration::from_secs(60);

/// Settings of a server.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How long a code waits to be typed.
    pub code_ttl: Duration,
    /// Compare four words before any data passes.
    pub verify: bool,
    /// Somebody sits at a terminal and can be asked.
    pub attended: bool,
    /// See [`BURNED_BACKOFF`].
    pub burned_backoff: Duration,
    /// Clients at once, waiting codes included.
    pub max_clients: usize,
    /// Show a new code when a client has left, instead of ending with it.
    pub stay: bool,
    /// How long a session outlives its connection.
    pub resume_window: Duration,
    /// When all places are taken and a client has been away for so long, a code is shown with which another can take its
    /// place. Never with `None`.
    pub replace_after: Option<Duration>,
}
