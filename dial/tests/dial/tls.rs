//! Which certificates are trusted, and the errors for others.

use std::time::Duration;

use mykube_dial::{
    DialError, DialOptions, Dialer, Transport,
    error::{TlsProblem, Unreachable},
};

use crate::support::{
    Canned,
    ca::{Ca, own_authority},
    created, dialer, dialer_with, silent,
};

fn https(server: &Canned) -> String {
    format!("https://127.0.0.1:{}", server.at.port())
}

fn problem(error: DialError) -> TlsProblem {
    match error {
        DialError::Tls { problem, .. } => problem,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_private_ca_is_trusted_by_its_file_only() {
    let ca = Ca::new();
    let server = Canned::tls(created(), ca.server("127.0.0.1")).await;
    let trusting = dialer_with(https(&server), Some(&ca.file), &[]);
    trusting.create_session().await.unwrap();
    assert!(matches!(trusting.connect().await.unwrap(), Transport::Tls(_)));

    let error = dialer(https(&server)).create_session().await.unwrap_err();
    assert!(error.to_string().contains("--ca-file"), "{error}");
    assert_eq!((error.exit_code(), problem(error)), (4, TlsProblem::Untrusted));
    assert_eq!(server.seen.lock().unwrap().len(), 1, "an untrusted server is asked nothing");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_and_names_it() {
    let ca = Ca::new();
    let server = Canned::tls(created(), ca.server("relay.test")).await;
    let error = dialer_with(https(&server), Some(&ca.file), &[]).create_session().await.unwrap_err();
    assert!(error.to_string().contains("its certificate is for relay.test, not for this name"), "{error}");
    assert_eq!(problem(error), TlsProblem::WrongName { presented: "relay.test".into() });
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let ca = Ca::new();
    let server = Canned::tls(created(), ca.expired_server("127.0.0.1")).await;
    let error = dialer_with(https(&server), Some(&ca.file), &[]).create_session().await.unwrap_err();
    assert_eq!(problem(error), TlsProblem::Expired);
}

#[tokio::test]
async fn a_relay_that_is_its_own_authority_is_trusted_by_its_own_certificate() {
    let (file, owner, thief) = own_authority("127.0.0.1");
    let server = Canned::tls(created(), owner).await;
    dialer_with(https(&server), Some(&file), &[]).create_session().await.unwrap();

    let error = dialer(https(&server)).create_session().await.unwrap_err();
    assert!(error.to_string().contains("--ca-file"), "{error}");
    let other = Canned::tls(created(), own_authority("127.0.0.1").1).await;
    assert!(dialer_with(https(&other), Some(&file), &[]).create_session().await.is_err(), "another of the same name");
    let thief = Canned::tls(created(), thief).await;
    let error = dialer_with(https(&thief), Some(&file), &[]).create_session().await.unwrap_err();
    assert_eq!(problem(error), TlsProblem::Untrusted, "the certificate is for all to see, its key is not");
    assert!(thief.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_front_of_http2_only_is_told_to_offer_http1_too() {
    let ca = Ca::new();
    let server = Canned::tls(created(), ca.http2_server("127.0.0.1")).await;
    let error = dialer_with(https(&server), Some(&ca.file), &[]).create_session().await.unwrap_err();
    assert!(error.to_string().contains("offer http/1.1 too"), "{error}");
    assert_eq!((error.exit_code(), problem(error)), (4, TlsProblem::NoHttp1));
}

#[tokio::test]
async fn plain_text_on_a_tls_port_is_explained() {
    let ca = Ca::new();
    let server = crate::support::listen(None, |mut stream| async move {
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
        Ok(())
    })
    .await;
    let url = format!("https://127.0.0.1:{}", server.port());
    let error = dialer_with(url, Some(&ca.file), &[]).create_session().await.unwrap_err();
    assert_eq!(problem(error), TlsProblem::NotTls);
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_given_up() {
    let ca = Ca::new();
    let at = silent().await;
    let limit = Duration::from_millis(20);
    let options =
        DialOptions { ca_file: Some(ca.file.path().to_owned()), connect_timeout: limit, ..DialOptions::default() };
    let dialer = Dialer::new(format!("https://{at}").parse().unwrap(), options).unwrap();
    let error = dialer.connect().await.unwrap_err();
    assert_eq!(error, DialError::Unreachable { address: at.to_string(), reason: Unreachable::Timeout(limit) });
}
