//! Every kind of credentials of a kubeconfig, wrong ones, and files that change.

mod common;
#[path = "credentials/oidc.rs"]
mod oidc;

use std::time::Duration;

use common::{Fixture, base64, identity, version_1};
use mykube_agent_upstream::{KubeconfigError, sourced::FILE_MAX};

#[tokio::test]
async fn fixed_ones() {
    let c = Fixture::with_user("token: ' abc.DEF-1_2~3+4/5== '").credentials().await.unwrap();
    assert_eq!(c.token.as_deref(), Some("abc.DEF-1_2~3+4/5=="));
    let c = Fixture::with_user("username: ann\npassword: 'p w:\"{}'").credentials().await.unwrap();
    assert_eq!((c.username.as_deref(), c.password.as_deref()), (Some("ann"), Some("p w:\"{}")));
    let c = Fixture::with_user("username: ann").credentials().await.unwrap();
    assert_eq!((c.username.as_deref(), c.password.as_deref()), (Some("ann"), Some("")));
    let c = Fixture::with_user("{}").credentials().await.unwrap();
    assert!(c.token.is_none() && c.certificate.is_none() && c.username.is_none() && !c.expiring);
    assert_eq!(format!("{c:?}"), "Credentials");
}

#[tokio::test]
async fn client_certificates_as_data_and_as_files() {
    let (certificate, key) = identity();
    let data = format!("client-certificate-data: {}\nclient-key-data: {}", base64(&certificate), base64(&key));
    let c = Fixture::with_user(&data).credentials().await.unwrap();
    assert!(c.certificate.as_deref().unwrap().starts_with("-----BEGIN CERTIFICATE-----\n"));
    assert!(c.key.as_deref().unwrap().starts_with("-----BEGIN PRIVATE KEY-----\n"));
    assert!(!c.expiring);

    // The file names are wrong on purpose: data wins.
    let both = format!("{data}\nclient-certificate: absent.crt\nclient-key: absent.key");
    assert!(Fixture::with_user(&both).credentials().await.is_ok());

    let f = Fixture::with_user("client-certificate: pki/me.pem\nclient-key: pki/me.pem\ntoken: t");
    assert!(f.failure().await.contains("`client-certificate` of user \"dev\""));
    f.write("pki/me.pem", format!("{key}{certificate}"));
    let files = f.credentials().await.unwrap();
    assert!(!files.certificate.as_deref().unwrap().contains("PRIVATE"));
    assert!(!files.key.as_deref().unwrap().contains("CERTIFICATE"));
    assert_eq!(files.token.as_deref(), Some("t"));
}

#[tokio::test]
async fn a_certificate_of_version_1_is_one() {
    let (certificate, key) = version_1();
    let pair =
        |key: &str| format!("client-certificate-data: {}\nclient-key-data: {}", base64(&certificate), base64(key));
    let c = Fixture::with_user(&pair(&key)).credentials().await.unwrap();
    assert_eq!(c.certificate.as_deref().unwrap().trim(), certificate.trim());
    assert!(
        Fixture::with_user(&pair(&identity().1)).failure().await.contains("does not belong to the client certificate")
    );
}

#[tokio::test]
async fn of_a_bundle_what_cannot_be_read_is_passed_over() {
    let (one, other) = (identity().0.replace("\r\n", "\n"), identity().0.replace("\r\n", "\n"));
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let no_base64 = "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n";
    let with = |bundle: &str| {
        Fixture::with_cluster(&format!("server: https://h\ncertificate-authority-data: {}", base64(bundle)))
    };
    let ca = with(&format!("# CA\n{broken}{one}{no_base64}{other}{broken}")).welcome().await.unwrap().ca.unwrap();
    assert_eq!(ca, format!("{one}{other}"));
    for bundle in [broken, no_base64] {
        assert!(with(bundle).failure().await.contains("no certificate that can be read"), "{bundle}");
    }
    assert!(with("text").failure().await.contains("no certificate in PEM form"));
}

#[tokio::test]
async fn a_token_file_wins_over_the_token_beside_it_while_it_can_be_read() {
    let f = Fixture::with_user("tokenFile: tok\ntoken: fixed");
    assert_eq!(f.credentials().await.unwrap().token.as_deref(), Some("fixed"));
    f.write("tok", "from-file\n");
    let c = f.credentials().await.unwrap();
    assert_eq!(c.token.as_deref(), Some("from-file"));
    assert!(c.expiring);
}

#[tokio::test]
async fn what_is_wrong_is_said_without_showing_it() {
    let (certificate, key) = identity();
    let (other, _) = identity();
    let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let pair = |c: &str, k: &str| format!("client-certificate-data: {}\nclient-key-data: {}", base64(c), base64(k));
    for (user, expected) in [
        ("token: 'hunter2 and more'", "`token` of user \"dev\""),
        ("token: |\n  hunter2", "is not a token"),
        ("token: \"hunter2\\r\\nX-Remote-User: admin\"", "is not a token"),
        ("client-certificate-data: '%%hunter2'", "`client-certificate-data` of user \"dev\""),
        ("client-certificate-data: '%%hunter2'", "is not valid base64"),
        (
            &format!("client-certificate-data: {}\nclient-key-data: 'aHVudGVyM'", base64(&certificate)),
            "`client-key-data`",
        ),
        (&format!("client-certificate-data: {}", base64(&certificate)), "`client-key` of user \"dev\""),
        (&pair("hunter2", &key), "no certificate in PEM form"),
        (&pair(&certificate, "hunter2"), "no private key in PEM form"),
        (&pair(&certificate, &encrypted), "encrypted private key"),
        (&pair(&other, &key), "does not belong to the client certificate"),
        ("tokenFile: absent", "`tokenFile` of user \"dev\""),
        ("tokenFile: absent", "absent, which cannot be read: No such file"),
        ("password: hunter2", "`username` of user \"dev\""),
        ("username: ann\npassword: hunter2\ntoken: hunter2", "only one of them"),
        (
            "auth-provider: {name: gcp, config: {access-token: hunter2}}",
            "uses `auth-provider: gcp`, which Kubernetes 1.26 removed",
        ),
        ("token: hunter2\nas: root", "impersonates"),
        ("token: hunter2\nas-groups: ['system:masters']", "`as-groups` of user \"dev\""),
        ("token: hunter2\nas-uid: '1'", "stands there without `as`"),
        ("token: hunter2\nas-user-extra: {scopes: [hunter2]}", "`as-user-extra` of user \"dev\""),
        ("token: hunter2\nas: \"hunter2\\n\"", "`as` of user \"dev\""),
        ("token: hunter2\nas: a\nas-user-extra: {scopes: [\"hunter2\\n\"]}", "control characters"),
    ] {
        let message = Fixture::with_user(user).failure().await;
        assert!(message.contains(expected), "{user}\n-> {message}");
        assert!(message.contains("user \"dev\" in /"), "{message}");
    }
    let f = Fixture::with_user("tokenFile: tok");
    for (content, expected) in [("", "no token in it"), (" \n", "no token in it"), ("hunter2 x", "is not a token")] {
        f.write("tok", content);
        let message = f.failure().await;
        assert!(message.contains(expected), "{message}");
    }
    f.write("tok", "x".repeat(usize::try_from(FILE_MAX).unwrap() + 1));
    assert!(matches!(f.welcome().await, Err(KubeconfigError::TooLarge { .. })));
    f.write("ca.crt", identity().0.repeat(600));
    let message =
        Fixture::with_cluster(&format!("server: https://h\ncertificate-authority: {}", f.path("ca.crt").display()));
    assert!(message.failure().await.contains("more than 262144 bytes"));
}

#[tokio::test(start_paused = true)]
async fn a_rotated_token_file_is_noticed_and_a_broken_one_is_waited_out() {
    let f = Fixture::with_user("tokenFile: tok");
    f.write("tok", "one");
    let mut c = f.credentialer().await.unwrap();
    assert_eq!(c.welcome().await.unwrap().credentials.unwrap().token.as_deref(), Some("one"));

    // Nothing changed: there is no news, however long one waits.
    assert!(tokio::time::timeout(Duration::from_secs(3600), c.changed()).await.is_err());

    f.write("tok", "two");
    assert_eq!(c.changed().await.credentials.unwrap().token.as_deref(), Some("two"));

    std::fs::remove_file(f.path("tok")).unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(3600), c.changed()).await.is_err());
    assert_eq!(
        c.welcome().await.unwrap().credentials.unwrap().token.as_deref(),
        Some("two"),
        "the last one holds while the file is away"
    );
    f.write("tok", "three");
    // Dropped halfway again and again, as in a select loop: the news still comes, and only once.
    let told = loop {
        if let Ok(welcome) = tokio::time::timeout(Duration::from_millis(700), c.changed()).await {
            break welcome;
        }
    };
    assert_eq!(told.credentials.unwrap().token.as_deref(), Some("three"));
    assert!(tokio::time::timeout(Duration::from_secs(3600), c.changed()).await.is_err());

    f.write("tok", "four");
    assert_eq!(c.welcome().await.unwrap().credentials.unwrap().token.as_deref(), Some("four"));
    assert!(tokio::time::timeout(Duration::from_secs(3600), c.changed()).await.is_err(), "given already");
}

#[tokio::test(start_paused = true)]
async fn a_renewed_client_certificate_comes_only_with_its_key() {
    let f = Fixture::with_user("client-certificate: me.crt\nclient-key: me.key");
    let (certificate, key) = identity();
    f.write("me.crt", &certificate);
    f.write("me.key", &key);
    let mut c = f.credentialer().await.unwrap();
    c.welcome().await.unwrap();
    let (certificate, key) = identity();
    f.write("me.crt", &certificate);
    assert!(tokio::time::timeout(Duration::from_secs(3600), c.changed()).await.is_err());
    f.write("me.key", &key);
    let renewed = c.changed().await.credentials.unwrap();
    assert_eq!(renewed.certificate.as_deref().unwrap().trim(), certificate.replace("\r\n", "\n").trim());
}

#[tokio::test(start_paused = true)]
async fn fixed_credentials_never_change() {
    let mut c = Fixture::with_user("token: t").credentialer().await.unwrap();
    c.welcome().await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(1 << 20), c.changed()).await.is_err());
}
