//! The control stream's messages as commands and answers, and back.

use std::{collections::BTreeMap, time::Duration};

use prism_proto::interfaces::{
    self as proto, PatternMetadata, pattern_message::Message, proxy_command::Command as CommandMessage,
};

use super::{Answer, Command, Configuration, Drained, Health, HealthStatus, Initialized, Mark};
use crate::{
    id::Digest,
    structure::{self, Unfit},
};

/// A command as received.
pub fn command(message: Option<CommandMessage>) -> Command {
    match message {
        Some(CommandMessage::Initialize(request)) => initialize(request),
        Some(CommandMessage::Start(_)) => Command::Start,
        Some(CommandMessage::HealthCheck(_)) => Command::HealthCheck,
        Some(CommandMessage::Drain(request)) => drain(request),
        Some(CommandMessage::Stop(request)) => stop(request),
        Some(CommandMessage::Shutdown(request)) => Command::Shutdown {
            within: within(request.timeout_seconds),
            reason: request.reason,
        },
        // An acknowledgement is no command; one that nobody waits for asks for nothing.
        Some(CommandMessage::RegisterAck(_)) | None => Command::Unknown,
    }
}

/// An `Initialize` as received, on the stream or by a call.
pub fn initialize(request: proto::InitializeRequest) -> Command {
    if request.remove {
        return Command::Remove {
            namespace: request.name,
            version: request.config_version,
        };
    }
    let config = match structure::to_json(request.config.unwrap_or_default()) {
        Ok(config) => config,
        Err(unfit) => return Command::Invalid(format!("namespace `{}`: {unfit}", request.name)),
    };
    let digest = Digest::from_wire(&request.config_digest).unwrap_or_else(|| Digest::of(&config));
    Command::Initialize(Configuration {
        namespace: request.name,
        pattern_version: request.version,
        config,
        mark: Mark {
            version: request.config_version,
            digest,
        },
    })
}

/// A `Drain` as received.
pub fn drain(request: proto::DrainRequest) -> Command {
    Command::Drain {
        within: within(request.timeout_seconds),
        reason: request.reason,
    }
}

/// A `Stop` as received.
pub fn stop(request: proto::StopRequest) -> Command {
    Command::Stop {
        within: within(request.timeout_seconds),
    }
}

/// Zero and less mean that the sender has no opinion.
fn within(seconds: i32) -> Option<Duration> {
    u64::try_from(seconds)
        .ok()
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs)
}

/// A command to send.
///
/// # Errors
/// When the configuration holds a number that does not survive as a double.
pub fn command_message(command: Command) -> Result<CommandMessage, Unfit> {
    Ok(match command {
        Command::Initialize(configuration) => CommandMessage::Initialize(proto::InitializeRequest {
            name: configuration.namespace,
            version: configuration.pattern_version,
            config: Some(structure::from_json(&configuration.config)?),
            remove: false,
            config_version: configuration.mark.version,
            config_digest: configuration.mark.digest.to_string(),
        }),
        Command::Remove { namespace, version } => CommandMessage::Initialize(proto::InitializeRequest {
            name: namespace,
            remove: true,
            config_version: version,
            ..Default::default()
        }),
        Command::Start => CommandMessage::Start(proto::StartRequest {}),
        Command::HealthCheck | Command::Invalid(_) | Command::Unknown => {
            CommandMessage::HealthCheck(proto::HealthCheckRequest {})
        }
        Command::Drain { within, reason } => CommandMessage::Drain(proto::DrainRequest {
            timeout_seconds: seconds(within),
            reason,
        }),
        Command::Stop { within } => CommandMessage::Stop(proto::StopRequest {
            timeout_seconds: seconds(within),
        }),
        Command::Shutdown { within, reason } => CommandMessage::Shutdown(proto::ShutdownRequest {
            timeout_seconds: seconds(within),
            reason,
        }),
    })
}

/// Rounded up, so that a limit below one second does not become "no opinion".
fn seconds(within: Option<Duration>) -> i32 {
    let seconds = within.unwrap_or_default().as_millis().div_ceil(1_000);
    i32::try_from(seconds).unwrap_or(i32::MAX)
}

/// An answer as received.
pub fn answer(message: Option<Message>) -> Answer {
    match message {
        Some(Message::InitializeResponse(response)) => {
            let extra = response.metadata.unwrap_or_default().extra;
            let offer = Initialized {
                extra: extra.into_iter().collect(),
                ..Initialized::default()
            };
            Answer::Initialized(outcome(response.success, response.error, offer))
        }
        Some(Message::StartResponse(response)) => {
            Answer::Started(outcome(response.success, response.error, response.data_endpoint))
        }
        Some(Message::DrainResponse(response)) => Answer::Drained {
            counts: Drained {
                drained: response.drained_operations.try_into().unwrap_or_default(),
                aborted: response.aborted_operations.try_into().unwrap_or_default(),
            },
            error: outcome(response.success, response.error, ()).err(),
        },
        Some(Message::StopResponse(response)) => {
            Answer::Stopped(outcome(response.success, response.error, ()))
        }
        Some(Message::HealthResponse(response)) => Answer::Health(Health {
            status: health_status(response.status),
            message: response.message,
            details: response.details.into_iter().collect(),
        }),
        Some(Message::Register(_) | Message::Heartbeat(_)) | None => Answer::Unrecognised,
    }
}

fn outcome<T>(success: bool, error: String, value: T) -> Result<T, String> {
    match success {
        true => Ok(value),
        false if error.is_empty() => Err("the runner refused and gave no reason, look at its log".to_owned()),
        false => Err(error),
    }
}

/// An answer to send. `metadata` describes the plugin; what a namespace offers is added to it.
pub fn answer_message(answer: Answer, metadata: &PatternMetadata) -> Message {
    match answer {
        Answer::Initialized(outcome) => Message::InitializeResponse(initialize_response(outcome, metadata)),
        Answer::Started(outcome) => Message::StartResponse(start_response(outcome)),
        Answer::Drained { counts, error } => Message::DrainResponse(drain_response(counts, error)),
        Answer::Stopped(outcome) => Message::StopResponse(stop_response(outcome)),
        Answer::Health(health) => Message::HealthResponse(health_response(health)),
        Answer::Unrecognised => Message::HealthResponse(proto::HealthCheckResponse::default()),
    }
}

/// The answer to `Initialize`.
pub fn initialize_response(
    outcome: Result<Initialized, String>,
    metadata: &PatternMetadata,
) -> proto::InitializeResponse {
    let (success, error, offer) = split(outcome);
    let metadata = success.then(|| {
        let mut metadata = metadata.clone();
        metadata.extra.extend(offer.extra);
        metadata
    });
    proto::InitializeResponse {
        success,
        error,
        metadata,
    }
}

/// The answer to `Start`.
pub fn start_response(outcome: Result<String, String>) -> proto::StartResponse {
    let (success, error, data_endpoint) = split(outcome);
    proto::StartResponse {
        success,
        error,
        data_endpoint,
    }
}

/// The answer to `Drain`.
pub fn drain_response(counts: Drained, error: Option<String>) -> proto::DrainResponse {
    proto::DrainResponse {
        success: error.is_none(),
        error: error.unwrap_or_default(),
        drained_operations: counts.drained.try_into().unwrap_or(i64::MAX),
        aborted_operations: counts.aborted.try_into().unwrap_or(i64::MAX),
    }
}

/// The answer to `Stop` and `Shutdown`.
pub fn stop_response(outcome: Result<(), String>) -> proto::StopResponse {
    let (success, error, ()) = split(outcome);
    proto::StopResponse { success, error }
}

/// The answer to `HealthCheck`.
pub fn health_response(health: Health) -> proto::HealthCheckResponse {
    proto::HealthCheckResponse {
        status: health_status_message(health.status).into(),
        message: health.message,
        details: health.details.into_iter().collect(),
    }
}

fn split<T: Default>(outcome: Result<T, String>) -> (bool, String, T) {
    match outcome {
        Ok(value) => (true, String::new(), value),
        Err(error) => (false, error, T::default()),
    }
}

/// A status as received. A peer that reports without saying how it does is taken to do well.
pub fn health_status(status: i32) -> HealthStatus {
    match proto::HealthStatus::try_from(status) {
        Ok(proto::HealthStatus::Degraded) => HealthStatus::Degraded,
        Ok(proto::HealthStatus::Unhealthy) => HealthStatus::Unhealthy,
        Ok(proto::HealthStatus::Unspecified | proto::HealthStatus::Healthy) | Err(_) => HealthStatus::Healthy,
    }
}

/// A status to send.
pub fn health_status_message(status: HealthStatus) -> proto::HealthStatus {
    match status {
        HealthStatus::Healthy => proto::HealthStatus::Healthy,
        HealthStatus::Degraded => proto::HealthStatus::Degraded,
        HealthStatus::Unhealthy => proto::HealthStatus::Unhealthy,
    }
}

/// The one spelling of a pattern's name: peers write `multicast_registry` and `multicast-registry`.
pub fn canonical_pattern(name: &str) -> String {
    name.replace('_', "-")
}

/// The key under which a namespace's scope stands in `PatternMetadata.extra`.
pub fn scope_key(namespace: &str) -> String {
    format!("prism.scope.{namespace}")
}

/// The scopes of a plugin's namespaces, as a register message carries them beside the digests.
pub fn scope_entries<'a>(scopes: impl Iterator<Item = (&'a str, super::Scope)>) -> BTreeMap<String, String> {
    scopes
        .map(|(namespace, scope)| (scope_key(namespace), scope.as_str().to_owned()))
        .collect()
}
