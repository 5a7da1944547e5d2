//! A program of a test's own.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

/// A program that has said a line, and ends with this.
pub(crate) struct Running {
    pub(crate) said: String,
    child: Child,
}

impl Running {
    pub(crate) fn start(command: &mut Command, told: Option<&Value>) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        if let Some(told) = told {
            writeln!(child.stdin.as_mut().unwrap(), "{told}").unwrap();
        }
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        Self { said, child }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
