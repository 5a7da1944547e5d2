//! Finds and reads the kubeconfig the way kubectl does: `--kubeconfig`, else the files of `KUBECONFIG`, else
//! `~/.kube/config`, else a pod's service account.
//!
//! Of several files the first to define a thing wins, whole; a file that is not there is skipped; relative paths in
//! a file start at that file's directory (client-go `ClientConfigLoadingRules`).

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use kube::config::{AuthInfo, Cluster, Context, Kubeconfig, KubeconfigError as ParseError};
use zeroize::Zeroizing;

use crate::{
    Environment, KubeconfigError,
    error::{Place, Shown},
    incluster,
};

/// Longest kubeconfig that is read. Ten thousand clusters fit; a wrong path to a disk image does not.
pub const KUBECONFIG_MAX: u64 = 16 * 1024 * 1024;

/// Which kubeconfig and context to use, and how patient to be.
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

/// What was found.
pub(crate) enum Found {
    /// A context of a kubeconfig.
    Context(Box<Selected>),
    /// No kubeconfig, but a pod's service account.
    InCluster,
}

/// A context with what it names.
pub(crate) struct Selected {
    pub(crate) cluster_name: String,
    pub(crate) cluster: Cluster,
    pub(crate) cluster_place: Place,
    pub(crate) user: AuthInfo,
    pub(crate) user_place: Place,
    pub(crate) namespace: Option<String>,
    pub(crate) context_place: Place,
}

/// Looks for a kubeconfig and takes the context out of it.
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
        .all(|(_, config)| config.clusters.is_empty() && config.contexts.is_empty() && config.auth_infos.is_empty());
    if empty {
        let may_be_pod = source.kubeconfig.is_none() && wanted.is_none();
        return match files.first() {
            _ if may_be_pod && incluster::possible(env) => Ok(Found::InCluster),
            Some((path, _)) => Err(KubeconfigError::Empty(Shown::path(path))),
            None => Err(KubeconfigError::NoneFound(show_all(&paths))),
        };
    }
    select(&files, wanted).map(|selected| Found::Context(Box::new(selected)))
}

/// The files to read, first one first.
fn candidates(source: &KubeconfigSource, env: &Environment) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = match (&source.kubeconfig, env.var_os("KUBECONFIG")) {
        (Some(path), _) => vec![path.clone()],
        (None, Some(list)) => std::env::split_paths(list).filter(|path| !path.as_os_str().is_empty()).collect(),
        (None, None) => Vec::new(),
    };
    if paths.is_empty() {
        paths.extend(env.home.as_ref().map(|home| home.join(".kube").join("config")));
    }
    paths.into_iter().map(|path| std::path::absolute(&path).unwrap_or(path)).collect()
}

/// Reads one file; nothing where it does not exist.
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
    let text = std::str::from_utf8(&bytes).map_err(|_| invalid(" (it is not UTF-8 text)".into()))?;
    let config = Kubeconfig::from_yaml(text.trim_start_matches('\u{feff}')).map_err(|error| match error {
        ParseError::Parse(error) => invalid(
            error.location().map_or_else(String::new, |at| format!(" (line {}, column {})", at.line(), at.column())),
        ),
        _ => invalid(String::new()),
    })?;
    let is =
        |value: &Option<String>, wanted: &str| value.as_deref().is_none_or(|value| value.is_empty() || value == wanted);
    if is(&config.kind, "Config") && is(&config.api_version, "v1") {
        Ok(Some(config))
    } else {
        Err(KubeconfigError::WrongKind(Shown::path(path)))
    }
}

/// The context by name, else the first `current-context`, with its cluster and user.
fn select(files: &[(&Path, Kubeconfig)], wanted: Option<&str>) -> Result<Selected, KubeconfigError> {
    let all = || {
        let paths: Vec<_> = files.iter().map(|(path, _)| path.to_path_buf()).collect();
        show_all(&paths)
    };
    let contexts =
        || Shown::list(files.iter().flat_map(|(_, config)| &config.contexts).map(|named| named.name.as_str()));
    let current =
        || files.iter().find_map(|(_, config)| config.current_context.as_deref().filter(|name| !name.is_empty()));
    let name = wanted
        .or_else(current)
        .ok_or_else(|| KubeconfigError::NoCurrentContext { path: all(), contexts: contexts() })?;
    let (file, context) = first(files, |config| {
        config.contexts.iter().find(|named| named.name == name).map(|named| named.context.clone())
    })
    .ok_or_else(|| KubeconfigError::NoContext { name: Shown::name(name), path: all(), contexts: contexts() })?;
    let context_place = Place::named("context", name, file);
    let context: Context = context.unwrap_or_default();
    let dangling =
        |kind, name: &str| KubeconfigError::Dangling { context: context_place.clone(), kind, name: Shown::name(name) };

    let (cluster_file, cluster) = first(files, |config| {
        config.clusters.iter().find(|named| named.name == context.cluster).map(|named| named.cluster.clone())
    })
    .ok_or_else(|| dangling("cluster", &context.cluster))?;
    let user_name = context.user.as_deref().unwrap_or_default();
    let (user_file, user) = if user_name.is_empty() {
        (file, None)
    } else {
        first(files, |config| {
            config.auth_infos.iter().find(|named| named.name == user_name).map(|named| named.auth_info.clone())
        })
        .ok_or_else(|| dangling("user", user_name))?
    };
    Ok(Selected {
        cluster_place: Place::named("cluster", &context.cluster, cluster_file),
        cluster_name: context.cluster,
        cluster: cluster.unwrap_or_default(),
        user: user.unwrap_or_default(),
        user_place: Place::named("user", user_name, user_file),
        namespace: context.namespace.filter(|namespace| !namespace.is_empty()),
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
