//! Redis.

use std::{ffi::OsString, io, net::SocketAddr, path::Path};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::server::{Flavour, Server};

/// A real `redis-server`: 16 databases, `noeviction`, and no persistence unless asked for.
pub type RedisServer = Server<Redis>;

/// How to start `redis-server`.
#[derive(Debug)]
pub struct Redis {
    options: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Server<Redis> {
    /// Starts one that forgets everything when it stops.
    ///
    /// # Errors
    /// When `redis-server` is not installed (run `make deps`) or does not start.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts a replica of the server at `primary`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_replica_of(primary: SocketAddr) -> anyhow::Result<Self> {
        let (host, port) = (primary.ip().to_string(), primary.port().to_string());
        Self::start_with(&["--replicaof", &host, &port]).await
    }

    /// Starts one with further command line options, which take precedence over the usual ones.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(options: &[&str]) -> anyhow::Result<Self> {
        Self::start_in(options, &[]).await
    }

    /// The same in an environment of its own.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_in(options: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self::launch(Redis {
            options: options.iter().map(ToString::to_string).collect(),
            environment: environment.iter().map(pair).collect(),
        })
        .await
    }
}

impl Flavour for Redis {
    const PROGRAM: &'static str = "redis-server";
    const SCHEME: &'static str = "redis";

    fn arguments(&self, port: u16, dir: &Path) -> anyhow::Result<Vec<OsString>> {
        let port = port.to_string();
        let usual = ["--port", &port, "--bind", "127.0.0.1", "--save", ""];
        let more = [
            "--appendonly",
            "no",
            "--maxmemory-policy",
            "noeviction",
            "--repl-diskless-sync-delay",
            "0",
            "--dir",
        ];
        let mut arguments: Vec<OsString> = usual.iter().chain(&more).map(OsString::from).collect();
        arguments.push(dir.into());
        arguments.extend(self.options.iter().map(OsString::from));
        Ok(arguments)
    }

    fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    async fn greet(&self, stream: &mut TcpStream, _port: u16, pid: u32) -> io::Result<bool> {
        stream.write_all(b"PING\r\nINFO server\r\n").await?;
        let own = format!("process_id:{pid}\r\n");
        let mut answer = Vec::new();
        loop {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let text = String::from_utf8_lossy(&answer);
            // A server with a password refuses both, and is ready all the same.
            if text.starts_with("-NOAUTH") || (text.starts_with("+PONG") && text.contains(&own)) {
                return Ok(true);
            }
            if text.starts_with("-LOADING") {
                return Ok(false);
            }
        }
    }
}
