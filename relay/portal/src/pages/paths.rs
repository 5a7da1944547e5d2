//! Which paths are pages.

/// Whether what is here is for people: it is never shared with pages of other origins, and what fails is shown as a page.
pub(crate) fn has(path: &str) -> bool {
    ["/portal", "/device"]
        .iter()
        .any(|own| path.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}
