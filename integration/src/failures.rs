//! The part of `docs/guarantees.md` that says what holds when something fails: made from the cases that prove it and from
//! what the backends declare.

use std::fmt::Write;

use multicast_registry::config;
use prism_slot::conformance::failures::{self, Promise};

/// The section.
pub(crate) fn section() -> String {
    let mut page = String::from(include_str!("failures.md"));
    let (registries, brokers, inboxes) = (config::registries(), config::brokers(), config::inboxes());
    let ledgers: Vec<_> = config::ledgers().into_iter().map(|(_, ledger)| ledger).collect();
    let backends = registries.iter().map(|slot| slot.backend).collect();
    table(
        &mut page,
        "A registry slot",
        failures::registries(&registries),
        backends,
    );
    let backends = brokers.iter().map(|slot| slot.backend).collect();
    table(
        &mut page,
        "A messaging slot",
        failures::brokers(&brokers),
        backends,
    );
    let backends = inboxes.iter().map(|slot| slot.backend).collect();
    table(
        &mut page,
        "A durability slot",
        failures::inboxes(&inboxes),
        backends,
    );
    let backends = ledgers.iter().map(|slot| slot.backend).collect();
    table(&mut page, "The ledger", failures::ledgers(&ledgers), backends);
    page
}

fn table(page: &mut String, title: &str, promises: Vec<Promise>, backends: Vec<&str>) {
    let _ = writeln!(
        page,
        "\n### {title}\n\n| what happens | what holds | on |\n|---|---|---|"
    );
    for Promise { fault, holds, of } in promises.iter().filter(|promise| !promise.of.is_empty()) {
        let on: Vec<String> = of.iter().map(|place| format!("`{}`", backends[*place])).collect();
        let _ = writeln!(page, "| {fault} | {holds} | {} |", on.join(", "));
    }
}
