//! A person signs in in a browser: it gets both cookies, and whoever was signed in there is out.

use std::net::IpAddr;

use axum::response::AppendHeaders;
use http::{HeaderMap, HeaderName, HeaderValue, header::SET_COOKIE};
use mykube_relay_accounts::{identity::Person, jwt::Class, portal_session::PortalSession, sign_in::Method};
use mykube_relay_store::{Account, StoreError};
use tracing::info;

use super::{
    begin::{BeginError, begin},
    end,
    program::program,
};
use crate::{again::until_alone, cookies, shared::Shared};

/// The cookies of a browser, as headers of an answer.
pub(crate) type Cookies = AppendHeaders<[(HeaderName, HeaderValue); 2]>;

/// Signs in whoever has proved who they are; `by`: how, for the audit log. What proved it is used up by now, so that a sign-in
/// that met another at the database is done again here: the whole call would not be let in twice.
pub(crate) async fn sign_in(
    portal: &Shared,
    headers: &HeaderMap,
    person: &Person,
    address: IpAddr,
    method: Method,
    by: &str,
) -> Result<(Account, Cookies), BeginError> {
    let sign_in = || async move {
        let mut begun = begin(portal, person, address, method, by).await?;
        end::end_browsers_in(portal, &mut begun.transaction, headers, address).await?;
        let (sid, account) = (begun.subject.sign_in, begun.account.id);
        let (session, cookie) =
            PortalSession::begin(sid, account, method, &portal.cookies, begun.now, &mut rand::rng());
        begun.transaction.set_program(sid, &program(headers)).await?;
        begun.transaction.begin_browser_session(&session).await?;
        begun.transaction.commit().await?;
        info!(%account, %address, by, "signed in in a browser");
        let published = portal.issue(Class::Browser, &begun.subject, begun.now);
        let cookies = cookies::set(published.token.expose(), cookie.expose(), portal.origins.has_foreign());
        Ok((begun.account, AppendHeaders(cookies.map(|cookie| (SET_COOKIE, cookie)))))
    };
    until_alone(sign_in, |done| matches!(done, Err(BeginError::Store(StoreError::Changed)))).await
}
