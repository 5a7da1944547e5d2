//! TLS errors as texts for a person: rustls prints many of its reasons as the names they have in its source.

use rustls::{AlertDescription, CertificateError, Error, PeerMisbehaved};

use super::verifier::Unfit;
use crate::error::{TlsProblem, clean};

impl TlsProblem {
    /// From the error that a handshake failed with.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(error) => certificate(error),
            Error::InvalidMessage(_) => Self::NotTls,
            Error::NoApplicationProtocol
            | Error::AlertReceived(AlertDescription::NoApplicationProtocol)
            | Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedApplicationProtocol) => Self::NoHttp1,
            Error::AlertReceived(AlertDescription::Unknown(number)) => Self::Alert(format!("alert {number}")),
            Error::AlertReceived(alert) => Self::Alert(plain(alert)),
            Error::PeerIncompatible(why) => Self::Other(format!("it speaks TLS in no way known here ({})", plain(why))),
            Error::PeerMisbehaved(why) => Self::Other(format!("it breaks the rules of TLS ({})", plain(why))),
            Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
                Self::Other("it breaks the rules of TLS (a message out of turn)".into())
            }
            other => Self::Other(clean(&other.to_string())),
        }
    }
}

fn certificate(error: &CertificateError) -> TlsProblem {
    use CertificateError as E;
    match error {
        E::UnknownIssuer | E::BadSignature => TlsProblem::Untrusted,
        E::Expired | E::ExpiredContext { .. } => TlsProblem::Expired,
        E::NotValidYet | E::NotValidYetContext { .. } => TlsProblem::NotYetValid,
        E::NotValidForName => TlsProblem::WrongName { presented: "another name".into() },
        E::NotValidForNameContext { presented, .. } => TlsProblem::WrongName {
            presented: match presented.as_slice() {
                [] => "no name at all".into(),
                names => clean(&names.join(", ")),
            },
        },
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            TlsProblem::Certificate("it is not for servers: its extended key usage has no serverAuth".into())
        }
        E::UnhandledCriticalExtension => {
            TlsProblem::Certificate("it has a critical extension that is not known".into())
        }
        E::BadEncoding => TlsProblem::Certificate("it cannot be read".into()),
        E::Other(other) => TlsProblem::Certificate(match other.0.downcast_ref::<Unfit>() {
            Some(unfit) => unfit.to_string(),
            None => plain(&other.0),
        }),
        other => TlsProblem::Certificate(plain(other)),
    }
}

/// `UnknownCA { .. }` as `unknown CA`: the name of a variant as words, without its fields.
fn plain(value: &impl std::fmt::Debug) -> String {
    let debug = format!("{value:?}");
    let name: String = debug.chars().take_while(char::is_ascii_alphanumeric).collect();
    let mut words = String::new();
    let mut last = ' ';
    for (at, c) in name.char_indices() {
        let next = name[at..].chars().nth(1);
        let begins =
            c.is_ascii_uppercase() && (!last.is_ascii_uppercase() || next.is_some_and(|c| c.is_ascii_lowercase()));
        if begins && at > 0 {
            words.push(' ');
        }
        // An abbreviation stays in upper case.
        let alone = begins && next.is_none_or(|c| !c.is_ascii_uppercase());
        words.push(if alone { c.to_ascii_lowercase() } else { c });
        last = c;
    }
    words
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{InvalidMessage, OtherError, PeerIncompatible};
    use rustls_pki_types::{ServerName, UnixTime};

    use super::*;

    #[test]
    fn names_become_words() {
        assert_eq!(plain(&AlertDescription::HandshakeFailure), "handshake failure");
        assert_eq!(plain(&AlertDescription::UnknownCA), "unknown CA");
        assert_eq!(plain(&AlertDescription::UnknownPSKIdentity), "unknown PSK identity");
        assert_eq!(plain(&PeerIncompatible::NoCipherSuitesInCommon), "no cipher suites in common");
        assert_eq!(plain(&webpki::Error::PathLenConstraintViolated), "path len constraint violated");
    }

    #[test]
    fn nobody_reads_the_source_of_a_library() {
        let second = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1));
        let other = |error: webpki::Error| CertificateError::Other(OtherError(Arc::new(error)));
        let certificates = [
            CertificateError::BadEncoding,
            CertificateError::Expired,
            CertificateError::ExpiredContext { time: second, not_after: second },
            CertificateError::NotValidYet,
            CertificateError::Revoked,
            CertificateError::UnhandledCriticalExtension,
            CertificateError::UnknownIssuer,
            CertificateError::UnknownRevocationStatus,
            CertificateError::BadSignature,
            CertificateError::NotValidForName,
            CertificateError::NotValidForNameContext {
                expected: ServerName::try_from("relay.test").unwrap(),
                presented: vec!["other.test".into(), "10.0.0.1".into()],
            },
            CertificateError::InvalidPurpose,
            CertificateError::InvalidPurposeContext {
                required: rustls::ExtendedKeyPurpose::ServerAuth,
                presented: vec![rustls::ExtendedKeyPurpose::ClientAuth],
            },
            CertificateError::UnsupportedSignatureAlgorithmContext {
                signature_algorithm_id: vec![1],
                supported_algorithms: vec![],
            },
            CertificateError::ApplicationVerificationFailure,
            other(webpki::Error::CaUsedAsEndEntity),
            other(webpki::Error::UnsupportedCertVersion),
            other(webpki::Error::NameConstraintViolation),
            other(webpki::Error::TrailingData(webpki::DerTypeId::Time)),
            CertificateError::Other(OtherError(Arc::new(Unfit::AuthorityAsServer))),
        ];
        let alerts = (0..=255).map(AlertDescription::from).map(Error::AlertReceived);
        let rest = [
            Error::InvalidMessage(InvalidMessage::InvalidContentType),
            Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13),
            Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedApplicationProtocol),
            Error::PeerMisbehaved(PeerMisbehaved::TooManyEmptyFragments),
            Error::InappropriateMessage { expect_types: vec![], got_type: rustls::ContentType::Heartbeat },
            Error::NoApplicationProtocol,
            Error::PeerSentOversizedRecord,
        ];
        for error in certificates.into_iter().map(Error::InvalidCertificate).chain(alerts).chain(rest) {
            let message = TlsProblem::of(&error).to_string();
            let source = |word: &str| {
                let inner = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
                word.contains(['{', '}', '"'])
                    || inner
                        .chars()
                        .zip(inner.chars().skip(1))
                        .any(|(a, b)| a.is_ascii_lowercase() && b.is_ascii_uppercase())
            };
            let known = ["serverAuth", "keyCertSign", "WebSockets"];
            let found = message
                .split([' ', '(', ')'])
                .find(|word| source(word) && !known.contains(&word.trim_end_matches('.')));
            assert_eq!(found, None, "{error:?} is {message}");
        }
    }
}
