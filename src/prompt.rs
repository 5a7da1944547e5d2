//! Questions to the person at the terminal. A thread of its own reads the answers, and nobody must wait for it: a
//! question that is no longer awaited is withdrawn on the screen. What was typed before a question was shown is not its
//! answer: it was meant for another question, or for none.

use std::{
    fs::File,
    io::{self, IsTerminal as _},
    sync::{Mutex, MutexGuard, PoisonError},
};

use mykube_protocol::PairingCode;
use rustix::{
    stdio::stdin,
    termios::{QueueSelector, tcflush},
};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::output::Output;

/// Longest answer that is read: no answer comes near it.
const ANSWER_MAX: usize = 4096;

/// Whether there is a person to ask: question and answer both go through a terminal.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

type Read = io::Result<Option<Zeroizing<String>>>;

/// Standard input. It has one reader at a time: a second one could take the answer to another question.
static INPUT: Mutex<Input> = Mutex::new(Input { asked: None, is_read: false, forgotten: 0 });

struct Input {
    /// The question that waits for the next line.
    asked: Option<oneshot::Sender<Read>>,
    is_read: bool,
    /// How many times typed text was discarded.
    forgotten: u64,
}

fn input() -> MutexGuard<'static, Input> {
    INPUT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One line of standard input after `question`; `None` at its end.
pub(crate) async fn ask(output: Output, question: String) -> Read {
    let (answer, answered) = oneshot::channel();
    output.question(question, move || {
        let mut input = input();
        input.forget();
        input.asked = Some(answer);
        if !input.is_read {
            input.is_read = std::thread::Builder::new().spawn(read).is_ok();
        }
        if !input.is_read {
            input.asked = None;
        }
    });
    let mut asked = Asked { output, answered, over: false };
    let line = (&mut asked.answered).await;
    asked.over = true;
    line.map_err(io::Error::other)?
}

impl Input {
    /// Piped input was written beforehand on purpose.
    fn forget(&mut self) {
        if can_ask() {
            let _ = tcflush(stdin(), QueueSelector::IFlush);
            self.forgotten += 1;
        }
    }
}

/// Reads lines, and gives each to the question that is then open.
fn read() {
    loop {
        let mut begun = None;
        let begin = || begun = Some(input().forgotten);
        let line = stdin().try_clone_to_owned().and_then(|fd| read_line(File::from(fd), begin));
        let mut input = input();
        if begun.is_none_or(|begun| begun == input.forgotten) {
            input.is_read = false;
            if let Some(asked) = input.asked.take() {
                let _ = asked.send(line);
            }
            return;
        }
        // Its beginning was typed before the question.
    }
}

/// An open question.
struct Asked {
    output: Output,
    answered: oneshot::Receiver<Read>,
    over: bool,
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.over && can_ask() {
            self.output.question("\n(no answer is needed any more)\n".to_owned(), || input().forget());
        }
    }
}

/// Asks for the code until it has a code's form; without a terminal, reads one line of standard input.
pub(crate) async fn code(output: Output) -> Result<PairingCode, String> {
    let on_terminal = can_ask();
    loop {
        let question = if on_terminal { "Code shown by `mykube server`: " } else { "" };
        let line = ask(output, question.to_owned()).await.map_err(|error| format!("cannot read the code: {error}"))?;
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

/// Asks for a yes or a no until it gets one. The end of input is a no.
pub(crate) async fn yes(output: Output, question: &str) -> io::Result<bool> {
    loop {
        let Some(line) = ask(output, format!("{question} [yes/no] ")).await? else { return Ok(false) };
        match line.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => return Ok(true),
            "n" | "no" => return Ok(false),
            _ => output.essential("Please answer yes or no."),
        }
    }
}

/// Shows the four words and asks whether the other end shows the same.
pub(crate) async fn same_words(output: Output, words: &str, other: &str) -> bool {
    output.show("Four words: ", words);
    yes(output, &format!("Does {other} show the same four words?")).await.unwrap_or(false)
}

/// Reads up to the line's end and not a byte further: the rest is the subshell's. Calls `begin` at the first byte.
fn read_line(mut input: impl io::Read, begin: impl FnOnce()) -> io::Result<Option<Zeroizing<String>>> {
    let mut line = Zeroizing::new(Vec::with_capacity(ANSWER_MAX));
    let mut begin = Some(begin);
    let mut byte = [0];
    loop {
        let end = input.read(&mut byte)? == 0;
        if let Some(begin) = begin.take_if(|_| !end) {
            begin();
        }
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
        let mut begun = 0;
        assert_eq!(read_line(&mut input, || begun += 1).unwrap().unwrap().as_str(), "483 20417");
        assert_eq!((input.position(), begun), (10, 1));
        assert_eq!(read_line(io::empty(), || unreachable!("nothing has begun")).unwrap(), None);
        assert_eq!(read_line(&b"last"[..], || {}).unwrap().unwrap().as_str(), "last");
        assert!(read_line(io::repeat(b'x'), || {}).is_err());
    }
}
