//! Entry points into the record layer for benches, fuzzing and hostile ends.

use mykube_protocol::{Role, SessionId};

use crate::{handshake::Established, key::ResumeKeys, resume::Resume};

pub use crate::{
    message::is_valid as is_valid_plaintext,
    record::{Opener, RecordError, Sealer},
};

/// The keys of an established channel, for an end that is a test and says what it likes.
#[must_use]
pub fn keys(established: Established) -> (Sealer, Opener) {
    (established.sealer, established.opener)
}

/// One end of a channel with given traffic secrets.
#[must_use]
pub fn established(role: Role, client: [u8; 32], agent: [u8; 32]) -> Established {
    let (ours, theirs) = match role {
        Role::Client => (client, agent),
        Role::Agent => (agent, client),
    };
    Established {
        role,
        words: String::new(),
        verify: false,
        sealer: Sealer::from_secret(ours),
        opener: Opener::from_secret(theirs),
        resume: Resume::new(role, SessionId::from_bytes([0; 16]), ResumeKeys::from_secrets(&client, &agent)),
    }
}
