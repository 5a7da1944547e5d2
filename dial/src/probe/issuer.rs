//! Who issued a certificate, for a message: the few bytes of X.509 (RFC 5280 section 4.1) that this takes. Nothing is decided
//! by it.

/// Common name and organisation of the issuer, those that the certificate has.
pub(super) fn name(certificate: &[u8]) -> Option<String> {
    let (tag, certificate, _) = element(certificate)?;
    let (inner, tbs, _) = element(certificate)?;
    if (tag, inner) != (SEQUENCE, SEQUENCE) {
        return None;
    }
    let (first, _, after) = element(tbs)?;
    // The version is optional; serial number and signature algorithm follow.
    let after_serial = if first == VERSION { element(after)?.2 } else { after };
    let (tag, mut issuer, _) = element(element(after_serial)?.2)?;
    if tag != SEQUENCE {
        return None;
    }
    let (mut common, mut organisation) = (None, None);
    while let Some((SET, mut set, rest)) = element(issuer) {
        issuer = rest;
        while let Some((SEQUENCE, pair, rest)) = element(set) {
            set = rest;
            let (OBJECT_ID, id, value) = element(pair)? else { return None };
            let (_, text, _) = element(value)?;
            let text = String::from_utf8_lossy(text).into_owned();
            match id {
                COMMON_NAME => common = Some(text),
                ORGANISATION => organisation = Some(text),
                _ => {}
            }
        }
    }
    let parts: Vec<_> = common.into_iter().chain(organisation).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

const OBJECT_ID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
/// 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// 2.5.4.10.
const ORGANISATION: &[u8] = &[0x55, 0x04, 0x0a];

/// The first DER element (X.690 section 8.1): its tag, its content, and the bytes after it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, Issuer, KeyPair};

    use super::*;

    fn certificate(names: &[(DnType, &str)]) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, name) in names {
            params.distinguished_name.push(kind.clone(), *name);
        }
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        CertificateParams::new(vec!["relay.test".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap().der().to_vec()
    }

    #[test]
    fn the_issuer_is_named() {
        let der = certificate(&[
            (DnType::CountryName, "DE"),
            (DnType::OrganizationName, "Zscaler Inc."),
            (DnType::CommonName, "Zürich Root"),
        ]);
        assert_eq!(name(&der).as_deref(), Some("Zürich Root, Zscaler Inc."));
        assert_eq!(name(&certificate(&[(DnType::CountryName, "DE")])), None);
        assert_eq!(name(&certificate(&[])), None);
    }

    #[test]
    fn no_bytes_are_too_strange() {
        let der = certificate(&[(DnType::CommonName, "CA")]);
        for cut in 0..der.len() {
            let _ = name(&der[..cut]);
            let mut flipped = der.clone();
            flipped[cut] ^= 0xff;
            let _ = name(&flipped);
        }
        assert_eq!(name(&[]), None);
        assert_eq!(name(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
