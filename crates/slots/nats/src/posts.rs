//! Posts: where notes between runners arrive, and what consumers at the broker answer.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use prism_slot::{Arrival, Post, PostSink, Result, post};
use tokio::time::Instant;

use crate::{
    link::Link,
    listen::{Lounge, Place, Unlisten},
};

/// The posts of a slot, by their address. Clones are the same ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Posts(Arc<Mutex<HashMap<Arc<str>, PostSink>>>);

impl Posts {
    /// The one with this address, if it is a post of this slot.
    pub(crate) fn get(&self, address: &str) -> Option<PostSink> {
        self.0.lock().get(address).cloned()
    }

    /// Ends one, once it has been read.
    fn remove(&self, address: &str) {
        self.0.lock().remove(address);
    }

    /// Ends all of them, once they have been read.
    pub(crate) fn close(&self) {
        self.0.lock().clear();
    }
}

impl Lounge {
    /// Subscribes to `address`, and to the one that all posts have, and waits until the broker has processed that.
    pub(crate) async fn post(
        &self,
        link: &Link,
        address: String,
        of_all: String,
        deadline: Instant,
    ) -> Result<Post> {
        let own = self.subscribe(link, address.clone(), deadline).await?;
        let of_all = self.subscribe(link, of_all, deadline).await?;
        let address: Arc<str> = address.into();
        let (own, arrivals) = self.unlisten(link.health.clone(), own);
        let (of_all, arrivals_of_all) = self.unlisten(link.health.clone(), of_all);
        let ends = [&own, &of_all].map(|unlisten| (unlisten.id, unlisten.stop.clone()));
        let pigeonhole = Pigeonhole {
            posts: self.posts.clone(),
            address: address.clone(),
            _unlisten: [own, of_all],
        };
        let (sink, post) = post(address.clone(), self.room.messages, pigeonhole);
        self.posts.0.lock().insert(address.clone(), sink.clone());
        let kinds: [fn(Bytes) -> Arrival; 2] = [Arrival::Note, Arrival::NoteToAll];
        let arrivals = [arrivals, arrivals_of_all].into_iter().zip(kinds);
        for ((id, stop), (mut arrivals, kind)) in ends.into_iter().zip(arrivals) {
            link.health.listeners.insert(id, Place::Post(sink.clone()));
            let (sink, posts, address) = (sink.clone(), self.posts.clone(), address.clone());
            let health = link.health.clone();
            let forwarder = async move {
                while let Some(message) = arrivals.next().await {
                    // What does not fit is counted by the post itself.
                    sink.push(kind(message.payload));
                }
                // The connection is given up: nothing arrives any more.
                health.listeners.remove(id);
                posts.remove(&address);
            };
            self.tasks.spawn(stop.run_until_cancelled_owned(forwarder));
        }
        // Dropping the post on the way out ends the subscription.
        link.barrier(deadline).await?;
        Ok(post)
    }
}

/// A post's place, given up when the post is dropped.
struct Pigeonhole {
    posts: Posts,
    address: Arc<str>,
    _unlisten: [Unlisten; 2],
}

impl Drop for Pigeonhole {
    fn drop(&mut self) {
        self.posts.remove(&self.address);
    }
}
