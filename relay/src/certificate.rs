//! The names and the validity of the relay's own certificate. Ends decide whether they accept it.

use std::net::IpAddr;

use time::{Duration, OffsetDateTime};
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

/// The operator is warned when a tenth of the certificate's life is left, and at most two weeks before its end. Automatic
/// renewal comes earlier, typically with a third of its life left; and nobody is warned for months of a long-lived one.
const LATE_PART: i32 = 10;
const LATE: Duration = Duration::days(14);

/// The names and the time of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// Its first name that is a host: a DNS name without a wildcard, or an address.
    pub(crate) host: Option<String>,
    from: OffsetDateTime,
    until: OffsetDateTime,
}

impl Certificate {
    /// Reads what is needed of an X.509 certificate in DER form; `None` if it cannot be read.
    pub(crate) fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = parse_x509_certificate(der).ok()?;
        let names = certificate.subject_alternative_name().ok().flatten();
        let host = names.and_then(|names| names.value.general_names.iter().find_map(host));
        let validity = certificate.validity();
        Some(Self { host, from: validity.not_before.to_datetime(), until: validity.not_after.to_datetime() })
    }

    /// A warning about its validity, if there is reason for one. The text continues "the TLS certificate".
    pub(crate) fn complaint(&self, now: OffsetDateTime) -> Option<String> {
        let late = ((self.until - self.from) / LATE_PART).min(LATE);
        if now < self.from {
            let from = self.from;
            Some(format!("is not valid before {from}: ends do not take it. Check this machine's clock"))
        } else if now > self.until {
            let until = self.until;
            Some(format!("has expired on {until}: ends do not take it. Renew it, the relay sees that by itself"))
        } else if self.until - now < late {
            Some(format!("expires on {}: renew it, the relay sees that by itself", self.until))
        } else {
            None
        }
    }
}

fn host(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) if !name.contains('*') => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => Some(IpAddr::from([a, b, c, d]).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| format!("[{}]", IpAddr::from(bytes))),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str], days: i64) -> Certificate {
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.not_before = OffsetDateTime::UNIX_EPOCH;
        params.not_after = OffsetDateTime::UNIX_EPOCH + Duration::days(days);
        let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        Certificate::read(made.der()).unwrap()
    }

    #[test]
    fn a_certificate_that_ends_is_complained_about() {
        let complaint = |days, at: i64| {
            certificate(&["relay.test"], days).complaint(OffsetDateTime::UNIX_EPOCH + Duration::days(at))
        };
        let says = |days, at, what: &str| complaint(days, at).is_some_and(|said| said.contains(what));
        assert!(says(90, -1, "not valid before 1970-01-01"));
        assert!(says(90, 91, "has expired on 1970-04-01"));
        assert!(says(90, 82, "expires on 1970-04-01"));
        assert_eq!(complaint(90, 80), None);
        assert_eq!(complaint(825, 810), None, "two weeks are enough of a long one");
        assert!(says(825, 812, "expires"));
    }

    #[test]
    fn the_first_name_that_is_a_host_is_taken() {
        let host = |names: &[&str]| certificate(names, 1).host;
        assert_eq!(host(&["*.relay.test", "relay.test", "other.test"]).as_deref(), Some("relay.test"));
        assert_eq!(host(&["192.0.2.1"]).as_deref(), Some("192.0.2.1"));
        assert_eq!(host(&["2001:db8::1"]).as_deref(), Some("[2001:db8::1]"));
        assert_eq!(host(&["*.relay.test"]), None);
        assert_eq!(Certificate::read(b"nonsense"), None);
    }
}
