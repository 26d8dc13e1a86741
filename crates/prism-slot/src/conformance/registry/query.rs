//! Questions that the slot answers by itself.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use prism_filter::{Compiled, Filter, Limits};

use super::{Fixture, PAST_TTL, Register, Result, Subject, call, identity, leased, put, request};
use crate::{Call, Epoch, Error, Query, QueryPage, Record};

fn filter(json: &str) -> Option<Arc<Compiled>> {
    let limits = Limits::default();
    let filter = Filter::parse_str(json, &limits).unwrap();
    Some(Arc::new(filter.compile(&limits).unwrap()))
}

fn online() -> Option<Arc<Compiled>> {
    filter(r#"{"status": "online"}"#)
}

fn first_page(filter: Option<Arc<Compiled>>, limit: usize) -> Query {
    Query {
        filter,
        cursor: None,
        limit,
    }
}

fn with(name: &str, metadata: &str) -> Register {
    Register {
        metadata: Bytes::copy_from_slice(metadata.as_bytes()),
        ..request(name)
    }
}

impl Subject {
    async fn query(&self, query: Query) -> Result<QueryPage> {
        self.0.store.query(call(), query).await
    }

    /// All pages of a query.
    async fn pages(&self, filter: Option<Arc<Compiled>>, limit: usize) -> Vec<QueryPage> {
        let mut pages: Vec<QueryPage> = Vec::new();
        loop {
            let cursor = pages.last().and_then(|page| page.next.clone());
            let query = Query {
                cursor,
                ..first_page(filter.clone(), limit)
            };
            pages.push(self.query(query).await.unwrap());
            if pages.last().is_some_and(|page| page.next.is_none()) {
                return pages;
            }
            assert!(pages.len() < 10_000, "it has an end");
        }
    }

    async fn found(&self, filter: Option<Arc<Compiled>>) -> BTreeMap<String, Arc<Record>> {
        let pages = self.pages(filter, 100).await.into_iter();
        let records = pages.flat_map(|page| page.records);
        records
            .map(|record| (record.identity.to_string(), record))
            .collect()
    }

    /// Registers so many, of which one in ten is online.
    async fn fill(&self, count: usize) {
        let status = |number: usize| {
            if number.is_multiple_of(10) {
                "online"
            } else {
                "away"
            }
        };
        let metadata = |number| format!(r#"{{"status":"{}","number":{number}}}"#, status(number));
        let batch = (0..count).map(|number| with(&format!("id-{number}"), &metadata(number)));
        let registered = self.0.store.register(call(), batch.collect()).await;
        assert!(registered.iter().all(Result::is_ok));
    }
}

pub(super) async fn query_finds_every_match(fixture: Fixture) {
    let subject = fixture.open().await;
    assert!(subject.found(None).await.is_empty());
    subject.fill(700).await;
    let found = subject.found(online()).await;
    for number in (0..700).step_by(10) {
        let name = format!("id-{number}");
        let read = subject.get(&name).await.unwrap();
        assert_eq!(found.get(&name), Some(&read), "whole");
    }
    assert_eq!(
        subject.found(None).await.len(),
        700,
        "without a filter, everything"
    );
}

pub(super) async fn query_passes_others_over(fixture: Fixture) {
    let subject = fixture.open().await;
    subject.fill(700).await;
    let selected = subject.found(online()).await.len();
    assert!(
        selected < 700,
        "{selected} of 700 were sent for a filter that selects 70"
    );
}

pub(super) async fn query_reads_the_last_write(fixture: Fixture) {
    let subject = fixture.open().await;
    let registered = subject.register(request("a")).await.unwrap();
    assert!(subject.found(online()).await.contains_key("a"));
    subject.put(put("a", registered.position.revision)).await.unwrap();
    let away = filter(r#"{"status": "away"}"#);
    assert!(subject.found(away.clone()).await.contains_key("a"));
    subject.unregister("a", None).await.unwrap();
    assert!(subject.found(away).await.is_empty());
    let page = subject.query(first_page(None, 10)).await.unwrap();
    assert_eq!(page.head, subject.head().await);
}

pub(super) async fn query_never_serves_the_due(fixture: Fixture) {
    let subject = fixture.open().await;
    subject.register(leased("leased")).await.unwrap();
    subject.register(request("lasting")).await.unwrap();
    let live = subject.found(online()).await;
    assert_eq!(live["leased"], subject.get("leased").await.unwrap());
    subject.pass(PAST_TTL).await;
    let live = subject.found(online()).await;
    assert_eq!(live.keys().collect::<Vec<_>>(), ["lasting"]);
}

pub(super) async fn query_is_bounded(fixture: Fixture) {
    let subject = fixture.open().await;
    subject.fill(700).await;
    let pages = subject.pages(online(), 50).await;
    let most = pages.iter().map(|page| page.examined).max().unwrap();
    assert!(
        most <= 100,
        "{most} records were looked at where 50 were asked for"
    );
    let all: u64 = pages.iter().map(|page| page.examined).sum();
    assert!(all >= 700, "{all} of 700");
}

pub(super) async fn query_stays_in_its_epoch(fixture: Fixture) {
    let subject = fixture.open().await;
    subject.fill(300).await;
    let page = subject.query(first_page(None, 10)).await.unwrap();
    let current = page.head.epoch;
    let other = Call {
        epoch: Some(Epoch(current.0 ^ 1)),
        ..call()
    };
    for cursor in [None, page.next] {
        let query = Query {
            cursor,
            ..first_page(None, 10)
        };
        let refused = subject.0.store.query(other, query).await;
        assert_eq!(refused, Err(Error::EpochChanged { current }));
    }
}

pub(super) async fn query_needs_the_capability(fixture: Fixture) {
    let subject = fixture.open().await;
    subject.register(request("a")).await.unwrap();
    let refused = subject.query(first_page(None, 10)).await.unwrap_err();
    assert!(matches!(refused, Error::Unsupported { .. }), "{refused:?}");
    assert!(subject.0.store.get(call(), identity("a")).await.is_ok());
}
