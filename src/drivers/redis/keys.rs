//! Counts the keys of each database of an RDB as it passes. Nothing in the file says how long a value is, so every
//! value is walked over; of none more than a few bytes are kept.
//!
//! What is to be read next stands on a stack of [`Task`]s: a hash of seven fields is `Strings(14)`, and a stream is a
//! list of tasks, some of which put others in their place. A value of a kind that this reader does not know ends the
//! counting, never the backup.

use super::super::tally::Tally;
use super::opcodes::{
    AUX, EOF, EXPIRES_MS, EXPIRES_S, FREQUENCY, FUNCTION, IDLE, LAST_KIND, MODULE_AUX, RESIZE_DB, SELECT_DB,
    SLOT_IMPORT, SLOT_INFO,
};

/// Behind the first letter: the rest of the name, and the version.
const HEAD_REST_LEN: u64 = 8;

/// A number's or a string's first byte: two bits of form, six of value.
const FORM_14_BITS: u8 = 1;
const FORM_LARGE: u8 = 2;
const FORM_ENCODED: u8 = 3;
const LARGE_32_BITS: u8 = 0x80;
const LARGE_64_BITS: u8 = 0x81;
/// A string compressed with LZF: its two lengths, then its bytes.
const LZF: u64 = 3;

/// A 128-bit id of a stream's entry, and a time.
const STREAM_ID_BYTES: u64 = 16;
const TIME_BYTES: u64 = 8;

/// Values nest by their kind alone, a few levels deep.
const MAX_TASKS: usize = 64;

/// What is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// The first letter of the file.
    Head,
    /// What comes next: an opcode, or the kind of a key's value.
    Opcode,
    /// Bytes that nobody looks at.
    Skip(u64),
    /// Strings one after the other.
    Strings(u64),
    /// Numbers that nobody looks at.
    Numbers(u64),
    /// A number that says what follows.
    Count(Of),
    /// So many of them.
    Each(Of, u64),
    /// A double of the old form, with a length of one byte.
    OldDouble,
    /// What a module wrote: its parts have opcodes of their own.
    ModulePart,
}

/// What a number counts, or is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// It is the number of the database that follows.
    Database,
    /// Bytes of a packed string, which stand behind another number.
    Packed,
    /// Strings; a pair is two.
    Strings,
    Pairs,
    /// A string and a double.
    Scores,
    OldScores,
    /// A container's kind and a string.
    Nodes,
    /// A time, and two strings.
    TimedFields,
    /// The same as Valkey writes it: two strings and a time.
    FieldsWithTime,
    /// The first and the last of each.
    Ranges,
    /// Of a stream: its groups, what is pending in them, and who has it.
    Groups(StreamForm),
    Pending,
    Consumers(StreamForm),
    ConsumerPending,
    /// A module's part.
    Module,
}

/// Which of the three forms of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum StreamForm {
    First,
    Second,
    Third,
}

/// A number or a string's beginning.
enum Number {
    Plain(u64),
    /// A string that is a number itself, or is compressed.
    Encoded(u64),
}

/// Where in the file the reader stands.
pub struct Keys {
    tasks: Vec<Task>,
    /// From RDB 12 on, the numbers of Redis and of Valkey mean different things.
    is_valkey: bool,
    /// Bytes of a number that has come in pieces.
    partial: Vec<u8>,
    database: u64,
    keys: u64,
    given_up: bool,
    ended: bool,
    tally: Tally,
}

impl Keys {
    /// Before the first byte.
    pub fn new() -> Self {
        Self {
            tasks: vec![Task::Head],
            is_valkey: false,
            partial: Vec::new(),
            database: 0,
            keys: 0,
            given_up: false,
            ended: false,
            tally: Tally::default(),
        }
    }

    /// The next bytes.
    pub fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.given_up && !self.ended {
            match self.tasks.pop() {
                Some(task) => self.step(task, &mut bytes),
                None => self.tasks.push(Task::Opcode),
            }
            if self.tasks.len() > MAX_TASKS {
                self.given_up = true;
            }
        }
    }

    /// What was counted, where the file's end was reached.
    pub fn finish(&mut self) -> Option<Tally> {
        self.end_database();
        (self.ended && !self.given_up).then(|| self.tally.clone())
    }

    fn end_database(&mut self) {
        let keys = std::mem::take(&mut self.keys);
        if keys > 0 {
            self.tally.add(&format!("db{}", self.database), keys);
        }
    }

    /// Goes on with a task, which goes back where it is not through.
    fn step(&mut self, task: Task, bytes: &mut &[u8]) {
        match task {
            Task::Skip(len) => {
                let here = usize::try_from(len).unwrap_or(usize::MAX).min(bytes.len());
                *bytes = bytes.get(here..).unwrap_or_default();
                self.again(Task::Skip(len - here as u64));
            }
            Task::Head => {
                self.is_valkey = first(bytes) == Some(b'V');
                self.tasks.push(Task::Skip(HEAD_REST_LEN));
            }
            Task::Opcode => {
                if let Some(opcode) = first(bytes) {
                    self.opcode(opcode);
                }
            }
            Task::OldDouble => {
                // 253 and more are words: not a number, and the infinities.
                if let Some(len) = first(bytes).filter(|len| *len < 253) {
                    self.tasks.push(Task::Skip(len.into()));
                }
            }
            Task::Numbers(count) => match self.number(bytes) {
                Some(Number::Plain(_)) => self.again(Task::Numbers(count - 1)),
                Some(Number::Encoded(_)) => self.given_up = true,
                None => self.tasks.push(task),
            },
            Task::Strings(count) => match self.number(bytes) {
                Some(number) => {
                    self.again(Task::Strings(count - 1));
                    self.string(number);
                }
                None => self.tasks.push(task),
            },
            Task::Count(of) => match self.number(bytes) {
                Some(Number::Plain(number)) => self.count(of, number),
                Some(Number::Encoded(_)) => self.given_up = true,
                None => self.tasks.push(task),
            },
            Task::Each(of, count) => {
                self.again(Task::Each(of, count - 1));
                self.one(of);
            }
            Task::ModulePart => match self.number(bytes) {
                Some(Number::Plain(part)) => self.count(Of::Module, part),
                Some(Number::Encoded(_)) => self.given_up = true,
                None => self.tasks.push(task),
            },
        }
    }

    /// Puts a task back that has something left.
    fn again(&mut self, task: Task) {
        let is_through =
            matches!(task, Task::Skip(0) | Task::Strings(0) | Task::Numbers(0) | Task::Each(_, 0));
        if !is_through {
            self.tasks.push(task);
        }
    }

    /// Puts tasks on the stack so that they come in this order.
    fn then(&mut self, tasks: &[Task]) {
        for task in tasks.iter().rev() {
            self.again(*task);
        }
    }

    fn opcode(&mut self, opcode: u8) {
        match opcode {
            EOF => self.ended = true,
            SELECT_DB => self.tasks.push(Task::Count(Of::Database)),
            EXPIRES_S => self.tasks.push(Task::Skip(4)),
            EXPIRES_MS => self.tasks.push(Task::Skip(TIME_BYTES)),
            RESIZE_DB => self.tasks.push(Task::Numbers(2)),
            AUX => self.tasks.push(Task::Strings(2)),
            FREQUENCY => self.tasks.push(Task::Skip(1)),
            IDLE => self.tasks.push(Task::Numbers(1)),
            // Its id, and when it was written.
            MODULE_AUX => self.then(&[Task::Numbers(3), Task::ModulePart]),
            FUNCTION => self.tasks.push(Task::Strings(1)),
            SLOT_INFO => self.tasks.push(Task::Numbers(3)),
            SLOT_IMPORT if self.is_valkey => self.then(&[Task::Strings(1), Task::Count(Of::Ranges)]),
            kind if kind <= LAST_KIND => {
                self.keys += 1;
                self.value(kind);
                self.tasks.push(Task::Strings(1));
            }
            _ => self.given_up = true,
        }
    }

    /// A value of that kind.
    fn value(&mut self, kind: u8) {
        match kind {
            // Strings, and whatever is packed into one: zipmaps, ziplists, intsets, listpacks.
            0 | 9..=13 | 16 | 17 | 20 => self.tasks.push(Task::Strings(1)),
            1 | 2 | 14 => self.tasks.push(Task::Count(Of::Strings)),
            3 => self.tasks.push(Task::Count(Of::OldScores)),
            4 => self.tasks.push(Task::Count(Of::Pairs)),
            5 => self.tasks.push(Task::Count(Of::Scores)),
            7 => self.then(&[Task::Numbers(1), Task::ModulePart]),
            18 => self.tasks.push(Task::Count(Of::Nodes)),
            15 => self.stream(StreamForm::First),
            19 => self.stream(StreamForm::Second),
            21 => self.stream(StreamForm::Third),
            22 if self.is_valkey => self.tasks.push(Task::Count(Of::FieldsWithTime)),
            24 if !self.is_valkey => self.then(&[Task::Skip(TIME_BYTES), Task::Count(Of::TimedFields)]),
            25 if !self.is_valkey => self.then(&[Task::Skip(TIME_BYTES), Task::Strings(1)]),
            _ => self.given_up = true,
        }
    }

    /// Its entries, how many, the last id; of later forms the first id, the largest deleted one, and how many were added.
    fn stream(&mut self, form: StreamForm) {
        let numbers = if form == StreamForm::First { 3 } else { 8 };
        self.then(&[Task::Count(Of::Pairs), Task::Numbers(numbers), Task::Count(Of::Groups(form))]);
    }

    /// What a number means for what follows.
    fn count(&mut self, of: Of, number: u64) {
        match of {
            Of::Database => {
                self.end_database();
                self.database = number;
            }
            Of::Packed => self.then(&[Task::Numbers(1), Task::Skip(number)]),
            Of::Strings => self.again(Task::Strings(number)),
            Of::Pairs => self.again(Task::Strings(number.saturating_mul(2))),
            Of::Ranges => self.again(Task::Numbers(number.saturating_mul(2))),
            Of::Module => match number {
                0 => {}
                1 | 2 => self.then(&[Task::Numbers(1), Task::ModulePart]),
                3 => self.then(&[Task::Skip(4), Task::ModulePart]),
                4 => self.then(&[Task::Skip(8), Task::ModulePart]),
                5 => self.then(&[Task::Strings(1), Task::ModulePart]),
                _ => self.given_up = true,
            },
            Of::Scores
            | Of::OldScores
            | Of::Nodes
            | Of::TimedFields
            | Of::FieldsWithTime
            | Of::Groups(_)
            | Of::Pending
            | Of::Consumers(_)
            | Of::ConsumerPending => self.again(Task::Each(of, number)),
        }
    }

    /// One of many.
    fn one(&mut self, of: Of) {
        match of {
            Of::Scores => self.then(&[Task::Strings(1), Task::Skip(8)]),
            Of::OldScores => self.then(&[Task::Strings(1), Task::OldDouble]),
            Of::Nodes => self.then(&[Task::Numbers(1), Task::Strings(1)]),
            Of::TimedFields => self.then(&[Task::Numbers(1), Task::Strings(2)]),
            Of::FieldsWithTime => self.then(&[Task::Strings(2), Task::Skip(TIME_BYTES)]),
            Of::Groups(form) => self.then(&[
                Task::Strings(1),
                Task::Numbers(if form == StreamForm::First { 2 } else { 3 }),
                Task::Count(Of::Pending),
                Task::Count(Of::Consumers(form)),
            ]),
            Of::Pending => self.then(&[Task::Skip(STREAM_ID_BYTES + TIME_BYTES), Task::Numbers(1)]),
            Of::Consumers(form) => {
                let times = if form == StreamForm::Third { 2 } else { 1 };
                let times = Task::Skip(times * TIME_BYTES);
                self.then(&[Task::Strings(1), times, Task::Count(Of::ConsumerPending)]);
            }
            Of::ConsumerPending => self.tasks.push(Task::Skip(STREAM_ID_BYTES)),
            Of::Database | Of::Packed | Of::Strings | Of::Pairs | Of::Ranges | Of::Module => {
                self.given_up = true
            }
        }
    }

    fn string(&mut self, beginning: Number) {
        match beginning {
            Number::Plain(len) => self.again(Task::Skip(len)),
            Number::Encoded(bits @ 0..=2) => self.tasks.push(Task::Skip(1 << bits)),
            Number::Encoded(LZF) => self.tasks.push(Task::Count(Of::Packed)),
            Number::Encoded(_) => self.given_up = true,
        }
    }

    /// The next number, once all of it has come.
    fn number(&mut self, bytes: &mut &[u8]) -> Option<Number> {
        if self.partial.is_empty()
            && let Some((number, rest)) = number(bytes)
        {
            *bytes = rest;
            return Some(number);
        }
        // In pieces: seldom, so byte by byte.
        while let Some(byte) = first(bytes) {
            self.partial.push(byte);
            if let Some((number, _)) = number(&self.partial) {
                self.partial.clear();
                return Some(number);
            }
        }
        None
    }
}

fn first(bytes: &mut &[u8]) -> Option<u8> {
    let (byte, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*byte)
}

/// A number in the front, and what follows it; None where that is not all of it.
fn number(bytes: &[u8]) -> Option<(Number, &[u8])> {
    let (byte, rest) = bytes.split_first()?;
    let low = u64::from(byte & 0x3f);
    match (byte >> 6, *byte) {
        (FORM_ENCODED, _) => Some((Number::Encoded(low), rest)),
        (FORM_14_BITS, _) => {
            let (next, rest) = rest.split_first()?;
            Some((Number::Plain(low << 8 | u64::from(*next)), rest))
        }
        (FORM_LARGE, LARGE_32_BITS) => {
            let (number, rest) = rest.split_first_chunk::<4>()?;
            Some((Number::Plain(u32::from_be_bytes(*number).into()), rest))
        }
        (FORM_LARGE, LARGE_64_BITS) => {
            let (number, rest) = rest.split_first_chunk::<8>()?;
            Some((Number::Plain(u64::from_be_bytes(*number)), rest))
        }
        // No such form: the kind of an encoding that nobody knows.
        (FORM_LARGE, _) => Some((Number::Encoded(u64::MAX), rest)),
        (_, _) => Some((Number::Plain(low), rest)),
    }
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
