//! What is sent.

use mykube_relay_accounts::email::Email;
use zeroize::Zeroizing;

/// Mail for one person.
pub(crate) struct Letter {
    pub(crate) to: Email,
    pub(crate) subject: String,
    /// Plain text; it has a code in it.
    pub(crate) body: Zeroizing<String>,
}
