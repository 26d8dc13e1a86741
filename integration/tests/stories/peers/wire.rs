//! Messages as a peer of another make or another time sends them: each carries fields that nobody here
//! knows.

use prost::{
    Message,
    bytes::{Buf, BufMut, Bytes},
};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// Field 50 as a number, field 1000 as a text.
const UNKNOWN_FIELDS: &[u8] = &[0x90, 0x03, 7, 0xc2, 0x3e, 3, b'n', b'e', b'w'];

/// A message, and what a newer version of it might say.
pub(super) fn with_unknown_fields(message: &impl Message) -> Bytes {
    let mut bytes = message.encode_to_vec();
    bytes.extend(UNKNOWN_FIELDS);
    bytes.into()
}

/// Passes encoded messages through.
#[derive(Clone, Copy, Default)]
pub(super) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length)))
    }
}
