//! The click before a program on the person's own computer gets its sign-in.

use askama::Template;
use mykube_relay_store::Identity;

use super::page::Frame;

/// "Sign in PROGRAM on this computer as ACCOUNT?", with one button. The form's answer leads to the program: say where with
/// [`Page::form_leads_to`](super::page::Page::form_leads_to).
#[derive(Template)]
#[template(path = "confirm.html")]
pub(crate) struct Confirm<'a> {
    /// Its visitor is the one who is asked: the form has their `csrf`.
    pub(crate) frame: Frame,
    /// What signs in, as `mykube`.
    pub(crate) program: &'a str,
    /// As whom.
    pub(crate) account: &'a Identity,
    /// Path that takes the form, below the relay's address.
    pub(crate) action: &'a str,
    /// Hidden fields, beside `csrf`.
    pub(crate) hidden: &'a [(&'a str, String)],
    /// Path, with its query, of the page where somebody else signs in.
    pub(crate) other_account: &'a str,
}
