//! NATS.

use std::{ffi::OsString, fs, io, path::Path};

use anyhow::Context;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::server::{Flavour, Server};

/// A real `nats-server`, without JetStream unless the configuration asks for it.
pub type NatsServer = Server<Nats>;

/// How to start `nats-server`.
#[derive(Debug)]
pub struct Nats {
    config: String,
}

impl Server<Nats> {
    /// Starts one as it comes.
    ///
    /// # Errors
    /// When `nats-server` is not installed (run `make deps`) or does not start.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with("").await
    }

    /// Starts one with JetStream, whose folder is the server's own. What it has acknowledged is there after
    /// [`restart`](Self::restart).
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with_jetstream() -> anyhow::Result<Self> {
        Self::start_with("jetstream: enabled").await
    }

    /// Starts one with this content of its configuration file. Address, port, server name and
    /// JetStream's folder are given already.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(config: &str) -> anyhow::Result<Self> {
        Self::launch(Nats {
            config: config.to_owned(),
        })
        .await
    }
}

impl Flavour for Nats {
    const PROGRAM: &'static str = "nats-server";
    const SCHEME: &'static str = "nats";

    fn arguments(&self, port: u16, dir: &Path) -> anyhow::Result<Vec<OsString>> {
        let config = dir.join("nats.conf");
        fs::write(&config, &self.config).context("cannot write the server's configuration")?;
        Ok(vec![
            "--config".into(),
            config.into(),
            "--addr".into(),
            "127.0.0.1".into(),
            "--port".into(),
            port.to_string().into(),
            "--name".into(),
            name(port).into(),
            "--store_dir".into(),
            dir.join("jetstream").into(),
        ])
    }

    async fn greet(&self, stream: &mut TcpStream, port: u16, _pid: u32) -> io::Result<bool> {
        let (read, mut write) = stream.split();
        let mut lines = BufReader::new(read).lines();
        let info = lines.next_line().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if !info.contains(&format!("\"server_name\":\"{}\"", name(port))) {
            return Err(io::Error::other("somebody else listens on the port"));
        }
        // A server that wants TLS speaks no plain text beyond this point.
        if info.contains("\"tls_required\":true") {
            return Ok(true);
        }
        write
            .write_all(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\nPING\r\n")
            .await?;
        // Refusing strangers is being ready, too.
        while let Some(line) = lines.next_line().await? {
            if line.starts_with("PONG") || line.starts_with("-ERR") {
                return Ok(true);
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Tells this process's server from anybody else's on the same port.
fn name(port: u16) -> String {
    format!("test-{}-{port}", std::process::id())
}
