//! Sending a message.

mod follow;
mod groups;
mod show;

use std::{collections::HashMap, fs, io::Read, time::Duration};

use prism_client::SessionId;
use prism_core::shutdown;
use prism_proto::pattern::{DeliverySemantics, MulticastRequest, Priority, Stage};

use super::raw;
use crate::{
    cli::{
        Global,
        multicast::{Delivery, Publish},
    },
    exit::Exit,
    fault::{Fault, Stop},
    output::Output,
};

pub(super) use show::{answer, receipts_hint};

/// What following leaves of the deadline for the way back.
const ROUND_TRIP: Duration = Duration::from_secs(1);

pub(super) async fn publish(global: &Global, publish: &Publish, output: &mut Output) -> Result<Exit, Stop> {
    let request = request(publish)?;
    let key = request.idempotency_key.clone();
    send(global, publish, request, output)
        .await
        .map_err(|stop| stop.with_key(&key))
}

async fn send(
    global: &Global,
    publish: &Publish,
    request: MulticastRequest,
    output: &mut Output,
) -> Result<Exit, Stop> {
    let raw = raw(global)?;
    let interrupted =
        shutdown::signals().map_err(|error| Fault::internal(format!("cannot take signals: {error}")))?;
    if publish.dry_run {
        let answer = tokio::select! {
            answer = raw.multicast(request) => answer,
            _ = interrupted => return Ok(Exit::Interrupted),
        };
        return show::dry_run(&answer.map_err(|error| Stop::from(error).of_a_read())?, output);
    }
    if publish.follow {
        let request = MulticastRequest {
            timeout_ms: request.timeout_ms.or_else(|| Some(patience(global.deadline))),
            ..request
        };
        return follow::follow(&raw, request, publish, interrupted, output).await;
    }
    let answer = tokio::select! {
        answer = raw.multicast(request) => answer?,
        _ = interrupted => return Err(Fault::left().into()),
    };
    show::sent(&answer, publish, output)
}

/// Whoever follows a multicast waits for it as long as the deadline allows.
fn patience(deadline: Duration) -> i64 {
    let left = deadline.saturating_sub(ROUND_TRIP).max(deadline / 2);
    i64::try_from(left.as_millis()).unwrap_or(i64::MAX).max(1)
}

fn request(publish: &Publish) -> Result<MulticastRequest, Stop> {
    let key = match (&publish.idempotency_key, publish.delivery) {
        (Some(key), _) if key.is_empty() => {
            return Err(Fault::usage("idempotency-key", "an idempotency key has at least one byte").into());
        }
        (Some(key), _) => key.clone(),
        // By which our own attempts are recognised. Where these come to nothing, it is told for those after them.
        (None, Some(Delivery::Exactly)) => hex(SessionId::random()),
        (None, _) => String::new(),
    };
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    Ok(MulticastRequest {
        filter: publish.filter.clone(),
        payload: payload(&publish.payload)?.into(),
        content_type: publish.content_type.clone(),
        delivery: publish
            .delivery
            .map(|delivery| DeliverySemantics::from(delivery).into()),
        timeout_ms: publish.timeout,
        require: publish.require.map_or(0, |stage| Stage::from(stage).into()),
        idempotency_key: key,
        expires_in_ms: publish.expires.map(millis),
        priority: publish
            .priority
            .map_or(0, |priority| Priority::from(priority).into()),
        headers: headers(&publish.header)?,
        reply_to: publish.reply_to.clone().unwrap_or_default(),
        max_per_second: publish.max_per_second,
        batch_size: publish.batch_size,
        collect_replies: publish.collect_replies,
        min_replies: publish.min_replies,
        dry_run: publish.dry_run,
        ..Default::default()
    })
}

fn headers(given: &[(String, String)]) -> Result<HashMap<String, String>, Stop> {
    let mut headers = HashMap::new();
    for (name, value) in given {
        if headers.insert(name.clone(), value.clone()).is_some() {
            let message = format!("`{name}` is given twice, and a message has each header once");
            return Err(Fault::usage("header", message).into());
        }
    }
    Ok(headers)
}

fn hex(session: SessionId) -> String {
    format!("{:032x}", u128::from_be_bytes(session.0))
}

/// The content that an argument stands for: itself, `@` a file's, `-` that of stdin.
fn payload(argument: &str) -> Result<Vec<u8>, Stop> {
    let unreadable = |source: &str, error: std::io::Error| {
        Stop::from(Fault::usage("payload", format!("cannot read {source}: {error}")))
    };
    if argument == "-" {
        let mut content = Vec::new();
        let read = std::io::stdin().lock().read_to_end(&mut content);
        return read.map(|_| content).map_err(|error| unreadable("stdin", error));
    }
    match argument.strip_prefix('@') {
        Some(file) => fs::read(file).map_err(|error| unreadable(&format!("`{file}`"), error)),
        None => Ok(argument.as_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_the_text_unless_it_points_elsewhere() {
        assert_eq!(payload("hello").unwrap(), b"hello");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, b"\0from a file").unwrap();
        assert_eq!(
            payload(&format!("@{}", file.path().display())).unwrap(),
            b"\0from a file"
        );
        let Err(Stop::Fault(fault)) = payload("@/no/such/file") else {
            panic!()
        };
        assert_eq!(
            (fault.exit, fault.field.as_deref()),
            (Exit::Usage, Some("payload"))
        );
    }

    #[test]
    fn following_leaves_time_for_the_way_back() {
        assert_eq!(patience(Duration::from_secs(10)), 9_000);
        assert_eq!(patience(Duration::from_millis(500)), 250);
        assert_eq!(patience(Duration::from_millis(1)), 1);
    }
}
