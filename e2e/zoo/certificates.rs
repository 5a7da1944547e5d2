//! Certificates: which servers Go accepts, and the contents of bundles and clients' files.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose as Purpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose as Usage, date_time_ymd,
};

use super::entry::{CONTEXT, Entry, USER, config, with_user};
use crate::support::certs::Signed;

#[path = "../../agent/upstream/tests/common/version_1.rs"]
mod version_1;

type Authority = Issuer<'static, KeyPair>;

fn params(name: &str, is_ca: IsCa) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "api.test".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = is_ca;
    params
}

fn ca() -> CertificateParams {
    params("ca", IsCa::Ca(BasicConstraints::Unconstrained))
}

fn server() -> CertificateParams {
    params("server", IsCa::NoCa)
}

/// Like a server's certificate made by `openssl req -x509`.
fn ca_server() -> CertificateParams {
    params("server", IsCa::Ca(BasicConstraints::Unconstrained))
}

fn with(mut params: CertificateParams, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    change(&mut params);
    params
}

fn expired(params: CertificateParams) -> CertificateParams {
    with(params, |params| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    })
}

fn own(params: CertificateParams) -> (Signed, Authority) {
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    (Signed { certificate, key: key.serialize_pem() }, Issuer::new(params, key))
}

fn signed(params: &CertificateParams, by: &Authority) -> Signed {
    let key = KeyPair::generate().unwrap();
    Signed { certificate: params.signed_by(&key, by).unwrap().pem(), key: key.serialize_pem() }
}

fn base64(text: &str) -> String {
    data_encoding::BASE64.encode(text.as_bytes())
}

/// A server that shows `shown`, and a kubeconfig that trusts `bundle`.
fn of(name: &'static str, bundle: &str, shown: &Signed) -> Entry {
    let cluster = format!("server: 'https://$SERVER', certificate-authority-data: {}", base64(bundle));
    Entry::new(name, config(&cluster, USER, CONTEXT)).served_by(shown.server_for_all())
}

fn itself(name: &'static str, params: CertificateParams) -> Entry {
    let (own, _) = own(params);
    of(name, &own.certificate, &own)
}

fn by(name: &'static str, authority: CertificateParams, server: &CertificateParams) -> Entry {
    let (root, issuer) = own(authority);
    of(name, &root.certificate, &signed(server, &issuer))
}

/// A server signed by an intermediate, which it shows.
fn through(name: &'static str, middle: CertificateParams, authority: CertificateParams) -> Entry {
    let (root, issuer) = own(authority);
    let key = KeyPair::generate().unwrap();
    let intermediate = middle.signed_by(&key, &issuer).unwrap().pem();
    let server = signed(&server(), &Issuer::new(middle, key));
    of(name, &root.certificate, &Signed { certificate: server.certificate + &intermediate, key: server.key })
}

pub(super) fn entries() -> Vec<Entry> {
    let (root, issuer) = own(ca());
    let (other, _) = own(params("other", IsCa::Ca(BasicConstraints::Unconstrained)));
    let good = signed(&server(), &issuer);
    let lonely = signed(&server(), &issuer);
    let middle_key = KeyPair::generate().unwrap();
    let middle_params = params("middle", IsCa::Ca(BasicConstraints::Unconstrained));
    let middle = middle_params.signed_by(&middle_key, &issuer).unwrap().pem();
    let middle_issuer = Issuer::new(middle_params, middle_key);
    let chained = |params: &CertificateParams| {
        let first = signed(params, &middle_issuer);
        Signed { certificate: format!("{}{middle}", first.certificate), key: first.key }
    };
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let no_base64 = "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n";
    let client = |purposes: Vec<Purpose>, params| with(params, |params| params.extended_key_usages = purposes);
    let named = |name: &str| {
        format!(
            "server: 'https://$SERVER', tls-server-name: {name}, certificate-authority-data: {}",
            base64(&root.certificate)
        )
    };
    let usages = |usages| {
        let middle = params("middle", IsCa::Ca(BasicConstraints::Unconstrained));
        with(middle, |params| params.key_usages = usages)
    };
    let short = |most| params("ca", IsCa::Ca(BasicConstraints::Constrained(most)));
    let (version_1, key) = version_1::version_1(|der| data_encoding::BASE64.encode(der));
    let pair = |certificate: &str, key: &str| {
        with_user(&format!("client-certificate-data: {}, client-key-data: {}", base64(certificate), base64(key)))
    };
    const NAMES: &str = "a chain with such a server is not worth a chain builder of our own: trust its certificate itself, or have it made CA:FALSE";
    const ANY: &str = "webpki wants serverAuth where there is an extended key usage, whatever else it has";
    vec![
        of("server: signed by the CA", &root.certificate, &good),
        of("server: signed by another", &other.certificate, &good),
        of("server: signed by a namesake of the CA", &own(ca()).0.certificate, &good),
        of("server: signed by one of two", &format!("{}{}", other.certificate, root.certificate), &good),
        of("server: with an intermediate", &root.certificate, &chained(&server())),
        of("server: an intermediate is trusted", &middle, &signed(&server(), &middle_issuer)),
        of("server: an intermediate is missing", &root.certificate, &signed(&server(), &middle_issuer)),
        of("server: expired", &root.certificate, &signed(&expired(server()), &issuer)),
        of("server: for clients", &root.certificate, &signed(&client(vec![Purpose::ClientAuth], server()), &issuer)),
        of("server: for any use", &root.certificate, &signed(&client(vec![Purpose::Any], server()), &issuer))
            .differs(ANY),
        itself("itself trusted: CA:TRUE", ca_server()),
        itself("itself trusted: no basicConstraints", server()),
        itself("itself trusted: CA:FALSE", params("server", IsCa::ExplicitNoCa)),
        itself(
            "itself trusted: for signing only",
            with(ca_server(), |params| params.key_usages = vec![Usage::KeyCertSign]),
        ),
        itself("itself trusted: expired", expired(ca_server())),
        itself("itself trusted: for clients", client(vec![Purpose::ClientAuth], ca_server())),
        itself("itself trusted: for any use", client(vec![Purpose::Any], ca_server())),
        itself("itself trusted: for another name", {
            let mut params = CertificateParams::new(vec!["other.test".to_owned()]).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params
        }),
        of("itself trusted: its authority is not", &lonely.certificate, &lonely),
        of("itself trusted: made anew with another key", &own(ca_server()).0.certificate, &own(ca_server()).0),
        by("CA:TRUE and signed by the CA", ca(), &ca_server()),
        of("CA:TRUE and signed by an intermediate", &root.certificate, &chained(&ca_server())).differs(NAMES),
        by("CA: expired", expired(ca()), &server()),
        by("CA: not yet valid", with(ca(), |params| params.not_before = date_time_ymd(2090, 1, 1)), &server()),
        by("CA: no basicConstraints", params("ca", IsCa::NoCa), &server()),
        by("CA: CA:FALSE", params("ca", IsCa::ExplicitNoCa), &server()),
        by(
            "CA: without keyCertSign",
            with(ca(), |params| params.key_usages = vec![Usage::DigitalSignature]),
            &server(),
        ),
        by("CA: with keyCertSign", with(ca(), |params| params.key_usages = vec![Usage::KeyCertSign]), &server()),
        by("CA: for clients", client(vec![Purpose::ClientAuth], ca()), &server()),
        by("CA: for any use", client(vec![Purpose::Any], ca()), &server()),
        by("CA: path length 0", short(0), &server()),
        through("intermediate: without keyCertSign", usages(vec![Usage::DigitalSignature]), ca()),
        through("intermediate: with keyCertSign", usages(vec![Usage::KeyCertSign]), ca()),
        through("intermediate: no basicConstraints", params("middle", IsCa::NoCa), ca()),
        through("intermediate: for clients", client(vec![Purpose::ClientAuth], usages(Vec::new())), ca()),
        through("intermediate: expired", expired(usages(Vec::new())), ca()),
        through("intermediate: of a CA with path length 0", usages(Vec::new()), short(0)),
        through("intermediate: of a CA with path length 1", usages(Vec::new()), short(1)),
        Entry::new("name: the certificate's", config(&named("api.test"), USER, CONTEXT))
            .served_by(good.server_for_all()),
        Entry::new("name: in capitals", config(&named("API.test"), USER, CONTEXT)).served_by(good.server_for_all()),
        Entry::new("name: another", config(&named("other.test"), USER, CONTEXT)).served_by(good.server_for_all()),
        of("bundle: a certificate that cannot be read first", &format!("{broken}{}", root.certificate), &good),
        of("bundle: one that is no base64 last", &format!("{}{no_base64}", root.certificate), &good),
        of("bundle: text between", &format!("# a\n{}# b\n{}", other.certificate, root.certificate), &good),
        of("bundle: a private key in it", &format!("{}{}", other.key, root.certificate), &good),
        of("bundle: only what cannot be read", broken, &good),
        of("bundle: without line ends at the end", root.certificate.trim_end(), &good),
        of("bundle: with carriage returns", &root.certificate.replace('\n', "\r\n"), &good),
        Entry::new("client: a certificate of version 1", pair(&version_1, &key)),
        Entry::new("client: of version 1 with another's key", pair(&version_1, &good.key)),
        Entry::new("client: expired", {
            let (own, _) = own(expired(server()));
            pair(&own.certificate, &own.key)
        }),
        Entry::new(
            "client: a chain with something unreadable behind",
            pair(&format!("{}{broken}", good.certificate), &good.key),
        ),
    ]
}
