//! What marks a tool as the agent's own: a variable of its environment, which what it starts inherits.
//!
//! Two numbers are in it, of the owner's target and of the owner's life. So the tools of a target are told from those of
//! every other, and what an earlier life left from what goes on.

use ring::digest::{SHA256, digest};
use std::time::{SystemTime, UNIX_EPOCH};

/// The variable.
const NAME: &str = "BACKUPY_EXEC";

/// Of each number: long enough that no two are the same, short enough for a variable.
const NUMBER_BYTES: usize = 16;

/// Who starts tools in containers: in one life at a time, and for one run of a target at a time.
#[derive(Clone, Debug)]
pub struct Owner {
    name: String,
    life: String,
}

impl Owner {
    /// A new life of it; `name` is the same in all of them.
    pub fn new(name: String) -> Self {
        Self { name, life: unique() }
    }

    /// What its tools for that target have in their environment.
    pub fn mark(&self, target: &str) -> Mark {
        Mark::of(&self.name, &self.life, target)
    }
}

/// `NAME=value`
#[derive(Clone, Debug)]
pub struct Mark {
    variable: String,
    target_len: usize,
}

impl Mark {
    /// Of tools that only this life of the agent will ever look for.
    pub(super) fn of_nobody(target: &str) -> Self {
        Self::of("", &unique(), target)
    }

    fn of(owner: &str, life: &str, target: &str) -> Self {
        let of_target = format!("{NAME}={}-", number(format!("{owner}\0{target}").as_bytes()));
        Self { target_len: of_target.len(), variable: of_target + life }
    }

    /// The whole variable.
    pub fn variable(&self) -> &str {
        &self.variable
    }

    /// Tools of this life.
    pub(super) fn own(&self) -> Which<'_> {
        Which { begins: &self.variable, spared: None }
    }

    /// Tools of the target, whichever life started them.
    pub(super) fn of_every_life(&self) -> Which<'_> {
        Which { begins: self.variable.get(..self.target_len).unwrap_or(&self.variable), spared: None }
    }

    /// Tools of the target that this life did not start.
    pub(super) fn of_earlier_lives(&self) -> Which<'_> {
        Which { spared: Some(&self.variable), ..self.of_every_life() }
    }
}

/// Some of the agent's tools.
#[derive(Clone, Copy, Debug)]
pub(super) struct Which<'a> {
    /// The beginning of their variable.
    pub begins: &'a str,
    /// The whole variable of those that are not meant.
    pub spared: Option<&'a str>,
}

impl Which<'_> {
    /// Whether a process with that variable is one of them.
    pub fn has(&self, variable: &[u8]) -> bool {
        variable.starts_with(self.begins.as_bytes())
            && self.spared.is_none_or(|spared| variable != spared.as_bytes())
    }
}

fn number(text: &[u8]) -> String {
    let digest = digest(&SHA256, text);
    data_encoding::HEXLOWER.encode(digest.as_ref().get(..NUMBER_BYTES).unwrap_or_default())
}

/// No two are the same.
fn unique() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    number(&[std::process::id().to_le_bytes().as_slice(), &now.as_nanos().to_le_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_of_other_targets_lives_and_owners_are_told_apart() {
        let (owner, before) = (Owner::new("agent".into()), Owner::new("agent".into()));
        let mark = owner.mark("t1");
        let foreign = Owner::new("another".into());
        let marks = [mark.clone(), before.mark("t1"), owner.mark("t2"), foreign.mark("t1")];
        let meant = |which: Which<'_>| marks.each_ref().map(|mark| which.has(mark.variable().as_bytes()));
        assert_eq!(meant(mark.own()), [true, false, false, false]);
        assert_eq!(meant(mark.of_every_life()), [true, true, false, false]);
        assert_eq!(meant(mark.of_earlier_lives()), [false, true, false, false]);
        assert!(!mark.own().has(Mark::of_nobody("t1").variable().as_bytes()));
    }
}
