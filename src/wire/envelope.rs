//! Envelopes as bytes: one WebSocket binary message each (protocol sections 1 and 2).

use super::{Envelope, Payload};
use bytes::Bytes;
use prost::Message;

/// No message may be longer, fragments put together (protocol section 1).
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// The WebSocket subprotocol that agents offer: a server that selects it confirms durable messages by
/// `Ack`s instead of pongs (protocol section 5; `proto/backupv1/envelope.proto` says how).
pub const ACK_SUBPROTOCOL: &str = "backupy.ack.v1";

/// Why bytes are no message of this contract.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EnvelopeError {
    /// Over [`MAX_MESSAGE_BYTES`].
    #[error("a message of {bytes} bytes is over the limit of {MAX_MESSAGE_BYTES}")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// It would take more than [`super::MAX_DECODED_BYTES`] once decoded.
    #[error(
        "too many elements: the message would take about {decoded} bytes of memory, the limit is {}",
        super::MAX_DECODED_BYTES
    )]
    TooHeavy {
        /// About its size in memory.
        decoded: usize,
    },
    /// Not an `Envelope`.
    #[error("not an Envelope: {0}")]
    Undecodable(#[from] prost::DecodeError),
}

/// The bytes of an `Envelope`.
///
/// # Errors
/// [`EnvelopeError::TooLarge`] where no peer would take it.
pub fn encode(seq: u64, ts_ms: u64, correlation_id: &str, payload: Payload) -> Result<Bytes, EnvelopeError> {
    let envelope = Envelope { seq, ts_ms, correlation_id: correlation_id.to_owned(), payload: Some(payload) };
    let bytes = envelope.encode_to_vec();
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(EnvelopeError::TooLarge { bytes: bytes.len() });
    }
    Ok(Bytes::from(bytes))
}

/// What an envelope around a payload takes at most without its correlation_id: three tags, two 64-bit
/// numbers, one length.
const FRAME_BYTES: usize = 3 + 2 * 10 + 5;

/// At most so many bytes will [`encode`] give, whatever the seq and the time; a few more than it will.
pub fn size_bound(correlation_id: &str, payload: &Payload) -> usize {
    payload.encoded_len() + correlation_id.len() + FRAME_BYTES
}

/// The `Envelope` of these bytes. Its payload is None where it is of a newer contract.
///
/// # Errors
/// [`EnvelopeError`], with nothing allocated for one that is too long or too heavy.
pub fn decode(bytes: &[u8]) -> Result<Envelope, EnvelopeError> {
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(EnvelopeError::TooLarge { bytes: bytes.len() });
    }
    let decoded = super::decoded_bytes(bytes);
    if decoded > super::MAX_DECODED_BYTES {
        return Err(EnvelopeError::TooHeavy { decoded });
    }
    Ok(Envelope::decode(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v1;

    fn log_of(bytes: usize) -> Payload {
        Payload::Log(v1::LogEvent { message: "x".repeat(bytes), ..Default::default() })
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same() {
        let bytes = encode(7, 1_700_000_000_000, "c-1", log_of(3)).unwrap();
        let envelope = decode(&bytes).unwrap();
        assert_eq!((envelope.seq, envelope.ts_ms), (7, 1_700_000_000_000));
        assert_eq!(envelope.correlation_id, "c-1");
        assert_eq!(envelope.payload, Some(log_of(3)));
    }

    #[test]
    fn the_bound_is_never_too_low_and_hardly_too_high() {
        for (seq, correlation_id) in [(0, ""), (1, "c"), (u64::MAX, "a-correlation-id")] {
            let bound = size_bound(correlation_id, &log_of(1_000));
            let bytes = encode(seq, seq, correlation_id, log_of(1_000)).unwrap();
            assert!((bytes.len()..=bytes.len() + FRAME_BYTES).contains(&bound), "{bound}, {}", bytes.len());
        }
    }

    #[test]
    fn a_message_over_the_limit_is_refused_both_ways() {
        assert!(matches!(
            encode(1, 2, "", log_of(MAX_MESSAGE_BYTES)),
            Err(EnvelopeError::TooLarge { bytes }) if bytes > MAX_MESSAGE_BYTES
        ));
        assert!(encode(1, 2, "", log_of(MAX_MESSAGE_BYTES - 64)).is_ok());
        assert_eq!(
            decode(&vec![0; MAX_MESSAGE_BYTES + 1]),
            Err(EnvelopeError::TooLarge { bytes: MAX_MESSAGE_BYTES + 1 })
        );
    }

    #[test]
    fn garbage_is_no_envelope() {
        assert!(matches!(decode(b"\xff\xff\xff\xff"), Err(EnvelopeError::Undecodable(_))));
    }

    #[test]
    fn a_payload_of_a_newer_contract_is_an_envelope_without_one() {
        // Field 99, length-delimited, empty.
        let envelope = decode(&[0x08, 0x05, 0x9a, 0x06, 0x00]).unwrap();
        assert_eq!((envelope.seq, envelope.payload), (5, None));
    }
}
