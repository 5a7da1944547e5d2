//! A person signs in in a browser: it gets both cookies, and whoever was signed in there is out.

use std::{net::IpAddr, time::Duration};

use axum::response::AppendHeaders;
use http::{HeaderMap, HeaderName, HeaderValue, header::SET_COOKIE};
use mykube_relay_accounts::{identity::Person, jwt::Class, portal_session::PortalSession, sign_in::Method};
use mykube_relay_store::{Account, StoreError};
use tokio::time::sleep;
use tracing::info;

use super::{
    begin::{BeginError, begin},
    end,
    program::program,
};
use crate::{cookies, shared::Shared};

/// The cookies of a browser, as headers of an answer.
pub(crate) type Cookies = AppendHeaders<[(HeaderName, HeaderValue); 2]>;

/// How often it is done again where another call changed the same rows meanwhile.
const TRIES: u32 = 16;

/// Signs in whoever has proved who they are; `by`: how, for the audit log. What proved it is used up by now, so a database that
/// did something else at the same time is asked again here: the whole call would not be let in twice.
pub(crate) async fn sign_in(
    portal: &Shared,
    headers: &HeaderMap,
    person: &Person,
    address: IpAddr,
    method: Method,
    by: &str,
) -> Result<(Account, Cookies), BeginError> {
    let mut tries = 0..TRIES;
    loop {
        match try_sign_in(portal, headers, person, address, method, by).await {
            Err(BeginError::Store(StoreError::Changed)) if tries.next().is_some() => {
                // Those who met are not to meet again.
                sleep(Duration::from_millis(rand::random_range(0..16))).await;
            }
            done => return done,
        }
    }
}

async fn try_sign_in(
    portal: &Shared,
    headers: &HeaderMap,
    person: &Person,
    address: IpAddr,
    method: Method,
    by: &str,
) -> Result<(Account, Cookies), BeginError> {
    let mut begun = begin(portal, person, address, method, by).await?;
    end::end_browsers_in(portal, &mut begun.transaction, headers, address).await?;
    let (sid, account) = (begun.subject.sign_in, begun.account.id);
    let (session, cookie) = PortalSession::begin(sid, account, method, &portal.cookies, begun.now, &mut rand::rng());
    begun.transaction.set_program(sid, &program(headers)).await?;
    begun.transaction.begin_browser_session(&session).await?;
    begun.transaction.commit().await?;
    info!(%account, %address, by, "signed in in a browser");
    let published = portal.issue(Class::Browser, &begun.subject, begun.now);
    let cookies = cookies::set(published.token.expose(), cookie.expose(), portal.origins.has_foreign());
    Ok((begun.account, AppendHeaders(cookies.map(|cookie| (SET_COOKIE, cookie)))))
}
