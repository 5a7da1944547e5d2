//! Signing in by email: `POST /auth/otp/request` has a code sent to an address, `POST /auth/otp/verify` takes it. The pages'
//! forms do the same with [`request`] and [`verify`].
//!
//! Whoever asks learns nothing of who is known: a code is kept for every address, and whether it is sent is decided by the same
//! statements and told by nothing. It is sent where it would let somebody in, so that a closed relay sends strangers no mail.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header::RETRY_AFTER};
use mykube_relay_accounts::{
    email::{Email, InvalidEmail},
    email_code::{Code, CodeError, EmailCode, LIFE, TooManyCodes},
    identity::Person,
    sign_in::Method,
    sign_up::NotAdmitted,
};
use mykube_relay_store::{Account, StoreError};
use serde::Deserialize;
use serde_json::json;
use tracing::info;
use zeroize::Zeroizing;

use super::{
    begin::{BeginError, judge},
    browser::{self, Cookies},
};
use crate::{
    arrival::Arrival,
    failure::Failure,
    mail::{Away, Letter},
    shared::Shared,
};

/// What [`request`] has to say to everybody.
pub(crate) const SENT: &str = "if this address may sign in here, a code is on its way to it: it is good for 10 minutes";
/// How long to wait where no mail can be sent.
const AWAY: Duration = Duration::from_secs(30);

/// Why no code was asked for, or why one signs nobody in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OtpError {
    #[error("this relay sends no codes by email: sign in in another way")]
    Off,
    #[error(transparent)]
    Email(#[from] InvalidEmail),
    #[error(transparent)]
    TooMany(#[from] TooManyCodes),
    #[error("no mail can be sent at the moment: try again in a minute, or sign in in another way")]
    Away,
    #[error("a code is six digits")]
    NoCode,
    #[error(transparent)]
    Code(#[from] CodeError),
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<BeginError> for OtpError {
    fn from(error: BeginError) -> Self {
        match error {
            BeginError::NotAdmitted(error) => error.into(),
            BeginError::Store(error) => error.into(),
        }
    }
}

impl From<Away> for OtpError {
    fn from(_: Away) -> Self {
        Self::Away
    }
}

impl OtpError {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Off => StatusCode::NOT_FOUND,
            Self::Email(_) | Self::NoCode => StatusCode::BAD_REQUEST,
            Self::TooMany(_) | Self::Code(CodeError::Locked(_)) => StatusCode::TOO_MANY_REQUESTS,
            Self::Away | Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Code(CodeError::Wrong { .. }) => StatusCode::UNAUTHORIZED,
            Self::Code(CodeError::Expired) => StatusCode::GONE,
            Self::NotAdmitted(_) => StatusCode::FORBIDDEN,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooMany(TooManyCodes(wait)) | Self::Code(CodeError::Locked(wait)) => Some(*wait),
            Self::Away => Some(AWAY),
            _ => None,
        }
    }
}

impl IntoResponse for OtpError {
    fn into_response(self) -> Response {
        if let Self::Store(error) = self {
            return Failure::from(error).into_response();
        }
        let mut body = json!({"error": self.to_string()});
        if let Self::Code(CodeError::Wrong { left }) = self {
            body["attempts_left"] = left.into();
        }
        let mut answer = (self.status(), Json(body)).into_response();
        let wait = self.retry_after().map(|wait| (RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1)));
        answer.headers_mut().extend(wait);
        answer
    }
}

/// Has a code sent to this address, if it may sign in here.
///
/// # Errors
/// The same for every address: it is none, too many codes were asked for it, or no mail can be sent at all.
pub(crate) async fn request(portal: &Shared, email: &str) -> Result<(), OtpError> {
    let mailer = portal.mailer.as_ref().ok_or(OtpError::Off)?;
    let email: Email = email.parse()?;
    // Kept before anything is written: where there is none, nothing is.
    let place = mailer.place()?;
    let now = portal.now();
    let mut transaction = portal.store.begin().await?;
    let before = transaction.email_code(&email).await?;
    let mut row = before.clone().unwrap_or_else(|| EmailCode::new(email.clone()));
    let unlocks = portal.settings.mail.as_ref().is_some_and(|mail| mail.otp_reset_unlocks);
    let code = row.handle_request(unlocks, &portal.codes, now, &mut rand::rng())?;
    transaction.change_email_code(before.as_ref(), &row).await?;
    let person = Person::of_email(email.clone());
    let may_sign_in = match judge(portal, &mut transaction, &person, Method::Browser, now).await {
        Ok(_) => true,
        Err(BeginError::NotAdmitted(_)) => false,
        Err(BeginError::Store(error)) => return Err(error.into()),
    };
    transaction.commit().await?;
    let letter = letter(portal, email, &code);
    place.take(may_sign_in.then_some(letter));
    Ok(())
}

fn letter(portal: &Shared, to: Email, code: &Code) -> Letter {
    let relay = portal.settings.public_url.as_str();
    let subject = "Your code to sign in".to_owned();
    let body = format!(
        "{code} is your code to sign in at\r\n{relay}\r\n\r\n\
         It is good for {minutes} minutes, and once. Type it where you asked for it, and\r\n\
         nowhere else: nobody has a reason to ask you for it.\r\n\r\n\
         If you did not ask for it, somebody typed your address. Without the code\r\n\
         they cannot sign in.\r\n",
        code = code.expose(),
        minutes = LIFE.as_secs() / 60,
    );
    Letter { to, subject, body: Zeroizing::new(body) }
}

/// Signs in in a browser whoever shows the code that was sent to this address.
///
/// # Errors
/// The code is not the one; or, for one that was sent before the relay's rules changed, nobody is let in by it.
pub(crate) async fn verify(
    portal: &Shared,
    headers: &HeaderMap,
    email: &str,
    code: &str,
    address: IpAddr,
) -> Result<(Account, Cookies), OtpError> {
    if portal.mailer.is_none() {
        return Err(OtpError::Off);
    }
    let email: Email = email.parse()?;
    let code = Code::parse(code).ok_or(OtpError::NoCode)?;
    let mut transaction = portal.store.begin().await?;
    let before = transaction.email_code(&email).await?.ok_or(CodeError::Expired)?;
    let mut row = before.clone();
    let verified = row.handle_verify(&code, &portal.codes, portal.now());
    if row != before {
        transaction.change_email_code(Some(&before), &row).await?;
        // A try counts and a code is used, whatever comes of it.
        transaction.commit().await?;
    } else {
        drop(transaction);
    }
    if let Err(error) = verified {
        info!(%address, "a code by email was not accepted");
        return Err(error.into());
    }
    let person = Person::of_email(email);
    Ok(browser::sign_in(portal, headers, &person, address, Method::Browser, "a code by email").await?)
}

/// For whom a code is asked.
#[derive(Deserialize)]
pub(crate) struct Asked {
    pub(crate) email: String,
}

/// The code that came to an address.
#[derive(Deserialize)]
pub(crate) struct Shown {
    pub(crate) email: String,
    pub(crate) code: Zeroizing<String>,
}

/// `POST /auth/otp/request`.
pub(super) async fn ask(
    State(portal): State<Arc<Shared>>,
    body: Result<Json<Asked>, JsonRejection>,
) -> Result<Response, Response> {
    let Json(Asked { email }) = body.map_err(unreadable)?;
    request(&portal, &email).await.map_err(IntoResponse::into_response)?;
    Ok((StatusCode::ACCEPTED, Json(json!({"ok": true, "message": SENT}))).into_response())
}

/// `POST /auth/otp/verify`: both cookies.
pub(super) async fn show(
    State(portal): State<Arc<Shared>>,
    Extension(Arrival { address, .. }): Extension<Arrival>,
    headers: HeaderMap,
    body: Result<Json<Shown>, JsonRejection>,
) -> Result<Response, Response> {
    let Json(Shown { email, code }) = body.map_err(unreadable)?;
    let signed_in = verify(&portal, &headers, &email, &code, address).await;
    let (account, cookies) = signed_in.map_err(IntoResponse::into_response)?;
    Ok((cookies, Json(json!({"ok": true, "email": account.identity.email}))).into_response())
}

fn unreadable(wrong: JsonRejection) -> Response {
    Failure::json(wrong.status(), wrong.body_text()).into_response()
}
