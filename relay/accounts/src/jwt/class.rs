//! What a JWT is for. A token of one class is nothing where another is expected.

use std::time::Duration;

/// Claim `aud`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Our own programs: `/v1/*`, `/api/connect`. Comes with a refresh token.
    Mykube,
    /// The devices channel; renewed by itself at `/auth/refresh`.
    Devices,
    /// A Lukan daemon: `/ws/daemon`, `/devices`, Lukan's `/api/*`.
    Daemon,
    /// The cookie `lukan_token`: Lukan's browser calls. Ends with the relay's boot id.
    Browser,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Mykube, Self::Devices, Self::Daemon, Self::Browser];

    /// The claim.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mykube => "mykube",
            Self::Devices => "devices",
            Self::Daemon => "daemon",
            Self::Browser => "browser",
        }
    }

    /// The class of a claim.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    /// How long one is valid, where the configuration says nothing else (it does so for [`Self::Devices`] only).
    #[must_use]
    pub const fn life(self) -> Duration {
        match self {
            Self::Mykube => Duration::from_hours(1),
            Self::Devices => Duration::from_hours(24),
            Self::Daemon | Self::Browser => Duration::from_hours(30 * 24),
        }
    }

    /// How long after its end it is still accepted: a minute where the published relay has a library's default, nothing
    /// where it has none and for our own programs, which renew theirs five minutes early.
    #[must_use]
    pub const fn leeway(self) -> Duration {
        match self {
            Self::Mykube | Self::Devices => Duration::ZERO,
            Self::Daemon | Self::Browser => Duration::from_mins(1),
        }
    }
}
