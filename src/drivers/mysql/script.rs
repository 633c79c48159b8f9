//! The script that mysqldump and mariadb-dump write: does it begin and end as a whole one, and what is in it?

use super::super::form::{Form, FormError, wrong};
use super::super::tally::Tally;
use super::rows::Rows;
use std::io::Write;

/// How a dump begins, behind the line that newer MariaDB tools put before everything.
const BANNERS: [&str; 2] = ["-- MySQL dump ", "-- MariaDB dump "];
const SANDBOX: &str = "enable the sandbox mode";

/// The last line. A date may follow.
const LAST: &str = "-- Dump completed";

/// Where the head names the server.
const SERVER: &str = "-- Server version";

/// The head's length: banner, host, version.
const HEAD_LEN: usize = 2048;

/// Long enough for the last line.
const TAIL_LEN: usize = 256;

/// Looks at a script's head and tail, and counts its rows.
#[derive(Default)]
pub struct Script {
    head: Vec<u8>,
    checked: bool,
    tail: Vec<u8>,
    rows: Rows,
}

impl Script {
    /// Of the server, as the head says.
    pub fn server_version(&self) -> Option<String> {
        let head = String::from_utf8_lossy(&self.head);
        let line = head.lines().find_map(|line| line.strip_prefix(SERVER))?;
        Some(line.trim().to_owned())
    }

    /// Once enough has come to know.
    fn check_head(&mut self) -> Result<(), FormError> {
        let head = String::from_utf8_lossy(&self.head);
        let body = match head.split_once('\n') {
            Some((first, rest)) if first.starts_with("/*") && first.contains(SANDBOX) => rest,
            Some(_) => &head,
            None => return Ok(()),
        };
        if BANNERS.iter().any(|banner| body.starts_with(banner)) {
            self.checked = true;
            return Ok(());
        }
        if body.len() < BANNERS.map(str::len).into_iter().max().unwrap_or(0) {
            return Ok(());
        }
        wrong("it does not begin with the banner of a MySQL or MariaDB dump")
    }

    fn remember(&mut self, bytes: &[u8]) {
        let room = HEAD_LEN.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(bytes.get(..room).unwrap_or_default());
        let last = bytes.get(bytes.len().saturating_sub(TAIL_LEN)..).unwrap_or_default();
        self.tail.extend_from_slice(last);
        let surplus = self.tail.len().saturating_sub(TAIL_LEN);
        self.tail.drain(..surplus);
    }
}

impl Form for Script {
    fn take(&mut self, bytes: &[u8], out: &mut dyn Write) -> Result<(), FormError> {
        self.remember(bytes);
        if !self.checked {
            self.check_head()?;
        }
        self.rows.take(bytes);
        Ok(out.write_all(bytes)?)
    }

    fn finish(&mut self, _: &mut dyn Write) -> Result<(), FormError> {
        if !self.checked {
            return wrong("it does not begin with the banner of a MySQL or MariaDB dump");
        }
        let tail = String::from_utf8_lossy(&self.tail);
        match tail.trim_end().lines().next_back() {
            Some(line) if line.starts_with(LAST) => Ok(()),
            Some(_) | None => wrong(format!("its last line is not \"{LAST}\": it ends in the middle")),
        }
    }

    fn tally(&mut self) -> Option<Tally> {
        Some(self.rows.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "-- MariaDB dump 10.19-11.4.2\n-- Host: x\n-- Server version\t11.4.2-MariaDB-log\nCREATE TABLE a;\n";

    fn judge(text: &str, piece: usize) -> Result<Option<String>, FormError> {
        let (mut script, mut out) = (Script::default(), Vec::new());
        for piece in text.as_bytes().chunks(piece) {
            script.take(piece, &mut out)?;
        }
        script.finish(&mut out)?;
        assert_eq!(out, text.as_bytes());
        Ok(script.server_version())
    }

    #[test]
    fn a_whole_script_is_whole_however_it_is_cut() {
        let sandbox =
            ["", "/*M!999999\\- enable the sandbox mode */ \n", "/*!999999\\- enable the sandbox mode */ \n"];
        for before in sandbox {
            for end in ["-- Dump completed on 2026-11-23 20:00:00\n", "-- Dump completed\n"] {
                let text = format!("{before}{HEAD}{}{end}", "INSERT;\n".repeat(100));
                for piece in [1, 13, text.len()] {
                    assert_eq!(judge(&text, piece).unwrap().as_deref(), Some("11.4.2-MariaDB-log"));
                }
            }
        }
    }

    #[test]
    fn half_a_script_and_what_is_none_are_refused() {
        let whole = format!("{HEAD}INSERT;\n-- Dump completed\n");
        for len in 0..whole.len() - "ompleted\n".len() {
            assert!(judge(&whole[..len], 20).is_err(), "{len}");
        }
        assert!(judge("Access denied, sorry, this is no dump\n-- Dump completed\n", 9).is_err());
        assert!(judge(&format!("{whole}and more\n"), 9).is_err());
    }
}
