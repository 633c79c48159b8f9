//! What the demo says. Text goes to standard output, bars to standard error where that is a terminal.

use std::fmt::Display;
use std::io::{IsTerminal, Write, stdout};

/// Bold and back.
const BOLD: (&str, &str) = ("\x1b[1m", "\x1b[0m");

/// Standard output; a reader that leaves does not end the demo, which has processes to put in order.
pub struct Screen {
    bold: (&'static str, &'static str),
    chapter: u32,
}

impl Screen {
    /// With a title.
    pub fn new(title: &str) -> Self {
        let plain = !stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some();
        let screen = Self { bold: if plain { ("", "") } else { BOLD }, chapter: 0 };
        screen.bold_line(title);
        screen
    }

    /// A chapter begins.
    pub fn chapter(&mut self, title: &str) {
        self.chapter += 1;
        self.blank();
        self.bold_line(&format!("{}. {title}", self.chapter));
    }

    /// A heading without a number.
    pub fn heading(&self, title: &str) {
        self.blank();
        self.bold_line(title);
    }

    /// A line of a chapter.
    pub fn line(&self, text: impl Display) {
        write(format_args!("   {text}\n"));
    }

    /// A line with a name in front.
    pub fn item(&self, name: &str, text: impl Display) {
        write(format_args!("   {name:<10} {text}\n"));
    }

    fn blank(&self) {
        write("\n");
    }

    fn bold_line(&self, text: &str) {
        let (on, off) = self.bold;
        write(format_args!("{on}{text}{off}\n"));
    }
}

fn write(text: impl Display) {
    let mut out = stdout().lock();
    let _ = write!(out, "{text}");
    let _ = out.flush();
}
