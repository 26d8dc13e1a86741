//! Where a proxy listens.

use std::fmt;

use http::{Uri, uri::Authority};

use crate::{Error, Result};

/// The port of a proxy's data endpoint.
pub(crate) const DEFAULT_PORT: u16 = 8980;

/// One address of the service: a host and a port, spoken to in plaintext HTTP/2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    host: String,
    port: u16,
}

impl Endpoint {
    /// Reads a comma-separated list of `http://host:port`, `host:port` or `host`.
    pub(crate) fn parse_list(text: &str) -> Result<Vec<Self>> {
        text.split(',').map(|item| Self::parse(item.trim())).collect()
    }

    fn parse(text: &str) -> Result<Self> {
        let refuse = |problem: &str| {
            Error::invalid(
                "endpoint",
                format!("`{text}` is not an endpoint: {problem}, expected `http://host:port` or `host:port`"),
            )
        };
        let authority = match text.split_once("://") {
            Some(("http", rest)) => rest.strip_suffix('/').unwrap_or(rest),
            Some(("https", _)) => return Err(refuse("this client speaks plaintext only")),
            Some((scheme, _)) => return Err(refuse(&format!("the scheme `{scheme}` is not known"))),
            None => text,
        };
        if authority.contains('@') {
            return Err(refuse("it must not carry a user name"));
        }
        let authority: Authority = authority
            .parse()
            .map_err(|_| refuse("the address cannot be read"))?;
        if authority.host().is_empty() {
            return Err(refuse("the host is missing"));
        }
        let port = match authority.as_str()[authority.host().len()..].strip_prefix(':') {
            None => DEFAULT_PORT,
            Some(port) => match port.parse() {
                Ok(port) if port != 0 => port,
                _ => return Err(refuse("the port must be a number from 1 to 65535")),
            },
        };
        Ok(Self {
            host: authority.host().to_owned(),
            port,
        })
    }

    /// Host, without the brackets of an IPv6 address, and port, as a socket wants them.
    pub(crate) fn address(&self) -> (&str, u16) {
        (self.host.trim_start_matches('[').trim_end_matches(']'), self.port)
    }

    /// As HTTP wants it.
    pub(crate) fn uri(&self) -> Result<Uri> {
        let uri = self.to_string();
        uri.parse()
            .map_err(|_| Error::invalid("endpoint", format!("`{uri}` is not an endpoint")))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_that_people_write_are_read() {
        for (text, uri, address) in [
            (
                "http://localhost:8980",
                "http://localhost:8980",
                ("localhost", 8980),
            ),
            (
                "http://localhost:8980/",
                "http://localhost:8980",
                ("localhost", 8980),
            ),
            (
                "proxy.example",
                "http://proxy.example:8980",
                ("proxy.example", 8980),
            ),
            ("10.0.0.1:9000", "http://10.0.0.1:9000", ("10.0.0.1", 9000)),
            ("[::1]:9000", "http://[::1]:9000", ("::1", 9000)),
            ("http://[::1]", "http://[::1]:8980", ("::1", 8980)),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(endpoint.to_string(), uri);
            assert_eq!(endpoint.address(), address);
            assert_eq!(endpoint.uri().unwrap(), uri);
        }
        let list = Endpoint::parse_list("a:1, http://b:2").unwrap();
        assert_eq!(
            list.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["http://a:1", "http://b:2"]
        );
    }

    #[test]
    fn what_cannot_be_dialled_is_refused_with_a_reason() {
        for (text, problem) in [
            ("", "the address cannot be read"),
            ("https://a:1", "plaintext only"),
            ("nats://a:1", "the scheme `nats` is not known"),
            ("a:0", "the port"),
            ("a:65536", "the port"),
            ("a:", "the port"),
            ("http://user@a:1", "user name"),
            ("http://a:1/path", "the address cannot be read"),
            ("a:1,,b:2", "the address cannot be read"),
        ] {
            let error = Endpoint::parse_list(text).unwrap_err();
            assert!(error.to_string().contains(problem), "`{text}`: {error}");
            assert_eq!(error.field(), Some("endpoint"));
        }
    }
}
