//! Finds and reads the kubeconfig the way kubectl does: `--kubeconfig`, else the files of `KUBECONFIG`, else
//! `~/.kube/config`, else a pod's service account.
//!
//! With several files, the first file that defines an entry wins, with the whole entry; a missing file is skipped;
//! relative paths in a file start at that file's directory (client-go `ClientConfigLoadingRules`). The zoo (`e2e/zoo`)
//! compares kubectl with us.

pub(crate) mod types;

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use zeroize::Zeroizing;

use crate::{
    environment::Environment,
    error::{KubeconfigError, Place, Shown},
    incluster,
    yaml::{self, YamlError},
};
use types::{AuthInfo, Cluster, Context, Kubeconfig};

/// Longest kubeconfig that is read. Ten thousand clusters fit; a wrong path to a disk image does not.
pub const KUBECONFIG_MAX: u64 = 16 * 1024 * 1024;

/// Which kubeconfig and context to use, and how long to wait.
#[derive(Debug, Clone)]
pub struct KubeconfigSource {
    /// `--kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// `--context`.
    pub context: Option<String>,
    /// How long an exec plugin may take: enough for a login in a browser.
    pub exec_timeout: Duration,
    /// How long connecting to the API server may take, its proxy included.
    pub connect_timeout: Duration,
}

impl Default for KubeconfigSource {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            context: None,
            exec_timeout: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(10),
        }
    }
}

/// The result of the search.
pub(crate) enum Found {
    /// A context of a kubeconfig.
    Context(Box<Selected>),
    /// No kubeconfig, but a pod's service account.
    InCluster,
}

/// A context, with the cluster and user that it names.
pub(crate) struct Selected {
    pub(crate) cluster_name: String,
    pub(crate) cluster: Cluster,
    pub(crate) cluster_place: Place,
    pub(crate) user: AuthInfo,
    pub(crate) user_place: Place,
    pub(crate) namespace: Option<String>,
    pub(crate) context_place: Place,
}

/// Finds the kubeconfig and reads the context from it.
pub(crate) fn find(source: &KubeconfigSource, env: &Environment) -> Result<Found, KubeconfigError> {
    let paths = candidates(source, env);
    let mut files = Vec::new();
    for path in &paths {
        match read(path)? {
            Some(config) => files.push((path.as_path(), config)),
            None if source.kubeconfig.is_some() => return Err(KubeconfigError::Missing(Shown::path(path))),
            None => {}
        }
    }
    let wanted = source.context.as_deref().filter(|name| !name.is_empty());
    let empty = files
        .iter()
        .all(|(_, config)| config.clusters.is_empty() && config.contexts.is_empty() && config.users.is_empty());
    if empty {
        let may_be_pod = source.kubeconfig.is_none() && wanted.is_none();
        return match files.first() {
            _ if may_be_pod && incluster::possible(env) => Ok(Found::InCluster),
            Some((path, _)) => Err(KubeconfigError::Empty(Shown::path(path))),
            None if paths.is_empty() => {
                Err(KubeconfigError::NoneFound(Shown::name("those in KUBECONFIG, which names none")))
            }
            None => Err(KubeconfigError::NoneFound(show_all(&paths))),
        };
    }
    select(&files, wanted).map(|selected| Found::Context(Box::new(selected)))
}

/// The files to read, first one first.
fn candidates(source: &KubeconfigSource, env: &Environment) -> Vec<PathBuf> {
    let paths: Vec<PathBuf> = match (&source.kubeconfig, env.var_os("KUBECONFIG")) {
        (Some(path), _) => vec![path.clone()],
        (None, Some(list)) => std::env::split_paths(list).filter(|path| !path.as_os_str().is_empty()).collect(),
        (None, None) => env.home.iter().map(|home| home.join(".kube").join("config")).collect(),
    };
    paths.into_iter().map(|path| std::path::absolute(&path).unwrap_or(path)).collect()
}

/// Reads one file; `None` if it does not exist.
fn read(path: &Path) -> Result<Option<Kubeconfig>, KubeconfigError> {
    let unreadable =
        |cause: io::Error| KubeconfigError::Unreadable { path: Shown::path(path), cause: Shown::cause(&cause) };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(unreadable(cause)),
    };
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(KUBECONFIG_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > KUBECONFIG_MAX {
        return Err(KubeconfigError::TooLarge { path: Shown::path(path), max: KUBECONFIG_MAX });
    }
    let invalid = |at: String| KubeconfigError::Invalid { path: Shown::path(path), at };
    let document = yaml::read(&bytes).map_err(|error| {
        invalid(match error {
            YamlError::NotText => " (it is not text in UTF-8, or in UTF-16 with a byte order mark)".into(),
            YamlError::Syntax(line, column) => format!(" (line {line}, column {column})"),
            YamlError::Meaning => String::new(),
            YamlError::Aliases => " (its aliases mean far more than is written)".into(),
            YamlError::TooMany => format!(" (it has more than {} values)", yaml::NODES_MAX),
        })
    })?;
    let config = match &*document {
        Value::Null => Kubeconfig::default(),
        // Not shown: the parser's own text may hold a value.
        value => serde_path_to_error::deserialize(value).map_err(|error| {
            let at = Shown::name(&error.path().to_string());
            invalid(format!(" (at {at}: of another type; a text like 123 or yes needs quotes)"))
        })?,
    };
    let is =
        |value: &Option<String>, wanted: &str| value.as_deref().is_none_or(|value| value.is_empty() || value == wanted);
    if !is(&config.kind, "Config") || !is(&config.api_version, "v1") {
        return Err(KubeconfigError::WrongKind(Shown::path(path)));
    }
    let names: [(_, Vec<_>); 3] = [
        ("clusters", config.clusters.iter().map(|named| named.name.as_deref()).collect()),
        ("contexts", config.contexts.iter().map(|named| named.name.as_deref()).collect()),
        ("users", config.users.iter().map(|named| named.name.as_deref()).collect()),
    ];
    for (list, mut names) in names {
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let name = Shown::name(twice[0].unwrap_or_default());
            return Err(KubeconfigError::Twice { path: Shown::path(path), list, name });
        }
    }
    Ok(Some(config))
}

/// The context by name, else the first `current-context`, with its cluster and user.
fn select(files: &[(&Path, Kubeconfig)], wanted: Option<&str>) -> Result<Selected, KubeconfigError> {
    let all = || {
        let paths: Vec<_> = files.iter().map(|(path, _)| path.to_path_buf()).collect();
        show_all(&paths)
    };
    let contexts = || {
        let named = files.iter().flat_map(|(_, config)| config.contexts.iter());
        Shown::list(named.map(|named| named.name.as_deref().unwrap_or_default()))
    };
    let current =
        || files.iter().find_map(|(_, config)| config.current_context.as_deref().filter(|name| !name.is_empty()));
    let name = wanted
        .or_else(current)
        .ok_or_else(|| KubeconfigError::NoCurrentContext { path: all(), contexts: contexts() })?;
    let is = |named: &Option<String>, name: &str| named.as_deref().unwrap_or_default() == name;
    let (file, context) = first(files, |config| {
        config.contexts.iter().find(|named| is(&named.name, name)).map(|named| named.context.clone())
    })
    .ok_or_else(|| KubeconfigError::NoContext { name: Shown::name(name), path: all(), contexts: contexts() })?;
    let context_place = Place::named("context", name, file);
    let Context { cluster: cluster_name, user: user_name, namespace } = context.unwrap_or_default();
    let dangling =
        |kind, name: &str| KubeconfigError::Dangling { context: context_place.clone(), kind, name: Shown::name(name) };

    let cluster_name = cluster_name.unwrap_or_default();
    let (cluster_file, cluster) = first(files, |config| {
        config.clusters.iter().find(|named| is(&named.name, &cluster_name)).map(|named| named.cluster.clone())
    })
    .ok_or_else(|| match cluster_name.as_str() {
        "" => KubeconfigError::NoCluster(context_place.clone()),
        name => dangling("cluster", name),
    })?;
    let user_name = user_name.unwrap_or_default();
    let user = first(files, |config| {
        config.users.iter().find(|named| is(&named.name, &user_name)).map(|named| named.user.clone())
    });
    let (user_file, user) = match user {
        Some(found) => found,
        None if user_name.is_empty() => (file, None),
        None => return Err(dangling("user", &user_name)),
    };
    Ok(Selected {
        cluster_place: Place::named("cluster", &cluster_name, cluster_file),
        cluster_name,
        cluster: cluster.unwrap_or_default(),
        user: user.unwrap_or_default(),
        user_place: Place::named("user", &user_name, user_file),
        namespace: namespace.filter(|namespace| !namespace.is_empty()),
        context_place,
    })
}

fn first<'a, T>(files: &'a [(&'a Path, Kubeconfig)], pick: impl Fn(&Kubeconfig) -> Option<T>) -> Option<(&'a Path, T)> {
    files.iter().find_map(|(path, config)| pick(config).map(|found| (*path, found)))
}

fn show_all(paths: &[PathBuf]) -> Shown {
    let joined = paths.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>().join(", ");
    Shown::path(Path::new(&joined))
}
