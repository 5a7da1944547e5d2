//! Where a sign-in leads, as queries have it: those of `/auth/{provider}`, of the sign-in page and of the page for the click
//! have the same parameters, so that a page can hand them on.

use std::collections::BTreeMap;

use http::StatusCode;
use mykube_relay_accounts::provider_state::Goal;
use url::form_urlencoded;

use crate::{failure::Failure, shared::Shared};

/// The page for the click that gives a program its sign-in.
pub(crate) const CONFIRM: &str = "/portal/confirm";
const NAMES: [&str; 5] = ["cli_port", "redirect", "state", "code_challenge", "code_challenge_method"];

/// The five parameters, in that order.
pub(crate) type Given<'a> = (Option<&'a str>, Option<&'a str>, Option<&'a str>, Option<&'a str>, Option<&'a str>);

/// The goal of a query, without its `?`. Other parameters are passed over.
pub(crate) fn read(portal: &Shared, query: &str) -> Result<Goal, Failure> {
    let mut all = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if NAMES.contains(&&*name) && all.insert(name.to_string(), value).is_some() {
            return Err(refused(format!("{name} stands there twice")));
        }
    }
    let [port, page, state, challenge, method] = NAMES.map(|name| all.get(name).map(|value| &**value));
    of(portal, (port, page, state, challenge, method))
}

/// The goal of these parameters.
pub(crate) fn of(portal: &Shared, (port, page, state, challenge, method): Given<'_>) -> Result<Goal, Failure> {
    let goal = Goal::parse(port, page, state, challenge, method).map_err(|error| refused(error.to_string()))?;
    if matches!(goal, Goal::Program { challenge: None, .. }) && !portal.settings.published_exchange {
        let text = "this relay signs programs in by a code_challenge alone (its operator can set published_exchange)";
        return Err(refused(text.to_owned()));
    }
    Ok(goal)
}

/// A goal as the query that [`read`] takes.
pub(crate) fn query(goal: &Goal) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    match goal {
        Goal::Page(path) => {
            query.append_pair("redirect", path.as_str());
        }
        Goal::Program { port, state, challenge } => {
            query.append_pair("cli_port", &port.to_string());
            query.extend_pairs(state.iter().map(|state| ("state", state)));
            query.extend_pairs(challenge.iter().map(|challenge| ("code_challenge", challenge.encode())));
        }
    }
    query.finish()
}

/// The page of this relay where a sign-in ends, with its query: for a program, that of the click.
pub(crate) fn page(goal: &Goal) -> String {
    match goal {
        Goal::Page(path) => path.to_string(),
        Goal::Program { .. } => format!("{CONFIRM}?{}", query(goal)),
    }
}

fn refused(text: String) -> Failure {
    Failure::text(StatusCode::BAD_REQUEST, text)
}
