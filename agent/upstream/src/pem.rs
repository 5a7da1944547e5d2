//! PEM: only blocks of the wanted kinds leave this file, so no comment of a bundle is passed on.

use mykube_dial::tls;
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use zeroize::Zeroizing;

/// What is wrong with a PEM text, as the end of a sentence.
pub(crate) type Problem = &'static str;

const NO_CERTIFICATE: Problem =
    "has no certificate in PEM form (`-----BEGIN CERTIFICATE-----`): fetch it again from your cluster's tool";
const UNREADABLE: Problem =
    "has no certificate that can be read: fetch it again from your cluster's tool (`openssl x509 -text` reads one)";
const NO_KEY: Problem =
    "has no private key in PEM form (`-----BEGIN ... PRIVATE KEY-----`): fetch it again from your cluster's tool";
const ENCRYPTED_KEY: Problem =
    "is an encrypted private key, which kubectl cannot use either: decrypt it with `openssl pkey`";
const MISMATCH: Problem = "does not belong to the client certificate beside it: fetch both again";

/// The authorities of a PEM text, at least one, and how many cannot be read: those are skipped, as by kubectl.
pub(crate) fn authorities(bytes: &[u8]) -> Result<(String, usize), Problem> {
    let (readable, unreadable) = tls::readable(bytes);
    if readable.is_empty() {
        return Err(if unreadable == 0 { NO_CERTIFICATE } else { UNREADABLE });
    }
    // Only blocks that could be read are passed on, in their own text.
    let text: String = split(&blocks(bytes, |label| label == "CERTIFICATE"))
        .filter(|block| CertificateDer::from_pem_slice(block.as_bytes()).is_ok_and(|der| readable.contains(&der)))
        .collect();
    Ok((text, unreadable))
}

/// The certificates of a client, its own one first.
pub(crate) fn certificates(bytes: &[u8]) -> Result<String, Problem> {
    let pem = blocks(bytes, |label| label == "CERTIFICATE");
    match CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>() {
        Ok(found) if !found.is_empty() => Ok(pem.to_string()),
        _ => Err(NO_CERTIFICATE),
    }
}

/// The private key of a PEM text.
pub(crate) fn private_key(bytes: &[u8]) -> Result<Zeroizing<String>, Problem> {
    if find(bytes, b"ENCRYPTED PRIVATE KEY") || find(bytes, b"Proc-Type: 4,ENCRYPTED") {
        return Err(ENCRYPTED_KEY);
    }
    let pem = blocks(bytes, |label| label.ends_with("PRIVATE KEY"));
    match PrivateKeyDer::from_pem_slice(pem.as_bytes()) {
        Ok(_) => Ok(pem),
        Err(_) => Err(NO_KEY),
    }
}

/// Whether a key can belong to a certificate. Kinds that this build cannot check pass: the API server decides.
pub(crate) fn belongs(certificate: &str, key: &str) -> Result<(), Problem> {
    let own = CertificateDer::from_pem_slice(certificate.as_bytes()).ok();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).ok().and_then(|key| any_supported_type(&key).ok());
    let (Some(own), Some(key)) = (own, key.as_ref().and_then(|key| key.public_key())) else { return Ok(()) };
    match tls::public_key(&own) {
        Some(of) if of != *key.as_ref() => Err(MISMATCH),
        _ => Ok(()),
    }
}

/// The blocks with a wanted label, with plain line ends.
fn blocks(bytes: &[u8], wanted: impl Fn(&str) -> bool) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(bytes.len() + 1));
    let mut inside: Option<String> = None;
    for line in bytes.split(|b| *b == b'\n') {
        let Ok(line) = std::str::from_utf8(line).map(str::trim) else { continue };
        if let Some(label) = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----")) {
            inside = wanted(label).then(|| format!("-----END {label}-----"));
        }
        if let Some(end) = &inside {
            out.push_str(line);
            out.push('\n');
            if line == end {
                inside = None;
            }
        }
    }
    out
}

/// Splits the text into its blocks.
fn split(blocks: &str) -> impl Iterator<Item = &str> {
    let begins: Vec<_> = blocks.match_indices("-----BEGIN ").map(|(at, _)| at).chain([blocks.len()]).collect();
    (1..begins.len()).map(move |next| &blocks[begins[next - 1]..begins[next]])
}

fn find(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_that_cannot_be_read_are_left_out_and_counted() {
        let good = || rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert.pem();
        let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let (first, last) = (good(), good());
        let (text, unreadable) = authorities(format!("{first}{bad}# a comment\n{last}{bad}").as_bytes()).unwrap();
        assert_eq!(unreadable, 2);
        assert_eq!(text.replace(['\r', '\n'], ""), format!("{first}{last}").replace(['\r', '\n'], ""));
        assert!(matches!(authorities(bad.as_bytes()), Err(problem) if problem == UNREADABLE));
    }
}
