//! What the ledger keeps of a multicast, as bytes.

use std::{collections::HashMap, ops::Range, sync::Arc};

use bytes::Bytes;
use prism_proto::internal as proto;
use prism_slot::{
    Epoch, Holder, Identity, Kind, Message, MulticastId, Position, Priority, Revision, Timestamp,
};
use prost::Message as _;

use super::{
    Delivery, Pace, Runner,
    cast::{Cast, Phase},
    state::{End, Stage, State},
};

/// The major version of records that is written, and the newest that is read.
const FORMAT: u32 = 1;
/// How many targets a part has, about, and at most: its record stays below what any ledger takes.
const PART: usize = 1_024;
const FULL_PART: usize = 2 * PART;
/// How often targets are divided into more parts because one is too full. Never, unless somebody chose their names so that
/// they come together; and for several numbers of parts that is hard.
const DIVISIONS: usize = 8;

/// Why a record cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    /// Written by a version of ours that this one does not know.
    #[error("it has format {0}, newer than {FORMAT}; upgrade this runner")]
    Newer(u32),
    /// Damaged.
    #[error("`{0}` is malformed")]
    Malformed(&'static str),
}

type Result<T> = std::result::Result<T, Unreadable>;

/// A multicast's record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CastEntry {
    pub(crate) cast: Cast,
    pub(crate) runner: Runner,
    pub(crate) target_count: usize,
    pub(crate) part_count: usize,
    pub(crate) phase: Phase,
}

/// Some of its targets.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Part {
    pub(crate) identities: Vec<Identity>,
    pub(crate) states: Vec<State>,
    /// Absent where nothing is stored for them.
    pub(crate) holders: Option<Vec<Holder>>,
}

/// What is needed to go on with it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Load {
    pub(crate) message: Message,
    pub(crate) priority: Priority,
    pub(crate) pace: Pace,
}

/// An idempotency key's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyEntry {
    pub(crate) multicast: MulticastId,
    pub(crate) digest: [u8; 32],
    pub(crate) runner: Runner,
    /// Whether its multicast is not begun once it was ruled out. Older runners begin it all the same.
    pub(crate) yields: bool,
}

/// Into how many parts so many targets go.
pub(crate) fn part_count(targets: usize) -> usize {
    targets.div_ceil(PART).max(1)
}

/// In which of so many parts an identity is: FNV-1a, which is the same in every version and on every machine.
pub(crate) fn part_of(identity: &str, count: usize) -> usize {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = identity.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    usize::try_from(hash % count.max(1) as u64).unwrap_or_default()
}

/// Brings targets into the order of their parts; where the parts begin and end.
pub(crate) fn into_parts<T>(targets: &mut [T], name: impl Fn(&T) -> &str) -> Vec<Range<usize>> {
    let mut count = part_count(targets.len());
    let mut parts = divide(targets, &name, count);
    for _ in 0..DIVISIONS {
        if parts.iter().all(|part| part.len() <= FULL_PART) {
            break;
        }
        count = count * 2 + 1;
        parts = divide(targets, &name, count);
    }
    parts
}

fn divide<T>(targets: &mut [T], name: impl Fn(&T) -> &str, count: usize) -> Vec<Range<usize>> {
    if count > 1 {
        targets.sort_by_cached_key(|target| part_of(name(target), count));
    }
    let mut begin = 0;
    let part = |part| {
        let end = begin + targets[begin..].partition_point(|target| part_of(name(target), count) <= part);
        std::mem::replace(&mut begin, end)..end
    };
    (0..count).map(part).collect()
}

pub(crate) fn id_bytes(id: MulticastId) -> Bytes {
    Bytes::copy_from_slice(&id.0.to_be_bytes())
}

pub(crate) fn read_id(bytes: &[u8]) -> Option<MulticastId> {
    Some(MulticastId(u128::from_be_bytes(bytes.try_into().ok()?)))
}

pub(crate) fn headers(headers: &[(String, String)]) -> Vec<proto::Header> {
    let header = |(name, value): &(String, String)| proto::Header {
        name: name.clone(),
        value: value.clone(),
    };
    headers.iter().map(header).collect()
}

pub(crate) fn read_headers(headers: Vec<proto::Header>) -> Vec<(String, String)> {
    headers
        .into_iter()
        .map(|header| (header.name, header.value))
        .collect()
}

fn check(format: u32, what: &'static str) -> Result<()> {
    match format {
        0 => Err(Unreadable::Malformed(what)),
        FORMAT => Ok(()),
        newer => Err(Unreadable::Newer(newer)),
    }
}

impl CastEntry {
    pub(crate) fn to_wire(&self) -> proto::CastRecord {
        let cast = &self.cast;
        proto::CastRecord {
            format: FORMAT,
            runner: self.runner.0,
            delivery: match cast.delivery {
                Delivery::AtMostOnce => 1,
                Delivery::AtLeastOnce => 2,
                Delivery::ExactlyOnce => 3,
            },
            required: cast.required as i32,
            epoch: cast.position.epoch.0,
            revision: cast.position.revision.0,
            began_at_ms: cast.began_at.0,
            expires_at_ms: cast.expires_at.map_or(0, |at| at.0),
            target_count: u32::try_from(self.target_count).unwrap_or(u32::MAX),
            part_count: u32::try_from(self.part_count).unwrap_or(u32::MAX),
            sent: self.phase != Phase::Running,
            cancelled: self.phase == Phase::Cancelled,
            kept_until_ms: cast.kept_until.0,
            never: false,
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        self.to_wire().encode_to_vec().into()
    }

    /// `None` for one that is never begun.
    pub(crate) fn decode(id: MulticastId, bytes: Bytes) -> Result<Option<Self>> {
        let record = proto::CastRecord::decode(bytes).map_err(|_| Unreadable::Malformed("cast"))?;
        if record.never {
            return check(record.format, "cast").map(|()| None);
        }
        Self::from_wire(id, &record).map(Some)
    }

    pub(crate) fn from_wire(id: MulticastId, record: &proto::CastRecord) -> Result<Self> {
        check(record.format, "cast")?;
        let malformed = || Unreadable::Malformed("cast");
        let required = u8::try_from(record.required).ok().and_then(Stage::from_number);
        let cast = Cast {
            id,
            position: Position {
                epoch: Epoch(record.epoch),
                revision: Revision(record.revision),
            },
            delivery: match record.delivery {
                1 => Delivery::AtMostOnce,
                2 => Delivery::AtLeastOnce,
                3 => Delivery::ExactlyOnce,
                _ => return Err(malformed()),
            },
            required: required.ok_or_else(malformed)?,
            began_at: Timestamp(record.began_at_ms),
            expires_at: (record.expires_at_ms != 0).then_some(Timestamp(record.expires_at_ms)),
            kept_until: Timestamp(record.kept_until_ms),
            recorded: true,
            key_window: None,
        };
        Ok(Self {
            cast,
            runner: Runner(record.runner),
            target_count: record.target_count as usize,
            part_count: record.part_count as usize,
            phase: match (record.sent, record.cancelled) {
                (_, true) => Phase::Cancelled,
                (true, false) => Phase::Sent,
                (false, false) => Phase::Running,
            },
        })
    }
}

/// The record of a multicast that is never begun.
pub(crate) fn void() -> Bytes {
    let record = proto::CastRecord {
        format: FORMAT,
        never: true,
        ..Default::default()
    };
    record.encode_to_vec().into()
}

impl Part {
    pub(crate) fn to_wire(&self) -> proto::PartRecord {
        let ends = self
            .states
            .iter()
            .map(|state| state.end.map_or(0, |end| end as u8));
        let whys = self.states.iter().zip(0..);
        let whys = whys.filter_map(|(state, at)| Some((at, state.why.as_ref()?.to_string())));
        let (holders, holder_of) = self.holder_table();
        proto::PartRecord {
            format: FORMAT,
            identities: self.identities.iter().map(ToString::to_string).collect(),
            stages: self.states.iter().map(|state| state.stage as u8).collect(),
            ends: ends.collect(),
            whys: whys.collect(),
            holders,
            holder_of,
        }
    }

    /// Most targets have the same holder, or one of few.
    fn holder_table(&self) -> (Vec<Bytes>, Vec<u32>) {
        let (mut table, mut numbers) = (Vec::new(), HashMap::new());
        let number = |holder: &Holder| {
            *numbers.entry(*holder).or_insert_with(|| {
                table.push(Bytes::copy_from_slice(&holder.0));
                u32::try_from(table.len() - 1).unwrap_or(u32::MAX)
            })
        };
        let holder_of = self.holders.iter().flatten().map(number).collect();
        (table, holder_of)
    }

    pub(crate) fn encode(&self) -> Bytes {
        self.to_wire().encode_to_vec().into()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self> {
        let record = proto::PartRecord::decode(bytes).map_err(|_| Unreadable::Malformed("part"))?;
        Self::from_wire(record)
    }

    pub(crate) fn from_wire(record: proto::PartRecord) -> Result<Self> {
        check(record.format, "part")?;
        let malformed = || Unreadable::Malformed("part");
        let identities = record.identities.iter().map(|name| Identity::new(name).ok());
        let identities: Vec<Identity> = identities.collect::<Option<_>>().ok_or_else(malformed)?;
        let count = identities.len();
        if record.stages.len() != count || record.ends.len() != count {
            return Err(malformed());
        }
        let state = |(at, (stage, end)): (u32, (&u8, &u8))| {
            Some(State {
                stage: Stage::from_number(*stage)?,
                end: End::from_number(*end),
                why: record.whys.get(&at).map(|why| Arc::from(why.as_str())),
            })
        };
        let pairs = (0..).zip(record.stages.iter().zip(&record.ends));
        let states = pairs.map(state).collect::<Option<_>>().ok_or_else(malformed)?;
        Ok(Self {
            identities,
            states,
            holders: read_holders(&record, count)?,
        })
    }
}

fn read_holders(record: &proto::PartRecord, count: usize) -> Result<Option<Vec<Holder>>> {
    if record.holder_of.is_empty() {
        return Ok(None);
    }
    let holder = |number: &u32| {
        let bytes = record.holders.get(*number as usize)?;
        Some(Holder(bytes[..].try_into().ok()?))
    };
    let holders: Option<Vec<Holder>> = record.holder_of.iter().map(holder).collect();
    let holders = holders.filter(|holders| holders.len() == count);
    holders.map(Some).ok_or(Unreadable::Malformed("part"))
}

impl Load {
    /// How much more than a payload its record has at most: half of it for headers, and the names and numbers beside.
    pub(crate) const ROOM: usize = 16 << 10;

    pub(crate) fn encode(&self) -> Bytes {
        let message = &self.message;
        let record = proto::LoadRecord {
            format: FORMAT,
            payload: message.payload.clone(),
            content_type: message.content_type.to_string(),
            headers: headers(&message.headers),
            reply_to: message.reply_to.as_deref().unwrap_or_default().to_owned(),
            expects_reply: message.expects_reply,
            published_at_ms: message.published_at.0,
            expires_at_ms: message.expires_at.map_or(0, |at| at.0),
            priority: match self.priority {
                Priority::Low => 1,
                Priority::Normal => 2,
                Priority::High => 3,
            },
            max_per_second: self.pace.per_second.unwrap_or_default(),
            batch_size: self.pace.batch.map_or(0, |batch| batch as u64),
        };
        record.encode_to_vec().into()
    }

    pub(crate) fn decode(id: MulticastId, bytes: Bytes) -> Result<Self> {
        let record = proto::LoadRecord::decode(bytes).map_err(|_| Unreadable::Malformed("load"))?;
        check(record.format, "load")?;
        let message = Message {
            kind: Kind::Payload,
            content_type: record.content_type.into(),
            headers: read_headers(record.headers),
            reply_to: (!record.reply_to.is_empty()).then(|| record.reply_to.into()),
            expects_reply: record.expects_reply,
            published_at: Timestamp(record.published_at_ms),
            expires_at: (record.expires_at_ms != 0).then_some(Timestamp(record.expires_at_ms)),
            ..Message::new(id, record.payload)
        };
        let priority = match record.priority {
            1 => Priority::Low,
            2 => Priority::Normal,
            3 => Priority::High,
            _ => return Err(Unreadable::Malformed("load")),
        };
        let batch = usize::try_from(record.batch_size).unwrap_or(usize::MAX);
        let pace = Pace {
            per_second: (record.max_per_second != 0).then_some(record.max_per_second),
            batch: (batch != 0).then_some(batch),
        };
        Ok(Self {
            message,
            priority,
            pace,
        })
    }
}

impl KeyEntry {
    pub(crate) fn encode(&self) -> Bytes {
        let record = proto::KeyRecord {
            format: FORMAT,
            multicast_id: id_bytes(self.multicast),
            request_digest: Bytes::copy_from_slice(&self.digest),
            runner: self.runner.0,
            yields: self.yields,
        };
        record.encode_to_vec().into()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self> {
        let record = proto::KeyRecord::decode(bytes).map_err(|_| Unreadable::Malformed("key"))?;
        check(record.format, "key")?;
        let malformed = || Unreadable::Malformed("key");
        Ok(Self {
            multicast: read_id(&record.multicast_id).ok_or_else(malformed)?,
            digest: record.request_digest[..].try_into().map_err(|_| malformed())?,
            runner: Runner(record.runner),
            yields: record.yields,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::id;

    #[test]
    fn parts_hold_what_their_hash_says() {
        let mut targets: Vec<String> = (0..5_000).map(|number| format!("id-{number}")).collect();
        let parts = into_parts(&mut targets, |name| name);
        assert_eq!((parts.len(), parts[0].start, parts[4].end), (5, 0, 5_000));
        for (number, part) in parts.iter().enumerate() {
            assert!(part.len() > PART / 2, "{parts:?}");
            assert!(
                targets[part.clone()]
                    .iter()
                    .all(|name| part_of(name, 5) == number)
            );
        }
        let none = into_parts(&mut Vec::<String>::new(), |name| name);
        assert!(
            none.len() == 1 && none[0].is_empty(),
            "a record of nobody has one part"
        );
        // A record that was written today is found tomorrow.
        assert_eq!((part_of("device-1", 1_000), part_of("ключ", 1_000)), (281, 81));
    }

    /// Who registers chooses names, and is not to keep others from sending.
    #[test]
    fn no_part_is_filled_by_choosing_names() {
        let names = (0..).map(|number| format!("id-{number}"));
        let mut targets: Vec<String> = names.filter(|name| part_of(name, 5) == 0).take(5_000).collect();
        let parts = into_parts(&mut targets, |name| name);
        assert!(parts.iter().all(|part| part.len() <= FULL_PART), "{parts:?}");
        let places = parts.iter().enumerate();
        let count = parts.len();
        for (number, part) in places {
            let mut of_part = targets[part.clone()].iter();
            assert!(of_part.all(|name| part_of(name, count) == number));
        }
    }

    #[test]
    fn records_are_read_back() {
        let state = |stage, end, why: Option<&str>| State {
            stage,
            end,
            why: why.map(Into::into),
        };
        let part = Part {
            identities: vec![id("a"), id("b c"), id("ключ")],
            states: vec![
                state(Stage::Resolved, None, None),
                state(Stage::Stored, Some(End::Expired), None),
                state(Stage::Resolved, Some(End::Unknown), Some("cut")),
            ],
            holders: Some(vec![Holder([1; 16]), Holder([2; 16]), Holder([1; 16])]),
        };
        let read = Part::decode(part.encode()).unwrap();
        assert_eq!(
            (read.identities, read.states, read.holders),
            (part.identities, part.states, part.holders)
        );
        let empty = Part::decode(Part::default().encode()).unwrap();
        assert_eq!((empty.identities.len(), empty.holders), (0, None));

        let key = KeyEntry {
            multicast: MulticastId(5),
            digest: [9; 32],
            runner: Runner(7),
            yields: true,
        };
        assert_eq!(KeyEntry::decode(key.encode()), Ok(key));

        let load = Load {
            message: Message {
                reply_to: Some("me".into()),
                expires_at: Some(Timestamp(5)),
                headers: vec![("b".into(), "1".into()), ("a".into(), "2".into())],
                ..Message::new(MulticastId(3), "x")
            },
            priority: Priority::High,
            pace: Pace {
                per_second: Some(7),
                batch: None,
            },
        };
        assert_eq!(Load::decode(MulticastId(3), load.encode()), Ok(load));
    }

    #[test]
    fn newer_and_damaged_records_are_refused() {
        let newer = proto::PartRecord {
            format: FORMAT + 1,
            ..Part::default().to_wire()
        };
        assert_eq!(Part::from_wire(newer).unwrap_err(), Unreadable::Newer(FORMAT + 1));
        let torn = proto::PartRecord {
            stages: Bytes::from_static(&[1]),
            ..Part::default().to_wire()
        };
        assert_eq!(Part::from_wire(torn).unwrap_err(), Unreadable::Malformed("part"));
        assert_eq!(CastEntry::decode(MulticastId(1), void()), Ok(None));
        let unlike_it = CastEntry::decode(MulticastId(1), Bytes::new());
        assert_eq!(unlike_it, Err(Unreadable::Malformed("cast")));
        assert_eq!(KeyEntry::decode(Bytes::new()), Err(Unreadable::Malformed("key")));
    }
}
