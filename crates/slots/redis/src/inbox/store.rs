//! Storing one message in many inboxes.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use futures::{StreamExt, stream::FuturesOrdered};
use prism_slot::{Address, Applied, Enqueued, Error, Message, Priority, Terms};
use tokio::time::Instant;

use super::{
    body::{self, Body},
    calls::{Calls, Refused, millis},
    library::Function,
};
use crate::{
    answer::{Answer, nonsense},
    codec::FORMAT,
    error::Effect,
};

/// Up to which size a body goes along with every call. A larger one is sent once, unless it is asked for.
const SMALL: usize = 4 << 10;

/// A message on its way into inboxes.
struct Store<'a> {
    calls: &'a Calls,
    order: Bytes,
    body: Body,
    deadline: Instant,
}

/// Stores a message; outcomes in the order of the addresses. `size` addresses go into one call, of which so
/// many are under way at a time.
pub(super) async fn store(
    calls: &Calls,
    (size, at_a_time): (usize, usize),
    addresses: &[Address],
    message: Arc<Message>,
    terms: Terms,
    deadline: Instant,
) -> Vec<Enqueued> {
    let body = match Body::of(&message) {
        Ok(body) => body,
        Err(why) => return vec![Enqueued::NotStored(why.to_owned()); addresses.len()],
    };
    let store = Store {
        calls,
        order: order(&body, terms),
        body,
        deadline,
    };
    let is_small = store.body.bytes.len() <= SMALL;
    let mut parts = addresses.chunks(size);
    let first = if is_small { None } else { parts.next() };
    let mut outcomes = Vec::with_capacity(addresses.len());
    if let Some(first) = first {
        outcomes.extend(store.part(first, true).await);
    }
    let mut under_way = FuturesOrdered::new();
    for part in parts {
        if under_way.len() >= at_a_time {
            outcomes.extend(under_way.next().await.into_iter().flatten());
        }
        under_way.push_back(store.part(part, is_small));
    }
    while let Some(part) = under_way.next().await {
        outcomes.extend(part);
    }
    outcomes
}

/// What holds for all inboxes.
fn order(body: &Body, terms: Terms) -> Bytes {
    let mut bytes = priority_and_ttl(terms);
    bytes.put_u32(body.payload);
    bytes.put_u16(body.ticket);
    bytes.put_slice(body.reference.as_bytes());
    bytes.into()
}

pub(super) fn priority_and_ttl(terms: Terms) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    bytes.put_u8(match terms.priority {
        Priority::High => b'1',
        Priority::Normal => b'2',
        Priority::Low => b'3',
    });
    bytes.put_u64(millis(terms.ttl));
    bytes
}

impl Store<'_> {
    /// Stores it in what one call takes, and again in those that could not be decided because too much had to
    /// expire first.
    async fn part(&self, addresses: &[Address], with_body: bool) -> Vec<Enqueued> {
        let mut outcomes = vec![Enqueued::NotStored(String::new()); addresses.len()];
        let mut open: Vec<usize> = (0..addresses.len()).collect();
        let mut with_body = with_body;
        while !open.is_empty() {
            let asked = open.iter().map(|&index| &addresses[index]);
            match self.call(asked, with_body).await {
                Ok(answers) => {
                    let answered = open.iter().copied().zip(answers);
                    let mut again = Vec::new();
                    for (index, answer) in answered {
                        match answer {
                            Some(outcome) => outcomes[index] = outcome,
                            None => again.push(index),
                        }
                    }
                    open = again;
                }
                Err(Refused::NeedsBody) if !with_body => with_body = true,
                Err(refused) => {
                    let outcome = failed(&refused.into_error());
                    open.drain(..).for_each(|index| outcomes[index] = outcome.clone());
                }
            }
        }
        outcomes
    }

    /// An outcome for each; none where it is to be asked again.
    async fn call(
        &self,
        addresses: impl Iterator<Item = &Address> + Clone,
        with_body: bool,
    ) -> Result<Vec<Option<Enqueued>>, Refused> {
        let body = if with_body {
            self.body.bytes.clone()
        } else {
            Bytes::new()
        };
        let mut arguments = vec![self.order.clone(), body, holders(addresses.clone())];
        let common = arguments.len();
        arguments
            .extend(addresses.map(|address| Bytes::copy_from_slice(address.identity.as_str().as_bytes())));
        let called = self
            .calls
            .call(Function::Store, &arguments, self.deadline, Effect::Write);
        outcomes(called.await?, arguments.len() - common)
    }
}

/// Who holds the inboxes: one for all of them, or each of them in turn.
fn holders<'a>(addresses: impl Iterator<Item = &'a Address> + Clone) -> Bytes {
    let mut each = addresses.clone();
    let first = each.next().map(|address| address.holder);
    let of_all = each.all(|address| Some(address.holder) == first);
    let named = addresses.take(if of_all { 1 } else { usize::MAX });
    named.flat_map(held).collect()
}

/// The first bytes of what an inbox needs to know of a message.
pub(super) fn held(address: &Address) -> [u8; 17] {
    let mut bytes = [FORMAT; 17];
    bytes[1..].copy_from_slice(&address.holder.0);
    bytes
}

fn outcomes(mut answer: Answer, count: usize) -> Result<Vec<Option<Enqueued>>, Refused> {
    let letters = answer.letters(count)?;
    let mut outcomes = Vec::with_capacity(count);
    for letter in letters {
        outcomes.push(Some(match letter {
            b'S' => Enqueued::Stored { displaced: None },
            b'X' => {
                let mut told = answer.text()?;
                let multicast = body::multicast(&told)?;
                let ticket = body::ticket(multicast, told.split_off(body::MULTICAST))?;
                Enqueued::Stored {
                    displaced: Some(ticket),
                }
            }
            b'D' => Enqueued::Duplicate,
            b'F' => Enqueued::Full,
            b'N' => Enqueued::NotStored(
                "its stream takes nothing; another program uses it, or ids are ahead".into(),
            ),
            b'A' => {
                outcomes.push(None);
                continue;
            }
            _ => return Err(nonsense().into()),
        }));
    }
    Ok(outcomes)
}

fn failed(error: &Error) -> Enqueued {
    match error.applied() {
        Applied::No => Enqueued::NotStored(error.to_string()),
        Applied::Unknown => Enqueued::Unknown(error.to_string()),
    }
}
