//! Namespaces and the lines between them.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::{LabError, Link, Namespace, Shape, namespace};

/// Makes namespaces and links, numbered so that no two links of a lab share addresses.
#[derive(Debug)]
pub struct Lab {
    links: AtomicU8,
    swept: Vec<String>,
}

impl Lab {
    /// Makes a lab; first removes the namespaces whose processes have gone.
    pub fn new() -> Result<Self, LabError> {
        Ok(Self { links: AtomicU8::new(0), swept: namespace::sweep()? })
    }

    /// The names of the namespaces that were removed at the start.
    #[must_use]
    pub fn swept(&self) -> &[String] {
        &self.swept
    }

    /// A namespace with loopback and nothing else. The label is part of its name.
    pub fn namespace(&self, label: &str) -> Result<Namespace, LabError> {
        Namespace::create(label)
    }

    /// A line between two namespaces: `10.99.N.1` in `a`, `10.99.N.2` in `b`, each the other's default route.
    pub fn link(&self, a: &Namespace, b: &Namespace, shape: Shape) -> Result<Link, LabError> {
        let number = self.links.fetch_add(1, Ordering::Relaxed);
        Link::create(number, a, b, shape)
    }
}
