//! What peers outside this project speak stays as it is: names, numbers and types.

#![allow(clippy::unwrap_used, reason = "a test may end itself")]

use std::collections::BTreeMap;

use prost::Message;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

/// The messages of the control plane, whole.
const CONTROL: &str = "
    PatternMessage: 1 string correlation_id, 2 RegisterRequest register, 3 InitializeResponse initialize_response, 4 StartResponse start_response, 5 DrainResponse drain_response, 6 StopResponse stop_response, 7 HealthCheckResponse health_response, 8 HeartbeatMessage heartbeat
    ProxyCommand: 1 string correlation_id, 2 RegisterResponse register_ack, 3 InitializeRequest initialize, 4 StartRequest start, 5 DrainRequest drain, 6 StopRequest stop, 7 HealthCheckRequest health_check, 8 ShutdownRequest shutdown
    RegisterRequest: 1 string pattern_name, 2 string pattern_version, 3 int32 process_id, 4 PatternMetadata metadata, 16 bytes session_token, 17 repeated AppliedConfig applied
    AppliedConfig: 1 string namespace, 2 string applied_digest, 3 string rejected_digest
    RegisterResponse: 1 bool success, 2 string error, 3 string instance_id, 16 bytes session_token
    HeartbeatMessage: 1 int64 timestamp, 2 HealthStatus status, 16 bool draining
    ShutdownRequest: 1 int32 timeout_seconds, 2 string reason
    InitializeRequest: 1 string name, 2 string version, 3 Struct config, 16 bool remove, 17 int64 config_version, 18 string config_digest
    InitializeResponse: 1 bool success, 2 string error, 3 PatternMetadata metadata
    PatternMetadata: 1 string name, 2 string version, 3 repeated InterfaceDeclaration interfaces, 4 map<string, string> extra
    InterfaceDeclaration: 1 string name, 2 string proto_file, 3 string version, 4 string proto_hash, 5 map<string, string> metadata
    StartRequest:
    StartResponse: 1 bool success, 2 string error, 3 string data_endpoint
    DrainRequest: 1 int32 timeout_seconds, 2 string reason
    DrainResponse: 1 bool success, 2 string error, 3 int64 drained_operations, 4 int64 aborted_operations
    StopRequest: 1 int32 timeout_seconds
    StopResponse: 1 bool success, 2 string error
    HealthCheckRequest:
    HealthCheckResponse: 1 HealthStatus status, 2 string message, 3 map<string, string> details
";

/// The messages of the pattern as RFC-017 gives them: what is below 16.
const PATTERN: &str = "
    RegisterRequest: 1 string identity, 2 map<string, Value> metadata, 3 optional int64 ttl_seconds, 4 bool replace
    RegisterResponse: 1 bool success, 2 optional string error, 3 Timestamp registered_at, 4 optional Timestamp expires_at
    EnumerateRequest: 1 optional Filter filter, 2 optional Pagination pagination, 3 optional bool include_metadata, 4 repeated string sort_by
    EnumerateResponse: 1 repeated Identity identities, 2 int64 total_count, 3 optional string next_cursor
    Identity: 1 string identity, 2 map<string, Value> metadata, 3 Timestamp registered_at, 4 optional Timestamp expires_at
    MulticastRequest: 1 optional Filter filter, 2 bytes payload, 3 optional string content_type, 4 optional DeliverySemantics delivery, 5 optional int64 timeout_ms
    MulticastResponse: 1 int64 target_count, 2 int64 delivered_count, 3 repeated DeliveryStatus statuses
    DeliveryStatus: 1 string identity, 2 Status status, 3 optional string error
    UnregisterRequest: 1 string identity
    UnregisterResponse: 1 bool success, 2 optional string error
";

fn files(package: &str) -> Vec<FileDescriptorProto> {
    let all = FileDescriptorSet::decode(prism_proto::DESCRIPTORS).unwrap();
    all.file
        .into_iter()
        .filter(|file| file.package() == package)
        .collect()
}

/// `number [label] type name` of every field, by message.
fn messages(package: &str) -> BTreeMap<String, Vec<(i32, String)>> {
    let messages = files(package).into_iter().flat_map(|file| file.message_type);
    messages
        .map(|message| (message.name().to_owned(), fields(&message)))
        .collect()
}

fn fields(message: &DescriptorProto) -> Vec<(i32, String)> {
    let describe = |field: &FieldDescriptorProto| {
        let (number, name) = (field.number(), field.name());
        let text = match entry(message, field) {
            Some([key, value]) => format!("{number} map<{key}, {value}> {name}"),
            None if field.label() == Label::Repeated => format!("{number} repeated {} {name}", kind(field)),
            None if field.proto3_optional() => format!("{number} optional {} {name}", kind(field)),
            None => format!("{number} {} {name}", kind(field)),
        };
        (number, text)
    };
    message.field.iter().map(describe).collect()
}

/// Key and value of a map.
fn entry(message: &DescriptorProto, field: &FieldDescriptorProto) -> Option<[String; 2]> {
    let is_entry = |nested: &&DescriptorProto| {
        let map = nested.options.as_ref().is_some_and(|options| options.map_entry());
        map && field.type_name().ends_with(&format!(".{}", nested.name()))
    };
    let entry = message.nested_type.iter().find(is_entry)?;
    Some([kind(&entry.field[0]), kind(&entry.field[1])])
}

fn kind(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum => field
            .type_name()
            .rsplit('.')
            .next()
            .unwrap_or_default()
            .to_owned(),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}

fn table(text: &str) -> BTreeMap<String, Vec<String>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let row = |line: &str| {
        let (name, fields) = line.split_once(':').unwrap();
        // A comma inside a map's type is followed by no number.
        let mut list: Vec<String> = Vec::new();
        for part in fields.split(", ").map(str::trim).filter(|part| !part.is_empty()) {
            match list.last_mut() {
                Some(last) if !part.starts_with(|c: char| c.is_ascii_digit()) => {
                    *last += &format!(", {part}")
                }
                _ => list.push(part.to_owned()),
            }
        }
        (name.to_owned(), list)
    };
    lines.map(row).collect()
}

#[test]
fn the_control_plane_is_what_peers_speak() {
    let found: BTreeMap<String, Vec<String>> = messages("prism.interfaces")
        .into_iter()
        .map(|(name, fields)| (name, fields.into_iter().map(|(_, text)| text).collect()))
        .collect();
    assert_eq!(found, table(CONTROL));
    let status = values("prism.interfaces", "HealthStatus");
    let expected = [
        (0, "HEALTH_STATUS_UNSPECIFIED"),
        (1, "HEALTH_STATUS_HEALTHY"),
        (2, "HEALTH_STATUS_DEGRADED"),
        (3, "HEALTH_STATUS_UNHEALTHY"),
    ];
    assert_eq!(status, expected.map(|(number, name)| (number, name.to_owned())));
}

#[test]
fn the_pattern_keeps_the_specifications_numbers() {
    let found = messages("prism.pattern");
    for (name, expected) in table(PATTERN) {
        let below: Vec<String> = found[&name]
            .iter()
            .filter(|(number, _)| *number < 16)
            .map(|(_, text)| text.clone())
            .collect();
        assert_eq!(below, expected, "{name}");
    }
    let semantics = values("prism.pattern", "DeliverySemantics");
    let expected = [(1, "AT_MOST_ONCE"), (2, "AT_LEAST_ONCE"), (3, "EXACTLY_ONCE")];
    assert_eq!(
        semantics[1..],
        expected.map(|(number, name)| (number, name.to_owned()))
    );
    let statuses = values("prism.pattern", "Status");
    let expected = [(1, "PENDING"), (2, "FAILED"), (3, "TIMEOUT"), (4, "DELIVERED")];
    assert_eq!(
        statuses[1..],
        expected.map(|(number, name)| (number, name.to_owned()))
    );
}

/// The values of an enum, also of one inside a message. The first is the unset one.
fn values(package: &str, name: &str) -> Vec<(i32, String)> {
    let files = files(package);
    let nested = files.iter().flat_map(|file| &file.message_type);
    let all = files.iter().flat_map(|file| &file.enum_type);
    let mut all = all.chain(nested.flat_map(|message| &message.enum_type));
    let found = all.find(|found| found.name() == name).unwrap();
    let values: Vec<_> = found
        .value
        .iter()
        .map(|value| (value.number(), value.name().to_owned()))
        .collect();
    assert!(
        values[0].0 == 0 && values[0].1.ends_with("UNSPECIFIED"),
        "{values:?}"
    );
    values
}

/// Every method there is, with `stream` where there is one.
#[test]
fn the_methods_are_all_declared() {
    let describe = |package: &str| -> Vec<String> {
        let services = files(package).into_iter().flat_map(|file| file.service);
        services
            .flat_map(|service| {
                let name = service.name().to_owned();
                service.method.into_iter().map(move |method| {
                    let stream = |is: bool| if is { "stream " } else { "" };
                    let (from, to) = (method.client_streaming(), method.server_streaming());
                    format!("{name}.{} {}-> {}", method.name(), stream(from), stream(to))
                        .trim()
                        .to_owned()
                })
            })
            .collect()
    };
    assert_eq!(
        describe("prism.interfaces"),
        [
            "LifecycleInterface.Initialize ->",
            "LifecycleInterface.Start ->",
            "LifecycleInterface.Drain ->",
            "LifecycleInterface.Stop ->",
            "LifecycleInterface.HealthCheck ->",
            "ProxyControlPlane.ManagePattern stream -> stream",
        ]
    );
    let methods = describe("prism.pattern");
    let names: Vec<&str> = methods
        .iter()
        .filter_map(|method| method.strip_prefix("MulticastRegistryPattern."))
        .filter_map(|method| method.split(' ').next())
        .collect();
    let expected = [
        "Register",
        "RegisterMany",
        "Renew",
        "Update",
        "Get",
        "Enumerate",
        "Multicast",
        "MulticastStream",
        "GetMulticast",
        "CancelMulticast",
        "Unregister",
        "Subscribe",
        "Watch",
        "Explain",
        "CheckSchema",
        "ListDeadLetters",
        "RedriveDeadLetters",
    ];
    assert_eq!(names, expected);
    assert!(methods.contains(&"MulticastRegistryPattern.Subscribe stream -> stream".to_owned()));
}

#[test]
fn a_file_is_named_by_its_hash() {
    for (file, hash) in prism_proto::FILE_HASHES {
        assert_eq!(prism_proto::file_hash(file), Some(*hash));
        assert!(
            hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{hash}"
        );
    }
    assert_eq!(prism_proto::file_hash("prism/nothing.proto"), None);
}
