//! The whole thing against real parts: real processes, a real kube-apiserver, real kubectl. See `scripts/test`.

#[cfg(test)]
mod accounts;
#[cfg(test)]
mod agents;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod canary;
#[cfg(test)]
mod cluster_audit;
#[cfg(test)]
mod codes;
#[cfg(test)]
mod copy;
#[cfg(test)]
mod credentials;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod ends;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod floods;
#[cfg(test)]
mod guarded;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod in_cluster;
#[cfg(test)]
mod join;
#[cfg(test)]
mod kubeconfigs;
#[cfg(test)]
mod legacy;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod merge;
#[cfg(test)]
mod operations;
#[cfg(test)]
mod proxies;
#[cfg(test)]
mod recording;
#[cfg(test)]
mod replace;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod support;
#[cfg(test)]
mod terminal;
#[cfg(test)]
mod tools;
#[cfg(test)]
mod zoo;
