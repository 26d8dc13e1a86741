//! What is promised, per backend and combination: `docs/guarantees.md`, made from the capabilities.

use std::fmt::Write;

use prism_slot::{
    InboxCapability, LedgerCapability, MessagingCapability, RegistryCapability, Scope,
    capability::{AcceptedBy, Room, Survives},
    memory,
};

use crate::delivery::Load;

/// What each registry slot declares.
pub fn registries() -> Vec<RegistryCapability> {
    vec![
        memory::MemoryRegistry::CAPABILITY,
        #[cfg(feature = "redis")]
        prism_slot_redis::RedisRegistry::CAPABILITY,
        #[cfg(feature = "sqlite")]
        prism_slot_sqlite::SqliteRegistry::CAPABILITY,
    ]
}

/// What each messaging slot declares.
pub fn brokers() -> Vec<MessagingCapability> {
    vec![
        memory::MemoryMessaging::CAPABILITY,
        #[cfg(feature = "nats")]
        prism_slot_nats::CAPABILITY,
    ]
}

/// What each durability slot declares.
pub fn inboxes() -> Vec<InboxCapability> {
    vec![
        memory::MemoryInbox::CAPABILITY,
        #[cfg(feature = "nats")]
        prism_slot_nats::INBOX_CAPABILITY,
        #[cfg(feature = "redis")]
        prism_slot_redis::RedisInbox::CAPABILITY,
        #[cfg(feature = "sqlite")]
        prism_slot_sqlite::SqliteInbox::CAPABILITY,
    ]
}

/// What each ledger declares, and where it is.
pub fn ledgers() -> Vec<(&'static str, LedgerCapability)> {
    vec![
        ("in memory", memory::MemoryLedger::CAPABILITY),
        #[cfg(feature = "nats")]
        (
            "beside a durability slot on `nats`",
            prism_slot_nats::LEDGER_CAPABILITY,
        ),
        #[cfg(feature = "redis")]
        (
            "beside a slot on `redis` or `redis-stream`",
            prism_slot_redis::RedisLedger::CAPABILITY,
        ),
        #[cfg(feature = "sqlite")]
        (
            "beside a slot on `sqlite`",
            prism_slot_sqlite::SqliteLedger::CAPABILITY,
        ),
    ]
}

/// The page.
pub fn guarantees() -> String {
    let mut page = String::new();
    registry_section(&mut page);
    messaging_section(&mut page);
    durability_section(&mut page);
    ledger_section(&mut page);
    combinations(&mut page);
    page
}

/// Adds a line; writing to a text does not fail.
macro_rules! line {
    ($page:expr) => { $page.push('\n') };
    ($page:expr, $($text:tt)*) => { let _ = writeln!($page, $($text)*); };
}

fn registry_section(page: &mut String) {
    line!(page, "## Registry slots\n");
    line!(
        page,
        "| backend | who sees the same | an acknowledged write outlives | searches without a view |"
    );
    line!(page, "|---|---|---|---|");
    for slot in registries() {
        let (scope, survives) = (reach(slot.scope), outlives(slot.survives));
        let query = if slot.query {
            "in the store, in bounded steps"
        } else {
            "by reading everything"
        };
        line!(page, "| `{}` | {scope} | {survives} | {query} |", slot.backend);
    }
    line!(page);
}

fn messaging_section(page: &mut String) {
    line!(page, "## Messaging slots\n");
    line!(
        page,
        "| backend | who is reached | `ACCEPTED` says that | largest payload |"
    );
    line!(page, "|---|---|---|---|");
    for slot in brokers() {
        let accepted = match slot.accepted_by {
            AcceptedBy::ListenerQueue => "it lies in the queue of a session in the same process",
            AcceptedBy::Broker => "the broker has processed it and knew of a subscriber",
        };
        let (scope, size) = (reach(slot.scope), size(slot.max_payload));
        line!(page, "| `{}` | {scope} | {accepted} | {size} |", slot.backend);
    }
    line!(page);
}

fn durability_section(page: &mut String) {
    line!(page, "## Durability slots\n");
    line!(
        page,
        "| backend | who sees the same | a stored message outlives | `inbox_max_messages` counts | what expires, or makes room | largest payload |"
    );
    line!(page, "|---|---|---|---|---|---|");
    for slot in inboxes() {
        let room = match slot.room {
            Room::Inbox => "all of an inbox",
            Room::Priority => "those of each priority apart",
        };
        let losses = match slot.tells_losses {
            true => "is told: `FAILED` with `EXPIRED` or `DISPLACED`",
            false => "is not told: `TIMEOUT` once the message's time is over",
        };
        let (scope, survives, size) = (reach(slot.scope), outlives(slot.survives), size(slot.max_payload));
        line!(
            page,
            "| `{}` | {scope} | {survives} | {room} | {losses} | {size} |",
            slot.backend
        );
    }
    line!(page);
}

fn ledger_section(page: &mut String) {
    line!(page, "## The ledger\n");
    line!(
        page,
        "Where idempotency keys and receipts are kept, and what is to be stored until it is: beside the durability slot, else beside the registry slot, else in memory.\n"
    );
    line!(
        page,
        "| where | who sees the same | what is written outlives | largest payload of a message that is stored |"
    );
    line!(page, "|---|---|---|---|");
    for (place, ledger) in ledgers() {
        let (scope, survives) = (reach(ledger.scope), outlives(ledger.survives));
        let size = size(ledger.max_body - Load::ROOM);
        line!(page, "| {place} | {scope} | {survives} | {size} |");
    }
    line!(page);
}

fn combinations(page: &mut String) {
    line!(page, "## Combinations\n");
    line!(
        page,
        "Several runners serve a namespace at once where all its slots are shared; otherwise one does, and others stand by.\n"
    );
    line!(
        page,
        "| registry | messaging | durability | served by | delivery | a stored message outlives |"
    );
    line!(page, "|---|---|---|---|---|---|");
    for registry in registries() {
        for broker in brokers() {
            combination(page, &registry, &broker, None);
            for inbox in inboxes() {
                combination(page, &registry, &broker, Some(&inbox));
            }
        }
    }
    line!(page);
}

fn combination(
    page: &mut String,
    registry: &RegistryCapability,
    broker: &MessagingCapability,
    inbox: Option<&InboxCapability>,
) {
    let scope = registry
        .scope
        .min(broker.scope)
        .min(inbox.map_or(Scope::Shared, |inbox| inbox.scope));
    let served = match scope {
        Scope::Shared => "any number of runners",
        Scope::Host | Scope::Process => "one runner",
    };
    let (durability, delivery, survives) = match inbox {
        None => ("none".to_owned(), "at most once", "nothing is stored"),
        Some(inbox) => (
            format!("`{}`", inbox.backend),
            "all three",
            // Without its registration a message has nobody to go to; it waits for one, though.
            outlives(inbox.survives),
        ),
    };
    line!(
        page,
        "| `{}` | `{}` | {durability} | {served} | {delivery} | {survives} |",
        registry.backend,
        broker.backend
    );
}

fn reach(scope: Scope) -> &'static str {
    match scope {
        Scope::Process => "one process",
        Scope::Host => "the processes of one host",
        Scope::Shared => "every process",
    }
}

fn outlives(survives: Survives) -> &'static str {
    match survives {
        Survives::Nothing => "nothing",
        Survives::RunnerRestart => "the runners, and the backend's restart as its own persistence allows",
        Survives::BackendRestart => "the runners and the backend's restart",
    }
}

fn size(bytes: usize) -> String {
    match bytes {
        bytes if bytes >= 1 << 20 => format!("{} MiB", bytes >> 20),
        bytes => format!("{} KiB", bytes >> 10),
    }
}
