//! A page as an answer: its frame and its headers.

use std::{fmt::Display, sync::LazyLock};

use askama::Template;
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use http::{HeaderValue, StatusCode, header};
use sha2::{Digest as _, Sha256};

use super::visitor::Visitor;
use crate::{failure::Failure, shared::Shared};

/// The one stylesheet, which stands in each page: a page needs nothing else.
pub(crate) const STYLE: &str = include_str!("../../templates/style.css");

/// What the layout shows around a page's own content.
pub(crate) struct Frame {
    /// What stands before the path in each link: the prefix of the relay's address, or nothing.
    pub(crate) base: String,
    /// Of whoever is signed in: the value of the hidden field `csrf`.
    csrf: Option<String>,
}

impl Frame {
    /// For a page that is this visitor's, or nobody's.
    pub(crate) fn new(portal: &Shared, visitor: Option<&Visitor>) -> Self {
        let csrf = visitor.map(|visitor| visitor.csrf(portal));
        Self { base: portal.settings.public_url.prefix().to_owned(), csrf }
    }

    /// The value of the hidden field `csrf` of every form; empty where nobody is signed in.
    pub(crate) fn csrf(&self) -> &str {
        self.csrf.as_deref().unwrap_or_default()
    }

    /// Whether somebody is signed in.
    pub(crate) fn is_signed_in(&self) -> bool {
        self.csrf.is_some()
    }
}

/// A page. It needs the stylesheet that stands in it, and nothing from anywhere.
pub(crate) struct Page {
    status: StatusCode,
    html: String,
    form_leads_to: Option<String>,
}

impl Page {
    /// Of a template.
    pub(crate) fn new(template: &impl Template) -> Result<Self, Failure> {
        let html = template
            .render()
            .map_err(|_| Failure::page(StatusCode::INTERNAL_SERVER_ERROR, "This page cannot be shown."))?;
        Ok(Self { status: StatusCode::OK, html, form_leads_to: None })
    }

    /// With another status than 200.
    pub(crate) fn status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The answer to this page's form redirects to another origin, as `http://127.0.0.1:4711`: browsers want that allowed on
    /// the page that has the form (Content Security Policy 3, section 4.2.4).
    pub(crate) fn form_leads_to(self, origin: impl Display) -> Self {
        Self { form_leads_to: Some(origin.to_string()), ..self }
    }
}

/// The stylesheet's hash, as a policy names it.
static STYLE_HASH: LazyLock<String> = LazyLock::new(|| format!("sha256-{}", BASE64.encode(&Sha256::digest(STYLE))));

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let Self { status, html, form_leads_to } = self;
        let elsewhere = form_leads_to.map(|origin| format!(" {origin}")).unwrap_or_default();
        // The icon is an empty one, so that no browser asks for `/favicon.ico`.
        let policy = format!(
            "default-src 'none'; style-src '{}'; img-src data:; form-action 'self'{elsewhere}; frame-ancestors 'none'; \
             base-uri 'none'",
            *STYLE_HASH
        );
        let fixed = |text| HeaderValue::from_static(text);
        let policy = HeaderValue::try_from(policy).unwrap_or(fixed("default-src 'none'"));
        let headers = [
            (header::CONTENT_TYPE, fixed("text/html; charset=utf-8")),
            (header::CONTENT_SECURITY_POLICY, policy),
            // Not `no-referrer`: a form's `Origin` is `null` then (Fetch standard, section 3.2).
            (header::REFERRER_POLICY, fixed("same-origin")),
            (header::HeaderName::from_static("cross-origin-opener-policy"), fixed("same-origin")),
            (header::HeaderName::from_static("cross-origin-resource-policy"), fixed("same-origin")),
            // What holds a person's data is in no cache, not even the browser's for its button "back".
            (header::CACHE_CONTROL, fixed("no-store")),
        ];
        (status, headers, html).into_response()
    }
}
