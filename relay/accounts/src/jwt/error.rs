//! Why a JWT is not accepted, and the texts in which the published contracts say so.

/// No token was shown, where the devices channel wants one.
pub const DEVICES_MISSING: &str = "JWT required for authentication";
/// What was shown as a token is no string of JSON.
pub const DEVICES_NO_STRING: &str = "Invalid JWT: jwt must be a string";

/// A JWT that is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Not three parts, a header that is none of ours, or longer than any of ours.
    #[error("this is no token of this relay")]
    Malformed,
    /// It is not signed, or says that it needs no signature.
    #[error("the token is not signed")]
    Unsigned,
    /// Another algorithm than HS256.
    #[error("the token is signed with another algorithm than this relay's")]
    Algorithm,
    /// Another key, a key that was retired, or changed on the way.
    #[error("the token's signature is not this relay's: sign in again")]
    Signature,
    /// A claim is missing or has another type.
    #[error("the token lacks what a token of this relay has: sign in again")]
    Claims,
    /// Another relay's.
    #[error("the token is another relay's: sign in here")]
    Issuer,
    /// Good, but not for this.
    #[error("the token is of another kind than this call takes")]
    Class,
    /// The relay has started since.
    #[error("the sign-in ended when the relay started again: sign in again")]
    Boot,
    /// Its time has not come.
    #[error("the token is not valid yet: is this machine's clock right, or the relay's?")]
    Early,
    /// Its time is over.
    #[error("the token has expired: renew it, or sign in again")]
    Expired,
    /// It, or its sign-in, was ended by somebody.
    #[error("the sign-in was ended: sign in again")]
    Revoked,
}

impl JwtError {
    /// What the devices channel answers (`specs` of utterd, section 5.2). Where that has no text of its own, one of its form.
    #[must_use]
    pub const fn devices_text(self) -> &'static str {
        match self {
            Self::Malformed => "Invalid JWT: jwt malformed",
            Self::Unsigned => "Invalid JWT: jwt signature is required",
            Self::Algorithm => "Invalid JWT: invalid algorithm",
            Self::Signature => "Invalid JWT: invalid signature",
            Self::Claims => "Invalid JWT: invalid claims",
            Self::Issuer => "Invalid JWT: jwt issuer invalid",
            Self::Class => "Invalid JWT: jwt audience invalid",
            Self::Boot | Self::Revoked => "Invalid JWT: token revoked",
            Self::Early => "Invalid JWT: jwt not active",
            Self::Expired => "JWT expired. Please obtain a new token.",
        }
    }

    /// What Lukan's sockets answer, with 401.
    #[must_use]
    pub const fn socket_text(self) -> &'static str {
        "Invalid token: Invalid or expired JWT"
    }

    /// What Lukan's `/status` answers, with 401.
    #[must_use]
    pub const fn status_text(self) -> &'static str {
        "Invalid or expired session"
    }

    /// What Lukan's `/auth/device/verify` answers, with 401, to a cookie.
    #[must_use]
    pub const fn browser_text(self) -> &'static str {
        "Invalid browser session"
    }
}

/// Why `/auth/refresh` renews no JWT. The messages are its published texts, with 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenewError {
    /// There are no claims to read, or not those of a token of ours.
    #[error("Invalid JWT: cannot decode payload")]
    Undecodable,
    /// It ended too long ago.
    #[error("JWT expired more than 24 hours ago. Please re-authenticate.")]
    TooLate,
    /// The person proved who they are too long ago.
    #[error("Session too old. Please re-authenticate.")]
    TooOld,
    /// Not accepted for what it is.
    #[error("{}", .0.devices_text())]
    Invalid(JwtError),
}

impl From<JwtError> for RenewError {
    fn from(error: JwtError) -> Self {
        match error {
            JwtError::Malformed | JwtError::Claims => Self::Undecodable,
            other => Self::Invalid(other),
        }
    }
}
