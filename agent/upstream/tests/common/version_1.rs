//! A certificate of version 1, as `openssl x509 -req` used to make: one of version 3 without its version and
//! extensions, signed anew.

use rcgen::{CertificateParams, KeyPair, SigningKey as _};

/// The certificate and its key, in PEM form; `encode` is base64's.
pub(crate) fn version_1(encode: impl Fn(&[u8]) -> String) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let whole = CertificateParams::default().self_signed(&key).unwrap();
    let parts = children_of(children(whole.der())[0].1);
    let signature = children(whole.der())[1];
    let of_version_1 = parts.iter().filter(|(tag, _)| !matches!(tag, 0xa0 | 0xa3));
    let inner: Vec<u8> = of_version_1.flat_map(|(tag, content)| element(*tag, content)).collect();
    let inner = element(0x30, &inner);
    let signed = [&[0], &*key.sign(&inner).unwrap()].concat();
    let der = element(0x30, &[inner, element(signature.0, signature.1), element(0x03, &signed)].concat());
    let text = encode(&der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    (format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n")), key.serialize_pem())
}

/// Tags and contents of the elements within a DER element.
fn children(der: &[u8]) -> Vec<(u8, &[u8])> {
    children_of(split(der).1)
}

fn children_of(mut content: &[u8]) -> Vec<(u8, &[u8])> {
    let mut found = Vec::new();
    while !content.is_empty() {
        let (tag, inner, rest) = split(content);
        found.push((tag, inner));
        content = rest;
    }
    found
}

fn split(der: &[u8]) -> (u8, &[u8], &[u8]) {
    let (length, start) = match der[1] {
        0x81 => (usize::from(der[2]), 3),
        0x82 => (usize::from(der[2]) << 8 | usize::from(der[3]), 4),
        short => (usize::from(short), 2),
    };
    (der[0], &der[start..start + length], &der[start + length..])
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    let head = match (high, low) {
        (0, 0..0x80) => vec![tag, low],
        (0, _) => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [head.as_slice(), content].concat()
}
