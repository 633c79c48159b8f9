//! The fields of an encoded message, without decoding it: nothing is allocated.

/// A field's value as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A varint.
    Number(u64),
    /// Four or eight bytes, or a tag of a group. Nothing of the contract is one.
    Other,
    /// A string, bytes, a message, or packed numbers.
    Bytes(&'a [u8]),
}

/// Walks the fields of one message. Ends at the end, and where a decoder would refuse the bytes. The
/// fields inside of a group, which only an unknown field can be, come as if they stood beside it.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = u32::try_from(self.varint()?).ok()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Other)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            3 | 4 => Value::Other,
            5 => self.take(4).map(|_| Value::Other)?,
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for (at, byte) in self.0.iter().enumerate().take(10) {
            number |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.0 = &self.0[at + 1..];
                return Some(number);
            }
        }
        None
    }
}

/// The correlation_id that an encoded envelope carries; None where it carries none.
pub fn correlation_id_of(envelope: &[u8]) -> Option<&str> {
    let ids = Fields(envelope).filter_map(|field| match field {
        (3, Value::Bytes(id)) => std::str::from_utf8(id).ok(),
        _ => None,
    });
    ids.last().filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Payload, encode, v1};

    #[test]
    fn the_correlation_id_is_found_without_decoding() {
        let log = || Payload::Log(v1::LogEvent { message: "x".into(), ..Default::default() });
        assert_eq!(correlation_id_of(&encode(7, 9, "cmd-1", log()).unwrap()), Some("cmd-1"));
        assert_eq!(correlation_id_of(&encode(u64::MAX, u64::MAX, "", log()).unwrap()), None);
        assert_eq!(correlation_id_of(b"\xff\xff\xff"), None);
    }

    #[test]
    fn a_walk_ends_where_the_bytes_are_no_fields() {
        let good = [0x08, 0x96, 0x01, 0x1b, 0x12, 0x01, b'x', 0x1c, 0x2d, 1, 2, 3, 4];
        let fields: Vec<_> = Fields(&good).collect();
        assert_eq!(fields[0], (1, Value::Number(150)));
        assert_eq!(fields[2], (2, Value::Bytes(b"x")), "inside of the group");
        assert_eq!(fields.len(), 5);
        for broken in [&[0x08][..], &[0x12, 0x05, b'x'], &[0x0e], &[0x80; 11], &[0x2d, 1]] {
            assert_eq!(Fields(broken).count(), 0, "{broken:?}");
        }
    }
}
