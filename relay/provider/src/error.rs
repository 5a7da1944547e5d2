//! What can go wrong between the relay and a provider. No message has a token, a code or a secret in it.

use std::fmt;

use mykube_dial::DialError;
use mykube_relay_accounts::identity::ProfileError;

use crate::{address::InvalidAddress, id_token::IdTokenError};

/// A provider that the configuration describes wrongly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// The issuer, or the address of GitHub.
    #[error("`issuer` {0}")]
    Issuer(InvalidAddress),
    /// The address of GitHub's API.
    #[error("`api` {0}")]
    Api(InvalidAddress),
    /// No client.
    #[error("`client_id` is missing: register the relay at the provider, and give the id that it got there")]
    NoClient,
    /// GitHub gives nothing to a client without one.
    #[error("`client_secret` is missing: GitHub wants one (or `client_secret_file`)")]
    NoSecret,
}

/// What a provider is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `/.well-known/openid-configuration`.
    Discovery,
    /// `jwks_uri`.
    Keys,
    /// The token endpoint.
    Token,
    /// The UserInfo endpoint.
    UserInfo,
    /// GitHub's `/user`.
    User,
    /// GitHub's `/user/emails`.
    Emails,
}

/// Who can do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Whoever signs in, or hands in a token: a 400 or 401.
    Person,
    /// The provider, or the way to it: a 502.
    Provider,
    /// The operator, in the configuration or at the provider: a 500.
    Setting,
}

/// Why somebody is not signed in. The message is for the operator's log; [`ProviderError::for_stranger`] is for others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// No answer.
    #[error("{call} cannot be had: {error}")]
    Unreachable {
        /// What was asked for.
        call: Call,
        /// Why.
        error: DialError,
    },
    /// Redirects are never followed: what is sent has a secret in it, and what comes is believed.
    #[error("{0} redirects elsewhere, which is not followed: give the issuer's own address as `issuer`")]
    Redirected(Call),
    /// A status that means nothing here.
    #[error("{call} cannot be had: it answered with status {status}")]
    Status {
        /// What was asked for.
        call: Call,
        /// The HTTP status.
        status: u16,
    },
    /// An answer that is not what it should be.
    #[error("{call} {problem}")]
    Unreadable {
        /// What was asked for.
        call: Call,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An address in the discovery document.
    #[error("the discovery document's `{name}` {problem}")]
    Address {
        /// Its name in the document.
        name: &'static str,
        /// What is wrong with it.
        problem: InvalidAddress,
    },
    /// The discovery document is another issuer's.
    #[error(
        "the discovery document is that of the issuer {found}: `issuer` must be exactly what the provider calls itself"
    )]
    OtherIssuer {
        /// What it says, cleaned.
        found: String,
    },
    /// The token endpoint wants to be told who asks in another way.
    #[error("the token endpoint takes neither client_secret_basic nor client_secret_post: allow one at the provider")]
    ClientAuthentication,
    /// The token endpoint does not accept the client.
    #[error("the provider does not accept this relay ({0}): check `client_id` and `client_secret`")]
    ClientRefused(String),
    /// The token endpoint does not accept the code, in its words.
    #[error("the identity provider does not accept the code ({0}): begin the sign-in again")]
    CodeRefused(String),
    /// Nobody has signed in, in the provider's words.
    #[error("the identity provider says: {0}")]
    Denied(String),
    /// The code comes from somebody else than the provider that was asked (RFC 9207).
    #[error("the answer is not from the identity provider that was asked: begin the sign-in again")]
    MixedUp,
    /// UserInfo is somebody else's (OpenID Connect Core, section 5.3.2).
    #[error("UserInfo is of another person than the ID token")]
    OtherPerson,
    /// The ID token.
    #[error(transparent)]
    IdToken(#[from] IdTokenError),
    /// What the provider says of the person is not enough.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The relay is about to end.
    #[error("the relay is stopping")]
    Interrupted,
}

impl ProviderError {
    /// Who can do something about it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unreachable { error: DialError::ProxySetting { .. }, .. } => Fault::Setting,
            Self::Unreachable { .. }
            | Self::Status { .. }
            | Self::Unreadable { .. }
            | Self::Address { .. }
            | Self::OtherPerson
            | Self::Interrupted => Fault::Provider,
            Self::Redirected(_) | Self::OtherIssuer { .. } | Self::ClientAuthentication | Self::ClientRefused(_) => {
                Fault::Setting
            }
            Self::CodeRefused(_) | Self::Denied(_) | Self::MixedUp | Self::IdToken(_) | Self::Profile(_) => {
                Fault::Person
            }
        }
    }

    /// What whoever signs in is told. The way to the provider, and how the relay is set up, are not theirs to know.
    #[must_use]
    pub fn for_stranger(&self) -> String {
        match self.fault() {
            Fault::Person => self.to_string(),
            Fault::Provider => "the identity provider cannot be asked at the moment: try again shortly".into(),
            Fault::Setting => "this relay is not set up rightly for that identity provider: tell its operator".into(),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Discovery => "the discovery document",
            Self::Keys => "the provider's key set",
            Self::Token => "the token endpoint's answer",
            Self::UserInfo => "UserInfo",
            Self::User => "GitHub's answer about the user",
            Self::Emails => "GitHub's list of the user's addresses",
        })
    }
}
