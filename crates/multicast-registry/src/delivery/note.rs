//! Notes between runners, as bytes.

use std::sync::Arc;

use bytes::Bytes;
use prism_proto::internal as proto;
use prism_slot::{Identity, MulticastId};
use prost::Message as _;

use super::{
    records::{self, CastEntry, Part},
    reply::Reply,
    state::{End, News, Stage},
};

/// The major version of notes that is written, and the newest that is read.
pub(crate) const FORMAT: u32 = 1;
/// How many bytes one note has at most: less than any broker takes.
pub(crate) const MAX_BYTES: usize = 256 << 10;
/// What a receipt takes in a note beside what it says, at most; also where it is the only one.
const RECEIPT_BYTES: usize = 48;

/// What one runner says to another.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Note {
    /// How far messages have come.
    Receipts(Vec<(MulticastId, Vec<Receipt>)>),
    /// Something is stored for identities.
    Bell(Bell),
    /// What is known of a multicast? Perhaps it is to be cancelled.
    Query(Query),
    /// This is.
    Answer(QueryAnswer),
}

/// Word of one message to one identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) identity: Identity,
    pub(crate) news: Option<News>,
    pub(crate) reply: Option<Reply>,
}

impl Receipt {
    /// How many bytes it takes in a note, at most.
    pub(crate) fn size(&self) -> usize {
        let why = match &self.news {
            Some(News::Ended(_, Some(why))) => why.len(),
            _ => 0,
        };
        let reply = self.reply.as_ref().map_or(0, Reply::size);
        RECEIPT_BYTES + self.identity.as_str().len() + why + reply
    }
}

/// Something is stored for these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bell(pub(crate) Vec<Identity>);

/// A question to the runner that makes a multicast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) multicast: MulticastId,
    pub(crate) request: u64,
    pub(crate) answer_to: Arc<str>,
    pub(crate) offset: usize,
    pub(crate) limit: usize,
    /// Whether it is to be cancelled first.
    pub(crate) cancel: bool,
}

/// The answer to a [`Query`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct QueryAnswer {
    pub(crate) request: u64,
    /// `None`: nothing is known.
    pub(crate) known: Option<(CastEntry, Part)>,
    pub(crate) more: bool,
    /// Whether the runner is at work on it, or about to begin it.
    pub(crate) at_work: bool,
}

impl Note {
    pub(crate) fn encode(self) -> Bytes {
        use proto::note::Note as Wire;
        let note = match self {
            Self::Receipts(multicasts) => Wire::Receipts(proto::Receipts {
                multicasts: multicasts.into_iter().map(of_multicast).collect(),
            }),
            Self::Bell(Bell(identities)) => Wire::Bell(proto::Bell {
                identities: identities.iter().map(ToString::to_string).collect(),
            }),
            Self::Query(query) => wire_query(query),
            Self::Answer(answer) => {
                let (cast, part) = answer.known.unzip();
                Wire::Answer(proto::QueryAnswer {
                    request: answer.request,
                    multicast_id: cast
                        .as_ref()
                        .map_or_else(Bytes::new, |entry| records::id_bytes(entry.cast.id)),
                    cast: cast.map(|entry| entry.to_wire()),
                    part: part.map(|part| part.to_wire()),
                    more: answer.more,
                    at_work: answer.at_work,
                })
            }
        };
        let note = proto::Note {
            format: FORMAT,
            note: Some(note),
        };
        note.encode_to_vec().into()
    }

    /// `None` for what cannot be read: a newer version's, or nobody's.
    pub(crate) fn decode(bytes: Bytes) -> Option<Self> {
        use proto::note::Note as Wire;
        let note = proto::Note::decode(bytes).ok()?;
        if note.format > FORMAT {
            return None;
        }
        Some(match note.note? {
            Wire::Receipts(receipts) => {
                let multicasts = receipts.multicasts.into_iter().filter_map(read_multicast);
                Self::Receipts(multicasts.collect())
            }
            Wire::Bell(bell) => {
                let identities = bell.identities.into_iter();
                Self::Bell(Bell(
                    identities.filter_map(|name| Identity::new(name).ok()).collect(),
                ))
            }
            Wire::Cancel(cancel) => Self::Query(Query {
                multicast: records::read_id(&cancel.multicast_id)?,
                request: cancel.request,
                answer_to: cancel.answer_to.into(),
                offset: 0,
                limit: 0,
                cancel: true,
            }),
            Wire::Query(query) => Self::Query(Query {
                multicast: records::read_id(&query.multicast_id)?,
                request: query.request,
                answer_to: query.answer_to.into(),
                offset: query.offset as usize,
                limit: query.limit as usize,
                cancel: false,
            }),
            Wire::Answer(answer) => Self::Answer(QueryAnswer {
                request: answer.request,
                more: answer.more,
                at_work: answer.at_work,
                known: match answer.cast.zip(answer.part) {
                    None => None,
                    Some((cast, part)) => {
                        let id = records::read_id(&answer.multicast_id)?;
                        let entry = CastEntry::from_wire(id, &cast).ok()?;
                        Some((entry, Part::from_wire(part).ok()?))
                    }
                },
            }),
        })
    }
}

fn wire_query(query: Query) -> proto::note::Note {
    let multicast_id = records::id_bytes(query.multicast);
    let (request, answer_to) = (query.request, query.answer_to.to_string());
    if query.cancel {
        return proto::note::Note::Cancel(proto::Cancel {
            multicast_id,
            request,
            answer_to,
        });
    }
    proto::note::Note::Query(proto::Query {
        multicast_id,
        request,
        answer_to,
        offset: u32::try_from(query.offset).unwrap_or(u32::MAX),
        limit: u32::try_from(query.limit).unwrap_or(u32::MAX),
    })
}

fn of_multicast((multicast, receipts): (MulticastId, Vec<Receipt>)) -> proto::receipts::OfMulticast {
    proto::receipts::OfMulticast {
        multicast_id: records::id_bytes(multicast),
        receipts: receipts.into_iter().map(wire_receipt).collect(),
    }
}

fn wire_receipt(receipt: Receipt) -> proto::receipts::Receipt {
    let (stage, end, why) = match receipt.news {
        None => (0, 0, None),
        Some(News::Reached(stage)) => (stage as u32, 0, None),
        Some(News::Ended(end, why)) => (0, end as u32, why),
    };
    let reply = receipt.reply.map(|reply| proto::receipts::Reply {
        payload: reply.payload,
        content_type: reply.content_type,
        headers: records::headers(&reply.headers),
    });
    proto::receipts::Receipt {
        identity: receipt.identity.to_string(),
        stage,
        end,
        why: why.map(|why| why.to_string()).unwrap_or_default(),
        reply,
    }
}

fn read_multicast(of: proto::receipts::OfMulticast) -> Option<(MulticastId, Vec<Receipt>)> {
    let receipts = of.receipts.into_iter().filter_map(read_receipt);
    Some((records::read_id(&of.multicast_id)?, receipts.collect()))
}

fn read_receipt(receipt: proto::receipts::Receipt) -> Option<Receipt> {
    let identity = Identity::new(receipt.identity).ok()?;
    let stage = u8::try_from(receipt.stage).ok().and_then(Stage::from_number);
    let end = u8::try_from(receipt.end).ok().and_then(End::from_number);
    let why = (!receipt.why.is_empty()).then(|| receipt.why.into());
    let news = match (stage, end) {
        (Some(stage), _) => Some(News::Reached(stage)),
        (None, Some(end)) => Some(News::Ended(end, why)),
        (None, None) => None,
    };
    let reply = receipt.reply.map(|reply| Reply {
        identity: identity.clone(),
        payload: reply.payload,
        content_type: reply.content_type,
        headers: records::read_headers(reply.headers),
    });
    Some(Receipt {
        identity,
        news,
        reply,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::id;

    fn travelled(note: Note) -> Option<Note> {
        Note::decode(note.encode())
    }

    #[test]
    fn notes_arrive_as_they_were_sent() {
        let receipt = |news| Receipt {
            identity: id("ключ *"),
            news,
            reply: None,
        };
        let reply = Reply {
            identity: id("b"),
            payload: "yes".into(),
            content_type: "text/plain".into(),
            headers: vec![("a".into(), "1".into())],
        };
        let answered = Receipt {
            identity: id("b"),
            news: Some(News::Reached(Stage::Acked)),
            reply: Some(reply),
        };
        let receipts = vec![
            receipt(Some(News::Reached(Stage::Handed))),
            receipt(Some(News::Ended(End::Terminated, Some("no".into())))),
            receipt(None),
            answered,
        ];
        let query = |cancel| Query {
            multicast: MulticastId(7),
            request: 3,
            answer_to: "here".into(),
            offset: 0,
            limit: 0,
            cancel,
        };
        for note in [
            Note::Receipts(vec![
                (MulticastId(u128::MAX), receipts),
                (MulticastId(1), Vec::new()),
            ]),
            Note::Bell(Bell(vec![id("a"), id("b")])),
            Note::Query(query(false)),
            Note::Query(query(true)),
            Note::Answer(QueryAnswer {
                request: 3,
                known: None,
                more: true,
                at_work: true,
            }),
        ] {
            assert_eq!(travelled(note.clone()), Some(note));
        }
    }

    /// Whatever is to fit into notes is measured by this.
    #[test]
    fn a_receipt_takes_no_more_than_its_size() {
        let reply = |headers: usize, length: usize| Reply {
            identity: id("a"),
            payload: vec![0; length].into(),
            content_type: "x".repeat(length.min(200)),
            headers: vec![("n".repeat(length.min(100)), "v".repeat(length)); headers],
        };
        let name = "a".repeat(256);
        for identity in ["a", &name] {
            for why in [None, Some(""), Some("no"), Some(&*"w".repeat(256))] {
                for reply in [None, Some(reply(0, 0)), Some(reply(64, 0)), Some(reply(64, 200))] {
                    let receipt = Receipt {
                        identity: id(identity),
                        news: Some(News::Ended(End::Terminated, why.map(Into::into))),
                        reply,
                    };
                    let size = receipt.size();
                    let note = Note::Receipts(vec![(MulticastId(u128::MAX), vec![receipt])]);
                    let travels = note.encode().len();
                    assert!(travels <= size, "{travels} of {size}");
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_nothing() {
        assert_eq!(Note::decode(Bytes::from_static(b"\xff\xff")), None);
        assert_eq!(Note::decode(Bytes::new()), None);
        let newer = proto::Note {
            format: FORMAT + 1,
            note: Some(proto::note::Note::Bell(proto::Bell::default())),
        };
        assert_eq!(Note::decode(newer.encode_to_vec().into()), None);
    }
}
