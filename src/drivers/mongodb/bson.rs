//! The few fields of a BSON document that are looked at. A driver for the rest would weigh more than all drivers here.

/// The text of that name in the document itself.
pub fn text(document: &[u8], name: &str) -> Option<String> {
    match field(document, name)? {
        (STRING, value) => {
            let bytes = value.get(4..value.len().checked_sub(1)?)?;
            Some(String::from_utf8_lossy(bytes).into_owned())
        }
        _ => None,
    }
}

/// The truth of that name in the document itself.
pub fn boolean(document: &[u8], name: &str) -> Option<bool> {
    match field(document, name)? {
        (BOOLEAN, value) => Some(value.first() == Some(&1)),
        _ => None,
    }
}

const DOUBLE: u8 = 0x01;
const STRING: u8 = 0x02;
const DOCUMENT: u8 = 0x03;
const ARRAY: u8 = 0x04;
const BINARY: u8 = 0x05;
const OBJECT_ID: u8 = 0x07;
const BOOLEAN: u8 = 0x08;
const DATE: u8 = 0x09;
const NULL: u8 = 0x0a;
const INT32: u8 = 0x10;
const TIMESTAMP: u8 = 0x11;
const INT64: u8 = 0x12;

/// Kind and bytes of the field; None where it is not there or the document is not understood.
fn field<'a>(document: &'a [u8], wanted: &str) -> Option<(u8, &'a [u8])> {
    let mut rest = document.get(4..)?;
    loop {
        let (kind, after) = rest.split_first()?;
        if *kind == 0 {
            return None;
        }
        let name_len = after.iter().position(|byte| *byte == 0)?;
        let (name, value) = (after.get(..name_len)?, after.get(name_len + 1..)?);
        let len = value_len(*kind, value)?;
        if name == wanted.as_bytes() {
            return Some((*kind, value.get(..len)?));
        }
        rest = value.get(len..)?;
    }
}

fn value_len(kind: u8, value: &[u8]) -> Option<usize> {
    let number = || usize::try_from(i32::from_le_bytes(*value.first_chunk()?)).ok();
    Some(match kind {
        DOUBLE | DATE | TIMESTAMP | INT64 => 8,
        STRING => number()?.checked_add(4)?,
        DOCUMENT | ARRAY => number()?,
        BINARY => number()?.checked_add(5)?,
        OBJECT_ID => 12,
        BOOLEAN => 1,
        NULL => 0,
        INT32 => 4,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_others_and_nonsense_is_none() {
        let body = b"\x10n\0\x01\0\0\0\x03d\0\x05\0\0\0\0\x08EOF\0\x01\x02db\0\x03\0\0\0ab\0";
        let document = [&(body.len() as i32 + 5).to_le_bytes()[..], body, &[0]].concat();
        assert_eq!(boolean(&document, "EOF"), Some(true));
        assert_eq!(text(&document, "db").as_deref(), Some("ab"));
        assert_eq!((text(&document, "EOF"), text(&document, "x")), (None, None));
        for len in 0..document.len() {
            let _ = text(&document[..len], "db");
        }
        assert_eq!(text(b"\x10\0\0\0\x02db\0\xff\xff\xff\xff", "db"), None);
    }
}
