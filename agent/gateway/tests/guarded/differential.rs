//! Requests read by `RequestInfo` and by kube-apiserver's own code (`scripts/lib/requestinfo`): both must find the
//! same.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
};

use http::Method;
use mykube_agent_gateway::RequestInfo;
use serde::Deserialize;

/// The program with kube-apiserver's code; `scripts/test` builds it if Go is installed.
const PROGRAM: &str = "MYKUBE_REQUEST_INFO";
/// The seed of the random requests.
const SEED: &str = "MYKUBE_REQUEST_SEED";
const REQUESTS: usize = 200_000;

/// The program's reading of one request.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Theirs {
    http_error: String,
    error: String,
    bad_options: bool,
    verb: String,
    path: String,
    is_resource: bool,
    group: String,
    version: String,
    namespace: String,
    resource: String,
    subresource: String,
    name: String,
    object: String,
    /// Verb and name as Go before 1.17 reads them, where that is different.
    older: Option<[String; 2]>,
}

#[test]
fn requests_are_read_as_the_api_server_reads_them() {
    let Some(program) = std::env::var_os(PROGRAM) else {
        eprintln!("NOT RUN: {PROGRAM} names no program (scripts/test builds it where there is Go)");
        return;
    };
    let seed = std::env::var(SEED).map_or(1, |seed| seed.parse().expect(SEED));
    let mut random = Random(seed);
    let mut lines: Vec<String> = KNOWN.iter().map(|line| (*line).to_owned()).collect();
    lines.extend((lines.len()..REQUESTS).map(|_| random.request()));

    let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let all = lines.join("\n") + "\n";
    let writing = std::thread::spawn(move || stdin.write_all(all.as_bytes()).unwrap());
    let mut counts = BTreeMap::<&str, usize>::new();
    let mut wrong = Vec::new();
    let mut answers = 0;
    for (line, answer) in lines.iter().zip(BufReader::new(stdout).lines()) {
        answers += 1;
        let theirs: Theirs = serde_json::from_str(&answer.unwrap()).unwrap();
        match compare(line, &theirs) {
            Ok(how) => *counts.entry(how).or_default() += 1,
            Err(why) => wrong.push(format!("{line}\n  {why}\n  {theirs:?}")),
        }
    }
    writing.join().unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(answers, REQUESTS);
    println!("seed {seed}, {REQUESTS} requests: {counts:?}");
    let total = wrong.len();
    wrong.truncate(20);
    assert!(wrong.is_empty(), "seed {seed}: {total} of {REQUESTS} are read otherwise:\n{}", wrong.join("\n"));
    // A grammar whose requests were all refused would prove nothing.
    assert!(counts["equal"] > REQUESTS / 2, "{counts:?}");
}

/// In what way the two readings agree, or why they do not.
fn compare(line: &str, theirs: &Theirs) -> Result<&'static str, String> {
    let (method, target) = line.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let ours = match RequestInfo::new(&method, path, query) {
        // Answered 400, so the API server's reading does not matter.
        Err(_) => return Ok("refused here"),
        Ok(ours) => ours,
    };
    if !theirs.http_error.is_empty() {
        return Ok("refused there");
    }
    if !theirs.error.is_empty() {
        return Err(format!("they have no reading, we have {ours:?}"));
    }
    let what = |info: &RequestInfo| {
        let RequestInfo { path, is_resource, group, version, namespace, resource, subresource, .. } = info.clone();
        (path, is_resource, group, version, namespace, resource, subresource)
    };
    let same = RequestInfo {
        verb: theirs.verb.clone(),
        path: theirs.path.clone(),
        is_resource: theirs.is_resource,
        group: theirs.group.clone(),
        version: theirs.version.clone(),
        namespace: theirs.namespace.clone(),
        resource: theirs.resource.clone(),
        subresource: theirs.subresource.clone(),
        name: theirs.name.clone(),
        ..RequestInfo::default()
    };
    if what(&ours) != what(&same) {
        return Err(format!("we have {ours:?}"));
    }
    if ours.is_proxy() && !theirs.object.is_empty() && ours.object() != theirs.object {
        return Err(format!("the object is {} here", ours.object()));
    }
    if let Some([verb, name]) = &theirs.older
        && !ours.is_proxy()
        && (&ours.verb, &ours.name) != (verb, name)
    {
        return Err(format!("we have {} of {:?}, older releases another one", ours.verb, ours.name));
    }
    if (&ours.verb, &ours.name) == (&same.verb, &same.name) {
        return Ok("equal");
    }
    // Label selectors are not read here; with a broken one the list itself is answered 400 there.
    let list = |verb: &str| matches!(verb, "list" | "watch");
    if theirs.bad_options
        && query.is_some_and(|query| query.contains("abelSelector"))
        && list(&ours.verb)
        && list(&same.verb)
    {
        return Ok("options that the API server refuses");
    }
    Err(format!("we have {} of {:?}", ours.verb, ours.name))
}

/// Requests that were once misread, and some that must not be.
const KNOWN: &[&str] = &[
    "GET /api/v1/pods?watch=fal%C5%BFe",
    "GET /api/v1/pods?watch=falſe",
    "GET /api/v1/pods?watch=fal%C5%BFe&limit=x",
    "OPTIONS /api/v1/namespaces/a/services/s/proxy/x",
    "TRACE /api/v1/pods",
    "get /api/v1/pods",
    "GET /api/v1/namespaces/a/services/https:vault:8200/proxy/",
    "GET /api/v1/watch/namespaces/a/pods/p/exec",
    "GET /api/v1/pods?a;watch=1",
    "GET /api/v1/pods?fieldSelector=metadata.name=x;",
    "GET /api/v1/pods?watch=%",
    "GET /api/v1/pods\\exec",
];

/// A generator of requests that are nearly right (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[usize::try_from(self.next()).unwrap() % list.len()]
    }

    fn request(&mut self) -> String {
        let method = match self.chance(85) {
            true => self.of(&["GET", "GET", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "DELETE"]),
            false => self.of(&["OPTIONS", "TRACE", "get", "Post", "PROPFIND", "WATCH", "PROXY", "M-SEARCH"]),
        };
        let mut target = self.path();
        if self.chance(60) {
            target.push('?');
            target.push_str(&self.query());
        }
        format!("{method} {target}")
    }

    fn path(&mut self) -> String {
        let prefix = match self.chance(92) {
            true => self.of(&["api/v1", "api/v1", "api/v1", "apis/apps/v1", "apis/example.com/v1beta1"]).to_owned(),
            false => self
                .of(&[
                    "api",
                    "apis",
                    "apis/apps",
                    "version",
                    "v1",
                    "API/v1",
                    "apis/api/v1",
                    "api/apis",
                    "k8s/clusters/c/api/v1",
                    "",
                ])
                .to_owned(),
        };
        let mut segments = vec![prefix];
        if self.chance(12) {
            segments.push(self.of(&["watch", "proxy", "Watch", "watches", "proxy"]).to_owned());
        }
        if self.chance(55) {
            segments.push("namespaces".to_owned());
            if self.chance(95) {
                segments.push(self.name());
            }
        }
        if self.chance(92) {
            segments.push(
                self.of(&[
                    "pods",
                    "services",
                    "nodes",
                    "secrets",
                    "deployments",
                    "namespaces",
                    "status",
                    "finalize",
                    "finalizers",
                    "watch",
                    "proxy",
                    "api",
                    "events",
                    "Pods",
                ])
                .to_owned(),
            );
            if self.chance(65) {
                segments.push(self.name());
                if self.chance(50) {
                    segments.push(
                        self.of(&[
                            "exec",
                            "log",
                            "proxy",
                            "status",
                            "scale",
                            "token",
                            "eviction",
                            "attach",
                            "portforward",
                            "finalize",
                            "binding",
                            "watch",
                            "EXEC",
                        ])
                        .to_owned(),
                    );
                    while self.chance(35) {
                        segments.push(self.name());
                    }
                }
            }
        }
        let mut path = format!("/{}", segments.join("/"));
        if self.chance(12) {
            path.push('/');
        }
        self.spoil(path)
    }

    fn name(&mut self) -> String {
        let plain = self.of(&["a", "b-1", "kube-system", "web.example", "namespaces", "proxy", "watch", "x", "pods"]);
        let mut name = plain.to_owned();
        if self.chance(20) {
            name = match self.next() % 4 {
                0 => format!("{plain}:80"),
                1 => format!("https:{plain}:8443"),
                2 => format!("http:{plain}:"),
                _ => format!("{plain}:a:b:c"),
            };
        }
        name
    }

    /// Sometimes an escape, a mark, an empty segment, a dot.
    fn spoil(&mut self, path: String) -> String {
        let mut out = String::new();
        for c in path.chars() {
            match c {
                '/' if self.chance(1) => out.push_str(self.of(&["//", "/./", "/../", "%2f", "%2F", "%5c"])),
                c if c.is_ascii_alphanumeric() && self.chance(2) => {
                    let code = u32::from(c);
                    out.push_str(&if self.chance(50) { format!("%{code:02x}") } else { format!("%{code:02X}") });
                }
                c => out.push(c),
            }
            if self.chance(1) && self.chance(40) {
                out.push_str(self.of(&[
                    "%00",
                    "%zz",
                    "%",
                    "%2",
                    "%ff",
                    "%C3%A4",
                    "ä",
                    "%25",
                    "%2525",
                    "+",
                    "%20",
                    "~",
                    "!",
                    "$",
                    "&",
                    "'",
                    "(",
                    ")",
                    "*",
                    ",",
                    ";",
                    "=",
                    "@",
                    ":",
                    "\"",
                    "<",
                    ">",
                    "`",
                    "{",
                    "}",
                    "|",
                    "\\",
                    "^",
                    "[",
                    "]",
                    "%0a",
                    "%3F",
                    "%23",
                    "%3b",
                    "\u{17f}",
                    "%e2%80%ae",
                ]));
            }
        }
        out
    }

    fn query(&mut self) -> String {
        let mut pairs = Vec::new();
        for _ in 0..=self.next() % 4 {
            let key = self.of(&[
                "watch",
                "watch",
                "watch",
                "fieldSelector",
                "fieldSelector",
                "labelSelector",
                "limit",
                "timeoutSeconds",
                "continue",
                "resourceVersion",
                "allowWatchBookmarks",
                "sendInitialEvents",
                "command",
                "Watch",
                "%77atch",
                "watch%20",
                "",
            ]);
            let value = match key {
                "fieldSelector" => self.selector(),
                "labelSelector" => {
                    self.of(&["a=b", "a", "!a", "a in (b,c)", "a=b=c", "a in", "%3D", ""]).replace(' ', "%20")
                }
                "limit" | "timeoutSeconds" => self
                    .of(&[
                        "500",
                        "0",
                        "-1",
                        "%2B5",
                        "+5",
                        "x",
                        "",
                        "1.5",
                        "99999999999999999999",
                        "0x1",
                        "1_0",
                        "%D9%A1",
                    ])
                    .to_owned(),
                _ => self
                    .of(&[
                        "true",
                        "false",
                        "False",
                        "FALSE",
                        "0",
                        "1",
                        "",
                        "no",
                        "fal%C5%BFe",
                        "FAL%C5%BFE",
                        "fal\u{17f}e",
                        "00",
                        "f",
                        "false%20",
                        "+false",
                        "%66alse",
                        "%zz",
                        "true;x",
                        "t%E2%84%AA",
                    ])
                    .to_owned(),
            };
            // At Go's limit, and beyond it.
            if self.next().is_multiple_of(4_000) {
                let count = if self.chance(50) { 9_999 } else { 10_000 };
                pairs.push("&".repeat(count - 4));
            }
            pairs.push(match self.next() % 20 {
                0 => key.to_owned(),
                1 => format!("{key}={value};"),
                2 => format!("{key}={value}&"),
                _ => format!("{key}={value}"),
            });
        }
        pairs.join("&")
    }

    fn selector(&mut self) -> String {
        let mut terms = Vec::new();
        for _ in 0..=self.next() % 3 {
            let key = self.of(&[
                "metadata.name",
                "metadata.name",
                "metadata.name",
                "metadata.namespace",
                "spec.nodeName",
                "Metadata.name",
                "",
            ]);
            let operator = self.of(&["=", "==", "!=", "%3D", "%3d%3D", "", "=!"]);
            let value = self.of(&[
                "a", "b-1", "", "a%5C,b", "a%5C%5Cb", "a%5Cx", "..", ".", "a%2Fb", "a%2525", "a=b", "a%5C=b", "%20a",
                "ä",
            ]);
            terms.push(format!("{key}{operator}{value}"));
        }
        terms.join(self.of(&[",", "%2C", ",,"]))
    }
}
