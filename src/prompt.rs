//! Questions to the person at the terminal. They are read on a thread of their own, which nobody need wait for: a question that
//! is not waited for any more is withdrawn on the screen.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write as _},
    sync::{Mutex, MutexGuard, PoisonError},
};

use mykube_protocol::PairingCode;
use rustix::stdio::stdin;
use tokio::sync::oneshot::{self, error::TryRecvError};
use zeroize::Zeroizing;

use crate::output::Output;

/// Longest answer that is read: no answer comes near it.
const ANSWER_MAX: usize = 4096;

/// Whether there is a person to ask: both the question and the answer go through a terminal.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

type Read = io::Result<Option<Zeroizing<String>>>;

/// The line that a withdrawn question still reads. There is never a second reader of standard input beside it, which could take
/// the answer to another question.
static LEFT: Mutex<Option<oneshot::Receiver<Read>>> = Mutex::new(None);

fn left() -> MutexGuard<'static, Option<oneshot::Receiver<Read>>> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One line of standard input after `question`; nothing at its end.
pub(crate) async fn ask(question: String) -> Read {
    // A line that came meanwhile answers a question that was withdrawn.
    let still_read = left().take().and_then(|mut answered| {
        let empty = matches!(answered.try_recv(), Err(TryRecvError::Empty));
        empty.then_some(answered)
    });
    let answered = match still_read {
        Some(answered) => {
            std::thread::spawn(move || show(&question));
            answered
        }
        None => {
            let (answer, answered) = oneshot::channel();
            std::thread::spawn(move || {
                show(&question);
                let _ = answer.send(stdin().try_clone_to_owned().and_then(|fd| read_line(File::from(fd))));
            });
            answered
        }
    };
    let mut asked = Asked { answered, over: false };
    let line = (&mut asked.answered).await;
    asked.over = true;
    line.map_err(io::Error::other)?
}

fn show(question: &str) {
    let mut terminal = io::stderr();
    let _ = terminal.write_all(question.as_bytes()).and_then(|()| terminal.flush());
}

/// A question that is open.
struct Asked {
    answered: oneshot::Receiver<Read>,
    over: bool,
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.over {
            let (_, never) = oneshot::channel();
            *left() = Some(std::mem::replace(&mut self.answered, never));
            if can_ask() {
                std::thread::spawn(|| show("\n(no answer is needed any more)\n"));
            }
        }
    }
}

/// The code, asked for until it looks like one; without a terminal, one line of standard input.
pub(crate) async fn code(output: Output) -> Result<PairingCode, String> {
    let on_terminal = can_ask();
    loop {
        let question = if on_terminal { "Code shown by `mykube server`: " } else { "" };
        let line = ask(question.to_owned()).await.map_err(|error| format!("cannot read the code: {error}"))?;
        let Some(line) = line else {
            return Err("no code was given: type it, or write it to standard input as one line".to_owned());
        };
        match line.parse() {
            Ok(code) => return Ok(code),
            Err(why) if on_terminal => output.warn(&format!("{why}")),
            Err(why) => return Err(why.to_string()),
        }
    }
}

/// A yes or a no, asked until it is one. The end of input is a no.
pub(crate) async fn yes(output: Output, question: &str) -> io::Result<bool> {
    loop {
        let Some(line) = ask(format!("{question} [yes/no] ")).await? else { return Ok(false) };
        match line.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => return Ok(true),
            "n" | "no" => return Ok(false),
            _ => output.essential("Please answer yes or no."),
        }
    }
}

/// Shows the four words and asks whether they stand at the other end too.
pub(crate) async fn same_words(output: Output, words: &str, other: &str) -> bool {
    output.show("Four words: ", words);
    yes(output, &format!("Does {other} show the same four words?")).await.unwrap_or(false)
}

/// Reads up to the line's end and not a byte further: what follows is the subshell's.
fn read_line(mut input: impl io::Read) -> io::Result<Option<Zeroizing<String>>> {
    let mut line = Zeroizing::new(Vec::with_capacity(ANSWER_MAX));
    let mut byte = [0];
    loop {
        let end = input.read(&mut byte)? == 0;
        if end && line.is_empty() {
            return Ok(None);
        }
        if end || byte[0] == b'\n' {
            return Ok(Some(Zeroizing::new(String::from_utf8_lossy(&line).into_owned())));
        }
        if line.len() == ANSWER_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long"));
        }
        line.push(byte[0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_where_it_ends() {
        let mut input = io::Cursor::new(b"483 20417\nkubectl get pods\n".to_vec());
        assert_eq!(read_line(&mut input).unwrap().unwrap().as_str(), "483 20417");
        assert_eq!(input.position(), 10);
        assert_eq!(read_line(io::empty()).unwrap(), None);
        assert_eq!(read_line(&b"last"[..]).unwrap().unwrap().as_str(), "last");
        assert!(read_line(io::repeat(b'x')).is_err());
    }
}
