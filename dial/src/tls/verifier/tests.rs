//! Each verdict is that of Go's `crypto/x509`, except where a test says otherwise.

use std::time::Duration;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose as Purpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose as Usage, NameConstraints, date_time_ymd,
};

use super::*;
use crate::error::TlsProblem;

const HOST: &str = "api.test";

fn params(name: &str, is_ca: IsCa) -> CertificateParams {
    let mut params = CertificateParams::new(vec![HOST.to_owned(), "10.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = is_ca;
    params
}

fn ca(name: &str) -> CertificateParams {
    params(name, IsCa::Ca(BasicConstraints::Unconstrained))
}

fn server() -> CertificateParams {
    params("server", IsCa::NoCa)
}

/// As `openssl req -x509` makes a server's certificate.
fn ca_server() -> CertificateParams {
    ca("server")
}

fn expired(mut params: CertificateParams) -> CertificateParams {
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(2002, 1, 1);
    params
}

fn with(mut params: CertificateParams, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    change(&mut params);
    params
}

/// A certificate that has signed itself, and what signs with its key.
fn own(params: CertificateParams) -> (Certificate, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (certificate, Issuer::new(params, key))
}

fn signed(params: &CertificateParams, issuer: &Issuer<'_, KeyPair>) -> Certificate {
    params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap()
}

fn check(verifier: &Verifier, chain: &[CertificateDer<'_>], name: &str) -> Result<(), TlsProblem> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_900_000_000));
    verifier.check(&chain[0], &chain[1..], &name, now).map_err(|error| TlsProblem::of(&error))
}

fn verdict_for(name: &str, trusted: &[&Certificate], chain: &[&Certificate]) -> Result<(), TlsProblem> {
    let chain: Vec<_> = chain.iter().map(|certificate| certificate.der().clone()).collect();
    check(&Verifier::new(trusted.iter().map(|certificate| certificate.der().clone())).unwrap(), &chain, name)
}

fn verdict(trusted: &[&Certificate], chain: &[&Certificate]) -> Result<(), TlsProblem> {
    verdict_for(HOST, trusted, chain)
}

fn unfit(unfit: Unfit) -> Result<(), TlsProblem> {
    Err(TlsProblem::Certificate(unfit.to_string()))
}

fn is_purpose(result: &Result<(), TlsProblem>) -> bool {
    matches!(result, Err(TlsProblem::Certificate(why)) if why.starts_with("it is not for servers"))
}

const UNTRUSTED: Result<(), TlsProblem> = Err(TlsProblem::Untrusted);
const EXPIRED: Result<(), TlsProblem> = Err(TlsProblem::Expired);
const NOT_YET: Result<(), TlsProblem> = Err(TlsProblem::NotYetValid);

#[test]
fn chains() {
    let (root, issuer) = own(ca("root"));
    let middle_key = KeyPair::generate().unwrap();
    let middle = ca("middle").signed_by(&middle_key, &issuer).unwrap();
    let middle_issuer = Issuer::new(ca("middle"), middle_key);
    assert_eq!(verdict(&[&root], &[&signed(&server(), &issuer)]), Ok(()));
    assert_eq!(verdict(&[&root], &[&signed(&server(), &middle_issuer), &middle]), Ok(()));
    assert_eq!(verdict(&[&middle], &[&signed(&server(), &middle_issuer)]), Ok(()), "a trusted one need not be a root");
    let without_middle = verdict(&[&root], &[&signed(&server(), &middle_issuer)]);
    assert_eq!(without_middle, UNTRUSTED);
    let (other, _) = own(ca("other"));
    assert_eq!(verdict(&[&other], &[&signed(&server(), &issuer)]), UNTRUSTED);
    // The same name, another key.
    let (namesake, _) = own(ca("root"));
    let forged = verdict(&[&namesake], &[&signed(&server(), &issuer)]);
    assert_eq!(forged, UNTRUSTED);
    assert_eq!(verdict(&[&root], &[&signed(&expired(server()), &issuer)]), EXPIRED);
    let client = with(server(), |params| params.extended_key_usages = vec![Purpose::ClientAuth]);
    assert!(is_purpose(&verdict(&[&root], &[&signed(&client, &issuer)])));
}

#[test]
fn names() {
    let (root, issuer) = own(ca("root"));
    let (itself, _) = own(ca_server());
    for (trusted, server) in
        [(&root, signed(&server(), &issuer)), (&root, signed(&ca_server(), &issuer)), (&itself, itself.clone())]
    {
        for name in [HOST, "API.test", "10.0.0.1"] {
            assert_eq!(verdict_for(name, &[trusted], &[&server]), Ok(()), "{name}");
        }
        for name in ["other.test", "x.api.test", "10.0.0.2", "::1"] {
            let wrong = Err(TlsProblem::WrongName { presented: "api.test, 10.0.0.1".into() });
            assert_eq!(verdict_for(name, &[trusted], &[&server]), wrong, "{name}");
        }
    }
}

#[test]
fn a_server_whose_certificate_is_trusted_itself() {
    let (root, issuer) = own(ca("root"));
    let (other, _) = own(ca("other"));
    let lonely = signed(&server(), &issuer);
    let explicit = own(params("server", IsCa::ExplicitNoCa)).0;
    let for_signing = with(ca_server(), |params| params.key_usages = vec![Usage::KeyCertSign, Usage::CrlSign]);
    for itself in [own(ca_server()).0, own(for_signing).0, own(server()).0, explicit, lonely] {
        assert_eq!(verdict(&[&other, &itself], &[&itself]), Ok(()));
        // The other certificates that the server sends change nothing.
        assert_eq!(verdict(&[&itself], &[&itself, &root]), Ok(()));
        assert_ne!(verdict(&[&other], &[&itself]), Ok(()), "only where it is trusted");
    }
    // Made anew with the same name and another key.
    assert_eq!(verdict(&[&own(ca_server()).0], &[&own(ca_server()).0]), UNTRUSTED);
    let (late, _) = own(expired(ca_server()));
    assert_eq!(verdict(&[&late], &[&late]), EXPIRED);
    let (early, _) = own(with(ca_server(), |params| params.not_before = date_time_ymd(2100, 1, 1)));
    assert_eq!(verdict(&[&early], &[&early]), NOT_YET);
    let client = with(ca_server(), |params| params.extended_key_usages = vec![Purpose::ClientAuth]);
    let (client, _) = own(client);
    assert!(is_purpose(&verdict(&[&client], &[&client])));
    let any = with(ca_server(), |params| params.extended_key_usages = vec![Purpose::Any]);
    let (any, _) = own(any);
    assert_eq!(verdict(&[&any], &[&any]), Ok(()));
}

#[test]
fn a_server_that_is_an_authority_and_signed_by_a_trusted_one() {
    let (root, issuer) = own(ca("root"));
    assert_eq!(verdict(&[&root], &[&signed(&ca_server(), &issuer)]), Ok(()));
    assert_eq!(verdict(&[&root], &[&signed(&expired(ca_server()), &issuer)]), EXPIRED);
    let client = with(ca_server(), |params| params.extended_key_usages = vec![Purpose::ClientAuth]);
    assert!(is_purpose(&verdict(&[&root], &[&signed(&client, &issuer)])));
    // Another authority, one of the same name with another key, one that may not vouch.
    let not_by = |root| verdict(&[&root], &[&signed(&ca_server(), &issuer)]);
    assert_eq!(not_by(own(ca("other")).0), unfit(Unfit::AuthorityAsServer));
    assert_eq!(not_by(own(ca("root")).0), unfit(Unfit::AuthorityAsServer));
    for params in [expired(ca("root")), params("root", IsCa::NoCa)] {
        let (root, issuer) = own(params);
        assert_eq!(verdict(&[&root], &[&signed(&ca_server(), &issuer)]), unfit(Unfit::AuthorityAsServer));
    }
    // Go builds the longer chain, and checks the constraints; this is not worth a chain builder of our own.
    let middle_key = KeyPair::generate().unwrap();
    let middle = ca("middle").signed_by(&middle_key, &issuer).unwrap();
    let server = signed(&ca_server(), &Issuer::new(ca("middle"), middle_key));
    assert_eq!(verdict(&[&root], &[&server, &middle]), unfit(Unfit::AuthorityAsServer));
    let subtrees = vec![GeneralSubtree::DnsName(HOST.to_owned())];
    let constrained = with(ca("root"), |params| {
        params.name_constraints = Some(NameConstraints { permitted_subtrees: subtrees, excluded_subtrees: Vec::new() });
    });
    let (root, issuer) = own(constrained);
    assert_eq!(verdict(&[&root], &[&signed(&ca_server(), &issuer)]), unfit(Unfit::AuthorityAsServer));
}

#[test]
fn authorities_that_may_not_vouch() {
    for (authority, expected) in [
        (expired(ca("root")), Unfit::Time),
        (with(ca("root"), |params| params.not_before = date_time_ymd(2100, 1, 1)), Unfit::Time),
        (params("root", IsCa::NoCa), Unfit::NotAnAuthority),
        (params("root", IsCa::ExplicitNoCa), Unfit::NotAnAuthority),
        (with(ca("root"), |params| params.key_usages = vec![Usage::DigitalSignature]), Unfit::NoSigning),
        (with(ca("root"), |params| params.extended_key_usages = vec![Purpose::ClientAuth]), Unfit::NotForServers),
    ] {
        let (root, issuer) = own(authority);
        assert_eq!(verdict(&[&root], &[&signed(&server(), &issuer)]), unfit(expected));
        // The error does not name a certificate that only has the same name as the one that signed.
        let (_, other_issuer) = own(ca("root"));
        assert_eq!(verdict(&[&root], &[&signed(&server(), &other_issuer)]), UNTRUSTED);
        // Beside an authority that may vouch, it changes nothing.
        let (good, good_issuer) = own(ca("root"));
        assert_eq!(verdict(&[&root, &good], &[&signed(&server(), &good_issuer)]), Ok(()));
    }
    for usages in [vec![Usage::KeyCertSign], vec![Usage::CrlSign, Usage::KeyCertSign]] {
        let (root, issuer) = own(with(ca("root"), |params| params.key_usages = usages));
        assert_eq!(verdict(&[&root], &[&signed(&server(), &issuer)]), Ok(()));
    }
    for purposes in [vec![Purpose::Any], vec![Purpose::ClientAuth, Purpose::ServerAuth]] {
        let (root, issuer) = own(with(ca("root"), |params| params.extended_key_usages = purposes));
        assert_eq!(verdict(&[&root], &[&signed(&server(), &issuer)]), Ok(()));
    }
}

/// A server, signed by an intermediate like this, signed by a root like that.
fn through(middle: CertificateParams, root: CertificateParams) -> Result<(), TlsProblem> {
    let (root, issuer) = own(root);
    let key = KeyPair::generate().unwrap();
    let intermediate = middle.signed_by(&key, &issuer).unwrap();
    verdict(&[&root], &[&signed(&server(), &Issuer::new(middle, key)), &intermediate])
}

#[test]
fn intermediates_that_may_not_sign() {
    let usages = |usages: Vec<Usage>| with(ca("middle"), |params| params.key_usages = usages);
    // As `openssl req -x509` makes a server's: otherwise the holder of its key could be any server.
    assert_eq!(through(usages(vec![Usage::DigitalSignature]), ca("root")), unfit(Unfit::NoSigning));
    assert_eq!(through(usages(vec![Usage::DigitalSignature, Usage::KeyCertSign]), ca("root")), Ok(()));
    for is_ca in [IsCa::NoCa, IsCa::ExplicitNoCa] {
        assert_eq!(through(params("middle", is_ca), ca("root")), unfit(Unfit::NotAnAuthority));
    }
    let client = with(ca("middle"), |params| params.extended_key_usages = vec![Purpose::ClientAuth]);
    assert_eq!(through(client, ca("root")), unfit(Unfit::NotForServers));
    assert_eq!(through(expired(ca("middle")), ca("root")), EXPIRED);
    // Beside an intermediate that may sign, one that may not changes nothing.
    let (root, issuer) = own(ca("root"));
    let key = KeyPair::generate().unwrap();
    let [may_not, may] =
        [usages(vec![Usage::DigitalSignature]), ca("middle")].map(|p| p.signed_by(&key, &issuer).unwrap());
    let server = signed(&server(), &Issuer::new(ca("middle"), key));
    assert_eq!(verdict(&[&root], &[&server, &may_not, &may]), Ok(()));
}

#[test]
fn path_lengths() {
    let ca = |name: &str, most: Option<u8>| {
        params(name, IsCa::Ca(most.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained)))
    };
    assert_eq!(through(ca("middle", None), ca("root", Some(0))), unfit(Unfit::TooLong));
    assert_eq!(through(ca("middle", None), ca("root", Some(1))), Ok(()));
    assert_eq!(through(ca("middle", Some(0)), ca("root", Some(1))), Ok(()));
    let (root, issuer) = own(ca("root", Some(0)));
    assert_eq!(verdict(&[&root], &[&signed(&server(), &issuer)]), Ok(()));
    assert_eq!(verdict(&[&root], &[&signed(&ca_server(), &issuer)]), Ok(()));
    // Two intermediates.
    for (first, second, last, expected) in [
        (None, None, None, Ok(())),
        (None, Some(0), Some(2), Ok(())),
        (None, None, Some(2), Ok(())),
        (Some(1), Some(0), Some(2), Ok(())),
        (None, None, Some(1), unfit(Unfit::TooLong)),
        (Some(0), None, None, unfit(Unfit::TooLong)),
    ] {
        let (root, issuer) = own(ca("root", last));
        let keys = [KeyPair::generate().unwrap(), KeyPair::generate().unwrap()];
        let outer = ca("outer", first).signed_by(&keys[0], &issuer).unwrap();
        let [outer_key, inner_key] = keys;
        let outer_issuer = Issuer::new(ca("outer", first), outer_key);
        let inner = ca("inner", second).signed_by(&inner_key, &outer_issuer).unwrap();
        let server = signed(&server(), &Issuer::new(ca("inner", second), inner_key));
        assert_eq!(verdict(&[&root], &[&server, &inner, &outer]), expected);
    }
    let key = KeyPair::generate().unwrap();
    let [short, long] = [Some(0), None].map(|most| ca("root", most).self_signed(&key).unwrap());
    let middle_key = KeyPair::generate().unwrap();
    let middle = ca("middle", None).signed_by(&middle_key, &Issuer::new(ca("root", None), key)).unwrap();
    let server = signed(&server(), &Issuer::new(ca("middle", None), middle_key));
    assert_eq!(verdict(&[&short], &[&server, &middle]), unfit(Unfit::TooLong));
    // An authority renewed with the same key: one that allows the chain is enough.
    assert_eq!(verdict(&[&short, &long], &[&server, &middle]), Ok(()));
}

#[test]
fn what_cannot_be_read_in_a_bundle_is_passed_over() {
    let (root, issuer) = own(ca("root"));
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let no_base64 = "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n";
    let key = KeyPair::generate().unwrap().serialize_pem();
    let (read, unreadable) = readable(format!("# a\n{broken}{no_base64}{key}{}{broken}", root.pem()).as_bytes());
    assert_eq!((read.as_slice(), unreadable), ([root.der().clone()].as_slice(), 3));
    let verifier = Verifier::new([CertificateDer::from(vec![0; 4]), root.der().clone()]).unwrap();
    let server = signed(&server(), &issuer);
    assert_eq!(check(&verifier, &[server.der().clone()], HOST), Ok(()));
    assert!(Verifier::new([CertificateDer::from(vec![0; 4])]).is_none());
    // Bytes after a certificate are not part of it.
    let longer = [root.der().as_ref(), &[0]].concat();
    assert!(Verifier::new([CertificateDer::from(longer)]).is_none());
}

#[test]
fn no_bytes_are_too_strange_for_a_server_to_send() {
    let (itself, _) = own(ca_server());
    let (root, issuer) = own(ca("root"));
    let verifier = Verifier::new([itself.der().clone(), root.der().clone()]).unwrap();
    for good in
        [itself.der().clone(), signed(&ca_server(), &issuer).der().clone(), signed(&server(), &issuer).der().clone()]
    {
        assert_eq!(check(&verifier, std::slice::from_ref(&good), HOST), Ok(()));
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut flipped = good.to_vec();
                flipped[at] ^= 1 << bit;
                assert!(check(&verifier, &[CertificateDer::from(flipped)], HOST).is_err(), "byte {at} bit {bit}");
            }
            assert!(check(&verifier, &[CertificateDer::from(&good[..at])], HOST).is_err());
        }
    }
}
