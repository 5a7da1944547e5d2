//! Whether a server's certificate is accepted: the same verdict as Go's `crypto/x509`, and so kubectl, with the same authorities.
//!
//! webpki builds and checks the chains. It leaves two of Go's rules to its user, and this file has them:
//!
//! - **Which authority may vouch.** webpki takes every trust anchor as it is, and looks at no key usage. Go takes a trusted
//!   certificate that is within its time, that is a CA (version 1 has no way to say so), whose usages, where it names some, have
//!   `keyCertSign` and `serverAuth`, and whose path length allows the chain. Go wants the same of an intermediate: those that lack
//!   what webpki does not check are removed before webpki sees them.
//! - **Servers whose certificate says CA:TRUE**, as `openssl req -x509` makes them. webpki refuses each. Go looks at CA:TRUE of
//!   issuers only. Two kinds are accepted here: a certificate that is itself among the trusted ones, to the byte, and one that an
//!   authority has signed directly. The handshake proves the private key in any case; name, time and usage are checked as of every
//!   certificate.
//!
//! The holder of the key of a trusted certificate that may vouch can make one for any name, so accepting that certificate as a
//! server's too gives the holder nothing new. One that may not vouch speaks only for the names in it.

use std::{net::IpAddr, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime, pem::PemObject};
use webpki::{KeyUsage, VerifiedPath};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{ExtendedKeyUsage, GeneralName},
    x509::X509Version,
};

/// Judges servers by a list of trusted certificates.
#[derive(Debug)]
pub struct Verifier {
    trusted: Vec<Trusted>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// One of the trusted certificates.
#[derive(Debug)]
struct Trusted {
    der: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
    /// Its subject, in the bytes in which certificates that it signed name their issuer.
    subject: Vec<u8>,
    time: Time,
    /// Why it may not vouch for others, whatever the time.
    unfit: Option<Unfit>,
    /// How many intermediates may stand between it and a server.
    path_len: Option<u32>,
}

/// Why none of the trusted certificates vouches for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Its time is over, or has not begun.
    #[error("the authority that signed it has expired, or is not valid yet")]
    Time,
    /// No basicConstraints with CA:TRUE.
    #[error("what signed it is no authority: that certificate does not say CA:TRUE")]
    NotAnAuthority,
    /// A keyUsage without keyCertSign.
    #[error("what signed it may not sign certificates: its key usage has no keyCertSign")]
    NoSigning,
    /// An extendedKeyUsage without serverAuth.
    #[error("what signed it is not for servers: its extended key usage has no serverAuth")]
    NotForServers,
    /// More intermediates than a basicConstraints allows.
    #[error("an authority it was signed through allows no such long chain: its path length is smaller")]
    TooLong,
    /// CA:TRUE, and signed by none of the trusted ones directly.
    #[error(
        "it is an authority itself (CA:TRUE), which works where it is trusted itself or signed by a trusted authority directly"
    )]
    AuthorityAsServer,
}

impl From<Unfit> for Error {
    fn from(unfit: Unfit) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(unfit))))
    }
}

/// The time in which a certificate is valid, in seconds since 1970.
#[derive(Debug, Clone, Copy)]
struct Time {
    from: i64,
    until: i64,
}

impl Time {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self { from: validity.not_before.timestamp(), until: validity.not_after.timestamp() }
    }

    fn check(self, now: UnixTime) -> Result<(), CertificateError> {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        match () {
            () if now < self.from => Err(CertificateError::NotValidYet),
            () if now > self.until => Err(CertificateError::Expired),
            () => Ok(()),
        }
    }
}

impl Trusted {
    /// `None` where the certificate cannot be read.
    fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let certificate = parse(der)?;
        let mut roots = RootCertStore::empty();
        roots.add(der.clone()).ok()?;
        Some(Self {
            subject: certificate.subject().as_raw().to_vec(),
            time: Time::of(&certificate),
            unfit: unfit(&certificate),
            path_len: certificate.basic_constraints().ok().flatten().and_then(|basic| basic.value.path_len_constraint),
            anchor: roots.roots.pop()?,
            der: der.clone().into_owned(),
        })
    }

    /// Whether it may vouch for others now.
    fn check(&self, now: UnixTime) -> Result<(), Unfit> {
        match self.unfit {
            Some(unfit) => Err(unfit),
            None => self.time.check(now).map_err(|_| Unfit::Time),
        }
    }

    /// Whether it has signed this certificate.
    fn signed(&self, certificate: &X509Certificate<'_>, algorithms: &WebPkiSupportedAlgorithms) -> bool {
        let Ok(own) = webpki::EndEntityCert::try_from(&self.der) else { return false };
        let signed = certificate.tbs_certificate.as_ref();
        self.subject == certificate.issuer().as_raw()
            && algorithms
                .all
                .iter()
                .any(|algorithm| own.verify_signature(*algorithm, signed, &certificate.signature_value.data).is_ok())
    }
}

impl Verifier {
    /// From the certificates that can be read, as Go's `AppendCertsFromPEM` takes them; `None` where none can.
    #[must_use]
    pub fn new<'a>(certificates: impl IntoIterator<Item = CertificateDer<'a>>) -> Option<Self> {
        let trusted: Vec<_> = certificates.into_iter().filter_map(|der| Trusted::read(&der)).collect();
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        (!trusted.is_empty()).then_some(Self { trusted, algorithms })
    }

    fn check(
        &self,
        first: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        // webpki's reading comes first: it knows no version but 3 and refuses critical extensions it does not know.
        let parsed = ParsedCertificate::try_from(first)?;
        let certificate = parse(first).ok_or(CertificateError::BadEncoding)?;
        if self.trusted.iter().any(|trusted| trusted.der == *first) {
            check_server(&certificate, now)?;
        } else if certificate.is_ca() {
            check_server(&certificate, now)?;
            // Only webpki checks name constraints, so an authority that has some does not vouch here.
            let vouches = |trusted: &Trusted| {
                let may = trusted.check(now).is_ok() && trusted.anchor.name_constraints.is_none();
                may && trusted.signed(&certificate, &self.algorithms)
            };
            let signed_itself = certificate.issuer().as_raw() == certificate.subject().as_raw();
            match self.trusted.iter().any(vouches) {
                true => {}
                false if signed_itself => return Err(CertificateError::UnknownIssuer.into()),
                false => return Err(Unfit::AuthorityAsServer.into()),
            }
        } else {
            self.check_chain(first, more, now).map_err(|error| self.why(error, &certificate, more, now))?;
        }
        verify_server_name(&parsed, name).map_err(|error| with_names(error, name, &certificate))
    }

    /// Checks that a trusted certificate has signed it, through intermediates that may sign.
    fn check_chain(&self, first: &CertificateDer<'_>, more: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        let may_sign = |der: &&CertificateDer<'_>| parse(der).is_some_and(|certificate| unfit(&certificate).is_none());
        let more: Vec<_> = more.iter().filter(may_sign).cloned().collect();
        let may_vouch = self.trusted.iter().filter(|trusted| trusted.check(now).is_ok());
        let roots = RootCertStore { roots: may_vouch.clone().map(|trusted| trusted.anchor.clone()).collect() };
        // A trust anchor says nothing of its path length.
        let is_short = |path: &VerifiedPath<'_>| {
            let count = path.intermediate_certificates().count();
            let allows = |trusted: &Trusted| {
                let enough = trusted.path_len.is_none_or(|most| usize::try_from(most).is_ok_and(|most| count <= most));
                enough && trusted.anchor == *path.anchor()
            };
            if may_vouch.clone().any(allows) { Ok(()) } else { Err(webpki::Error::PathLenConstraintViolated) }
        };
        let server = webpki::EndEntityCert::try_from(first).map_err(|_| CertificateError::BadEncoding)?;
        let usage = KeyUsage::server_auth();
        match server.verify_for_usage(self.algorithms.all, &roots.roots, &more, now, usage, None, Some(&is_short)) {
            Ok(_) => Ok(()),
            Err(webpki::Error::PathLenConstraintViolated) => Err(Unfit::TooLong.into()),
            // The same again without the path length, for the error as rustls has it.
            Err(_) => {
                let parsed = ParsedCertificate::try_from(first)?;
                verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &more, now, self.algorithms.all)?;
                Err(Unfit::TooLong.into())
            }
        }
    }

    /// Makes "unknown issuer" precise: the issuer may be a trusted certificate that may not vouch, or an intermediate that may not
    /// sign.
    fn why(
        &self,
        error: Error,
        certificate: &X509Certificate<'_>,
        more: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Error {
        if error != Error::InvalidCertificate(CertificateError::UnknownIssuer) {
            return error;
        }
        let more: Vec<_> = more.iter().filter_map(parse).collect();
        let chain: Vec<_> = std::iter::once(certificate).chain(&more).collect();
        let signed = |trusted: &&Trusted| chain.iter().any(|shown| trusted.signed(shown, &self.algorithms));
        let known = self.trusted.iter().filter(|trusted| trusted.check(now).is_err()).find(signed);
        let not_known = || {
            chain.iter().skip(1).filter(|shown| shown.subject() == certificate.issuer()).find_map(|shown| unfit(shown))
        };
        known.and_then(|trusted| trusted.check(now).err()).or_else(not_known).map_or(error, Error::from)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        first: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(first, more, name, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The certificates of a PEM text that can be read, and how many blocks there are that cannot.
///
/// Blocks of other kinds, and blocks that are not base64, are passed over as in Go's `pem.Decode`.
#[must_use]
pub fn readable(pem: &[u8]) -> (Vec<CertificateDer<'static>>, usize) {
    let (mut read, mut unreadable) = (Vec::new(), 0);
    for block in CertificateDer::pem_slice_iter(pem) {
        match block {
            Ok(der) if Trusted::read(&der).is_some() => read.push(der),
            _ => unreadable += 1,
        }
    }
    (read, unreadable)
}

/// The subject's public key (SubjectPublicKeyInfo, DER) of a certificate of any version, where it can be read.
#[must_use]
pub fn public_key(der: &CertificateDer<'_>) -> Option<Vec<u8>> {
    Some(parse(der)?.public_key().raw.to_vec())
}

/// Reads one certificate, which must be all of the bytes.
fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], certificate)) => Some(certificate),
        _ => None,
    }
}

/// Go's `CheckSignatureFrom` and `checkChainForKeyUsage`, of an issuer. An extension that cannot be read is no permission.
fn unfit(certificate: &X509Certificate<'_>) -> Option<Unfit> {
    let is_authority = match certificate.basic_constraints() {
        Ok(Some(constraints)) => constraints.value.ca,
        Ok(None) => certificate.version() != X509Version::V3,
        Err(_) => false,
    };
    let may_sign = match certificate.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(_) => false,
    };
    match () {
        () if !is_authority => Some(Unfit::NotAnAuthority),
        () if !may_sign => Some(Unfit::NoSigning),
        () if !is_for_servers(certificate) => Some(Unfit::NotForServers),
        () => None,
    }
}

/// Checks time and usage of a server's own certificate, for the cases in which webpki does not.
fn check_server(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), Error> {
    Time::of(certificate).check(now)?;
    if is_for_servers(certificate) { Ok(()) } else { Err(CertificateError::InvalidPurpose.into()) }
}

fn is_for_servers(certificate: &X509Certificate<'_>) -> bool {
    let allows = |usage: &ExtendedKeyUsage<'_>| usage.server_auth || usage.any;
    match certificate.extended_key_usage() {
        Ok(usage) => usage.is_none_or(|usage| allows(usage.value)),
        Err(_) => false,
    }
}

/// Adds to the error of a wrong name the names that the certificate has, as a person writes them.
fn with_names(error: Error, name: &ServerName<'_>, certificate: &X509Certificate<'_>) -> Error {
    use CertificateError::{NotValidForName, NotValidForNameContext};
    if !matches!(error, Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) {
        return error;
    }
    let names = certificate.subject_alternative_name().ok().flatten();
    let presented = names.iter().flat_map(|names| &names.value.general_names).filter_map(shown).collect();
    NotValidForNameContext { expected: name.to_owned(), presented }.into()
}

fn shown(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|ip| IpAddr::from(ip).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|ip| IpAddr::from(ip).to_string()),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests;
