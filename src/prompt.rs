//! Questions to the person at the terminal. They run on a thread of their own, which a signal need not wait for.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write as _},
};

use mykube_protocol::PairingCode;
use rustix::stdio::stdin;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::output::Output;

/// Longest answer that is read: no answer comes near it.
const ANSWER_MAX: usize = 4096;

/// Whether there is a person to ask: both the question and the answer go through a terminal.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// One line of standard input after `question`; nothing at its end.
pub(crate) async fn ask(question: String) -> io::Result<Option<Zeroizing<String>>> {
    let (answer, answered) = oneshot::channel();
    std::thread::spawn(move || {
        let mut terminal = io::stderr();
        let _ = terminal.write_all(question.as_bytes()).and_then(|()| terminal.flush());
        let _ = answer.send(stdin().try_clone_to_owned().and_then(|fd| read_line(File::from(fd))));
    });
    answered.await.map_err(io::Error::other)?
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
