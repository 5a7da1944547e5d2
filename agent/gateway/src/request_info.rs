//! What a request asks for, read the way the API server reads it (`k8s.io/apiserver/pkg/endpoints/request`).
//!
//! The path is decoded once. Anything that two readers could understand differently is refused: encoded slashes, dot
//! segments, empty segments, control characters, text that is not UTF-8. The policy judges the same text that is
//! forwarded.
//!
//! A resource's query is refused if Go's `url.ParseQuery` silently leaves a part of it out: all of it where it has more
//! than 10,000 parameters (releases built with Go before 1.24 read them), a parameter with `;` (which before 1.17 is as
//! good as `&`), or with a broken percent-encoding. A list for one name would become a list of all. The query of a
//! proxied request, or of another API than Kubernetes', is not checked.

use http::Method;
use percent_encoding::percent_decode_str;

/// Why a path or a query is not forwarded, as the end of a sentence about the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// `%2f`, `%5c`, and a plain backslash, which some readers take for a slash.
    #[error("has an encoded slash, or a backslash")]
    EncodedSlash,
    /// `.` or `..`, encoded or not.
    #[error("has a dot segment")]
    DotSegment,
    /// `//`.
    #[error("has an empty segment")]
    EmptySegment,
    /// NUL and the like.
    #[error("has a control character")]
    Control,
    /// Bytes that are no UTF-8.
    #[error("is not UTF-8")]
    NotUtf8,
    /// `%zz`.
    #[error("has a broken percent-encoding")]
    BrokenEncoding,
    /// `*`, or an authority.
    #[error("does not begin with a slash")]
    NotAbsolute,
    /// `/api/v1/proxy` or `/api/v1/watch` with nothing after it.
    #[error("names no resource")]
    NoResource,
    /// More parameters than 10,000.
    #[error("has more than {PARAMETERS_MAX} parameters in its query")]
    TooManyParameters,
    /// `;` in a query.
    #[error("has a `;` in its query: write `&` or `%3B`")]
    Semicolon,
    /// `%zz` in a query.
    #[error("has a broken percent-encoding in its query: write `%25` for `%`")]
    BrokenQuery,
}

/// Most parameters of a query that every release of Go reads (`urlmaxqueryparams`): of a longer query `url.ParseQuery`
/// reads none. Empty parameters count.
const PARAMETERS_MAX: usize = 10_000;

/// A request as policy and audit see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, `proxy`; the method in lower
    /// case where the path names no resource; empty for a method that resources do not have.
    pub verb: String,
    /// The decoded path.
    pub path: String,
    /// Whether the path names a resource. If not, the fields below are empty.
    pub is_resource: bool,
    /// `apps`; empty for the core group.
    pub group: String,
    /// `v1`.
    pub version: String,
    /// Empty for cluster-scoped resources, and for all namespaces together.
    pub namespace: String,
    /// `pods`.
    pub resource: String,
    /// `exec`.
    pub subresource: String,
    /// The object's name in the path, or the `metadata.name=` of a list's or a watch's field selector.
    pub name: String,
    /// The path after the subresource, without its slash: for a proxy, the path at the target.
    pub subpath: String,
}

impl RequestInfo {
    /// Reads a method, a path as the client sent it, and a query.
    ///
    /// # Errors
    /// The path, or a resource's query, could mean something else to another reader.
    pub fn new(method: &Method, raw_path: &str, query: Option<&str>) -> Result<Self, PathError> {
        let path = decode(raw_path)?;
        let mut info = Self { verb: method.as_str().to_ascii_lowercase(), ..Self::default() };
        let mut parts: &[&str] = &path.trim_matches('/').split('/').collect::<Vec<_>>();
        let groupless = parts[0] == "api";
        let is_resource = (groupless && parts.len() >= 3) || (parts[0] == "apis" && parts.len() >= 4);
        if is_resource {
            if !groupless {
                info.group = parts[1].to_owned();
                parts = &parts[1..];
            }
            info.version = parts[1].to_owned();
            info.read_resource(method, &parts[2..], query)?;
            if !info.is_proxy() {
                check_query(query.unwrap_or_default())?;
            }
        }
        info.path = path;
        Ok(info)
    }

    fn read_resource(&mut self, method: &Method, parts: &[&str], query: Option<&str>) -> Result<(), PathError> {
        self.is_resource = true;
        let mut parts = parts;
        self.verb = match *method {
            _ if matches!(parts[0], "proxy" | "watch") => {
                let verb = parts[0];
                parts = &parts[1..];
                verb
            }
            Method::POST => "create",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        }
        .to_owned();
        if parts.is_empty() {
            return Err(PathError::NoResource);
        }
        if parts[0] == "namespaces" && parts.len() > 1 {
            self.namespace = parts[1].to_owned();
            if parts.len() > 2 && !matches!(parts[2], "status" | "finalize") {
                parts = &parts[2..];
            }
        }
        let part = |at: usize| parts.get(at).copied().unwrap_or_default().to_owned();
        self.resource = part(0);
        self.name = part(1);
        let behind = if self.verb == "proxy" { 2 } else { 3 };
        if self.verb != "proxy" {
            self.subresource = part(2);
        }
        self.subpath = parts.get(behind..).unwrap_or_default().join("/");
        if self.name.is_empty() {
            match self.verb.as_str() {
                "get" => {
                    let options = ListOptions::new(query);
                    self.verb = if options.watch { "watch" } else { "list" }.into();
                    self.name = options.name.unwrap_or_default();
                }
                "delete" => self.verb = "deletecollection".into(),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the request runs something in a pod, or opens a way into one.
    #[must_use]
    pub fn is_connect(&self) -> bool {
        matches!(self.subresource.as_str(), "exec" | "attach" | "portforward")
    }

    /// Whether a program behind the API server answers: in a pod, a service, or a node's kubelet.
    #[must_use]
    pub fn is_proxy(&self) -> bool {
        self.verb == "proxy" || self.subresource == "proxy"
    }

    /// Whether a pod's or a service's own program answers, which may use cookies.
    #[must_use]
    pub fn is_application(&self) -> bool {
        self.is_proxy() && self.resource != "nodes"
    }

    /// Whether the answer is what the API server offers, without any of its content.
    #[must_use]
    pub fn is_discovery(&self) -> bool {
        const FIRST: [&str; 7] = ["api", "apis", "openapi", "version", "healthz", "livez", "readyz"];
        !self.is_resource && matches!(self.verb.as_str(), "get" | "head") && FIRST.contains(&self.first_segment())
    }

    /// Whether the path is none of kube-apiserver's own. Something before it (Rancher, kcp) may have a whole API there,
    /// and which resource such a path names cannot be told.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        const OWN: [&str; 18] = [
            "",
            "api",
            "apis",
            "openapi",
            "version",
            "healthz",
            "livez",
            "readyz",
            "metrics",
            "logs",
            "debug",
            "flagz",
            "statusz",
            "openid",
            ".well-known",
            "swagger.json",
            "swagger-2.0.0.json",
            "index.html",
        ];
        !self.is_resource && !OWN.contains(&self.first_segment())
    }

    fn first_segment(&self) -> &str {
        let path = self.path.trim_start_matches('/');
        path.split('/').next().unwrap_or_default()
    }

    /// The object that the API server takes the name to mean: for a proxy, without scheme and port
    /// (`k8s.io/apimachinery/pkg/util/net.SplitSchemeNamePort`).
    #[must_use]
    pub fn object(&self) -> &str {
        if !self.is_proxy() {
            return &self.name;
        }
        let parts: Vec<_> = self.name.split(':').collect();
        match parts[..] {
            [name, _] | [_, name, _] => name,
            _ => &self.name,
        }
    }

    /// Whether the request asks who its sender is, or what the sender may do: `kubectl auth whoami` and `can-i`.
    #[must_use]
    pub fn is_self_review(&self) -> bool {
        let reviewed = matches!(
            (self.group.as_str(), self.resource.as_str()),
            ("authorization.k8s.io", "selfsubjectaccessreviews" | "selfsubjectrulesreviews")
                | ("authentication.k8s.io", "selfsubjectreviews")
        );
        reviewed && self.verb == "create" && self.name.is_empty() && self.namespace.is_empty()
    }

    /// `pods/exec`, `deployments.apps`, or the path if it names no resource.
    #[must_use]
    pub fn target(&self) -> String {
        if !self.is_resource {
            return self.path.clone();
        }
        let group = if self.group.is_empty() { String::new() } else { format!(".{}", self.group) };
        let subresource = if self.subresource.is_empty() { String::new() } else { format!("/{}", self.subresource) };
        format!("{}{group}{subresource}", self.resource)
    }
}

/// The pairs of a query, decoded as Go's `url.ParseQuery` does: unreadable ones are left out.
pub(crate) fn query_pairs(query: Option<&str>) -> impl Iterator<Item = (String, String)> {
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        is_well_encoded(&spaced).then(|| percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
    };
    query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')).filter_map(
        move |pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(key)?, decode(value)?))
        },
    )
}

/// As `Convert_Slice_string_To_bool` does: only absence, `false` and `0` mean no.
pub(crate) fn query_flag(query: Option<&str>, name: &str) -> bool {
    query_value(query, name).is_some_and(|value| value != "0" && !equal_fold(&value, "false"))
}

fn query_value(query: Option<&str>, name: &str) -> Option<String> {
    query_pairs(query).find(|(key, _)| key == name).map(|(_, value)| value)
}

/// As Go's `strings.EqualFold` compares with lower-case ASCII: the long s and the Kelvin sign fold too.
fn equal_fold(text: &str, lower: &str) -> bool {
    let fold = |c| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    text.chars().map(fold).eq(lower.chars())
}

/// What the options of a list say about its verb and name.
struct ListOptions {
    watch: bool,
    /// The one object that the field selector leaves, if it leaves one.
    name: Option<String>,
}

impl ListOptions {
    /// If an option cannot be read, only `watch` counts, compared without Go's folding. Label selectors are not read
    /// here: the API server refuses a list with a broken one.
    fn new(query: Option<&str>) -> Self {
        let is_number = |name| query_value(query, name).is_none_or(|value: String| value.parse::<i64>().is_ok());
        let selected = query_value(query, "fieldSelector").map_or(Some(None), |selector| selected_name(&selector));
        match selected.filter(|_| is_number("limit") && is_number("timeoutSeconds")) {
            Some(name) => Self { watch: query_flag(query, "watch"), name },
            None => {
                let off = |value: String| value == "0" || value.eq_ignore_ascii_case("false");
                Self { watch: query_value(query, "watch").is_some_and(|value| !off(value)), name: None }
            }
        }
    }
}

/// The one object that a field selector leaves, if it leaves one, as `fields.ParseSelector` and `RequiresExactMatch`
/// find it; the outer `None` if it cannot be read.
fn selected_name(selector: &str) -> Option<Option<String>> {
    let mut name = None;
    let mut terms: Vec<_> = split_unescaped(selector).filter(|term| !term.is_empty()).collect();
    terms.sort_unstable();
    for term in terms {
        let (at, operator) = (0..term.len()).filter(|at| term.is_char_boundary(*at)).find_map(|at| {
            let operator = ["!=", "==", "="].into_iter().find(|operator| term[at..].starts_with(operator));
            operator.map(|operator| (at, operator))
        })?;
        let value = unescape(&term[at + operator.len()..])?;
        if operator != "!=" && &term[..at] == "metadata.name" && name.is_none() {
            name = Some(value);
        }
    }
    Some(name.filter(|name| !matches!(name.as_str(), "" | "." | "..") && !name.contains(['/', '%'])))
}

/// The parts between commas that have no backslash before them.
fn split_unescaped(text: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |c| {
        let splits = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        splits
    })
}

/// The text without its backslashes; `None` where the API server refuses it.
fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(chars.next().filter(|c| matches!(c, '\\' | ',' | '='))?),
            ',' | '=' => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

/// Whether every reader finds the same parameters in the query.
fn check_query(query: &str) -> Result<(), PathError> {
    if query.split('&').count() > PARAMETERS_MAX {
        return Err(PathError::TooManyParameters);
    }
    if query.contains(';') {
        return Err(PathError::Semicolon);
    }
    if is_well_encoded(query) { Ok(()) } else { Err(PathError::BrokenQuery) }
}

fn decode(raw: &str) -> Result<String, PathError> {
    if !raw.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    if !is_well_encoded(raw) {
        return Err(PathError::BrokenEncoding);
    }
    let lower = raw.to_ascii_lowercase();
    if ["%2f", "%5c", "\\"].iter().any(|slash| lower.contains(slash)) {
        return Err(PathError::EncodedSlash);
    }
    let path = percent_decode_str(raw).decode_utf8().map_err(|_| PathError::NotUtf8)?.into_owned();
    if path.contains(char::is_control) {
        return Err(PathError::Control);
    }
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(PathError::DotSegment);
    }
    if path.contains("//") {
        return Err(PathError::EmptySegment);
    }
    Ok(path)
}

fn is_well_encoded(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    bytes.iter().enumerate().all(|(at, byte)| *byte != b'%' || (is_hex(at + 1) && is_hex(at + 2)))
}

#[cfg(test)]
mod tests;
