//! Settings of the relay that nobody has changed; those of sessions are in [`crate::registry::Limits`].

use std::time::Duration;

use crate::silence::Silence;

/// Bytes that one direction may hold while it waits for a slow reader.
pub const BUFFER: usize = 128 * 1024;
/// How long the PROXY header and the TLS handshake may take together, and how long a socket that waits for its slot may say
/// nothing.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// When an end that says nothing is pinged, and when it is given up.
pub const SILENCE: Silence = Silence { ping_interval: Duration::from_secs(15), limit: Duration::from_secs(45) };
/// How long a closing socket has to take the data that waits for it, and to answer the close frame.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
