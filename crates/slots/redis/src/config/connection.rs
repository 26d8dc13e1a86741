//! The part of the settings that every slot on Redis has: how to get to the data.

/// Declares settings: those of the connection, and then those of the slot. What is documented differently
/// from slot to slot is given.
macro_rules! with_connection {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $(#[$username:meta])*
            username,
            $(#[$pool_size:meta])*
            pool_size,
            $($(#[$own:meta])* pub $key:ident: $type:ty = $default:expr,)*
        }
    ) => {
        $(#[$meta])*
        ///
        /// Where the data is, is said by `address` (or `host` and `port`, or `addresses` of a cluster), `db` and
        /// `prefix`. Durations are texts like `500ms` or `5s`, or numbers of milliseconds. Sizes are texts
        /// like `64MiB`, or numbers of bytes. Shown and written without secrets.
        #[derive(Debug, Clone, PartialEq, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            /// Where Redis listens: `host`, `host:port`, or a URL like `redis://user:password@host:port/db`,
            /// with `rediss://` for TLS. Default `localhost:6379`.
            #[serde(alias = "addr")]
            pub address: Option<Address>,
            /// Another way to write `address`, with or without a port. Default none.
            pub host: Option<Address>,
            /// The port that belongs to `host`, or to an `address` without one. Default 6379.
            pub port: Option<u16>,
            /// Some nodes of a cluster, from which the others are found. Needs `cluster`. Default none.
            pub addresses: Vec<Address>,
            /// Whether this is a Redis Cluster. Default false.
            pub cluster: bool,
            $(#[$username])*
            pub username: Option<String>,
            /// The password. Default none.
            #[schemars(with = "String")]
            pub password: Secret,
            /// The number of the database; a cluster has only 0. Default 0.
            pub db: Option<u8>,
            /// What the names of all keys begin with, inside their hash tag. Default `prism:`.
            pub prefix: String,
            /// Whether to speak TLS. Default false, or true for an address with `rediss://`.
            pub tls: bool,
            /// A PEM file with the certificates of the authorities to trust with `tls`. Default the system's.
            pub ca_file: Option<PathBuf>,

            /// How often a call that certainly had no effect is tried again, within its deadline. Default 3.
            #[schemars(range(max = 100))]
            pub max_retries: u32,
            $(#[$pool_size])*
            #[schemars(range(min = 1, max = 256))]
            pub pool_size: usize,
            /// How long connecting may take, with TLS and authentication. Default `5s`.
            #[serde(deserialize_with = "duration_ms", serialize_with = "duration_text")]
            #[schemars(schema_with = "duration_schema")]
            pub dial_timeout: Duration,
            /// How long to wait for a reply before the connection is given up and its calls fail. Default
            /// `1500ms`.
            #[serde(deserialize_with = "duration_ms", serialize_with = "duration_text")]
            #[schemars(schema_with = "duration_schema")]
            pub read_timeout: Duration,
            /// How long what was written may stay unacknowledged by the peer's TCP before the connection is
            /// given up. Default `3s`.
            #[serde(deserialize_with = "duration_ms", serialize_with = "duration_text")]
            #[schemars(schema_with = "duration_schema")]
            pub write_timeout: Duration,
            /// How long a call waits for a connection while none is up. Default `1s`.
            #[serde(deserialize_with = "duration_ms", serialize_with = "duration_text")]
            #[schemars(schema_with = "duration_schema")]
            pub pool_timeout: Duration,

            $($(#[$own])* pub $key: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    address: None,
                    host: None,
                    port: None,
                    addresses: Vec::new(),
                    cluster: false,
                    username: None,
                    password: Secret::default(),
                    db: None,
                    prefix: "prism:".to_owned(),
                    tls: false,
                    ca_file: None,
                    max_retries: 3,
                    pool_size: 4,
                    dial_timeout: Duration::from_secs(5),
                    read_timeout: Duration::from_millis(1_500),
                    write_timeout: Duration::from_secs(3),
                    pool_timeout: Duration::from_secs(1),
                    $($key: $default,)*
                }
            }
        }

        impl $name {
            /// How to get to the data: what a ledger beside this slot needs to know.
            pub fn connection(&self) -> ConnectionConfig {
                ConnectionConfig {
                    address: self.address.clone(),
                    host: self.host.clone(),
                    port: self.port,
                    addresses: self.addresses.clone(),
                    cluster: self.cluster,
                    username: self.username.clone(),
                    password: self.password.clone(),
                    db: self.db,
                    prefix: self.prefix.clone(),
                    tls: self.tls,
                    ca_file: self.ca_file.clone(),
                    max_retries: self.max_retries,
                    pool_size: self.pool_size,
                    dial_timeout: self.dial_timeout,
                    read_timeout: self.read_timeout,
                    write_timeout: self.write_timeout,
                    pool_timeout: self.pool_timeout,
                }
            }

            /// What tells the data of one configuration from that of another: where it is, and under which
            /// names. Without secrets.
            ///
            /// # Errors
            /// [`prism_slot::Error::Misconfigured`], naming the key at fault.
            pub fn identity(&self) -> Result<String, prism_slot::Error> {
                Ok(format!("{} {}", self.target()?, self.prefix))
            }

            /// Checks what can be checked without a server.
            ///
            /// # Errors
            /// The first key at fault.
            pub fn validate(&self) -> Result<(), InvalidConfig> {
                self.target().map(drop)
            }

            /// Checks every value and resolves the several ways to write one.
            ///
            /// # Errors
            /// The first key at fault.
            pub(crate) fn target(&self) -> Result<Target, InvalidConfig> {
                self.check_own()?;
                self.connection().resolve()
            }
        }
    };
}
pub(super) use with_connection;
