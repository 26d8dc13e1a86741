//! The outermost layer of a gRPC body: a flag byte, four bytes of length, that many bytes of message.
//! Looked at to bound messages; the messages themselves are not.

use prism_core::failure::{Failure, Reason};

/// Follows a body and refuses a message that announces to be too large, before it is sent on.
#[derive(Debug, Clone)]
pub(crate) struct Framing {
    limit: usize,
    /// Of the prefix that is being read.
    prefix: [u8; PREFIX],
    prefix_read: usize,
    /// Of the message that is being read.
    message_left: usize,
    messages: u64,
}

const PREFIX: usize = 5;

/// A message is larger than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLarge {
    pub(crate) size: usize,
    pub(crate) limit: usize,
}

impl TooLarge {
    /// What the client is told.
    pub(crate) fn failure(self) -> Failure {
        let Self { size, limit } = self;
        let message = format!(
            "a request of `{size}` bytes is larger than the `{limit}` that this proxy takes: send less at a \
             time, or raise its `limits.message_size`"
        );
        Failure::new(Reason::PayloadTooLarge, message)
            .with("key", "limits.message_size")
            .with("size", size)
            .with("limit", limit)
    }
}

impl Framing {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            prefix: [0; PREFIX],
            prefix_read: 0,
            message_left: 0,
            messages: 0,
        }
    }

    /// How many messages have begun.
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    /// Follows the next bytes of the body.
    pub(crate) fn follow(&mut self, mut bytes: &[u8]) -> Result<(), TooLarge> {
        while !bytes.is_empty() {
            if self.message_left > 0 {
                let taken = self.message_left.min(bytes.len());
                self.message_left -= taken;
                bytes = &bytes[taken..];
                continue;
            }
            let taken = (PREFIX - self.prefix_read).min(bytes.len());
            self.prefix[self.prefix_read..self.prefix_read + taken].copy_from_slice(&bytes[..taken]);
            self.prefix_read += taken;
            bytes = &bytes[taken..];
            if self.prefix_read == PREFIX {
                self.begin_message()?;
            }
        }
        Ok(())
    }

    fn begin_message(&mut self) -> Result<(), TooLarge> {
        let [_, length @ ..] = self.prefix;
        let size = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if size > self.limit {
            return Err(TooLarge {
                size,
                limit: self.limit,
            });
        }
        self.prefix_read = 0;
        self.message_left = size;
        self.messages += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(size: u32) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(size.to_be_bytes());
        bytes.resize(PREFIX + size as usize, b'x');
        bytes
    }

    #[test]
    fn the_limit_itself_is_allowed() {
        let mut framing = Framing::new(100);
        framing.follow(&message(100)).unwrap();
        framing.follow(&message(0)).unwrap();
        assert_eq!(framing.messages(), 2);
        assert_eq!(
            framing.follow(&message(101)),
            Err(TooLarge {
                size: 101,
                limit: 100
            })
        );
    }

    #[test]
    fn an_announcement_is_enough() {
        assert!(Framing::new(100).follow(&[0, 0xff, 0xff, 0xff, 0xff]).is_err());
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_body_is_cut(
            sizes in prop::collection::vec(0_u32..300, 1..20),
            cut in 1_usize..40,
        ) {
            let body: Vec<u8> = sizes.iter().flat_map(|&size| message(size)).collect();
            let allowed = sizes.iter().take_while(|&&size| size <= 200).count();
            let mut framing = Framing::new(200);
            let outcome: Result<(), TooLarge> = body.chunks(cut).try_for_each(|part| framing.follow(part));
            prop_assert_eq!(outcome.is_ok(), allowed == sizes.len());
            prop_assert_eq!(framing.messages(), allowed as u64);
        }
    }
}
