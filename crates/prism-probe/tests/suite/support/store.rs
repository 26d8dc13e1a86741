//! A registry with data, for what reads and writes much of it.

use std::{collections::BTreeMap, future::ready, sync::Arc};

use parking_lot::Mutex;
use prism_client::{
    Reason,
    testing::{FakeRegistry, answers},
};
use prism_core::failure::Failure;
use prism_filter::{Document, Filter, Limits, Record, merge_patch};
use prism_proto::pattern::{
    self, EnumerateRequest, EnumerateResponse, Identity, RegisterManyResponse, RegisterRequest,
    RegisterResponse, UpdateRequest, register_response::Outcome,
};
use serde_json::Value;
use tonic::Status;

/// Registrations that can be listed, read and updated, with revisions.
#[derive(Clone, Default)]
pub(crate) struct Store(Arc<Mutex<BTreeMap<String, Stored>>>);

#[derive(Clone)]
pub(crate) struct Stored {
    name: String,
    document: Document,
    revision: u64,
    ttl_ms: Option<i64>,
    session: Vec<u8>,
}

impl Record for Stored {
    fn identity(&self) -> &str {
        &self.name
    }

    fn registered_at(&self) -> i64 {
        0
    }

    fn updated_at(&self) -> i64 {
        0
    }

    fn expires_at(&self) -> Option<i64> {
        None
    }

    fn document(&self) -> &Document {
        &self.document
    }
}

impl Store {
    /// A registry that holds this and pages by ten.
    pub(crate) async fn serve(metadata: impl IntoIterator<Item = (String, Value)>) -> (Self, FakeRegistry) {
        let store = Self::default();
        for (name, metadata) in metadata {
            store.write(&name, &metadata);
        }
        let fake = FakeRegistry::start().await.unwrap();
        let (list, read, write, many) = (store.clone(), store.clone(), store.clone(), store.clone());
        fake.on_enumerate(move |request| ready(list.page(request.into_inner())));
        fake.on_get(move |request| ready(read.get(&request.into_inner().identity)));
        fake.on_update(move |request| ready(write.update(&request.into_inner())));
        fake.on_register_many(move |requests| ready(Ok(many.register_many(&requests))));
        (store, fake)
    }

    pub(crate) fn remove(&self, name: &str) {
        self.0.lock().remove(name);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Everything but times.
    pub(crate) fn everything(&self) -> Vec<(String, Value, Option<i64>)> {
        let all = self.0.lock();
        let each = all.values();
        each.map(|stored| (stored.name.clone(), stored.document.to_value(), stored.ttl_ms))
            .collect()
    }

    pub(crate) fn lease(&self, name: &str, ttl_ms: Option<i64>) {
        self.0.lock().get_mut(name).unwrap().ttl_ms = ttl_ms;
    }

    pub(crate) fn register_many(&self, requests: &[RegisterRequest]) -> RegisterManyResponse {
        RegisterManyResponse {
            results: requests.iter().map(|request| self.register(request)).collect(),
        }
    }

    pub(crate) fn register(&self, request: &RegisterRequest) -> RegisterResponse {
        let mut all = self.0.lock();
        let document = Document::from_proto(&request.metadata).unwrap();
        let before = all.get(&request.identity);
        let (revision, outcome) = match before {
            None => (1, Outcome::Registered),
            Some(before) if before.session == request.session && before.document == document => {
                (before.revision, Outcome::Renewed)
            }
            Some(before) if before.session == request.session => (before.revision + 1, Outcome::Updated),
            Some(before) if request.replace => (before.revision + 1, Outcome::Replaced),
            Some(_) => return not_registered(Reason::AlreadyRegistered),
        };
        let seconds = request.ttl_seconds.map(|seconds| seconds * 1_000);
        let stored = Stored {
            name: request.identity.clone(),
            document,
            revision,
            ttl_ms: request.ttl_ms.or(seconds).filter(|millis| *millis != 0),
            session: request.session.clone(),
        };
        all.insert(request.identity.clone(), stored);
        RegisterResponse {
            outcome: outcome.into(),
            ..answers::registered(revision)
        }
    }

    pub(crate) fn write(&self, name: &str, metadata: &Value) {
        let mut all = self.0.lock();
        let revision = all.get(name).map_or(1, |stored| stored.revision + 1);
        let stored = Stored {
            name: name.to_owned(),
            document: Document::from_value(metadata).unwrap(),
            revision,
            ttl_ms: None,
            session: Vec::new(),
        };
        all.insert(name.to_owned(), stored);
    }

    pub(crate) fn metadata(&self, name: &str) -> Value {
        self.0.lock()[name].document.to_value()
    }

    pub(crate) fn revision(&self, name: &str) -> u64 {
        self.0.lock()[name].revision
    }

    /// Who matches.
    pub(crate) fn matching(&self, filter: Option<&pattern::Filter>) -> Vec<String> {
        let filter = filter.map(compiled);
        let all = self.0.lock();
        let matching = all
            .values()
            .filter(|stored| filter.as_ref().is_none_or(|filter| filter.matches(*stored)));
        matching.map(|stored| stored.name.clone()).collect()
    }

    /// A cursor is the last identity before it.
    pub(crate) fn page(&self, request: EnumerateRequest) -> Result<EnumerateResponse, Status> {
        let filter = request.filter.as_ref().map(compiled);
        let after = request.pagination.unwrap_or_default().cursor;
        let all = self.0.lock();
        let matching: Vec<&Stored> = all
            .values()
            .filter(|stored| filter.as_ref().is_none_or(|filter| filter.matches(*stored)))
            .collect();
        let rest: Vec<&&Stored> = matching.iter().filter(|stored| stored.name > after).collect();
        let page = &rest[..rest.len().min(10)];
        Ok(EnumerateResponse {
            identities: page.iter().map(|stored| shown(stored)).collect(),
            total_count: matching.len() as i64,
            next_cursor: (rest.len() > 10).then(|| page[9].name.clone()),
            position: Some(answers::position(1)),
            ..Default::default()
        })
    }

    pub(crate) fn get(&self, name: &str) -> Result<pattern::GetResponse, Status> {
        let all = self.0.lock();
        let stored = all.get(name).ok_or_else(|| refused(Reason::NotRegistered))?;
        Ok(pattern::GetResponse {
            identity: Some(shown(stored)),
            position: Some(answers::position(1)),
        })
    }

    pub(crate) fn update(&self, request: &UpdateRequest) -> Result<pattern::UpdateResponse, Status> {
        let found = self.get(&request.identity)?.identity.unwrap();
        assert!(
            request.if_revision > 0 && request.generation.is_some(),
            "every update is fenced"
        );
        if found.revision != request.if_revision {
            return Err(refused(Reason::Conflict));
        }
        self.patch(request)
    }

    /// As [`update`](Self::update) for whoever does not mind others.
    pub(crate) fn patch(&self, request: &UpdateRequest) -> Result<pattern::UpdateResponse, Status> {
        self.get(&request.identity)?;
        let patch = Document::from_proto(&request.patch).unwrap();
        let before = self.0.lock()[&request.identity].document.clone();
        self.write(
            &request.identity,
            &merge_patch(&before, &patch).unwrap().to_value(),
        );
        Ok(pattern::UpdateResponse {
            identity: self.get(&request.identity)?.identity,
            position: Some(answers::position(2)),
        })
    }
}

fn compiled(filter: &pattern::Filter) -> prism_filter::Compiled {
    let filter = Filter::from_proto(filter, &Limits::default()).unwrap();
    filter.compile(&Limits::default()).unwrap()
}

pub(crate) fn shown(stored: &Stored) -> Identity {
    Identity {
        metadata: stored.document.to_proto(),
        revision: stored.revision,
        ttl_ms: stored.ttl_ms,
        expires_at: stored.ttl_ms.map(|_| answers::at(90)),
        ..answers::identity(&stored.name)
    }
}

pub(crate) fn refused(reason: Reason) -> Status {
    Failure::new(reason, "as the test wants it").not_applied().into()
}

/// As one of many is refused.
pub(crate) fn not_registered(reason: Reason) -> RegisterResponse {
    RegisterResponse {
        success: false,
        error: Some("as the test wants it".to_owned()),
        reason: reason.as_str().to_owned(),
        ..Default::default()
    }
}
