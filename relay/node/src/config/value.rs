//! What is given under a published name.

use zeroize::Zeroizing;

/// A value, and where it stands for a person: `relay.env:3: PORT`, `PORT`.
pub(super) struct Value {
    pub(super) text: Zeroizing<String>,
    pub(super) place: String,
}
